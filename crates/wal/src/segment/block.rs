//! Blocks: the unit of compression, of checksums and so of damage.

use std::fmt;
use std::ops::Range;

use super::HEADER;
use crate::squeeze::Squeezer;

/// Longest payload, compressed or not, that is read. The reference has no limit when writing; its blocks
/// are requests, so far below this.
pub const MAX_BLOCK_BYTES: usize = 64 << 20;

/// Bytes before the payload: its length and checksum.
pub(crate) const BLOCK_HEADER: usize = 8;
const META_MAGIC: [u8; 3] = [0xAA, 0xAA, 0x01];
const META_BYTES: usize = 8;

/// What a block says about its rows. Both are 0 in blocks of older writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockMeta {
    /// 0 unknown, 1 metric, 2 trace, 3 log.
    pub sample_type: u8,
    /// Number of CSV records without the header line.
    pub rows: u32,
}

/// Buffers that one writer of blocks uses again and again.
pub struct Scratch {
    raw: Vec<u8>,
    squeezer: Squeezer,
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch { raw: Vec::new(), squeezer: Squeezer::new() }
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").field("raw", &self.raw.capacity()).finish()
    }
}

/// Appends one block with `value` (header line and rows) to `out`. An empty value appends nothing.
pub fn encode_block(out: &mut Vec<u8>, meta: BlockMeta, value: &[u8], scratch: &mut Scratch) {
    encode_block_parts(out, meta, value, &[], scratch);
}

/// As [`encode_block`], with the value in two pieces.
pub(crate) fn encode_block_parts(out: &mut Vec<u8>, meta: BlockMeta, head: &[u8], rows: &[u8], scratch: &mut Scratch) {
    encode_block_with(out, meta, scratch, |value| {
        value.extend_from_slice(head);
        value.extend_from_slice(rows);
    });
}

/// As [`encode_block`], with the value appended by `write`.
pub(crate) fn encode_block_with(out: &mut Vec<u8>, meta: BlockMeta, scratch: &mut Scratch, write: impl FnOnce(&mut Vec<u8>)) {
    scratch.raw.clear();
    scratch.raw.extend_from_slice(&META_MAGIC);
    scratch.raw.push(meta.sample_type);
    scratch.raw.extend_from_slice(&meta.rows.to_be_bytes());
    write(&mut scratch.raw);
    if scratch.raw.len() == META_BYTES {
        return;
    }
    let compressed = scratch.squeezer.compress(&scratch.raw);
    out.extend_from_slice(&(compressed.len() as u32).to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(compressed).to_be_bytes());
    out.extend_from_slice(compressed);
}

/// Why bytes are not a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageKind {
    /// The file does not begin with `ADXWAL`.
    NotASegment,
    /// Fewer than the 8 bytes of a block header remain.
    PartialHeader,
    /// A length of zero, as in a preallocated or zeroed tail.
    ZeroLength,
    /// The payload runs past the end.
    Truncated,
    /// The length is above [`MAX_BLOCK_BYTES`].
    TooLong,
    /// The payload's checksum differs.
    Checksum,
    /// The checksum is right, yet the payload is not S2.
    NotS2,
    /// The blocks before decode to more than a segment of that size may hold.
    Inflates,
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DamageKind::NotASegment => "not a segment",
            DamageKind::PartialHeader => "partial block header",
            DamageKind::ZeroLength => "block of length zero",
            DamageKind::Truncated => "block runs past the end",
            DamageKind::TooLong => "block is too long",
            DamageKind::Checksum => "block checksum verification failed",
            DamageKind::NotS2 => "block payload is not S2",
            DamageKind::Inflates => "blocks decode to far more than they are long",
        })
    }
}

/// Bytes that are not a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}")]
pub struct Damage {
    /// Where the bad bytes begin.
    pub offset: usize,
    /// What is wrong with them.
    pub kind: DamageKind,
    /// Where the next block would begin, when the length can still be trusted that far.
    pub next: Option<usize>,
}

/// A block whose checksum is right.
#[derive(Debug, Clone, Copy)]
pub struct BlockRef<'a> {
    /// Position of its header in the image.
    pub offset: usize,
    /// Header and payload, as in the file.
    pub bytes: &'a [u8],
}

impl<'a> BlockRef<'a> {
    /// The compressed payload.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[BLOCK_HEADER..]
    }

    /// Where it is in the image.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.bytes.len()
    }

    /// Replaces `out` by the value (header line and rows) and returns what the block says about it;
    /// `None` for blocks of the oldest writers, which say nothing.
    pub fn decode(&self, out: &mut Vec<u8>) -> Result<Option<BlockMeta>, Damage> {
        if decompress(self.payload(), out).is_none() {
            return Err(Damage { offset: self.offset, kind: DamageKind::NotS2, next: Some(self.range().end) });
        }
        if out.len() < META_BYTES || out[..3] != META_MAGIC {
            return Ok(None);
        }
        let meta = BlockMeta { sample_type: out[3], rows: u32::from_be_bytes([out[4], out[5], out[6], out[7]]) };
        out.drain(..META_BYTES);
        Ok(Some(meta))
    }
}

/// Decodes S2 (and so Snappy). Our own blocks are Snappy, whose decoder is three times as fast; it
/// stops at the repeat copies that only S2 has.
pub(crate) fn decompress(payload: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (len, _) = minlz::s2::decode_len(payload).ok()?;
    if len > MAX_BLOCK_BYTES {
        return None;
    }
    out.clear();
    out.resize(len, 0);
    if snap::raw::Decoder::new().decompress(payload, out).is_ok_and(|n| n == len) {
        return Some(());
    }
    (minlz::s2::decode_into(out, payload).ok()? == len).then_some(())
}

/// Iterates over the blocks of a file image. After damage whose extent is known it goes on behind it.
#[derive(Debug, Clone)]
pub struct Blocks<'a> {
    image: &'a [u8],
    at: usize,
    /// The image should have begun with a file header and did not.
    headless: bool,
}

/// The blocks of a file image (with its 8-byte header).
pub fn blocks(image: &[u8]) -> Blocks<'_> {
    Blocks { image, at: if has_header(image) { HEADER.len() } else { 0 }, headless: !has_header(image) }
}

/// The blocks of `area` from position `at`, where no file header is expected.
pub fn blocks_at(area: &[u8], at: usize) -> Blocks<'_> {
    Blocks { image: area, at, headless: false }
}

impl<'a> Blocks<'a> {
    fn damage(&mut self, kind: DamageKind, next: Option<usize>) -> Option<Result<BlockRef<'a>, Damage>> {
        let offset = self.at;
        self.at = next.unwrap_or(self.image.len());
        Some(Err(Damage { offset, kind, next }))
    }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Result<BlockRef<'a>, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if std::mem::take(&mut self.headless) && !self.image.is_empty() {
            return self.damage(DamageKind::NotASegment, None);
        }
        let offset = self.at;
        let rest = self.image.get(offset..).filter(|rest| !rest.is_empty())?;
        let Some((head, tail)) = rest.split_first_chunk::<BLOCK_HEADER>() else {
            return self.damage(DamageKind::PartialHeader, None);
        };
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let crc = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        if length == 0 {
            return self.damage(DamageKind::ZeroLength, None);
        }
        if length > MAX_BLOCK_BYTES {
            return self.damage(DamageKind::TooLong, None);
        }
        let end = offset + BLOCK_HEADER + length;
        let Some(payload) = tail.get(..length) else {
            return self.damage(DamageKind::Truncated, None);
        };
        if crc32fast::hash(payload) != crc {
            return self.damage(DamageKind::Checksum, Some(end));
        }
        self.at = end;
        Some(Ok(BlockRef { offset, bytes: &self.image[offset..end] }))
    }
}

/// Whether `image` begins with the magic of a segment.
pub(crate) fn has_header(image: &[u8]) -> bool {
    image.len() >= HEADER.len() && image[..6] == HEADER[..6]
}
