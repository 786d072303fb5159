//! The two hashes that ADX-Mon writes into data and file names: SeriesId and the schema hash (XXH64, seed 0).

use crate::schema::Column;
use xxhash_rust::xxh64::xxh64;

/// SeriesId of a label set: XXH64 over name and value of every label in the given order, without separators,
/// read as a signed number.
pub fn series_id<'a>(labels: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> i64 {
    let mut text = Vec::with_capacity(256);
    for (name, value) in labels {
        text.extend_from_slice(name);
        text.extend_from_slice(value);
    }
    series_id_of(&text)
}

/// SeriesId of the concatenated names and values.
pub(crate) fn series_id_of(concatenated: &[u8]) -> i64 {
    xxh64(concatenated, 0).cast_signed()
}

/// Hash over name and type of each column, without separators.
pub fn schema_hash(columns: &[Column]) -> u64 {
    let mut text = Vec::with_capacity(256);
    for column in columns {
        text.extend_from_slice(column.name.as_bytes());
        text.extend_from_slice(column.kind.as_bytes());
    }
    xxh64(&text, 0)
}

/// A number in base 36 with lower-case letters, as in segment file names.
pub fn base36(mut number: u64) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut reversed = Vec::with_capacity(13);
    loop {
        let digit = usize::try_from(number % 36).unwrap_or(0);
        reversed.push(char::from(DIGITS[digit]));
        number /= 36;
        if number == 0 {
            return reversed.into_iter().rev().collect();
        }
    }
}
