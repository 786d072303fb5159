//! The ingestor's own metrics, under the names of the reference where it has them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use wal::{Counts, Ledger, TableKey, Usage};

use crate::upload::WorkerStatus;
use crate::upload::passage::Status;
use crate::upload::plan::{Batch, Ended};

type Labels<const N: usize> = [(&'static str, String); N];
type Seconds = Gauge<f64, AtomicU64>;

/// Metrics of uploads.
#[derive(Debug, Default)]
pub struct UploadMetrics {
    uploaded: Family<Labels<1>, Counter>,
    failures: Family<Labels<2>, Counter>,
    latency: Family<Labels<2>, Seconds>,
    queue: Family<Labels<2>, Gauge>,
    statuses: Family<Labels<2>, Counter>,
}

impl UploadMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("adxmon_ingestor");
        r.register("wal_segments_uploaded", "Segments uploaded, by prefix", self.uploaded.clone());
        r.register("upload_failures", "Failed uploads by database and kind", self.failures.clone());
        r.register("sample_latency", "Age in seconds of the newest segment of the last upload", self.latency.clone());
        r.register("queue_size", "Segments that wait or are on their way, and batches in Kusto's queue", self.queue.clone());
        r.register("queued_batch_statuses", "What Kusto answered when asked what became of a queued batch", self.statuses.clone());
    }

    pub(crate) fn queue(&self, database: &str, status: &WorkerStatus) {
        let labels = [("queue", "upload".to_owned()), ("database", database.to_owned())];
        self.queue.get_or_create(&labels).set(status.pending as i64);
        let labels = [("queue", "kusto".to_owned()), ("database", database.to_owned())];
        self.queue.get_or_create(&labels).set(status.followed as i64);
    }

    /// What Kusto answered; nothing when that could not be read.
    pub(crate) fn status(&self, database: &str, status: Option<&Status>) {
        let status = match status {
            None => "unreadable",
            Some(Status::Pending(_)) => "pending",
            Some(Status::Succeeded) => "succeeded",
            Some(Status::AlreadyIngested { .. }) => "already_ingested",
            Some(Status::Skipped(_)) => "skipped",
            Some(Status::PartiallySucceeded(_)) => "partially_succeeded",
            Some(Status::Failed { permanent: true, .. }) => "failed_permanent",
            Some(Status::Failed { permanent: false, .. }) => "failed_transient",
        };
        self.statuses.get_or_create(&[("database", database.to_owned()), ("status", status.to_owned())]).inc();
    }

    pub(crate) fn latency(&self, table: &TableKey, age_ms: u64) {
        let labels = [("database", table.database.to_string()), ("table", table.table.to_string())];
        self.latency.get_or_create(&labels).set(age_ms as f64 / 1000.0);
    }

    pub(crate) fn ended(&self, batch: &Batch, ended: &Ended) {
        let kind = match ended {
            Ended::Landed => {
                let prefix = prefix(&batch.table);
                self.uploaded.get_or_create(&[("metric", prefix)]).inc_by(batch.segments.len() as u64);
                return;
            }
            Ended::Transient { .. } => "transient",
            Ended::Refused { .. } => "permanent",
            Ended::GivenUp { .. } => "given_up",
            Ended::Unreadable { .. } => "unreadable",
        };
        let labels = [("database", batch.table.database.to_string()), ("kind", kind.to_owned())];
        self.failures.get_or_create(&labels).inc();
    }
}

/// `<db>_<table>[_<schema>]`, the beginning of a segment's file name.
fn prefix(table: &TableKey) -> String {
    match table.schema.as_ref() {
        "" => format!("{}_{}", table.database, table.table),
        schema => format!("{}_{}_{schema}", table.database, table.table),
    }
}

/// Gauges of the store, refreshed every few seconds.
#[derive(Debug, Default)]
pub(crate) struct StoreMetrics {
    segments: Gauge,
    bytes: Gauge,
    age: Seconds,
    ledger: Family<Labels<2>, Gauge>,
    filtered: Family<Labels<2>, Gauge>,
    ledger_balanced: Gauge,
    dead_bytes: Gauge,
    active_connections: Gauge,
    dropped_connections: Counter,
    health: Family<Labels<1>, Gauge>,
    /// Bytes of files that the store does not know of.
    pub(crate) unaccounted: Gauge,
    /// A counter by its meaning; as a gauge it has the reference's name, which does not end in `_total`.
    pub(crate) invalid_logs: Gauge,
}

impl StoreMetrics {
    pub(crate) fn register(&self, registry: &mut Registry, region: &str) {
        let r = registry.sub_registry_with_prefix("adxmon_ingestor");
        self.health.get_or_create(&[("region", region.to_owned())]).set(1);
        r.register("disk_unaccounted_bytes", "Bytes in the storage directory beyond what the store knows of", self.unaccounted.clone());
        r.register("health_check", "1 while the ingestor runs", self.health.clone());
        r.register("invalid_logs_dropped", "Log records without a destination", self.invalid_logs.clone());
        r.register("wal_segments_count", "Sealed segments that wait", self.segments.clone());
        r.register("wal_segments_size_bytes", "Bytes of all files of the store", self.bytes.clone());
        r.register("wal_segments_max_age_seconds", "Age of the oldest waiting segment", self.age.clone());
        r.register("ledger_rows", "Rows by database and where they are", self.ledger.clone());
        r.register("filtered_rows", "Rows removed before they were stored, by reason", self.filtered.clone());
        r.register("dead_letter_bytes", "Bytes of dead letters, which count for the quotas of their databases", self.dead_bytes.clone());
        r.register("active_connections", "Open connections", self.active_connections.clone());
        r.register("dropped_connections", "Connections closed because there were too many", self.dropped_connections.clone());
        r.register("ledger_balanced", "1 while accepted rows equal the sum of their places", self.ledger_balanced.clone());
    }

    /// Connections of all listeners.
    pub(crate) fn connections(&self, listeners: &[Arc<server::Connections>]) {
        self.active_connections.set(listeners.iter().map(|c| c.active() as i64).sum());
        let dropped: u64 = listeners.iter().map(|c| c.dropped()).sum();
        self.dropped_connections.inc_by(dropped.saturating_sub(self.dropped_connections.get()));
    }

    pub(crate) fn refresh(&self, usage: &Usage, ledger: &Ledger, now_ms: u64) {
        self.segments.set(usage.segments as i64);
        self.bytes.set(usage.total_bytes as i64);
        self.age.set(usage.oldest_ms.map_or(0.0, |at| now_ms.saturating_sub(at) as f64 / 1000.0));
        self.dead_bytes.set(usage.dead_bytes as i64);
        self.ledger_balanced.set(i64::from(ledger.check().is_ok()));
        for (database, counts) in by_database(ledger) {
            for (place, rows) in places(&counts) {
                let labels = [("database", database.to_string()), ("state", place.to_owned())];
                self.ledger.get_or_create(&labels).set(rows as i64);
            }
        }
        for ((database, reason), rows) in &ledger.filtered {
            let labels = [("database", database.to_string()), ("reason", reason.to_string())];
            self.filtered.get_or_create(&labels).set(*rows as i64);
        }
    }
}

/// The counts of a ledger, summed by database.
pub(crate) fn by_database(ledger: &Ledger) -> BTreeMap<Arc<str>, Counts> {
    let mut sums: BTreeMap<Arc<str>, Counts> = BTreeMap::new();
    for (table, c) in &ledger.tables {
        let sum = sums.entry(table.database.clone()).or_default();
        sum.accepted += c.accepted;
        sum.forwarded += c.forwarded;
        sum.landed += c.landed;
        sum.dead_lettered += c.dead_lettered;
        sum.quarantined += c.quarantined;
        sum.dropped += c.dropped;
        sum.on_disk += c.on_disk;
        sum.maybe_duplicate += c.maybe_duplicate;
    }
    sums
}

/// Counts by name.
pub(crate) fn places(c: &Counts) -> [(&'static str, u64); 8] {
    [
        ("accepted", c.accepted),
        ("forwarded", c.forwarded),
        ("landed", c.landed),
        ("dead_lettered", c.dead_lettered),
        ("quarantined", c.quarantined),
        ("dropped", c.dropped),
        ("on_disk", c.on_disk),
        ("maybe_duplicate", c.maybe_duplicate),
    ]
}
