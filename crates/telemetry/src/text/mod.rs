//! Text forms inside a CSV row: fields, JSON strings, timestamps and numbers (ingestor spec §3).

mod joined;
mod json;
mod number;
mod time;

pub(crate) use joined::Joined;
pub use json::json_string;
pub(crate) use json::{is_plain, open_json_string};
pub use number::{go_float, integer, real};
pub(crate) use time::TimestampText;
pub use time::timestamp;

use memchr::memchr3;
use std::borrow::Cow;

/// Writes one CSV field, quoted only when it has to be: it contains a comma, quote or line end, starts with white
/// space, or is `\.`. Bytes that are not UTF-8 become U+FFFD.
pub fn csv_field(out: &mut Vec<u8>, field: &[u8]) {
    let text: Cow<'_, str> = String::from_utf8_lossy(field);
    let bytes = text.as_bytes();
    if !needs_quotes(&text) {
        out.extend_from_slice(bytes);
        return;
    }
    out.push(b'"');
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'"', rest) {
        out.extend_from_slice(&rest[..=at]);
        out.push(b'"');
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn needs_quotes(field: &str) -> bool {
    let bytes = field.as_bytes();
    field.chars().next().is_some_and(char::is_whitespace)
        || memchr3(b',', b'"', b'\n', bytes).is_some()
        || memchr::memchr(b'\r', bytes).is_some()
        || field == "\\."
}

/// Writes bytes as lower-case hexadecimal digits.
pub fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// Writes a CSV field that holds what `write` writes: JSON with its quotes doubled already. The field is quoted
/// when it contains a quote or comma.
pub fn json_field<E>(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
    let start = out.len();
    out.push(b'"');
    write(out)?;
    match &out[start + 1..] {
        b"{}" | b"[]" => {
            out.remove(start);
        }
        _ => out.push(b'"'),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What we write, a reader of the csv crate reads back.
        #[test]
        fn fields_survive_a_csv_reader(fields in prop::collection::vec("\\PC*|[ ,\"\r\na\\\\.]{0,6}", 2..6)) {
            let mut row = Vec::new();
            for field in &fields {
                if !row.is_empty() { row.push(b','); }
                csv_field(&mut row, field.as_bytes());
                if row.is_empty() { row.extend_from_slice(b"\"\""); }
            }
            row.push(b'\n');
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&row[..]);
            let record = reader.records().next().expect("a row").expect("readable");
            prop_assert_eq!(record.iter().collect::<Vec<_>>(), fields);
        }
    }
}
