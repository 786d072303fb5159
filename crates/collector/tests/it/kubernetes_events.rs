//! Events of a real API server into rows, with the rights of our manifest and no others.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::Event;
use kube_client::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use server::{Sink as _, WalSink};
use telemetry::RowSet;

use crate::log_transforms::Ingestor;
use crate::support::Collector;

const SENT: &str = "adxmon_collector_logs_sent{source=\"kubernetes-events\",sink=\"StoreSink\"}";
const UP: &str = "adxmon_collector_discovery_up{source=\"Events\"}";

fn event(namespace: &str, name: &str, kind: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {"kind": "Pod", "namespace": namespace, "name": "web", "uid": "u-1"},
        "reason": "BackOff", "message": format!("of {name}"), "type": kind, "count": 1, "source": {"component": "kubelet", "host": "node-1"},
        "firstTimestamp": "2024-01-02T03:04:05Z", "lastTimestamp": "2024-01-02T03:04:05Z",
    })
}

/// Severity, body and resource of rows.
fn records(ingestor: &Ingestor) -> Vec<(String, Value, Value)> {
    // TraceID,SpanID,SeverityText,SeverityNumber,"Body","Resource","Attributes"
    let record = |row: &String| {
        let row = row.replace("\"\"", "\"");
        let (severity, rest) = row.trim_start_matches(',').split_once(",\"").unwrap();
        let (body, rest) = rest.split_once("}\",\"{").unwrap();
        let (resource, _) = rest.split_once("}\",").unwrap();
        let json = |text: String| serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {row}"));
        (severity.to_owned(), json(format!("{body}}}")), json(format!("{{{resource}}}")))
    };
    ingestor.rows("Logs_Events").iter().map(record).collect()
}

/// How often each event was stored with each count.
fn stored(ingestor: &Ingestor) -> BTreeMap<(String, i64), usize> {
    let mut stored = BTreeMap::new();
    for (_, body, _) in records(ingestor) {
        let name = body["metadata"]["name"].as_str().unwrap().to_owned();
        *stored.entry((name, body["count"].as_i64().unwrap())).or_default() += 1;
    }
    stored
}

#[tokio::test(flavor = "multi_thread")]
async fn each_version_of_an_event_is_stored_once() {
    let Some(mut server) = kube_testing::start(&[]).await else { return };
    let rbac = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/rbac/collector-events.yaml");
    server.create("apiVersion: v1\nkind: Namespace\nmetadata: {name: adx-mon}").await.unwrap();
    server.create("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}").await.unwrap();
    server.create(&std::fs::read_to_string(rbac).unwrap()).await.unwrap();
    let kubeconfig = server.service_account("adx-mon", "collector-events").await.unwrap();
    let admin = server.admin().await;
    let shop: Api<Event> = Api::namespaced(admin, "shop");
    let count = async |name: &str, count: i32| {
        shop.patch(name, &PatchParams::default(), &Patch::Merge(json!({"count": count}))).await.unwrap();
    };
    for (namespace, name, kind) in [("shop", "a", "Normal"), ("default", "b", "Warning"), ("shop", "c", "Normal")] {
        server.create(&event(namespace, name, kind).to_string()).await.unwrap();
    }

    let ingestor = Ingestor::default();
    let settings = format!("{}\nkube-config = '{}'", ingestor.start().await, kubeconfig.display());
    let tables = "[kubernetes-events]\ndatabase = 'Logs'\ntable = 'Events'\nadd-attributes = { cluster = 'test' }\n";
    let collector = Collector::start(&settings, tables).await;
    collector.until(SENT, |sent| sent == 3.0).await;
    // Each update is a row of its own.
    count("a", 2).await;
    collector.until(SENT, |sent| sent == 4.0).await;
    count("a", 3).await;
    collector.until(SENT, |sent| sent == 5.0).await;
    // A reload goes on where the source was.
    collector.reload(&settings, &format!("{tables}[otel-trace]\ndatabase = 'T'\n")).await.unwrap();
    server.create(&event("shop", "d", "Normal").to_string()).await.unwrap();
    collector.until(SENT, |sent| sent == 6.0).await;
    // As it does through an outage.
    server.stop();
    collector.until(UP, |up| up == 0.0).await;
    server.restart().await.unwrap();
    count("c", 2).await;
    collector.until(SENT, |sent| sent == 7.0).await;
    let dir = collector.stop().await;

    // While it was away: a new event and a new count.
    server.create(&event("shop", "e", "Normal").to_string()).await.unwrap();
    count("d", 2).await;
    let collector = Collector::start_in(dir, &settings, tables).await;
    collector.until(SENT, |sent| sent == 2.0).await;
    count("e", 2).await;
    collector.until(SENT, |sent| sent == 3.0).await;
    collector.stop().await;

    let wanted = [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 1), ("c", 2), ("d", 1), ("d", 2), ("e", 1), ("e", 2)];
    assert_eq!(stored(&ingestor), wanted.map(|(name, count)| ((name.to_owned(), count), 1)).into());
    let (severity, body, resource) = records(&ingestor).into_iter().find(|(_, body, _)| body["metadata"]["name"] == "b").unwrap();
    assert_eq!((severity.as_str(), &body["message"], &body["reason"]), ("WARN,13", &json!("of b"), &json!("BackOff")));
    let wanted = json!({
        "cluster": "test", "k8s.namespace.name": "default", "k8s.node.name": "node-1",
        "k8s.object.kind": "Pod", "k8s.object.name": "web", "k8s.object.uid": "u-1",
    });
    assert_eq!(resource, wanted);

    // Another store that has seen more than this server ever had, as after a restored backup: all that is there is stored.
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path(), "events/Logs/Events/shop", r#"{"version":1,"all":1000000000000,"parts":[]}"#).await;
    let ingestor = Ingestor::default();
    let settings = format!("{}\nkube-config = '{}'", ingestor.start().await, kubeconfig.display());
    let collector = Collector::start_in(dir, &settings, &format!("{tables}\n").replace("add-", "namespaces = ['shop']\nadd-")).await;
    collector.until(SENT, |sent| sent == 4.0).await;
    count("e", 3).await;
    collector.until(SENT, |sent| sent == 5.0).await;
    collector.stop().await;
    let wanted = [("a", 3), ("c", 2), ("d", 2), ("e", 2), ("e", 3)];
    assert_eq!(stored(&ingestor), wanted.map(|(name, count)| ((name.to_owned(), count), 1)).into());
}

/// Writes a mark into the store of `dir`.
async fn plant(dir: &Path, key: &str, value: &str) {
    let options = wal::Options { durability: wal::Durability::Process, ..wal::Options::new(dir) };
    let (store, _) = wal::Store::open(options, wal::RealDisk::new(), 0).unwrap();
    let mark = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    WalSink::new(store.clone()).commit_with_marks(RowSet::default(), 0, vec![mark]).await.unwrap();
    tokio::task::spawn_blocking(move || store.close()).await.unwrap();
}
