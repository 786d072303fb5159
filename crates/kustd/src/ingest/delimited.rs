//! Delimited text: CSV and its relatives, by the rules of RFC 4180. A record with fewer fields than the mapping asks
//! for has nulls there; a surplus of fields is ignored. What cannot be told apart into fields is refused.

use csv::{ByteRecord, ReaderBuilder};

use super::builder::ColumnBuilder;
use super::mapping::{CellRule, CellSource, Transform};
use super::{BadInput, Part, Taken, push_cell};
use crate::catalog::Table;

/// The mark of UTF-8 that a text may begin with.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads the records of `body` into `builders`, one per column of the table. Where more text follows, the last record is
/// left: it may go on there.
pub(super) fn read(
    body: &[u8],
    part: Part,
    delimiter: u8,
    skip_first: bool,
    table: &Table,
    rules: &[CellRule],
    builders: &mut [ColumnBuilder],
) -> Result<Taken, BadInput> {
    let mark = if part.before == 0 && body.starts_with(MARK) { MARK.len() } else { 0 };
    let body = &body[mark..];
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(body);
    let mut record = ByteRecord::new();
    // records, a header included: what an error counts
    let mut records = part.before;
    let header = part.before + 1;
    let rows_of = |records: u64| (records - part.before).saturating_sub(u64::from(skip_first));
    let mut last_start = 0u64;
    loop {
        let start = reader.position().byte();
        match reader.read_byte_record(&mut record) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return Err(BadInput::row(records + 1, error.to_string())),
        }
        last_start = start;
        if part.more && reader.position().byte() == body.len() as u64 {
            let bytes = mark + usize::try_from(start).unwrap_or(0);
            return Ok(Taken { bytes, records: records - part.before, rows: rows_of(records) });
        }
        records += 1;
        if skip_first && records == header {
            continue;
        }
        for ((rule, column), builder) in rules.iter().zip(&table.columns).zip(builders.iter_mut()) {
            let bad = |what| BadInput::cell(records, &column.name, what);
            match &rule.source {
                CellSource::Ordinal(at) => match record.get(*at) {
                    None => builder.push_null(),
                    Some(field) => {
                        let text = std::str::from_utf8(field).map_err(|_| bad("the field is not valid UTF-8"))?;
                        push_cell(builder, text, rule.transform);
                    }
                },
                CellSource::Constant(text) => push_cell(builder, text, Transform::None),
                CellSource::Absent => builder.push_null(),
                CellSource::Path(_) => return Err(bad("the mapping has a JSON path where the format needs an ordinal")),
            }
        }
    }
    let tail = body.get(usize::try_from(last_start).unwrap_or(0)..).unwrap_or_default();
    if !part.more && ends_inside_quotes(tail, delimiter) {
        let what = "the quoted field that begins in this row is not closed before the end of the body";
        return Err(BadInput::row(records, what));
    }
    Ok(Taken { bytes: mark + body.len(), records: records - part.before, rows: rows_of(records) })
}

/// Whether the record text ends while a quoted field is open: the reader would take the rest of the body as its value.
fn ends_inside_quotes(record: &[u8], delimiter: u8) -> bool {
    #[derive(PartialEq)]
    enum At {
        FieldStart,
        Plain,
        Quoted,
        /// Behind a quote inside a quoted field: it closes the field unless another quote follows.
        Closing,
    }
    let mut at = At::FieldStart;
    for byte in record {
        let separator = *byte == delimiter || matches!(byte, b'\n' | b'\r');
        at = match (at, byte) {
            (At::FieldStart, b'"') | (At::Closing, b'"') => At::Quoted,
            (At::Quoted, b'"') => At::Closing,
            (At::Quoted, _) => At::Quoted,
            _ if separator => At::FieldStart,
            _ => At::Plain,
        };
    }
    at == At::Quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_quotes_are_seen() {
        for (text, open) in [
            ("a,\"b", true),
            ("a,\"b\"\"", true),
            ("a,\"b\"", false),
            ("\"a\"\"b\",c\n", false),
            ("5\" pipe,x", false),
            ("\"a\nb\",\"\"", false),
        ] {
            assert_eq!(ends_inside_quotes(text.as_bytes(), b','), open, "{text}");
        }
    }
}
