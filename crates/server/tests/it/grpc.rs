//! OTLP over gRPC, gRPC-Web and Connect, with other implementations as clients: tonic, the OpenTelemetry SDK for
//! Python, and bytes written as the specifications have them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use base64::Engine as _;
use http::uri::PathAndQuery;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
use prost::Message as _;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use serde_json::{Value as Json, json};
use server::receive::grpc;
use server::{BodyLimits, Limits, Refused, Sink};
use telemetry::rules::MetricRules;
use telemetry::{LogIntake, LogOptions, MetricIntake, TraceIntake, TraceOptions};
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

use crate::otlp::record;
use crate::support::{Recorder, Server, client};

const LOGS: PathAndQuery = PathAndQuery::from_static("/opentelemetry.proto.collector.logs.v1.LogsService/Export");
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn router(recorder: &Arc<Recorder>, limits: BodyLimits, timeout: Duration) -> Router {
    let sink = || Arc::clone(recorder) as Arc<dyn Sink>;
    let traces = TraceOptions { default_database: Some("Traces".to_owned()), ..TraceOptions::default() };
    let metrics = Arc::new(MetricIntake::new("Metrics", MetricRules::default(), Vec::new()));
    Router::new()
        .route(grpc::METRICS_PATH, grpc::metrics(metrics, sink(), limits, timeout))
        .route(grpc::LOGS_PATH, grpc::logs(Arc::new(LogIntake::new(LogOptions::default())), sink(), limits, timeout))
        .route(grpc::TRACES_PATH, grpc::traces(Arc::new(TraceIntake::new(traces)), sink(), limits, timeout))
        .fallback(grpc::not_found)
}

async fn services() -> (Server, Arc<Recorder>) {
    services_with(BodyLimits::default(), TIMEOUT).await
}

async fn services_with(limits: BodyLimits, timeout: Duration) -> (Server, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    (Server::start(router(&recorder, limits, timeout), Limits::default()).await, recorder)
}

async fn channel(server: &Server) -> Channel {
    Channel::from_shared(server.url("")).unwrap().connect().await.unwrap()
}

fn logs(records: usize, routed: bool) -> ExportLogsServiceRequest {
    let log_records = (0..records).map(|n| record(&format!("line {n}"), routed)).collect();
    let scope_logs = vec![ScopeLogs { log_records, ..Default::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..Default::default() }] }
}

async fn export(
    channel: &Channel,
    request: ExportLogsServiceRequest,
    compressed: Option<CompressionEncoding>,
) -> Result<ExportLogsServiceResponse, Status> {
    call(channel, Request::new(request), LOGS, compressed).await
}

async fn call(
    channel: &Channel,
    request: Request<ExportLogsServiceRequest>,
    path: PathAndQuery,
    compressed: Option<CompressionEncoding>,
) -> Result<ExportLogsServiceResponse, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    if let Some(coding) = compressed {
        client = client.send_compressed(coding);
    }
    client.ready().await.map_err(|e| Status::unknown(e.to_string()))?;
    let codec = ProstCodec::<ExportLogsServiceRequest, ExportLogsServiceResponse>::default();
    client.unary(request, path, codec).await.map(tonic::Response::into_inner)
}

/// A frame as gRPC writes it.
fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn h2_client() -> reqwest::Client {
    server::install_crypto();
    reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap()
}

/// Sends a body that no client library would send; status and message of the answer.
async fn raw(server: &Server, headers: &[(&str, &str)], body: Vec<u8>) -> (i32, String) {
    let mut request = h2_client().post(server.url(LOGS.as_str())).header(CONTENT_TYPE, "application/grpc").body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let header = |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    (header("grpc-status").parse().unwrap_or(0), header("grpc-message"))
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_stored_plain_and_compressed() {
    let (server, stored) = services().await;
    let channel = channel(&server).await;
    for coding in [None, Some(CompressionEncoding::Gzip)] {
        let answer = export(&channel, logs(2, true), coding).await.unwrap();
        assert_eq!(answer.partial_success, None);
    }
    // tonic is built without zstd here, so the frame is written by hand.
    let message = zstd::encode_all(&logs(2, true).encode_to_vec()[..], 3).unwrap();
    assert_eq!(raw(&server, &[("grpc-encoding", "zstd")], frame(1, &message)).await, (0, String::new()));
    assert_eq!(stored.table("Logs.App").lines().count(), 6);
}

/// More than one HTTP/2 frame and more than one flow-control window.
#[tokio::test(flavor = "multi_thread")]
async fn large_messages_arrive_whole() {
    let (server, stored) = services().await;
    export(&channel(&server).await, logs(100_000, true), None).await.unwrap();
    assert_eq!(stored.table("Logs.App").lines().count(), 100_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn some_rejected_is_a_partial_success_and_all_rejected_an_invalid_argument() {
    let (server, _) = services().await;
    let channel = channel(&server).await;
    let mut mixed = logs(1, true);
    mixed.resource_logs.extend(logs(2, false).resource_logs);
    let partial = export(&channel, mixed, None).await.unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_log_records, 2);
    assert!(partial.error_message.contains("kusto.database"), "{}", partial.error_message);
    let status = export(&channel, logs(1, false), None).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("All logs dropped"), "{}", status.message());
}

/// OTLP: "To signal backpressure … the server MUST return an error with code Unavailable", with `RetryInfo`.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_or_failing_store_is_unavailable_with_the_time_to_come_back() {
    let (server, stored) = services().await;
    let channel = channel(&server).await;
    let overloaded = Refused::Overloaded { retry_after: Duration::from_secs(7), reason: "the disk is full, 100%".to_owned() };
    for (refused, seconds, word) in [(overloaded, 7, "100%"), (Refused::Failed("no more".to_owned()), 5, "no more")] {
        *stored.refuse.lock().unwrap() = Some(refused);
        let status = export(&channel, logs(1, true), None).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains(word), "{}", status.message());
        let delay = status.get_details_retry_info().unwrap().retry_delay;
        assert_eq!(delay, Some(Duration::from_secs(seconds)));
    }
    *stored.refuse.lock().unwrap() = Some(Refused::Invalid("wrong rows".to_owned()));
    assert_eq!(export(&channel, logs(1, true), None).await.unwrap_err().code(), Code::InvalidArgument);
    *stored.unready.lock().unwrap() = Some("it drains".to_owned());
    let status = export(&channel, logs(1, true), None).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("it drains") && status.get_details_retry_info().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_messages_are_resource_exhausted_without_retry() {
    let (server, stored) = services_with(BodyLimits { wire: 10_000, inflated: 50_000 }, TIMEOUT).await;
    let channel = channel(&server).await;
    let status = export(&channel, logs(1000, true), None).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.get_details_retry_info().is_none());
    // Small on the wire, large inside.
    let bomb = logs(2000, true).encode_to_vec();
    let wire = gzip(&bomb);
    assert!(wire.len() < 10_000 && bomb.len() > 50_000);
    let (code, message) = raw(&server, &[("grpc-encoding", "gzip")], frame(1, &wire)).await;
    assert_eq!(code, 8, "{message}");
    assert!(message.contains("50000"), "{message}");
    assert!(stored.rows.lock().unwrap().is_empty());
    export(&channel, logs(10, true), None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_none_are_invalid_arguments() {
    let (server, stored) = services().await;
    let message = logs(1, true).encode_to_vec();
    let two = [frame(0, &message), frame(0, &message)].concat();
    let cut = frame(0, &message)[..20].to_vec();
    for (what, body) in [("empty", Vec::new()), ("head", vec![0, 0]), ("two", two), ("cut", cut), ("flag", frame(7, &message))] {
        assert_eq!(raw(&server, &[], body).await.0, 3, "{what}");
    }
    let huge = [&[0, 0xff, 0xff, 0xff, 0xff][..], &message[..]].concat();
    assert_eq!(raw(&server, &[], huge).await.0, 3);
    assert_eq!(raw(&server, &[], frame(1, &message)).await.0, 3, "compressed without grpc-encoding");
    assert_eq!(raw(&server, &[("grpc-encoding", "gzip")], frame(1, b"no gzip")).await.0, 3);
    assert_eq!(raw(&server, &[("grpc-encoding", "lzma")], frame(1, &message)).await.0, 12);
    assert_eq!(raw(&server, &[], frame(0, b"\xff\xff")).await.0, 3);
    assert_eq!(raw(&server, &[("grpc-timeout", "soon")], frame(0, &message)).await.0, 3);
    assert!(stored.rows.lock().unwrap().is_empty());
    // The coding of a frame that is not compressed does not matter.
    assert_eq!(raw(&server, &[("grpc-encoding", "gzip")], frame(0, &message)).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_services_are_unimplemented_by_name() {
    let (server, _) = services().await;
    let path = PathAndQuery::from_static("/opentelemetry.proto.collector.profiles.v1.ProfilesService/Export");
    let status = call(&channel(&server).await, Request::new(logs(1, true)), path, None).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("ProfilesService/Export"), "{}", status.message());
    assert_eq!(client().get(server.url("/nothing")).send().await.unwrap().status(), 404);
}

/// The service's own limit, and the client's where it is shorter.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_take_too_long_exceed_their_deadline() {
    let (server, stored) = services_with(BodyLimits::default(), Duration::from_millis(100)).await;
    stored.hang.store(true, std::sync::atomic::Ordering::Relaxed);
    let channel = channel(&server).await;
    let status = export(&channel, logs(1, true), None).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");

    let (server, stored) = services_with(BodyLimits::default(), Duration::from_secs(3600)).await;
    stored.hang.store(true, std::sync::atomic::Ordering::Relaxed);
    let message = logs(1, true).encode_to_vec();
    assert_eq!(raw(&server, &[("grpc-timeout", "50m")], frame(0, &message)).await.0, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_web_carries_its_trailers_in_the_body() {
    let (server, stored) = services().await;
    let request = |body: Vec<u8>| client().post(server.url(LOGS.as_str())).header(CONTENT_TYPE, "application/grpc-web+proto").body(body);
    let response = request(frame(0, &logs(1, true).encode_to_vec())).send().await.unwrap();
    assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc-web+proto");
    // An empty response message, then a frame with the flag 0x80 and the trailers as text.
    assert_eq!(response.bytes().await.unwrap(), [frame(0, b""), frame(0x80, b"grpc-status: 0\r\n")].concat());
    assert_eq!(stored.table("Logs.App").lines().count(), 1);
    let response = request(frame(0, b"\xff")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["grpc-status"].to_str().unwrap()), (200, "3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_is_plain_http_with_errors_in_json() {
    let (server, stored) = services().await;
    let request = |kind: &str, body: Vec<u8>| client().post(server.url(LOGS.as_str())).header(CONTENT_TYPE, kind).body(body);
    let sent = logs(1, true).encode_to_vec();
    let response = request("application/proto", gzip(&sent)).header(CONTENT_ENCODING, "gzip").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()[CONTENT_TYPE].to_str().unwrap()), (200, "application/proto"));
    assert!(response.bytes().await.unwrap().is_empty());
    let attribute = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let record =
        json!({"body": {"stringValue": "x"}, "attributes": [attribute("kusto.database", "Logs"), attribute("kusto.table", "App")]});
    let body = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}).to_string().into_bytes();
    let response = request("application/json", body).header("connect-protocol-version", "1").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.json::<Json>().await.unwrap()), (200, json!({})));
    assert_eq!(stored.table("Logs.App").lines().count(), 2);

    *stored.refuse.lock().unwrap() = Some(Refused::Overloaded { retry_after: Duration::from_secs(7), reason: "full".to_owned() });
    let response = request("application/proto", sent.clone()).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()[RETRY_AFTER].to_str().unwrap()), (503, "7"));
    let error = response.json::<Json>().await.unwrap();
    assert_eq!((&error["code"], &error["message"]), (&json!("unavailable"), &json!("Overloaded. Retry later: full")));
    assert_eq!(error["details"][0]["type"], "google.rpc.RetryInfo");
    // RetryInfo { retry_delay: { seconds: 7 } }
    let detail = base64::engine::general_purpose::STANDARD_NO_PAD.decode(error["details"][0]["value"].as_str().unwrap()).unwrap();
    assert_eq!(detail, [0x0a, 2, 0x08, 7]);
    let response = request("application/proto", vec![0xff]).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.json::<Json>().await.unwrap()["code"].clone()), (400, json!("invalid_argument")));
    let response = request("text/plain", sent).send().await.unwrap();
    assert_eq!(response.status(), 415);
    assert!(response.headers()["accept-post"].to_str().unwrap().contains("application/grpc"));
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_over_http_1_is_refused() {
    let (server, _) = services().await;
    let body = frame(0, &logs(1, true).encode_to_vec());
    let response = client().post(server.url(LOGS.as_str())).header(CONTENT_TYPE, "application/grpc").body(body).send().await.unwrap();
    assert_eq!(response.status(), 505);
}

/// A connection with running calls is told to go away, and its calls end.
#[tokio::test(flavor = "multi_thread")]
async fn shutdown_lets_running_calls_end() {
    let (mut server, stored) = services().await;
    let channel = channel(&server).await;
    let gate = stored.hold();
    let running = tokio::spawn(async move { export(&channel, logs(1, true), None).await });
    stored.entered.notified().await;
    server.shutdown.cancel();
    while tokio::net::TcpStream::connect(server.addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!server.served.is_finished());
    drop(gate);
    running.await.unwrap().unwrap();
    tokio::time::timeout(Duration::from_secs(20), &mut server.served).await.unwrap().unwrap().unwrap();
    assert_eq!(stored.table("Logs.App").lines().count(), 1);
}

/// The SDK's exporters with gzip: logs, spans, and each kind of metric. What its values become in queries is tested with
/// `adx-mon up`; here it is that everything arrives and the SDK is content.
#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_for_python_exports_all_signals() {
    let Some(python) = python() else { return };
    let (server, stored) = services().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../adx-mon/tests/clients/otel.py");
    let endpoint = server.url("");
    let run =
        tokio::task::spawn_blocking(move || std::process::Command::new(python).arg(script).args([&endpoint, "grpc"]).output().unwrap());
    let output = run.await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    let sent: Json = serde_json::from_slice(&output.stdout).unwrap();

    let spans = stored.table("Traces.OTELTraces");
    assert_eq!(spans.lines().count(), 2, "{spans}");
    assert!(spans.contains(sent["trace_id"].as_str().unwrap()) && spans.contains(sent["child_id"].as_str().unwrap()), "{spans}");
    let logs = stored.table("Logs.App");
    assert!(logs.contains("a line, with a comma") && logs.contains(sent["span_id"].as_str().unwrap()), "{logs}");
    let value = |table: &str, label: &str| {
        let rows = stored.table(&format!("Metrics.{table}"));
        let row = rows.lines().rfind(|row| row.contains(label)).unwrap_or_else(|| panic!("no {label} in {table}: {rows}"));
        row.rsplit_once(',').unwrap().1.parse::<f64>().unwrap()
    };
    assert_eq!(value("RequestsTotal", "/a"), 7.0);
    assert_eq!(value("QueueLength", ""), 3.0);
    assert_eq!(value("Temperature", "room"), 21.5);
    assert_eq!((value("LatencyCount", ""), value("LatencyBucket", "\"1.000000\"")), (4.0, 2.0));
    assert_eq!((value("SizesCount", ""), value("SizesSum", ""), value("SizesBucket", "+Inf")), (3.0, 111.0, 3.0));
    assert_eq!(value("DeltaTotal", ""), 5.0);
}

fn python() -> Option<PathBuf> {
    let folder = std::env::var_os("ADXMON_PYTHON_VENV").map(PathBuf::from).or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        Some(cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?.join("adx-mon/python"))
    })?;
    let python = folder.join("bin/python");
    if python.exists() {
        return Some(python);
    }
    assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "the Python test environment is missing: {}", python.display());
    eprintln!("not run: the Python test environment is missing; `cargo xtask setup` installs it");
    None
}
