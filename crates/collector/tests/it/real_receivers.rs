//! Exporters against receivers that others made: Prometheus, rotel (an OpenTelemetry collector), and a receiver of fluent
//! forward on an independent MessagePack library.

use std::io::{BufRead, BufReader, Read as _};
use std::net::TcpListener as StdListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use prost::Message as _;
use serde_json::{Value, json};

use crate::support::{Collector, client};

const LONG: Duration = Duration::from_secs(60);

/// A process that ends with the test.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn start(command: &mut Command) -> Process {
    Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// A program that a test needs. Missing: the test is left out with a word, in CI it fails.
pub(crate) fn needed(program: PathBuf) -> Option<PathBuf> {
    if program.exists() {
        return Some(program);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", program.display());
    eprintln!("not run: {} is missing; `cargo xtask setup` installs it", program.display());
    None
}

fn venv() -> PathBuf {
    let cache =
        || std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
    std::env::var_os("ADXMON_PYTHON_VENV").map(PathBuf::from).unwrap_or_else(|| cache().unwrap().join("adx-mon/python"))
}

/// Addresses that nobody uses now, for programs that must be told one.
fn free_addresses<const N: usize>() -> [String; N] {
    let held = [(); N].map(|()| StdListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().to_string())
}

/// Asks until the answer is what is wanted.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LONG, wait).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// OTLP in, with a name that Prometheus does not take, a counter with an exemplar, and a value that has no short decimal form.
fn request(now_ms: i64) -> Value {
    let nanos = (i128::from(now_ms) * 1_000_000).to_string();
    let point = |value: f64, host: &str| json!({"timeUnixNano": nanos, "asDouble": value, "attributes": [{"key": "host.name", "value": {"stringValue": host}}]});
    let mut requests = point(12345678.0, "a");
    requests["exemplars"] = json!([{"timeUnixNano": nanos, "asDouble": 0.25, "traceId": TRACE, "spanId": "00f067aa0ba902b7"}]);
    json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "room.temperature", "gauge": {"dataPoints": [point(0.1 + 0.2, "a"), point(-4.5, "b")]}},
        {"name": "requests", "sum": {"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [requests]}},
    ]}]}]})
}

async fn send(collector: &Collector, now_ms: i64) {
    let post = client().post(format!("{}/v1/metrics", collector.url)).header("content-type", "application/json");
    assert_eq!(post.body(request(now_ms).to_string()).send().await.unwrap().status(), 200);
}

fn now_ms() -> i64 {
    i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn tables(exporter: &str) -> String {
    format!("[[otel-metric]]\ndatabase = 'Metrics'\npath = '/v1/metrics'\nexporters = ['ex']\n{exporter}\nname = 'ex'\n")
}

/// Prometheus' own query API tells what it stored.
#[tokio::test(flavor = "multi_thread")]
async fn prometheus_has_what_was_written_to_it() {
    let Some(prometheus) = needed("/usr/bin/prometheus".into()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let [address] = free_addresses();
    let file = dir.path().join("prometheus.yml");
    std::fs::write(&file, "global: {scrape_interval: 1h}\n").unwrap();
    let exporter = format!("[[exporters.remote-write-metric-export]]\ndestination = 'http://{address}/api/v1/write'");
    let collector = Collector::start("", &tables(&exporter)).await;
    let now = now_ms();
    // It is not there yet: the samples wait for it.
    send(&collector, now).await;
    collector.until("adxmon_collector_exporter_retries_total{name=\"ex\"}", |retries| retries > 0.0).await;
    let _prometheus = start(
        Command::new(prometheus)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--web.enable-remote-write-receiver", "--enable-feature=exemplar-storage"]),
    );
    let ask = |path: &str, query: &str, times: &[(&str, f64)]| {
        let mut url = reqwest::Url::parse(&format!("http://{address}/api/v1/{path}")).unwrap();
        url.query_pairs_mut().append_pair("query", query).extend_pairs(times.iter().map(|(name, time)| (name, time.to_string())));
        async move { client().get(url).send().await.ok()?.json::<Value>().await.ok() }
    };
    let query = |query: &'static str| {
        let answer = ask("query", query, &[("time", now as f64 / 1e3)]);
        async move {
            let result = answer.await?["data"]["result"].as_array()?.clone();
            (!result.is_empty()).then_some(result)
        }
    };
    let rooms = until("the gauge", async || query("sort(room_temperature)").await).await;
    let values: Vec<_> =
        rooms.iter().map(|series| (series["metric"].clone(), series["value"][1].as_str().unwrap().parse::<f64>().unwrap())).collect();
    let labels = |host: &str| json!({"__name__": "room_temperature", "host_name": host});
    assert_eq!(values, [(labels("b"), -4.5), (labels("a"), 0.1 + 0.2)]);
    let requests = query("requests").await.unwrap();
    assert_eq!(requests[0]["value"][1], "12345678");
    let around = [("start", now as f64 / 1e3 - 60.0), ("end", now as f64 / 1e3 + 60.0)];
    let exemplars = ask("query_exemplars", "requests", &around).await.unwrap();
    let exemplar = &exemplars["data"][0]["exemplars"][0];
    assert_eq!((&exemplar["labels"]["trace_id"], &exemplar["value"]), (&json!(TRACE), &json!("0.25")), "{exemplars}");
    collector
        .until(
            &format!("adxmon_collector_exporter_sent_total{{exporter=\"PromToRemoteWrite\",endpoint=\"http://{address}/api/v1/write\"}}"),
            |n| n == 3.0,
        )
        .await;
    collector.stop().await;
}

/// Over both protocols; rotel passes on what it understood.
#[tokio::test(flavor = "multi_thread")]
async fn rotel_understands_what_is_exported() {
    let Some(rotel) = needed(rotel()) else { return };
    for protocol in ["http/protobuf", "grpc"] {
        let (sender, received) = mpsc::channel();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let behind = format!("http://{}", listener.local_addr().unwrap());
        let take = move |body: Bytes| async move { sender.send(unzipped(&body)).unwrap() };
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/metrics", post(take))).await });
        let dir = tempfile::tempdir().unwrap();
        let [grpc, http] = free_addresses();
        let _rotel = start(
            Command::new(&rotel)
                .arg("start")
                .args(["--otlp-grpc-endpoint", &grpc, "--otlp-http-endpoint", &http])
                .args(["--pid-file", dir.path().join("pid").to_str().unwrap(), "--log-file", dir.path().join("log").to_str().unwrap()])
                .args(["--exporter", "otlp", "--otlp-exporter-protocol", "http"])
                .args(["--otlp-exporter-endpoint", &behind]),
        );
        let destination = if protocol == "grpc" { format!("http://{grpc}") } else { format!("http://{http}/v1/metrics") };
        let exporter = format!(
            "[[exporters.otlp-metric-export]]\nprotocol = '{protocol}'\ndestination = '{destination}'\nmetric-types = true\nadd-resource-attributes = {{ region = 'r' }}"
        );
        let collector = Collector::start("", &tables(&exporter)).await;
        let now = now_ms();
        send(&collector, now).await;
        let got = tokio::task::spawn_blocking(move || received.recv_timeout(LONG)).await.unwrap().unwrap();
        let resource = &got.resource_metrics[0];
        assert_eq!(resource.resource.as_ref().unwrap().attributes[0].key, "region", "{protocol}");
        let (mut points, mut traces) = (Vec::new(), Vec::new());
        for metric in &resource.scope_metrics[0].metrics {
            let (kind, data_points) = match metric.data.as_ref().unwrap() {
                Data::Gauge(gauge) => ("gauge", &gauge.data_points),
                Data::Sum(sum) if sum.is_monotonic => ("counter", &sum.data_points),
                other => panic!("{other:?}"),
            };
            for point in data_points {
                let Some(number_data_point::Value::AsDouble(value)) = point.value else { panic!("{point:?}") };
                assert_eq!(point.time_unix_nano / 1_000_000, u64::try_from(now).unwrap());
                traces.extend(point.exemplars.iter().map(|exemplar| (exemplar.trace_id[..2].to_vec(), exemplar.span_id[7])));
                points.push((metric.name.as_str(), kind, point.attributes[0].key.as_str(), value));
            }
        }
        let wanted = [
            ("room.temperature", "gauge", "host.name", 0.1 + 0.2),
            ("room.temperature", "gauge", "host.name", -4.5),
            ("requests", "counter", "host.name", 12345678.0),
        ];
        assert_eq!(points, wanted, "{protocol}");
        assert_eq!(traces, [(vec![0x4b, 0xf9], 0xb7)], "{protocol}");
        collector.stop().await;
    }
}

fn unzipped(body: &[u8]) -> ExportMetricsServiceRequest {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(body).read_to_end(&mut plain).unwrap();
    ExportMetricsServiceRequest::decode(plain.as_slice()).unwrap()
}

fn rotel() -> PathBuf {
    let lib = std::fs::read_dir(venv().join("lib")).into_iter().flatten().flatten();
    let program = |python: std::fs::DirEntry| python.path().join("site-packages/rotel/rotel-agent");
    lib.map(program).find(|program| program.exists()).unwrap_or_else(|| venv().join("rotel-agent"))
}

/// The first connection is torn without an acknowledgement, so its message comes again.
#[tokio::test(flavor = "multi_thread")]
async fn an_independent_receiver_of_fluent_forward_gets_every_record() {
    let Some(python) = needed(venv().join("bin/python")) else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/fluent_receiver.py");
    let mut receiver = Process(Command::new(python).arg(script).stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(receiver.0.stdout.take().unwrap()).lines();
    let port = lines.next().unwrap().unwrap();
    let tables = format!(
        "[otel-log]\ndefault-database = 'Logs'\ndefault-table = 'App'\nexporters = ['ex']\n\
         [[exporters.fluent-forward-log-export]]\nname = 'ex'\ndestination = 'tcp://127.0.0.1:{port}'\ntag-attribute = 'tag'\nrequire-ack = true\n"
    );
    let collector = Collector::start("", &tables).await;
    let record = |n: i64| {
        let values = json!([
            {"key": "n", "value": {"intValue": n.to_string()}},
            {"key": "text", "value": {"stringValue": format!("é\n\"{n}\"")}},
            {"key": "deep", "value": {"kvlistValue": {"values": [{"key": "half", "value": {"doubleValue": 0.5}}, {"key": "list", "value": {"arrayValue": {"values": [{"boolValue": true}]}}}]}}},
        ]);
        let tag = if n % 2 == 0 { "even" } else { "odd" };
        json!({"timeUnixNano": (1_700_000_000_000_000_000 + n).to_string(), "body": {"kvlistValue": {"values": values}},
            "attributes": [{"key": "tag", "value": {"stringValue": tag}}]})
    };
    let body = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": (0..100).map(record).collect::<Vec<_>>()}]}]});
    let post = client().post(format!("{}/v1/logs", collector.url)).header("content-type", "application/json");
    assert_eq!(post.body(body.to_string()).send().await.unwrap().status(), 200);
    let read = tokio::task::spawn_blocking(move || {
        lines.take(100).map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()).collect::<Vec<_>>()
    });
    let mut got = tokio::time::timeout(LONG, read).await.unwrap().unwrap();
    got.sort_by_key(|line| line[2]["n"].as_i64());
    let wanted = (0..100).map(|n| {
        let body = json!({"n": n, "text": format!("é\n\"{n}\""), "deep": {"half": 0.5, "list": [true]}});
        json!([if n % 2 == 0 { "even" } else { "odd" }, format!("1700000000.{n:09}"), body])
    });
    assert_eq!(got, wanted.collect::<Vec<_>>());
    assert_eq!(collector.metric("adxmon_collector_exporter_retries_total{name=\"ex\"}").await, Some(1.0));
    collector.stop().await;
}
