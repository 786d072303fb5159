//! The chart on a real API server: Helm installs, the operator runs with the rights that the chart made.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{example, helm};
use crate::cluster::World;

/// Helm does this to the release `adx-mon` in the namespace `mon`.
fn release(world: &World, action: &str, values: &Value) -> Option<Value> {
    let kubeconfig = world.server.kubeconfig("admin");
    let asked = json!({"kubeconfig": kubeconfig, "name": "adx-mon", "namespace": "mon", "action": action, "values": values});
    Some(helm("release", &asked)?.unwrap_or_else(|error| panic!("helm {action}: {error}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_installs_upgrades_and_takes_away() {
    server::install_crypto();
    server::init_logging();
    let Some(server) = kube_testing::start(&[]).await else { return };
    server.install_crds().await.unwrap();
    server.create("{apiVersion: v1, kind: Namespace, metadata: {name: mon}}").await.unwrap();
    let admin = server.admin().await;
    let mut world = World { kubeconfig: server.kubeconfig("admin"), server, admin };
    let mut values = example("laptop");
    values["alerter"] = json!({"enabled": true, "spec": {"notificationEndpoint": "http://receiver.mon:8080"}});
    if release(&world, "install", &values).is_none() {
        return;
    }
    // As its pod would have it.
    world.kubeconfig = world.server.service_account("mon", "operator").await.unwrap();
    world.rights_are_known("mon").await;
    let refused = world.forbidden().await;
    let stop = CancellationToken::new();
    let running = world.operator(&stop).await;
    for (kind, name) in [("StatefulSet", "adx"), ("StatefulSet", "ingestor"), ("DaemonSet", "collector"), ("Deployment", "alerter")] {
        world.make_ready(kind, name).await;
    }
    for (kind, name) in [("Ingestor", "ingestor"), ("Collector", "collector"), ("Alerter", "alerter")] {
        world.reason(kind, name, "Ready", "").await;
    }

    values["ingestor"]["spec"] = json!({"replicas": 3});
    values["alerter"]["enabled"] = false.into();
    release(&world, "upgrade", &values);
    world.until("StatefulSet", "ingestor", |object| object["spec"]["replicas"] == 3).await;
    world.gone("Alerter", "alerter").await;
    world.gone("ClusterRoleBinding", "mon:alerter").await;

    // Resources go while there is an operator with rights, which Helm takes away first (docs/install.md).
    for part in ["adxCluster", "ingestor", "collector"] {
        values[part]["enabled"] = false.into();
    }
    release(&world, "upgrade", &values);
    for (kind, name) in [("Ingestor", "ingestor"), ("Collector", "collector"), ("ADXCluster", "adx")] {
        world.gone(kind, name).await;
    }
    world.gone("ClusterRoleBinding", "mon:ingestor").await;
    assert_eq!(world.forbidden().await, refused, "requests that the rights do not allow");
    release(&world, "uninstall", &Value::Null);
    for (kind, name) in [("Deployment", "operator"), ("ClusterRole", "adx-mon:ingestor"), ("ServiceAccount", "operator")] {
        world.gone(kind, name).await;
    }
    stop.cancel();
    running.finished().await.unwrap();
}

/// The components alone, and every example, as the API server takes them.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_takes_the_components() {
    let Some(server) = kube_testing::start(&[]).await else { return };
    server.install_crds().await.unwrap();
    server.create("{apiVersion: v1, kind: Namespace, metadata: {name: mon}}").await.unwrap();
    let admin = server.admin().await;
    let world = World { kubeconfig: server.kubeconfig("admin"), server, admin };
    if release(&world, "install", &example("components")).is_none() {
        return;
    }
    for (kind, name) in [
        ("StatefulSet", "adx"),
        ("StatefulSet", "ingestor"),
        ("DaemonSet", "collector"),
        ("StatefulSet", "collector-events"),
        ("Deployment", "collector-exporter"),
        ("Deployment", "alerter"),
        ("ClusterRole", "adx-mon:alerter"),
        ("ClusterRoleBinding", "mon:collector-exporter"),
    ] {
        assert!(world.get(kind, name).await.is_some(), "{kind} {name}");
    }
    release(&world, "upgrade", &example("azure"));
    assert_eq!(world.get("DaemonSet", "collector").await, None, "what the release no longer has is still there");
    let ingestor = world.get("Ingestor", "ingestor").await.unwrap();
    assert_eq!((&ingestor["spec"]["replicas"], &ingestor["spec"]["storage"]["size"]), (&json!(3), &json!("100Gi")));
}
