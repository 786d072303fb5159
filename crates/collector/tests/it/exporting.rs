//! A collector with exporters: what leaves, what a dead receiver changes (nothing), restarts, kills and reloads.

use std::net::TcpListener as StdListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::binary::launch;
use crate::secure::Certificates;
use crate::support::{Collector, client, one_sample};

const LONG: Duration = Duration::from_secs(30);

/// The messages of the remote-write specification, for prost: not our encoder.
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Pair>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// Metric, its other labels as text, value.
pub(crate) type Line = (String, String, f64);

/// Receives remote write at `/write` and OTLP at `/otlp`.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    pub(crate) got: Arc<Mutex<Vec<Line>>>,
    /// What it answers.
    status: Arc<AtomicU16>,
    count: watch::Sender<usize>,
}

impl Receiver {
    pub(crate) async fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Receiver {
            url: format!("http://{}", listener.local_addr().unwrap()),
            got: Arc::default(),
            status: Arc::new(AtomicU16::new(200)),
            count: watch::Sender::new(0),
        };
        let (write, otlp) = (receiver.clone(), receiver.clone());
        let write = move |body: Bytes| async move { write.take(remote_write(&body)) };
        let otlp = move |body: Bytes| async move { otlp.take(gauges(&body)) };
        let router = Router::new().route("/write", post(write)).route("/otlp", post(otlp));
        tokio::spawn(async move { axum::serve(listener, router).await });
        receiver
    }

    fn take(&self, lines: Vec<Line>) -> StatusCode {
        let status = StatusCode::from_u16(self.status.load(Ordering::SeqCst)).unwrap();
        if status.is_success() {
            let mut got = self.got.lock().unwrap();
            got.extend(lines);
            self.count.send_replace(got.len());
        }
        status
    }

    /// Waits until so many samples came; gives all, sorted.
    async fn until(&self, count: usize) -> Vec<Line> {
        let mut counted = self.count.subscribe();
        let wait = counted.wait_for(|came| *came >= count);
        tokio::time::timeout(LONG, wait).await.unwrap_or_else(|_| panic!("{:?}", self.got.lock().unwrap())).unwrap();
        let mut got = self.got.lock().unwrap().clone();
        got.sort_by(|a, b| a.partial_cmp(b).unwrap());
        got
    }
}

fn remote_write(body: &[u8]) -> Vec<Line> {
    let plain = snap::raw::Decoder::new().decompress_vec(body).unwrap();
    let line = |mut series: TimeSeries| {
        let name = series.labels.remove(series.labels.iter().position(|label| label.name == "__name__").unwrap()).value;
        let labels = series.labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect::<Vec<_>>().join(",");
        series.samples.into_iter().map(move |sample| (name.clone(), labels.clone(), sample.value)).collect::<Vec<_>>()
    };
    WriteRequest::decode(plain.as_slice()).unwrap().timeseries.into_iter().flat_map(line).collect()
}

fn gauges(body: &[u8]) -> Vec<Line> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
    use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
    let mut lines = Vec::new();
    let request = ExportMetricsServiceRequest::decode(body).unwrap();
    for metric in request.resource_metrics.into_iter().flat_map(|r| r.scope_metrics).flat_map(|s| s.metrics) {
        let Some(Data::Gauge(gauge)) = metric.data else { panic!("{metric:?}") };
        for point in gauge.data_points {
            let Some(Value::AsDouble(value)) = point.value else { panic!("{point:?}") };
            let text = |value: &Option<Any>| match value {
                Some(Any::StringValue(text)) => text.clone(),
                other => panic!("{other:?}"),
            };
            let labels: Vec<_> = point.attributes.iter().map(|a| format!("{}={}", a.key, text(&a.value.as_ref().unwrap().value))).collect();
            lines.push((metric.name.clone(), labels.join(","), value));
        }
    }
    lines
}

fn remote_write_exporter(name: &str, destination: &str) -> String {
    format!("[[exporters.remote-write-metric-export]]\nname = '{name}'\ndestination = '{destination}'\n")
}

fn source(exporters: &str) -> String {
    format!("[[prometheus-remote-write]]\ndatabase = 'Metrics'\npath = '/receive'\nexporters = [{exporters}]\n")
}

fn line(name: &str, labels: &str, value: f64) -> Line {
    (name.to_owned(), labels.to_owned(), value)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_leaves_by_the_exporters_that_its_source_names() {
    let receiver = Receiver::start().await;
    let fluent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tables = format!(
        "{}drop-metrics = ['^noise$']\nadd-labels = {{ cluster = 'c' }}\n[otel-log]\nexporters = ['fluent']\n{}drop-metrics = ['^mem$']\n\
         [[exporters.otlp-metric-export]]\nname = 'otlp'\ndestination = '{}/otlp'\ncompression = 'none'\ndefault-drop-metrics = true\nkeep-metrics = ['mem']\n\
         add-labels = {{ extra = 'e' }}\n[[exporters.fluent-forward-log-export]]\nname = 'fluent'\ndestination = 'tcp://{}'\ntag-attribute = 'tag'\n",
        source("'rw', 'otlp'"),
        remote_write_exporter("rw", &format!("{}/write", receiver.url)),
        receiver.url,
        fluent.local_addr().unwrap(),
    );
    let collector = Collector::start("", &tables).await;
    for (name, value) in [("cpu", 1.0), ("mem", 2.0), ("noise", 3.0)] {
        assert_eq!(collector.write(name, value).await, 202);
    }
    let got = receiver.until(2).await;
    assert_eq!(got, [line("cpu", "cluster=c,host=h", 1.0), line("mem", "cluster=c,host=h,extra=e", 2.0)]);
    let attributes = r#"[{"key":"kusto.database","value":{"stringValue":"Logs"}},{"key":"kusto.table","value":{"stringValue":"App"}},{"key":"tag","value":{"stringValue":"t"}}]"#;
    let log = format!(r#"{{"timeUnixNano":"1700000000000000000","body":{{"stringValue":"hello"}},"attributes":{attributes}}}"#);
    let body = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{log}]}}]}}]}}"#);
    let request = client().post(format!("{}/v1/logs", collector.url)).header("content-type", "application/json").body(body);
    assert_eq!(request.send().await.unwrap().status(), 200);
    // By hand: [ "t", [ [ EventTime 1700000000 s 0 ns, {"message": "hello"} ] ] ]
    let wanted = [b"\x92\xa1t\x91\x92\xd7\x00\x65\x53\xf1\x00\0\0\0\0\x81\xa7message\xa5hello".as_slice()].concat();
    let (mut stream, _) = tokio::time::timeout(LONG, fluent.accept()).await.unwrap().unwrap();
    let mut message = vec![0; wanted.len()];
    tokio::time::timeout(LONG, stream.read_exact(&mut message)).await.unwrap().unwrap();
    assert_eq!(message, wanted);
    // The main path has all of it.
    assert_eq!(collector.metric("adxmon_ledger_rows{database=\"Metrics\",state=\"accepted\"}").await, Some(2.0));
    assert_eq!(collector.metric("adxmon_ledger_rows{database=\"Logs\",state=\"accepted\"}").await, Some(1.0));
    // Names and labels of the reference.
    for (exporter, endpoint) in [
        ("PromToRemoteWrite", format!("{}/write", receiver.url)),
        ("PromToOtlp", format!("{}/otlp", receiver.url)),
        ("LogToFluentExporter", format!("tcp://{}", fluent.local_addr().unwrap())),
    ] {
        let labels = format!("{{exporter=\"{exporter}\",endpoint=\"{endpoint}\"}}");
        collector.until(&format!("adxmon_collector_exporter_sent_total{labels}"), |sent| sent == 1.0).await;
        assert_eq!(collector.metric(&format!("adxmon_collector_exporter_failed_total{labels}")).await, Some(0.0));
    }
    collector.stop().await;
}

/// A URL that nobody listens on.
fn away() -> String {
    format!("http://{}/", StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

/// Receivers that are away, hang or answer 500 change no answer and no row of the main path; they can be seen.
#[tokio::test(flavor = "multi_thread")]
async fn dead_receivers_change_nothing_for_senders() {
    let failing = Receiver::start().await;
    failing.status.store(500, Ordering::SeqCst);
    // Connections are taken by the system, and nobody ever answers.
    let hanging = StdListener::bind("127.0.0.1:0").unwrap();
    let tables = [
        source("'away', 'hanging', 'failing'"),
        remote_write_exporter("away", &away()),
        remote_write_exporter("hanging", &format!("http://{}/", hanging.local_addr().unwrap())),
        remote_write_exporter("failing", &format!("{}/write", failing.url)),
    ];
    let collector = Collector::start("", &tables.concat()).await;
    for n in 0..200 {
        assert_eq!(collector.write("m", f64::from(n)).await, 202);
    }
    assert_eq!(collector.metric("adxmon_ledger_rows{database=\"Metrics\",state=\"accepted\"}").await, Some(200.0));
    for name in ["away", "hanging", "failing"] {
        collector.until(&format!("adxmon_collector_exporter_buffer_bytes{{name=\"{name}\"}}"), |bytes| bytes > 0.0).await;
        for reason in ["full", "old", "not_stored", "unreadable"] {
            let dropped = format!("adxmon_collector_exporter_dropped_total{{name=\"{name}\",reason=\"{reason}\"}}");
            assert_eq!(collector.metric(&dropped).await, Some(0.0), "{name} {reason}");
        }
    }
    collector.until("adxmon_collector_exporter_retries_total{name=\"failing\"}", |retries| retries > 0.0).await;
    let (_, page) = collector.get("/debug/store").await;
    assert!(page.contains("FAILING: status 500") && page.contains("FAILING: ") && page.contains("balanced"), "{page}");
    assert_eq!(collector.get("/readyz").await.0, 200);
    collector.stop().await;
}

/// The buffer of the exporter survives the death of the process, with every sample that was answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_collector_delivers_what_it_had_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, url) = launch(dir.path(), &(source("'rw'") + &remote_write_exporter("rw", &away())));
    for n in 0..100 {
        let response = client().post(format!("{url}/receive")).body(one_sample("m", f64::from(n))).send().await.unwrap();
        assert_eq!(response.status(), 202);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let receiver = Receiver::start().await;
    let (mut child, _) = launch(dir.path(), &(source("'rw'") + &remote_write_exporter("rw", &format!("{}/write", receiver.url))));
    let got = receiver.until(100).await;
    assert_eq!(got, (0..100).map(|n| line("m", "host=h", f64::from(n))).collect::<Vec<_>>());
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What the store refuses is repeated by its sender, so it must not have been exported: [D] in the reference.
#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_are_not_exported() {
    let receiver = Receiver::start().await;
    let tables = source("'rw'") + &remote_write_exporter("rw", &format!("{}/write", receiver.url));
    let collector = Collector::start("max-database-disk-usage = 200", &tables).await;
    let mut taken = 0;
    for n in 0..100 {
        taken += usize::from(collector.write("m", f64::from(n)).await == 202);
    }
    assert!((1..100).contains(&taken), "{taken}");
    receiver.until(taken).await;
    collector.stop().await;
    assert_eq!(receiver.got.lock().unwrap().len(), taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn exporters_get_what_is_not_forwarded() {
    let receiver = Receiver::start().await;
    let tables = source("'rw'") + "disable-metrics-forwarding = true\n" + &remote_write_exporter("rw", &format!("{}/write", receiver.url));
    let collector = Collector::start("", &tables).await;
    assert_eq!(collector.write("m", 1.0).await, 202);
    assert_eq!(receiver.until(1).await, [line("m", "host=h", 1.0)]);
    assert_eq!(collector.metric("adxmon_collector_samples_stored_total").await, Some(0.0));
    collector.stop().await;
}

/// A reload sends what waits to the new receiver, stops what is not configured any more, and brings back what it kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_what_waits() {
    let tables = |destination: &str| source("'rw'") + &remote_write_exporter("rw", destination);
    let collector = Collector::start("", &tables(&away())).await;
    assert_eq!(collector.write("m", 1.0).await, 202);
    let receiver = Receiver::start().await;
    let there = tables(&format!("{}/write", receiver.url));
    collector.reload("", &there).await.unwrap();
    receiver.until(1).await;
    receiver.status.store(500, Ordering::SeqCst);
    assert_eq!(collector.write("m", 2.0).await, 202);
    collector.reload("", &source("")).await.unwrap();
    assert_eq!(collector.write("m", 3.0).await, 202);
    receiver.status.store(200, Ordering::SeqCst);
    collector.reload("", &there).await.unwrap();
    assert_eq!(collector.write("m", 4.0).await, 202);
    // Not the one that came while there was no exporter.
    let got: Vec<f64> = receiver.until(3).await.into_iter().map(|line| line.2).collect();
    assert_eq!(got, [1.0, 2.0, 4.0]);
    collector.stop().await;
}

/// To receivers with certificates of an authority of their own: over all three transports, and not without that authority.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_receivers_are_checked() {
    let certificates = Certificates::new();
    let path = |name: &str| certificates.file(name).display().to_string();
    let tls = format!(
        "tls-cert-file = '{}'\ntls-key-file = '{}'\notlp-grpc-listen-addr = '127.0.0.1:0'\n",
        path("server.crt"),
        path("server.key")
    );
    let sources = ["rw", "http", "grpc"].map(|name| match name {
        "rw" => "[[prometheus-remote-write]]\ndatabase = 'Rw'\npath = '/write'\n",
        "http" => "[[otel-metric]]\ndatabase = 'Http'\npath = '/http'\n",
        _ => "[[otel-metric]]\ndatabase = 'Grpc'\npath = '/v1/metrics'\n",
    });
    let mut receiver = Collector::start(&tls, &sources.concat()).await;
    let http = format!("https://localhost:{}", receiver.running().addr.port());
    receiver.url.clone_from(&http);
    let grpc = format!("https://localhost:{}", receiver.running().otlp_grpc.unwrap().port());
    let exporters = |ca: &str| {
        let otlp = |name: &str, destination: &str, protocol: &str| {
            format!("[[exporters.otlp-metric-export]]\nname = '{name}'\ndestination = '{destination}'\nprotocol = '{protocol}'\n{ca}")
        };
        [
            source("'rw', 'http', 'grpc'"),
            remote_write_exporter("rw", &format!("{http}/write")) + ca,
            otlp("http", &format!("{http}/http"), "http/protobuf"),
            otlp("grpc", &grpc, "grpc"),
        ]
        .concat()
    };
    let collector = Collector::start("", &exporters("")).await;
    assert_eq!(collector.write("m", 1.0).await, 202);
    for name in ["rw", "http", "grpc"] {
        collector.until(&format!("adxmon_collector_exporter_retries_total{{name=\"{name}\"}}"), |retries| retries > 0.0).await;
    }
    assert_eq!(receiver.metric("adxmon_collector_samples_stored_total").await, Some(0.0));
    collector.reload("", &exporters(&format!("ca-file = '{}'\n", path("ca.crt")))).await.unwrap();
    for database in ["Rw", "Http", "Grpc"] {
        receiver.until(&format!("adxmon_ledger_rows{{database=\"{database}\",state=\"accepted\"}}"), |rows| rows == 1.0).await;
    }
    collector.stop().await;
    receiver.stop().await;
}
