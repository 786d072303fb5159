//! Which segments of a table are uploaded together, when, and what a failure means.
//!
//! A table has one batch at a time on its way, made of all that waits, oldest first, up to a number
//! and a size: what arrives meanwhile goes into the next one, so a backlog is worked off in large
//! batches. A batch keeps its identity until it has ended: after a transient failure, and after a
//! restart, exactly the same segments go again under the same id. Back-off is per table, or for the
//! whole database where the failure says so.

use std::collections::BTreeMap;
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
    /// It never works.
    Permanent {
        /// Why.
        reason: String,
        /// A part of the rows has arrived.
        partly: bool,
    },
    /// These segments cannot be read, and never will be; nothing was sent.
    Unreadable(Vec<(SegmentId, String)>),
}

/// What to do with the segments of an ended batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Settle all as landed.
    Landed,
    /// Settle these as dead letters, with the reason; the others, if any, wait again in new batches.
    Dead(Vec<(SegmentId, String)>),
    /// Dissolve the batch: its segments go again one by one, to find the bad one.
    Split,
    /// Nothing: the same batch goes again.
    Keep,
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
    alone: bool,
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

    /// Adds a batch of an earlier run, before its segments are offered.
    pub fn resume(&mut self, id: [u8; 16], segments: Vec<SegmentInfo>) {
        let Some(first) = segments.first() else { return };
        let table = first.table.clone();
        let batch = Batch { id, table: table.clone(), segments, repeated: true, outcome_unknown: false };
        self.tables.entry(table).or_default().resumed.push(batch);
    }

    /// Adds segments. The caller offers each one once.
    pub fn offer(&mut self, segments: impl IntoIterator<Item = SegmentInfo>) {
        for info in segments {
            self.wait(info, false);
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

    /// The batches to upload now, tables with the oldest data first, each with whether it is new,
    /// and so to be recorded first. `new_id` makes identities.
    pub fn start(&mut self, now: u64, mut new_id: impl FnMut() -> [u8; 16]) -> Vec<Batch> {
        if self.away_until > now {
            return Vec::new();
        }
        let free = self.limits.concurrency.saturating_sub(self.flying);
        // After a failure of the database one batch tries first.
        let free = if self.failures > 0 { free.min(1usize.saturating_sub(self.flying)) } else { free };
        let mut due: Vec<(u64, TableKey)> = self.tables.iter().filter_map(|(key, table)| Some((table.due(now)?, key.clone()))).collect();
        due.sort();
        let limits = self.limits;
        let mut started = Vec::new();
        for (_, key) in due.into_iter().take(free) {
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
        let verdict = match self.tables.get_mut(table) {
            Some(state) => state.ended(&ended, now),
            None => return Verdict::Keep,
        };
        match &ended {
            Ended::Transient { database: true, retry_after, .. } => {
                self.away_until = now + pause(self.failures, *retry_after, now);
                self.failures += 1;
            }
            Ended::Landed | Ended::Permanent { .. } => self.failures = 0,
            _ => {}
        }
        verdict
    }

    /// The batch of a table is over: the segments still here wait again, alone if `alone`.
    pub fn closed(&mut self, table: &TableKey, gone: impl Fn(SegmentId) -> bool, alone: bool) {
        let Some(batch) = self.tables.get_mut(table).and_then(|t| t.batch.take()) else { return };
        for info in batch.batch.segments {
            if !gone(info.id) {
                self.wait(info, alone);
            }
        }
        if self.tables.get(table).is_some_and(|t| !t.has_work()) {
            self.tables.remove(table);
        }
    }

    fn wait(&mut self, info: SegmentInfo, alone: bool) {
        let table = self.tables.entry(info.table.clone()).or_default();
        table.waiting.insert((info.created_ms, info.id), Waiting { info, alone });
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
            true => Batch { id: new_id(), table: key.clone(), segments: self.take(limits), repeated: false, outcome_unknown: false },
        };
        if batch.segments.is_empty() {
            return None;
        }
        self.batch = Some(Running { batch: batch.clone(), phase: Phase::Flying });
        Some(batch)
    }

    fn take(&mut self, limits: Limits) -> Vec<SegmentInfo> {
        let mut taken: Vec<SegmentInfo> = Vec::new();
        let mut bytes = 0;
        while let Some(entry) = self.waiting.first_entry() {
            let alone = entry.get().alone;
            if alone && !taken.is_empty() {
                break;
            }
            let info = entry.remove().info;
            bytes += info.bytes;
            taken.push(info);
            if alone || taken.len() >= limits.max_segments || bytes >= limits.max_bytes {
                break;
            }
        }
        taken
    }

    fn ended(&mut self, ended: &Ended, now: u64) -> Verdict {
        let verdict = self.verdict(ended, now);
        if let Some(running) = &mut self.batch {
            running.phase = if verdict == Verdict::Keep { Phase::Again } else { Phase::Closing };
        }
        verdict
    }

    fn verdict(&mut self, ended: &Ended, now: u64) -> Verdict {
        let Some(running) = &mut self.batch else { return Verdict::Keep };
        match ended {
            Ended::Landed => {
                self.failures = 0;
                Verdict::Landed
            }
            Ended::Transient { database, retry_after, outcome_unknown } => {
                running.batch.outcome_unknown |= outcome_unknown;
                if !database {
                    self.away_until = now + pause(self.failures, *retry_after, now);
                    self.failures += 1;
                }
                Verdict::Keep
            }
            // Nothing of it has arrived, so its segments can go one by one.
            Ended::Permanent { partly: false, .. } if running.batch.segments.len() > 1 && !running.batch.outcome_unknown => Verdict::Split,
            Ended::Permanent { reason, .. } => {
                let all = running.batch.segments.iter().map(|s| (s.id, reason.clone()));
                Verdict::Dead(all.collect())
            }
            Ended::Unreadable(segments) => Verdict::Dead(segments.clone()),
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

    #[test]
    fn batches_are_cut_by_number_and_size_and_one_at_a_time() {
        let mut plan = Plan::new(LIMITS);
        plan.offer((1..=4).map(|i| segment(i, "A", 10)).chain([segment(5, "B", 999), segment(6, "B", 1), segment(7, "B", 1)]));
        let mut new_id = ids();
        let started = plan.start(0, &mut new_id);
        assert_eq!(started.iter().map(members).collect::<Vec<_>>(), [vec![1, 2, 3], vec![5, 6]]);
        assert!(plan.start(0, &mut new_id).is_empty());
        assert_eq!(plan.ended(&key("A"), Ended::Landed, 0), Verdict::Landed);
        // Until its end is durable it must neither go again nor be followed.
        assert!(plan.start(0, &mut new_id).is_empty());
        plan.closed(&key("A"), |_| true, false);
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

    #[test]
    fn a_sick_database_is_tried_with_one_batch() {
        let mut plan = Plan::new(LIMITS);
        let mut new_id = ids();
        plan.offer([segment(1, "A", 1), segment(2, "B", 1)]);
        assert_eq!(plan.start(0, &mut new_id).len(), 2);
        let down = Ended::Transient { database: true, retry_after: Some(Duration::from_secs(5)), outcome_unknown: true };
        plan.ended(&key("A"), down.clone(), 0);
        plan.ended(&key("B"), down, 0);
        assert!(plan.start(4999, &mut new_id).is_empty());
        let probe = plan.start(5000, &mut new_id);
        assert_eq!(probe.len(), 1);
        assert!(probe[0].outcome_unknown);
        plan.ended(&key("A"), Ended::Landed, 5001);
        plan.closed(&key("A"), |_| true, false);
        assert_eq!(plan.start(5001, &mut new_id).len(), 1);
    }

    #[test]
    fn the_bad_segment_is_found_by_splitting() {
        let mut plan = Plan::new(LIMITS);
        let mut new_id = ids();
        plan.offer([segment(1, "A", 1), segment(2, "A", 1)]);
        plan.start(0, &mut new_id);
        let bad = || Ended::Permanent { reason: "r".into(), partly: false };
        assert_eq!(plan.ended(&key("A"), bad(), 0), Verdict::Split);
        assert!(plan.start(0, &mut new_id).is_empty());
        plan.closed(&key("A"), |_| false, true);
        assert_eq!(members(&plan.start(0, &mut new_id)[0]), [1]);
        assert_eq!(plan.ended(&key("A"), bad(), 0), Verdict::Dead(vec![(SegmentId(1), "r".into())]));
        plan.closed(&key("A"), |id| id == SegmentId(1), false);
        assert_eq!(members(&plan.start(0, &mut new_id)[0]), [2]);
        assert_eq!(plan.pending(), 1);
    }

    #[test]
    fn a_restart_sends_the_same_batch_first() {
        let mut plan = Plan::new(LIMITS);
        plan.resume([9; 16], vec![segment(2, "A", 1)]);
        plan.offer([segment(1, "A", 1)]);
        let mut new_id = ids();
        let batch = plan.start(0, &mut new_id).remove(0);
        assert_eq!((batch.id, members(&batch), batch.repeated), ([9; 16], vec![2], true));
    }
}
