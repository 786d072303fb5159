//! The plan of one database with a store, a clock and a destination around it.
//!
//! One task owns the plan; uploads run in tasks of their own and report back. The members of a batch
//! are durable before its first byte leaves, and a segment is forgotten only after its settlement is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use wal::{BatchRecord, BatchState, Outcome, SegmentId, SegmentInfo, Settlement, Store, TableKey};

use super::fake;
use super::kusto_service::KustoDatabase;
use super::plan::{Batch, Ended, Limits, Plan, Verdict};
use crate::metrics::UploadMetrics;
use crate::peers::Sealed;

/// Between two tries to make something durable.
const RETRY_STORE: Duration = Duration::from_secs(1);

/// Where the segments of a database go.
pub enum Destination {
    /// Into Kusto.
    Kusto(KustoDatabase),
    /// Nowhere: logged and dropped.
    Fake,
}

impl Destination {
    fn remembers(&self) -> bool {
        match self {
            Destination::Kusto(database) => database.remembers(),
            Destination::Fake => true,
        }
    }

    fn outcome(&self) -> (Outcome, &'static str) {
        match self {
            Destination::Kusto(_) => (Outcome::Landed, "ingested"),
            Destination::Fake => (Outcome::Dropped, "no Kusto endpoint is configured"),
        }
    }
}

/// What a worker is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Segments that wait or are on their way.
    pub pending: usize,
    /// Uploads on their way.
    pub flying: usize,
}

/// Uploads the segments of one database until it is told to stop.
pub struct Worker {
    /// The database.
    pub database: String,
    /// What it is doing now.
    pub status: watch::Receiver<WorkerStatus>,
    task: tokio::task::JoinHandle<()>,
}

impl Worker {
    /// Starts uploading what is `sealed`.
    pub fn start(
        database: &str,
        store: Store,
        destination: Destination,
        limits: Limits,
        sealed: Sealed,
        metrics: Arc<UploadMetrics>,
        shutdown: CancellationToken,
    ) -> Worker {
        let (status, watched) = watch::channel(WorkerStatus::default());
        let (events, inbox) = mpsc::unbounded_channel();
        let mut actor = Actor {
            database: database.into(),
            sealed,
            uploader: Arc::new(Uploader { store: store.clone(), destination, metrics }),
            plan: Plan::new(limits),
            seen: HashSet::new(),
            recorded: HashSet::new(),
            resumed: HashSet::new(),
            events,
            status,
        };
        actor.resume();
        let task = tokio::spawn(actor.run(inbox, shutdown));
        Worker { database: database.to_owned(), status: watched, task }
    }

    /// Waits until the worker has stopped; uploads on their way are given up and sent again, under
    /// the same identity, after the next start.
    pub async fn finished(self) {
        let _ = self.task.await;
    }
}

enum Event {
    Ended(Batch, Ended),
    /// The batch's end is durable; these segments are gone.
    Closed {
        table: TableKey,
        gone: Vec<SegmentId>,
        /// These of what is left go by themselves.
        alone: Vec<SegmentId>,
        outcome_unknown: bool,
    },
}

struct Actor {
    database: Arc<str>,
    sealed: Sealed,
    uploader: Arc<Uploader>,
    plan: Plan,
    /// Segments that the plan has been told of.
    seen: HashSet<SegmentId>,
    /// Batches whose record is durable.
    recorded: HashSet<[u8; 16]>,
    /// Batches of an earlier run: they may have been sent.
    resumed: HashSet<[u8; 16]>,
    events: mpsc::UnboundedSender<Event>,
    status: watch::Sender<WorkerStatus>,
}

impl Actor {
    /// Takes up the batches of an earlier run.
    fn resume(&mut self) {
        let sealed = self.uploader.store.sealed().into_iter().filter(|s| s.table.database == self.database);
        let sealed: HashMap<SegmentId, SegmentInfo> = sealed.map(|s| (s.id, s)).collect();
        for record in self.uploader.store.batches() {
            // In the order of the record, on which the pieces of the batch depend.
            let members: Vec<_> = record.segments.iter().filter_map(|id| sealed.get(id)).cloned().collect();
            if members.is_empty() {
                continue;
            }
            // Where a member was lost, rows of the others may have arrived in pieces that are cut
            // differently now.
            let incomplete = members.len() < record.segments.len();
            self.seen.extend(members.iter().map(|s| s.id));
            self.recorded.insert(record.id);
            self.resumed.insert(record.id);
            self.plan.resume(record.id, members, incomplete);
        }
    }

    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Event>, shutdown: CancellationToken) {
        self.offer();
        loop {
            let now = now_ms();
            for batch in self.plan.start(now, || uuid::Uuid::new_v4().into_bytes()) {
                self.upload(batch, &shutdown);
            }
            let status = WorkerStatus { pending: self.plan.pending(), flying: self.plan.flying() };
            self.uploader.metrics.queue(&self.database, &status);
            self.status.send_replace(status);
            let sleep = match self.plan.wake_at(now) {
                Some(at) => Duration::from_millis(at.saturating_sub(now).max(1)),
                None => Duration::from_secs(3600),
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(event) = inbox.recv() => {
                    self.handle(event);
                    while let Ok(event) = inbox.try_recv() {
                        self.handle(event);
                    }
                }
                changed = self.sealed.changed() => match changed {
                    Ok(()) => self.offer(),
                    Err(_) => return,
                },
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    fn offer(&mut self) {
        let mine = self.sealed.of(&self.database).into_iter();
        let new: Vec<_> = mine.filter(|s| self.seen.insert(s.id)).collect();
        self.plan.offer(new);
    }

    fn upload(&mut self, batch: Batch, shutdown: &CancellationToken) {
        if let Some(newest) = batch.segments.last() {
            self.uploader.metrics.latency(&batch.table, now_ms().saturating_sub(newest.created_ms));
        }
        let record_first = self.recorded.insert(batch.id);
        let (uploader, events) = (self.uploader.clone(), self.events.clone());
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            let work = uploader.upload(&batch, record_first);
            if let Some(ended) = shutdown.run_until_cancelled(work).await {
                let _ = events.send(Event::Ended(batch, ended));
            }
        });
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Ended(batch, ended) => self.ended(batch, ended),
            Event::Closed { table, gone, alone, outcome_unknown } => {
                for id in &gone {
                    self.seen.remove(id);
                }
                self.plan.closed(&table, &gone, &alone, outcome_unknown);
            }
        }
    }

    fn ended(&mut self, batch: Batch, ended: Ended) {
        self.uploader.metrics.ended(&batch, &ended);
        let Verdict::Over { landed, dead, alone, partly, maybe_duplicate } = self.plan.ended(&batch.table, ended, now_ms()) else {
            return;
        };
        let resumed = self.resumed.remove(&batch.id) && !self.uploader.destination.remembers();
        let maybe_duplicate = maybe_duplicate || resumed;
        let (outcome, reason) = self.uploader.destination.outcome();
        let mut items: Vec<Settlement> = landed.iter().map(|&id| settlement(id, outcome, reason, maybe_duplicate)).collect();
        for (id, reason) in &dead {
            tracing::error!(table = %batch.table, segment = %id, reason, "a segment goes to the dead letters");
            items.push(settlement(*id, Outcome::DeadLettered, reason, maybe_duplicate || partly));
        }
        for item in &mut items {
            item.maybe_duplicate |= self.sealed.maybe_elsewhere(item.segment);
        }
        self.recorded.remove(&batch.id);
        let (uploader, events) = (self.uploader.clone(), self.events.clone());
        tokio::spawn(async move {
            let table = batch.table.clone();
            if let Some(gone) = uploader.close(&batch, items).await {
                let _ = events.send(Event::Closed { table, gone, alone, outcome_unknown: maybe_duplicate });
            }
        });
    }
}

/// What the tasks of uploads share.
struct Uploader {
    store: Store,
    destination: Destination,
    metrics: Arc<UploadMetrics>,
}

impl Uploader {
    async fn upload(&self, batch: &Batch, record_first: bool) -> Ended {
        let segments = || batch.segments.iter().map(|s| s.id).collect();
        if record_first && !self.record(batch.id, segments()).await {
            return Ended::Transient { database: true, retry_after: None, outcome_unknown: false };
        }
        let Destination::Kusto(database) = &self.destination else { return fake::upload(batch) };
        let store = self.store.clone();
        database.upload(batch, Arc::new(move |id| store.read_segment(id))).await
    }

    /// Makes the members of a batch durable; none forgets it.
    async fn record(&self, id: [u8; 16], segments: Vec<SegmentId>) -> bool {
        let record = BatchRecord { id, state: BatchState::Batched, segments, detail: Vec::new() };
        durable("the members of a batch", |done| self.store.record_batch(record.clone(), done)).await
    }

    /// Makes the end of a batch durable, and dissolves what is left of it.
    async fn close(&self, batch: &Batch, items: Vec<Settlement>) -> Option<Vec<SegmentId>> {
        let gone: Vec<SegmentId> = items.iter().map(|s| s.segment).collect();
        let settled = items.is_empty() || durable("the end of a batch", |done| self.store.settle(items.clone(), done)).await;
        let dissolved = gone.len() == batch.segments.len() || settled && self.record(batch.id, Vec::new()).await;
        (settled && dissolved).then_some(gone)
    }
}

/// Tries until the store has it durably; not when the store is closed, which ends everything here.
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

fn settlement(segment: SegmentId, outcome: Outcome, reason: &str, maybe_duplicate: bool) -> Settlement {
    Settlement { segment, outcome, reason: reason.to_owned(), maybe_duplicate }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
