//! Texts that are longer than should be held: read piece by piece, one batch for each.

use std::fmt;
use std::io::{self, Read};

use datafusion::arrow::array::RecordBatch;

use super::{BadInput, Format, Part, Reading, read_part};
use crate::catalog::Table;

/// Sizes in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// What is read at once, and becomes one batch.
    pub(crate) piece: u64,
    /// The longest record, and the longest text of MultiJSON, which cannot be divided.
    pub(crate) record: u64,
    /// The longest text.
    pub(crate) text: u64,
}

/// Why a text was not read to its end.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The reader failed.
    Io(io::Error),
    /// The text is wrong.
    Bad(BadInput),
    /// A limit.
    TooLarge(String),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unread::Io(error) => error.fmt(f),
            Unread::Bad(error) => error.fmt(f),
            Unread::TooLarge(what) => f.write_str(what),
        }
    }
}

/// Reads all of `input`; batches without rows are left out. Returns the length of the text as well.
pub(crate) fn read_stream(
    table: &Table,
    reading: &Reading<'_>,
    mut input: impl Read,
    limits: Limits,
) -> Result<(Vec<RecordBatch>, u64), Unread> {
    let piece = if reading.format == Format::MultiJson { limits.record } else { limits.piece };
    let mut rest = Vec::new();
    let mut batches = Vec::new();
    let (mut before, mut length) = (0, 0);
    loop {
        let read = input.by_ref().take(piece).read_to_end(&mut rest).map_err(Unread::Io)? as u64;
        length += read;
        if length > limits.text {
            return Err(Unread::TooLarge(format!("the text is longer than {} bytes; send it in parts", limits.text)));
        }
        let more = read == piece;
        if more && reading.format == Format::MultiJson {
            return Err(Unread::TooLarge(format!("multijson is longer than {piece} bytes; send it in parts, or as json")));
        }
        let reading = Reading { skip_first: reading.skip_first && before == 0, ..*reading };
        let (batch, taken) = read_part(table, &reading, &rest, Part { before, more }).map_err(Unread::Bad)?;
        if batch.num_rows() > 0 {
            batches.push(batch);
        }
        before += taken.records;
        rest.drain(..taken.bytes);
        if !more {
            return Ok((batches, length));
        }
        if rest.len() as u64 > limits.record {
            return Err(Unread::TooLarge(format!("row {} is longer than {} bytes", before + 1, limits.record)));
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::compute::concat_batches;
    use kql::Type;
    use proptest::prelude::*;

    use super::*;
    use crate::ingest::read;

    fn table() -> Table {
        let mut table = Table::new(&"Db".into(), "T", 0);
        table.add_column("A", Type::Long);
        table.add_column("B", Type::String);
        table
    }

    fn limits(piece: u64) -> Limits {
        Limits { piece, record: 64, text: 1 << 20 }
    }

    proptest! {
        /// In pieces of any size the rows, or the refusal with its row, are those of the whole.
        #[test]
        fn pieces_give_what_the_whole_gives(
            text in "(\u{feff})?((1|22|,|\"a\"|\"a\n,\"|\"\"\"\"|x|\r\n|\n|\n\n|\"){0,40})",
            piece in 1u64..20,
            skip_first: bool,
            format in prop_oneof![Just(Format::Delimited(b',')), Just(Format::Json)],
        ) {
            let table = table();
            let reading = Reading { format, mapping: None, skip_first };
            let whole = read(&table, &reading, text.as_bytes());
            let pieces = read_stream(&table, &reading, text.as_bytes(), Limits { record: 1 << 20, ..limits(piece) });
            match (whole, pieces) {
                (Ok(whole), Ok((pieces, length))) => {
                    prop_assert_eq!(length, text.len() as u64);
                    let joined = concat_batches(&whole.schema(), &pieces);
                    prop_assert!(joined.as_ref().is_ok_and(|joined| *joined == whole), "{:?} and {:?}", joined, whole);
                }
                (Err(whole), Err(Unread::Bad(pieces))) => prop_assert_eq!(whole, pieces),
                (whole, pieces) => prop_assert!(false, "{whole:?} and {pieces:?}"),
            }
        }
    }

    #[test]
    fn limits_are_kept() {
        let csv = Reading { format: Format::Delimited(b','), mapping: None, skip_first: false };
        let refused =
            |reading: &Reading<'_>, text: &str, limits| read_stream(&table(), reading, text.as_bytes(), limits).unwrap_err().to_string();
        assert!(refused(&csv, &format!("1,a\n2,{}\n", "x".repeat(100)), limits(16)).contains("row 2 is longer"));
        assert!(refused(&csv, &"1,a\n".repeat(10), Limits { text: 20, ..limits(16) }).contains("longer than 20"));
        let multi = Reading { format: Format::MultiJson, ..csv };
        assert!(refused(&multi, &"{}".repeat(40), limits(16)).contains("multijson"));
    }
}
