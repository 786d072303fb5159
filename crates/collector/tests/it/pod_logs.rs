//! Logs of pods that a real API server knows, laid out as a kubelet does, with the rights of our manifest and no others.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube_client::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::log_transforms::Ingestor;
use crate::support::Collector;

/// A node's `/var/log`.
struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Node {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("containers")).unwrap();
        Node { dir }
    }

    /// The link to the log of a container, which the kubelet made with its folder.
    fn container(&self, pod: &str, id: &str) -> PathBuf {
        let folder = self.dir.path().join(format!("pods/default_{pod}_uid/main"));
        std::fs::create_dir_all(&folder).unwrap();
        let link = self.dir.path().join(format!("containers/{pod}_default_main-{id}.log"));
        std::os::unix::fs::symlink(folder.join("0.log"), &link).unwrap();
        link
    }
}

/// Writes a line as containerd does.
fn write(log: &Path, message: &str) {
    let mut file = std::fs::File::options().create(true).append(true).open(log).unwrap();
    writeln!(file, "2024-01-02T03:04:05.000000001Z stdout F {message}").unwrap();
}

fn pod(name: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}, "annotations": annotations},
        "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "i"}]},
    })
}

fn running(id: &str) -> Value {
    let container = json!({
        "name": "main", "containerID": format!("containerd://{id}"), "image": "i", "imageID": "i", "ready": true, "restartCount": 0,
        "state": {"running": {}},
    });
    json!({"status": {"phase": "Running", "containerStatuses": [container]}})
}

/// `Body` and `Resource` of the rows of a table.
pub(crate) fn rows(ingestor: &Ingestor, table: &str) -> Vec<(Value, Value)> {
    let text = ingestor.rows(table).join("\n");
    let rows = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes()).into_records().map(Result::unwrap);
    // TraceID,SpanID,SeverityText,SeverityNumber,Body,Resource,Attributes and what is lifted.
    rows.map(|row| (serde_json::from_str(&row[4]).unwrap(), serde_json::from_str(&row[5]).unwrap())).collect()
}

async fn until_rows(ingestor: &Ingestor, table: &str, count: usize) -> Vec<(Value, Value)> {
    for _ in 0..1200 {
        if rows(ingestor, table).len() >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let rows = rows(ingestor, table);
    assert_eq!(rows.len(), count, "{table}: {rows:?}");
    rows
}

/// Lines as containerd writes them; of a long line, all parts but the last are marked.
fn write_parts(log: &Path, lines: &[&[&str]]) {
    let mut file = std::fs::File::options().create(true).append(true).open(log).unwrap();
    for parts in lines {
        for (i, part) in parts.iter().enumerate() {
            let tag = if i + 1 < parts.len() { "P" } else { "F" };
            writeln!(file, "2024-01-02T03:04:05.000000001Z stderr {tag} {part}").unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_trace_of_a_pod_is_one_record() {
    let Some(server) = kube_testing::start(&[]).await else { return };
    let rbac = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/rbac/collector.yaml");
    server.create("apiVersion: v1\nkind: Namespace\nmetadata: {name: adx-mon}").await.unwrap();
    server.create(&std::fs::read_to_string(rbac).unwrap()).await.unwrap();
    let kubeconfig = server.service_account("adx-mon", "collector").await.unwrap();
    let pods: Api<Pod> = Api::namespaced(server.admin().await, "default");
    let node = Node::new();
    let annotated = |name: &str, value: &str| {
        let mut annotations = json!({"adx-mon/scrape": "true", "adx-mon/log-destination": "Logs:Asked"});
        annotations[name] = value.into();
        annotations
    };
    let java: &[&[&str]] = &[
        &["java.lang.IllegalStateException: no ", "order"],
        &["    at shop.Order.load(Order.", "java:17)"],
        &["Caused by: java.io.IOException: closed"],
        &["    ... 3 more"],
        &["started"],
    ];
    let python: &[&[&str]] =
        &[&["Traceback (most recent call last):"], &["  File \"app.py\", line 3, in <module>"], &["KeyError: 'id'"], &["started"]];
    let dated: &[&[&str]] = &[&["> one"], &["of two ", "lines"], &["> next"]];
    for (name, annotations, lines) in [
        ("presets", annotated("adx-mon/log-multi-line", "java, node"), java),
        ("first-line", annotated("adx-mon/log-first-line", "^> "), dated),
        // One that cannot be used costs nothing: the configuration counts.
        ("mistaken", annotated("adx-mon/log-first-line", "("), python),
        ("without", annotated("adx-mon/log-multi-line", ""), python),
        ("chosen", json!({}), java),
    ] {
        server.create(&pod(name, &annotations).to_string()).await.unwrap();
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(running(name))).await.unwrap();
        write_parts(&node.container(name, name), lines);
    }
    let ingestor = Ingestor::default();
    let settings = format!("{}\nkube-config = '{}'\nmax-segment-age-seconds = 1", ingestor.start().await, kubeconfig.display());
    let tables = "[[host-log]]\npod-defaults = { multi-line = { presets = ['python'] } }\n\
                  [[host-log.static-pod-target]]\nname = 'chosen'\ndestination = 'Logs:Chosen'\nmax-line-bytes = 60\n\
                  multi-line = { presets = ['java'] }\n";
    let containers = node.dir.path().join("containers");
    let collector = Collector::start_with(&settings, tables, |config| {
        config.files[0].pods.as_mut().unwrap().dir = containers.clone();
    })
    .await;
    let asked = until_rows(&ingestor, "Logs_Asked", 10).await;
    let of = |pod: &str| -> Vec<String> {
        let own = asked.iter().filter(|(_, resource)| resource["pod"] == pod);
        own.map(|(body, _)| body["message"].as_str().unwrap().to_owned()).collect()
    };
    let trace = "java.lang.IllegalStateException: no order\n    at shop.Order.load(Order.java:17)\n\
                 Caused by: java.io.IOException: closed\n    ... 3 more";
    assert_eq!(of("presets"), [trace, "started"]);
    assert_eq!(of("first-line"), ["> one\nof two lines", "> next"]);
    let traceback = "Traceback (most recent call last):\n  File \"app.py\", line 3, in <module>\nKeyError: 'id'";
    assert_eq!(of("mistaken"), [traceback, "started"]);
    assert_eq!(of("without").join("\n"), format!("{traceback}\nstarted"));
    assert_eq!(of("without").len(), 4);
    // What does not fit begins the next event.
    let chosen: Vec<Value> =
        until_rows(&ingestor, "Logs_Chosen", 4).await.into_iter().map(|(mut body, _)| body["message"].take()).collect();
    assert_eq!(chosen.iter().map(|message| message.as_str().unwrap()).collect::<Vec<_>>().join("\n"), format!("{trace}\nstarted"));
    let unusable = "adxmon_collector_log_annotations_unusable";
    assert_eq!(collector.metric(unusable).await, Some(1.0));
    let mended = json!({"metadata": {"annotations": {"adx-mon/log-first-line": "^x"}}});
    pods.patch("mistaken", &PatchParams::default(), &Patch::Merge(mended)).await.unwrap();
    collector.until(unusable, |count| count == 0.0).await;
    collector.stop().await;
}

/// The node's own, on which most of a large cluster's pods are not: what is asked for, not what is made of the answer.
#[tokio::test(flavor = "multi_thread")]
async fn pods_of_the_own_node_alone_are_asked_for() {
    let (asked, mut asks) = tokio::sync::mpsc::unbounded_channel();
    let answer = move |uri: axum::http::Uri| {
        if uri.path() == "/api/v1/pods" {
            let _ = asked.send(uri.query().unwrap_or_default().to_owned());
        }
        let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []});
        async move { axum::Json(list) }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback(answer);
    tokio::spawn(server::serve(listener, router, server::Limits::default(), None, tokio_util::sync::CancellationToken::new()));
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [],
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
        "contexts": [{"name": "c", "context": {"cluster": "c"}}],
    });
    std::fs::write(&kubeconfig, text.to_string()).unwrap();
    let collector = Collector::start(&format!("kube-config = '{}'", kubeconfig.display()), "[[host-log]]\n").await;
    let mut next = async || tokio::time::timeout(Duration::from_secs(30), asks.recv()).await.unwrap().unwrap();
    let (list, watch) = (next().await, next().await);
    for query in [&list, &watch] {
        assert!(query.contains("fieldSelector=spec.nodeName%3Dnode-1"), "{query}");
    }
    assert!(!list.contains("watch=true") && watch.contains("watch=true"), "{list}, {watch}");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_pods_follow_their_annotations_through_an_outage() {
    let Some(mut server) = kube_testing::start(&[]).await else { return };
    let rbac = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/rbac/collector.yaml");
    server.create("apiVersion: v1\nkind: Namespace\nmetadata: {name: adx-mon}").await.unwrap();
    server.create(&std::fs::read_to_string(rbac).unwrap()).await.unwrap();
    let kubeconfig = server.service_account("adx-mon", "collector").await.unwrap();
    let pods: Api<Pod> = Api::namespaced(server.admin().await, "default");
    let patch = async |name: &str, change: Value| pods.patch(name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    let node = Node::new();
    let create = async |name: &str, annotations: Value| {
        server.create(&pod(name, &annotations).to_string()).await.unwrap();
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(running(name))).await.unwrap();
        node.container(name, name)
    };
    let asked = json!({"adx-mon/scrape": "true", "adx-mon/log-destination": "Logs:Web", "adx-mon/log-parsers": "json", "team": "blue"});
    let web = create("web", asked).await;
    let silent = create("silent", json!({"adx-mon/log-destination": "Logs:Silent"})).await;
    write(&web, r#"{"n":1}"#);
    write(&silent, "not asked for");

    let ingestor = Ingestor::default();
    let settings = format!(
        "{}\nkube-config = '{}'\nmax-segment-age-seconds = 1\nlift-resources = [{{ name = 'label.app' }}, {{ name = 'annotation.team' }}]",
        ingestor.start().await,
        kubeconfig.display()
    );
    let tables = "[[host-log]]\n[[host-log.transforms]]\nname = 'logrouter'\n[[host-log.static-pod-target]]\nname = 'chosen'\ndestination = 'Logs:Chosen'\n";
    let containers = node.dir.path().join("containers");
    let collector = Collector::start_with(&settings, tables, |config| {
        config.files[0].pods.as_mut().unwrap().dir = containers.clone();
    })
    .await;
    let first = until_rows(&ingestor, "Logs_Web", 1).await.remove(0);
    assert_eq!(first.0, json!({"n": 1, "stream": "stdout"}));
    for (key, value) in [("pod", "web"), ("namespace", "default"), ("container", "main"), ("containerID", "containerd://web")] {
        assert_eq!(first.1[key], value, "{key} of {}", first.1);
    }
    // Lifted in the order of their names.
    assert!(ingestor.rows("Logs_Web")[0].ends_with(",blue,web"), "{:?}", ingestor.rows("Logs_Web"));

    // Annotations that say where to by what a line says.
    let routes = json!({
        "adx-mon/scrape": "true", "adx-mon/log-destination": "Logs:Rest", "adx-mon/log-parsers": "json",
        "adx-mon/log-keys": "level:error:Logs:Errors", "adx-mon/log-sources": "audit:Logs:Audit",
    });
    let routed = create("routed", routes).await;
    for (table, line) in [("Errors", r#"{"level":"error"}"#), ("Audit", r#"{"source":"audit"}"#), ("Rest", r#"{"level":"info"}"#)] {
        write(&routed, line);
        let [(mut body, _)] = <[_; 1]>::try_from(until_rows(&ingestor, &format!("Logs_{table}"), 1).await).unwrap();
        body.as_object_mut().unwrap().remove("stream");
        assert_eq!(body, serde_json::from_str::<Value>(line).unwrap());
    }

    // One that comes later, and that the configuration chooses; and a rotation as the kubelet does it.
    let chosen = create("chosen", json!({})).await;
    write(&chosen, "chosen");
    assert_eq!(until_rows(&ingestor, "Logs_Chosen", 1).await[0].0["message"], "chosen");
    write(&web, r#"{"n":2}"#);
    let file = std::fs::canonicalize(&web).unwrap();
    std::fs::rename(&file, file.with_file_name("0.log.20240102-030405")).unwrap();
    write(&web, r#"{"n":3}"#);
    until_rows(&ingestor, "Logs_Web", 3).await;

    // Annotations are edited: what is written from then on goes elsewhere, and nothing of what was read comes again.
    let edited =
        json!({"metadata": {"annotations": {"adx-mon/log-destination": "Other:Moved", "adx-mon/log-parsers": "keyvalue", "team": "red"}}});
    patch("web", edited).await;
    let mut moved = 0;
    while ingestor.rows("Other_Moved").is_empty() {
        assert!(moved < 600, "nothing is stored in the new table");
        write(&web, &format!("moved={moved}"));
        moved += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(rows(&ingestor, "Other_Moved").last().unwrap().0["stream"], "stdout");
    assert!(ingestor.rows("Other_Moved")[0].ends_with(",red,web"), "{:?}", ingestor.rows("Other_Moved"));

    // Without the API server, what is known is read on.
    server.stop();
    collector.until("adxmon_collector_discovery_up{source=\"Pods\"}", |up| up == 0.0).await;
    write(&chosen, "meanwhile");
    until_rows(&ingestor, "Logs_Chosen", 2).await;
    server.restart().await.unwrap();
    let asked = json!({"metadata": {"annotations": {"adx-mon/scrape": "true"}}});
    patch("silent", asked).await;
    // From its start: nothing of a pod is left out for want of an annotation.
    assert_eq!(until_rows(&ingestor, "Logs_Silent", 1).await[0].0["message"], "not asked for");

    // A pod ends: its last line is stored, and then nobody follows it.
    write(&chosen, "last words");
    pods.delete("chosen", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.unwrap();
    until_rows(&ingestor, "Logs_Chosen", 3).await;
    std::fs::remove_file(std::fs::canonicalize(&chosen).unwrap()).unwrap();
    std::fs::remove_file(&chosen).unwrap();
    let followed = async {
        while collector.metric("adxmon_collector_tail_files").await != Some(3.0) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    // A pod that is gone is remembered for a minute.
    tokio::time::timeout(Duration::from_secs(120), followed).await.expect("the pod that ended is forgotten");
    collector.stop().await;

    // Each line went to one table, once.
    let mut numbers: Vec<i64> = rows(&ingestor, "Logs_Web").iter().filter_map(|(body, _)| body["n"].as_i64()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3]);
    let (web, other) = (rows(&ingestor, "Logs_Web"), rows(&ingestor, "Other_Moved"));
    assert_eq!(web.len() - 3 + other.len(), moved);
    assert_eq!(rows(&ingestor, "Logs_Silent").len(), 1);
}
