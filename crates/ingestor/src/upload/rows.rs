//! CSV rows out of segment images, in pieces of bounded size that end with a record.
//!
//! The same segments with the same bound always make the same pieces, so a piece has an identity
//! that a repeated upload finds again.

use bytes::Bytes;
use wal::segment;

use crate::kql::{Column, HeaderError, parse_header};

/// The rows of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// The columns that the segments name; nothing where blocks carry no header.
    pub columns: Option<Vec<Column>>,
    /// CSV without header lines.
    pub pieces: Vec<Bytes>,
}

/// Reads the rows of images that share a table and schema. `headed`: each block begins with a
/// header line.
///
/// # Errors
/// When the header of the first block does not name columns.
pub fn read(images: &[Vec<u8>], headed: bool, most: usize) -> Result<Rows, HeaderError> {
    let columns = match headed {
        true => images.iter().find_map(|image| header(image)).map(|line| parse_header(&line)).transpose()?,
        false => None,
    };
    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    for image in images {
        let csv = segment::values(image, headed);
        if piece.is_empty() && csv.len() <= most {
            piece = csv;
        } else if piece.len() + csv.len() <= most {
            piece.extend_from_slice(&csv);
        } else {
            cut(&csv, most, &mut piece, &mut pieces);
        }
    }
    if !piece.is_empty() {
        pieces.push(piece.into());
    }
    Ok(Rows { columns, pieces })
}

/// The first line of the first block that can be read.
fn header(image: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    let first = segment::blocks(image).flatten().find(|block| block.decode(&mut value).is_ok());
    first?;
    let end = memchr::memchr(b'\n', &value)?;
    value.truncate(end + 1);
    Some(value)
}

/// Adds records to `piece` and closes it whenever the next one does not fit.
fn cut(csv: &[u8], most: usize, piece: &mut Vec<u8>, pieces: &mut Vec<Bytes>) {
    let mut start = 0;
    while start < csv.len() {
        let end = record_end(csv, start);
        if !piece.is_empty() && piece.len() + (end - start) > most {
            pieces.push(std::mem::take(piece).into());
        }
        piece.extend_from_slice(&csv[start..end]);
        start = end;
    }
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

/// The identity of a piece of a batch.
pub fn piece_id(batch: &[u8; 16], index: usize, pieces: usize) -> [u8; 16] {
    if pieces == 1 {
        return *batch;
    }
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(batch);
    bytes[16..24].copy_from_slice(&(index as u64).to_le_bytes());
    bytes[24..].copy_from_slice(&(pieces as u64).to_le_bytes());
    xxhash_rust::xxh3::xxh3_128(&bytes).to_le_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use wal::segment::{BlockMeta, HEADER, Scratch, encode_block};

    fn image(blocks: &[&str]) -> Vec<u8> {
        let mut out = HEADER.to_vec();
        for value in blocks {
            let meta = BlockMeta { sample_type: 1, rows: 0 };
            encode_block(&mut out, meta, value.as_bytes(), &mut Scratch::default());
        }
        out
    }

    #[test]
    fn headers_are_taken_off_every_block() {
        let images = [image(&["A:long\n1\n", "A:long\n2\n"]), image(&["A:long\n3\n"])];
        let rows = read(&images, true, 1000).unwrap();
        assert_eq!(rows.pieces, ["1\n2\n3\n"]);
        assert_eq!(rows.columns.unwrap()[0].name, "A");
        assert!(read(&[image(&["1,2\n"])], true, 10).is_err());
        assert_eq!(read(&[image(&["1,2\n"])], false, 10).unwrap().pieces, ["1,2\n"]);
    }

    #[test]
    fn a_header_longer_than_four_kibibytes_is_read() {
        let columns: Vec<String> = (0..1000).map(|i| format!("Column{i}:string")).collect();
        let value = format!("{}\n1\n", columns.join(","));
        assert_eq!(read(&[image(&[&value])], true, 10).unwrap().columns.unwrap().len(), 1000);
    }

    proptest! {
        #[test]
        fn pieces_hold_whole_records_and_all_of_them(
            fields in prop::collection::vec("[a-z\"\n,]{0,12}", 1..60),
            most in 1usize..80,
        ) {
            let records: Vec<String> =
                fields.iter().map(|f| format!("\"{}\",1\n", f.replace('"', "\"\""))).collect();
            let (mut piece, mut pieces) = (Vec::new(), Vec::new());
            cut(records.concat().as_bytes(), most, &mut piece, &mut pieces);
            pieces.push(piece.into());
            let mut left = records.as_slice();
            for piece in &pieces {
                let mut whole = String::new();
                while whole.len() < piece.len() {
                    whole.push_str(&left[0]);
                    left = &left[1..];
                }
                prop_assert_eq!(whole.as_bytes(), &piece[..]);
                prop_assert!(piece.len() <= most || whole.matches("\",1\n").count() >= 1);
            }
            prop_assert!(left.is_empty());
        }
    }
}
