//! Records of CSV text: newlines inside quotes do not end a record.

/// Number of records in `text`; a last record without newline counts.
pub fn records(text: &[u8]) -> u64 {
    Records::new(text).count() as u64
}

/// Iterates over records, each with its newline.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    /// Starts at the beginning of a record.
    pub fn new(text: &'a [u8]) -> Self {
        Records { rest: text }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let (record, rest) = self.rest.split_at(record_end(self.rest));
        self.rest = rest;
        Some(record)
    }
}

/// Position behind the newline that ends the first record.
fn record_end(text: &[u8]) -> usize {
    let mut quoted = false;
    let mut at = 0;
    // A doubled quote toggles twice, which leaves the state as it was.
    while let Some(found) = memchr::memchr2(b'"', b'\n', &text[at..]) {
        at += found + 1;
        match text[at - 1] {
            b'"' => quoted = !quoted,
            _ if !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_newlines_do_not_end_a_record() {
        assert_eq!(records(b""), 0);
        assert_eq!(records(b"a\n"), 1);
        assert_eq!(records(b"a\nb"), 2);
        assert_eq!(records(b"\"x\ny\",1\n2\n"), 2);
        assert_eq!(records(b"\"say \"\"hi\n\"\"\",1\n"), 1);
        let all: Vec<&[u8]> = Records::new(b"\"a\n\",1\nb\n").collect();
        assert_eq!(all, [&b"\"a\n\",1\n"[..], b"b\n"]);
    }
}
