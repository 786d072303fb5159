//! The exporter's own metrics. Series of an exporter go when it goes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use rules::clock::Clock;
use rules::store::Key;
use rules::window::Schedule;

use crate::export::Counts;

type Labels<const N: usize> = [(&'static str, String); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    QueryError,
    TransformError,
    PushError,
}

impl Outcome {
    const ALL: [Outcome; 4] = [Outcome::Success, Outcome::QueryError, Outcome::TransformError, Outcome::PushError];

    fn name(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::QueryError => "query_error",
            Outcome::TransformError => "transform_error",
            Outcome::PushError => "push_error",
        }
    }
}

/// Counters by exporter, and how far each is.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    runs: Counters<3>,
    rows: Counters<2>,
    skipped_rows: Counters<2>,
    points: Counters<2>,
    rejected_points: Counters<2>,
    failed_points: Counters<2>,
    skipped_windows: Counters<2>,
    duration: Histogram,
    sent: Counters<2>,
    failed: Counters<2>,
    receiver: Labels<2>,
    lag: Lag,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry, clock: Arc<dyn Clock>, receiver: &str) -> Metrics {
        let metrics = Metrics {
            runs: Family::default(),
            rows: Family::default(),
            skipped_rows: Family::default(),
            points: Family::default(),
            rejected_points: Family::default(),
            failed_points: Family::default(),
            skipped_windows: Family::default(),
            duration: Histogram::new([0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0]),
            sent: Family::default(),
            failed: Family::default(),
            receiver: [("exporter", "PromToOtlp".to_owned()), ("endpoint", receiver.to_owned())],
            lag: Lag { cursors: Arc::default(), clock },
        };
        let r = registry.sub_registry_with_prefix("adxmon_exporter");
        r.register("runs", "Windows that were run, by outcome", metrics.runs.clone());
        r.register("rows", "Rows that queries gave", metrics.rows.clone());
        r.register("skipped_rows", "Rows that could not become points", metrics.skipped_rows.clone());
        r.register("points", "Points that the OTLP receiver took", metrics.points.clone());
        r.register("rejected_points", "Points that the OTLP receiver took and did not store", metrics.rejected_points.clone());
        r.register("failed_points", "Points that the OTLP receiver did not take", metrics.failed_points.clone());
        r.register("skipped_windows", "Windows too old to be caught up with", metrics.skipped_windows.clone());
        r.register("run_duration_seconds", "Time from query to last push", metrics.duration.clone());
        r.register_collector(Box::new(metrics.lag.clone()));
        // Under the reference's names, which it counts and does not show.
        let r = registry.sub_registry_with_prefix("adxmon_collector_exporter");
        r.register("sent", "Points that the OTLP receiver took", metrics.sent.clone());
        r.register("failed", "Points that it rejected or did not take", metrics.failed.clone());
        metrics
    }

    pub(crate) fn ran(&self, key: &Key, outcome: Outcome, counts: &Counts, took: Duration) {
        let labels = labels(key);
        self.runs.get_or_create(&run_labels(key, outcome)).inc();
        self.rows.get_or_create(&labels).inc_by(counts.rows);
        self.skipped_rows.get_or_create(&labels).inc_by(counts.skipped);
        self.points.get_or_create(&labels).inc_by(counts.points);
        self.rejected_points.get_or_create(&labels).inc_by(counts.rejected);
        self.failed_points.get_or_create(&labels).inc_by(counts.failed);
        self.sent.get_or_create(&self.receiver).inc_by(counts.points);
        self.failed.get_or_create(&self.receiver).inc_by(counts.rejected + counts.failed);
        self.duration.observe(took.as_secs_f64());
    }

    pub(crate) fn skipped_windows(&self, key: &Key, windows: u64) {
        self.skipped_windows.get_or_create(&labels(key)).inc_by(windows);
    }

    /// Notes how far an exporter is; its lag is worked out when somebody asks.
    pub(crate) fn reached(&self, key: &Key, schedule: Schedule, cursor: Timestamp) {
        self.lag.cursors.lock().insert(key.clone(), (schedule, cursor));
    }

    /// Forgets the lag of an exporter that does not run here.
    pub(crate) fn stopped(&self, key: &Key) {
        self.lag.cursors.lock().remove(key);
    }

    /// Removes every series of an exporter.
    pub(crate) fn forget(&self, key: &Key) {
        self.stopped(key);
        for outcome in Outcome::ALL {
            self.runs.remove(&run_labels(key, outcome));
        }
        let labels = labels(key);
        for family in [&self.rows, &self.skipped_rows, &self.points, &self.rejected_points, &self.failed_points, &self.skipped_windows] {
            family.remove(&labels);
        }
    }
}

fn labels(key: &Key) -> Labels<2> {
    [("namespace", key.namespace.clone()), ("name", key.name.clone())]
}

fn run_labels(key: &Key, outcome: Outcome) -> Labels<3> {
    [("namespace", key.namespace.clone()), ("name", key.name.clone()), ("outcome", outcome.name().to_owned())]
}

/// How far behind each exporter is, as of the moment of the question.
#[derive(Clone)]
struct Lag {
    cursors: Arc<Mutex<BTreeMap<Key, (Schedule, Timestamp)>>>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lag({:?})", self.cursors.lock())
    }
}

impl Collector for Lag {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let now = self.clock.now();
        let help = "Time from the end of the last exported window to the end of the last complete one";
        let mut family = encoder.encode_descriptor("adxmon_exporter_lag_seconds", help, None, MetricType::Gauge)?;
        for (key, (schedule, cursor)) in self.cursors.lock().iter() {
            let lag = ConstGauge::new(schedule.lag(*cursor, now).as_secs_f64());
            lag.encode(family.encode_family(&labels(key))?)?;
        }
        Ok(())
    }
}
