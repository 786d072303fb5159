//! A buffer to fill, an exporter on it, and its metrics.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use exporters::{Buffer, BufferOptions, Client, Exporter, ExporterOptions, Metrics, RetryPolicy};
use prometheus_client::registry::Registry;
use telemetry::client::{Series, add_series, remote_write_body};
use telemetry::export::ExportExemplar;
use telemetry::rules::MetricRules;
use telemetry::{Encoding, LogIntake, LogOptions, MetricIntake, RowSet};
use tempfile::TempDir;

pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A buffer in a scratch folder, with a clock that the test moves.
pub(crate) struct Rig {
    pub(crate) dir: TempDir,
    pub(crate) buffer: Buffer,
    pub(crate) now_ms: Arc<AtomicU64>,
    registry: Registry,
}

impl Rig {
    pub(crate) fn new() -> Rig {
        Rig::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut BufferOptions)) -> Rig {
        Rig::open(tempfile::tempdir().unwrap(), change)
    }

    pub(crate) fn open(dir: TempDir, change: impl FnOnce(&mut BufferOptions)) -> Rig {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let mut options = BufferOptions { seal_after: Duration::from_millis(10), ..BufferOptions::new(dir.path()) };
        change(&mut options);
        let now_ms = Arc::new(AtomicU64::new(Buffer::system_clock()()));
        let (base, clock) = (Buffer::system_clock(), now_ms.clone());
        let start = base();
        // The system's clock, and what the test adds to it.
        let clock = Arc::new(move || clock.load(Ordering::SeqCst) + (base() - start));
        let buffer = Buffer::open(options, "ex", clock, &metrics).unwrap();
        Rig { dir, buffer, now_ms, registry }
    }

    /// Ends the buffer and gives the folder back.
    pub(crate) fn into_dir(self) -> TempDir {
        self.dir
    }

    /// Waits until nothing waits.
    pub(crate) async fn until_empty(&self) {
        self.until("the end", |rig| rig.buffer.segments() == 0).await;
    }

    pub(crate) fn start(&self, client: impl Client) -> Exporter {
        self.start_with(client, Duration::from_secs(10))
    }

    pub(crate) fn start_with(&self, client: impl Client, timeout: Duration) -> Exporter {
        let ms = Duration::from_millis;
        let retry = RetryPolicy { first_pause: ms(1), longest_pause: ms(20), total: ms(0) };
        let options = ExporterOptions { timeout, retry };
        Exporter::start(client, self.buffer.clone(), ("Test", "http://receiver"), options)
    }

    /// The value of a metric of the exporter, written without the prefix.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = format!("adxmon_collector_exporter_{name} ");
        text.lines().find_map(|l| l.strip_prefix(&line)?.parse().ok()).unwrap_or_else(|| panic!("{name} is not in\n{text}"))
    }

    pub(crate) fn dropped(&self, reason: &str) -> f64 {
        self.metric(&format!("dropped_total{{name=\"ex\",reason=\"{reason}\"}}"))
    }

    pub(crate) fn sent(&self) -> f64 {
        self.metric("sent_total{exporter=\"Test\",endpoint=\"http://receiver\"}")
    }

    pub(crate) fn failed(&self) -> f64 {
        self.metric("failed_total{exporter=\"Test\",endpoint=\"http://receiver\"}")
    }

    /// Waits until `wanted` holds. Counts follow the receiver's answer, which is what tests wait for first.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&Rig) -> bool) {
        let wait = async {
            while !wanted(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, wait).await.unwrap_or_else(|_| panic!("{what} did not come"));
    }

    pub(crate) async fn keep(&self, series: &[Series]) {
        self.keep_of(MetricIntake::new("Metrics", MetricRules::default(), Vec::new()).tap(MetricRules::default()), series).await;
    }

    pub(crate) async fn keep_of(&self, intake: MetricIntake, series: &[Series]) {
        self.keep_body(&intake, &remote_write_body(series)).await;
    }

    /// Keeps a sample with an exemplar, another one, and an exemplar of the first series, as Prometheus sends it.
    pub(crate) async fn keep_exemplars(&self) {
        let labels = [("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"), ("http.user", "u")];
        let labels: Vec<_> = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let exemplar = |ms, value| ExportExemplar { timestamp_ms: Some(ms), value, labels: labels.clone() };
        let mut body = Vec::new();
        add_series(&mut body, &sample(1), &[exemplar(1, 0.5)]);
        add_series(&mut body, &sample(2), &[]);
        add_series(&mut body, &Series { samples: Vec::new(), ..sample(1) }, &[exemplar(2, 0.25)]);
        add_series(&mut body, &Series { samples: Vec::new(), ..sample(3) }, &[exemplar(3, 0.75)]);
        self.keep_body(&MetricIntake::new("M", MetricRules::default(), Vec::new()).tap(MetricRules::default()), &body).await;
    }

    async fn keep_body(&self, intake: &MetricIntake, body: &[u8]) {
        let mut rows = RowSet::new();
        intake.remote_write(body, &mut rows).unwrap();
        for taken in rows.take_exports() {
            self.buffer.keep_samples(taken).await;
        }
    }

    /// Keeps OTLP log records in JSON.
    pub(crate) async fn keep_logs(&self, records: &serde_json::Value) {
        let options = LogOptions { default_database: Some("Logs".into()), default_table: Some("App".into()), ..LogOptions::default() };
        let body = serde_json::json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).to_string();
        let mut rows = RowSet::new();
        LogIntake::new(options).otlp(body.as_bytes(), Encoding::Json, &mut rows).unwrap();
        self.buffer.keep_tables(rows.by_table()).await;
    }
}

/// One sample of a series `m{n="<n>"}`.
pub(crate) fn sample(n: i64) -> Series {
    series(&[("__name__", "m"), ("n", &n.to_string())], &[(1_700_000_000_000 + n, n as f64)])
}

pub(crate) fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Series {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Series { labels, samples: samples.to_vec() }
}

pub(crate) fn vector(name: &str) -> serde_json::Value {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors")).join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}
