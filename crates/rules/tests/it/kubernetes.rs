//! What a real API server does not show on demand.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use rules::store::kubernetes::{KubernetesStore, Options};
use rules::store::{Event, Key, Objects, Severity, Store as _};
use serde_json::{Value, json};

use crate::fake_api::{FakeApi, Watch, probe, status};
use crate::support::{Probe, run, soon, until};

const LIST: &str = "/apis/test.adx-mon.azure.com/v1/probes";
const OBJECT: &str = "/apis/test.adx-mon.azure.com/v1/namespaces/default/probes/a";
const STATUS: &str = "/apis/test.adx-mon.azure.com/v1/namespaces/default/probes/a/status";

fn start() -> (FakeApi, Arc<KubernetesStore<Probe>>, Objects<Probe>) {
    let (api, client) = FakeApi::new();
    let pause = Duration::from_millis(1);
    let options = Options { first_pause: pause, longest_pause: pause, ..Options::new("tester") };
    let store = Arc::new(KubernetesStore::start(client, options));
    let objects = store.objects();
    (api, store, objects)
}

/// A store that has listed these objects.
async fn with(objects: &[Value]) -> (FakeApi, Arc<KubernetesStore<Probe>>, Objects<Probe>, Watch) {
    let (mut api, store, mut seen) = start();
    let watch = api.list_and_watch("10", objects).await;
    soon(seen.ready()).await;
    (api, store, seen, watch)
}

fn runs(objects: &Objects<Probe>) -> Vec<(String, u64)> {
    objects.snapshot().iter().map(|(key, probe)| (key.name.clone(), probe.status.as_ref().unwrap().runs)).collect()
}

fn key() -> Key {
    Key::new("default", "a")
}

/// Counts a run in the background.
fn count_a_run(store: &Arc<KubernetesStore<Probe>>) -> tokio::task::JoinHandle<Result<(), rules::store::StoreError>> {
    let store = store.clone();
    tokio::spawn(async move { store.update_status(&key(), &run).await })
}

#[tokio::test]
async fn one_list_and_then_changes() {
    let (mut api, _store, mut objects) = start();
    let list = api.asked().await;
    assert_eq!((list.path.as_str(), list.is_watch(), list.query.contains("sendInitialEvents")), (LIST, false, false));
    list.answer_list("10", &[probe("a", 3, 1), probe("b", 4, 1)]);
    let watch = api.asked().await;
    assert!(watch.is_watch() && !watch.query.contains("sendInitialEvents"), "{}", watch.query);
    let watch = watch.open();
    soon(objects.ready()).await;
    assert_eq!(runs(&objects), [("a".to_owned(), 1), ("b".to_owned(), 1)]);
    watch.send("MODIFIED", &probe("a", 11, 2));
    watch.send("ADDED", &probe("c", 12, 7));
    watch.send("DELETED", &probe("b", 13, 1));
    until(&mut objects, |map| map.len() == 2 && !map.contains_key(&Key::new("default", "b"))).await;
    assert_eq!(runs(&objects), [("a".to_owned(), 2), ("c".to_owned(), 7)]);
    assert_eq!(objects.get(&key()).unwrap().metadata.managed_fields, None);
}

#[tokio::test]
async fn a_watch_that_is_gone_starts_again_with_a_list() {
    let (mut api, _store, mut objects, watch) = with(&[probe("a", 3, 1), probe("b", 4, 1)]).await;
    watch.send("ERROR", &status(410, "too old resource version: 10 (20)"));
    let watch = api.list_and_watch("20", &[probe("a", 15, 2)]).await;
    until(&mut objects, |map| map.len() == 1).await;
    assert_eq!(runs(&objects), [("a".to_owned(), 2)]);

    // The server closes the watch, and refuses to resume it.
    drop(watch);
    let resumed = api.asked().await;
    assert!(resumed.is_watch() && resumed.query.contains("resourceVersion=20"), "{}", resumed.query);
    resumed.refuse(410, "too old resource version");
    let _watch = api.list_and_watch("30", &[probe("a", 25, 3)]).await;
    until(&mut objects, |map| map[&key()].status.as_ref().unwrap().runs == 3).await;
}

#[tokio::test]
async fn a_server_that_is_busy_or_away_is_asked_again() {
    let (mut api, store, mut objects) = start();
    api.asked().await.refuse(429, "storage is (re)initializing");
    api.asked().await.refuse(500, "etcdserver: leader changed");
    api.asked().await.drop_connection();
    assert!(!objects.is_ready());
    let watch = api.list_and_watch("10", &[probe("a", 3, 1)]).await;
    soon(objects.ready()).await;
    assert_eq!(store.problem(), None);

    drop(watch);
    for refusal in [429, 500, 503] {
        let watch = api.asked().await;
        assert!(watch.is_watch() && watch.query.contains("resourceVersion=10"), "{}", watch.query);
        watch.refuse(refusal, "storage is (re)initializing");
    }
    let resumed = api.asked().await;
    assert_eq!(store.problem().unwrap(), "watching: the API server answered 503: storage is (re)initializing");
    assert_eq!(runs(&objects), [("a".to_owned(), 1)], "objects stay while the server is away");
    resumed.open().send("MODIFIED", &probe("a", 11, 2));
    until(&mut objects, |map| map[&key()].status.as_ref().unwrap().runs == 2).await;
    assert_eq!(store.problem(), None);
}

/// A watch that goes on where it was is silent, so silence is how an outage is known to be over.
#[tokio::test(start_paused = true)]
async fn an_outage_is_over_though_nothing_happens() {
    let (mut api, store, _objects, watch) = with(&[probe("a", 3, 1)]).await;
    drop(watch);
    api.asked().await.refuse(503, "storage is (re)initializing");
    let _resumed = api.asked().await.open();
    tokio::time::sleep(Duration::from_secs(80)).await;
    assert!(store.problem().is_some(), "the next try may still be under way");
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(store.problem(), None);
}

#[tokio::test]
async fn a_status_is_a_patch_of_what_changed() {
    let (mut api, store, objects, watch) = with(&[probe("a", 3, 1)]).await;
    let writing = count_a_run(&store);
    let patch = api.asked().await;
    assert_eq!((&patch.method, patch.path.as_str(), patch.content_type.as_str()), (&Method::PATCH, STATUS, "application/merge-patch+json"));
    assert!(patch.query.contains("fieldManager=tester"), "{}", patch.query);
    assert_eq!(patch.body, json!({"metadata": {"resourceVersion": "3"}, "status": {"runs": 2}}));
    patch.answer(&probe("a", 11, 2));
    writing.await.unwrap().unwrap();
    assert_eq!(runs(&objects), [("a".to_owned(), 2)], "whoever wrote reads it");
    // The watch is late: it must not bring back the past.
    watch.send("MODIFIED", &probe("a", 9, 1));
    watch.send("ADDED", &probe("b", 12, 1));
    let mut objects = objects;
    until(&mut objects, |map| map.len() == 2).await;
    assert_eq!(runs(&objects), [("a".to_owned(), 2), ("b".to_owned(), 1)]);
}

#[tokio::test]
async fn a_conflict_makes_the_change_again_on_the_fresh_object() {
    let (mut api, store, objects, _watch) = with(&[probe("a", 3, 1)]).await;
    let writing = count_a_run(&store);
    api.asked().await.refuse(409, "the object has been modified");
    let get = api.asked().await;
    assert_eq!((&get.method, get.path.as_str()), (&Method::GET, OBJECT));
    get.answer(&probe("a", 20, 41));
    let patch = api.asked().await;
    assert_eq!(patch.body, json!({"metadata": {"resourceVersion": "20"}, "status": {"runs": 42}}));
    patch.answer(&probe("a", 21, 42));
    writing.await.unwrap().unwrap();
    assert_eq!(runs(&objects), [("a".to_owned(), 42)]);
}

#[tokio::test]
async fn another_object_of_the_same_name_is_left_alone() {
    let (mut api, store, _objects, _watch) = with(&[probe("a", 3, 1)]).await;
    let writing = count_a_run(&store);
    api.asked().await.refuse(409, "the object has been modified");
    let mut other = probe("a", 20, 0);
    other["metadata"]["uid"] = json!("another");
    api.asked().await.answer(&other);
    writing.await.unwrap().unwrap();
}

#[tokio::test]
async fn writes_that_a_busy_server_refuses_are_repeated() {
    let (mut api, store, _objects, _watch) = with(&[probe("a", 3, 1)]).await;
    let writing = count_a_run(&store);
    api.asked().await.refuse(429, "too many requests");
    api.asked().await.refuse(500, "etcdserver: request timed out");
    api.asked().await.drop_connection();
    api.asked().await.answer(&probe("a", 11, 2));
    writing.await.unwrap().unwrap();

    let writing = count_a_run(&store);
    for _ in 0..6 {
        api.asked().await.refuse(503, "apiserver is shutting down");
    }
    let error = writing.await.unwrap().unwrap_err().to_string();
    assert_eq!(error, "writing the status of Probe default/a: the API server answered 503: apiserver is shutting down");
}

#[tokio::test]
async fn what_will_not_get_better_is_not_repeated() {
    let (mut api, store, _objects, _watch) = with(&[probe("a", 3, 1)]).await;
    let writing = count_a_run(&store);
    api.asked().await.refuse(403, "probes is forbidden");
    let error = writing.await.unwrap().unwrap_err().to_string();
    assert_eq!(error, "writing the status of Probe default/a: the API server answered 403: probes is forbidden");
    let writing = count_a_run(&store);
    api.asked().await.refuse(404, "not found");
    writing.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_changes_nothing_costs_no_request() {
    let (mut api, store, _objects, _watch) = with(&[probe("a", 3, 1)]).await;
    store.update_status(&key(), &|_| {}).await.unwrap();
    store.update_status(&key(), &|probe| probe.spec.database = "Other".to_owned()).await.unwrap();
    store.update(&key(), &run).await.unwrap();
    store.update(&Key::new("default", "gone"), &run).await.unwrap();
    let writing = tokio::spawn({
        let store = store.clone();
        async move { store.update(&key(), &|probe| probe.metadata.finalizers = Some(vec!["x/y".to_owned()])).await }
    });
    let first = api.asked().await;
    assert_eq!((first.path.as_str(), &first.body), (OBJECT, &json!({"metadata": {"resourceVersion": "3", "finalizers": ["x/y"]}})));
    first.answer(&probe("a", 11, 1));
    writing.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_object_that_cannot_be_read_hides_no_other() {
    let mut bad = probe("bad", 4, 0);
    bad["spec"]["database"] = json!(7);
    let (mut api, store, mut objects) = start();
    api.asked().await.answer_list("10", &[bad.clone(), probe("good", 5, 1)]);
    let event = api.asked().await;
    assert_eq!((&event.method, event.path.as_str()), (&Method::POST, "/apis/events.k8s.io/v1/namespaces/default/events"));
    assert_eq!(
        (&event.body["type"], &event.body["reason"], &event.body["regarding"]["name"]),
        (&json!("Warning"), &json!("Unreadable"), &json!("bad"))
    );
    let sent = event.body.clone();
    event.answer(&sent);
    let watch = api.asked().await.open();
    soon(objects.ready()).await;
    assert_eq!(runs(&objects), [("good".to_owned(), 1)]);
    let unreadable = store.unreadable();
    assert!(unreadable[&Key::new("default", "bad")].contains("invalid type: integer `7`"), "{unreadable:?}");

    watch.send("MODIFIED", &probe("bad", 11, 3));
    until(&mut objects, |map| map.len() == 2).await;
    assert!(store.unreadable().is_empty());
}

#[tokio::test]
async fn the_same_event_is_sent_once() {
    let (mut api, store, objects, _watch) = with(&[probe("a", 3, 1)]).await;
    let object = objects.get(&key()).unwrap();
    let event = |note: &str| Event {
        severity: Severity::Warning,
        action: "Query".to_owned(),
        reason: "QueryFailed".to_owned(),
        note: note.to_owned(),
    };
    let sending = tokio::spawn({
        let (long, store) = ("ü".repeat(1000), store.clone());
        async move {
            store.event(&object, event(&long)).await;
            store.event(&object, event(&long)).await;
            store.event(&object, event("another")).await;
        }
    });
    let first = api.asked().await;
    let note = first.body["note"].as_str().unwrap();
    assert_eq!(note, "ü".repeat(512), "1,024 bytes are what the server takes");
    let regarding =
        json!({"apiVersion": "test.adx-mon.azure.com/v1", "kind": "Probe", "name": "a", "namespace": "default", "uid": "uid-a"});
    assert_eq!(first.body["regarding"], regarding);
    let sent = first.body.clone();
    first.answer(&sent);
    let second = api.asked().await;
    assert_eq!(second.body["note"], "another");
    let sent = second.body.clone();
    second.answer(&sent);
    sending.await.unwrap();
}
