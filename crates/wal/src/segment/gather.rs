//! From the blocks of somebody else's segment to one section of a request, checking every block on the way.
//!
//! Older writers make a block for every row, and our own collectors send what a table had within half a minute. Kept
//! as they are, such blocks would be written to journal and segment uncompressed in effect. So small blocks are
//! joined: into rows where all of them are little, which the store packs with those of other requests, else into
//! blocks of the usual size. Large blocks stay as they are.

use std::ops::Range;

use super::HEADER;
use super::block::{BlockMeta, BlockRef, Scratch, encode_block_parts};
use super::verify::{Verified, is_segment, rows_of, scan, verify};
use crate::types::SectionBody;

/// Rows of a block from this size on stay a block of their own.
const JOINED_BELOW: usize = 16 << 10;
/// Rows of a whole section below this size are handed on as rows.
const ROWS_BELOW: usize = 32 << 10;
/// Size of the blocks that are made, uncompressed.
const BLOCK_BYTES: usize = 64 << 10;

/// The readable part of an image, and what is wrong with the rest.
#[derive(Debug)]
pub struct Gathered {
    /// Good and damaged ranges, in the image; its digest is not computed.
    pub verified: Verified,
    /// Header line of the first block with its newline; empty without one.
    pub header: Vec<u8>,
    /// Sample type of the first block.
    pub sample_type: u8,
    /// All readable rows, `verified.rows` of them.
    pub body: SectionBody,
}

/// Gathers the blocks of `image`, a file with its header; from position `from` on, if that is not 0. `headed` says that
/// the value of each block begins with a header line.
pub fn gather(image: &[u8], from: usize, headed: bool) -> Gathered {
    let mut joiner = Joiner { headed, ..Joiner::default() };
    let verified = match from {
        0 if !is_segment(image) => verify(image, headed),
        0 => scan(image, HEADER.len(), |block, meta, value| joiner.add(block, meta, value)),
        from => scan(image, from, |block, meta, value| joiner.add(block, meta, value)),
    };
    let header = joiner.first.0.clone();
    let sample_type = joiner.first.1;
    Gathered { verified, header, sample_type, body: joiner.finish() }
}

#[derive(Default)]
struct Joiner {
    headed: bool,
    /// Blocks seen.
    blocks: usize,
    /// Header line and sample type of the first block.
    first: (Vec<u8>, u8),
    out: Vec<u8>,
    /// Rows that wait to become a block, with its header line and sample type.
    rows: Vec<u8>,
    waiting: BlockMeta,
    header: Vec<u8>,
    scratch: Scratch,
}

impl Joiner {
    /// Takes a block; returns its number of rows.
    fn add(&mut self, block: &BlockRef<'_>, meta: Option<BlockMeta>, value: &[u8]) -> u64 {
        let sample_type = meta.map_or(0, |meta| meta.sample_type);
        let header = &value[..header_range(value, self.headed).end];
        let rows = &value[header.len()..];
        let count = rows_of(meta, value, self.headed);
        self.blocks += 1;
        if self.blocks == 1 {
            self.first = (header.to_vec(), sample_type);
        }
        if rows.len() >= JOINED_BELOW || !is_whole(rows) {
            self.flush();
            self.out.extend_from_slice(block.bytes);
            return count;
        }
        let room = BLOCK_BYTES.saturating_sub(header.len());
        let other = sample_type != self.waiting.sample_type || header != self.header;
        if !self.rows.is_empty() && (other || self.rows.len() + rows.len() > room) {
            self.flush();
        }
        if self.rows.is_empty() {
            self.header.clear();
            self.header.extend_from_slice(header);
            self.waiting = BlockMeta { sample_type, rows: 0 };
        }
        self.rows.extend_from_slice(rows);
        self.waiting.rows += u32::try_from(count).unwrap_or(u32::MAX - self.waiting.rows);
        count
    }

    fn flush(&mut self) {
        if !self.rows.is_empty() {
            encode_block_parts(&mut self.out, self.waiting, &self.header, &self.rows, &mut self.scratch);
            self.rows.clear();
        }
    }

    fn finish(mut self) -> SectionBody {
        if self.out.is_empty() && self.rows.len() < ROWS_BELOW {
            return SectionBody::Rows(self.rows);
        }
        self.flush();
        SectionBody::Blocks(self.out)
    }
}

/// The header line with its newline at the beginning of a value.
fn header_range(value: &[u8], headed: bool) -> Range<usize> {
    match memchr::memchr(b'\n', value) {
        Some(end) if headed => 0..end + 1,
        None if headed => 0..value.len(),
        _ => 0..0,
    }
}

/// Whether more records can follow: no record is open at the end.
fn is_whole(rows: &[u8]) -> bool {
    rows.last().is_none_or(|last| *last == b'\n') && memchr::memchr_iter(b'"', rows).count().is_multiple_of(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csv;
    use crate::segment::{blocks_at, encode_block, values};
    use proptest::prelude::*;

    const HEAD: &str = "a:long,b:string\n";

    fn image(blocks: &[(u8, &str, String)]) -> Vec<u8> {
        let (mut image, mut scratch) = (HEADER.to_vec(), Scratch::default());
        for (sample_type, header, rows) in blocks {
            let meta = BlockMeta { sample_type: *sample_type, rows: csv::records(rows.as_bytes()) as u32 };
            encode_block(&mut image, meta, format!("{header}{rows}").as_bytes(), &mut scratch);
        }
        image
    }

    /// Rows of a body, without header lines, and its number of blocks.
    fn rows(body: &SectionBody) -> (Vec<u8>, usize) {
        match body {
            SectionBody::Rows(rows) => (rows.clone(), 0),
            SectionBody::Pieces(_) => panic!("pieces of a request"),
            SectionBody::Blocks(blocks) => {
                let whole = [&HEADER[..], blocks].concat();
                (values(&whole, true), blocks_at(blocks, 0).count())
            }
        }
    }

    #[test]
    fn what_is_no_segment_is_damaged_as_a_whole() {
        let gathered = gather(b"hello", 0, true);
        assert_eq!((gathered.verified.blocks, gathered.verified.damaged.len()), (0, 1));
    }

    #[test]
    fn little_blocks_become_rows() {
        let image = image(&[(1, HEAD, "1,x\n".into()), (1, HEAD, "2,\"y\nz\"\n3,\n".into())]);
        let gathered = gather(&image, 0, true);
        assert!(matches!(&gathered.body, SectionBody::Rows(rows) if rows == b"1,x\n2,\"y\nz\"\n3,\n"));
        assert_eq!((gathered.header.as_slice(), gathered.sample_type, gathered.verified.rows), (HEAD.as_bytes(), 1, 3));
    }

    #[test]
    fn many_small_blocks_become_few_and_large_ones_stay() {
        let row = format!("1,{}\n", "x".repeat(1000));
        let large = row.repeat(40);
        let mut all: Vec<(u8, &str, String)> = (0..200).map(|_| (1, HEAD, row.clone())).collect();
        all.push((1, HEAD, large.clone()));
        let gathered = gather(&image(&all), 0, true);
        let (rows, blocks) = rows(&gathered.body);
        assert_eq!(rows, format!("{}{large}", row.repeat(200)).into_bytes());
        assert_eq!((blocks, gathered.verified.rows), (5, 240));
    }

    #[test]
    fn other_headers_and_open_records_are_not_joined() {
        let open = "7,\"never closed\n".to_owned();
        let blocks = [
            (1, HEAD, "1,x\n".into()),
            (1, "b:string,a:long\n", "x,1\n".into()),
            (3, HEAD, "2,y\n".into()),
            (1, HEAD, open),
            (1, HEAD, "4,z".into()),
        ];
        let image = image(&blocks);
        let gathered = gather(&image, 0, true);
        let SectionBody::Blocks(made) = &gathered.body else { panic!("joined") };
        let made = [&HEADER[..], made].concat();
        assert_eq!(blocks_at(&made, HEADER.len()).count(), blocks.len());
        assert_eq!(values(&made, false), values(&image, false));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_moved(blocks in prop::collection::vec((1u8..3, prop::bool::ANY, prop::collection::vec(("[a-z\"\n]{0,12}", 0usize..4000), 0..4)), 0..40), flipped in prop::option::of(any::<prop::sample::Index>())) {
            let row = |(text, pad): (String, usize)| format!("{pad},\"{}{}\"\n", text.replace('"', "\"\""), "p".repeat(pad));
            let blocks: Vec<_> = blocks.into_iter().map(|(kind, head, rows)| (kind, if head { HEAD } else { "c:string,d:string\n" }, rows.into_iter().map(row).collect::<String>())).collect();
            let mut image = image(&blocks);
            if let Some(at) = flipped.filter(|_| image.len() > HEADER.len()) {
                let at = HEADER.len() + at.index(image.len() - HEADER.len());
                image[at] ^= 0x10;
            }
            let before = verify(&image, true);
            let gathered = gather(&image, 0, true);
            let (rows, _) = rows(&gathered.body);
            prop_assert_eq!(rows, values(&image, true));
            prop_assert_eq!(&gathered.verified.damaged, &before.damaged);
            prop_assert_eq!((gathered.verified.rows, &gathered.verified.good), (before.rows, &before.good));
        }
    }
}
