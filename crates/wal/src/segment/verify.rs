//! Verification of whole segments, and their concatenated values.

use std::ops::Range;

use super::HEADER;
use super::block::{self, BlockMeta, BlockRef, Damage, DamageKind};
use crate::csv;

/// What is good and what is damaged in a segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Ranges of readable blocks, neighbours joined.
    pub good: Vec<Range<usize>>,
    /// Ranges that cannot be read, with the reason.
    pub damaged: Vec<(Range<usize>, DamageKind)>,
    /// Readable blocks.
    pub blocks: usize,
    /// CSV records in readable blocks.
    pub rows: u64,
    /// Digest over the readable blocks.
    pub digest: u64,
}

impl Verified {
    /// Whether nothing is damaged.
    pub fn is_intact(&self) -> bool {
        self.damaged.is_empty()
    }

    /// Total length of the readable blocks.
    pub fn good_bytes(&self) -> usize {
        self.good.iter().map(ExactSizeIterator::len).sum()
    }

    fn add_good(&mut self, range: Range<usize>) {
        match self.good.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.good.push(range),
        }
    }

    fn add_damaged(&mut self, range: Range<usize>, kind: DamageKind) {
        match self.damaged.last_mut() {
            Some((last, _)) if last.end == range.start => last.end = range.end,
            _ => self.damaged.push((range, kind)),
        }
    }
}

/// Whether `image` begins as a segment does.
pub fn is_segment(image: &[u8]) -> bool {
    block::has_header(image)
}

/// Checks a file image: header, every checksum, every payload. `headed` says that values begin with a
/// header line, which is not a row; it matters only for blocks that do not carry their number of rows.
pub fn verify(image: &[u8], headed: bool) -> Verified {
    if !is_segment(image) {
        let mut all = Verified::default();
        if !image.is_empty() {
            all.add_damaged(0..image.len(), DamageKind::NotASegment);
        }
        return all;
    }
    verify_at(image, HEADER.len(), headed)
}

/// As [`verify`], for blocks without the file header.
pub fn verify_blocks(area: &[u8], headed: bool) -> Verified {
    verify_at(area, 0, headed)
}

fn verify_at(image: &[u8], start: usize, headed: bool) -> Verified {
    let mut digest = 0;
    let mut found = scan(image, start, |block, meta, value| {
        digest = super::digest(digest, block.bytes);
        rows_of(meta, value, headed)
    });
    found.digest = digest;
    found
}

/// Reads every block from `start` on and hands the readable ones to `visit`, which answers with their rows.
pub(crate) fn scan(image: &[u8], start: usize, mut visit: impl FnMut(&BlockRef<'_>, Option<BlockMeta>, &[u8]) -> u64) -> Verified {
    let mut found = Verified::default();
    let mut to_search = SEARCH_BUDGET;
    let mut to_decode = DECODE_BUDGET.saturating_add(image.len().saturating_mul(DECODE_RATIO));
    let mut value = Vec::new();
    let mut at = start;
    while at < image.len() {
        match block::blocks_at(image, at).next() {
            None => break,
            Some(Ok(_)) if to_decode == 0 => {
                found.add_damaged(at..image.len(), DamageKind::Inflates);
                break;
            }
            Some(Ok(block)) => {
                let decoded = block.decode(&mut value);
                to_decode = to_decode.saturating_sub(value.len());
                match decoded {
                    Ok(meta) => {
                        found.blocks += 1;
                        found.rows += visit(&block, meta, &value);
                        found.add_good(block.range());
                    }
                    Err(damage) => found.add_damaged(block.range(), damage.kind),
                }
                at = block.range().end;
            }
            Some(Err(damage)) => {
                let next = next_block(image, &damage, &mut to_search);
                found.add_damaged(at..next, damage.kind);
                at = next;
            }
        }
    }
    found
}

/// CSV records in a block's value. What the block says of itself is taken only when it has as many lines: then no
/// line is inside quotes. Everything else is counted record by record.
pub(crate) fn rows_of(meta: Option<BlockMeta>, value: &[u8], headed: bool) -> u64 {
    let header = u64::from(headed);
    match meta {
        Some(meta) if meta.rows > 0 && memchr::memchr_iter(b'\n', value).count() as u64 == u64::from(meta.rows) + header => {
            u64::from(meta.rows)
        }
        _ => csv::records(value).saturating_sub(header),
    }
}

/// Where reading goes on behind damage: at the next position that holds a whole block with a right
/// checksum. A wrong checksum may mean a wrong length, so the stored end is only the first guess.
fn next_block(image: &[u8], damage: &Damage, budget: &mut usize) -> usize {
    let whole = |at: usize| matches!(block::blocks_at(image, at).next(), Some(Ok(_)));
    match damage.next {
        Some(next) if next == image.len() || whole(next) => next,
        _ => search(image, damage.offset + 1, whole, budget),
    }
}

/// Limits against images made to be slow: bytes that are checksummed while searching for blocks, at most,
const SEARCH_BUDGET: usize = 256 << 20;
/// and bytes that blocks may decode to, besides so many times the image. Text as it is logged and measured
/// shrinks to a tenth or less, seldom to a thirtieth.
const DECODE_BUDGET: usize = 1 << 30;
const DECODE_RATIO: usize = 64;

fn search(image: &[u8], from: usize, whole: impl Fn(usize) -> bool, budget: &mut usize) -> usize {
    for at in from..image.len().saturating_sub(8) {
        let length = u32::from_be_bytes([image[at], image[at + 1], image[at + 2], image[at + 3]]) as usize;
        if length == 0 || length > image.len() - at - 8 {
            continue;
        }
        if *budget < length {
            *budget = 0;
            break;
        }
        *budget -= length;
        if whole(at) {
            return at;
        }
    }
    image.len()
}

/// The concatenated values of all readable blocks of an image; with `skip_header` each without its first line.
pub fn values(image: &[u8], skip_header: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut value = Vec::new();
    if !is_segment(image) {
        return out;
    }
    let found = verify_at(image, HEADER.len(), false);
    for range in found.good {
        for block in block::blocks_at(&image[..range.end], range.start).flatten() {
            if block.decode(&mut value).is_err() {
                continue;
            }
            let start = match (skip_header, memchr::memchr(b'\n', &value)) {
                (true, Some(newline)) => newline + 1,
                _ => 0,
            };
            out.extend_from_slice(&value[start..]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{BlockMeta, MAX_BLOCK_BYTES, Scratch, encode_block};

    /// A block with a right checksum that promises the longest value and holds none.
    fn bomb(out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        crate::codec::Put::put_varint(&mut payload, MAX_BLOCK_BYTES as u64);
        payload.push(0xFF);
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        out.extend_from_slice(&crc32fast::hash(&payload).to_be_bytes());
        out.extend_from_slice(&payload);
    }

    #[test]
    fn blocks_that_promise_too_much_end_the_reading() {
        for (bombs, readable) in [(3, 1), (40, 0)] {
            let mut image = HEADER.to_vec();
            (0..bombs).for_each(|_| bomb(&mut image));
            encode_block(&mut image, BlockMeta { sample_type: 1, rows: 1 }, b"t,1\n", &mut Scratch::default());
            let found = verify(&image, false);
            assert_eq!(found.blocks, readable);
            let ranges = found.good.iter().chain(found.damaged.iter().map(|(range, _)| range));
            assert_eq!(ranges.map(ExactSizeIterator::len).sum::<usize>(), image.len() - HEADER.len());
        }
    }
}
