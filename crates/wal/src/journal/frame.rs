//! The bytes of a journal frame.
//!
//! ```text
//! 0   magic "ADXJ"        4   version 1          5  kind         6  reserved (2)
//! 8   file sequence u64   16  LSN u64
//! 24  base LSN u64: first LSN of this file; frames of older files at or above it never counted
//! 32  durable LSN u64: everything up to it was durable when this frame was written
//! 40  head length u32     44  body length u32    48  number of parts u32
//! 52  CRC-32 of the head without this field
//! 56  parts, each: raw length u32, stored length u32 (bit 31: stored as it is, else Snappy), CRC-32 u32
//! ..  directory, opaque here; then the body: the stored parts
//! ```
//! All integers are little-endian. Parts are at most 64 KiB raw unless one record is longer, so that a
//! damaged byte costs one part.

use crate::codec::{Cursor, Decode, Malformed, Put};
use crate::squeeze;

pub(crate) const MAGIC: [u8; 4] = *b"ADXJ";
pub(crate) const VERSION: u8 = 1;
pub(crate) const PART_RAW: usize = 64 << 10;
const FIXED: usize = 56;
const HEAD_LEN_AT: usize = 40;
const PARTS_AT: usize = 48;
const CRC_AT: usize = 52;
const PART_HEAD: usize = 12;
const VERBATIM: u32 = 1 << 31;

/// One part of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartHead {
    pub(crate) raw: u32,
    stored: u32,
    crc: u32,
}

impl PartHead {
    pub(crate) fn stored_len(&self) -> usize {
        (self.stored & !VERBATIM) as usize
    }

    fn is_verbatim(&self) -> bool {
        self.stored & VERBATIM != 0
    }

    /// Whether `stored` is what was written.
    pub(crate) fn is_intact(&self, stored: &[u8]) -> bool {
        stored.len() == self.stored_len() && crc32fast::hash(stored) == self.crc
    }

    /// Appends the raw bytes of an intact part to `out`.
    pub(crate) fn decode(&self, stored: &[u8], out: &mut Vec<u8>) -> Decode<()> {
        if self.is_verbatim() {
            out.extend_from_slice(stored);
            return Ok(());
        }
        let (start, raw) = (out.len(), self.raw as usize);
        // Snappy expands at most 64 bytes to 3, so a length above that is a lie told before allocating.
        if snap::raw::decompress_len(stored).ok() != Some(raw) || raw / 24 > stored.len() {
            return Err(Malformed);
        }
        out.resize(start + raw, 0);
        snap::raw::Decoder::new().decompress(stored, &mut out[start..]).map_err(|_| Malformed)?;
        Ok(())
    }
}

/// A frame without its place in the journal.
#[derive(Debug, Default)]
pub(crate) struct Body {
    pub(crate) kind: u8,
    pub(crate) directory: Vec<u8>,
    parts: Vec<PartHead>,
    bytes: Vec<u8>,
}

impl Body {
    /// A small frame: all in the directory.
    pub(crate) fn small(kind: u8, directory: Vec<u8>) -> Body {
        Body { kind, directory, ..Body::default() }
    }

    /// A frame whose bytes are cut into parts.
    pub(crate) fn from_bytes(kind: u8, bytes: &[u8]) -> Body {
        let mut body = Body { kind, ..Body::default() };
        for chunk in bytes.chunks(PART_RAW) {
            body.push_compressed(chunk);
        }
        body
    }

    /// Adds a part, compressed where that saves something.
    pub(crate) fn push_compressed(&mut self, raw: &[u8]) {
        if raw.is_empty() {
            return;
        }
        let saved = squeeze::with(|squeezer| {
            let compressed = squeezer.compress(raw);
            let saves = compressed.len() < raw.len();
            if saves {
                self.push(compressed, raw.len(), 0);
            }
            saves
        });
        if !saved {
            self.push_verbatim(raw);
        }
    }

    /// Adds a part as it is.
    pub(crate) fn push_verbatim(&mut self, raw: &[u8]) {
        self.push(raw, raw.len(), VERBATIM);
    }

    fn push(&mut self, stored: &[u8], raw: usize, flag: u32) {
        self.bytes.extend_from_slice(stored);
        self.parts.push(PartHead { raw: raw as u32, stored: stored.len() as u32 | flag, crc: crc32fast::hash(stored) });
    }

    fn head_len(&self) -> usize {
        FIXED + self.parts.len() * PART_HEAD + self.directory.len()
    }

    /// Length of the whole frame.
    pub(crate) fn frame_len(&self) -> usize {
        self.head_len() + self.bytes.len()
    }

    /// Appends the frame at its place.
    pub(crate) fn encode(&self, place: Place, out: &mut Vec<u8>) {
        let start = out.len();
        out.reserve(self.frame_len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, self.kind, 0, 0]);
        for value in [place.file, place.lsn, place.base_lsn, place.durable_lsn] {
            out.put_u64(value);
        }
        for value in [self.head_len(), self.bytes.len(), self.parts.len(), 0] {
            out.put_u32(value as u32);
        }
        for part in &self.parts {
            for value in [part.raw, part.stored, part.crc] {
                out.put_u32(value);
            }
        }
        out.extend_from_slice(&self.directory);
        let crc = head_crc(&out[start..]);
        out[start + CRC_AT..start + FIXED].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&self.bytes);
    }
}

/// Where a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) file: u64,
    pub(crate) lsn: u64,
    pub(crate) base_lsn: u64,
    pub(crate) durable_lsn: u64,
}

/// A head that was read and whose checksum is right.
#[derive(Debug, Clone)]
pub(crate) struct Head<'a> {
    pub(crate) version: u8,
    pub(crate) kind: u8,
    pub(crate) place: Place,
    pub(crate) parts: Vec<PartHead>,
    pub(crate) directory: &'a [u8],
    pub(crate) head_len: usize,
    pub(crate) body_len: usize,
}

/// Reads the head at the beginning of `bytes`, which reach to the end of the file.
pub(crate) fn read_head(bytes: &[u8]) -> Decode<Head<'_>> {
    let mut fixed = Cursor::new(bytes.get(..FIXED).ok_or(Malformed)?);
    if fixed.array()? != MAGIC {
        return Err(Malformed);
    }
    let [version, kind, _, _] = fixed.array()?;
    let place = Place { file: fixed.u64()?, lsn: fixed.u64()?, base_lsn: fixed.u64()?, durable_lsn: fixed.u64()? };
    let head_len = fixed.u32()? as usize;
    let body_len = fixed.u32()? as usize;
    let parts = fixed.u32()? as usize;
    let crc = fixed.u32()?;
    let head = bytes.get(..head_len).ok_or(Malformed)?;
    if parts.checked_mul(PART_HEAD).and_then(|n| n.checked_add(FIXED)).is_none_or(|n| n > head_len) || head_crc(head) != crc {
        return Err(Malformed);
    }
    let mut rest = Cursor::new(&head[FIXED..]);
    let mut table = Vec::with_capacity(parts);
    for _ in 0..parts {
        table.push(PartHead { raw: rest.u32()?, stored: rest.u32()?, crc: rest.u32()? });
    }
    if table.iter().map(PartHead::stored_len).sum::<usize>() != body_len {
        return Err(Malformed);
    }
    let directory = &head[FIXED + parts * PART_HEAD..];
    Ok(Head { version, kind, place, parts: table, directory, head_len, body_len })
}

fn head_crc(head: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[..CRC_AT]);
    hasher.update(&head[FIXED..]);
    hasher.finalize()
}

/// Puts the checksums of the frame at the beginning of `bytes` right, those of its parts first; nothing where its
/// lengths do not fit.
pub(crate) fn repair_checksums(bytes: &mut [u8]) {
    let field =
        |bytes: &[u8], at: usize| bytes.get(at..at + 4).map(|field| u32::from_le_bytes([field[0], field[1], field[2], field[3]]) as usize);
    let (Some(head_len), Some(parts)) = (field(bytes, HEAD_LEN_AT), field(bytes, PARTS_AT)) else { return };
    if head_len > bytes.len() || parts.checked_mul(PART_HEAD).is_none_or(|table| FIXED.saturating_add(table) > head_len) {
        return;
    }
    let mut stored_at = head_len;
    for part in 0..parts {
        let at = FIXED + part * PART_HEAD;
        let stored_len = field(bytes, at + 4).unwrap_or(0) & !(VERBATIM as usize);
        let Some(stored) = bytes.get(stored_at..).and_then(|rest| rest.get(..stored_len)) else { break };
        let crc = crc32fast::hash(stored);
        bytes[at + 8..at + PART_HEAD].copy_from_slice(&crc.to_le_bytes());
        stored_at += stored_len;
    }
    let crc = head_crc(&bytes[..head_len]);
    bytes[CRC_AT..FIXED].copy_from_slice(&crc.to_le_bytes());
}

impl Head<'_> {
    /// Stored bytes of each part in a frame that begins at `frame`; short or empty at the end of a torn file.
    pub(crate) fn stored_parts<'f>(&self, frame: &'f [u8]) -> impl Iterator<Item = (PartHead, &'f [u8])> {
        let mut at = self.head_len;
        self.parts.clone().into_iter().map(move |part| {
            let start = at.min(frame.len());
            at += part.stored_len();
            (part, &frame[start..at.min(frame.len())])
        })
    }

    /// The raw bytes of each part, `None` where one is damaged.
    pub(crate) fn raw_parts(&self, frame: &[u8]) -> Vec<Option<Vec<u8>>> {
        self.stored_parts(frame)
            .map(|(part, stored)| {
                let mut raw = Vec::new();
                (part.is_intact(stored) && part.decode(stored, &mut raw).is_ok()).then_some(raw)
            })
            .collect()
    }

    /// The whole body, when every part is intact.
    pub(crate) fn body(&self, frame: &[u8]) -> Decode<Vec<u8>> {
        let mut out = Vec::new();
        for (part, stored) in self.stored_parts(frame) {
            if !part.is_intact(stored) {
                return Err(Malformed);
            }
            part.decode(stored, &mut out)?;
        }
        Ok(out)
    }
}
