//! The plan of one database with a store, a clock and a destination around it.
//!
//! One task owns the plan; uploads run in tasks of their own and report back. The members of a batch
//! are durable before its first byte leaves, and a segment is forgotten only after its settlement is.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use wal::{BatchRecord, BatchState, Outcome, SegmentId, Settlement, Store, TableKey};

use super::fake;
use super::kusto_service::KustoDatabase;
use super::plan::{Batch, Ended, Limits, Plan, Verdict};
use crate::metrics::UploadMetrics;

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
    /// Starts uploading. `sealed` changes whenever there are new segments.
    pub fn start(
        database: &str,
        store: Store,
        destination: Destination,
        limits: Limits,
        sealed: watch::Receiver<u64>,
        metrics: Arc<UploadMetrics>,
        shutdown: CancellationToken,
    ) -> Worker {
        let (status, watched) = watch::channel(WorkerStatus::default());
        let (events, inbox) = mpsc::unbounded_channel();
        let mut actor = Actor {
            database: database.into(),
            uploader: Arc::new(Uploader { store: store.clone(), destination, metrics }),
            plan: Plan::new(limits),
            seen: HashSet::new(),
            recorded: HashSet::new(),
            resumed: HashSet::new(),
            events,
            status,
        };
        actor.resume();
        let task = tokio::spawn(actor.run(inbox, sealed, shutdown));
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
        alone: bool,
    },
}

struct Actor {
    database: Arc<str>,
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
        let sealed = self.uploader.store.sealed();
        for record in self.uploader.store.batches() {
            let members: Vec<_> =
                sealed.iter().filter(|s| s.table.database == self.database && record.segments.contains(&s.id)).cloned().collect();
            if members.is_empty() {
                continue;
            }
            self.seen.extend(members.iter().map(|s| s.id));
            self.recorded.insert(record.id);
            self.resumed.insert(record.id);
            self.plan.resume(record.id, members);
        }
    }

    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Event>, mut sealed: watch::Receiver<u64>, shutdown: CancellationToken) {
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
                changed = sealed.changed() => match changed {
                    Ok(()) => self.offer(),
                    Err(_) => return,
                },
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    fn offer(&mut self) {
        let sealed = self.uploader.store.sealed();
        let mine = sealed.into_iter().filter(|s| s.table.database == self.database);
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
            Event::Closed { table, gone, alone } => {
                for id in &gone {
                    self.seen.remove(id);
                }
                self.plan.closed(&table, |id| gone.contains(&id), alone);
            }
        }
    }

    fn ended(&mut self, batch: Batch, ended: Ended) {
        self.uploader.metrics.ended(&batch, &ended);
        let unknown = batch.outcome_unknown || matches!(ended, Ended::Permanent { partly: true, .. });
        let verdict = self.plan.ended(&batch.table, ended, now_ms());
        let resumed = self.resumed.contains(&batch.id) && !self.uploader.destination.remembers();
        let maybe_duplicate = unknown || resumed;
        let (items, alone) = match verdict {
            Verdict::Keep => return,
            Verdict::Landed => {
                let (outcome, reason) = self.uploader.destination.outcome();
                let settle = |s: &wal::SegmentInfo| settlement(s.id, outcome, reason, maybe_duplicate);
                (batch.segments.iter().map(settle).collect(), false)
            }
            Verdict::Dead(dead) => {
                let settle = |(id, reason): &(SegmentId, String)| {
                    tracing::error!(table = %batch.table, segment = %id, reason, "a segment goes to the dead letters");
                    settlement(*id, Outcome::DeadLettered, reason, maybe_duplicate)
                };
                (dead.iter().map(settle).collect(), false)
            }
            Verdict::Split => (Vec::new(), true),
        };
        self.recorded.remove(&batch.id);
        self.resumed.remove(&batch.id);
        let (uploader, events) = (self.uploader.clone(), self.events.clone());
        tokio::spawn(async move {
            let table = batch.table.clone();
            let gone = uploader.close(&batch, items).await;
            let _ = events.send(Event::Closed { table, gone, alone });
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
        if record_first {
            let segments = batch.segments.iter().map(|s| s.id).collect();
            self.record(batch.id, segments).await;
        }
        let Destination::Kusto(database) = &self.destination else { return fake::upload(batch) };
        match self.read(batch).await {
            Ok(images) => database.upload(batch, images).await,
            Err(ended) => ended,
        }
    }

    async fn read(&self, batch: &Batch) -> Result<Vec<Vec<u8>>, Ended> {
        let later = Ended::Transient { database: false, retry_after: None, outcome_unknown: false };
        let ids: Vec<SegmentId> = batch.segments.iter().map(|s| s.id).collect();
        let store = self.store.clone();
        let read = tokio::task::spawn_blocking(move || ids.into_iter().map(|id| (id, store.read_segment(id))).collect::<Vec<_>>());
        let Ok(results) = read.await else { return Err(later) };
        let mut images = Vec::with_capacity(results.len());
        let mut lost = Vec::new();
        for (id, result) in results {
            use std::io::ErrorKind::{InvalidData, NotFound};
            match result {
                Ok(image) => images.push(image),
                Err(e) if matches!(e.kind(), NotFound | InvalidData) => {
                    lost.push((id, format!("reading the segment: {e}")));
                }
                Err(error) => {
                    tracing::warn!(%error, segment = %id, "a segment cannot be read now");
                    return Err(later);
                }
            }
        }
        if lost.is_empty() { Ok(images) } else { Err(Ended::Unreadable(lost)) }
    }

    /// Makes the members of a batch durable; none forgets it. Tries until it works.
    async fn record(&self, id: [u8; 16], segments: Vec<SegmentId>) {
        loop {
            let record = BatchRecord { id, state: BatchState::Batched, segments: segments.clone(), detail: Vec::new() };
            let (done, durable) = oneshot::channel();
            self.store.record_batch(record, Box::new(move |outcome| drop(done.send(outcome))));
            if matches!(durable.await, Ok(Ok(_))) {
                return;
            }
            tokio::time::sleep(RETRY_STORE).await;
        }
    }

    /// Makes the end of a batch durable, and dissolves what is left of it. Tries until it works.
    async fn close(&self, batch: &Batch, items: Vec<Settlement>) -> Vec<SegmentId> {
        let gone: Vec<SegmentId> = items.iter().map(|s| s.segment).collect();
        while !items.is_empty() {
            let (done, durable) = oneshot::channel();
            self.store.settle(items.clone(), Box::new(move |outcome| drop(done.send(outcome))));
            if matches!(durable.await, Ok(Ok(_))) {
                break;
            }
            tokio::time::sleep(RETRY_STORE).await;
        }
        if gone.len() < batch.segments.len() {
            self.record(batch.id, Vec::new()).await;
        }
        gone
    }
}

fn settlement(segment: SegmentId, outcome: Outcome, reason: &str, maybe_duplicate: bool) -> Settlement {
    Settlement { segment, outcome, reason: reason.to_owned(), maybe_duplicate }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
