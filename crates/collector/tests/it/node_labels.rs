//! Labels and annotations of the Node, in the rows of every source: those of the top of the file, and those of the source,
//! which win.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

use crate::cookbook::rows;
use crate::host_logs::{journal, logger, sent};
use crate::support::{Collector, client};

const NODE: &str = "{apiVersion: v1, kind: Node, metadata: {name: node-1, labels: {topology/zone: west, site: lab}, \
                    annotations: {example/rack: '7'}}}";

/// For each source a table, in the database of its name.
fn tables(logs: &str) -> String {
    let own = |of: &str| format!("[{of}.add-metadata-labels.kubernetes-node]\nlabels = {{ site = 'zone', none = 'none' }}\n");
    format!(
        "[metadata-watch]\nkubernetes-node = {{}}\n\
         [add-metadata-labels.kubernetes-node]\nlabels = {{ 'topology/zone' = 'zone' }}\nannotations = {{ 'example/rack' = 'rack' }}\n\
         [[prometheus-remote-write]]\ndatabase = 'Write'\npath = '/receive'\n{}\
         [[prometheus-remote-write]]\ndatabase = 'Plain'\npath = '/plain'\n\
         [[otel-metric]]\ndatabase = 'Otlp'\npath = '/v1/metrics'\n{}\
         [otel-log]\n{}\
         [[host-log]]\ndisable-kube-discovery = true\n{}\
         [[host-log.file-target]]\nfile-path = '{logs}/app.log'\ndatabase = 'Files'\ntable = 'T'\n\
         [[host-log.journal-target]]\njournal-path = '{logs}'\ndatabase = 'Journal'\ntable = 'T'\n\
         [[host-log.kernel-target]]\ndatabase = 'Kernel'\ntable = 'T'\npriority = 'debug'\n\
         [otel-trace]\ndatabase = 'Traces'\n\
         [[syslog]]\nlisten-addr = '127.0.0.1:0'\nprotocol = 'tcp'\ndatabase = 'Syslog'\ntable = 'T'\n",
        own("prometheus-remote-write"),
        own("otel-metric"),
        own("otel-log"),
        own("host-log")
    )
}

async fn post(collector: &Collector, path: &str, body: Value) {
    let url = format!("{}{path}", collector.url);
    let response = client().post(url).header(CONTENT_TYPE, "application/json").body(body.to_string()).send().await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_every_source_say_where_the_node_is() {
    let Some(server) = kube_testing::start(&[]).await else { return };
    let rbac = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/rbac/collector.yaml");
    server.create("apiVersion: v1\nkind: Namespace\nmetadata: {name: adx-mon}").await.unwrap();
    server.create(&std::fs::read_to_string(rbac).unwrap()).await.unwrap();
    server.create(NODE).await.unwrap();
    let kubeconfig = server.service_account("adx-mon", "collector").await.unwrap();
    let logs = tempfile::tempdir().unwrap();
    journal(&logs.path().join("system.journal"), &["entry"]);
    std::fs::write(logs.path().join("app.log"), "line\n").unwrap();

    let settings = format!("kube-config = '{}'", kubeconfig.display());
    let collector = Collector::start(&settings, &tables(&logs.path().display().to_string())).await;
    for path in ["receive", "plain"] {
        let body = crate::support::one_sample("up", 1.0);
        let response = client().post(format!("{}/{path}", collector.url)).body(body).send().await.unwrap();
        assert_eq!(response.status(), 202);
    }
    let point =
        json!({"timeUnixNano": "1700000000000000000", "asDouble": 1.0, "attributes": [{"key": "host", "value": {"stringValue": "h"}}]});
    let metric = json!({"name": "up", "gauge": {"dataPoints": [point]}});
    post(&collector, "/v1/metrics", json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]})).await;
    let destination = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let attributes = [destination("kusto.database", "Records"), destination("kusto.table", "T")];
    let record = json!({"body": {"stringValue": "record"}, "attributes": attributes});
    post(&collector, "/v1/logs", json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})).await;
    let span = json!({"traceId": "01".repeat(16), "spanId": "02".repeat(8), "name": "span", "startTimeUnixNano": "1700000000000000000"});
    post(&collector, "/v1/traces", json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})).await;
    let port = collector.running().syslog[0].port().to_string();
    logger(&["--server", "127.0.0.1", "--tcp", "--port", &port, "--tag", "test", "message"]);
    collector.until(&sent("kernelsource"), |count| count > 0.0).await;
    for source in ["tailsource", "journal", "syslog", "otlp-logs"] {
        collector.until(&sent(source), |count| count == 1.0).await;
    }

    let (own, global) = ([("none", ""), ("rack", "7"), ("zone", "lab")], [("rack", "7"), ("zone", "west")]);
    let expected = [
        ("Files", &own[..]),
        ("Journal", &own),
        ("Kernel", &own),
        ("Otlp", &own),
        ("Plain", &global),
        ("Records", &own),
        ("Syslog", &global),
        ("Traces", &global),
        ("Write", &own),
    ];
    let of_the_node = |row: &Map<String, Value>| {
        let labels = ["Labels", "Resource", "ResourceAttributes"].iter().find_map(|column| row.get(*column));
        let labels = labels.unwrap_or_else(|| panic!("{row:?}")).as_object().unwrap();
        let labels = labels.iter().filter(|(name, _)| ["none", "rack", "zone"].contains(&name.as_str()));
        labels.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect::<BTreeMap<_, _>>()
    };
    let rows = rows(&collector.stop().await);
    // The kernel has many records, which have the same.
    let got: BTreeSet<(&str, BTreeMap<String, String>)> =
        rows.iter().map(|row| (row["Database"].as_str().unwrap(), of_the_node(row))).collect();
    let expected = expected.map(|(database, labels)| (database, labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()));
    assert_eq!(got, BTreeSet::from(expected));
}
