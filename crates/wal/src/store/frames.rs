//! What the store's journal frames say, and their encoding.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::codec::{Cursor, Decode, Malformed, Put};
use crate::types::{BatchRecord, BatchState, Outcome, Receipt, SegmentId, Settlement, TableKey};

pub(crate) const DATA: u8 = 1;
pub(crate) const SEALED: u8 = 2;
pub(crate) const ADOPTED: u8 = 3;
pub(crate) const SETTLED: u8 = 4;
pub(crate) const BATCH: u8 = 5;
pub(crate) const CHECKPOINT: u8 = 6;
pub(crate) const DAMAGED: u8 = 7;
pub(crate) const REVIVED: u8 = 8;
pub(crate) const DISCARDED: u8 = 9;

/// The directory of a Data frame: everything about a request but its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DataHead {
    pub(crate) time_ms: u64,
    pub(crate) sections: Vec<SectionHead>,
    pub(crate) filtered: Vec<(Arc<str>, Arc<str>, u64)>,
    pub(crate) receipts: Vec<Receipt>,
    pub(crate) marks: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Rows of one table in a Data frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SectionHead {
    pub(crate) table: TableKey,
    pub(crate) header: Arc<[u8]>,
    pub(crate) sample_type: u8,
    /// The body is ready blocks, not rows.
    pub(crate) blocks: bool,
    pub(crate) rows: u32,
    /// Raw lengths of its pieces in the body, in order; none spans two parts.
    pub(crate) pieces: PieceLens,
}

/// Nearly always one: not worth an allocation.
pub(crate) type PieceLens = SmallVec<[u32; 1]>;

/// Strings that repeat in a frame are written once.
#[derive(Default)]
struct Strings<'a> {
    all: Vec<&'a [u8]>,
}

impl<'a> Strings<'a> {
    /// Only the last few are searched: databases, schemas and headers repeat, table names do not.
    fn index(&mut self, text: &'a [u8]) -> u64 {
        const SEARCHED: usize = 16;
        let from = self.all.len().saturating_sub(SEARCHED);
        match self.all[from..].iter().rposition(|known| *known == text) {
            Some(found) => (from + found) as u64,
            None => {
                self.all.push(text);
                self.all.len() as u64 - 1
            }
        }
    }
}

impl DataHead {
    /// Marks alone. A sender writes down where segments go before they leave, so without that no room would come
    /// free on a full disk.
    pub(crate) fn is_note(&self) -> bool {
        self.sections.is_empty() && self.filtered.is_empty() && self.receipts.is_empty()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut strings = Strings::default();
        let mut rest = Vec::with_capacity(64 + self.sections.len() * 16);
        rest.put_varint(self.sections.len() as u64);
        for section in &self.sections {
            for text in [&section.table.database, &section.table.schema] {
                rest.put_varint(strings.index(text.as_bytes()));
            }
            rest.put_varint(strings.index(&section.header));
            rest.put_bytes(section.table.table.as_bytes());
            rest.put_u8(section.sample_type);
            rest.put_u8(u8::from(section.blocks));
            rest.put_varint(u64::from(section.rows));
            rest.put_varint(section.pieces.len() as u64);
            section.pieces.iter().for_each(|len| rest.put_varint(u64::from(*len)));
        }
        rest.put_varint(self.filtered.len() as u64);
        for (database, reason, rows) in &self.filtered {
            rest.put_varint(strings.index(database.as_bytes()));
            rest.put_varint(strings.index(reason.as_bytes()));
            rest.put_varint(*rows);
        }
        put_receipts(&mut rest, &self.receipts);
        put_marks(&mut rest, &self.marks);
        let mut out = Vec::with_capacity(rest.len() + 256);
        out.put_varint(self.time_ms);
        out.put_varint(strings.all.len() as u64);
        strings.all.iter().for_each(|text| out.put_bytes(text));
        out.extend_from_slice(&rest);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Decode<DataHead> {
        let mut c = Cursor::new(bytes);
        let time_ms = c.varint()?;
        let mut strings: Vec<Arc<[u8]>> = Vec::new();
        for _ in 0..c.count()? {
            strings.push(c.bytes()?.into());
        }
        let mut head = DataHead { time_ms, ..DataHead::default() };
        for _ in 0..c.count()? {
            let database = shared_text(&strings, c.size()?)?;
            let schema = shared_text(&strings, c.size()?)?;
            let header = strings.get(c.size()?).ok_or(Malformed)?.clone();
            let table = TableKey { database, table: c.text()?.into(), schema };
            let (sample_type, blocks) = (c.u8()?, c.u8()? != 0);
            let rows = u32::try_from(c.varint()?).map_err(|_| Malformed)?;
            let mut pieces = PieceLens::new();
            for _ in 0..c.count()? {
                pieces.push(u32::try_from(c.varint()?).map_err(|_| Malformed)?);
            }
            head.sections.push(SectionHead { table, header, sample_type, blocks, rows, pieces });
        }
        for _ in 0..c.count()? {
            let database = shared_text(&strings, c.size()?)?;
            let reason = shared_text(&strings, c.size()?)?;
            head.filtered.push((database, reason, c.varint()?));
        }
        head.receipts = receipts(&mut c)?;
        head.marks = marks(&mut c)?;
        Ok(head)
    }
}

fn shared_text(strings: &[Arc<[u8]>], index: usize) -> Decode<Arc<str>> {
    let bytes = strings.get(index).ok_or(Malformed)?;
    Ok(std::str::from_utf8(bytes).map_err(|_| Malformed)?.into())
}

fn put_receipts(out: &mut Vec<u8>, receipts: &[Receipt]) {
    out.put_varint(receipts.len() as u64);
    for receipt in receipts {
        out.extend_from_slice(&receipt.sender);
        out.put_bytes(receipt.database.as_bytes());
        out.put_varint(receipt.number);
        out.put_u64(receipt.digest);
        out.put_varint(receipt.floor);
    }
}

fn receipts(c: &mut Cursor<'_>) -> Decode<Vec<Receipt>> {
    let mut receipts = Vec::new();
    for _ in 0..c.count()? {
        receipts.push(Receipt {
            sender: c.array()?,
            database: c.text()?.into(),
            number: c.varint()?,
            digest: c.u64()?,
            floor: c.varint()?,
        });
    }
    Ok(receipts)
}

pub(crate) fn put_marks<'a>(out: &mut Vec<u8>, marks: impl IntoIterator<Item = &'a (Vec<u8>, Vec<u8>), IntoIter: ExactSizeIterator>) {
    let marks = marks.into_iter();
    out.put_varint(marks.len() as u64);
    for (key, value) in marks {
        out.put_bytes(key);
        out.put_bytes(value);
    }
}

pub(crate) fn marks(c: &mut Cursor<'_>) -> Decode<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut marks = Vec::new();
    for _ in 0..c.count()? {
        marks.push((c.bytes()?.to_vec(), c.bytes()?.to_vec()));
    }
    Ok(marks)
}

pub(crate) fn put_table(out: &mut Vec<u8>, table: &TableKey) {
    for text in [&table.database, &table.table, &table.schema] {
        out.put_bytes(text.as_bytes());
    }
}

pub(crate) fn table(c: &mut Cursor<'_>) -> Decode<TableKey> {
    Ok(TableKey::new(c.text()?, c.text()?, c.text()?))
}

/// A segment became immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SealedRecord {
    pub(crate) id: SegmentId,
    pub(crate) table: TableKey,
    /// It holds the table's rows of the frames from this one
    pub(crate) first_lsn: u64,
    /// up to this one.
    pub(crate) last_lsn: u64,
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
    pub(crate) digest: u64,
    pub(crate) created_ms: u64,
    /// Sections per block, for blocks made of rows: with it the same file can be made again.
    pub(crate) layout: Vec<u32>,
}

impl SealedRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        self.put(&mut out);
        out
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.id.0);
        put_table(out, &self.table);
        for value in [self.first_lsn, self.last_lsn, self.number, self.bytes, self.rows, self.created_ms] {
            out.put_varint(value);
        }
        out.put_u64(self.digest);
        out.put_varint(self.layout.len() as u64);
        self.layout.iter().for_each(|pieces| out.put_varint(u64::from(*pieces)));
    }

    pub(crate) fn read(c: &mut Cursor<'_>) -> Decode<SealedRecord> {
        let id = SegmentId(c.u64()?);
        let table = table(c)?;
        let [first_lsn, last_lsn, number] = [c.varint()?, c.varint()?, c.varint()?];
        let [bytes, rows, created_ms] = [c.varint()?, c.varint()?, c.varint()?];
        let digest = c.u64()?;
        let mut layout = Vec::new();
        for _ in 0..c.count()? {
            layout.push(u32::try_from(c.varint()?).map_err(|_| Malformed)?);
        }
        Ok(SealedRecord { id, table, first_lsn, last_lsn, number, bytes, rows, digest, created_ms, layout })
    }
}

/// A whole segment file came at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdoptedRecord {
    pub(crate) segment: SealedRecord,
    pub(crate) time_ms: u64,
    pub(crate) receipts: Vec<Receipt>,
    pub(crate) marks: Vec<(Vec<u8>, Vec<u8>)>,
    /// File of the reference whose readable blocks it holds; it goes when this frame is durable.
    pub(crate) replaces: String,
    /// Rows of unreadable blocks of that file.
    pub(crate) lost: u64,
}

impl AdoptedRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.segment.encode();
        out.put_varint(self.time_ms);
        put_receipts(&mut out, &self.receipts);
        put_marks(&mut out, &self.marks);
        out.put_bytes(self.replaces.as_bytes());
        out.put_varint(self.lost);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Decode<AdoptedRecord> {
        let mut c = Cursor::new(bytes);
        Ok(AdoptedRecord {
            segment: SealedRecord::read(&mut c)?,
            time_ms: c.varint()?,
            receipts: receipts(&mut c)?,
            marks: marks(&mut c)?,
            replaces: c.text()?.to_owned(),
            lost: c.varint()?,
        })
    }
}

/// With the time. Older frames end before it.
pub(crate) fn encode_settled(items: &[Settlement], time_ms: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(items.len() * 24 + 8);
    out.put_varint(items.len() as u64);
    for item in items {
        out.put_u64(item.segment.0);
        out.put_u8(match item.outcome {
            Outcome::Forwarded => 0,
            Outcome::Landed => 1,
            Outcome::DeadLettered => 2,
            Outcome::Dropped => 3,
        });
        out.put_u8(u8::from(item.maybe_duplicate));
        out.put_bytes(item.reason.as_bytes());
    }
    out.put_varint(time_ms);
    out
}

pub(crate) fn decode_settled(bytes: &[u8]) -> Decode<(Vec<Settlement>, Option<u64>)> {
    let mut c = Cursor::new(bytes);
    let mut items = Vec::new();
    for _ in 0..c.count()? {
        items.push(Settlement {
            segment: SegmentId(c.u64()?),
            outcome: match c.u8()? {
                0 => Outcome::Forwarded,
                1 => Outcome::Landed,
                2 => Outcome::DeadLettered,
                3 => Outcome::Dropped,
                _ => return Err(Malformed),
            },
            maybe_duplicate: c.u8()? != 0,
            reason: c.text()?.to_owned(),
        });
    }
    let time_ms = if c.is_empty() { None } else { Some(c.varint()?) };
    Ok((items, time_ms))
}

pub(crate) fn put_batch(out: &mut Vec<u8>, batch: &BatchRecord) {
    out.extend_from_slice(&batch.id);
    out.put_u8(match batch.state {
        BatchState::Batched => 0,
        BatchState::Uploaded => 1,
        BatchState::Queued => 2,
        BatchState::Retry => 3,
    });
    out.put_varint(batch.segments.len() as u64);
    batch.segments.iter().for_each(|id| out.put_u64(id.0));
    out.put_bytes(&batch.detail);
}

pub(crate) fn batch(c: &mut Cursor<'_>) -> Decode<BatchRecord> {
    let id = c.array()?;
    let state = match c.u8()? {
        0 => BatchState::Batched,
        1 => BatchState::Uploaded,
        2 => BatchState::Queued,
        3 => BatchState::Retry,
        _ => return Err(Malformed),
    };
    let mut segments = Vec::new();
    for _ in 0..c.count()? {
        segments.push(SegmentId(c.u64()?));
    }
    Ok(BatchRecord { id, state, segments, detail: c.bytes()?.to_vec() })
}

/// Dead letters wait for their destination again, under new numbers.
pub(crate) fn encode_revived(items: &[(SegmentId, u64)]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_varint(items.len() as u64);
    for (segment, number) in items {
        out.put_u64(segment.0);
        out.put_varint(*number);
    }
    out
}

pub(crate) fn decode_revived(bytes: &[u8]) -> Decode<Vec<(SegmentId, u64)>> {
    let mut c = Cursor::new(bytes);
    let mut items = Vec::new();
    for _ in 0..c.count()? {
        items.push((SegmentId(c.u64()?), c.varint()?));
    }
    Ok(items)
}

/// Dead letters are given up.
pub(crate) fn encode_discarded(segments: &[SegmentId]) -> Vec<u8> {
    let mut out = Vec::new();
    put_ids(&mut out, segments);
    out
}

pub(crate) fn decode_discarded(bytes: &[u8]) -> Decode<Vec<SegmentId>> {
    ids(&mut Cursor::new(bytes))
}

pub(crate) fn put_ids<'a>(out: &mut Vec<u8>, segments: impl IntoIterator<Item = &'a SegmentId, IntoIter: ExactSizeIterator>) {
    let segments = segments.into_iter();
    out.put_varint(segments.len() as u64);
    segments.for_each(|id| out.put_u64(id.0));
}

pub(crate) fn ids(c: &mut Cursor<'_>) -> Decode<Vec<SegmentId>> {
    let mut segments = Vec::new();
    for _ in 0..c.count()? {
        segments.push(SegmentId(c.u64()?));
    }
    Ok(segments)
}

/// Blocks of a sealed segment turned out unreadable; `left` rows are not.
pub(crate) fn encode_damaged(segment: SegmentId, left: u64) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u64(segment.0);
    out.put_varint(left);
    out
}

pub(crate) fn decode_damaged(bytes: &[u8]) -> Decode<(SegmentId, u64)> {
    let mut c = Cursor::new(bytes);
    Ok((SegmentId(c.u64()?), c.varint()?))
}
