//! What a collector takes that is not rows per second: memory, idle CPU time, time to be ready, and gRPC beside HTTP.
//!
//! ```text
//! cargo build --release -p collector --bin collector --example footprint
//! target/release/examples/footprint target/release/collector [idle] [files] [tables] [segments] [grpc]
//! ```
//! The collector runs as a process of its own, durability `process`, on loopback, its store in the temporary folder. One
//! line for each measurement.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point};
use prost::Message;
use telemetry::client::{Series, remote_write_body};
use wal::{Options, RealDisk, Request, Section, SectionBody, Store, TableKey};

const FILES: usize = 10_000;
const TABLES: usize = 5_000;
const SEGMENTS: usize = 10_000;
const NOW_MS: u64 = 1_760_000_000_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let binary = PathBuf::from(args.next().context("the path of the collector's binary is missing")?);
    let chosen: Vec<String> = args.collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|one| one == name);
    server::install_crypto();
    if wanted("idle") {
        idle(&binary).await?;
    }
    if wanted("files") {
        files(&binary).await?;
    }
    if wanted("tables") {
        tables(&binary).await?;
    }
    if wanted("segments") {
        segments(&binary).await?;
    }
    if wanted("grpc") {
        grpc(&binary).await?;
    }
    Ok(())
}

async fn idle(binary: &Path) -> Result<()> {
    let mut collector = Collector::start(binary, "").await?;
    let ready = collector.ready_after;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let cpu = collector.share_of_a_core(Duration::from_secs(10)).await?;
    println!("idle: ready after {ready:?}, {:.1} MB, {cpu:.2} % of a core", collector.megabytes()?);
    collector.stop()
}

/// Follows files that get a line each, all of them twice.
async fn files(binary: &Path) -> Result<()> {
    let logs = tempfile::tempdir()?;
    let path = |number: usize| logs.path().join(format!("app-{number}.log"));
    let line = |round: usize, number: usize| format!("round {round} of file {number}: {}\n", "x".repeat(100));
    for number in 0..FILES {
        std::fs::write(path(number), line(0, number))?;
    }
    let source = format!(
        "[[host-log]]\ndisable-kube-discovery = true\n[[host-log.file-target]]\nfile-path = '{}/*.log'\nlog-type = 'plain'\n\
         database = 'Logs'\ntable = 'App'\n",
        logs.path().display()
    );
    let mut collector = Collector::start(binary, &source).await?;
    collector.until_stored(FILES as u64).await?;
    for number in 0..FILES {
        use std::io::Write as _;
        std::fs::OpenOptions::new().append(true).open(path(number))?.write_all(line(1, number).as_bytes())?;
    }
    collector.until_stored(2 * FILES as u64).await?;
    let memory = collector.megabytes()?;
    let cpu = collector.share_of_a_core(Duration::from_secs(10)).await?;
    let peak = collector.peak_megabytes()?;
    println!("{FILES} tailed files: {memory:.1} MB, at most {peak:.1} MB, {cpu:.2} % of a core while nothing is written");
    collector.stop()
}

/// A few samples for each of many tables, then nothing.
async fn tables(binary: &Path) -> Result<()> {
    let mut collector = Collector::start(binary, "max-segment-age-seconds = 100000\n").await?;
    let series = |number: usize| Series {
        labels: [("__name__", format!("metric_number_{number}")), ("host", "node-1".to_owned())].map(|(n, v)| (n.to_owned(), v)).into(),
        samples: (0..5).map(|sample| (NOW_MS as i64 + sample, sample as f64)).collect(),
    };
    for from in (0..TABLES).step_by(500) {
        let body = remote_write_body(&(from..from + 500).map(series).collect::<Vec<_>>());
        collector.post("/receive", "application/x-protobuf", snap::raw::Encoder::new().compress_vec(&body)?).await?;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let cpu = collector.share_of_a_core(Duration::from_secs(20)).await?;
    println!("{TABLES} tables with rows: {cpu:.2} % of a core, {:.1} MB", collector.megabytes()?);
    collector.stop()
}

/// Starts on a store with many sealed segments that cannot be sent.
async fn segments(binary: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (store, _) = Store::open(Options::new(dir.path()), RealDisk::new(), NOW_MS)?;
    for round in 0..SEGMENTS / TABLES {
        for from in (0..TABLES).step_by(100) {
            let sections = (from..from + 100).map(|table| section(round, table)).collect();
            store.commit_wait(Request { sections, ..Request::default() })?;
        }
        store.seal_all()?;
    }
    store.close();
    let mut collector = Collector::start_in(binary, "endpoint = 'http://127.0.0.1:1'\n", dir).await?;
    println!("{SEGMENTS} segments on disk: ready after {:?}, {:.1} MB", collector.ready_after, collector.megabytes()?);
    collector.stop()
}

fn section(round: usize, table: usize) -> Section {
    let mut rows = String::new();
    for row in 0..20 {
        let _ = writeln!(rows, "2025-10-09T08:00:00Z,{},\"{{\"\"host\"\":\"\"node-{row}\"\"}}\",{round}", table * 31 + row);
    }
    Section {
        table: TableKey::new("Metrics", format!("Table{table}"), "2cawzsrvl4mw4"),
        header: Arc::from(&b"Timestamp:datetime,SeriesId:long,Labels:dynamic,Value:real\n"[..]),
        sample_type: 1,
        rows: 20,
        body: SectionBody::Rows(rows.into_bytes()),
    }
}

/// The same bodies over HTTP and over gRPC, five times in turn.
async fn grpc(binary: &Path) -> Result<()> {
    const REQUESTS: usize = 400;
    let grpc = free_port()?;
    let mut collector = Collector::start(binary, &format!("otlp-grpc-listen-addr = '127.0.0.1:{grpc}'\n")).await?;
    let http2 = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build()?;
    let signals = [
        ("metrics", "/v1/metrics", "metrics.v1.MetricsService", metric_points(1000), 1000),
        ("logs", "/v1/logs", "logs.v1.LogsService", log_records(200), 200),
    ];
    for (signal, path, service, message, items) in signals {
        let framed = [&[0][..], &u32::try_from(message.len())?.to_be_bytes(), &message].concat();
        let url = format!("http://127.0.0.1:{grpc}/opentelemetry.proto.collector.{service}/Export");
        let (mut over_http, mut over_grpc) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            let before = collector.cpu_seconds()?;
            for _ in 0..REQUESTS {
                collector.post(path, "application/x-protobuf", message.clone()).await?;
            }
            let between = collector.cpu_seconds()?;
            for _ in 0..REQUESTS {
                let request = http2.post(&url).header("content-type", "application/grpc").header("te", "trailers").body(framed.clone());
                let response = request.send().await?;
                ensure!(response.headers().get("grpc-status").is_none_or(|status| status == "0"), "refused: {response:?}");
                response.bytes().await?;
            }
            let after = collector.cpu_seconds()?;
            let per_million = |seconds: f64| seconds / (REQUESTS * items) as f64 * 1e6;
            over_http.push(per_million(between - before));
            over_grpc.push(per_million(after - between));
        }
        println!("OTLP {signal}, CPU-s per million, one at a time: HTTP {}, gRPC {}", spread(over_http), spread(over_grpc));
    }
    collector.stop()
}

fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2}–{:.2})", values[values.len() / 2], values[0], values[values.len() - 1])
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn metric_points(points: usize) -> Vec<u8> {
    let one = |number: usize| Metric {
        name: format!("node_subsystem_component_seconds_total_{}", number % 500),
        data: Some(metric::Data::Gauge(Gauge {
            data_points: vec![NumberDataPoint {
                attributes: [
                    ("cluster", "prod-westeurope-03".to_owned()),
                    ("container", format!("app-{}", number / 500)),
                    ("instance", format!("10.0.17.{}:9100", number / 500)),
                    ("namespace", "monitoring".to_owned()),
                    ("node", format!("aks-nodepool1-10431{:03}-vmss00000a", number % 500)),
                    ("pod", format!("workload-{}-5d8f7c9b6-{number:05x}", number % 37)),
                ]
                .map(|(key, value)| attribute(key, &value))
                .into(),
                time_unix_nano: NOW_MS * 1_000_000,
                value: Some(number_data_point::Value::AsDouble(number as f64 * 1.37)),
                ..NumberDataPoint::default()
            }],
        })),
        ..Metric::default()
    };
    let scope = ScopeMetrics { metrics: (0..points).map(one).collect(), ..ScopeMetrics::default() };
    let resource = ResourceMetrics { scope_metrics: vec![scope], ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource] }.encode_to_vec()
}

fn log_records(records: usize) -> Vec<u8> {
    let text = "level=info request completed for user with status=200 upstream cache miss retrying in backoff ".repeat(3);
    let one = |number: usize| LogRecord {
        time_unix_nano: NOW_MS * 1_000_000 + number as u64,
        severity_number: 9,
        severity_text: "INFO".to_owned(),
        body: Some(AnyValue { value: Some(any_value::Value::StringValue(text.clone())) }),
        attributes: vec![attribute("kusto.database", "Logs"), attribute("kusto.table", &format!("AppLogs{}", number % 10))],
        ..LogRecord::default()
    };
    let scope = ScopeLogs { log_records: (0..records).map(one).collect(), ..ScopeLogs::default() };
    let resource = ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![resource] }.encode_to_vec()
}

/// A collector that runs; killed when dropped.
struct Collector {
    process: Child,
    url: String,
    client: reqwest::Client,
    ready_after: Duration,
    _dir: tempfile::TempDir,
}

impl Collector {
    async fn start(binary: &Path, settings: &str) -> Result<Collector> {
        Collector::start_in(binary, settings, tempfile::tempdir()?).await
    }

    /// `settings`: top-level ones first, then tables.
    async fn start_in(binary: &Path, settings: &str, dir: tempfile::TempDir) -> Result<Collector> {
        let port = free_port()?;
        let file = dir.path().join("../").join(format!("footprint-{port}.toml"));
        let endpoint = if settings.contains("endpoint") { "" } else { "endpoint = ''\n" };
        let receivers = "[[prometheus-remote-write]]\ndatabase = 'Metrics'\npath = '/receive'\n[otel-log]\n[[otel-metric]]\n\
                         database = 'Metrics'\npath = '/v1/metrics'\n";
        let top = format!("listen-addr = '127.0.0.1:{port}'\nstorage-dir = '{}'\n", dir.path().display());
        std::fs::write(&file, format!("{endpoint}{top}{settings}{receivers}"))?;
        let started = Instant::now();
        let mut command = Command::new(binary);
        command.arg("--config").arg(&file).env("ADXMON_DURABILITY", "process").stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().with_context(|| format!("starting {}", binary.display()))?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        let mut collector = Collector { process, url: format!("http://127.0.0.1:{port}"), client, ready_after: Duration::ZERO, _dir: dir };
        while !collector.is_ready().await {
            ensure!(collector.process.try_wait()?.is_none(), "the collector ended");
            ensure!(started.elapsed() < Duration::from_secs(60), "the collector is not ready after a minute");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        collector.ready_after = started.elapsed();
        std::fs::remove_file(file)?;
        Ok(collector)
    }

    async fn is_ready(&self) -> bool {
        matches!(self.client.get(format!("{}/readyz", self.url)).send().await, Ok(response) if response.status() == 200)
    }

    async fn post(&self, path: &str, content_type: &str, body: Vec<u8>) -> Result<()> {
        let request = self.client.post(format!("{}{path}", self.url)).header("content-type", content_type).body(body);
        let response = request.send().await?;
        ensure!(response.status().is_success(), "{path} answered {}", response.status());
        response.bytes().await?;
        Ok(())
    }

    /// Waits until so many log records are stored.
    async fn until_stored(&self, records: u64) -> Result<()> {
        let started = Instant::now();
        loop {
            let page = self.client.get(format!("{}/metrics", self.url)).send().await?.text().await?;
            let stored = page.lines().filter(|line| line.starts_with("adxmon_collector_logs_sent{"));
            let stored: f64 = stored.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
            if stored >= records as f64 {
                return Ok(());
            }
            ensure!(started.elapsed() < Duration::from_secs(300), "{stored} of {records} records after five minutes");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// User and system time so far.
    fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // Fields 14 and 15 of proc(5), in hundredths of a second; the name before them may hold spaces.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).context("reading /proc/PID/stat");
        Ok((ticks(11)? + ticks(12)?) / 100.0)
    }

    /// Percent.
    async fn share_of_a_core(&self, over: Duration) -> Result<f64> {
        let before = self.cpu_seconds()?;
        tokio::time::sleep(over).await;
        Ok((self.cpu_seconds()? - before) / over.as_secs_f64() * 100.0)
    }

    fn megabytes(&self) -> Result<f64> {
        self.status("VmRSS:")
    }

    fn peak_megabytes(&self) -> Result<f64> {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).context("reading /proc/PID/status")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1e3 * 1.024)
    }

    fn stop(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
