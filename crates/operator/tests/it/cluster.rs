//! The operator on a real API server, with the rights of `deploy/rbac` and no others. There are no controllers: the tests
//! say when pods are ready.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use azure_arm::Arm;
use azure_testing::resource_manager::{Pace, ResourceManager};
use crds::AdxCluster;
use crds::criteria::Labels;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec};
use k8s_openapi::api::core::v1::Event;
use kube_client::Client;
use kube_client::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube_client::core::{ApiResource, GroupVersionKind};
use kube_testing::ApiServer;
use lease::Timing;
use operator::apply::Cluster;
use operator::reconcile::{NoAzure, Provisioned, Provisioner};
use operator::render::Settings;
use operator::{Config, Running};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::samples;

/// How long anything may take: seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(180);
const LAPTOP: &str = include_str!("laptop.yaml");

pub(crate) struct World {
    pub(crate) server: ApiServer,
    pub(crate) admin: Client,
    /// The operator's.
    pub(crate) kubeconfig: PathBuf,
}

impl World {
    /// An API server with our CRDs and the shipped rights, and a namespace for resources.
    pub(crate) async fn start() -> Option<Self> {
        server::install_crypto();
        server::init_logging();
        let server = kube_testing::start(&[]).await?;
        server.install_crds().await.unwrap();
        server.create("{apiVersion: v1, kind: Namespace, metadata: {name: adx-mon}}").await.unwrap();
        server.create("{apiVersion: v1, kind: Namespace, metadata: {name: mon}}").await.unwrap();
        server.create(include_str!("../../../../deploy/rbac/operator-roles.yaml")).await.unwrap();
        server.create(include_str!("../../../../deploy/rbac/operator.yaml")).await.unwrap();
        let admin = server.admin().await;
        let kubeconfig = server.service_account("adx-mon", "operator").await.unwrap();
        let world = Self { server, admin, kubeconfig };
        world.rights_are_known("adx-mon").await;
        Some(world)
    }

    /// The server learns of roles a moment after they are made.
    pub(crate) async fn rights_are_known(&self, namespace: &str) {
        let client = kube_watch::connect(Some(&self.kubeconfig)).await.unwrap().unwrap();
        let spec = SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) };
        let review = SelfSubjectRulesReview { spec, ..SelfSubjectRulesReview::default() };
        eventually(async || {
            let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await.map_err(|error| error.to_string())?;
            let rights = serde_json::to_string(&answer.status).unwrap();
            let known = ["ingestors", "leases"].iter().all(|right| rights.contains(right));
            if known { Ok(()) } else { Err(rights) }
        })
        .await;
    }

    pub(crate) async fn operator(&self, stop: &CancellationToken) -> Running {
        self.operator_with(stop, Arc::new(NoAzure)).await
    }

    async fn operator_with(&self, stop: &CancellationToken, provisioner: Arc<dyn Provisioner>) -> Running {
        let mut config = Config::new(settings());
        config.provisioner = provisioner;
        config.kubeconfig = Some(self.kubeconfig.clone());
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.election =
            Timing { valid: Duration::from_secs(20), renew_within: Duration::from_secs(15), retry: Duration::from_millis(300) };
        operator::start(config, stop.clone()).await.unwrap()
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let (group, version, plural) = match kind {
            "ADXCluster" | "Ingestor" | "Collector" | "Alerter" | "MetricsExporter" => {
                ("adx-mon.azure.com", "v1", format!("{}s", kind.to_lowercase()))
            }
            "StatefulSet" | "DaemonSet" | "Deployment" => ("apps", "v1", format!("{}s", kind.to_lowercase())),
            "Service" | "ConfigMap" | "ServiceAccount" => ("", "v1", format!("{}s", kind.to_lowercase())),
            "RoleBinding" | "ClusterRoleBinding" | "ClusterRole" => {
                ("rbac.authorization.k8s.io", "v1", format!("{}s", kind.to_lowercase()))
            }
            other => panic!("{other}"),
        };
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &plural);
        match kind.starts_with("Cluster") {
            true => Api::all_with(self.admin.clone(), &resource),
            false => Api::namespaced_with(self.admin.clone(), "mon", &resource),
        }
    }

    pub(crate) async fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let found = self.api(kind).get_opt(name).await.unwrap();
        found.map(|object| serde_json::to_value(object).unwrap())
    }

    /// The object, once it is as wished for.
    pub(crate) async fn until(&self, kind: &str, name: &str, wish: impl Fn(&Value) -> bool) -> Value {
        eventually(async || match self.get(kind, name).await {
            Some(object) if wish(&object) => Ok(object),
            other => Err(format!("{kind} {name} is not as wished for: {other:?}")),
        })
        .await
    }

    pub(crate) async fn gone(&self, kind: &str, name: &str) {
        eventually(async || match self.get(kind, name).await {
            None => Ok(()),
            Some(object) => Err(format!("{kind} {name} is still there: {object}")),
        })
        .await;
    }

    /// The resource, once the condition of its kind has this reason, with this in its message.
    pub(crate) async fn reason(&self, kind: &str, name: &str, reason: &str, part: &str) -> Value {
        let type_ = format!("{}.adx-mon.azure.com", kind.to_lowercase());
        self.until(kind, name, |object| {
            let found = condition(object, &type_);
            found["reason"] == reason && found["message"].as_str().unwrap_or_default().contains(part)
        })
        .await
    }

    async fn patch(&self, kind: &str, name: &str, patch: Value) {
        self.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Plays the controller of a workload: all pods are ready, as its spec has them now.
    pub(crate) async fn make_ready(&self, kind: &str, name: &str) {
        let object = self.until(kind, name, |_| true).await;
        let wanted = object["spec"]["replicas"].as_i64().unwrap_or(2);
        let status = match kind {
            "DaemonSet" => json!({
                "desiredNumberScheduled": wanted, "numberReady": wanted, "updatedNumberScheduled": wanted,
                "currentNumberScheduled": wanted, "numberMisscheduled": 0,
            }),
            _ => json!({"replicas": wanted, "readyReplicas": wanted, "updatedReplicas": wanted}),
        };
        let mut status = json!({"status": status});
        status["status"]["observedGeneration"] = object["metadata"]["generation"].clone();
        self.api(kind).patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }

    async fn create(&self, text: &str) {
        self.server.create(text).await.unwrap();
    }

    /// All of the laptop's resources, with all pods ready.
    pub(crate) async fn all_ready(&self) {
        for (kind, name) in [("StatefulSet", "adx"), ("StatefulSet", "ingestor"), ("DaemonSet", "collector"), ("Deployment", "alerter")] {
            self.make_ready(kind, name).await;
        }
        self.make_ready("Deployment", "collector-exporter").await;
        self.reason("ADXCluster", "adx", "ClusterReady", "").await;
        for (kind, name) in [("Ingestor", "ingestor"), ("Collector", "collector"), ("Alerter", "alerter")] {
            self.reason(kind, name, "Ready", "").await;
        }
    }

    /// Requests that were refused for want of rights.
    pub(crate) async fn forbidden(&self) -> Vec<String> {
        let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
        let text = self.admin.request_text(request).await.unwrap();
        let refused = |line: &&str| line.starts_with("apiserver_request_total{") && line.contains("code=\"403\"");
        text.lines().filter(refused).map(str::to_owned).collect()
    }
}

pub(crate) fn settings() -> Settings {
    Settings { labels: [("region", "eastus")].into_iter().collect::<Labels>(), ..Settings::default() }
}

fn condition<'a>(object: &'a Value, type_: &str) -> &'a Value {
    object["status"]["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == type_).unwrap_or(&Value::Null)
}

pub(crate) async fn eventually<T>(check: impl AsyncFn() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match check().await {
            Ok(value) => return value,
            Err(why) if Instant::now() > deadline => panic!("{why}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_an_empty_cluster_to_all_objects_and_kept_so() {
    let Some(world) = World::start().await else { return };
    let refused = world.forbidden().await;
    let stop = CancellationToken::new();
    let running = world.operator(&stop).await;
    world.create(LAPTOP).await;

    each_waits_for_the_one_before(&world).await;
    edits_roll_out(&world).await;
    drift_is_put_right(&world).await;
    options_come_and_go(&world).await;
    names_that_are_taken_are_told(&world).await;
    a_diff_shows_what_differs(&world).await;
    events_tell_what_was_done(&world).await;
    what_is_deleted_leaves_no_rights(&world).await;
    assert!(served(&running, "/readyz").await.ends_with("ok"));
    let metrics = served(&running, "/metrics").await;
    for line in [
        "adxmon_operator_leading 1",
        "adxmon_operator_changes_total{action=\"Recreated\"} ",
        "adxmon_operator_reconciliations_total{kind=\"Ingestor\",outcome=\"success\"} ",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }

    stop.cancel();
    running.finished().await.unwrap();
    assert_eq!(world.forbidden().await, refused, "requests that the rights do not allow");
}

async fn each_waits_for_the_one_before(world: &World) {
    world.reason("Ingestor", "ingestor", "NotReady", "waiting for ADXCluster adx: ").await;
    world.reason("Alerter", "alerter", "NotReady", "waiting for ADXCluster adx: ").await;
    world.reason("Collector", "collector", "NotReady", "waiting for Ingestor ingestor: none of its pods is ready").await;
    let waiting = world.reason("ADXCluster", "adx", "Waiting", "0 of 1").await;
    assert_eq!(condition(&waiting, "adxcluster.adx-mon.azure.com")["status"], "Unknown");
    for (kind, name) in [("StatefulSet", "ingestor"), ("DaemonSet", "collector"), ("Deployment", "alerter")] {
        assert_eq!(world.get(kind, name).await, None, "{kind} {name}");
    }

    world.make_ready("StatefulSet", "adx").await;
    let cluster = world.reason("ADXCluster", "adx", "ClusterReady", "").await;
    assert_eq!(cluster["status"]["endpoint"], "http://adx.mon.svc.cluster.local:8080");

    let ingestor = world.reason("Ingestor", "ingestor", "WaitForReady", "0 of 1").await;
    assert_eq!(condition(&ingestor, "Ready")["status"], "False");
    assert_eq!(condition(&ingestor, "SecurityReady")["reason"], "SecurityMigrationComplete");
    assert_eq!(ingestor["status"]["observedGeneration"], ingestor["metadata"]["generation"]);
    assert_eq!(world.get("DaemonSet", "collector").await, None);
    world.make_ready("StatefulSet", "ingestor").await;
    let ingestor = world.reason("Ingestor", "ingestor", "Ready", "1 of 1").await;
    assert_eq!((&ingestor["status"]["replicas"], &ingestor["status"]["readyReplicas"]), (&json!(1), &json!(1)));
    assert_eq!(condition(&ingestor, "Ready")["status"], "True");

    world.reason("Alerter", "alerter", "NotReady", "waiting for Collector collector: none of its pods is ready").await;
    world.make_ready("DaemonSet", "collector").await;
    world.make_ready("Deployment", "collector-exporter").await;
    let collector = world.reason("Collector", "collector", "Ready", "").await;
    assert_eq!(condition(&collector, "MetricsExport")["status"], "True");
    world.make_ready("Deployment", "alerter").await;
    world.reason("Alerter", "alerter", "Ready", "1 of 1").await;
}

async fn edits_roll_out(world: &World) {
    world.patch("Ingestor", "ingestor", json!({"spec": {"image": "reg/ingestor:2", "replicas": 3}})).await;
    let wished =
        |set: &Value| set["spec"]["replicas"] == 3 && set["spec"]["template"]["spec"]["containers"][0]["image"] == "reg/ingestor:2";
    world.until("StatefulSet", "ingestor", wished).await;
    // Not ready before the new pods are there, which the reference says it is.
    let ingestor = world.reason("Ingestor", "ingestor", "WaitForReady", "1 of 3").await;
    assert_eq!(ingestor["status"]["observedGeneration"], ingestor["metadata"]["generation"]);
    world.make_ready("StatefulSet", "ingestor").await;
    world.reason("Ingestor", "ingestor", "Ready", "3 of 3").await;
    // The databases of the cluster are arguments of those who write to it.
    let databases = json!([{"databaseName": "Metrics", "telemetryType": "Metrics"}, {"databaseName": "Other", "telemetryType": "Logs"}]);
    world.patch("ADXCluster", "adx", json!({"spec": {"databases": databases}})).await;
    let has = |object: &Value| object["spec"]["template"]["spec"]["containers"][0]["args"].to_string().contains("Other=http://adx.mon");
    world.until("StatefulSet", "ingestor", has).await;
    world.until("Deployment", "alerter", has).await;
    // The size of a volume cannot be changed in place.
    let before = world.get("StatefulSet", "ingestor").await.unwrap();
    world.patch("Ingestor", "ingestor", json!({"spec": {"storage": {"size": "30Gi"}}})).await;
    // The garbage collector lets go of its pods.
    let going = world.until("StatefulSet", "ingestor", |set| set["metadata"]["deletionTimestamp"].is_string()).await;
    assert_eq!(going["metadata"]["finalizers"], json!(["orphan"]));
    world.patch("StatefulSet", "ingestor", json!({"metadata": {"finalizers": null}})).await;
    let size = |set: &Value| set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "30Gi";
    let after = world.until("StatefulSet", "ingestor", size).await;
    assert_ne!(before["metadata"]["uid"], after["metadata"]["uid"]);
}

async fn drift_is_put_right(world: &World) {
    let before = world.get("DaemonSet", "collector").await.unwrap();
    let foreign = json!({"spec": {"template": {"spec": {"containers": [{"name": "collector", "image": "evil:1", "args": ["--x"]}]}}}});
    world.api("DaemonSet").patch("collector", &PatchParams::default(), &Patch::Strategic(foreign)).await.unwrap();
    world.until("DaemonSet", "collector", |set| set["spec"]["template"] == before["spec"]["template"]).await;
    // Whoever else applies a field by force loses it again.
    let foreign = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "collector-config"}, "data": {"config.toml": "x"}});
    let force = PatchParams::apply("somebody").force();
    world.api("ConfigMap").patch("collector-config", &force, &Patch::Apply(&foreign)).await.unwrap();
    world.until("ConfigMap", "collector-config", |map| map["data"]["config.toml"].as_str().is_some_and(|text| text.len() > 100)).await;
    for (kind, name) in
        [("Service", "ingestor"), ("ServiceAccount", "alerter"), ("ClusterRoleBinding", "mon:ingestor"), ("RoleBinding", "alerter")]
    {
        let before = world.get(kind, name).await.unwrap();
        world.api(kind).delete(name, &DeleteParams::default()).await.unwrap();
        world.until(kind, name, |object| object["metadata"]["uid"] != before["metadata"]["uid"]).await;
    }
    // A binding to another role, and an object that lost the labels by which it is known.
    let before = world.get("ClusterRoleBinding", "mon:alerter").await.unwrap();
    world.api("ClusterRoleBinding").delete("mon:alerter", &DeleteParams::default()).await.unwrap();
    let mut other = before.clone();
    other["roleRef"]["name"] = "cluster-admin".into();
    other["metadata"] = json!({"name": "mon:alerter"});
    let other: DynamicObject = serde_json::from_value(other).unwrap();
    // The operator may be faster, then there is nothing to show.
    drop(world.api("ClusterRoleBinding").create(&PostParams::default(), &other).await);
    world.patch("Alerter", "alerter", json!({"spec": {"image": "reg/alerter:2"}})).await;
    world.until("ClusterRoleBinding", "mon:alerter", |binding| binding["roleRef"] == before["roleRef"]).await;
    world.patch("Service", "collector", json!({"metadata": {"labels": null, "ownerReferences": null}})).await;
    world.until("Service", "collector", |service| service["metadata"]["ownerReferences"][0]["name"] == "collector").await;
}

async fn options_come_and_go(world: &World) {
    world.patch("Ingestor", "ingestor", json!({"spec": {"exposeExternally": true}})).await;
    world.until("Service", "ingestor-external", |service| service["spec"]["type"] == "LoadBalancer").await;
    world.patch("Ingestor", "ingestor", json!({"spec": {"exposeExternally": false}})).await;
    world.gone("Service", "ingestor-external").await;
    world.patch("Collector", "collector", json!({"spec": {"kubernetesEvents": {}}})).await;
    world.until("StatefulSet", "collector-events", |_| true).await;
    world.patch("Collector", "collector", json!({"spec": {"kubernetesEvents": null}})).await;
    world.gone("StatefulSet", "collector-events").await;
    world.gone("ClusterRoleBinding", "mon:collector-events").await;
    world.api("MetricsExporter").delete("requests", &DeleteParams::default()).await.unwrap();
    world.gone("Deployment", "collector-exporter").await;
    // What a resource asks for no more is taken away from objects as well.
    world.patch("Alerter", "alerter", json!({"spec": {"pods": {"nodeSelector": {"pool": "a"}}}})).await;
    world.until("Deployment", "alerter", |object| object["spec"]["template"]["spec"]["nodeSelector"]["pool"] == "a").await;
    world.patch("Alerter", "alerter", json!({"spec": {"pods": null}})).await;
    world.until("Deployment", "alerter", |object| object["spec"]["template"]["spec"]["nodeSelector"].is_null()).await;
}

async fn names_that_are_taken_are_told(world: &World) {
    let text = "{apiVersion: adx-mon.azure.com/v1, kind: Alerter, metadata: {name: ingestor, namespace: mon},
        spec: {adxClusterSelector: {}, notificationEndpoint: 'http://n'}}";
    world.make_ready("StatefulSet", "adx").await;
    world.make_ready("StatefulSet", "ingestor").await;
    world.create(text).await;
    world.reason("Alerter", "ingestor", "InstallFailed", "ServiceAccount mon/ingestor belongs to Ingestor ingestor").await;
    let account = world.get("ServiceAccount", "ingestor").await.unwrap();
    assert_eq!(account["metadata"]["ownerReferences"][0]["kind"], "Ingestor");
    // What is wrong stands in the condition, and does not stand in the way of others.
    world.patch("Alerter", "ingestor", json!({"spec": {"notificationEndpoint": "ftp://nowhere"}})).await;
    world.reason("Alerter", "ingestor", "TemplateError", "spec.notificationEndpoint").await;
    world.patch("Alerter", "ingestor", json!({"spec": {"criteriaExpression": "region == 'westus'"}})).await;
    world.reason("Alerter", "ingestor", "CriteriaExpressionFalse", "").await;
    world.patch("Alerter", "ingestor", json!({"spec": {"criteriaExpression": "nope == 'x'"}})).await;
    world.reason("Alerter", "ingestor", "CriteriaExpressionError", "cel typecheck").await;
    world.api("Alerter").delete("ingestor", &DeleteParams::default()).await.unwrap();
    world.gone("Alerter", "ingestor").await;
    assert_eq!(world.get("Deployment", "ingestor").await, None);
    assert!(world.get("ClusterRoleBinding", "mon:ingestor").await.is_some(), "the Ingestor's binding went with the Alerter");
}

async fn a_diff_shows_what_differs(world: &World) {
    let cluster = Cluster::new(world.admin.clone()).await.unwrap();
    let differences = async || {
        let resources = operator::diff::resources(&world.admin, Some("mon")).await.unwrap();
        operator::diff::differences(&cluster, &resources, &settings()).await.unwrap()
    };
    eventually(async || match differences().await {
        text if text.is_empty() => Ok(()),
        text => Err(text),
    })
    .await;
    // Other labels of the cluster than the operator has.
    let other = Settings { labels: [("region", "westus")].into_iter().collect(), ..Settings::default() };
    let resources = operator::diff::resources(&world.admin, Some("mon")).await.unwrap();
    let text = operator::diff::differences(&cluster, &resources, &other).await.unwrap();
    assert!(text.contains("StatefulSet mon/ingestor (Ingestor ingestor)\n") && text.contains(": \"--region=westus\""), "{text}");
    assert!(!text.contains("StatefulSet mon/adx"), "{text}");
}

async fn events_tell_what_was_done(world: &World) {
    let events: Api<Event> = Api::namespaced(world.admin.clone(), "mon");
    eventually(async || {
        let all = events.list(&ListParams::default()).await.unwrap().items;
        let told: Vec<String> = all
            .iter()
            .map(|event| {
                let of = &event.involved_object;
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                format!("{} {}: {} {}", text(&of.kind), text(&of.name), text(&event.reason), text(&event.message))
            })
            .collect();
        let expected = [
            "Ingestor ingestor: Created StatefulSet mon/ingestor",
            "Ingestor ingestor: Updated StatefulSet mon/ingestor",
            "Ingestor ingestor: Recreated StatefulSet mon/ingestor",
            "Ingestor ingestor: Deleted Service mon/ingestor-external",
            "Alerter alerter: NotReady waiting for",
        ];
        let missing = expected.iter().find(|part| !told.iter().any(|line| line.starts_with(**part)));
        missing.map_or(Ok(()), |missing| Err(format!("{missing} is not among {told:#?}")))
    })
    .await;
}

async fn what_is_deleted_leaves_no_rights(world: &World) {
    for (kind, name) in [("Alerter", "alerter"), ("Collector", "collector"), ("Ingestor", "ingestor"), ("ADXCluster", "adx")] {
        world.api(kind).delete(name, &DeleteParams::default()).await.unwrap();
        world.gone(kind, name).await;
    }
    let bindings = world.api("ClusterRoleBinding").list(&ListParams::default()).await.unwrap();
    let left: Vec<_> =
        bindings.items.iter().filter_map(|binding| binding.metadata.name.clone()).filter(|name| name.starts_with("mon:")).collect();
    assert_eq!(left, Vec::<String>::new());
}

/// An operator that ends anywhere on the way, and one that waits for its Lease: the next goes on.
#[tokio::test(flavor = "multi_thread")]
async fn operators_may_end_anywhere() {
    let Some(world) = World::start().await else { return };
    let started = Timestamp::now();
    let first = CancellationToken::new();
    let one = world.operator(&first).await;
    world.create(LAPTOP).await;
    // Each of these is in the midst of something.
    for (kind, name) in [("Service", "adx"), ("ServiceAccount", "ingestor"), ("ConfigMap", "collector-config"), ("RoleBinding", "alerter")]
    {
        let stop = CancellationToken::new();
        let running = world.operator(&stop).await;
        first.cancel();
        match kind {
            "ServiceAccount" => world.make_ready("StatefulSet", "adx").await,
            "ConfigMap" => world.make_ready("StatefulSet", "ingestor").await,
            "RoleBinding" => world.make_ready("DaemonSet", "collector").await,
            _ => {}
        }
        world.until(kind, name, |_| true).await;
        stop.cancel();
        running.finished().await.unwrap();
    }
    one.finished().await.unwrap();
    let (stop, other) = (CancellationToken::new(), CancellationToken::new());
    let (last, standby) = (world.operator(&stop).await, world.operator(&other).await);
    world.all_ready().await;
    // Whoever leads goes away; the other puts the next drift right.
    stop.cancel();
    last.finished().await.unwrap();
    world.api("Service").delete("ingestor", &DeleteParams::default()).await.unwrap();
    world.until("Service", "ingestor", |_| true).await;
    assert!(Timestamp::now() > started);
    other.cancel();
    standby.finished().await.unwrap();
}

/// The answer to a GET.
async fn served(running: &Running, path: &str) -> String {
    let mut stream = TcpStream::connect(running.address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Azure that never answers.
struct Hangs;

impl Provisioner for Hangs {
    fn step<'a>(&'a self, _: &'a AdxCluster) -> BoxFuture<'a, Provisioned> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hangs_does_not_hold_up_another() {
    let Some(world) = World::start().await else { return };
    let stop = CancellationToken::new();
    let running = world.operator_with(&stop, Arc::new(Hangs)).await;
    let cluster = |name: &str, how: &str| {
        format!(
            "{{apiVersion: adx-mon.azure.com/v1, kind: ADXCluster, metadata: {{name: {name}, namespace: mon}}, spec: {{clusterName: c, {how}}}}}"
        )
    };
    for at in 0..3 {
        let provision = "provision: {subscriptionId: s, resourceGroup: g, location: l, skuName: k, tier: t}";
        world.create(&cluster(&format!("hangs-{at}"), provision)).await;
    }
    world.create(&cluster("local", "local: {}")).await;
    world.make_ready("StatefulSet", "local").await;
    world.reason("ADXCluster", "local", "ClusterReady", "").await;
    world.create(&cluster("there", "endpoint: 'https://c'")).await;
    world.reason("ADXCluster", "there", "ProvisioningSkipped", "Using existing endpoint https://c").await;
    // Nobody has heard of those that hang by now, or they have been given up for the first time.
    let hangs = world.get("ADXCluster", "hangs-0").await.unwrap();
    assert!([&json!("InstallFailed"), &Value::Null].contains(&&condition(&hangs, "adxcluster.adx-mon.azure.com")["reason"]), "{hangs}");
    // kustd is taken away when its cluster is another one.
    world.patch("ADXCluster", "local", json!({"spec": {"local": null, "endpoint": "https://other"}})).await;
    world.gone("StatefulSet", "local").await;
    let local = world.reason("ADXCluster", "local", "ProvisioningSkipped", "https://other").await;
    assert_eq!((&local["status"]["endpoint"], &local["status"]["replicas"]), (&json!("https://other"), &Value::Null));
    stop.cancel();
    running.finished().await.unwrap();
}

/// Over HTTP to a Resource Manager that is built from the public description.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_made_in_azure_and_kept() {
    let Some(world) = World::start().await else { return };
    let short = Duration::from_millis(300);
    let azure = ResourceManager::new(Pace { registration: short, cluster: short, part: short, retry_after: 1, tells: true });
    azure.register();
    let address = azure.serve().await;
    let provisioner = || {
        let arm = Arm::new(&address, ::azure::fixed_token("GOOD").unwrap(), "test/1").unwrap();
        Arc::new(operator::azure::Azure::new(arm))
    };
    let stop = CancellationToken::new();
    let running = world.operator_with(&stop, provisioner()).await;
    let spec = crate::azure::world::spec();
    let resource =
        json!({"apiVersion": "adx-mon.azure.com/v1", "kind": "ADXCluster", "metadata": {"name": "adx", "namespace": "mon"}, "spec": spec});
    world.create(&resource.to_string()).await;
    world.reason("ADXCluster", "adx", "Creating", "").await;
    // The operator ends while Azure is at it.
    stop.cancel();
    running.finished().await.unwrap();
    let stop = CancellationToken::new();
    let running = world.operator_with(&stop, provisioner()).await;
    let ready = world.reason("ADXCluster", "adx", "ClusterReady", "").await;
    let status = &ready["status"];
    assert_eq!(status["endpoint"], crate::azure::world::ENDPOINT);
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(status["appliedProvisionState"]["retention"], json!({"Logs": "P90D", "Metrics": "P30D"}));
    assert_eq!(status["appliedProvisionState"]["userAssignedIdentities"], json!(["/i1"]));
    // What goes from the spec goes from the record, and a part that is refused says so.
    let change = json!({"spec": {"provision": {"userAssignedIdentities": null, "skuName": "Standard_L16as_v3"}, "databases": [spec["databases"][0]]}});
    world.patch("ADXCluster", "adx", change).await;
    let applied = json!({
        "skuName": "Standard_L16as_v3", "tier": "Standard", "retention": {"Metrics": "P30D"},
        "autoScale": {"enabled": true, "minimum": 2, "maximum": 6},
    });
    world.until("ADXCluster", "adx", |object| object["status"]["appliedProvisionState"] == applied).await;
    let cluster = azure.get(crate::azure::world::CLUSTER).unwrap();
    assert_eq!((&cluster["sku"]["name"], &cluster["identity"]["type"]), (&json!("Standard_L16as_v3"), &json!("None")));
    // Deleting the resource deletes nothing there.
    world.api("ADXCluster").delete("adx", &DeleteParams::default()).await.unwrap();
    world.gone("ADXCluster", "adx").await;
    assert_eq!(azure.paths().len(), 6, "{:?}", azure.paths());
    assert_eq!(azure.violations(), Vec::<String>::new());
    stop.cancel();
    running.finished().await.unwrap();
}

/// The federation has a condition of its own: that hubs are away is no matter of the cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_federation_that_fails_is_told_beside_the_cluster() {
    let Some(world) = World::start().await else { return };
    let stop = CancellationToken::new();
    let running = world.operator(&stop).await;
    // nobody listens there any more
    let address = format!("http://{}", tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
    let target = json!({"endpoint": address, "heartbeatDatabase": "Hub", "heartbeatTable": "Beats", "managedIdentityClientId": "none"});
    let spec = json!({
        "clusterName": "adx", "endpoint": address, "databases": [], "role": "Partition",
        "federation": {"federatedTargets": [target], "partitioning": {"geo": "EU"}},
    });
    let resource =
        json!({"apiVersion": "adx-mon.azure.com/v1", "kind": "ADXCluster", "metadata": {"name": "adx", "namespace": "mon"}, "spec": spec});
    world.create(&resource.to_string()).await;
    let told = async |reason: &str, part: &str| {
        let is_told = |object: &Value| {
            let found = condition(object, "FederationReady");
            found["reason"] == reason && found["status"] == "False" && found["message"].as_str().unwrap().contains(part)
        };
        world.until("ADXCluster", "adx", is_told).await
    };
    let object = told("HeartbeatFailed", &address).await;
    assert_eq!(condition(&object, "adxcluster.adx-mon.azure.com")["reason"], "ProvisioningSkipped");
    let text = served(&running, "/metrics").await;
    assert!(text.contains("adxmon_operator_federation_rounds_total{role=\"partition\",outcome=\"failure\"}"), "{text}");
    world.patch("ADXCluster", "adx", json!({"spec": {"role": "Federated"}})).await;
    told("FederationInvalid", "heartbeatDatabase, heartbeatTable").await;
    world.patch("ADXCluster", "adx", json!({"spec": {"role": null}})).await;
    world.until("ADXCluster", "adx", |object| condition(object, "FederationReady").is_null()).await;
    stop.cancel();
    running.finished().await.unwrap();
}

/// With every option, as the API server sees it.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_takes_what_is_rendered_for_every_option() {
    let Some(world) = World::start().await else { return };
    let cluster = Cluster::new(world.admin.clone()).await.unwrap();
    for (name, rendered) in samples::all() {
        for object in &rendered.objects {
            let answer = cluster.dry_run(object).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            let live = serde_json::to_value(answer).unwrap();
            // Else every look would write.
            let wanted = cluster.wanted(object);
            assert!(operator::apply::contains(&live, &wanted), "{name}: {} changes on its way:\n{live}\n{wanted}", object.reference);
        }
    }
    assert!(Path::new(&world.kubeconfig).exists());
}
