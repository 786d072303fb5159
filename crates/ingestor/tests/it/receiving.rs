//! Telemetry that clients send here without a collector.

use std::time::Duration;

use ingestor::{Config, Endpoint};
use serde_json::{Value, json};
use telemetry::client::{Series, remote_write_body};

use crate::fake_kusto::{FakeKusto, Kind};
use crate::support::{Process, client, start};

fn remote_write(name: &str) -> Vec<u8> {
    let labels = vec![("__name__".to_owned(), name.to_owned()), ("host".to_owned(), "a".to_owned())];
    let series = Series { labels, samples: vec![(1_700_000_000_123, 1.5)] };
    snap::raw::Encoder::new().compress_vec(&remote_write_body(&[series])).unwrap()
}

fn text_attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// Log records by the database that they name, if any.
fn logs(databases: &[Option<&str>]) -> Value {
    let record = |database: &Option<&str>| {
        let mut attributes = vec![text_attribute("k", "v")];
        if let Some(database) = database {
            attributes.extend([text_attribute("kusto.database", database), text_attribute("kusto.table", "App")]);
        }
        json!({"timeUnixNano": "1700000000000000000", "body": {"stringValue": "hi"}, "attributes": attributes})
    };
    let records: Vec<Value> = databases.iter().map(record).collect();
    json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]})
}

/// Databases `Metrics`, `More` of metrics, and `Logs`, all in one service.
async fn ingestor(dir: &std::path::Path, kusto: &FakeKusto, change: impl FnOnce(&mut Config)) -> Process {
    let with_logs = |c: &mut Config| {
        c.logs = vec![Endpoint { database: "Logs".to_owned(), url: kusto.url.clone() }];
        change(c);
    };
    start(dir, &[("Metrics", kusto), ("More", kusto)], with_logs).await
}

async fn send(process: &Process, path: &str, body: &Value) -> reqwest::Response {
    client().post(format!("{}{path}", process.plain)).json(body).send().await.unwrap()
}

async fn write(process: &Process, body: Vec<u8>) -> reqwest::Response {
    client().post(format!("{}/api/v1/write", process.plain)).body(body).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_go_to_the_first_database_and_logs_and_traces_where_they_say() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    let process = ingestor(dir.path(), &kusto, |_| {}).await;
    assert!(write(&process, remote_write("http_requests_total")).await.status().is_success());
    let point = json!({"timeUnixNano": "1700000000000000000", "asDouble": 2.5});
    let metrics =
        json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "room_temperature", "gauge": {"dataPoints": [point]}}]}]}]});
    assert_eq!(send(&process, "/v1/metrics", &metrics).await.status(), 200);
    assert_eq!(send(&process, "/v1/logs", &logs(&[Some("Logs")])).await.status(), 200);
    let span = json!({"traceId": "0102030405060708090a0b0c0d0e0f10", "spanId": "0102030405060708", "name": "work", "attributes": [
        text_attribute("kusto.database", "Logs"), text_attribute("kusto.table", "Spans")]});
    assert_eq!(send(&process, "/v1/traces", &json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})).await.status(), 200);
    for table in ["Metrics.HttpRequestsTotal", "Metrics.RoomTemperature", "Logs.App", "Logs.Spans"] {
        kusto.wait(|seen| seen.rows.get(table).is_some_and(|rows| rows.len() == 1)).await;
    }
    assert!(kusto.rows("Metrics.HttpRequestsTotal")[0].starts_with("2023-11-14T22:13:20.123Z,"));
    process.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_unknown_databases_are_refused_without_their_neighbours() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    let process = ingestor(dir.path(), &kusto, |_| {}).await;
    let alone = send(&process, "/v1/logs", &logs(&[Some("Elsewhere")])).await;
    assert_eq!(alone.status(), 400);
    assert!(alone.text().await.unwrap().contains("Elsewhere"));
    assert_eq!(send(&process, "/v1/logs", &logs(&[Some("Logs"), Some("Elsewhere"), None])).await.status(), 200);
    kusto.wait(|seen| seen.rows.contains_key("Logs.App")).await;
    assert_eq!(kusto.rows("Logs.App").len(), 1);
    let counted = "adxmon_ingestor_filtered_rows{database=\"Elsewhere\",reason=\"unknown-database\"} 1";
    process.until("/metrics", |text| text.contains(counted)).await;
    // The one without a destination.
    assert_eq!(process.metric("adxmon_ingestor_invalid_logs_dropped ").await, Some(1.0));
    process.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_database_asks_its_clients_to_wait_and_others_are_taken() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    kusto.faults.lock().down = true;
    let change = |c: &mut Config| {
        c.max_segment_count = 1;
        c.grace = Duration::ZERO;
    };
    let process = ingestor(dir.path(), &kusto, change).await;
    assert!(write(&process, remote_write("up")).await.status().is_success());
    process.sealed(1).await;
    let refused = write(&process, remote_write("up")).await;
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (429, "10"));
    assert!(refused.text().await.unwrap().contains("MaxSegmentsExceeded"));
    assert_eq!(send(&process, "/v1/logs", &logs(&[Some("Logs")])).await.status(), 200);
    process.finish().await;
}
