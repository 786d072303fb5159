//! The body of a Checkpoint frame: the fold at one LSN, and the open segments with the length that is
//! durable. With it, journal files that hold only older frames may go.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::frames::{self, SealedRecord};
use super::state::{Database, DeadRecord, Doom, Sender, State};
use crate::codec::{Cursor, Decode, Malformed, Put};
use crate::types::{Counts, SegmentId, TableKey};

/// Version of this encoding; readers know all older ones.
const VERSION: u8 = 3;
/// Version that did not know which dead letters there are.
const WITHOUT_DEAD_LETTERS: u8 = 1;
/// Version that did not know when they died, and which of those that were retried had been counted.
const WITHOUT_TIMES: u8 = 2;

/// A segment that is still being appended to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenRecord {
    pub(crate) table: TableKey,
    pub(crate) first_lsn: u64,
    pub(crate) id: SegmentId,
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
    pub(crate) digest: u64,
    pub(crate) created_ms: u64,
    pub(crate) layout: Vec<u32>,
}

/// What a Checkpoint frame holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// All frames up to this one are folded in.
    pub(crate) as_of: u64,
    pub(crate) state: State,
    pub(crate) open: Vec<OpenRecord>,
}

impl Checkpoint {
    pub(crate) fn encode(as_of: u64, state: &State, open: &[OpenRecord]) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + state.counts.len() * 96 + state.sealed.len() * 96);
        out.put_u8(VERSION);
        out.put_varint(as_of);
        put_state(&mut out, state);
        out.put_varint(open.len() as u64);
        for record in open {
            // The same fields as a sealed segment, which has a number besides.
            let record = record.clone();
            SealedRecord {
                id: record.id,
                table: record.table,
                first_lsn: record.first_lsn,
                last_lsn: as_of,
                number: 0,
                bytes: record.bytes,
                rows: record.rows,
                digest: record.digest,
                created_ms: record.created_ms,
                layout: record.layout,
            }
            .put(&mut out);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Decode<Checkpoint> {
        let mut c = Cursor::new(bytes);
        let version = c.u8()?;
        if !(WITHOUT_DEAD_LETTERS..=VERSION).contains(&version) {
            return Err(Malformed);
        }
        let as_of = c.varint()?;
        let mut state = state(&mut c)?;
        if version > WITHOUT_DEAD_LETTERS {
            dead_letters(&mut c, &mut state, version)?;
        }
        let mut open = Vec::new();
        for _ in 0..c.count()? {
            let SealedRecord { id, table, first_lsn, bytes, rows, digest, created_ms, layout, .. } = SealedRecord::read(&mut c)?;
            open.push(OpenRecord { table, first_lsn, id, bytes, rows, digest, created_ms, layout });
        }
        if c.is_empty() { Ok(Checkpoint { as_of, state, open }) } else { Err(Malformed) }
    }
}

fn put_state(out: &mut Vec<u8>, state: &State) {
    out.extend_from_slice(&state.sender);
    for value in [state.conflicts, state.resets, state.last_id] {
        out.put_varint(value);
    }
    let counts: BTreeMap<_, _> = state.counts.iter().collect();
    out.put_varint(counts.len() as u64);
    for (table, c) in counts {
        frames::put_table(out, table);
        for value in [c.accepted, c.forwarded, c.landed, c.dead_lettered, c.quarantined, c.dropped, c.on_disk, c.maybe_duplicate] {
            out.put_varint(value);
        }
    }
    out.put_varint(state.databases.len() as u64);
    for (name, database) in &state.databases {
        out.put_bytes(name.as_bytes());
        out.put_varint(database.next_number);
    }
    out.put_varint(state.filtered.len() as u64);
    for ((database, reason), rows) in &state.filtered {
        out.put_bytes(database.as_bytes());
        out.put_bytes(reason.as_bytes());
        out.put_varint(*rows);
    }
    out.put_varint(state.sealed.len() as u64);
    state.sealed.values().for_each(|record| record.put(out));
    out.put_varint(state.senders.len() as u64);
    for ((id, database), sender) in &state.senders {
        out.extend_from_slice(id);
        out.put_bytes(database.as_bytes());
        out.put_varint(sender.floor);
        out.put_varint(sender.seen_ms);
        out.put_varint(sender.digests.len() as u64);
        for (number, digest) in &sender.digests {
            out.put_varint(*number);
            out.put_u64(*digest);
        }
    }
    let marks: Vec<_> = state.marks.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    frames::put_marks(out, &marks);
    out.put_varint(state.batches.len() as u64);
    state.batches.values().for_each(|batch| frames::put_batch(out, batch));
    out.put_varint(state.doomed.len() as u64);
    for (id, (table, doom)) in &state.doomed {
        out.put_u64(id.0);
        frames::put_table(out, table);
        out.put_u8(match doom {
            Doom::Remove => 0,
            Doom::Bury => 1,
            Doom::Discard => 2,
        });
    }
    out.put_varint(state.dead.len() as u64);
    for record in state.dead.values() {
        record.segment.put(out);
        out.put_u8(u8::from(record.maybe_duplicate));
        out.put_bytes(record.reason.as_bytes());
        // 0 is not known.
        out.put_varint(record.died_ms.unwrap_or_default());
    }
    frames::put_ids(out, state.revived.keys());
    state.revived.values().for_each(|counted| out.put_u8(u8::from(*counted)));
}

fn dead_letters(c: &mut Cursor<'_>, state: &mut State, version: u8) -> Decode<()> {
    let with_times = version > WITHOUT_TIMES;
    for _ in 0..c.count()? {
        let segment = SealedRecord::read(c)?;
        let (maybe_duplicate, reason) = (c.u8()? != 0, c.text()?.to_owned());
        let died_ms = if with_times { Some(c.varint()?).filter(|ms| *ms > 0) } else { None };
        state.bury(DeadRecord { segment, reason, maybe_duplicate, died_ms });
    }
    for id in frames::ids(c)? {
        state.revived.insert(id, false);
    }
    if with_times {
        for counted in state.revived.values_mut() {
            *counted = c.u8()? != 0;
        }
    }
    Ok(())
}

fn state(c: &mut Cursor<'_>) -> Decode<State> {
    let mut state = State { sender: c.array()?, ..State::default() };
    (state.conflicts, state.resets, state.last_id) = (c.varint()?, c.varint()?, c.varint()?);
    for _ in 0..c.count()? {
        let table = frames::table(c)?;
        state.counts.insert(table, counts(c)?);
    }
    for _ in 0..c.count()? {
        let name: Arc<str> = c.text()?.into();
        state.databases.insert(name, Database { next_number: c.varint()?, ..Database::default() });
    }
    for table in state.counts.keys() {
        state.databases.get_mut(&table.database).ok_or(Malformed)?.tables += 1;
    }
    for _ in 0..c.count()? {
        let key = (Arc::from(c.text()?), Arc::from(c.text()?));
        state.filtered.insert(key, c.varint()?);
    }
    for _ in 0..c.count()? {
        let record = SealedRecord::read(c)?;
        state.seal(&record);
    }
    for _ in 0..c.count()? {
        let key = (c.array()?, Arc::from(c.text()?));
        let mut sender = Sender { floor: c.varint()?, seen_ms: c.varint()?, ..Sender::default() };
        for _ in 0..c.count()? {
            sender.digests.insert(c.varint()?, c.u64()?);
        }
        state.senders.insert(key, sender);
    }
    state.marks = frames::marks(c)?.into_iter().collect();
    for _ in 0..c.count()? {
        let batch = frames::batch(c)?;
        state.batches.insert(batch.id, batch);
    }
    for _ in 0..c.count()? {
        let id = SegmentId(c.u64()?);
        let table = frames::table(c)?;
        let doom = match c.u8()? {
            0 => Doom::Remove,
            1 => Doom::Bury,
            2 => Doom::Discard,
            _ => return Err(Malformed),
        };
        state.doomed.insert(id, (table, doom));
    }
    Ok(state)
}

fn counts(c: &mut Cursor<'_>) -> Decode<Counts> {
    Ok(Counts {
        accepted: c.varint()?,
        forwarded: c.varint()?,
        landed: c.varint()?,
        dead_lettered: c.varint()?,
        quarantined: c.varint()?,
        dropped: c.varint()?,
        on_disk: c.varint()?,
        maybe_duplicate: c.varint()?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn record(id: u64, number: u64) -> SealedRecord {
        SealedRecord {
            id: SegmentId(id),
            table: TableKey::new("D", "T", ""),
            first_lsn: 1,
            last_lsn: 2,
            number,
            bytes: 10,
            rows: 3,
            digest: 7,
            created_ms: 9,
            layout: Vec::new(),
        }
    }

    /// One dead letter that was retried, and one that is dead.
    fn state_with_dead_letters() -> State {
        let mut state = State::default();
        state.seal(&record(5, 1));
        let letter = DeadRecord { segment: record(6, 2), reason: "bad".to_owned(), maybe_duplicate: true, died_ms: Some(77) };
        state.bury(letter);
        state.revived.insert(SegmentId(5), true);
        state
    }

    #[test]
    fn dead_letters_are_read_as_they_were_written() {
        let state = state_with_dead_letters();
        let read = Checkpoint::decode(&Checkpoint::encode(4, &state, &[])).unwrap();
        assert_eq!((read.as_of, &read.state.dead, &read.state.revived), (4, &state.dead, &state.revived));
    }

    /// The layout before the time of death was kept, put together here.
    #[test]
    fn the_form_without_times_is_read() {
        let mut old = vec![2, 4];
        old.extend([0; 16]);
        // Conflicts, resets, the last id; no table; one database; nothing filtered.
        old.extend([0, 0, 5, 0, 1, 1, b'D', 2, 0]);
        old.push(1);
        record(5, 1).put(&mut old);
        // No sender, mark, batch, or file that is out of its place.
        old.extend([0, 0, 0, 0]);
        old.push(1);
        record(6, 2).put(&mut old);
        old.extend([1, 3, b'b', b'a', b'd']);
        old.extend([1, 5, 0, 0, 0, 0, 0, 0, 0]);
        // No segment is open.
        old.push(0);
        let read = Checkpoint::decode(&old).unwrap();
        let letter = &read.state.dead[&SegmentId(6)];
        assert_eq!((letter.reason.as_str(), letter.maybe_duplicate, letter.died_ms), ("bad", true, None));
        assert_eq!(read.state.revived, BTreeMap::from([(SegmentId(5), false)]));
    }
}
