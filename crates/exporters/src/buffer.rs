//! The disk buffer of one exporter: a store of its own, which drops the oldest when it is full.
//!
//! Rows of samples are lines of [`telemetry::export`]; rows of logs are those of the tables, which carry their header.
//! A request is in the kernel when [`Buffer::keep`] resolves, and so survives the end of the process; a power cut can cost
//! the last second, which only the main store's acknowledgement promises to keep.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use telemetry::TableRows;
use telemetry::export::ExportRows;
use tokio::sync::{Notify, oneshot};
use wal::{Durability, Outcome, Section, SectionBody, SegmentId, SegmentInfo, Settlement, Store, TableKey};

use crate::metrics::{BufferCounts, Drop, Metrics};

/// Tells milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Between two log lines about drops.
const QUIET: Duration = Duration::from_secs(60);

/// How a buffer behaves.
#[derive(Clone, Debug)]
pub struct BufferOptions {
    /// Where it is; created when missing.
    pub dir: PathBuf,
    /// Bytes that may wait, compressed as they are on disk. The journal needs some 32 MiB beside it.
    pub max_bytes: u64,
    /// Data older than this is given up.
    pub max_age: Duration,
    /// How long rows gather before they are sent.
    pub seal_after: Duration,
}

impl BufferOptions {
    /// 256 MiB and a day.
    pub fn new(dir: impl Into<PathBuf>) -> BufferOptions {
        BufferOptions { dir: dir.into(), max_bytes: 256 << 20, max_age: Duration::from_secs(86_400), seal_after: Duration::from_secs(1) }
    }

    fn store(&self) -> wal::Options {
        wal::Options {
            durability: Durability::Process,
            journal_file_bytes: 4 << 20,
            journal_budget_bytes: 16 << 20,
            memtable_bytes: 4 << 20,
            segment_max_age_ms: millis(self.seal_after),
            // What is dropped for lack of room is a segment.
            segment_max_bytes: (self.max_bytes / 16).clamp(16 << 10, 1 << 20),
            // Dropping keeps the buffer at its size; this is for when dropping does not work.
            max_disk_bytes: self.max_bytes.saturating_mul(2).saturating_add(128 << 20),
            ..wal::Options::new(&self.dir)
        }
    }
}

/// See the module. Clones share it.
#[derive(Clone)]
pub struct Buffer {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    store: Store,
    tick_interval: Duration,
    max_bytes: AtomicU64,
    max_age_ms: AtomicU64,
    clock: Clock,
    metrics: Metrics,
    counts: BufferCounts,
    sealed: Notify,
    /// Rows dropped since the last log line, and when that was.
    untold: Mutex<(u64, Option<u64>)>,
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

impl Buffer {
    /// Opens the buffer of the exporter `name`. Reads back what is in the folder, so it blocks.
    ///
    /// # Errors
    /// A folder that cannot be used.
    pub fn open(options: BufferOptions, name: &str, clock: Clock, metrics: &Metrics) -> Result<Buffer, wal::OpenError> {
        let (store, report) = Store::open(options.store(), wal::RealDisk::new(), clock())?;
        for damage in &report.damage {
            tracing::error!(exporter = name, file = %damage.path.display(), rows = damage.rows, "unreadable bytes of an exporter's buffer were copied to quarantine");
        }
        let inner = Inner {
            name: name.to_owned(),
            store,
            tick_interval: options.seal_after.clamp(Duration::from_millis(10), Duration::from_millis(250)),
            max_bytes: AtomicU64::new(options.max_bytes),
            max_age_ms: AtomicU64::new(millis(options.max_age)),
            clock,
            metrics: metrics.clone(),
            counts: metrics.of_buffer(name),
            sealed: Notify::new(),
            untold: Mutex::default(),
        };
        let buffer = Buffer { inner: Arc::new(inner) };
        let weak = Arc::downgrade(&buffer.inner);
        let wake = move || {
            if let Some(inner) = weak.upgrade() {
                inner.sealed.notify_one();
            }
        };
        buffer.inner.store.on_sealed(Arc::new(wake));
        Ok(buffer)
    }

    /// Other limits, from the next look at them on.
    pub fn set_limits(&self, max_bytes: u64, max_age: Duration) {
        self.inner.max_bytes.store(max_bytes, Ordering::Relaxed);
        self.inner.max_age_ms.store(millis(max_age), Ordering::Relaxed);
    }

    /// The clock of the system.
    pub fn system_clock() -> Clock {
        Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Keeps samples for the exporter. What cannot be kept is counted; the caller goes on either way.
    pub async fn keep_samples(&self, rows: ExportRows) {
        if rows.lost > 0 {
            self.dropped(Drop::NotStored, rows.lost);
        }
        if rows.rows == 0 {
            return;
        }
        let section = Section {
            table: TableKey::new(SAMPLES_DATABASE, SAMPLES_TABLE, ""),
            header: Arc::from([]),
            sample_type: telemetry::SampleType::Metric as u8,
            rows: rows.rows,
            body: SectionBody::Rows(rows.bytes),
        };
        self.keep(vec![section]).await;
    }

    /// Keeps the rows of tables for the exporter, as [`Buffer::keep_samples`].
    pub async fn keep_tables(&self, tables: Vec<TableRows>) {
        let section = |table: TableRows| Section {
            table: TableKey { database: table.database, table: table.table, schema: table.schema.hash.clone() },
            header: table.schema.header.clone(),
            sample_type: table.sample_type as u8,
            rows: table.rows,
            body: SectionBody::Rows(table.bytes),
        };
        self.keep(tables.into_iter().map(section).collect()).await;
    }

    async fn keep(&self, sections: Vec<Section>) {
        let rows = sections.iter().map(|section| u64::from(section.rows)).sum();
        if rows == 0 {
            return;
        }
        let (done, committed) = oneshot::channel();
        let request = wal::Request { sections, ..wal::Request::default() };
        self.inner.store.commit(request, Box::new(move |outcome| std::mem::drop(done.send(outcome))));
        let refusal = match committed.await {
            Ok(Ok(_)) => return,
            Ok(Err(refusal)) => refusal.to_string(),
            Err(_) => "the buffer is closed".to_owned(),
        };
        tracing::debug!(exporter = self.inner.name, refusal, "an exporter's buffer did not store rows");
        self.dropped(Drop::NotStored, rows);
    }

    /// The name of its exporter.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Resolves when segments became visible since the last call.
    pub(crate) async fn sealed(&self) {
        self.inner.sealed.notified().await;
    }

    /// Tells the store the time.
    pub(crate) fn tick(&self) {
        self.inner.store.tick((self.inner.clock)());
    }

    /// How often [`Buffer::tick`] is due.
    pub(crate) fn tick_interval(&self) -> Duration {
        self.inner.tick_interval
    }

    /// The oldest segments, bounded in number and bytes, but at least one.
    pub(crate) fn oldest(&self) -> Vec<SegmentInfo> {
        let mut bytes = 0;
        let mut round = self.inner.store.sealed();
        round.truncate(ROUND_SEGMENTS);
        let fitting = round.iter().take_while(|segment| {
            bytes += segment.bytes;
            bytes <= ROUND_BYTES
        });
        let fitting = fitting.count().max(1);
        round.truncate(fitting);
        round
    }

    /// The file image of a segment; nothing if it is gone.
    pub(crate) async fn read(&self, segment: &SegmentInfo) -> Option<Vec<u8>> {
        let (buffer, id) = (self.clone(), segment.id);
        let read = tokio::task::spawn_blocking(move || buffer.inner.store.read_segment(id)).await;
        match read {
            Ok(Ok(image)) => Some(image),
            Ok(Err(error)) => {
                tracing::warn!(exporter = self.inner.name, segment = segment.file_name, %error, "a segment of an exporter's buffer cannot be read");
                None
            }
            Err(error) => {
                tracing::error!(%error, "reading a segment failed");
                None
            }
        }
    }

    /// Ends segments whose rows the receiver has or refused.
    pub(crate) async fn settle(&self, segments: &[SegmentInfo], outcome: Outcome, reason: &str) -> bool {
        let settle = |segment: &SegmentInfo| Settlement { segment: segment.id, outcome, reason: reason.to_owned(), maybe_duplicate: false };
        let (done, settled) = oneshot::channel();
        self.inner.store.settle(segments.iter().map(settle).collect(), Box::new(move |outcome| std::mem::drop(done.send(outcome))));
        match settled.await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                tracing::warn!(exporter = self.inner.name, %error, "an exporter's buffer cannot note what was sent; it is tried again");
                false
            }
            Err(_) => false,
        }
    }

    /// Drops what is too old or too much, oldest first, and publishes the gauges. Answers with what was dropped.
    pub(crate) async fn keep_limits(&self) -> HashSet<SegmentId> {
        let now = (self.inner.clock)();
        let sealed = self.inner.store.sealed();
        let mut excess = bytes_of(&sealed).saturating_sub(self.inner.max_bytes.load(Ordering::Relaxed));
        let oldest_allowed = now.saturating_sub(self.inner.max_age_ms.load(Ordering::Relaxed));
        let (mut full, mut old) = (Vec::new(), Vec::new());
        for segment in sealed {
            if segment.created_ms < oldest_allowed {
                excess = excess.saturating_sub(segment.bytes);
                old.push(segment);
            } else if excess > 0 {
                excess = excess.saturating_sub(segment.bytes);
                full.push(segment);
            } else {
                break;
            }
        }
        let mut gone = HashSet::new();
        for (why, segments) in [(Drop::Old, old), (Drop::Full, full)] {
            if !segments.is_empty() && self.settle(&segments, Outcome::Dropped, why.reason()).await {
                self.dropped(why, segments.iter().map(|segment| segment.rows).sum());
                gone.extend(segments.iter().map(|segment| segment.id));
            }
        }
        self.inner.counts.bytes.set(i64::try_from(self.bytes()).unwrap_or(i64::MAX));
        self.inner.counts.oldest.set(i64::try_from(self.oldest_age().as_secs()).unwrap_or(i64::MAX));
        gone
    }

    /// Counts rows that are given up, and says so once a minute.
    pub(crate) fn dropped(&self, why: Drop, rows: u64) {
        self.inner.counts.dropped(why, rows);
        let now = (self.inner.clock)();
        let mut untold = self.inner.untold.lock();
        untold.0 += rows;
        if untold.1.is_none_or(|told| now.saturating_sub(told) >= millis(QUIET)) {
            let reason = why.reason();
            tracing::warn!(
                exporter = self.inner.name,
                rows = untold.0,
                reason,
                max_bytes = self.inner.max_bytes.load(Ordering::Relaxed),
                max_age_seconds = self.inner.max_age_ms.load(Ordering::Relaxed) / 1000,
                "an exporter gives up data: its receiver is away or too slow; see exporter_dropped"
            );
            *untold = (0, Some(now));
        }
    }

    /// Bytes of the segments that wait; what gathers for the next one is not among them.
    pub fn bytes(&self) -> u64 {
        bytes_of(&self.inner.store.sealed())
    }

    /// Age of the oldest segment that waits.
    pub fn oldest_age(&self) -> Duration {
        let oldest = self.inner.store.usage().oldest_ms;
        Duration::from_millis(oldest.map_or(0, |oldest| (self.inner.clock)().saturating_sub(oldest)))
    }

    /// Segments that wait.
    pub fn segments(&self) -> usize {
        self.inner.store.sealed().len()
    }

    /// Makes everything that was kept ready to be sent. Blocks.
    pub(crate) fn seal(&self) {
        if let Err(error) = self.inner.store.seal_all() {
            tracing::warn!(exporter = self.inner.name, %error, "an exporter's buffer could not be sealed; the rest is sent after the next start");
        }
    }

    /// Writes what waits and ends the buffer. Blocks.
    pub fn close(&self) {
        self.inner.store.clone().close();
    }
}

fn bytes_of(segments: &[SegmentInfo]) -> u64 {
    segments.iter().map(|segment| segment.bytes).sum()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Where samples are kept; the table's name is the version of their lines. Those of version 1 have no exemplars and read the
/// same.
const SAMPLES_DATABASE: &str = "export";
const SAMPLES_TABLE: &str = "SamplesV2";

/// Segments that are sent before they are settled together, at most,
const ROUND_SEGMENTS: usize = 64;
/// and their bytes.
const ROUND_BYTES: u64 = 1 << 20;
