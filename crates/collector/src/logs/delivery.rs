//! The way of records from a source to the store.

use std::sync::Arc;
use std::time::Duration;

use logs::{Batch, BatchCounts, Encoder, LineCounts, NoRow, Record, Transforms};
use parking_lot::Mutex;
use server::{Marks, Refused, Sink};
use telemetry::{Added, RowSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::now_ns;
use crate::config::{Config, LogTarget};
use crate::metrics::{EndReason, LogSource, Metrics, SourceProblem, SourceStage};
use crate::node_labels::NodeLabeling;
use crate::pipeline::{Kind, Pipeline};

/// Between two tries of a store that failed; one that is full says itself when to come back.
const FAILED_PAUSE: Duration = Duration::from_secs(5);

/// Makes records durable.
pub(crate) struct Delivery {
    source: &'static str,
    encoder: Encoder,
    sink: Arc<dyn Sink>,
    transforms: Mutex<Transforms>,
    metrics: Arc<Metrics>,
}

impl Delivery {
    /// For the records of `source`, as metrics call it, with what all its targets share. The node is followed until `stop`.
    pub(crate) fn new(pipeline: &Pipeline, source: &'static str, shared: &LogTarget, config: &Config, stop: &CancellationToken) -> Self {
        let added = Added::new(shared.add_attributes.clone());
        NodeLabeling { node: pipeline.node.node.clone(), stop: stop.clone() }.follow(&shared.node_labels, &added);
        Delivery {
            source,
            encoder: Encoder::new(added, config.lift_resources.clone()),
            sink: pipeline.sink(Kind::Logs { source }, None, false, &shared.exporters),
            transforms: Mutex::new(shared.transforms.transforms.clone()),
            metrics: Arc::clone(&pipeline.metrics),
        }
    }

    /// What makes rows of records.
    pub(crate) fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Commits `records`, transformed, with `marks`; whether it did before `stop`.
    pub(crate) async fn deliver(&self, mut records: Vec<Record>, marks: Marks, stop: &CancellationToken) -> bool {
        self.transform(&mut records);
        self.deliver_all(&records, marks, stop).await
    }

    fn transform(&self, records: &mut Vec<Record>) {
        let mut transforms = self.transforms.lock();
        if transforms.is_empty() {
            return;
        }
        let now = now_ns();
        records.retain_mut(|record| transforms.apply(record, now));
        self.transformed(&mut transforms);
    }

    /// Counts what transforms did since they were asked last.
    pub(crate) fn transformed(&self, transforms: &mut Transforms) {
        self.metrics.transformed(self.source, transforms);
    }

    async fn deliver_all(&self, records: &[Record], marks: Marks, stop: &CancellationToken) -> bool {
        let mut batch = Batch::new(&self.encoder);
        for (i, record) in records.iter().enumerate() {
            if batch.record(record) == Err(NoRow::Full) {
                // What is in front goes first; its marks belong to the whole.
                let (rows, counts) = batch.finish();
                let rest = Box::pin(self.deliver_all(&records[i..], marks, stop));
                return self.commit(rows, counts, Marks::new(), stop).await && rest.await;
            }
        }
        let (rows, counts) = batch.finish();
        self.commit(rows, counts, marks, stop).await
    }

    /// Commits rows with `marks`, again and again while the store does not take them; whether it did before `stop`.
    pub(crate) async fn commit(&self, rows: RowSet, counts: BatchCounts, marks: Marks, stop: &CancellationToken) -> bool {
        self.count("routing", counts.unrouted);
        self.count("tables", counts.refused);
        self.metrics.invalid_logs.inc_by(counts.unrouted);
        loop {
            // Not cut short: what the store took is there, and a successor has to see its marks.
            let pause = match self.sink.commit_with_marks(rows.clone(), 0, marks.clone()).await {
                Ok(()) => return true,
                Err(Refused::Overloaded { retry_after, reason }) => {
                    tracing::warn!(source = self.source, reason, "log records wait: the store does not take them");
                    retry_after
                }
                Err(Refused::Failed(reason)) => {
                    tracing::error!(source = self.source, reason, "log records wait: the store failed");
                    FAILED_PAUSE
                }
                Err(Refused::Invalid(reason)) => {
                    tracing::error!(source = self.source, records = counts.rows, reason, "log records were dropped: they cannot be stored");
                    self.count("sink", counts.rows);
                    return true;
                }
            };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return false;
            }
        }
    }

    /// Counts what happened to lines.
    pub(crate) fn lines(&self, counts: LineCounts) {
        let LineCounts { lines, entries, bad_lines, bad_times, empty_lines, invalid_utf8, cut_entries, cut_bytes } = counts;
        if lines + entries == 0 {
            return;
        }
        let source = LogSource { source: self.source };
        self.metrics.log_lines.get_or_create(&source).inc_by(lines);
        self.metrics.log_messages.get_or_create(&source).inc_by(entries);
        self.problem("format", bad_lines);
        self.problem("time", bad_times);
        self.problem("empty", empty_lines);
        self.problem("utf8", invalid_utf8);
        self.problem("cut", cut_entries);
        self.truncated(cut_bytes);
    }

    /// Counts lines or messages with a problem that does not keep them from being stored, or that leaves nothing to store.
    pub(crate) fn problem(&self, problem: &'static str, lines: u64) {
        if lines > 0 {
            self.metrics.log_line_problems.get_or_create(&SourceProblem { source: self.source, problem }).inc_by(lines);
        }
    }

    /// Counts a failed try to read.
    pub(crate) fn failed(&self) {
        self.metrics.log_source_failures.get_or_create(&LogSource { source: self.source }).inc();
    }

    /// Counts a connection of a sender that ended.
    pub(crate) fn connection_ended(&self, reason: &'static str) {
        self.metrics.syslog_connections.get_or_create(&EndReason { reason }).inc();
    }

    /// Counts bytes that were cut from the ends of long messages.
    pub(crate) fn truncated(&self, bytes: u64) {
        if bytes > 0 {
            self.metrics.logs_truncated_bytes.get_or_create(&LogSource { source: self.source }).inc_by(bytes);
        }
    }

    /// Counts records that were dropped at `stage`.
    pub(crate) fn count(&self, stage: &'static str, records: u64) {
        if records > 0 {
            self.metrics.logs_dropped.get_or_create(&SourceStage { source: self.source, stage }).inc_by(records);
        }
    }
}

/// Without records, a position is stored this often.
const POSITION_PERIOD: Duration = Duration::from_secs(30);

/// The position of a source in the store.
pub(crate) struct Position {
    key: Vec<u8>,
    stored: Instant,
}

impl Position {
    /// The position under `key`, and what was stored of it.
    pub(crate) fn load(store: &wal::Store, key: String) -> (Position, Option<Vec<u8>>) {
        let key = key.into_bytes();
        let stored = store.marks_with_prefix(&key).into_iter().find(|(found, _)| *found == key).map(|(_, value)| value);
        (Position { key, stored: Instant::now() }, stored)
    }

    /// What to store with a batch: the position, unless there is nothing else to store and it was stored a moment ago.
    pub(crate) fn marks(&mut self, records: &[Record], value: Vec<u8>) -> Option<Marks> {
        if records.is_empty() && self.stored.elapsed() < POSITION_PERIOD {
            return None;
        }
        self.stored = Instant::now();
        Some(vec![(self.key.clone(), value)])
    }
}
