//! Carries out the work of uploads: with the store, and with Kusto.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use wal::{BatchRecord, Outcome, Settlement, Store};

use super::fake;
use super::kusto_service::KustoDatabase;
use super::machine::{Done, NotEnqueued, Sent, Step, Work};
use super::passage::{Status, Way, is_missing};
use super::plan::{Batch, Ended};
use super::queue::{Message, QueueError, Rows, Source};
use crate::kql::{self, Column};
use crate::metrics::UploadMetrics;
use crate::peers::Sealed;
use crate::time::Time;

/// Between two tries to make something durable.
const RETRY_STORE: Duration = Duration::from_secs(1);

/// Where the segments of a database go.
pub enum Destination {
    /// Into Kusto.
    Kusto(Box<KustoDatabase>),
    /// Nowhere: logged and dropped.
    Fake,
}

impl Destination {
    pub(super) fn outcome(&self) -> (Outcome, &'static str) {
        match self {
            Destination::Kusto(_) => (Outcome::Landed, "ingested"),
            Destination::Fake => (Outcome::Dropped, "no Kusto endpoint is configured"),
        }
    }
}

/// Carries out the work of one database.
pub(super) struct Uploader {
    pub(super) store: Store,
    pub(super) destination: Destination,
    pub(super) sealed: Sealed,
    pub(super) metrics: Arc<UploadMetrics>,
    pub(super) time: Time,
}

impl Uploader {
    /// Nothing when the store is closed, which ends everything here.
    pub(super) async fn carry_out(&self, Work { batch, step }: &Work) -> Option<Done> {
        match (step, &self.destination) {
            (Step::Record(record), _) => self.record(record).await.then_some(Done::Recorded),
            (Step::Close { settlements, record }, _) => self.close(settlements.clone(), record.as_ref()).await.then_some(Done::Closed),
            (Step::Choose { .. }, Destination::Fake) => Some(Done::Chosen(Ok(Way::Streaming))),
            (_, Destination::Fake) => Some(Done::Streamed { sent: Sent::Ended(fake::upload(batch)), remembers: true }),
            (step, Destination::Kusto(database)) => Some(Carrying { uploader: self, database, batch }.carry_out(step).await),
        }
    }

    fn source(&self) -> Source {
        let store = self.store.clone();
        Arc::new(move |id| store.open_segment(id))
    }

    async fn record(&self, record: &BatchRecord) -> bool {
        self.durable("the state of a batch", |done| self.store.record_batch(record.clone(), done)).await
    }

    async fn close(&self, mut settlements: Vec<Settlement>, rest: Option<&BatchRecord>) -> bool {
        for item in &mut settlements {
            match self.sealed.clone().maybe_elsewhere(item.segment).await {
                Some(maybe_elsewhere) => item.maybe_duplicate |= maybe_elsewhere,
                None => return false,
            }
        }
        let settled =
            settlements.is_empty() || self.durable("the end of a batch", |done| self.store.settle(settlements.clone(), done)).await;
        match rest {
            Some(rest) => settled && self.record(rest).await,
            None => settled,
        }
    }

    /// Tries until the store has it durably; not when the store is closed.
    async fn durable(&self, what: &str, start: impl Fn(wal::Done)) -> bool {
        loop {
            let (done, outcome) = oneshot::channel();
            start(Box::new(move |outcome| drop(done.send(outcome))));
            match outcome.await {
                Ok(Ok(_)) => return true,
                Ok(Err(wal::Refusal::Closed)) | Err(_) => return false,
                Ok(Err(refusal)) => tracing::warn!(%refusal, "{what} cannot be recorded yet, and waits"),
            }
            self.time.sleep(RETRY_STORE).await;
        }
    }
}

/// A batch that goes into Kusto.
struct Carrying<'a> {
    uploader: &'a Uploader,
    database: &'a KustoDatabase,
    batch: &'a Batch,
}

impl Carrying<'_> {
    async fn carry_out(&self, step: &Step) -> Done {
        let Carrying { uploader, database, batch } = self;
        match step {
            Step::Choose { csv_bytes } => Done::Chosen(database.way(batch, *csv_bytes).await),
            Step::Upload => Done::Uploaded(self.upload().await),
            Step::Enqueue { blob, tagged } => Done::Enqueued(self.enqueue(blob, *tagged).await),
            Step::Ask { receipt } => Done::Asked(self.ask(receipt).await),
            // The others are the store's.
            Step::Stream | Step::Record(_) | Step::Close { .. } => {
                let sent = database.stream(batch, uploader.source()).await;
                Done::Streamed { sent, remembers: database.remembers() }
            }
        }
    }

    /// Table and mapping first, since Kusto looks for them when it takes the blob up.
    async fn upload(&self) -> Result<(serde_json::Value, u64), Ended> {
        let rows = Rows::new(self.batch, self.uploader.source());
        let Some(columns) = self.columns(&rows).await? else { return Err(Ended::Landed) };
        self.database.ensure_for(self.batch, &columns).await?;
        let _memory = self.database.memory_of_a_blob().await;
        self.database.queue().upload(self.batch, rows.clone()).await.map_err(|error| match rows.failure() {
            Some(failure) => self.database.unread(self.batch, failure, 0),
            None => self.failed("uploading a blob", &error),
        })
    }

    async fn enqueue(&self, blob: &serde_json::Value, tagged: bool) -> Result<serde_json::Value, NotEnqueued> {
        let rows = Rows::new(self.batch, self.uploader.source());
        let columns = self.columns(&rows).await.map_err(NotEnqueued::Ended)?.unwrap_or_default();
        self.database.ensure_for(self.batch, &columns).await.map_err(NotEnqueued::Ended)?;
        let mapping = kql::mapping_name(&self.batch.table.table, &columns);
        let message = Message { blob, batch: self.batch, mapping, tagged };
        self.database.queue().enqueue(message).await.map_err(|error| match error {
            QueueError::MaybeQueued { receipt, reason } => {
                tracing::warn!(table = %self.batch.table, reason, "a message may be in the queue or not");
                NotEnqueued::Perhaps(receipt)
            }
            QueueError::Gone(reason) => {
                tracing::warn!(table = %self.batch.table, reason, "a blob has to be uploaded again");
                NotEnqueued::Gone
            }
            error => {
                self.failed("queueing a batch", &error);
                NotEnqueued::Later
            }
        })
    }

    async fn ask(&self, receipt: &serde_json::Value) -> Option<Status> {
        let asked = self.database.queue().status(receipt).await;
        let status = asked
            .inspect_err(|error| {
                tracing::warn!(%error, table = %self.batch.table, "what became of a queued batch cannot be read, and is asked for again");
            })
            .ok();
        if let Some(Status::Failed { permanent, code, details }) = &status {
            tracing::warn!(table = %self.batch.table, permanent, code, details, "Kusto failed to ingest a batch");
            if is_missing(code) {
                self.database.forget_tables();
            }
        }
        self.uploader.metrics.status(&self.batch.table.database, status.as_ref());
        status
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
