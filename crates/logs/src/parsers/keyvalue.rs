//! `key=value` pairs between blanks; values may be quoted, and become bools and numbers where they look like it.

use crate::record::MESSAGE;
use crate::value::{Map, Value};

/// Most pairs of a message; what comes after them stands under `message`.
const MAX_PAIRS: usize = 10_000;

/// Adds the pairs of a message. Of equal keys the last counts; a word without `=` is a key with an empty text.
pub(super) fn parse(message: &str, body: &mut Map) {
    let mut rest = message;
    for _ in 0..MAX_PAIRS {
        let Some((word, after)) = next_word(rest) else { return };
        let (key, text) = word.split_once('=').unwrap_or((word, ""));
        body.insert(key.to_owned(), value(unquoted(text)));
        rest = after;
    }
    if next_word(rest).is_some() {
        body.insert(MESSAGE.to_owned(), Value::from(rest));
    }
}

/// The text up to the next blank outside quotes, and what follows. A quote after a backslash is no quote.
fn next_word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let mut open = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' | '\'' if !escaped => match open {
                None => open = Some(c),
                Some(quote) if quote == c => open = None,
                Some(_) => {}
            },
            _ if open.is_none() && c.is_whitespace() => return Some((&text[..at], &text[at..])),
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    (!text.is_empty()).then_some((text, ""))
}

/// A text without the pair of quotes around it; escapes inside stay.
pub(super) fn unquoted(text: &str) -> &str {
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

fn value(text: &str) -> Value {
    if text.eq_ignore_ascii_case("true") {
        return Value::Bool(true);
    }
    if text.eq_ignore_ascii_case("false") {
        return Value::Bool(false);
    }
    number(text).unwrap_or_else(|| Value::from(text))
}

/// Digits with an optional sign, and at most one dot among them. No exponents; what does not fit stays text.
fn number(text: &str) -> Option<Value> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let dots = digits.bytes().filter(|byte| *byte == b'.').count();
    let has_digits = digits.bytes().any(|byte| byte.is_ascii_digit());
    if !has_digits || dots > 1 || !digits.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit()) {
        return None;
    }
    if dots == 0 { text.parse().ok().map(Value::Int) } else { text.parse().ok().map(Value::Float) }
}
