//! The format of Kubernetes' components: `Lmmdd hh:mm:ss.uuuuuu threadid file:line] "message" key="value"`.
//!
//! Texts in quotes are as Go's `strconv.Quote` writes them.

use super::keyvalue::unquoted;
use crate::record::{MESSAGE, Severity};
use crate::value::{Map, Value};

/// Adds what a message says; one that has no header of klog is kept as it is.
pub(super) fn parse(message: &str, body: &mut Map) -> Option<Severity> {
    let mut put = |key: &str, text: &str| {
        body.insert(key.to_owned(), Value::from(text));
    };
    let split = message.split_once(']').filter(|(header, _)| header.trim().is_empty() || severity(header).is_some());
    let Some((header, rest)) = split else {
        let text = message.trim();
        if !text.is_empty() {
            put(MESSAGE, text);
        }
        return None;
    };
    let fields: Vec<&str> = header.split_whitespace().take(5).collect();
    if let [level, time, thread, place, ..] = fields[..] {
        put("date", &level[1..]);
        put("timestamp", time);
        put("thread_id", thread);
        if let Some((file, line)) = place.split_once(':').filter(|(_, line)| !line.contains(':')) {
            put("filename", file);
            put("line_number", line);
        }
    }
    let rest = rest.trim();
    match structured(rest) {
        Some(Structured { prefix, text, pairs }) => {
            if !prefix.is_empty() {
                put("prefix", prefix);
            }
            put(MESSAGE, &text);
            for (key, value) in pairs {
                put(key, &value);
            }
        }
        None if rest.is_empty() => {}
        None => put(MESSAGE, rest),
    }
    severity(header)
}

/// What the letter in front of the date means.
fn severity(header: &str) -> Option<Severity> {
    let (&letter, date) = header.trim_start().split(char::is_whitespace).next()?.as_bytes().split_first()?;
    let severity = match letter {
        b'I' => Severity::Info,
        b'W' => Severity::Warn,
        b'E' => Severity::Error,
        b'F' => Severity::Fatal,
        _ => return None,
    };
    (date.len() == 4 && date.iter().all(u8::is_ascii_digit)).then_some(severity)
}

struct Structured<'t> {
    prefix: &'t str,
    text: String,
    pairs: Vec<(&'t str, String)>,
}

/// A message in quotes with pairs behind it. `None` when taking it apart would lose something of it.
fn structured(text: &str) -> Option<Structured<'_>> {
    let at = text.find('"')?;
    let prefix = text[..at].trim_end();
    let (quoted, mut rest) = unquote(&text[at..])?;
    let mut pairs: Vec<(&str, String)> = Vec::new();
    loop {
        let trimmed = rest.trim_start();
        let blanks = &rest[..rest.len() - trimmed.len()];
        if trimmed.is_empty() {
            break;
        }
        let end = trimmed.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(trimmed.len());
        match (trimmed[end..].strip_prefix('='), pairs.last_mut()) {
            (Some(value), _) => {
                let (value, after) = read_value(value);
                pairs.push((&trimmed[..end], value));
                rest = after;
            }
            // Values that were not quoted may have blanks.
            (None, Some((_, value))) => {
                value.push_str(blanks);
                value.push_str(&trimmed[..end]);
                rest = &trimmed[end..];
            }
            (None, None) => return None,
        }
    }
    (prefix.is_empty() || !pairs.is_empty()).then_some(Structured { prefix, text: quoted, pairs })
}

fn read_value(text: &str) -> (String, &str) {
    if let Some((value, rest)) = unquote(text).filter(|(_, rest)| rest.is_empty() || rest.starts_with(char::is_whitespace)) {
        return (value, rest);
    }
    let (word, rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
    (unquoted(word).to_owned(), rest)
}

/// Reads a string literal of Go at the start of `text`: its value, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = Vec::new();
    let mut rest = text.strip_prefix('"')?;
    loop {
        let at = rest.find(['"', '\\'])?;
        value.extend_from_slice(&rest.as_bytes()[..at]);
        let special = rest.as_bytes()[at];
        rest = &rest[at + 1..];
        if special == b'"' {
            return Some((String::from_utf8(value).unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned()), rest));
        }
        rest = unescape(rest, &mut value)?;
    }
}

/// Reads what follows a backslash.
fn unescape<'t>(text: &'t str, out: &mut Vec<u8>) -> Option<&'t str> {
    let kind = text.chars().next()?;
    let rest = &text[kind.len_utf8()..];
    let digits = |from: &'t str, count: usize, radix: u32| {
        let digits = from.get(..count)?;
        digits.bytes().all(|byte| char::from(byte).is_digit(radix)).then_some(())?;
        Some((u32::from_str_radix(digits, radix).ok()?, &from[count..]))
    };
    let simple = match kind {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' | '"' | '\'' => kind as u8,
        'x' | '0'..='7' => {
            let (byte, rest) = if kind == 'x' { digits(rest, 2, 16)? } else { digits(text, 3, 8)? };
            out.push(u8::try_from(byte).ok()?);
            return Some(rest);
        }
        'u' | 'U' => {
            let (code, rest) = digits(rest, if kind == 'u' { 4 } else { 8 }, 16)?;
            out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(rest);
        }
        _ => return None,
    };
    out.push(simple);
    Some(rest)
}
