//! Scraping what a real API server, or a kubelet, says of pods; with the rights of our manifest and no others.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube_client::api::{Api, DeleteParams, Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::{Value, json};
use server::Limits;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::exporting::Receiver;
use crate::support::Collector;

const PATIENCE: Duration = Duration::from_secs(60);
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Pages `/a`, `/b` … of one series each; answers with the port.
async fn targets() -> u16 {
    let page = |axum::extract::Path(name): axum::extract::Path<String>| async move { format!("{name}_series 1\n") };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().route("/{name}", get(page));
    tokio::spawn(server::serve(listener, router, Limits::default(), None, CancellationToken::new()));
    port
}

fn settings(kubernetes: &str, receiver: &Receiver) -> (String, String) {
    let tables = format!(
        "[metadata-watch]\nkubernetes-node = {{}}\n[add-metadata-labels.kubernetes-node]\nlabels = {{ 'topology/zone' = 'zone' }}\n\
         [prometheus-scrape]\ndatabase = 'Scraped'\nscrape-interval = 1\nexporters = ['copy']\n\
         [[exporters.remote-write-metric-export]]\nname = 'copy'\ndestination = '{}/write'\n",
        receiver.url
    );
    (kubernetes.to_owned(), tables)
}

/// Names of the pods that are up.
async fn up(collector: &Collector) -> Vec<String> {
    let document = document(collector).await;
    let active = document["data"]["activeTargets"].as_array().unwrap();
    let up = active.iter().filter(|target| target["health"] == "up");
    let mut up: Vec<String> = up.map(|target| target["labels"]["pod"].as_str().unwrap().to_owned()).collect();
    up.sort();
    up
}

async fn document(collector: &Collector) -> Value {
    serde_json::from_str(&collector.get("/api/v1/targets").await.1).unwrap()
}

async fn until_up(collector: &Collector, pods: &[&str]) {
    let wait = async {
        while up(collector).await != pods {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("{pods:?} are not up: {:#}", document(collector).await);
    }
}

async fn until_told(receiver: &Receiver, what: &str, told: impl Fn(&(String, String, f64)) -> bool) {
    let wait = async {
        while !receiver.got.lock().unwrap().iter().any(&told) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what} was not told: {:?}", receiver.got.lock().unwrap()));
}

fn pod(name: &str, port: u16, annotated: bool) -> Value {
    let mut annotations = json!({"adx-mon/path": name});
    if annotated {
        annotations["adx-mon/scrape"] = "true".into();
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}, "annotations": annotations},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": port}]}]},
    })
}

fn running() -> Value {
    json!({"status": {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn annotated_pods_and_services_are_scraped_through_an_outage() {
    let Some(mut server) = kube_testing::start(&[]).await else { return };
    let rbac = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/rbac/collector.yaml");
    server.create("apiVersion: v1\nkind: Namespace\nmetadata: {name: adx-mon}").await.unwrap();
    server.create(&std::fs::read_to_string(rbac).unwrap()).await.unwrap();
    server.create("apiVersion: v1\nkind: Node\nmetadata: {name: node-1, labels: {topology/zone: west}}").await.unwrap();
    let kubeconfig = server.service_account("adx-mon", "collector").await.unwrap();
    let (admin, port, receiver) = (server.admin().await, targets().await, Receiver::start().await);
    let pods: Api<Pod> = Api::namespaced(admin.clone(), "default");
    let patch = async |name: &str, change: Value| pods.patch(name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    let create = async |name: &str, annotated: bool| {
        server.create(&pod(name, port, annotated).to_string()).await.unwrap();
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(running())).await.unwrap();
    };
    create("a", true).await;
    create("b", false).await;
    create("c", false).await;

    let (settings, tables) = settings(&format!("kube-config = '{}'", kubeconfig.display()), &receiver);
    let collector = Collector::start(&settings, &tables).await;
    until_up(&collector, &["a"]).await;
    // The labels of the node are there from the first sample on, and follow it.
    until_told(&receiver, "a", |(name, labels, _)| name == "a_series" && labels.contains("zone=west")).await;
    let nodes: Api<Node> = Api::all(admin.clone());
    let moved = json!({"metadata": {"labels": {"topology/zone": "east"}}});
    nodes.patch("node-1", &PatchParams::default(), &Patch::Merge(moved)).await.unwrap();
    until_told(&receiver, "the new zone", |(name, labels, _)| name == "a_series" && labels.contains("zone=east")).await;

    // Annotated later; and behind a Service.
    patch("b", json!({"metadata": {"annotations": {"adx-mon/scrape": "true"}}})).await;
    until_up(&collector, &["a", "b"]).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "s", "namespace": "default", "annotations": {"adx-mon/scrape": "true", "adx-mon/path": "/c"}},
        "spec": {"selector": {"app": "c"}, "ports": [{"name": "web", "port": 80, "targetPort": "http"}]},
    });
    server.create(&service.to_string()).await.unwrap();
    until_up(&collector, &["a", "b", "c"]).await;

    // The annotation goes, and with it the target and its series.
    patch("a", json!({"metadata": {"annotations": {"adx-mon/scrape": null}}})).await;
    until_up(&collector, &["b", "c"]).await;
    let is_stale = |wanted: &'static str| move |(name, _, value): &(String, String, f64)| name == wanted && value.to_bits() == STALE;
    until_told(&receiver, "the end of a", is_stale("a_series")).await;

    // Without the API server, what is known is scraped on; what happened meanwhile shows afterwards.
    server.stop();
    collector.until("adxmon_collector_discovery_up{source=\"Pods\"}", |up| up == 0.0).await;
    assert_eq!(up(&collector).await, ["b", "c"]);
    let before = receiver.got.lock().unwrap().iter().filter(|(name, _, _)| name == "b_series").count();
    let more = async || {
        while receiver.got.lock().unwrap().iter().filter(|(name, _, _)| name == "b_series").count() <= before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, more()).await.expect("b is scraped on");
    server.restart().await.unwrap();
    let completed = json!({"status": {"phase": "Succeeded"}});
    pods.patch_status("b", &PatchParams::default(), &Patch::Merge(completed)).await.unwrap();
    until_up(&collector, &["c"]).await;
    let reasons = document(&collector).await["data"]["droppedTargets"].to_string();
    assert!(reasons.contains("it has completed"), "{reasons}");
    pods.delete("c", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.unwrap();
    until_up(&collector, &[]).await;
    until_told(&receiver, "the end of c", is_stale("c_series")).await;
    let services: Api<Service> = Api::namespaced(admin, "default");
    services.delete("s", &DeleteParams::default()).await.unwrap();
    collector.until("adxmon_collector_discovery_up{source=\"Services\"}", |up| up == 1.0).await;
    collector.stop().await;
}

/// No API server at all: the kubelet is asked.
#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_kubelet_are_scraped() {
    server::install_crypto();
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (cert, key, token) = (folder.path().join("ca.crt"), folder.path().join("tls.key"), folder.path().join("token"));
    std::fs::write(&cert, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    std::fs::write(&token, "secret").unwrap();
    let (port, list) = (targets().await, Arc::new(Mutex::new(Vec::new())));
    let items = Arc::clone(&list);
    let answer = move || std::future::ready(json!({"kind": "PodList", "apiVersion": "v1", "items": *items.lock()}).to_string());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let kubelet_port = listener.local_addr().unwrap().port();
    let files = server::TlsFiles { certificate: cert.clone(), key, client_ca: None };
    let tls = server::Tls::from_files(&files).unwrap();
    let router = Router::new().route("/pods", get(answer));
    tokio::spawn(server::serve(listener, router, Limits::default(), Some(tls), CancellationToken::new()));
    let show = |pods: &[(&str, bool)]| {
        let wire = |(name, annotated): &(&str, bool)| {
            let mut pod = pod(name, port, *annotated);
            pod["metadata"]["uid"] = (*name).into();
            pod["status"] = running()["status"].clone();
            pod
        };
        *list.lock() = pods.iter().map(wire).collect();
    };
    show(&[("a", true), ("b", false)]);
    let tables = format!(
        "[kubelet-discovery]\nhost = '127.0.0.1'\nport = {kubelet_port}\npoll-interval = 1\ntoken-path = '{}'\nca-path = '{}'\n\
         [prometheus-scrape]\ndatabase = 'Scraped'\nscrape-interval = 1\n",
        token.display(),
        cert.display()
    );
    let collector = Collector::start("", &tables).await;
    until_up(&collector, &["a"]).await;
    show(&[("a", false), ("b", true)]);
    until_up(&collector, &["b"]).await;
    show(&[]);
    until_up(&collector, &[]).await;
    collector.stop().await;
}

/// Static targets need no cluster, and without one discovery says what to do.
#[tokio::test]
async fn discovery_without_a_cluster_says_the_way_out() {
    if std::env::var_os("KUBECONFIG").is_some() || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "listen-addr = '127.0.0.1:0'\nstorage-dir = '{}'\n[prometheus-scrape]\ndatabase = 'M'\nscrape-interval = 1\n",
        folder.path().display()
    );
    let (config, _) = collector::Config::from_toml(&text, "node-1").unwrap();
    let Err(refused) = collector::start(config, CancellationToken::new()).await else { panic!("it started") };
    let refused = format!("{refused:#}");
    assert!(refused.contains("kube-config") && refused.contains("disable-discovery"), "{refused}");
}
