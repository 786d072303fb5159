//! CSV rows out of segment images, in pieces of bounded size that end with a record.
//!
//! One block is read at a time, so memory is bounded by a block and two pieces. Whole
//! segments share a piece as long as they fit; a larger one has pieces of its own. So a piece that is
//! refused speaks of its own segments only. The same segments with the same bound make the same
//! pieces, and a piece has an identity that a repeated upload finds again.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use wal::SegmentReader;

use crate::kql::{Column, parse_header};

/// CSV of one or more whole segments, or of a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Records without header lines.
    pub csv: Bytes,
    /// Which segments of the batch it holds rows of.
    pub segments: Range<usize>,
    /// Whether rows of its segment were in an earlier piece.
    pub continues: bool,
    /// Its place among the pieces of the batch.
    pub index: usize,
}

impl Piece {
    /// Whether it is one record, which cannot be cut further.
    pub fn is_one_record(&self) -> bool {
        record_end(&self.csv, 0) == self.csv.len()
    }

    /// The identity of this piece of a batch. It holds the content, so that rows can never pass for
    /// others that arrived before: a piece that is cut differently is another piece.
    pub fn id(&self, batch: &[u8; 16]) -> [u8; 16] {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        hash.update(batch);
        hash.update(&(self.index as u64).to_le_bytes());
        hash.update(&self.csv);
        hash.digest128().to_le_bytes()
    }
}

/// Why there is no next piece.
#[derive(Debug)]
pub enum ReadError {
    /// A segment cannot be read.
    Source(usize, io::Error),
    /// The rows of a segment are not what its name promises.
    Content(usize, String),
}

/// Reads a batch piece by piece.
#[derive(Debug)]
pub struct Pieces {
    headed: bool,
    most: usize,
    count: usize,
    /// The header line of the first segment, and what it says.
    header: Option<(Vec<u8>, Vec<Column>)>,
    open: Option<Open>,
    next_segment: usize,
    pieces: usize,
}

/// A segment that is being read.
#[derive(Debug)]
struct Open {
    index: usize,
    /// Its next blocks; nothing behind the last one.
    blocks: Option<SegmentReader>,
    /// Records that no piece has taken yet.
    csv: Vec<u8>,
    /// A piece has taken some of its records.
    begun: bool,
}

impl Pieces {
    /// The pieces of `count` segments that share a table and schema. `headed`: each block begins with
    /// a header line. A piece holds at most `most` bytes, or one record.
    pub fn new(count: usize, headed: bool, most: usize) -> Pieces {
        Pieces { headed, most, count, header: None, open: None, next_segment: 0, pieces: 0 }
    }

    /// The columns that the segments name, once a piece has been read; nothing without header lines.
    pub fn columns(&self) -> Option<&[Column]> {
        self.header.as_ref().map(|(_, columns)| columns.as_slice())
    }

    /// The next piece, with segments from `source`, which is asked once for each.
    ///
    /// # Errors
    /// With the number of the segment at fault; the batch cannot be read on.
    pub fn next(&mut self, source: &mut dyn FnMut(usize) -> io::Result<SegmentReader>) -> Result<Option<Piece>, ReadError> {
        let mut piece = Vec::new();
        let mut segments = self.next_segment..self.next_segment;
        loop {
            let mut open = match self.open.take() {
                Some(open) => open,
                None if self.next_segment == self.count => break,
                None => {
                    let blocks = source(self.next_segment).map_err(|e| ReadError::Source(self.next_segment, e))?;
                    self.next_segment += 1;
                    Open { index: self.next_segment - 1, blocks: Some(blocks), csv: Vec::new(), begun: false }
                }
            };
            self.fill(&mut open)?;
            if open.begun && open.csv.is_empty() {
                continue;
            }
            let whole = open.blocks.is_none() && open.csv.len() <= self.most;
            if whole && !open.begun && piece.len() + open.csv.len() <= self.most {
                if piece.is_empty() && segments.is_empty() {
                    segments.start = open.index;
                }
                segments.end = open.index + 1;
                append(&mut piece, open.csv);
                continue;
            }
            if !piece.is_empty() {
                self.open = Some(open);
                break;
            }
            return Ok(Some(self.part(open)));
        }
        Ok((!piece.is_empty()).then(|| self.piece(piece, segments, false)))
    }

    /// The first records of a segment that does not share a piece.
    fn part(&mut self, mut open: Open) -> Piece {
        let end = cut(&open.csv, self.most);
        let rest = open.csv.split_off(end);
        let csv = std::mem::replace(&mut open.csv, rest);
        let piece = self.piece(csv, open.index..open.index + 1, open.begun);
        open.begun = true;
        if open.blocks.is_some() || !open.csv.is_empty() {
            self.open = Some(open);
        }
        piece
    }

    fn piece(&mut self, csv: Vec<u8>, segments: Range<usize>, continues: bool) -> Piece {
        self.pieces += 1;
        Piece { csv: csv.into(), segments, continues, index: self.pieces - 1 }
    }

    /// Reads blocks until there is more than one piece can hold, or the segment ends.
    fn fill(&mut self, open: &mut Open) -> Result<(), ReadError> {
        let mut value = Vec::new();
        while open.csv.len() <= self.most
            && let Some(blocks) = &mut open.blocks
        {
            // Unreadable blocks are in quarantine and counted by the store; they are left out here.
            if !blocks.next_block(&mut value).map_err(|error| ReadError::Source(open.index, error))? {
                open.blocks = None;
                break;
            }
            let rows = self.without_header(&value).map_err(|why| ReadError::Content(open.index, why))?;
            open.csv.extend_from_slice(&value[rows..]);
        }
        Ok(())
    }

    /// Where the records of a block begin. Every block must name the same columns: rows under another
    /// header would end up in the wrong ones.
    fn without_header(&mut self, value: &[u8]) -> Result<usize, String> {
        if !self.headed || value.is_empty() {
            return Ok(0);
        }
        let end = memchr::memchr(b'\n', value).map_or(value.len(), |end| end + 1);
        let line = value[..end].trim_ascii_end();
        match &self.header {
            Some((known, _)) if known == line => {}
            Some((known, _)) => {
                let show = |line: &[u8]| String::from_utf8_lossy(line).chars().take(200).collect::<String>();
                return Err(format!("a block begins with {:?}, and the batch with {:?}", show(line), show(known)));
            }
            None => {
                let columns = parse_header(line).map_err(|e| e.to_string())?;
                self.header = Some((line.to_vec(), columns));
            }
        }
        Ok(end)
    }
}

fn append(piece: &mut Vec<u8>, csv: Vec<u8>) {
    match piece.is_empty() {
        true => *piece = csv,
        false => piece.extend_from_slice(&csv),
    }
}

/// The end of the last record within `most` bytes; at least one record.
fn cut(csv: &[u8], most: usize) -> usize {
    let mut end = 0;
    while end < csv.len() {
        let next = record_end(csv, end);
        if end > 0 && next > most {
            break;
        }
        end = next;
    }
    end
}

/// Behind the line end that closes the record at `start`: one with an even number of quotes before.
fn record_end(csv: &[u8], start: usize) -> usize {
    let mut quoted = false;
    for at in memchr::memchr2_iter(b'"', b'\n', &csv[start..]) {
        match csv[start + at] {
            b'"' => quoted = !quoted,
            _ if !quoted => return start + at + 1,
            _ => {}
        }
    }
    csv.len()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use wal::segment::{BlockMeta, HEADER, Scratch, encode_block};

    fn image(blocks: &[String]) -> Vec<u8> {
        let mut out = HEADER.to_vec();
        for value in blocks {
            let meta = BlockMeta { sample_type: 1, rows: 0 };
            encode_block(&mut out, meta, value.as_bytes(), &mut Scratch::default());
        }
        out
    }

    fn read_all(images: &[Vec<u8>], headed: bool, most: usize) -> Result<(Vec<Piece>, Option<Vec<Column>>), String> {
        let mut pieces = Pieces::new(images.len(), headed, most);
        let mut source = |i: usize| Ok(SegmentReader::from_image(images[i].clone()));
        let mut all = Vec::new();
        loop {
            match pieces.next(&mut source) {
                Ok(Some(piece)) => all.push(piece),
                Ok(None) => return Ok((all, pieces.columns().map(<[Column]>::to_vec))),
                Err(error) => return Err(format!("{error:?}")),
            }
        }
    }

    fn texts(pieces: &[Piece]) -> Vec<(&str, Range<usize>, bool)> {
        pieces.iter().map(|p| (std::str::from_utf8(&p.csv).unwrap(), p.segments.clone(), p.continues)).collect()
    }

    fn segment(blocks: &[&str]) -> Vec<u8> {
        image(&blocks.iter().map(|b| format!("A:long\n{b}")).collect::<Vec<_>>())
    }

    #[test]
    fn headers_are_taken_off_every_block() {
        let images = [segment(&["1\n", "2\n"]), segment(&["3\n"])];
        let (pieces, columns) = read_all(&images, true, 1000).unwrap();
        assert_eq!(texts(&pieces), [("1\n2\n3\n", 0..2, false)]);
        assert_eq!(columns.unwrap()[0].name, "A");
        assert!(read_all(&[image(&["1,2\n".into()])], true, 10).is_err());
        assert_eq!(texts(&read_all(&[image(&["1,2\n".into()])], false, 10).unwrap().0), [("1,2\n", 0..1, false)]);
    }

    #[test]
    fn whole_segments_share_a_piece_and_large_ones_have_their_own() {
        let images =
            [segment(&["1\n"]), segment(&["2\n"]), segment(&["3\n4\n", "5\n6\n"]), segment(&[]), segment(&["7\n"]), segment(&["8\n"])];
        let (pieces, _) = read_all(&images, true, 4).unwrap();
        let expected = [("1\n2\n", 0..2, false), ("3\n4\n", 2..3, false), ("5\n6\n", 2..3, true), ("7\n8\n", 3..6, false)];
        assert_eq!(texts(&pieces), expected);
        assert_eq!(pieces.iter().map(|p| p.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_block_under_another_header_is_not_read_as_if_it_were_the_same() {
        let images = [segment(&["1\n"]), image(&["B:long\n2\n".into()])];
        let error = read_all(&images, true, 1000).unwrap_err();
        assert!(error.contains("Content(1") && error.contains("B:long"), "{error}");
    }

    #[test]
    fn a_header_longer_than_four_kibibytes_is_read() {
        let columns: Vec<String> = (0..1000).map(|i| format!("Column{i}:string")).collect();
        let value = format!("{}\n1\n", columns.join(","));
        assert_eq!(read_all(&[image(&[value])], true, 10).unwrap().1.unwrap().len(), 1000);
    }

    #[test]
    fn a_piece_is_known_by_its_batch_its_place_and_its_content() {
        let piece = |csv: &'static str, index| Piece { csv: csv.into(), segments: 0..1, continues: false, index };
        let id = piece("1\n", 0).id(&[1; 16]);
        assert_eq!(id, piece("1\n", 0).id(&[1; 16]));
        for other in [piece("2\n", 0).id(&[1; 16]), piece("1\n", 1).id(&[1; 16]), piece("1\n", 0).id(&[2; 16])] {
            assert_ne!(id, other);
        }
        assert!(piece("\"a\nb\"\n", 0).is_one_record());
        assert!(!piece("1\n2\n", 0).is_one_record());
    }

    fn record() -> impl Strategy<Value = String> {
        "[a-z\"\n,]{0,12}".prop_map(|field| format!("\"{}\",1\n", field.replace('"', "\"\"")))
    }

    proptest! {
        #[test]
        fn pieces_hold_whole_records_of_their_segments_and_all_of_them(
            batch in prop::collection::vec(prop::collection::vec(prop::collection::vec(record(), 0..6), 0..4), 1..6),
            most in 1usize..80,
        ) {
            let images: Vec<Vec<u8>> = batch
                .iter()
                .map(|blocks| image(&blocks.iter().map(|records| format!("A:string,B:long\n{}", records.concat())).collect::<Vec<_>>()))
                .collect();
            let (pieces, _) = read_all(&images, true, most).unwrap();
            let mut left: Vec<(usize, &String)> = Vec::new();
            for (index, blocks) in batch.iter().enumerate() {
                left.extend(blocks.iter().flatten().map(|record| (index, record)));
            }
            let mut left = left.into_iter();
            for piece in &pieces {
                let (mut whole, mut records) = (String::new(), 0);
                while whole.len() < piece.csv.len() {
                    let (index, record) = left.next().unwrap();
                    prop_assert!(piece.segments.contains(&index));
                    whole.push_str(record);
                    records += 1;
                }
                prop_assert_eq!(whole.as_bytes(), &piece.csv[..]);
                prop_assert!(piece.csv.len() <= most || records == 1);
                prop_assert_eq!(piece.is_one_record(), records == 1);
                // Several segments only whole, so that a refusal says nothing of earlier pieces.
                prop_assert!(piece.segments.len() == 1 || !piece.continues);
            }
            prop_assert!(left.next().is_none());
            for pair in pieces.windows(2) {
                prop_assert!(pair[1].segments.start >= pair[0].segments.end || pair[1].continues);
            }
        }

        #[test]
        fn no_bytes_in_a_segment_make_the_reader_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..300),
            framed in any::<bool>(),
            headed in any::<bool>(),
            most in 1usize..50,
        ) {
            if framed {
                let mut out = HEADER.to_vec();
                encode_block(&mut out, BlockMeta { sample_type: 0, rows: 0 }, &bytes, &mut Scratch::default());
                bytes = out;
            }
            if let Ok((pieces, _)) = read_all(&[bytes], headed, most) {
                prop_assert!(pieces.iter().all(|p| !p.csv.is_empty()));
            }
        }
    }
}
