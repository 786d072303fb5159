//! Which segments of a table are uploaded together, when, and what a failure means.
//!
//! A table has one batch at a time on its way, made of all that waits, oldest first, up to a number
//! and a size: what arrives meanwhile goes into the next one, so a backlog is worked off in large
//! batches. A batch keeps its identity until it has ended: after a transient failure, and after a
//! restart, exactly the same segments go again under the same id. Back-off is per table, and for the
//! whole database where the failure says so; the table that failed last is then tried last.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use wal::{SegmentId, SegmentInfo, TableKey};

const FIRST_PAUSE_MS: u64 = 1000;
const LONGEST_PAUSE_MS: u64 = 60_000;

/// Bounds of the plan.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Segments in a batch.
    pub max_segments: usize,
    /// A batch that has reached this size takes no more segments.
    pub max_bytes: u64,
    /// Batches on their way at a time.
    pub concurrency: usize,
}

/// Segments that are uploaded together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its identity: the service is told, and a restart uses it again.
    pub id: [u8; 16],
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
    /// It is over: settle these. What is left of it waits again, in new batches.
    Over {
        /// Their rows can be queried.
        landed: Vec<SegmentId>,
        /// Dead letters, with the reason.
        dead: Vec<(SegmentId, String)>,
        /// Of what is left these go one by one, to find the bad one.
        alone: Vec<SegmentId>,
        /// Some rows of the dead letters have arrived.
        partly: bool,
        /// Rows of all of them, and of what is left, may have arrived before.
        maybe_duplicate: bool,
    },
}

#[derive(Debug, Default)]
struct Table {
    /// By creation, then id.
    waiting: BTreeMap<(u64, SegmentId), Waiting>,
    /// On its way, or to go again.
    batch: Option<Running>,
    /// Batches of an earlier run.
    resumed: Vec<Batch>,
    away_until: u64,
    failures: u32,
}

#[derive(Debug)]
struct Waiting {
    info: SegmentInfo,
    /// To be uploaded by itself.
    alone: bool,
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
    tables: BTreeMap<TableKey, Table>,
    flying: usize,
    away_until: u64,
    failures: u32,
}

impl Plan {
    /// An empty plan.
    pub fn new(limits: Limits) -> Plan {
        Plan { limits, tables: BTreeMap::new(), flying: 0, away_until: 0, failures: 0 }
    }

    /// Adds a batch of an earlier run, before its segments are offered, in the order in which they
    /// were recorded. `outcome_unknown`: rows may have arrived in a way that the service forgets.
    pub fn resume(&mut self, id: [u8; 16], segments: Vec<SegmentInfo>, outcome_unknown: bool) {
        let Some(first) = segments.first() else { return };
        let table = first.table.clone();
        let batch = Batch { id, table: table.clone(), segments, repeated: true, outcome_unknown };
        self.tables.entry(table).or_default().resumed.push(batch);
    }

    /// Adds segments. The caller offers each one once.
    pub fn offer(&mut self, segments: impl IntoIterator<Item = SegmentInfo>) {
        for info in segments {
            self.wait(Waiting { info, alone: false, outcome_unknown: false });
        }
    }

    /// Segments that wait or are on their way.
    pub fn pending(&self) -> usize {
        let in_batches = |t: &Table| {
            let running = t.batch.iter().map(|r| r.batch.segments.len()).sum::<usize>();
            running + t.resumed.iter().map(|b| b.segments.len()).sum::<usize>()
        };
        self.tables.values().map(|t| t.waiting.len() + in_batches(t)).sum()
    }

    /// Batches on their way.
    pub fn flying(&self) -> usize {
        self.flying
    }

    /// The batches to upload now, tables with the oldest data first. `new_id` makes identities.
    pub fn start(&mut self, now: u64, mut new_id: impl FnMut() -> [u8; 16]) -> Vec<Batch> {
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
            Some((failures, table.due(now)?, key.clone()))
        };
        let mut due: Vec<(u32, u64, TableKey)> = self.tables.iter().filter_map(order).collect();
        due.sort();
        let limits = self.limits;
        let mut started = Vec::new();
        for (_, _, key) in due.into_iter().take(free) {
            if let Some(batch) = self.tables.get_mut(&key).and_then(|t| t.next_batch(&key, limits, &mut new_id)) {
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
        self.tables.values().filter(|t| t.has_work()).map(|t| t.away_until).filter(|&at| at > now).min()
    }

    /// A batch ended. What the verdict says is to be made durable before [`Plan::closed`].
    pub fn ended(&mut self, table: &TableKey, ended: Ended, now: u64) -> Verdict {
        self.flying = self.flying.saturating_sub(1);
        let healthy = self.failures == 0;
        let verdict = match self.tables.get_mut(table) {
            Some(state) => state.ended(&ended, healthy, now),
            None => return Verdict::Keep,
        };
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

    /// The end of a table's batch is durable: the segments that are not `gone` wait again, those in
    /// `alone` each by itself, and all of them as `outcome_unknown` says.
    pub fn closed(&mut self, table: &TableKey, gone: &[SegmentId], alone: &[SegmentId], outcome_unknown: bool) {
        let Some(batch) = self.tables.get_mut(table).and_then(|t| t.batch.take()) else { return };
        for info in batch.batch.segments {
            if !gone.contains(&info.id) {
                let alone = alone.contains(&info.id);
                self.wait(Waiting { info, alone, outcome_unknown });
            }
        }
        if self.tables.get(table).is_some_and(|t| !t.has_work()) {
            self.tables.remove(table);
        }
    }

    fn wait(&mut self, waiting: Waiting) {
        let table = self.tables.entry(waiting.info.table.clone()).or_default();
        table.waiting.insert((waiting.info.created_ms, waiting.info.id), waiting);
    }
}

impl Table {
    fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.resumed.is_empty() || self.batch.is_some()
    }

    /// The age of what could start now.
    fn due(&self, now: u64) -> Option<u64> {
        if self.away_until > now || self.batch.as_ref().is_some_and(|b| b.phase != Phase::Again) {
            return None;
        }
        let batch = self.batch.as_ref().map(|b| &b.batch).or(self.resumed.first());
        match batch {
            Some(batch) => batch.segments.first().map(|s| s.created_ms),
            None => self.waiting.keys().next().map(|(created, _)| *created),
        }
    }

    fn next_batch(&mut self, key: &TableKey, limits: Limits, new_id: &mut impl FnMut() -> [u8; 16]) -> Option<Batch> {
        if let Some(running) = &mut self.batch {
            running.phase = Phase::Flying;
            running.batch.repeated = true;
            return Some(running.batch.clone());
        }
        let batch = match self.resumed.is_empty() {
            false => self.resumed.remove(0),
            true => {
                let (segments, outcome_unknown) = self.take(limits);
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
    /// which that is so are not mixed with others.
    fn take(&mut self, limits: Limits) -> (Vec<SegmentInfo>, bool) {
        let mut taken: Vec<SegmentInfo> = Vec::new();
        let (mut bytes, mut unknown) = (0, false);
        while let Some(entry) = self.waiting.first_entry() {
            let (alone, outcome_unknown) = (entry.get().alone, entry.get().outcome_unknown);
            if !taken.is_empty() && (alone || outcome_unknown != unknown) {
                break;
            }
            let info = entry.remove().info;
            unknown = outcome_unknown;
            bytes += info.bytes;
            taken.push(info);
            if alone || taken.len() >= limits.max_segments || bytes >= limits.max_bytes {
                break;
            }
        }
        (taken, unknown)
    }

    /// `healthy`: the database worked so far.
    fn ended(&mut self, ended: &Ended, healthy: bool, now: u64) -> Verdict {
        let verdict = self.verdict(ended, healthy, now);
        if let Some(running) = &mut self.batch {
            running.phase = if verdict == Verdict::Keep { Phase::Again } else { Phase::Closing };
        }
        verdict
    }

    fn verdict(&mut self, ended: &Ended, healthy: bool, now: u64) -> Verdict {
        let Some(Running { batch, .. }) = &mut self.batch else { return Verdict::Keep };
        let maybe_duplicate = batch.outcome_unknown;
        match ended {
            Ended::Landed => {
                self.failures = 0;
                let landed = batch.ids(0..batch.segments.len()).collect();
                Verdict::Over { landed, dead: Vec::new(), alone: Vec::new(), partly: false, maybe_duplicate }
            }
            Ended::Transient { database, retry_after, outcome_unknown } => {
                batch.outcome_unknown |= outcome_unknown;
                // What looks like the database may be this table, when all was well before.
                if healthy || !database {
                    self.away_until = now + pause(self.failures, *retry_after, now);
                }
                self.failures = self.failures.saturating_add(1);
                Verdict::Keep
            }
            Ended::Refused { landed, bad, reason, partly } => {
                let mut alone: Vec<SegmentId> = batch.ids(bad.clone()).collect();
                let dead = match alone.len() {
                    1 => alone.drain(..).map(|id| (id, reason.clone())).collect(),
                    _ => Vec::new(),
                };
                Verdict::Over { landed: batch.ids(0..*landed).collect(), dead, alone, partly: *partly, maybe_duplicate }
            }
            Ended::Unreadable { landed, segment, reason } => {
                let dead = batch.ids(*segment..*segment + 1).map(|id| (id, reason.clone())).collect();
                // An earlier try may have sent rows that this one does not come to.
                let maybe_duplicate = maybe_duplicate || batch.repeated;
                Verdict::Over { landed: batch.ids(0..*landed).collect(), dead, alone: Vec::new(), partly: false, maybe_duplicate }
            }
        }
    }
}

/// Doubles with each failure up to a minute; a quarter of it is spread.
fn pause(failures: u32, retry_after: Option<Duration>, now: u64) -> u64 {
    let pause = (FIRST_PAUSE_MS << failures.min(6)).min(LONGEST_PAUSE_MS);
    let spread = now.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let pause = pause - spread % (pause / 4 + 1);
    pause.max(retry_after.map_or(0, |d| d.as_millis().min(3_600_000) as u64))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LIMITS: Limits = Limits { max_segments: 3, max_bytes: 1000, concurrency: 2 };

    fn segment(id: u64, table: &str, bytes: u64) -> SegmentInfo {
        SegmentInfo {
            id: SegmentId(id),
            table: TableKey::new("D", table, ""),
            number: id,
            digest: 0,
            bytes,
            rows: 1,
            created_ms: id,
            path: format!("{id}.wal").into(),
            file_name: format!("D_{table}_{id:016x}.wal"),
        }
    }

    fn ids() -> impl FnMut() -> [u8; 16] {
        let mut n = 0;
        move || {
            n += 1;
            [n; 16]
        }
    }

    fn members(batch: &Batch) -> Vec<u64> {
        batch.segments.iter().map(|s| s.id.0).collect()
    }

    fn key(table: &str) -> TableKey {
        TableKey::new("D", table, "")
    }

    const LATER: Ended = Ended::Transient { database: false, retry_after: None, outcome_unknown: false };

    fn landed(ids: &[u64]) -> Verdict {
        let landed = ids.iter().map(|&id| SegmentId(id)).collect();
        Verdict::Over { landed, dead: Vec::new(), alone: Vec::new(), partly: false, maybe_duplicate: false }
    }

    fn gone(ids: &[u64]) -> Vec<SegmentId> {
        ids.iter().map(|&id| SegmentId(id)).collect()
    }

    fn refused(landed: usize, bad: Range<usize>, partly: bool) -> Ended {
        Ended::Refused { landed, bad, reason: "r".into(), partly }
    }

    #[test]
    fn batches_are_cut_by_number_and_size_and_one_at_a_time() {
        let mut plan = Plan::new(LIMITS);
        plan.offer((1..=4).map(|i| segment(i, "A", 10)).chain([segment(5, "B", 999), segment(6, "B", 1), segment(7, "B", 1)]));
        let mut new_id = ids();
        let started = plan.start(0, &mut new_id);
        assert_eq!(started.iter().map(members).collect::<Vec<_>>(), [vec![1, 2, 3], vec![5, 6]]);
        assert!(plan.start(0, &mut new_id).is_empty());
        assert_eq!(plan.ended(&key("A"), Ended::Landed, 0), landed(&[1, 2, 3]));
        // Until its end is durable it must neither go again nor be followed.
        assert!(plan.start(0, &mut new_id).is_empty());
        plan.closed(&key("A"), &gone(&[1, 2, 3]), &[], false);
        assert_eq!(plan.start(0, &mut new_id).iter().map(members).collect::<Vec<_>>(), [vec![4]]);
    }

    #[test]
    fn a_failed_batch_goes_again_as_it_was() {
        let mut plan = Plan::new(LIMITS);
        let mut new_id = ids();
        plan.offer([segment(1, "A", 1)]);
        let first = plan.start(0, &mut new_id).remove(0);
        plan.offer([segment(2, "A", 1), segment(3, "B", 1)]);
        assert_eq!(plan.ended(&key("A"), LATER, 0), Verdict::Keep);
        // The other table is not held up.
        assert_eq!(plan.start(1, &mut new_id)[0].table, key("B"));
        let at = plan.wake_at(1).unwrap();
        assert!((750..=1000).contains(&at), "{at}");
        let again = plan.start(at, &mut new_id).remove(0);
        assert_eq!((again.id, members(&again), again.repeated), (first.id, vec![1], true));
    }

    fn down(retry_after: Option<Duration>) -> Ended {
        Ended::Transient { database: true, retry_after, outcome_unknown: true }
    }

    #[test]
    fn a_sick_database_is_tried_with_one_batch() {
        let mut plan = Plan::new(LIMITS);
        let mut new_id = ids();
        plan.offer([segment(1, "A", 1), segment(2, "B", 1)]);
        assert_eq!(plan.start(0, &mut new_id).len(), 2);
        let five = Some(Duration::from_secs(5));
        plan.ended(&key("A"), down(five), 0);
        plan.ended(&key("B"), down(five), 0);
        assert!(plan.start(4999, &mut new_id).is_empty());
        let probe = plan.start(5000, &mut new_id);
        assert_eq!(probe.len(), 1);
        assert!(probe[0].outcome_unknown);
        plan.ended(&probe[0].table, Ended::Landed, 5001);
        plan.closed(&probe[0].table, &gone(&[1, 2]), &[], false);
        assert_eq!(plan.start(5001, &mut new_id).len(), 1);
    }

    #[test]
    fn batches_that_fail_together_are_one_failure() {
        let limits = Limits { concurrency: 50, ..LIMITS };
        let mut plan = Plan::new(limits);
        let names: Vec<String> = (0..20).map(|i| format!("T{i}")).collect();
        plan.offer(names.iter().enumerate().map(|(i, name)| segment(i as u64, name, 1)));
        assert_eq!(plan.start(0, ids()).len(), 20);
        for (i, name) in names.iter().enumerate() {
            plan.ended(&key(name), down(None), i as u64);
        }
        let at = plan.wake_at(20).unwrap();
        assert!((750..=1000).contains(&at), "{at}");
    }

    /// Its failures look like those of the database, and its data is the oldest.
    #[test]
    fn a_sick_table_does_not_stop_the_others_of_its_database() {
        let mut plan = Plan::new(Limits { concurrency: 1, ..LIMITS });
        let mut new_id = ids();
        plan.offer([segment(1, "A", 1)].into_iter().chain((2..=9).map(|i| segment(i, "B", 1))));
        let mut now = 0;
        let mut arrived = Vec::new();
        for _ in 0..20 {
            for batch in plan.start(now, &mut new_id) {
                match batch.table == key("A") {
                    true => drop(plan.ended(&batch.table, down(None), now)),
                    false => {
                        arrived.extend(members(&batch));
                        plan.ended(&batch.table, Ended::Landed, now);
                        plan.closed(&batch.table, &gone(&members(&batch)), &[], false);
                    }
                }
            }
            now = plan.wake_at(now).unwrap_or(now);
        }
        assert_eq!(arrived, (2..=9).collect::<Vec<_>>());
        assert_eq!(plan.pending(), 1);
    }

    #[test]
    fn the_bad_segment_is_found_by_splitting() {
        let mut plan = Plan::new(LIMITS);
        let mut new_id = ids();
        plan.offer([segment(1, "A", 1), segment(2, "A", 1)]);
        plan.start(0, &mut new_id);
        let verdict = plan.ended(&key("A"), refused(0, 0..2, false), 0);
        let Verdict::Over { landed, dead, alone, maybe_duplicate, .. } = verdict else { panic!() };
        assert_eq!((landed, dead, maybe_duplicate), (gone(&[]), Vec::new(), false));
        assert!(plan.start(0, &mut new_id).is_empty());
        plan.closed(&key("A"), &[], &alone, false);
        assert_eq!(members(&plan.start(0, &mut new_id)[0]), [1]);
        let verdict = plan.ended(&key("A"), refused(0, 0..1, false), 0);
        let dead = vec![(SegmentId(1), "r".to_owned())];
        assert_eq!(verdict, Verdict::Over { landed: Vec::new(), dead, alone: Vec::new(), partly: false, maybe_duplicate: false });
        plan.closed(&key("A"), &gone(&[1]), &[], false);
        assert_eq!(members(&plan.start(0, &mut new_id)[0]), [2]);
        assert_eq!(plan.pending(), 1);
    }

    #[test]
    fn what_landed_before_a_refusal_is_settled_and_what_follows_waits_again() {
        let mut plan = Plan::new(LIMITS);
        let mut new_id = ids();
        plan.offer((1..=3).map(|i| segment(i, "A", 1)));
        plan.start(0, &mut new_id);
        let verdict = plan.ended(&key("A"), refused(1, 1..2, true), 0);
        let dead = vec![(SegmentId(2), "r".to_owned())];
        assert_eq!(verdict, Verdict::Over { landed: gone(&[1]), dead, alone: Vec::new(), partly: true, maybe_duplicate: false });
        plan.closed(&key("A"), &gone(&[1, 2]), &[], false);
        let batch = plan.start(0, &mut new_id).remove(0);
        assert_eq!((members(&batch), batch.outcome_unknown), (vec![3], false));
    }

    #[test]
    fn rows_that_may_have_arrived_are_not_mixed_with_others() {
        let mut plan = Plan::new(LIMITS);
        let mut new_id = ids();
        plan.offer((1..=2).map(|i| segment(i, "A", 1)));
        plan.start(0, &mut new_id);
        plan.ended(&key("A"), LATER, 0);
        plan.start(1000, &mut new_id);
        let unreadable = Ended::Unreadable { landed: 0, segment: 0, reason: "r".into() };
        let Verdict::Over { dead, maybe_duplicate, .. } = plan.ended(&key("A"), unreadable, 1000) else { panic!() };
        assert_eq!((dead, maybe_duplicate), (vec![(SegmentId(1), "r".to_owned())], true));
        plan.offer([segment(3, "A", 1)]);
        plan.closed(&key("A"), &gone(&[1]), &[], maybe_duplicate);
        for (expected, unknown) in [(2, true), (3, false)] {
            let batch = plan.start(2000, &mut new_id).remove(0);
            assert_eq!((members(&batch), batch.outcome_unknown), (vec![expected], unknown));
            plan.ended(&key("A"), Ended::Landed, 2000);
            plan.closed(&key("A"), &gone(&[expected]), &[], false);
        }
    }

    #[test]
    fn a_restart_sends_the_same_batch_first() {
        let mut plan = Plan::new(LIMITS);
        plan.resume([9; 16], vec![segment(3, "A", 1), segment(2, "A", 1)], true);
        plan.offer([segment(1, "A", 1)]);
        let mut new_id = ids();
        let batch = plan.start(0, &mut new_id).remove(0);
        assert_eq!((batch.id, members(&batch), batch.repeated, batch.outcome_unknown), ([9; 16], vec![3, 2], true, true));
    }
}
