//! JSON strings inside a quoted CSV field: JSON escapes first, then every quote doubled.
//!
//! `<`, `>`, `&`, U+2028 and U+2029 are escaped and a byte that is not UTF-8 becomes `\ufffd`, so that label sets
//! stay byte for byte what existing tables hold.

/// Writes `text` as a JSON string, delimiting quotes included, for a place inside a quoted CSV field.
#[inline]
pub fn json_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(b"\"\"");
    open_json_string(out, text);
    out.extend_from_slice(b"\"\"");
}

/// [`json_string`] without the delimiting quotes.
#[inline]
pub(crate) fn open_json_string(out: &mut Vec<u8>, text: &[u8]) {
    match find_special(text) {
        None => out.extend_from_slice(text),
        Some(at) => escape(out, text, at),
    }
}

#[cold]
#[inline(never)]
fn escape(out: &mut Vec<u8>, mut rest: &[u8], mut at: usize) {
    loop {
        out.extend_from_slice(&rest[..at]);
        if rest[at] >= 0x80 {
            let end = rest[at..].iter().position(u8::is_ascii).map_or(rest.len(), |n| at + n);
            escape_beyond_ascii(out, &rest[at..end]);
            rest = &rest[end..];
        } else {
            escape_ascii(out, rest[at]);
            rest = &rest[at + 1..];
        }
        match find_special(rest) {
            Some(next) => at = next,
            None => return out.extend_from_slice(rest),
        }
    }
}

fn escape_ascii(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\"\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        other => {
            out.extend_from_slice(b"\\u00");
            super::hex(out, &[other]);
        }
    }
}

fn escape_beyond_ascii(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\u{2028}' => out.extend_from_slice(b"\\u2028"),
                '\u{2029}' => out.extend_from_slice(b"\\u2029"),
                other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// Position of the first byte that cannot stand as it is: control characters, quotes, backslashes, `<>&` and
/// everything beyond ASCII. Eight bytes at a time.
#[inline]
fn find_special(text: &[u8]) -> Option<usize> {
    let (words, tail) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let found = special_mask(u64::from_le_bytes(*word));
        if found != 0 {
            return Some(index * 8 + (found.trailing_zeros() / 8) as usize);
        }
    }
    let start = words.len() * 8;
    tail.iter().position(|&byte| is_special(byte)).map(|at| start + at)
}

/// Whether all of a short text can stand in a JSON string as it is. Eight bytes at a time, the last eight again.
#[inline]
pub(crate) fn is_plain(text: &[u8]) -> bool {
    let special = |bytes: [u8; 8]| special_mask(u64::from_le_bytes(bytes));
    if let Some(last) = text.last_chunk::<8>() {
        let (words, _) = text.as_chunks::<8>();
        return words.iter().fold(special(*last), |found, word| found | special(*word)) == 0;
    }
    if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        let [a, b, c, d] = *first;
        let [e, f, g, h] = *last;
        return special([a, b, c, d, e, f, g, h]) == 0;
    }
    !text.iter().any(|&byte| is_special(byte))
}

#[inline]
fn is_special(byte: u8) -> bool {
    !(0x20..0x80).contains(&byte) || matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&')
}

/// High bit of each special byte of `word`; bits above the lowest one set may be wrong (borrows travel upwards).
#[inline]
fn special_mask(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES * 0x80;
    let zero_bytes = |v: u64| v.wrapping_sub(ONES) & !v;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote_or_ampersand = zero_bytes((word | (ONES * 0x04)) ^ (ONES * 0x26));
    let angle = zero_bytes((word | (ONES * 0x02)) ^ (ONES * 0x3e));
    let backslash = zero_bytes(word ^ (ONES * 0x5c));
    (word | control | quote_or_ampersand | angle | backslash) & HIGH
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// What a CSV reader and a JSON reader make of it.
    fn read_back(text: &[u8]) -> String {
        let mut row = b"\"".to_vec();
        json_string(&mut row, text);
        row.extend_from_slice(b"\",x\n");
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&row[..]);
        let record = reader.records().next().unwrap().unwrap();
        serde_json::from_str(&record[0]).unwrap()
    }

    proptest! {
        #[test]
        fn strings_survive_csv_and_json(text in "\\PC{0,40}|[\\x00-\\x7f]{0,40}") {
            prop_assert_eq!(read_back(text.as_bytes()), text);
        }

        #[test]
        fn any_bytes_give_readable_json(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            read_back(&bytes);
        }

        #[test]
        fn eight_at_a_time_finds_what_one_at_a_time_finds(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(is_plain(&bytes), !bytes.iter().any(|&b| is_special(b)));
            prop_assert_eq!(find_special(&bytes), bytes.iter().position(|&b| is_special(b)));
        }

        #[test]
        fn one_special_byte_is_found_wherever_it_is(len in 1usize..40, at in any::<prop::sample::Index>(), special in any::<u8>().prop_filter("special", |b| is_special(*b))) {
            let mut bytes = vec![b'a'; len];
            prop_assert!(is_plain(&bytes));
            bytes[at.index(len)] = special;
            prop_assert!(!is_plain(&bytes));
        }
    }
}
