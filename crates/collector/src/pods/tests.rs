//! Pods of a real API server and of a kubelet that the test serves.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use kube_client::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube_client::core::ApiResource;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::config::KubeletSettings;
use crate::metrics::Metrics;

const PATIENCE: Duration = Duration::from_secs(60);

/// A pod as the API reference describes it.
fn wire(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "default", "uid": format!("uid-{name}"), "resourceVersion": "7",
            "creationTimestamp": "2024-01-01T00:00:00Z", "labels": {"app": "shop"},
            "annotations": {"adx-mon/scrape": "true", "long": "x".repeat(4097), "adx-mon/targets": "y".repeat(5000), "short": "z"},
        },
        "spec": {
            "nodeName": node,
            "initContainers": [{"name": "prepare", "image": "i"}],
            "containers": [{
                "name": "web", "image": "i",
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 9}],
                "livenessProbe": {"httpGet": {"path": "/", "port": "http"}},
                "readinessProbe": {"httpGet": {"path": "/", "port": 8081}},
            }, {"name": "side", "image": "i", "livenessProbe": {"tcpSocket": {"port": 1}}}],
            "ephemeralContainers": null,
        },
        "status": {
            "phase": "Running", "podIP": "fd00::7",
            "initContainerStatuses": [{"name": "prepare", "containerID": "containerd://p", "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}],
            "containerStatuses": [
                {"name": "side", "restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}},
                {"name": "web", "containerID": "containerd://w", "restartCount": 3, "state": {"running": {"startedAt": "2024-01-01T00:00:00Z"}}},
            ],
        },
    })
}

#[test]
fn what_is_used_of_a_pod_is_read() {
    let pod = read_pod(wire("a", "n1"), "n1").unwrap();
    assert_eq!((&*pod.uid, &*pod.namespace, &*pod.name), ("uid-a", "default", "a"));
    assert_eq!((pod.ip, pod.phase, pod.deleting), (Some("fd00::7".parse().unwrap()), Phase::Running, false));
    assert_eq!(pod.labels, Map::from([("app".into(), "shop".into())]));
    assert_eq!(pod.annotations.keys().map(|k| &**k).collect::<Vec<_>>(), ["adx-mon/scrape", "adx-mon/targets", "short"]);
    let [prepare, web, side] = &pod.containers[..] else { panic!("{:?}", pod.containers) };
    assert_eq!((&*prepare.name, prepare.kind, prepare.state), ("prepare", ContainerKind::Init, ContainerState::Terminated));
    assert_eq!(prepare.id.as_deref(), Some("containerd://p"));
    assert_eq!((&*web.name, web.kind, web.state, web.restarts), ("web", ContainerKind::Regular, ContainerState::Running, 3));
    assert_eq!(web.ports, [Port { name: "http".into(), number: 8080 }, Port { name: "".into(), number: 9 }]);
    assert_eq!(web.probes, [PortRef::Number(8081), PortRef::Name("http".into())]);
    assert_eq!((&*side.name, side.id.as_deref(), side.state), ("side", None, ContainerState::Waiting));
    assert!(side.probes.is_empty());
}

#[test]
fn pods_of_other_nodes_and_of_none_are_left_out() {
    assert_eq!(read_pod(wire("a", "n2"), "n1"), None);
    let bare = json!({"metadata": {"name": "a"}, "spec": {"containers": null}});
    assert_eq!(read_pod(bare, "n1"), None);
    let mut bare = json!({"metadata": {"name": "a", "deletionTimestamp": "2024-01-01T00:00:00Z"}, "spec": {"nodeName": "n1"}});
    assert!(read_pod(bare.clone(), "n1").unwrap().deleting);
    bare["status"] = json!({"podIP": "", "phase": "New"});
    let pod = read_pod(bare, "n1").unwrap();
    assert_eq!((pod.ip, pod.phase), (None, Phase::Unknown));
}

fn problem(source: Source) -> Problem {
    Problem::new(source, &Metrics::default())
}

async fn until(pods: &mut watch::Receiver<Pods>, what: &str, reached: impl FnMut(&Pods) -> bool) -> Pods {
    let waited = tokio::time::timeout(PATIENCE, pods.wait_for(reached)).await.map(|pods| pods.unwrap().clone());
    waited.unwrap_or_else(|_| panic!("{what}"))
}

fn names(pods: &Pods) -> Vec<&str> {
    let mut names: Vec<&str> = pods.by_uid.values().map(|pod| &*pod.name).collect();
    names.sort_unstable();
    names
}

/// What the test's kubelet answers.
struct Answers {
    status: AtomicU16,
    pods: Mutex<Vec<Value>>,
    token: Mutex<String>,
    asked: AtomicUsize,
}

async fn kubelet(folder: &Path) -> (Arc<Answers>, KubeletSettings) {
    server::install_crypto();
    let pair = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    std::fs::write(&cert, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("token"), "one\n").unwrap();
    let answers = Arc::new(Answers {
        status: AtomicU16::new(200),
        pods: Mutex::new(vec![wire("a", "n1"), wire("elsewhere", "n2")]),
        token: Mutex::new("one".to_owned()),
        asked: AtomicUsize::new(0),
    });
    let list = |State(answers): State<Arc<Answers>>, headers: HeaderMap| async move {
        answers.asked.fetch_add(1, Ordering::SeqCst);
        if headers.get("authorization").is_none_or(|sent| *sent != format!("Bearer {}", answers.token.lock())) {
            return (StatusCode::UNAUTHORIZED, String::new()).into_response();
        }
        let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": *answers.pods.lock()});
        (StatusCode::from_u16(answers.status.load(Ordering::SeqCst)).unwrap(), list.to_string()).into_response()
    };
    let router = Router::new().route("/pods", get(list)).with_state(Arc::clone(&answers));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let files = server::TlsFiles { certificate: cert.clone(), key: key.clone(), client_ca: None };
    let tls = server::Tls::from_files(&files).unwrap();
    tokio::spawn(server::serve(listener, router, server::Limits::default(), Some(tls), CancellationToken::new()));
    let settings = KubeletSettings {
        host: "127.0.0.1".to_owned(),
        port,
        interval: Duration::from_millis(10),
        request_timeout: Duration::from_secs(5),
        token: folder.join("token"),
        ca: cert,
    };
    (answers, settings)
}

async fn until_problem(problem: &Problem, wanted: &str) {
    let wait = async {
        while !problem.text.lock().as_ref().is_some_and(|text| text.contains(wanted)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.unwrap_or_else(|_| panic!("{wanted}, not {:?}", problem.text.lock()));
}

#[tokio::test]
async fn a_kubelet_is_polled_and_its_failures_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (answers, settings) = kubelet(folder.path()).await;
    let (stop, problem) = (CancellationToken::new(), problem(Source::Pods));
    let source = PodSource::Kubelet(Kubelet::new(&settings).unwrap());
    let mut pods = start(source, "n1", problem.clone(), &stop);
    assert!(!pods.borrow().known);
    assert_eq!(names(&until(&mut pods, "first list", |pods| pods.known).await), ["a"]);
    answers.pods.lock().push(wire("b", "n1"));
    until(&mut pods, "a new pod", |pods| names(pods) == ["a", "b"]).await;

    answers.status.store(500, Ordering::SeqCst);
    answers.pods.lock().clear();
    until_problem(&problem, "the kubelet answered 500").await;
    assert_eq!(names(&pods.borrow()), ["a", "b"]);
    answers.status.store(200, Ordering::SeqCst);
    until(&mut pods, "empty again", |pods| pods.by_uid.is_empty()).await;
    assert_eq!(*problem.text.lock(), None);

    // Kubernetes replaces tokens.
    "two".clone_into(&mut answers.token.lock());
    until_problem(&problem, "nodes/proxy").await;
    std::fs::write(folder.path().join("token"), "two").unwrap();
    answers.pods.lock().push(wire("c", "n1"));
    until(&mut pods, "the new token", |pods| names(pods) == ["c"]).await;

    let unchanged = answers.asked.load(Ordering::SeqCst);
    pods.mark_unchanged();
    while answers.asked.load(Ordering::SeqCst) < unchanged + 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!pods.has_changed().unwrap(), "the same list again is no change");
    stop.cancel();
    assert!(tokio::time::timeout(PATIENCE, pods.changed()).await.unwrap().is_err(), "polling ends");
}

#[tokio::test]
async fn a_kubelet_that_is_somebody_else_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let (answers, mut settings) = kubelet(folder.path()).await;
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    settings.ca = folder.path().join("other.crt");
    std::fs::write(&settings.ca, other.cert.pem()).unwrap();
    let (stop, problem) = (CancellationToken::new(), problem(Source::Pods));
    let pods = start(PodSource::Kubelet(Kubelet::new(&settings).unwrap()), "n1", problem.clone(), &stop);
    until_problem(&problem, "certificate").await;
    assert!(!pods.borrow().known);
    assert_eq!(answers.asked.load(Ordering::SeqCst), 0, "the token is not sent");

    std::fs::write(&settings.ca, "no certificate").unwrap();
    let refused = Kubelet::new(&settings).unwrap_err().to_string();
    assert!(refused.contains("kubelet-discovery.ca-path"), "{refused}");
    settings.token = folder.path().join("missing");
    settings.ca = folder.path().join("missing too: the authorities of the system");
    let refused = Kubelet::new(&settings).unwrap_err().to_string();
    assert!(refused.contains("kubelet-discovery.token-path"), "{refused}");
}

/// A real API server with the rights of our manifest and no others.
#[tokio::test(flavor = "multi_thread")]
async fn pods_and_node_are_followed_through_an_outage() {
    let Some(mut server) = kube_testing::start(&[]).await else { return };
    let rbac = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/rbac/collector.yaml");
    server.create("apiVersion: v1\nkind: Namespace\nmetadata: {name: adx-mon}").await.unwrap();
    server.create(&std::fs::read_to_string(rbac).unwrap()).await.unwrap();
    let admin = server.admin().await;
    let kubeconfig = server.service_account("adx-mon", "collector").await.unwrap();
    let client = kube_watch::connect(Some(&kubeconfig)).await.unwrap().unwrap();
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {zone: a}, annotations: {rack: '7'}}";
    server.create(node).await.unwrap();
    create(&server, "a", "n1").await;
    create(&server, "elsewhere", "n2").await;

    let (stop, problem) = (CancellationToken::new(), problem(Source::Pods));
    let node_problem = self::problem(Source::Node);
    let mut node = start_node(client.clone(), "n1", node_problem.clone(), &stop).await;
    assert_eq!(node.borrow().labels.get("zone").map(|zone| &**zone), Some("a"));
    assert_eq!(node.borrow().annotations.get("rack").map(|rack| &**rack), Some("7"));
    let mut pods = start(PodSource::Api(client), "n1", problem.clone(), &stop);
    assert_eq!(names(&until(&mut pods, "list", |pods| pods.known).await), ["a"]);

    create(&server, "b", "n1").await;
    until(&mut pods, "a new pod", |pods| names(pods) == ["a", "b"]).await;
    let api: Api<DynamicObject> = Api::namespaced_with(admin.clone(), "default", &object::resource());
    let status = json!({"status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}});
    api.patch_status("a", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    let address = Some("10.0.0.1".parse().unwrap());
    until(&mut pods, "an address", |pods| pods.by_uid.values().any(|pod| &*pod.name == "a" && pod.ip == address)).await;

    // While the server is away nothing is forgotten; afterwards all is seen that has happened.
    server.stop();
    until_problem(&problem, "ing: ").await;
    assert_eq!(names(&pods.borrow()), ["a", "b"]);
    server.restart().await.unwrap();
    api.delete("a", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.unwrap();
    until(&mut pods, "a deletion", |pods| names(pods) == ["b"]).await;
    assert_eq!(*problem.text.lock(), None);

    // The node's labels follow; when it is deleted they stay.
    let nodes: Api<DynamicObject> =
        Api::all_with(admin, &ApiResource::from_gvk(&kube_client::core::GroupVersionKind::gvk("", "v1", "Node")));
    nodes.patch("n1", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"zone": "b"}}}))).await.unwrap();
    let zone_b = node.wait_for(|node| node.labels.get("zone").is_some_and(|zone| &**zone == "b"));
    drop(tokio::time::timeout(PATIENCE, zone_b).await.expect("the new label").unwrap());
    nodes.delete("n1", &DeleteParams::default()).await.unwrap();
    server.create("apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {zone: c}}").await.unwrap();
    let mut seen = vec![];
    while seen.last().is_none_or(|zone| zone != "c") {
        seen.push(node.borrow_and_update().labels.get("zone").map_or_else(String::new, |zone| zone.to_string()));
        if seen.last().is_some_and(|zone| zone != "c") {
            tokio::time::timeout(PATIENCE, node.changed()).await.expect("the new node").unwrap();
        }
    }
    assert!(!seen.contains(&String::new()), "the labels of a deleted node stay: {seen:?}");
    stop.cancel();
}

async fn create(server: &kube_testing::ApiServer, name: &str, node: &str) {
    let mut pod = wire(name, node);
    pod.as_object_mut().unwrap().remove("status");
    let metadata = pod["metadata"].as_object_mut().unwrap();
    metadata.retain(|key, _| !["uid", "resourceVersion", "creationTimestamp"].contains(&key.as_str()));
    pod["spec"].as_object_mut().unwrap().remove("ephemeralContainers");
    server.create(&pod.to_string()).await.unwrap();
}
