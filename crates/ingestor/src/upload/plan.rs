//! Which segments of a table are uploaded together, when, and what a failure means.
//!
//! A table has one batch at a time on its way, made of all that waits, oldest first, up to a number
//! and a size: what arrives meanwhile goes into the next one, so a backlog is worked off in large
//! batches. A batch keeps its identity until it has ended: after a transient failure, and after a
//! restart, exactly the same segments go again under the same id. Back-off is per table, and for the
//! whole database where the failure says so; the table that failed last is then tried last.
//!
//! A batch that the service has taken into its queue is followed beside the others until its end is
//! known. Where batches are queued, a table waits until there is enough for a large one, or its oldest
//! rows have waited long enough. A refused batch is cut into halves until the bad segment is alone.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::time::Duration;

use wal::{SegmentId, SegmentInfo, TableKey};

const FIRST_PAUSE_MS: u64 = 1000;
const LONGEST_PAUSE_MS: u64 = 60_000;
/// Telemetry as CSV is about so many times as long as the blocks that it is stored in.
pub const FIRST_INFLATION: u64 = 8;

/// Identity of a batch.
pub type BatchId = [u8; 16];

/// Bounds of the plan.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Segments in a batch.
    pub max_segments: usize,
    /// A batch that has about so many bytes of CSV takes no more segments.
    pub max_bytes: u64,
    /// Batches on their way at a time.
    pub concurrency: usize,
    /// A table waits for this; without it whatever is there goes at once.
    pub gather: Option<Gather>,
}

/// What a table waits for before a batch is made of it.
#[derive(Clone, Copy, Debug)]
pub struct Gather {
    /// About so many bytes of CSV, or as many segments as a batch may have,
    pub bytes: u64,
    /// or for its oldest rows to be this old.
    pub age_ms: u64,
}

/// Segments that are uploaded together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its identity: the service is told, and a restart uses it again.
    pub id: BatchId,
    /// Where its rows go.
    pub table: TableKey,
    /// Its segments, oldest first.
    pub segments: Vec<SegmentInfo>,
    /// It was made before and may have been sent, in part or whole.
    pub repeated: bool,
    /// An answer was lost, so its rows may be there already.
    pub outcome_unknown: bool,
}

impl Batch {
    fn ids(&self, range: Range<usize>) -> impl Iterator<Item = SegmentId> {
        self.segments.get(range).unwrap_or_default().iter().map(|s| s.id)
    }
}

/// How an upload ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The rows can be queried.
    Landed,
    /// It may work later.
    Transient {
        /// The cause concerns the whole database, not this table.
        database: bool,
        /// The pause that the service asked for.
        retry_after: Option<Duration>,
        /// The rows may have arrived.
        outcome_unknown: bool,
    },
    /// Some of its segments never work.
    Refused {
        /// So many segments, from the first one, are there.
        landed: usize,
        /// These were refused together.
        bad: Range<usize>,
        /// Why.
        reason: String,
        /// Some rows of `bad` have arrived.
        partly: bool,
    },
    /// The service is done with all of it, and its rows are not there, or not all of them.
    GivenUp {
        /// Why.
        reason: String,
        /// Some rows have arrived.
        partly: bool,
    },
    /// A segment cannot be read, and never will be.
    Unreadable {
        /// So many segments, from the first one, are there.
        landed: usize,
        /// Which one.
        segment: usize,
        /// Why.
        reason: String,
    },
}

/// What to do with an ended batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: the same batch goes again.
    Keep,
    /// It is over. What is left of it waits again, in new batches.
    Over(End),
}

/// What to settle of a batch that is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Their rows can be queried.
    pub landed: Vec<SegmentId>,
    /// Dead letters, with the reason.
    pub dead: Vec<(SegmentId, String)>,
    /// Of what is left these go in smaller batches, to find the bad one,
    pub divided: Vec<SegmentId>,
    /// with so many segments at most.
    pub most: usize,
    /// Some rows of the dead letters have arrived.
    pub partly: bool,
    /// Rows of all of them, and of what is left, may have arrived before.
    pub maybe_duplicate: bool,
}

#[derive(Debug, Default)]
struct Table {
    /// By creation, then id.
    waiting: BTreeMap<(u64, SegmentId), Waiting>,
    /// Stored bytes of what waits.
    waiting_bytes: u64,
    /// On its way, or to go again.
    batch: Option<Running>,
    /// In the service's queue.
    followed: BTreeMap<BatchId, Running>,
    /// Batches of an earlier run, or that failed in the queue, with the time before which they do not go.
    resumed: Vec<(u64, Batch)>,
    away_until: u64,
    failures: u32,
}

#[derive(Debug)]
struct Waiting {
    info: SegmentInfo,
    /// Segments that its batch may have, if not as many as any.
    most: Option<usize>,
    /// Its rows may have arrived with an earlier batch.
    outcome_unknown: bool,
}

#[derive(Debug)]
struct Running {
    batch: Batch,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// On its way.
    Flying,
    /// To go again.
    Again,
    /// Over; its end is being made durable, and it must not go again.
    Closing,
}

/// The plan of one database.
#[derive(Debug)]
pub struct Plan {
    limits: Limits,
    /// Bytes of CSV in a stored byte, as the last batches had it.
    inflation: u64,
    /// Nothing waits to become more.
    hurried: bool,
    /// Tables that never do.
    urgent: HashSet<String>,
    tables: BTreeMap<TableKey, Table>,
    flying: usize,
    away_until: u64,
    failures: u32,
}

impl Plan {
    /// An empty plan.
    pub fn new(limits: Limits) -> Plan {
        Plan {
            limits,
            inflation: FIRST_INFLATION,
            hurried: false,
            urgent: HashSet::new(),
            tables: BTreeMap::new(),
            flying: 0,
            away_until: 0,
            failures: 0,
        }
    }

    /// With tables that never wait to become more.
    pub fn with_urgent(self, tables: impl IntoIterator<Item = String>) -> Plan {
        Plan { urgent: tables.into_iter().collect(), ..self }
    }

    /// Adds a batch of an earlier run, before its segments are offered, in the order in which they
    /// were recorded. `outcome_unknown`: rows may have arrived in a way that the service forgets.
    pub fn resume(&mut self, id: BatchId, segments: Vec<SegmentInfo>, outcome_unknown: bool) {
        if let Some(batch) = resumed(id, segments, outcome_unknown) {
            self.tables.entry(batch.table.clone()).or_default().resumed.push((0, batch));
        }
    }

    /// As [`Plan::resume`], for a batch that is in the service's queue: it is returned, to be followed.
    pub fn resume_followed(&mut self, id: BatchId, segments: Vec<SegmentInfo>, outcome_unknown: bool) -> Option<Batch> {
        let batch = resumed(id, segments, outcome_unknown)?;
        let running = Running { batch: batch.clone(), phase: Phase::Flying };
        self.tables.entry(batch.table.clone()).or_default().followed.insert(id, running);
        Some(batch)
    }

    /// Adds segments. The caller offers each one once.
    pub fn offer(&mut self, segments: impl IntoIterator<Item = SegmentInfo>) {
        for info in segments {
            self.wait(Waiting { info, most: None, outcome_unknown: false });
        }
    }

    /// From now on nothing waits to become more.
    pub fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Learns how much CSV a batch was.
    pub fn uploaded(&mut self, batch: &Batch, csv_bytes: u64) {
        let stored: u64 = batch.segments.iter().map(|s| s.bytes).sum();
        if let Some(inflation) = csv_bytes.checked_div(stored) {
            self.inflation = ((3 * self.inflation + inflation.clamp(1, 64)).div_ceil(4)).clamp(1, 64);
        }
    }

    /// About how much CSV a batch is.
    pub fn csv_bytes(&self, batch: &Batch) -> u64 {
        batch.segments.iter().map(|s| s.bytes).sum::<u64>().saturating_mul(self.inflation)
    }

    /// Segments that wait or are on their way.
    pub fn pending(&self) -> usize {
        let in_batches = |t: &Table| {
            let running = t.batch.iter().chain(t.followed.values()).map(|r| r.batch.segments.len()).sum::<usize>();
            running + t.resumed.iter().map(|(_, b)| b.segments.len()).sum::<usize>()
        };
        self.tables.values().map(|t| t.waiting.len() + in_batches(t)).sum()
    }

    /// Batches in the service's queue.
    pub fn followed(&self) -> usize {
        self.tables.values().map(|t| t.followed.len()).sum()
    }

    /// Batches on their way.
    pub fn flying(&self) -> usize {
        self.flying
    }

    /// The batches to upload now, tables with the oldest data first. `new_id` makes identities.
    pub fn start(&mut self, now: u64, mut new_id: impl FnMut() -> BatchId) -> Vec<Batch> {
        if self.away_until > now {
            return Vec::new();
        }
        let free = self.limits.concurrency.saturating_sub(self.flying);
        // After a failure of the database one batch tries first.
        let free = if self.failures > 0 { free.min(1usize.saturating_sub(self.flying)) } else { free };
        let probing = self.failures > 0;
        let order = |(key, table): (&TableKey, &Table)| {
            // A table that may be the cause of the failures must not be the only one that tries.
            let failures = if probing { table.failures } else { 0 };
            Some((failures, table.due(self.measure(key), now)?, key.clone()))
        };
        let mut due: Vec<(u32, u64, TableKey)> = self.tables.iter().filter_map(order).collect();
        due.sort();
        let mut started = Vec::new();
        for (_, _, key) in due.into_iter().take(free) {
            let measure = self.measure(&key);
            if let Some(batch) = self.tables.get_mut(&key).and_then(|t| t.next_batch(&key, measure, now, &mut new_id)) {
                self.flying += 1;
                started.push(batch);
            }
        }
        started
    }

    /// When to ask again, if nothing is reported before.
    pub fn wake_at(&self, now: u64) -> Option<u64> {
        if self.away_until > now {
            return Some(self.away_until);
        }
        self.tables.iter().filter_map(|(key, t)| t.due_at(self.measure(key))).filter(|&at| at > now).min()
    }

    fn measure(&self, key: &TableKey) -> Measure {
        let Limits { max_segments, max_bytes, gather, .. } = self.limits;
        let gather = gather.filter(|_| !self.hurried && !self.urgent.contains(key.table.as_ref()));
        Measure {
            max_segments,
            max_stored: max_bytes / self.inflation,
            gather: gather.map(|Gather { bytes, age_ms }| Gather { bytes: bytes / self.inflation, age_ms }),
        }
    }

    /// The service has a table's batch in its queue: it is followed, and the next one may go.
    pub fn handed_over(&mut self, table: &TableKey, id: &BatchId) {
        let Some(state) = self.tables.get_mut(table) else { return };
        if let Some(running) = state.batch.take_if(|running| running.batch.id == *id) {
            self.flying = self.flying.saturating_sub(1);
            (state.failures, self.failures) = (0, 0);
            state.followed.insert(running.batch.id, running);
        }
    }

    /// A batch ended. What the verdict says is to be made durable before [`Plan::closed`].
    pub fn ended(&mut self, table: &TableKey, id: &BatchId, ended: Ended, now: u64) -> Verdict {
        let Some(state) = self.tables.get_mut(table) else { return Verdict::Keep };
        if state.followed.contains_key(id) {
            return state.followed_ended(id, &ended, now);
        }
        self.flying = self.flying.saturating_sub(1);
        let healthy = self.failures == 0;
        let verdict = state.ended(&ended, healthy, now);
        match &ended {
            Ended::Transient { database: true, retry_after, .. } => {
                let until = now + pause(self.failures, *retry_after, now);
                // Batches that were on their way together fail together: that is one failure.
                if self.away_until <= now {
                    self.failures = self.failures.saturating_add(1);
                    self.away_until = until;
                } else if retry_after.is_some() {
                    self.away_until = self.away_until.max(now + pause(0, *retry_after, now));
                }
            }
            Ended::Landed | Ended::Refused { .. } => self.failures = 0,
            _ => {}
        }
        verdict
    }

    /// The end of a batch is durable: the segments that are not `gone` wait again, those that are
    /// `divided` with at most so many others, and all of them as `outcome_unknown` says.
    pub fn closed(&mut self, table: &TableKey, id: &BatchId, gone: &[SegmentId], divided: (&[SegmentId], usize), outcome_unknown: bool) {
        let Some(state) = self.tables.get_mut(table) else { return };
        let slot = state.batch.take_if(|running| running.batch.id == *id);
        let Some(running) = slot.or_else(|| state.followed.remove(id)) else { return };
        for info in running.batch.segments {
            if !gone.contains(&info.id) {
                let most = divided.0.contains(&info.id).then_some(divided.1);
                self.wait(Waiting { info, most, outcome_unknown });
            }
        }
        if self.tables.get(table).is_some_and(|t| !t.has_work()) {
            self.tables.remove(table);
        }
    }

    fn wait(&mut self, waiting: Waiting) {
        let table = self.tables.entry(waiting.info.table.clone()).or_default();
        table.waiting_bytes += waiting.info.bytes;
        table.waiting.insert((waiting.info.created_ms, waiting.info.id), waiting);
    }
}

fn resumed(id: BatchId, segments: Vec<SegmentInfo>, outcome_unknown: bool) -> Option<Batch> {
    let table = segments.first()?.table.clone();
    Some(Batch { id, table, segments, repeated: true, outcome_unknown })
}

/// The limits of batches, in stored bytes.
#[derive(Clone, Copy)]
struct Measure {
    max_segments: usize,
    max_stored: u64,
    gather: Option<Gather>,
}

impl Table {
    fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.resumed.is_empty() || self.batch.is_some() || !self.followed.is_empty()
    }

    /// When the next batch may start, if there is one.
    fn due_at(&self, measure: Measure) -> Option<u64> {
        match &self.batch {
            Some(running) if running.phase == Phase::Again => return Some(self.away_until),
            Some(_) => return None,
            None => {}
        }
        let resumed = self.resumed.iter().map(|(at, _)| *at).min();
        let next = resumed.into_iter().chain(self.gathered_at(measure)).min()?;
        Some(next.max(self.away_until))
    }

    /// When what waits is enough for a batch.
    fn gathered_at(&self, measure: Measure) -> Option<u64> {
        let ((created, _), oldest) = self.waiting.first_key_value()?;
        let Some(gather) = measure.gather else { return Some(0) };
        let enough = self.waiting_bytes >= gather.bytes || self.waiting.len() >= measure.max_segments;
        // What failed before has waited long enough.
        let again = oldest.most.is_some() || oldest.outcome_unknown;
        Some(if enough || again { 0 } else { created.saturating_add(gather.age_ms) })
    }

    /// The age of what could start now.
    fn due(&self, measure: Measure, now: u64) -> Option<u64> {
        if self.due_at(measure)? > now {
            return None;
        }
        let resumed = self.resumed.iter().find(|(at, _)| *at <= now).map(|(_, batch)| batch);
        match self.batch.as_ref().map(|b| &b.batch).or(resumed) {
            Some(batch) => batch.segments.first().map(|s| s.created_ms),
            None => self.waiting.keys().next().map(|(created, _)| *created),
        }
    }

    fn next_batch(&mut self, key: &TableKey, measure: Measure, now: u64, new_id: &mut impl FnMut() -> BatchId) -> Option<Batch> {
        if let Some(running) = &mut self.batch {
            running.phase = Phase::Flying;
            running.batch.repeated = true;
            return Some(running.batch.clone());
        }
        let batch = match self.resumed.iter().position(|(at, _)| *at <= now) {
            Some(at) => self.resumed.remove(at).1,
            None => {
                let (segments, outcome_unknown) = self.take(measure);
                Batch { id: new_id(), table: key.clone(), segments, repeated: false, outcome_unknown }
            }
        };
        if batch.segments.is_empty() {
            return None;
        }
        self.batch = Some(Running { batch: batch.clone(), phase: Phase::Flying });
        Some(batch)
    }

    /// The segments of the next batch, and whether rows of them may have arrived before. Those of
    /// which that is so, and those of a batch that was refused, are not mixed with others.
    fn take(&mut self, measure: Measure) -> (Vec<SegmentInfo>, bool) {
        let mut taken: Vec<SegmentInfo> = Vec::new();
        let mut kind = None;
        let mut bytes = 0;
        while let Some(entry) = self.waiting.first_entry() {
            let own = (entry.get().most, entry.get().outcome_unknown);
            if *kind.get_or_insert(own) != own {
                break;
            }
            let info = entry.remove().info;
            self.waiting_bytes = self.waiting_bytes.saturating_sub(info.bytes);
            bytes += info.bytes;
            taken.push(info);
            let most = own.0.unwrap_or(usize::MAX).min(measure.max_segments);
            if taken.len() >= most || bytes >= measure.max_stored {
                break;
            }
        }
        (taken, kind.is_some_and(|(_, unknown)| unknown))
    }

    /// A batch that was followed ended; one that failed goes again, beside the others.
    fn followed_ended(&mut self, id: &BatchId, ended: &Ended, now: u64) -> Verdict {
        let Some(mut running) = self.followed.remove(id) else { return Verdict::Keep };
        let verdict = verdict(&mut running.batch, ended);
        match (&verdict, ended) {
            (Verdict::Keep, Ended::Transient { retry_after, .. }) => {
                let at = now.saturating_add(retry_after.map_or(0, |d| d.as_millis() as u64));
                running.batch.repeated = true;
                self.resumed.push((at, running.batch));
            }
            _ => {
                running.phase = Phase::Closing;
                self.followed.insert(*id, running);
            }
        }
        verdict
    }

    /// `healthy`: the database worked so far.
    fn ended(&mut self, ended: &Ended, healthy: bool, now: u64) -> Verdict {
        let Some(Running { batch, phase }) = &mut self.batch else { return Verdict::Keep };
        let verdict = verdict(batch, ended);
        *phase = if verdict == Verdict::Keep { Phase::Again } else { Phase::Closing };
        match ended {
            Ended::Landed => self.failures = 0,
            Ended::Transient { database, retry_after, .. } => {
                // What looks like the database may be this table, when all was well before.
                if healthy || !database {
                    self.away_until = now + pause(self.failures, *retry_after, now);
                }
                self.failures = self.failures.saturating_add(1);
            }
            _ => {}
        }
        verdict
    }
}

fn verdict(batch: &mut Batch, ended: &Ended) -> Verdict {
    let dead = |batch: &Batch, range: Range<usize>, reason: &String| batch.ids(range).map(|id| (id, reason.clone())).collect();
    let mut end = End { maybe_duplicate: batch.outcome_unknown, ..End::default() };
    let all = 0..batch.segments.len();
    match ended {
        Ended::Transient { outcome_unknown, .. } => {
            batch.outcome_unknown |= outcome_unknown;
            return Verdict::Keep;
        }
        Ended::Landed => end.landed = batch.ids(all).collect(),
        Ended::GivenUp { reason, partly } => {
            end.dead = dead(batch, all, reason);
            end.partly = *partly;
        }
        Ended::Refused { landed, bad, reason, partly } => {
            end.landed = batch.ids(0..*landed).collect();
            match bad.len() {
                1 => end.dead = dead(batch, bad.clone(), reason),
                several => {
                    end.divided = batch.ids(bad.clone()).collect();
                    end.most = several.div_ceil(2);
                }
            }
            end.partly = *partly;
        }
        Ended::Unreadable { landed, segment, reason } => {
            end.landed = batch.ids(0..*landed).collect();
            end.dead = dead(batch, *segment..*segment + 1, reason);
            // An earlier try may have sent rows that this one does not come to.
            end.maybe_duplicate |= batch.repeated;
        }
    }
    Verdict::Over(end)
}

/// Doubles with each failure up to a minute; a quarter of it is spread.
fn pause(failures: u32, retry_after: Option<Duration>, now: u64) -> u64 {
    let pause = (FIRST_PAUSE_MS << failures.min(6)).min(LONGEST_PAUSE_MS);
    let spread = now.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let pause = pause - spread % (pause / 4 + 1);
    pause.max(retry_after.map_or(0, |d| d.as_millis().min(3_600_000) as u64))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
