//! Words between blanks, as `field0`, `field1`, ….

use crate::value::{Map, Value};

/// Most words of a message; the last one is the rest of it.
const MAX_WORDS: usize = 10_000;

pub(super) fn parse(message: &str, body: &mut Map) {
    let mut rest = message.trim();
    for index in 0.. {
        if rest.is_empty() {
            return;
        }
        let end = if index + 1 == MAX_WORDS { None } else { rest.find(char::is_whitespace) };
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        body.insert(format!("field{index}"), Value::from(word));
        rest = after.trim_start();
    }
}
