//! OTLP logs through the transforms of a configuration, into what an ingestor is sent.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::Query;
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use server::Limits;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::support::{Collector, client};

const TRANSFORMS: &str = "
lift-resources = [{ name = 'team' }]
[add-attributes]
region = 'west'
[otel-log]
default-database = 'Logs'
default-table = 'Other'
[[otel-log.transforms]]
name = 'drop'
config = { any = [{ field = 'Body.path', equals = '/healthz' }] }
[[otel-log.transforms]]
name = 'redact'
config = { presets = ['email'] }
[[otel-log.transforms]]
name = 'addattributes'
config = { ResourceValues = { team = 'blue', region = 'no' } }
[[otel-log.transforms]]
name = 'kql'
[otel-log.transforms.config]
query = '''
extend Table = iff(SeverityNumber >= 17, 'Errors', Table), Attributes = Body.attributes
| where Body.path != '/secret' or isnull(Body.path)'''
";

fn request(records: &[Value]) -> String {
    let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]});
    json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]}).to_string()
}

fn body(path: &str) -> Value {
    json!({"kvlistValue": {"values": [{"key": "path", "value": {"stringValue": path}}, {"key": "by", "value": {"stringValue": "a@b.io"}}]}})
}

async fn post(collector: &Collector, records: &[Value]) -> (u16, Value) {
    let request = client().post(format!("{}/v1/logs", collector.url)).header(CONTENT_TYPE, "application/json").body(request(records));
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// An ingestor that keeps the rows it gets, without their times, by `database_table`.
#[derive(Clone, Default)]
pub(crate) struct Ingestor(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl Ingestor {
    /// Listens until the end of the test; gives the settings of a collector that sends there.
    pub(crate) async fn start(&self) -> String {
        let this = self.clone();
        let transfer = move |Query(query): Query<HashMap<String, String>>, body: Bytes| async move {
            let name = wal::segment::FileName::parse(&query["filename"]).unwrap();
            let text = String::from_utf8(wal::segment::values(&body, true)).unwrap();
            let rows = text.lines().map(|line| line.splitn(3, ',').nth(2).unwrap().to_owned());
            this.0.lock().unwrap().entry(format!("{}_{}", name.database, name.table)).or_default().extend(rows);
            StatusCode::ACCEPTED
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/transfer", axum::routing::post(transfer));
        tokio::spawn(server::serve(listener, router, Limits::default(), None, CancellationToken::new()));
        format!("endpoint = '{url}'\ndisable-gzip = true")
    }

    pub(crate) fn rows(&self, table: &str) -> Vec<String> {
        self.0.lock().unwrap().get(table).cloned().unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_dropped_changed_and_routed() {
    let ingestor = Ingestor::default();
    let collector = Collector::start(&ingestor.start().await, TRANSFORMS).await;
    let records = [
        json!({"body": body("/healthz")}),
        json!({"body": body("/secret")}),
        json!({"body": body("/a"), "severityNumber": 17, "severityText": "ERROR", "traceId": "0a".repeat(16)}),
        json!({"body": {"stringValue": "write to x@y.org"}}),
        json!({"body": {"kvlistValue": {"values": [{"key": "attributes", "value": {"intValue": 1}}]}}}),
    ];
    assert_eq!(post(&collector, &records).await, (200, json!({})));
    assert_eq!(post(&collector, &records[..1]).await, (200, json!({})), "dropping all of a request is a success");
    for (name, count) in [
        ("adxmon_collector_logs_dropped{source=\"otlp-logs\",stage=\"drop\"}", 2.0),
        ("adxmon_collector_logs_dropped{source=\"otlp-logs\",stage=\"kql\"}", 1.0),
        ("adxmon_collector_log_transform_failures_total{source=\"otlp-logs\",transform=\"kql\"}", 1.0),
        ("adxmon_collector_logs_sent{source=\"otlp-logs\",sink=\"StoreSink\"}", 3.0),
        ("adxmon_collector_logs_keys{database=\"Logs\",table=\"Errors\"}", 1.0),
    ] {
        assert_eq!(collector.metric(name).await, Some(count), "{name}");
    }
    collector.stop().await;
    let resource = r#""{""region"":""west"",""service.name"":""shop""}""#;
    let error = format!("{},,ERROR,17,\"{{\"\"by\"\":\"\"[REDACTED]\"\",\"\"path\"\":\"\"/a\"\"}}\",{resource},{{}},blue", "0a".repeat(16));
    assert_eq!(ingestor.rows("Logs_Errors"), [error]);
    let others = [
        format!(r#",,,0,"{{""message"":""write to [REDACTED]""}}",{resource},{{}},blue"#),
        format!(r#",,,0,"{{""attributes"":1}}",{resource},{{}},blue"#),
    ];
    assert_eq!(ingestor.rows("Logs_Other"), others);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_whose_destination_a_transform_takes_away_are_refused() {
    let transforms = "[otel-log]\ndefault-database = 'Logs'\ndefault-table = 'T'\n[[otel-log.transforms]]\nname = 'kql'\n\
                      config = { query = \"extend Table = tostring(Body.to)\" }";
    let ingestor = Ingestor::default();
    let collector = Collector::start(&ingestor.start().await, transforms).await;
    let lost = json!({"body": {"stringValue": "x"}});
    let (status, answer) = post(&collector, std::slice::from_ref(&lost)).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer["message"].as_str().unwrap().starts_with("All logs dropped."), "{answer}");
    let kept = json!({"body": {"kvlistValue": {"values": [{"key": "to", "value": {"stringValue": "There"}}]}}});
    let (status, answer) = post(&collector, &[lost, kept]).await;
    assert_eq!((status, &answer["partialSuccess"]["rejectedLogRecords"]), (200, &json!("1")), "{answer}");
    assert_eq!(collector.metric("adxmon_collector_logs_dropped{source=\"otlp-logs\",stage=\"routing\"}").await, Some(2.0));
    collector.stop().await;
    assert_eq!(ingestor.rows("Logs_There").len(), 1);
}
