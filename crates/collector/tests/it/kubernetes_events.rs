//! Events of a real API server into rows, with the rights of our manifest and no others.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Event;
use kube_client::api::{Api, ListParams, Patch, PatchParams};
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

const LEADING: &str = "adxmon_collector_events_leading";
const MAYBE_DUPLICATE: &str = "adxmon_collector_events_maybe_duplicate_total";

/// Two collectors with the same setting and stores of their own: one stores, and the other goes on when it ends, in order or
/// suddenly.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_collectors_one_stores() {
    let Some(server) = kube_testing::start(&[]).await else { return };
    let rbac = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/rbac/collector-events.yaml");
    for namespace in ["adx-mon", "shop"] {
        server.create(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}")).await.unwrap();
    }
    server.create(&std::fs::read_to_string(rbac).unwrap()).await.unwrap();
    let kubeconfig = server.service_account("adx-mon", "collector-events").await.unwrap();
    let ingestor = Ingestor::default();
    let settings = format!("{}\nkube-config = '{}'", ingestor.start().await, kubeconfig.display());
    let tables = "[kubernetes-events]\ndatabase = 'Logs'\ntable = 'Events'\n";
    let start = async |node: &str| Collector::start_with(&settings, tables, |config| config.node = node.to_owned()).await;
    let create = async |name: &str| server.create(&event("shop", name, "Normal").to_string()).await.unwrap();
    let (events, leases): (Api<Event>, Api<Lease>) =
        (Api::namespaced(server.admin().await, "shop"), Api::namespaced(server.admin().await, "adx-mon"));

    create("a").await;
    let first = start("first").await;
    first.until(SENT, |sent| sent == 1.0).await;
    // On a runtime of its own, whose end is that of a killed process: nothing says goodbye.
    let killed = tokio::runtime::Runtime::new().unwrap();
    let second = {
        let settings = settings.clone();
        let start = async move { Collector::start_with(&settings, tables, |config| config.node = "second".to_owned()).await };
        killed.spawn(start).await.unwrap()
    };
    create("b").await;
    first.until(SENT, |sent| sent == 2.0).await;
    assert_eq!((first.metric(LEADING).await, second.metric(LEADING).await), (Some(1.0), Some(0.0)));
    assert_eq!(second.metric(SENT).await, None);

    // The first one ends in order: the second goes on behind it, though its own store is empty.
    first.stop().await;
    create("c").await;
    second.until(SENT, |sent| sent == 1.0).await;
    assert_eq!(second.metric(MAYBE_DUPLICATE).await, Some(0.0));
    // It notes with its next renewal how far it is.
    let version: u64 = events.get("c").await.unwrap().metadata.resource_version.unwrap().parse().unwrap();
    while noted(&leases).await < version {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }

    // The second one is killed as soon as it has stored an event: what it did not note is stored again, and counted.
    let third = start("third").await;
    create("d").await;
    second.until(SENT, |sent| sent == 2.0).await;
    killed.shutdown_background();
    create("e").await;
    third.until(LEADING, |leads| leads == 1.0).await;
    create("f").await;
    third.until(SENT, |sent| sent >= 2.0).await;
    let again = third.metric(MAYBE_DUPLICATE).await.unwrap();
    third.stop().await;
    // What the killed one had not sent on is in its store.
    let rest = Collector::start_in(second.dir, &settings, "").await;
    rest.stop().await;

    let stored = stored(&ingestor);
    let times = |name: &str| stored.get(&(name.to_owned(), 1)).copied().unwrap_or_default();
    for name in ["a", "b", "c", "e", "f"] {
        assert_eq!(times(name), 1, "{name}: {stored:?}");
    }
    // d is stored again unless it was noted; counted is what the first list had that was not noted: d or not, e, and f or not.
    assert!((1..=2).contains(&times("d")), "{stored:?}");
    let certain = times("d") as f64;
    assert!((certain..=certain + 1.0).contains(&again), "{again} of {stored:?}");
}

/// The resourceVersion that the Lease names.
async fn noted(leases: &Api<Lease>) -> u64 {
    let lease = leases.list(&ListParams::default()).await.unwrap().items.remove(0);
    let note = &lease.metadata.annotations.unwrap()["adx-mon/note"];
    serde_json::from_str::<Value>(note).unwrap()[""].as_u64().unwrap()
}

/// Writes a mark into the store of `dir`.
async fn plant(dir: &Path, key: &str, value: &str) {
    let options = wal::Options { durability: wal::Durability::Process, ..wal::Options::new(dir) };
    let (store, _) = wal::Store::open(options, wal::RealDisk::new(), 0).unwrap();
    let mark = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    WalSink::new(store.clone()).commit_with_marks(RowSet::default(), 0, vec![mark]).await.unwrap();
    tokio::task::spawn_blocking(move || store.close()).await.unwrap();
}
