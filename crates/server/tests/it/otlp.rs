//! OTLP over HTTP.

use std::io::Write;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data, number_data_point,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use serde_json::{Value as Json, json};
use server::Refused;

use crate::support::{Server, client, receivers};

/// `google.rpc.Status`, as the answers carry it.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const TIME: u64 = 1_700_000_000_000_000_000;

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }), ..Default::default() }
}

pub(crate) fn record(body: &str, routed: bool) -> LogRecord {
    let attributes = if routed { vec![text("kusto.database", "Logs"), text("kusto.table", "App")] } else { Vec::new() };
    let body = Some(AnyValue { value: Some(Value::StringValue(body.to_owned())) });
    LogRecord { time_unix_nano: TIME, body, attributes, ..Default::default() }
}

fn logs(records: Vec<LogRecord>) -> Vec<u8> {
    let scope_logs = vec![ScopeLogs { log_records: records, ..Default::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..Default::default() }] }.encode_to_vec()
}

fn json_logs(routed: bool) -> Json {
    let mut attributes = Vec::new();
    if routed {
        for (key, value) in [("kusto.database", "Logs"), ("kusto.table", "App")] {
            attributes.push(json!({"key": key, "value": {"stringValue": value}}));
        }
    }
    let record = json!({"timeUnixNano": TIME.to_string(), "body": {"stringValue": "from json"}, "attributes": attributes});
    json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})
}

async fn post(server: &Server, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Response {
    client().post(server.url(path)).header(CONTENT_TYPE, content_type).body(body).send().await.unwrap()
}

async fn status(response: Response) -> (u16, Status) {
    assert_eq!(response.headers()[CONTENT_TYPE], PROTOBUF);
    (response.status().as_u16(), Status::decode(response.bytes().await.unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_in_protobuf_and_json_are_stored_and_answered_in_kind() {
    let (server, stored) = receivers().await;
    let response = post(&server, "/v1/logs", "application/x-protobuf; charset=utf-8", logs(vec![record("hello", true)])).await;
    assert_eq!((response.status().as_u16(), response.headers()[CONTENT_TYPE].to_str().unwrap()), (200, PROTOBUF));
    assert!(response.bytes().await.unwrap().is_empty(), "an empty response message has no bytes");
    let response = post(&server, "/v1/logs", JSON, json_logs(true).to_string()).await;
    assert_eq!((response.status().as_u16(), response.headers()[CONTENT_TYPE].to_str().unwrap()), (200, JSON));
    assert_eq!(response.json::<Json>().await.unwrap(), json!({}));
    let rows = stored.table("Logs.App");
    assert!(rows.contains("hello") && rows.contains("from json"), "{rows}");
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_and_chunked_bodies_are_read() {
    let (server, stored) = receivers().await;
    let sent = logs(vec![record("compressed", true)]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&sent).unwrap();
    for (encoding, wire) in [("gzip", gzip.finish().unwrap()), ("zstd", zstd::encode_all(&sent[..], 3).unwrap())] {
        let request = client().post(server.url("/v1/logs")).header(CONTENT_TYPE, PROTOBUF).header(CONTENT_ENCODING, encoding);
        assert_eq!(request.body(wire).send().await.unwrap().status(), 200, "{encoding}");
    }
    let chunks: Vec<Result<Vec<u8>, std::io::Error>> = sent.chunks(5).map(|c| Ok(c.to_vec())).collect();
    let body = reqwest::Body::wrap_stream(futures::stream::iter(chunks));
    assert_eq!(post(&server, "/v1/logs", PROTOBUF, body).await.status(), 200);
    assert_eq!(stored.table("Logs.App").lines().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn unroutable_records_are_a_partial_success() {
    let (server, stored) = receivers().await;
    let sent = logs(vec![record("good", true), record("lost", false)]);
    let response = post(&server, "/v1/logs", PROTOBUF, sent).await;
    assert_eq!(response.status(), 200);
    let partial = ExportLogsServiceResponse::decode(response.bytes().await.unwrap()).unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_log_records, 1);
    assert!(partial.error_message.starts_with("Logs lacking kusto.database and kusto.table"), "{}", partial.error_message);
    assert_eq!(stored.table("Logs.App").lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_any_routable_record_are_400() {
    let (server, _) = receivers().await;
    let (code, answer) = status(post(&server, "/v1/logs", PROTOBUF, logs(vec![record("lost", false)])).await).await;
    assert_eq!((code, answer.code), (400, 3));
    assert!(answer.message.starts_with("All logs dropped. Required kusto.database and kusto.table"), "{}", answer.message);
    let (code, answer) = status(post(&server, "/v1/logs", PROTOBUF, Vec::new()).await).await;
    assert_eq!((code, answer.message.as_str()), (400, "No logs to process."));
    let response = post(&server, "/v1/logs", JSON, json_logs(false).to_string()).await;
    assert_eq!(response.status(), 400);
    assert_eq!(response.json::<Json>().await.unwrap()["code"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_bodies_and_types_are_refused_with_a_status() {
    let (server, _) = receivers().await;
    let (code, answer) = status(post(&server, "/v1/logs", PROTOBUF, vec![0xff, 0xff]).await).await;
    assert_eq!(code, 400);
    assert!(answer.message.starts_with("Failed to unmarshal request body:"), "{}", answer.message);
    let (code, answer) = status(post(&server, "/v1/metrics", PROTOBUF, vec![0xff, 0xff]).await).await;
    assert_eq!(code, 400);
    assert!(answer.message.starts_with("Unable to unmarshal ExportMetricsServiceRequest."), "{}", answer.message);
    let (code, answer) = status(post(&server, "/v1/logs", "text/plain", "x").await).await;
    assert_eq!(code, 415);
    assert!(answer.message.starts_with("Unsupported Content-Type: text/plain"), "{}", answer.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_nested_a_hundred_thousand_deep_is_400() {
    let (server, _) = receivers().await;
    for path in ["/v1/logs", "/v1/metrics", "/v1/traces"] {
        let mut deep = r#"{"resourceLogs":"#.to_owned();
        deep.push_str(&"[".repeat(100_000));
        assert_eq!(post(&server, path, JSON, deep).await.status(), 400, "{path}");
        let open = r#"{"arrayValue":{"values":["#.repeat(100_000);
        let record = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{open}"#);
        assert_eq!(post(&server, path, JSON, record).await.status(), 400, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decompression_bomb_is_413() {
    let (server, _) = receivers().await;
    // zstd rather than gzip, because it is quick without optimisation; the codings share their limit.
    let bomb = zstd::encode_all(&vec![0u8; (100 << 20) + 1][..], 1).unwrap();
    assert!(bomb.len() < 1 << 20);
    let request = client().post(server.url("/v1/logs")).header(CONTENT_TYPE, PROTOBUF).header(CONTENT_ENCODING, "zstd");
    assert_eq!(status(request.body(bomb).send().await.unwrap()).await.0, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_retryable_for_clients() {
    let (server, stored) = receivers().await;
    let logs = logs(vec![record("x", true)]);
    let (metrics, traces) = (metrics(), traces());
    for (path, sent) in [("/v1/logs", logs), ("/v1/metrics", metrics), ("/v1/traces", traces)] {
        *stored.refuse.lock().unwrap() = Some(Refused::Overloaded { retry_after: Duration::from_secs(9), reason: "full".to_owned() });
        let response = post(&server, path, PROTOBUF, sent.clone()).await;
        assert_eq!(response.headers()[RETRY_AFTER], "9", "{path}");
        let (code, answer) = status(response).await;
        assert_eq!((code, answer.code), (429, 8), "{path}");
        assert!(answer.message.starts_with("Overloaded. Retry later"), "{path}");
        *stored.refuse.lock().unwrap() = Some(Refused::Failed("broken".to_owned()));
        let response = post(&server, path, PROTOBUF, sent).await;
        assert!(response.headers().contains_key(RETRY_AFTER), "{path}");
        assert_eq!(status(response).await.0, 503, "{path}");
    }
}

/// One point, after a metric without any.
fn metrics() -> Vec<u8> {
    let point = NumberDataPoint { time_unix_nano: TIME, value: Some(number_data_point::Value::AsDouble(2.5)), ..Default::default() };
    let metric =
        Metric { name: "queue.length".to_owned(), data: Some(Data::Gauge(Gauge { data_points: vec![point] })), ..Default::default() };
    let empty = Metric { name: "nothing".to_owned(), ..Default::default() };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![empty, metric], ..Default::default() }];
    ExportMetricsServiceRequest { resource_metrics: vec![ResourceMetrics { scope_metrics, ..Default::default() }] }.encode_to_vec()
}

/// One span.
fn traces() -> Vec<u8> {
    let span =
        Span { name: "GET /".to_owned(), trace_id: vec![1; 16], span_id: vec![2; 8], start_time_unix_nano: TIME, ..Default::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] }.encode_to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_traces_are_stored() {
    let (server, stored) = receivers().await;
    assert_eq!(post(&server, "/v1/metrics", PROTOBUF, metrics()).await.status(), 200);
    assert!(stored.table("Metrics.QueueLength").ends_with(",2.5\n"));
    assert_eq!(post(&server, "/v1/traces", PROTOBUF, traces()).await.status(), 200);
    let row = stored.table("Traces.OTELTraces");
    assert!(row.contains("01010101010101010101010101010101") && row.contains("GET /"), "{row}");
}

/// One usable item between two that are not, for each signal: `(path, request in JSON, JSON name of the count)`.
fn mixed_requests() -> [(&'static str, Json, &'static str); 3] {
    let route = json!([{"key": "kusto.database", "value": {"stringValue": "D"}}, {"key": "kusto.table", "value": {"stringValue": "T"}}]);
    let time = TIME.to_string();
    let log = json!({"timeUnixNano": time, "attributes": route});
    let gauge = json!({"name": "g", "gauge": {"dataPoints": [{"timeUnixNano": time, "asDouble": 1.0}]}});
    let bad = json!({"name": "h", "histogram": {"aggregationTemporality": 2, "dataPoints": [
        {"timeUnixNano": time, "count": "1", "bucketCounts": ["1"], "explicitBounds": [1.0]}]}});
    let span = json!({"traceId": "0a".repeat(16), "spanId": "0b".repeat(8), "name": "s", "attributes": []});
    let nowhere = json!({"name": "s", "attributes": [{"key": "kusto.table", "value": {"stringValue": "-"}}]});
    [
        ("/v1/logs", json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{}, log, {}]}]}]}), "rejectedLogRecords"),
        ("/v1/metrics", json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [bad, gauge, bad]}]}]}), "rejectedDataPoints"),
        ("/v1/traces", json!({"resourceSpans": [{"scopeSpans": [{"spans": [nowhere, span, nowhere]}]}]}), "rejectedSpans"),
    ]
}

/// The request in protobuf, as an independent library writes it.
fn in_protobuf(path: &str, request: &Json) -> Vec<u8> {
    let request = request.clone();
    match path {
        "/v1/logs" => serde_json::from_value::<ExportLogsServiceRequest>(request).unwrap().encode_to_vec(),
        "/v1/metrics" => serde_json::from_value::<ExportMetricsServiceRequest>(request).unwrap().encode_to_vec(),
        _ => serde_json::from_value::<ExportTraceServiceRequest>(request).unwrap().encode_to_vec(),
    }
}

/// The three partial-success messages have one shape on the wire, so one of them reads all.
#[tokio::test(flavor = "multi_thread")]
async fn partial_successes_are_exact_for_each_signal_in_both_encodings() {
    let (server, _) = receivers().await;
    for (path, request, count) in mixed_requests() {
        let response = post(&server, path, PROTOBUF, in_protobuf(path, &request)).await;
        assert_eq!((response.status().as_u16(), response.headers()[CONTENT_TYPE].to_str().unwrap()), (200, PROTOBUF), "{path}");
        let partial = ExportLogsServiceResponse::decode(response.bytes().await.unwrap()).unwrap().partial_success.unwrap();
        let wanted = match path {
            "/v1/logs" => "Logs lacking kusto.database and kusto.table attributes or body fields",
            "/v1/metrics" => "2 data points were not stored; first: histogram with 1 bucket counts for 1 bounds",
            _ => "Spans lacking kusto.database and kusto.table attributes",
        };
        assert_eq!((partial.rejected_log_records, partial.error_message.as_str()), (2, wanted), "{path}");

        let response = post(&server, path, JSON, request.to_string()).await;
        assert_eq!((response.status().as_u16(), response.headers()[CONTENT_TYPE].to_str().unwrap()), (200, JSON), "{path}");
        let wanted = json!({"partialSuccess": {count: "2", "errorMessage": wanted}});
        assert_eq!(response.json::<Json>().await.unwrap(), wanted, "{path}");
    }
}

/// The message is about what happened: not every rejected record lacks a destination.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_record_is_not_called_unrouted() {
    let (server, _) = receivers().await;
    let mut request = json_logs(true);
    let bad = json!({"traceId": "xyz"});
    request["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array_mut().unwrap().push(bad.clone());
    let answer = post(&server, "/v1/logs", JSON, request.to_string()).await.json::<Json>().await.unwrap();
    let message = answer["partialSuccess"]["errorMessage"].as_str().unwrap();
    assert!(message.starts_with("1 log records were not stored; first: logRecords[1]: traceId needs"), "{message}");
    request["resourceLogs"][0]["scopeLogs"][0]["logRecords"] = json!([bad]);
    let response = post(&server, "/v1/logs", JSON, request.to_string()).await;
    assert_eq!(response.status(), 400);
    let answer = response.json::<Json>().await.unwrap();
    assert!(answer["message"].as_str().unwrap().starts_with("All logs dropped. First: logRecords[0]: traceId"), "{answer}");
}
