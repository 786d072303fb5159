//! Turns a request into a frame on the caller's thread, so that the commit thread only copies bytes.
//!
//! Small sections are packed together into parts of 64 KiB and compressed once; large ones become ready
//! blocks, which the segment later takes as they are.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::frames::{DATA, DataHead, PieceLens, SectionHead};
use super::pool::{SHARED_BYTES, Spare};
use crate::Refusal;
use crate::csv;
use crate::journal::frame::{Body, PART_RAW};
use crate::segment::{self, BlockMeta, FileName, MAX_BLOCK_BYTES, Scratch};
use crate::types::{Pieces, Request, Section, SectionBody, TableKey};

/// Rows of a section from this size on are made into blocks at once.
const LARGE: usize = 32 << 10;
/// Largest body of one frame, raw.
const MAX_BODY: usize = 256 << 20;

const _: () = assert!(PART_RAW == SHARED_BYTES, "a buffer holds a part");

/// A request that is ready to be written.
pub(crate) struct Staged {
    pub(crate) head: DataHead,
    pub(crate) body: Body,
    /// Of each section of the head: its rows or blocks.
    pub(crate) contents: Contents,
}

/// The rows or blocks of sections. Small ones lie side by side in the buffers they were packed in, which the commit
/// thread keeps as they are.
#[derive(Default)]
pub(crate) struct Contents {
    /// Every byte of them belongs to a section.
    pub(crate) buffers: Vec<Vec<u8>>,
    pub(crate) places: Vec<Place>,
}

/// Where a section is.
pub(crate) struct Place {
    pub(crate) buffer: usize,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Contents {
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Length of each section.
    pub(crate) fn lens(&self) -> impl Iterator<Item = usize> {
        self.places.iter().map(|place| place.len)
    }

    /// Memory that is held.
    fn held(&self) -> usize {
        self.buffers.iter().map(Vec::len).sum()
    }

    /// Adds a section with a buffer to itself.
    pub(crate) fn push(&mut self, content: Vec<u8>) {
        self.places.push(Place { buffer: self.buffers.len(), start: 0, len: content.len() });
        self.buffers.push(content);
    }
}

impl Staged {
    /// Stored size, which is also what its rows will take in segments, about.
    pub(crate) fn stored(&self) -> u64 {
        self.body.frame_len() as u64
    }

    /// Memory that it takes while it waits: the frame, and the rows for the buffers.
    pub(crate) fn held(&self) -> usize {
        self.body.frame_len() + self.contents.held()
    }
}

/// Checks a request, whose rows in pieces are `rows`, and encodes it, in buffers of `spare`.
pub(crate) fn stage(request: Request, rows: &Pieces, block_bytes: usize, time_ms: u64, spare: &Spare) -> Result<Staged, Refusal> {
    check_places(&request.sections, rows)?;
    let mut packer = Packer::new(&request.sections, rows, spare);
    let mut names = Names::default();
    let mut sections = Vec::with_capacity(request.sections.len());
    for section in request.sections {
        names.check(&section)?;
        packer.section(section, block_bytes, &mut sections)?;
    }
    if request.marks.iter().any(|(key, _)| key.is_empty()) {
        return Err(Refusal::Invalid("a mark has an empty key".into()));
    }
    let filtered = request.filtered.into_iter().map(|f| (f.database, Arc::from(f.reason), f.rows)).collect();
    let head = DataHead { time_ms, sections, filtered, receipts: request.receipts, marks: request.marks };
    let (mut body, contents) = packer.finish();
    body.kind = DATA;
    body.directory = head.encode();
    Ok(Staged { head, body, contents })
}

/// Checks names. The sections of a request mostly share database and schema, which are looked at once then.
#[derive(Default)]
struct Names {
    database: Option<Arc<str>>,
    schema: Option<Arc<str>>,
}

impl Names {
    fn check(&mut self, section: &Section) -> Result<(), Refusal> {
        let TableKey { database, table, schema } = &section.table;
        if !is_last(&self.database, database) {
            check_part(database, "database name")?;
            self.database = Some(database.clone());
        }
        check_part(table, "table name")?;
        if !schema.is_empty() && !is_last(&self.schema, schema) {
            check_part(schema, "schema hash")?;
            self.schema = Some(schema.clone());
        }
        if !section.header.is_empty() && section.header.last() != Some(&b'\n') {
            return Err(Refusal::Invalid(format!("the header line of {} does not end with a newline", section.table)));
        }
        Ok(())
    }
}

/// Checks that all pieces are there.
fn check_places(sections: &[Section], rows: &Pieces) -> Result<(), Refusal> {
    let is_within = |place: &Range<u32>| place.start <= place.end && place.end as usize <= rows.bytes.len();
    let is_there = |section: &Section| match &section.body {
        SectionBody::Pieces(places) => rows.places.get(places.clone()).is_some_and(|places| places.iter().all(is_within)),
        _ => true,
    };
    match sections.iter().find(|section| !is_there(section)) {
        Some(section) => Err(Refusal::Invalid(format!("rows of {} are missing", section.table))),
        None => Ok(()),
    }
}

fn is_last(last: &Option<Arc<str>>, name: &Arc<str>) -> bool {
    last.as_ref().is_some_and(|last| Arc::ptr_eq(last, name))
}

fn check_part(part: &str, what: &str) -> Result<(), Refusal> {
    if FileName::valid_part(part) { Ok(()) } else { Err(Refusal::Invalid(format!("{what} {part:?} cannot be part of a segment name"))) }
}

struct Packer<'s> {
    body: Body,
    rows: &'s Pieces,
    spare: &'s Spare,
    /// Raw bytes of the part that is being filled.
    part: Vec<u8>,
    /// Of the rows that are still to come, what goes into parts.
    small: usize,
    raw: usize,
    contents: Contents,
    scratch: Scratch,
}

impl<'s> Packer<'s> {
    fn new(sections: &[Section], rows: &'s Pieces, spare: &'s Spare) -> Packer<'s> {
        let small = |section: &Section| match &section.body {
            SectionBody::Rows(rows) => Some(rows.len()).filter(|len| *len < LARGE).unwrap_or(0),
            SectionBody::Pieces(places) => Some(rows.len(places)).filter(|len| *len < LARGE).unwrap_or(0),
            SectionBody::Blocks(_) => 0,
        };
        Packer {
            body: Body::default(),
            rows,
            spare,
            part: Vec::new(),
            small: sections.iter().map(small).sum(),
            raw: 0,
            contents: Contents { buffers: Vec::new(), places: Vec::with_capacity(sections.len()) },
            scratch: Scratch::default(),
        }
    }

    /// Adds a section, and its head to `heads`; nothing for one without rows.
    #[inline]
    fn section(&mut self, section: Section, block_bytes: usize, heads: &mut Vec<SectionHead>) -> Result<(), Refusal> {
        let Section { table, header, sample_type, rows, body } = section;
        let (blocks, pieces) = match body {
            SectionBody::Blocks(blocks) if blocks.is_empty() => return empty(&table, rows),
            SectionBody::Blocks(blocks) => (true, self.push_blocks(blocks)?),
            SectionBody::Pieces(places) => {
                let pieces = self.rows;
                match pieces.len(&places) {
                    0 => return empty(&table, rows),
                    len @ ..LARGE => (false, self.push_rows(pieces.of(&places), len)?),
                    len => {
                        let joined = joined(pieces, &places, len);
                        let blocks = self.encode_blocks(&header, sample_type, &joined, u64::from(rows), block_bytes)?;
                        (true, self.push_blocks(blocks)?)
                    }
                }
            }
            SectionBody::Rows(bytes) => match bytes.len() {
                0 => return empty(&table, rows),
                len if len < LARGE && len == self.small => (false, self.push_only(bytes)?),
                len @ ..LARGE => (false, self.push_rows([&bytes[..]].into_iter(), len)?),
                _ => {
                    let blocks = self.encode_blocks(&header, sample_type, &bytes, u64::from(rows), block_bytes)?;
                    (true, self.push_blocks(blocks)?)
                }
            },
        };
        heads.push(SectionHead { table, header, sample_type, blocks, rows, pieces });
        Ok(())
    }

    /// Adds rows of a small section.
    #[inline]
    fn push_rows<'r>(&mut self, rows: impl Iterator<Item = &'r [u8]>, len: usize) -> Result<PieceLens, Refusal> {
        self.count(len)?;
        if self.part.len() + len > PART_RAW {
            self.flush();
        }
        self.contents.places.push(Place { buffer: self.contents.buffers.len(), start: self.part.len(), len });
        if self.part.is_empty() {
            self.part = if self.small > PART_RAW / 2 { self.spare.take() } else { Vec::with_capacity(self.small) };
        }
        for piece in rows {
            self.part.extend_from_slice(piece);
        }
        self.small -= len;
        Ok(PieceLens::from_buf([len as u32]))
    }

    /// Adds the rows of the last small section. Where nothing else is in the part, their memory becomes it.
    fn push_only(&mut self, rows: Vec<u8>) -> Result<PieceLens, Refusal> {
        let len = rows.len();
        if !self.part.is_empty() {
            return self.push_rows([&rows[..]].into_iter(), len);
        }
        self.count(len)?;
        self.contents.places.push(Place { buffer: self.contents.buffers.len(), start: 0, len });
        self.part = rows;
        self.small = 0;
        Ok(PieceLens::from_buf([len as u32]))
    }

    #[inline]
    fn count(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.raw += bytes;
        if self.raw > MAX_BODY { Err(Refusal::Invalid("the request is too large: use a transfer".into())) } else { Ok(()) }
    }

    /// Blocks are compressed already: stored as they are, as many to a part as fit.
    fn push_blocks(&mut self, blocks: Vec<u8>) -> Result<PieceLens, Refusal> {
        self.count(blocks.len())?;
        self.flush();
        let mut pieces = PieceLens::new();
        let (mut start, mut end) = (0, 0);
        for block in segment::blocks_at(&blocks, 0) {
            let range = block.map_err(|damage| Refusal::Invalid(format!("blocks are damaged: {damage}")))?.range();
            if range.end - start > PART_RAW && end > start {
                self.body.push_verbatim(&blocks[start..end]);
                pieces.push((end - start) as u32);
                start = end;
            }
            end = range.end;
        }
        self.body.push_verbatim(&blocks[start..end]);
        pieces.push((end - start) as u32);
        self.contents.push(blocks);
        Ok(pieces)
    }

    fn flush(&mut self) {
        if !self.part.is_empty() {
            self.body.push_compressed(&self.part);
            self.contents.buffers.push(std::mem::take(&mut self.part));
        }
    }

    /// Cuts rows at ends of records into blocks.
    fn encode_blocks(
        &mut self,
        header: &[u8],
        sample_type: u8,
        rows: &[u8],
        expected: u64,
        block_bytes: usize,
    ) -> Result<Vec<u8>, Refusal> {
        let room = block_bytes.saturating_sub(header.len() + 8);
        let mut out = Vec::with_capacity(rows.len() / 4);
        let (mut start, mut end, mut count, mut total) = (0, 0, 0u32, 0u64);
        let mut emit = |start: usize, end: usize, count: u32| {
            let meta = BlockMeta { sample_type, rows: count };
            segment::encode_block_parts(&mut out, meta, header, &rows[start..end], &mut self.scratch);
        };
        for record in csv::Records::new(rows) {
            if record.len() + header.len() + 8 > MAX_BLOCK_BYTES {
                return Err(Refusal::Invalid(format!("a row has {} bytes", record.len())));
            }
            if count > 0 && end + record.len() - start > room {
                emit(start, end, count);
                (start, count) = (end, 0);
            }
            end += record.len();
            count += 1;
            total += 1;
        }
        emit(start, end, count);
        if total != expected {
            return Err(Refusal::Invalid(format!("{expected} rows are announced, {total} are there")));
        }
        Ok(out)
    }

    fn finish(mut self) -> (Body, Contents) {
        self.flush();
        (self.body, self.contents)
    }
}

/// The end of a section without bytes.
fn empty(table: &TableKey, rows: u32) -> Result<(), Refusal> {
    if rows == 0 { Ok(()) } else { Err(Refusal::Invalid(format!("{table} has no bytes"))) }
}

/// Rows as one run of bytes, which they mostly are.
fn joined<'r>(rows: &'r Pieces, places: &Range<usize>, len: usize) -> Cow<'r, [u8]> {
    let mut pieces = rows.of(places);
    match (pieces.next(), pieces.next()) {
        (Some(only), None) => Cow::Borrowed(only),
        _ => {
            let mut joined = Vec::with_capacity(len);
            rows.of(places).for_each(|piece| joined.extend_from_slice(piece));
            Cow::Owned(joined)
        }
    }
}

/// The content of each section of a frame that is read back, and the rows that could not be.
/// `parts` are the raw parts, `None` where damaged.
pub(crate) fn unpack(head: &DataHead, parts: &[Option<Vec<u8>>], part_lens: &[u32]) -> Option<(Vec<Vec<u8>>, Vec<u64>)> {
    let mut contents = Vec::with_capacity(head.sections.len());
    let mut lost = Vec::with_capacity(head.sections.len());
    let (mut part, mut at) = (0, 0usize);
    for section in &head.sections {
        let mut content = Vec::new();
        let mut missing = false;
        for piece in &section.pieces {
            let piece = *piece as usize;
            while at == *part_lens.get(part)? as usize {
                (part, at) = (part + 1, 0);
            }
            if at + piece > part_lens[part] as usize {
                return None;
            }
            match &parts[part] {
                Some(raw) => content.extend_from_slice(raw.get(at..at + piece)?),
                None => missing = true,
            }
            at += piece;
        }
        lost.push(match (missing, section.blocks) {
            (false, _) => 0,
            (true, false) => u64::from(section.rows),
            (true, true) => {
                let found = segment::verify_blocks(&content, !section.header.is_empty());
                u64::from(section.rows).saturating_sub(found.rows)
            }
        });
        contents.push(content);
    }
    Some((contents, lost))
}
