//! The plan of one database with a store, a clock and a destination around it.
//!
//! One task owns the plan; uploads run in tasks of their own and report back. The members of a batch
//! are durable before its first byte leaves, and a segment is forgotten only after its settlement is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wal::{Outcome, SegmentId, SegmentInfo, Settlement, Store, TableKey};

use super::passage::{Passage, Progress, QueueOptions, Way};
use super::plan::{Batch, BatchId, End, Ended, Limits, Plan, Verdict};
use super::uploader::{Destination, Uploader, now_ms};
use crate::metrics::UploadMetrics;
use crate::peers::Sealed;

/// What a worker is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Segments that wait or are on their way.
    pub pending: usize,
    /// Uploads on their way.
    pub flying: usize,
    /// Batches in the service's queue.
    pub followed: usize,
}

/// What a worker needs besides its database.
pub struct Parts {
    /// Where the segments are.
    pub store: Store,
    /// Where they go.
    pub destination: Destination,
    /// How many at a time.
    pub limits: Limits,
    /// Tables that never wait to become more.
    pub urgent: Vec<String>,
    /// Details of queueing.
    pub queue: QueueOptions,
    /// What is to be uploaded from here.
    pub sealed: Sealed,
    /// Metrics of uploads.
    pub metrics: Arc<UploadMetrics>,
    /// From then on nothing waits to become more.
    pub hurry: CancellationToken,
    /// The end.
    pub shutdown: CancellationToken,
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
    /// Starts uploading.
    pub fn start(database: &str, parts: Parts) -> Worker {
        let (status, watched) = watch::channel(WorkerStatus::default());
        let (events, inbox) = mpsc::unbounded_channel();
        let Parts { store, destination, limits, urgent, queue, sealed, metrics, hurry, shutdown } = parts;
        let mut actor = Actor {
            database: database.into(),
            sealed,
            uploader: Arc::new(Uploader { store, destination, metrics, queue }),
            plan: Plan::new(limits).with_urgent(urgent),
            seen: HashSet::new(),
            passages: HashMap::new(),
            resumed: HashSet::new(),
            events,
            status,
            shutdown,
        };
        actor.resume();
        let task = tokio::spawn(actor.run(inbox, hurry));
        Worker { database: database.to_owned(), status: watched, task }
    }

    /// Waits until the worker has stopped; uploads on their way are given up and sent again, under
    /// the same identity, after the next start.
    pub async fn finished(self) {
        let _ = self.task.await;
    }
}

enum Event {
    /// The service has the batch in its queue; its CSV has that length.
    HandedOver(Batch, u64),
    Ended(Batch, Option<Box<Passage>>, Ended),
    /// The batch's end is durable.
    Closed(Closed),
}

struct Closed {
    table: TableKey,
    id: BatchId,
    gone: Vec<SegmentId>,
    /// Of what is left these go in batches of at most so many segments.
    divided: Vec<SegmentId>,
    most: usize,
    outcome_unknown: bool,
}

struct Actor {
    database: Arc<str>,
    sealed: Sealed,
    uploader: Arc<Uploader>,
    plan: Plan,
    /// Segments that the plan has been told of.
    seen: HashSet<SegmentId>,
    /// How far the batches are that are not on their way at this moment.
    passages: HashMap<BatchId, Passage>,
    /// Batches of an earlier run that may have been streamed.
    resumed: HashSet<BatchId>,
    events: mpsc::UnboundedSender<Event>,
    status: watch::Sender<WorkerStatus>,
    shutdown: CancellationToken,
}

impl Actor {
    /// Takes up the batches of an earlier run, exactly where they are.
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
            let passage = Passage::resume(record.state, Progress::decode(&record.detail), self.uploader.queue);
            let outcome_unknown = incomplete || passage.progress().maybe_duplicate;
            if passage.progress().way == Way::Streaming {
                self.resumed.insert(record.id);
            }
            let followed = passage.is_followed();
            self.passages.insert(record.id, passage);
            match followed {
                true => {
                    let batch = self.plan.resume_followed(record.id, members, outcome_unknown);
                    batch.into_iter().for_each(|batch| self.upload(batch));
                }
                false => self.plan.resume(record.id, members, outcome_unknown),
            }
        }
    }

    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Event>, hurry: CancellationToken) {
        let (shutdown, mut hurried) = (self.shutdown.clone(), false);
        self.offer();
        loop {
            let now = now_ms();
            for batch in self.plan.start(now, || uuid::Uuid::new_v4().into_bytes()) {
                self.upload(batch);
            }
            let status = WorkerStatus { pending: self.plan.pending(), flying: self.plan.flying(), followed: self.plan.followed() };
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
                () = hurry.cancelled(), if !hurried => {
                    hurried = true;
                    self.plan.hurry();
                }
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    fn offer(&mut self) {
        let mine = self.sealed.of(&self.database).into_iter();
        let new: Vec<_> = mine.filter(|s| self.seen.insert(s.id)).collect();
        self.plan.offer(new);
    }

    fn upload(&mut self, batch: Batch) {
        if let Some(newest) = batch.segments.last() {
            self.uploader.metrics.latency(&batch.table, now_ms().saturating_sub(newest.created_ms));
        }
        let passage = self.passages.remove(&batch.id);
        let (uploader, events) = (self.uploader.clone(), self.events.clone());
        let (shutdown, estimate) = (self.shutdown.clone(), self.plan.csv_bytes(&batch));
        tokio::spawn(async move {
            let hand_over = |csv_bytes| drop(events.send(Event::HandedOver(batch.clone(), csv_bytes)));
            let work = uploader.run(&batch, estimate, passage, &hand_over);
            if let Some((passage, ended)) = shutdown.run_until_cancelled(work).await {
                let _ = events.send(Event::Ended(batch.clone(), passage.map(Box::new), ended));
            }
        });
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::HandedOver(batch, csv_bytes) => {
                self.plan.uploaded(&batch, csv_bytes);
                self.plan.handed_over(&batch.table, &batch.id);
            }
            Event::Ended(batch, passage, ended) => self.ended(batch, passage, ended),
            Event::Closed(closed) => {
                for id in &closed.gone {
                    self.seen.remove(id);
                }
                let divided = (closed.divided.as_slice(), closed.most);
                self.plan.closed(&closed.table, &closed.id, &closed.gone, divided, closed.outcome_unknown);
            }
        }
    }

    fn ended(&mut self, batch: Batch, passage: Option<Box<Passage>>, ended: Ended) {
        self.uploader.metrics.ended(&batch, &ended);
        let counted = passage.as_ref().is_some_and(|passage| passage.progress().maybe_duplicate);
        let Verdict::Over(end) = self.plan.ended(&batch.table, &batch.id, ended, now_ms()) else {
            self.passages.extend(passage.map(|passage| (batch.id, *passage)));
            return;
        };
        let resumed = self.resumed.remove(&batch.id) && !self.uploader.destination.remembers();
        let End { landed, dead, divided, most, partly, maybe_duplicate } = end;
        let maybe_duplicate = maybe_duplicate || resumed || counted;
        let (outcome, reason) = self.uploader.destination.outcome();
        let mut items: Vec<Settlement> = landed.iter().map(|&id| settlement(id, outcome, reason, maybe_duplicate)).collect();
        for (id, reason) in &dead {
            tracing::error!(table = %batch.table, segment = %id, reason, "a segment goes to the dead letters");
            items.push(settlement(*id, Outcome::DeadLettered, reason, maybe_duplicate || partly));
        }
        for item in &mut items {
            item.maybe_duplicate |= self.sealed.maybe_elsewhere(item.segment);
        }
        let (uploader, events) = (self.uploader.clone(), self.events.clone());
        tokio::spawn(async move {
            if let Some(gone) = uploader.close(&batch, items).await {
                let Batch { table, id, .. } = batch;
                let _ = events.send(Event::Closed(Closed { table, id, gone, divided, most, outcome_unknown: maybe_duplicate }));
            }
        });
    }
}

fn settlement(segment: SegmentId, outcome: Outcome, reason: &str, maybe_duplicate: bool) -> Settlement {
    Settlement { segment, outcome, reason: reason.to_owned(), maybe_duplicate }
}
