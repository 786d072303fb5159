//! The fold: everything the store knows that is not rows. Frames are applied by the same functions when
//! they are committed and when they are read back.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::frames::{AdoptedRecord, DataHead, SealedRecord};
use crate::types::{BatchRecord, Counts, Known, Ledger, Outcome, Receipt, SegmentId, Settlement, TableKey, TableMap};

/// Numbers below a sender's floor that are still compared, for requests that come late.
const REMEMBERED_BELOW_FLOOR: u64 = 64;
/// Digests remembered per sender and database. Above it the lowest number becomes the floor, so that what
/// comes late below is stored again and counted.
const MAX_REMEMBERED: usize = 1 << 16;
/// A sender that was silent for this long is forgotten.
pub(crate) const SENDER_EXPIRY_MS: u64 = 7 * 24 * 3600 * 1000;

/// The fold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) sender: [u8; 16],
    pub(crate) counts: TableMap<Counts>,
    pub(crate) databases: BTreeMap<Arc<str>, Database>,
    pub(crate) filtered: BTreeMap<(Arc<str>, Arc<str>), u64>,
    pub(crate) conflicts: u64,
    pub(crate) resets: u64,
    pub(crate) sealed: BTreeMap<SegmentId, SealedRecord>,
    pub(crate) senders: BTreeMap<([u8; 16], Arc<str>), Sender>,
    pub(crate) marks: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) batches: BTreeMap<[u8; 16], BatchRecord>,
    pub(crate) dead: BTreeMap<SegmentId, DeadRecord>,
    /// Sealed segments that were dead letters: their files are where they were then. With whether their rows were counted
    /// as perhaps stored elsewhere, which happens once.
    pub(crate) revived: BTreeMap<SegmentId, bool>,
    /// Settled segments whose file is not where it belongs yet.
    pub(crate) doomed: BTreeMap<SegmentId, (TableKey, Doom)>,
    /// Highest id given to a segment.
    pub(crate) last_id: u64,
}

/// What is to become of the file of a settled segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doom {
    /// It goes.
    Remove,
    /// It goes to `dead/`.
    Bury,
    /// It goes, from `dead/` or wherever it is.
    Discard,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadRecord {
    pub(crate) segment: SealedRecord,
    pub(crate) reason: String,
    pub(crate) maybe_duplicate: bool,
    /// Not known where an older version wrote it.
    pub(crate) died_ms: Option<u64>,
}

/// Of one database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Database {
    /// Number of the next sealed segment.
    pub(crate) next_number: u64,
    /// Sealed, unsettled segments by number.
    pub(crate) waiting: BTreeMap<u64, SegmentId>,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Bytes of dead letters.
    pub(crate) dead_bytes: u64,
    /// Tables that ever had rows.
    pub(crate) tables: usize,
}

/// Of one sender and database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) floor: u64,
    pub(crate) digests: BTreeMap<u64, u64>,
    pub(crate) seen_ms: u64,
}

impl State {
    /// A request was committed. `lost` has the rows of each section that could not be read back.
    pub(crate) fn data(&mut self, head: &DataHead, lost: &[u64]) {
        for (i, section) in head.sections.iter().enumerate() {
            let rows = u64::from(section.rows);
            let lost = lost.get(i).copied().unwrap_or(0).min(rows);
            let add = |counts: &mut Counts| {
                counts.accepted += rows;
                counts.quarantined += lost;
                counts.on_disk += rows - lost;
            };
            // One lookup for a table that is known: this runs for every section of every request.
            match self.counts.get_mut(&section.table) {
                Some(counts) => add(counts),
                None => add(self.table(&section.table)),
            }
        }
        for (database, reason, rows) in &head.filtered {
            *self.filtered.entry((database.clone(), reason.clone())).or_default() += rows;
        }
        self.receipts(&head.receipts, head.time_ms);
        self.set_marks(&head.marks);
    }

    fn table(&mut self, table: &TableKey) -> &mut Counts {
        if !self.counts.contains_key(table) {
            self.database(&table.database).tables += 1;
            self.counts.insert(table.clone(), Counts::default());
        }
        self.counts.entry(table.clone()).or_default()
    }

    fn database(&mut self, database: &Arc<str>) -> &mut Database {
        self.databases.entry(database.clone()).or_insert_with(|| Database { next_number: 1, ..Database::default() })
    }

    fn receipts(&mut self, receipts: &[Receipt], time_ms: u64) {
        for receipt in receipts {
            if self.known(&receipt.sender, &receipt.database, receipt.number, receipt.digest) == Known::Different {
                self.conflicts += 1;
            }
            let sender = self.senders.entry((receipt.sender, receipt.database.clone())).or_default();
            sender.digests.insert(receipt.number, receipt.digest);
            sender.floor = sender.floor.max(receipt.floor);
            sender.seen_ms = sender.seen_ms.max(time_ms);
            let keep = sender.floor.saturating_sub(REMEMBERED_BELOW_FLOOR);
            while sender.digests.first_key_value().is_some_and(|(number, _)| *number < keep) {
                sender.digests.pop_first();
            }
            while sender.digests.len() > MAX_REMEMBERED
                && let Some((lowest, _)) = sender.digests.pop_first()
            {
                sender.floor = sender.floor.max(lowest.saturating_add(1));
            }
        }
    }

    /// What is remembered of a number. A number below the floor that is not remembered was settled by its
    /// sender long ago: only a restored directory sends it again, with other rows.
    pub(crate) fn known(&self, sender: &[u8; 16], database: &str, number: u64, digest: u64) -> Known {
        let Some(sender) = self.senders.get(&(*sender, Arc::from(database))) else { return Known::Unknown };
        match sender.digests.get(&number) {
            Some(known) if *known == digest => Known::Same,
            Some(_) => Known::Different,
            None if number < sender.floor => Known::Different,
            None => Known::Unknown,
        }
    }

    fn set_marks(&mut self, marks: &[(Vec<u8>, Vec<u8>)]) {
        for (key, value) in marks {
            if value.is_empty() {
                self.marks.remove(key);
            } else {
                self.marks.insert(key.clone(), value.clone());
            }
        }
    }

    /// The number the next segment of `database` gets.
    pub(crate) fn next_number(&self, database: &Arc<str>) -> u64 {
        self.databases.get(database).map_or(1, |known| known.next_number)
    }

    /// Sealed, unsettled segments of a database.
    pub(crate) fn waiting(&self, database: &str) -> usize {
        self.databases.get(database).map_or(0, |known| known.waiting.len())
    }

    /// A segment was sealed.
    pub(crate) fn seal(&mut self, record: &SealedRecord) {
        let database = self.database(&record.table.database);
        database.next_number = database.next_number.max(record.number.saturating_add(1));
        database.waiting.insert(record.number, record.id);
        database.bytes += record.bytes;
        self.last_id = self.last_id.max(record.id.0);
        // The layout served to make the file again; whoever reads the state has the file.
        self.sealed.insert(record.id, SealedRecord { layout: Vec::new(), ..record.clone() });
    }

    /// The segment of that number was lost; the number is not given again.
    pub(crate) fn skip_number(&mut self, database: &Arc<str>, number: u64) {
        let database = self.database(database);
        database.next_number = database.next_number.max(number.saturating_add(1));
    }

    /// A whole segment was adopted.
    pub(crate) fn adopt(&mut self, record: &AdoptedRecord) {
        let counts = self.table(&record.segment.table);
        counts.accepted += record.segment.rows + record.lost;
        counts.quarantined += record.lost;
        counts.on_disk += record.segment.rows;
        self.receipts(&record.receipts, record.time_ms);
        self.set_marks(&record.marks);
        self.seal(&record.segment);
    }

    /// Segments were settled; those not known any more are ignored.
    pub(crate) fn settle(&mut self, items: &[Settlement], time_ms: Option<u64>) {
        for item in items {
            let Some(record) = self.sealed.remove(&item.segment) else { continue };
            if let Some(database) = self.databases.get_mut(&record.table.database) {
                database.waiting.remove(&record.number);
                database.bytes = database.bytes.saturating_sub(record.bytes);
            }
            let counts = self.table(&record.table);
            counts.on_disk = counts.on_disk.saturating_sub(record.rows);
            match item.outcome {
                Outcome::Forwarded => counts.forwarded += record.rows,
                Outcome::Landed => counts.landed += record.rows,
                Outcome::DeadLettered => counts.dead_lettered += record.rows,
                Outcome::Dropped => counts.dropped += record.rows,
            }
            let revived = self.revived.remove(&item.segment);
            let counted = revived == Some(true);
            if item.maybe_duplicate && !counted {
                self.table(&record.table).maybe_duplicate += record.rows;
            }
            let doom = match item.outcome {
                Outcome::DeadLettered => Doom::Bury,
                _ if revived.is_some() => Doom::Discard,
                _ => Doom::Remove,
            };
            self.doomed.insert(item.segment, (record.table.clone(), doom));
            if doom == Doom::Bury {
                let (reason, maybe_duplicate) = (item.reason.clone(), item.maybe_duplicate || counted);
                self.bury(DeadRecord { segment: record, reason, maybe_duplicate, died_ms: time_ms });
            }
            for batch in self.batches.values_mut() {
                batch.segments.retain(|id| *id != item.segment);
            }
        }
        self.batches.retain(|_, batch| !batch.segments.is_empty());
    }

    /// A dead letter is known.
    pub(crate) fn bury(&mut self, record: DeadRecord) {
        self.database(&record.segment.table.database).dead_bytes += record.segment.bytes;
        self.dead.insert(record.segment.id, record);
    }

    fn exhume(&mut self, id: SegmentId) -> Option<DeadRecord> {
        let letter = self.dead.remove(&id)?;
        let record = &letter.segment;
        let database = self.database(&record.table.database);
        database.dead_bytes = database.dead_bytes.saturating_sub(record.bytes);
        let counts = self.table(&record.table);
        counts.dead_lettered = counts.dead_lettered.saturating_sub(record.rows);
        Some(letter)
    }

    /// Dead letters wait again. Those that are none any more are ignored.
    pub(crate) fn revive(&mut self, items: &[(SegmentId, u64)]) {
        for (id, number) in items {
            let Some(DeadRecord { segment: record, maybe_duplicate, .. }) = self.exhume(*id) else { continue };
            self.doomed.remove(id);
            self.revived.insert(*id, maybe_duplicate);
            self.table(&record.table).on_disk += record.rows;
            self.seal(&SealedRecord { number: *number, ..record });
        }
    }

    /// Dead letters are given up.
    pub(crate) fn discard(&mut self, segments: &[SegmentId]) {
        for id in segments {
            let Some(DeadRecord { segment: record, .. }) = self.exhume(*id) else { continue };
            self.table(&record.table).dropped += record.rows;
            self.doomed.insert(*id, (record.table, Doom::Discard));
        }
    }

    /// A batch was recorded. Members that are settled already do not count, and those of other batches leave these.
    pub(crate) fn batch(&mut self, record: &BatchRecord) {
        let mut record = record.clone();
        record.segments.retain(|id| self.sealed.contains_key(id));
        if !self.batches.contains_key(&record.id) {
            let members: HashSet<SegmentId> = record.segments.iter().copied().collect();
            self.batches.values_mut().for_each(|other| other.segments.retain(|id| !members.contains(id)));
            self.batches.retain(|_, other| !other.segments.is_empty());
        }
        if record.segments.is_empty() {
            self.batches.remove(&record.id);
        } else {
            self.batches.insert(record.id, record);
        }
    }

    /// Only `left` rows of a sealed segment are readable. Two readers may find the same damage.
    pub(crate) fn damaged(&mut self, id: SegmentId, left: u64) {
        let Some(record) = self.sealed.get_mut(&id) else { return };
        let lost = record.rows.saturating_sub(left);
        record.rows -= lost;
        let table = record.table.clone();
        self.lose(&table, lost);
    }

    /// Rows that were on disk are unreadable.
    pub(crate) fn lose(&mut self, table: &TableKey, rows: u64) {
        let counts = self.table(table);
        let rows = rows.min(counts.on_disk);
        counts.on_disk -= rows;
        counts.quarantined += rows;
    }

    /// Rows are there that no readable frame brought.
    pub(crate) fn find(&mut self, table: &TableKey, rows: u64) {
        if rows > 0 {
            let counts = self.table(table);
            counts.accepted += rows;
            counts.on_disk += rows;
        }
    }

    /// So many rows are dead letters at least.
    pub(crate) fn find_dead(&mut self, table: &TableKey, rows: u64) {
        let counts = self.table(table);
        let unknown = rows.saturating_sub(counts.dead_lettered);
        counts.accepted += unknown;
        counts.dead_lettered += unknown;
    }

    /// Lowest unsettled number of ours in `database`.
    pub(crate) fn floor(&self, database: &str) -> u64 {
        self.databases.get(database).map_or(1, |known| known.waiting.first_key_value().map_or(known.next_number, |(number, _)| *number))
    }

    /// Forgets senders that were silent too long.
    pub(crate) fn expire_senders(&mut self, now_ms: u64) {
        self.senders.retain(|_, sender| sender.seen_ms.saturating_add(SENDER_EXPIRY_MS) > now_ms);
    }

    pub(crate) fn sealed_bytes(&self) -> u64 {
        self.databases.values().map(|database| database.bytes).sum()
    }

    pub(crate) fn dead_bytes(&self) -> u64 {
        self.databases.values().map(|database| database.dead_bytes).sum()
    }

    pub(crate) fn ledger(&self) -> Ledger {
        Ledger {
            tables: self.counts.iter().map(|(table, counts)| (table.clone(), *counts)).collect(),
            filtered: self.filtered.clone(),
            conflicts: self.conflicts,
            resets: self.resets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: [u8; 16] = [1; 16];

    fn receive(state: &mut State, number: u64, floor: u64, time_ms: u64) {
        let receipt = Receipt { sender: SENDER, database: "Db".into(), number, digest: number * 3, floor };
        state.receipts(&[receipt], time_ms);
    }

    #[test]
    fn what_is_remembered_of_a_sender_is_exact_and_bounded() {
        let mut state = State::default();
        let most = MAX_REMEMBERED as u64;
        // The floor stands still: one segment is never settled.
        for number in 1..=most {
            receive(&mut state, number, 1, 0);
        }
        assert_eq!(state.known(&SENDER, "Db", 1, 3), Known::Same);
        receive(&mut state, most + 1, 1, 0);
        // The first is given up: it would be stored again, and counted.
        assert_eq!(state.known(&SENDER, "Db", 1, 3), Known::Different);
        assert_eq!(state.known(&SENDER, "Db", 2, 6), Known::Same);
        assert_eq!(state.known(&SENDER, "Db", most + 2, 0), Known::Unknown);
        // The floor moves: only a few below it are kept, for requests that come late.
        receive(&mut state, most + 2, most, 0);
        let held = state.senders.values().map(|sender| sender.digests.len() as u64).sum::<u64>();
        assert_eq!(held, REMEMBERED_BELOW_FLOOR + 3);
        assert_eq!(state.known(&SENDER, "Db", most - REMEMBERED_BELOW_FLOOR - 1, 0), Known::Different);
        assert_eq!(state.conflicts, 0);
        receive(&mut state, 7, most, 0);
        assert_eq!(state.conflicts, 1);
    }

    #[test]
    fn a_sender_that_is_silent_for_seven_days_is_forgotten() {
        let day = 24 * 3600 * 1000;
        let mut state = State::default();
        receive(&mut state, 5, 5, 1000);
        state.expire_senders(7 * day);
        assert_eq!(state.known(&SENDER, "Db", 5, 15), Known::Same);
        state.expire_senders(7 * day + 1000);
        assert_eq!(state.known(&SENDER, "Db", 5, 15), Known::Unknown);
    }
}
