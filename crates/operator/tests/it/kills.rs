//! kill -9 of the operator at random moments, while resources and their objects are made, changed and taken away. Whatever it
//! was about, the next one goes on from what is in the cluster.

use std::time::{Duration, Instant};

use kube_client::Client;
use kube_client::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use operator::apply::Cluster;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cluster::{World, eventually, settings};
use crate::process::{Operator, play_controllers, resource};

/// Namespaces with a set of resources each.
const NAMESPACES: usize = 3;
/// How often it is killed, times the factor of a soak.
const KILLS: u32 = 8;

/// Seconds, for which a busy API server may take to answer.
const LEASE: u16 = 6;

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn api(admin: &Client, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let (group, version) = match kind {
        "StatefulSet" | "DaemonSet" | "Deployment" => ("apps", "v1"),
        "Service" | "ConfigMap" | "ServiceAccount" => ("", "v1"),
        "RoleBinding" | "ClusterRoleBinding" => ("rbac.authorization.k8s.io", "v1"),
        _ => ("adx-mon.azure.com", "v1"),
    };
    let resource = resource(group, version, kind);
    match kind {
        "ClusterRoleBinding" => Api::all_with(admin.clone(), &resource),
        _ => Api::namespaced_with(admin.clone(), namespace, &resource),
    }
}

/// The resources of a namespace.
fn resources() -> [(&'static str, &'static str, Value); 4] {
    let selector = json!({"matchLabels": {"app": "adx-mon"}});
    let databases = json!([{"databaseName": "Metrics", "telemetryType": "Metrics"}, {"databaseName": "Logs", "telemetryType": "Logs"}]);
    [
        ("ADXCluster", "adx", json!({"clusterName": "adx", "local": {}, "databases": databases})),
        ("Ingestor", "ingestor", json!({"adxClusterSelector": selector})),
        ("Collector", "collector", json!({})),
        ("Alerter", "alerter", json!({"adxClusterSelector": selector, "notificationEndpoint": "http://receiver.mon:8080"})),
    ]
}

/// Makes those that are not there.
async fn make(admin: &Client, namespace: &str) {
    for (kind, name, spec) in resources() {
        let meta = json!({"name": name, "namespace": namespace, "labels": {"app": "adx-mon"}});
        let object = json!({"apiVersion": "adx-mon.azure.com/v1", "kind": kind, "metadata": meta, "spec": spec});
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        // One that is about to go is in the way: the next round makes it.
        let _ = api(admin, kind, namespace).create(&PostParams::default(), &object).await;
    }
}

/// One change, by the owner of a resource or by somebody who should not.
async fn change(admin: &Client, random: &mut Random) {
    let namespace = format!("n{}", random.below(NAMESPACES as u64));
    let number = random.below(4);
    let patch = async |kind: &str, name: &str, patch: Value| {
        // What is not there yet cannot be changed.
        let _ = api(admin, kind, &namespace).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    };
    let delete = async |kind: &str, name: &str| drop(api(admin, kind, &namespace).delete(name, &DeleteParams::default()).await);
    match random.below(12) {
        0..3 => {
            patch("Ingestor", "ingestor", json!({"spec": {"replicas": 1 + number, "exposeExternally": number.is_multiple_of(2)}})).await
        }
        3 => patch("Ingestor", "ingestor", json!({"spec": {"storage": {"size": format!("{}Gi", 20 + number)}}})).await,
        4 => {
            let events = if number.is_multiple_of(2) { json!({}) } else { Value::Null };
            patch("Collector", "collector", json!({"spec": {"kubernetesEvents": events}})).await;
        }
        5 => patch("Alerter", "alerter", json!({"spec": {"image": format!("reg/alerter:{number}")}})).await,
        6 => patch("StatefulSet", "ingestor", json!({"spec": {"replicas": 9}})).await,
        7 => patch("ConfigMap", "collector-config", json!({"data": {"config.toml": "broken"}})).await,
        8 => delete("Service", "ingestor").await,
        9 => delete("ClusterRoleBinding", &format!("{namespace}:ingestor")).await,
        10 => delete("Alerter", "alerter").await,
        _ => make(admin, &namespace).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_it_was_about_the_next_goes_on() {
    let Some(world) = World::start().await else { return };
    let (admin, kubeconfig) = (world.admin.clone(), world.kubeconfig.clone());
    for at in 0..NAMESPACES {
        world.server.create(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: n{at}}}}}")).await.unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("operator.log");
    let stop = CancellationToken::new();
    let (controllers, changes) = (stop.clone(), stop.child_token());
    let playing = tokio::spawn({
        let admin = admin.clone();
        async move { controllers.run_until_cancelled(play_controllers(admin)).await }
    });
    let changing = tokio::spawn({
        let (admin, changes) = (admin.clone(), changes.clone());
        async move {
            let mut random = Random(0x2545_f491_4f6c_dd1d);
            let mut made = 0;
            while !changes.is_cancelled() {
                change(&admin, &mut random).await;
                made += 1;
                tokio::time::sleep(Duration::from_millis(random.below(250))).await;
            }
            made
        }
    });

    let factor = std::env::var("ADXMON_SOAK").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut operator = Operator::start(&kubeconfig, &log, LEASE);
    for _ in 0..KILLS * factor {
        // In the midst of its start, of the election, of the first looks, or of a change.
        tokio::time::sleep(Duration::from_millis(random.below(9000))).await;
        operator.kill();
        operator = Operator::start(&kubeconfig, &log, LEASE);
    }
    changes.cancel();
    let made = changing.await.unwrap();
    let started = Instant::now();
    for at in 0..NAMESPACES {
        // An Alerter that is about to go, goes first.
        let namespace = format!("n{at}");
        eventually(async || {
            make(&admin, &namespace).await;
            let alerter = api(&admin, "Alerter", &namespace).get_opt("alerter").await.unwrap();
            let there = alerter.is_some_and(|alerter| alerter.metadata.deletion_timestamp.is_none());
            if there { Ok(()) } else { Err(format!("the Alerter of {namespace} does not go")) }
        })
        .await;
    }
    let cluster = Cluster::new(admin.clone()).await.unwrap();
    eventually(async || converged(&admin, &cluster).await).await;
    eprintln!("{} kills, {made} changes; all is as it shall be {:?} after the last", KILLS * factor, started.elapsed());
    stop.cancel();
    playing.await.unwrap();
}

/// Every resource is ready as it is now, nothing differs from what it asks for, and no binding is left of what is gone.
async fn converged(admin: &Client, cluster: &Cluster) -> Result<(), String> {
    for namespace in (0..NAMESPACES).map(|at| format!("n{at}")) {
        for (kind, name, _) in resources() {
            let object = api(admin, kind, &namespace).get(name).await.map_err(|error| format!("{kind} {namespace}/{name}: {error}"))?;
            let object = serde_json::to_value(object).unwrap();
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let of = |type_: &str| conditions.iter().find(|condition| condition["type"] == type_).cloned().unwrap_or_default();
            let owner = of(&format!("{}.adx-mon.azure.com", kind.to_lowercase()));
            let ready = ["Ready", "ClusterReady"].iter().any(|reason| owner["reason"] == *reason) && owner["status"] == "True";
            if !ready || owner["observedGeneration"] != object["metadata"]["generation"] {
                return Err(format!("{kind} {namespace}/{name}: {owner}"));
            }
        }
        let ingestor = api(admin, "Ingestor", &namespace).get("ingestor").await.unwrap();
        let outside = api(admin, "Service", &namespace).get_opt("ingestor-external").await.unwrap();
        if outside.is_some() != (ingestor.data["spec"]["exposeExternally"] == true) {
            return Err(format!("the Service ingestor-external of {namespace} is not as the Ingestor says"));
        }
    }
    let resources = operator::diff::resources(admin, None).await.map_err(|error| error.to_string())?;
    let differences = operator::diff::differences(cluster, &resources, &settings()).await.map_err(|error| error.to_string())?;
    if !differences.is_empty() {
        return Err(differences);
    }
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=adx-mon-operator");
    let bindings = api(admin, "ClusterRoleBinding", "").list(&ours).await.map_err(|error| error.to_string())?;
    // Ingestor, Alerter, Collector and its metrics; events where they are stored.
    let names: Vec<String> = bindings.items.into_iter().filter_map(|binding| binding.metadata.name).collect();
    let events = names.iter().filter(|name| name.ends_with("-events")).count();
    if names.len() - events == 4 * NAMESPACES { Ok(()) } else { Err(format!("bindings: {names:?}")) }
}
