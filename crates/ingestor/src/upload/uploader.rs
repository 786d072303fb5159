//! One batch on its way: each step is made durable before the next one begins.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use wal::{BatchRecord, BatchState, Outcome, SegmentId, Settlement, Store};

use super::fake;
use super::kusto_service::{KustoDatabase, Sent};
use super::passage::{Next, Over, Passage, QueueOptions, Status, Way, is_missing};
use super::plan::{Batch, Ended};
use super::queue::{Message, Queue, QueueError, Rows, Source};
use crate::kql::{self, Column};
use crate::metrics::UploadMetrics;

/// Between two tries to make something durable.
const RETRY_STORE: Duration = Duration::from_secs(1);
/// A clock that jumps back must not make anything sleep for ever.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);

/// Where the segments of a database go.
pub enum Destination {
    /// Into Kusto.
    Kusto(Box<KustoDatabase>),
    /// Nowhere: logged and dropped.
    Fake,
}

impl Destination {
    pub(super) fn remembers(&self) -> bool {
        match self {
            Destination::Kusto(database) => database.remembers(),
            Destination::Fake => true,
        }
    }

    pub(super) fn outcome(&self) -> (Outcome, &'static str) {
        match self {
            Destination::Kusto(_) => (Outcome::Landed, "ingested"),
            Destination::Fake => (Outcome::Dropped, "no Kusto endpoint is configured"),
        }
    }
}

/// What the tasks of uploads share.
pub(super) struct Uploader {
    pub(super) store: Store,
    pub(super) destination: Destination,
    pub(super) metrics: Arc<UploadMetrics>,
    pub(super) queue: QueueOptions,
}

/// Told once a batch is in the service's queue, with the length of its CSV.
pub(super) type HandOver<'a> = &'a (dyn Fn(u64) + Send + Sync);

impl Uploader {
    /// Brings a batch as far as it gets. `passage`: how far it is; `estimate`: about how much CSV it is.
    pub(super) async fn run(
        &self,
        batch: &Batch,
        estimate: u64,
        passage: Option<Passage>,
        hand_over: HandOver<'_>,
    ) -> (Option<Passage>, Ended) {
        let Destination::Kusto(database) = &self.destination else {
            let mut passage = passage.unwrap_or_else(|| Passage::new(Way::Streaming, self.queue, now_ms()));
            let recorded = self.record(batch, &mut passage).await;
            return (Some(passage), if recorded { fake::upload(batch) } else { closed() });
        };
        let mut passage = match passage {
            Some(passage) => passage,
            None => match database.way(batch, estimate).await {
                Ok(way) => Passage::new(way, self.queue, now_ms()),
                Err(ended) => return (None, ended),
            },
        };
        passage.again();
        if passage.progress().way == Way::Streaming {
            if !self.record(batch, &mut passage).await {
                return (Some(passage), closed());
            }
            match database.stream(batch, self.source()).await {
                Sent::Ended(ended) => return (Some(passage), ended),
                // Nothing has left yet.
                Sent::MustQueue => passage = Passage::new(Way::Queued, self.queue, now_ms()),
            }
        }
        let passing = Passing { uploader: self, database, queue: database.queue(), batch, hand_over };
        let ended = passing.run(&mut passage).await;
        (Some(passage), ended)
    }

    fn source(&self) -> Source {
        let store = self.store.clone();
        Arc::new(move |id| store.open_segment(id))
    }

    /// Makes durable how far a batch is, unless it is already. `false` when the store is closed.
    async fn record(&self, batch: &Batch, passage: &mut Passage) -> bool {
        if passage.next(now_ms()) != Next::Record {
            return true;
        }
        let (state, detail) = passage.record();
        let segments = batch.segments.iter().map(|s| s.id).collect();
        let recorded = self.record_batch(BatchRecord { id: batch.id, state, segments, detail }).await;
        if recorded {
            passage.recorded();
        }
        recorded
    }

    async fn record_batch(&self, record: BatchRecord) -> bool {
        durable("the state of a batch", |done| self.store.record_batch(record.clone(), done)).await
    }

    /// Makes the end of a batch durable, and dissolves what is left of it.
    pub(super) async fn close(&self, batch: &Batch, items: Vec<Settlement>) -> Option<Vec<SegmentId>> {
        let gone: Vec<SegmentId> = items.iter().map(|s| s.segment).collect();
        let settled = items.is_empty() || durable("the end of a batch", |done| self.store.settle(items.clone(), done)).await;
        let dissolved = BatchRecord { id: batch.id, state: BatchState::Batched, segments: Vec::new(), detail: Vec::new() };
        let closed = gone.len() == batch.segments.len() || settled && self.record_batch(dissolved).await;
        (settled && closed).then_some(gone)
    }
}

/// A batch on the queued way.
struct Passing<'a> {
    uploader: &'a Uploader,
    database: &'a KustoDatabase,
    queue: &'a dyn Queue,
    batch: &'a Batch,
    hand_over: HandOver<'a>,
}

impl Passing<'_> {
    async fn run(&self, passage: &mut Passage) -> Ended {
        let mut handed_over = false;
        loop {
            if passage.is_followed() && !handed_over {
                (self.hand_over)(passage.progress().csv_bytes);
                handed_over = true;
            }
            let now = now_ms();
            let step = match passage.next(now) {
                Next::Record => match self.uploader.record(self.batch, passage).await {
                    true => Ok(()),
                    false => Err(closed()),
                },
                Next::Upload => self.upload(passage).await,
                Next::Enqueue => self.enqueue(passage).await,
                Next::Ask => {
                    self.ask(passage).await;
                    Ok(())
                }
                Next::Wait(until) => {
                    tokio::time::sleep(Duration::from_millis(until.saturating_sub(now)).min(LONGEST_SLEEP)).await;
                    Ok(())
                }
                Next::Over(over) => Err(self.over(over)),
            };
            if let Err(ended) = step {
                return ended;
            }
        }
    }

    /// Table and mapping first, since Kusto looks for them when it takes the blob up.
    async fn upload(&self, passage: &mut Passage) -> Result<(), Ended> {
        let rows = Rows::new(self.batch, self.uploader.source());
        let Some(columns) = self.columns(&rows).await? else { return Err(Ended::Landed) };
        self.database.ensure_for(self.batch, &columns).await?;
        let _memory = self.database.memory_of_a_blob().await;
        match self.queue.upload(self.batch, rows.clone()).await {
            Ok((blob, csv_bytes)) => {
                passage.uploaded(blob, csv_bytes, now_ms());
                Ok(())
            }
            Err(error) => match rows.failure() {
                Some(failure) => Err(self.database.unread(self.batch, failure, 0)),
                None => Err(self.failed("uploading a blob", &error)),
            },
        }
    }

    async fn enqueue(&self, passage: &mut Passage) -> Result<(), Ended> {
        let Some(blob) = passage.progress().blob.clone() else {
            passage.blob_gone(now_ms());
            return Ok(());
        };
        let rows = Rows::new(self.batch, self.uploader.source());
        let columns = self.columns(&rows).await?.unwrap_or_default();
        self.database.ensure_for(self.batch, &columns).await?;
        let mapping = kql::mapping_name(&self.batch.table.table, &columns);
        let message = Message { blob: &blob, batch: self.batch, mapping, tagged: passage.progress().tagged };
        match self.queue.enqueue(message).await {
            Ok(receipt) => passage.enqueued(receipt, now_ms()),
            Err(QueueError::MaybeQueued { receipt, reason }) => {
                tracing::warn!(table = %self.batch.table, reason, "a message may be in the queue or not");
                passage.perhaps_enqueued(receipt, now_ms());
            }
            Err(QueueError::Gone(reason)) => {
                tracing::warn!(table = %self.batch.table, reason, "a blob has to be uploaded again");
                passage.blob_gone(now_ms());
            }
            Err(error) => {
                self.failed("queueing a batch", &error);
                passage.not_enqueued(now_ms());
            }
        }
        Ok(())
    }

    async fn ask(&self, passage: &mut Passage) {
        let Some(receipt) = passage.progress().receipt.clone() else { return };
        let status = match self.queue.status(&receipt).await {
            Ok(status) => Some(status),
            Err(error) => {
                tracing::warn!(%error, table = %self.batch.table, "what became of a queued batch cannot be read, and is asked for again");
                None
            }
        };
        if let Some(Status::Failed { permanent, code, details }) = &status {
            tracing::warn!(table = %self.batch.table, permanent, code, details, "Kusto failed to ingest a batch");
            if is_missing(code) {
                self.database.forget_tables();
            }
        }
        self.uploader.metrics.status(&self.batch.table.database, status.as_ref());
        passage.heard(status, now_ms());
    }

    fn over(&self, over: Over) -> Ended {
        match over {
            Over::Landed => Ended::Landed,
            Over::Refused(reason) => Ended::Refused { landed: 0, bad: 0..self.batch.segments.len(), reason, partly: false },
            Over::GivenUp { reason, partly } => Ended::GivenUp { reason, partly },
            Over::Later(pause) => Ended::Transient { database: false, retry_after: Some(pause), outcome_unknown: false },
        }
    }

    /// Nothing where there are no rows.
    async fn columns(&self, rows: &Rows) -> Result<Option<Vec<Column>>, Ended> {
        let rows = rows.clone();
        match tokio::task::spawn_blocking(move || rows.columns()).await {
            Ok(Ok(found)) => Ok(found.map(|named| named.unwrap_or_else(|| self.database.default_columns()))),
            Ok(Err(error)) => Err(self.database.unread(self.batch, error, 0)),
            Err(error) => {
                tracing::error!(%error, "reading a batch failed");
                Err(Ended::Transient { database: false, retry_after: None, outcome_unknown: false })
            }
        }
    }

    /// Storage and rights are of the whole database.
    fn failed(&self, doing: &str, error: &QueueError) -> Ended {
        tracing::warn!(%error, table = %self.batch.table, "{doing} failed");
        let retry_after = match error {
            QueueError::Service(error) => error.retry_after,
            QueueError::Storage { retry_after, .. } => *retry_after,
            _ => None,
        };
        Ended::Transient { database: true, retry_after, outcome_unknown: false }
    }
}

/// The store is closed, which ends everything here.
fn closed() -> Ended {
    Ended::Transient { database: true, retry_after: None, outcome_unknown: false }
}

/// Tries until the store has it durably; not when the store is closed.
async fn durable(what: &str, start: impl Fn(wal::Done)) -> bool {
    loop {
        let (done, outcome) = oneshot::channel();
        start(Box::new(move |outcome| drop(done.send(outcome))));
        match outcome.await {
            Ok(Ok(_)) => return true,
            Ok(Err(wal::Refusal::Closed)) | Err(_) => return false,
            Ok(Err(refusal)) => tracing::warn!(%refusal, "{what} cannot be recorded yet, and waits"),
        }
        tokio::time::sleep(RETRY_STORE).await;
    }
}

pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
