//! The uploads of one database: the plan of its batches and the passage of each. Every effect is handed out as [`Work`], and
//! how it went is handed back. No I/O, no clock.
//!
//! A batch has one piece of work at a time, and those of different batches run beside each other. The members of a batch are
//! durable before its first byte leaves, each step before the next one begins, and a segment is forgotten only after its
//! settlement is. Work that never comes back is that of a process that has ended.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;
use wal::{BatchRecord, BatchState, Outcome, SegmentId, SegmentInfo, Settlement};

use super::passage::{Next, Over, Passage, Progress, QueueOptions, Status, Way};
use super::plan::{Batch, BatchId, End, Ended, Limits, Plan, Verdict};
use crate::metrics::UploadMetrics;

/// How a database's rows are uploaded.
pub struct Settings {
    /// How many at a time.
    pub limits: Limits,
    /// Tables that never wait to become more.
    pub urgent: Vec<String>,
    /// Details of queueing.
    pub queue: QueueOptions,
    /// What becomes of a segment that has arrived, and why.
    pub outcome: (Outcome, &'static str),
}

/// Something to do for a batch. Its outcome is reported with [`Uploads::done`].
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// The batch.
    pub batch: Arc<Batch>,
    /// What to do.
    pub step: Step,
}

/// See [`Work`].
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Find out which way it goes.
    Choose {
        /// About how much CSV it is.
        csv_bytes: u64,
    },
    /// Make this durable.
    Record(BatchRecord),
    /// Send its rows to the engine.
    Stream,
    /// Upload its rows as a blob.
    Upload,
    /// Tell the service of the blob.
    Enqueue {
        /// What the upload gave.
        blob: Value,
        /// The service is to ingest it once.
        tagged: bool,
    },
    /// Ask what became of it.
    Ask {
        /// What queueing gave.
        receipt: Value,
    },
    /// Make its end durable: these settlements, then this record of what is left.
    Close {
        /// Which may be marked as perhaps stored elsewhere by whoever knows more.
        settlements: Vec<Settlement>,
        /// Nothing when nothing is left.
        record: Option<BatchRecord>,
    },
}

/// How work went, in the order of [`Step`].
#[derive(Clone, Debug)]
pub enum Done {
    /// Its way, or why that is not known.
    Chosen(Result<Way, Ended>),
    /// It is durable.
    Recorded,
    /// How streaming ended.
    Streamed {
        /// How.
        sent: Sent,
        /// Whether the service stores once what is streamed twice.
        remembers: bool,
    },
    /// The blob and the length of its CSV.
    Uploaded(Result<(Value, u64), Ended>),
    /// What to ask with.
    Enqueued(Result<Value, NotEnqueued>),
    /// What the service says, if it can be read.
    Asked(Option<Status>),
    /// It is durable.
    Closed,
}

/// What became of a batch that was to be streamed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It ended.
    Ended(Ended),
    /// Its table does not stream, and nothing has left.
    MustQueue,
}

/// Why a message is not in the queue for all that is known.
#[derive(Clone, Debug, PartialEq)]
pub enum NotEnqueued {
    /// The batch cannot go on.
    Ended(Ended),
    /// It may be there; this is what to ask with.
    Perhaps(Value),
    /// The blob is of no use any more.
    Gone,
    /// It may work later.
    Later,
}

/// See the module.
pub struct Uploads {
    settings: Settings,
    plan: Plan,
    /// Segments that the plan has been told of.
    seen: HashSet<SegmentId>,
    /// Batches on their way, and those that the service has in its queue.
    active: BTreeMap<BatchId, Active>,
    /// How far the others are.
    passages: HashMap<BatchId, Passage>,
    /// Batches of an earlier run that may have been streamed.
    resumed: HashSet<BatchId>,
    /// Whether the service stores once what is streamed twice.
    remembers: bool,
    metrics: Arc<UploadMetrics>,
}

struct Active {
    batch: Arc<Batch>,
    /// About how much CSV it is.
    csv_bytes: u64,
    passage: Option<Passage>,
    /// The plan knows that it is in the service's queue.
    handed_over: bool,
    /// Its work has not come back.
    working: bool,
    /// Nothing before this time.
    wakes: u64,
    closing: Option<Closing>,
}

#[derive(Clone)]
struct Closing {
    settlements: Vec<Settlement>,
    record: Option<BatchRecord>,
    divided: Vec<SegmentId>,
    most: usize,
    maybe_duplicate: bool,
}

impl Uploads {
    /// Takes up the batches of an earlier run where they are. `sealed`: the segments of this database.
    pub fn resume(settings: Settings, records: Vec<BatchRecord>, sealed: Vec<SegmentInfo>) -> Uploads {
        let plan = Plan::new(settings.limits).with_urgent(settings.urgent.iter().cloned());
        let mut uploads = Uploads {
            settings,
            plan,
            seen: HashSet::new(),
            active: BTreeMap::new(),
            passages: HashMap::new(),
            resumed: HashSet::new(),
            remembers: false,
            metrics: Arc::default(),
        };
        let sealed: HashMap<SegmentId, SegmentInfo> = sealed.into_iter().map(|segment| (segment.id, segment)).collect();
        for record in records {
            // In the order of the record, on which the pieces of the batch depend.
            let members: Vec<_> = record.segments.iter().filter_map(|id| sealed.get(id)).cloned().collect();
            if let Some(first) = members.first() {
                let table = first.table.to_string();
                uploads.resume_batch(&record, members, &table);
            }
        }
        uploads
    }

    /// Counts in these metrics.
    pub(super) fn with_metrics(self, metrics: Arc<UploadMetrics>) -> Uploads {
        Uploads { metrics, ..self }
    }

    fn resume_batch(&mut self, record: &BatchRecord, members: Vec<SegmentInfo>, table: &str) {
        self.seen.extend(members.iter().map(|s| s.id));
        let progress = match Progress::decode(&record.detail) {
            Ok(progress) => progress,
            Err(error) => {
                let (batch, segments) = (uuid::Uuid::from_bytes(record.id), members.len());
                tracing::error!(%error, %batch, table, segments, "the record of a batch cannot be read: it is sent again, and its rows are counted as perhaps stored twice");
                self.plan.resume(record.id, members, true);
                return;
            }
        };
        // Where a member was lost, rows of the others may have arrived in pieces that are cut differently now.
        let incomplete = members.len() < record.segments.len();
        let passage = Passage::resume(record.state, progress, self.settings.queue).counted(incomplete);
        let outcome_unknown = passage.progress().maybe_duplicate;
        if passage.progress().way == Way::Streaming {
            self.resumed.insert(record.id);
        }
        let followed = passage.is_followed();
        self.passages.insert(record.id, passage);
        match followed {
            true => {
                let batch = self.plan.resume_followed(record.id, members, outcome_unknown);
                batch.into_iter().for_each(|batch| self.activate(batch, None));
            }
            false => self.plan.resume(record.id, members, outcome_unknown),
        }
    }

    /// Tells of what is to be uploaded; what is known already does not matter.
    pub fn offer(&mut self, segments: impl IntoIterator<Item = SegmentInfo>) {
        let Uploads { seen, plan, .. } = self;
        plan.offer(segments.into_iter().filter(|segment| seen.insert(segment.id)));
    }

    /// From now on nothing waits to become more.
    pub fn hurry(&mut self) {
        self.plan.hurry();
    }

    /// Segments that wait or are on their way.
    pub fn pending(&self) -> usize {
        self.plan.pending()
    }

    /// Batches on their way.
    pub fn flying(&self) -> usize {
        self.plan.flying()
    }

    /// Batches in the service's queue.
    pub fn followed(&self) -> usize {
        self.plan.followed()
    }

    /// What to do now. `new_id` makes identities of batches.
    pub fn next(&mut self, now: u64, mut new_id: impl FnMut() -> BatchId) -> Vec<Work> {
        let mut work = Vec::new();
        loop {
            for batch in self.plan.start(now, &mut new_id) {
                self.activate(batch, Some(now));
            }
            let idle = self.active.iter().filter(|(_, active)| !active.working && active.wakes <= now);
            let idle: Vec<BatchId> = idle.map(|(id, _)| *id).collect();
            if idle.is_empty() {
                return work;
            }
            for id in idle {
                let step = self.step(id, now);
                if let (Some(step), Some(active)) = (step, self.active.get_mut(&id)) {
                    active.working = true;
                    work.push(Work { batch: active.batch.clone(), step });
                }
            }
        }
    }

    /// When to ask again, if nothing is reported before.
    pub fn wake_at(&self, now: u64) -> Option<u64> {
        let waiting = self.active.values().filter(|active| !active.working && active.wakes != u64::MAX).map(|active| active.wakes);
        waiting.chain(self.plan.wake_at(now)).min()
    }

    fn activate(&mut self, batch: Batch, now: Option<u64>) {
        if let (Some(newest), Some(now)) = (batch.segments.last(), now) {
            self.metrics.latency(&batch.table, now.saturating_sub(newest.created_ms));
        }
        let mut passage = self.passages.remove(&batch.id);
        passage.iter_mut().for_each(Passage::again);
        let (id, csv_bytes) = (batch.id, self.plan.csv_bytes(&batch));
        let batch = Arc::new(batch);
        self.active.insert(id, Active { batch, csv_bytes, passage, handed_over: false, working: false, wakes: 0, closing: None });
    }

    /// The next step of a batch that has none under way. Nothing where it has to wait or has ended.
    fn step(&mut self, id: BatchId, now: u64) -> Option<Step> {
        loop {
            let active = self.active.get_mut(&id)?;
            if let Some(Closing { settlements, record, .. }) = active.closing.clone() {
                return Some(Step::Close { settlements, record });
            }
            let Some(passage) = &mut active.passage else { return Some(Step::Choose { csv_bytes: active.csv_bytes }) };
            if passage.is_followed() && !active.handed_over {
                active.handed_over = true;
                self.plan.uploaded(&active.batch, passage.progress().csv_bytes);
                self.plan.handed_over(&active.batch.table, &id);
            }
            let streamed = passage.progress().way == Way::Streaming;
            match passage.next(now) {
                Next::Record => return Some(Step::Record(record_of(&active.batch, passage))),
                Next::Upload if streamed => return Some(Step::Stream),
                Next::Upload => return Some(Step::Upload),
                Next::Enqueue => match passage.progress().blob.clone() {
                    Some(blob) => return Some(Step::Enqueue { blob, tagged: passage.progress().tagged }),
                    None => passage.blob_gone(now),
                },
                Next::Ask => match passage.progress().receipt.clone() {
                    Some(receipt) => return Some(Step::Ask { receipt }),
                    None => passage.heard(None, now),
                },
                Next::Wait(until) => {
                    active.wakes = until;
                    return None;
                }
                Next::Over(over) => {
                    let ended = ended_of(over, &active.batch);
                    self.ended(id, ended, now);
                }
            }
        }
    }

    /// Work has come back.
    pub fn done(&mut self, id: &BatchId, done: Done, now: u64) {
        let Some(active) = self.active.get_mut(id) else { return };
        (active.working, active.wakes) = (false, 0);
        let (queue, unknown) = (self.settings.queue, active.batch.outcome_unknown);
        let ended = match (done, &mut active.passage) {
            (Done::Closed, _) => return self.closed(id),
            (Done::Chosen(Ok(way)), passage) => {
                *passage = Some(Passage::new(way, queue, now).counted(unknown));
                return;
            }
            (Done::Chosen(Err(ended)) | Done::Uploaded(Err(ended)) | Done::Enqueued(Err(NotEnqueued::Ended(ended))), _) => ended,
            (Done::Streamed { sent, remembers }, passage) => {
                self.remembers = remembers;
                match sent {
                    Sent::Ended(ended) => ended,
                    Sent::MustQueue => {
                        let counted = passage.as_ref().is_some_and(|passage| passage.progress().maybe_duplicate);
                        // Nothing knows a batch again that went the other way before.
                        let counted = counted || unknown || active.batch.repeated;
                        self.resumed.remove(id);
                        *passage = Some(Passage::new(Way::Queued, queue, now).counted(counted));
                        return;
                    }
                }
            }
            (done, Some(passage)) => return report(passage, done, now),
            (_, None) => return,
        };
        self.ended(*id, ended, now);
    }

    fn ended(&mut self, id: BatchId, ended: Ended, now: u64) {
        let Some(active) = self.active.get_mut(&id) else { return };
        self.metrics.ended(&active.batch, &ended);
        let Verdict::Over(end) = self.plan.ended(&active.batch.table, &id, ended, now) else {
            let passage = self.active.remove(&id).and_then(|active| active.passage);
            self.passages.extend(passage.map(|passage| (id, passage)));
            return;
        };
        let resumed = self.resumed.remove(&id) && !self.remembers;
        active.closing = Some(closing(active, end, resumed, self.settings.outcome, now));
    }

    fn closed(&mut self, id: &BatchId) {
        let Some(Active { batch, closing: Some(closing), .. }) = self.active.remove(id) else { return };
        let gone: Vec<SegmentId> = closing.settlements.iter().map(|item| item.segment).collect();
        for id in &gone {
            self.seen.remove(id);
        }
        self.plan.closed(&batch.table, id, &gone, (&closing.divided, closing.most), closing.maybe_duplicate);
    }
}

/// What is told to a batch's passage alone.
fn report(passage: &mut Passage, done: Done, now: u64) {
    match done {
        Done::Recorded => passage.recorded(),
        Done::Uploaded(Ok((blob, csv_bytes))) => passage.uploaded(blob, csv_bytes, now),
        Done::Enqueued(Ok(receipt)) => passage.enqueued(receipt, now),
        Done::Enqueued(Err(NotEnqueued::Perhaps(receipt))) => passage.perhaps_enqueued(receipt, now),
        Done::Enqueued(Err(NotEnqueued::Gone)) => passage.blob_gone(now),
        Done::Enqueued(Err(NotEnqueued::Later)) => passage.not_enqueued(now),
        Done::Asked(status) => passage.heard(status, now),
        // Seen to before.
        _ => {}
    }
}

fn record_of(batch: &Batch, passage: &Passage) -> BatchRecord {
    let (state, detail) = passage.record();
    BatchRecord { id: batch.id, state, segments: batch.segments.iter().map(|s| s.id).collect(), detail }
}

fn ended_of(over: Over, batch: &Batch) -> Ended {
    match over {
        Over::Landed => Ended::Landed,
        Over::Refused(reason) => Ended::Refused { landed: 0, bad: 0..batch.segments.len(), reason, partly: false },
        Over::GivenUp { reason, partly } => Ended::GivenUp { reason, partly },
        Over::Later(pause) => Ended::Transient { database: false, retry_after: Some(pause), outcome_unknown: false },
    }
}

/// What to make durable of a batch that is over. `resumed`: an earlier run may have streamed it.
fn closing(active: &Active, end: End, resumed: bool, (outcome, reason): (Outcome, &str), now: u64) -> Closing {
    let batch = &active.batch;
    let End { landed, dead, divided, most, partly, maybe_duplicate } = end;
    let (way, counted) = active.passage.as_ref().map(|p| (p.progress().way, p.progress().maybe_duplicate)).unwrap_or_default();
    let maybe_duplicate = maybe_duplicate || resumed || counted;
    let mut settlements: Vec<Settlement> = landed.iter().map(|&id| settlement(id, outcome, reason, maybe_duplicate)).collect();
    for (id, reason) in &dead {
        tracing::error!(table = %batch.table, segment = %id, reason, "a segment goes to the dead letters");
        settlements.push(settlement(*id, Outcome::DeadLettered, reason, maybe_duplicate || partly));
    }
    let gone: HashSet<SegmentId> = settlements.iter().map(|item| item.segment).collect();
    let rest: Vec<SegmentId> = batch.segments.iter().map(|s| s.id).filter(|id| !gone.contains(id)).collect();
    let record = (!rest.is_empty()).then(|| match maybe_duplicate {
        // Remembered until its segments are in other batches, which know it too.
        true => {
            let detail = Progress { way, at_ms: now, maybe_duplicate, ..Progress::default() }.encode();
            BatchRecord { id: batch.id, state: BatchState::Retry, segments: rest, detail }
        }
        false => BatchRecord { id: batch.id, state: BatchState::Batched, segments: Vec::new(), detail: Vec::new() },
    });
    Closing { settlements, record, divided, most, maybe_duplicate }
}

fn settlement(segment: SegmentId, outcome: Outcome, reason: &str, maybe_duplicate: bool) -> Settlement {
    Settlement { segment, outcome, reason: reason.to_owned(), maybe_duplicate }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
