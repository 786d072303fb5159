//! `KeyValue` and `AnyValue`: read in place, written as JSON for a `dynamic` column or as the text of a label.

use crate::text;
use crate::wire::{self, Reader, Span, Value, WireError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Containers nested deeper than this are written as `"..."` (collector spec §7).
const MAX_DEPTH: usize = 20;

/// An `AnyValue`; containers and texts are spans of the body.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Any {
    Null,
    String(Span),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Span),
    Array(Span),
    Map(Span),
}

/// Reads an `AnyValue` message; of several members the last counts.
pub(crate) fn any(body: &[u8], message: Span) -> Result<Any, WireError> {
    let mut read = Any::Null;
    let mut fields = Reader::within(body, message);
    while let Some((field, value)) = fields.next()? {
        read = match (field, value) {
            (1, Value::Bytes(span)) => Any::String(span),
            (2, Value::Varint(number)) => Any::Bool(number != 0),
            (3, Value::Varint(number)) => Any::Int(number.cast_signed()),
            (4, Value::Fixed64(bits)) => Any::Double(f64::from_bits(bits)),
            (5, Value::Bytes(span)) => Any::Array(span),
            (6, Value::Bytes(span)) => Any::Map(span),
            (7, Value::Bytes(span)) => Any::Bytes(span),
            (1..=7, _) => return Err(fields.error("unexpected wire type")),
            _ => read,
        };
    }
    Ok(read)
}

/// Reads a `KeyValue` message.
#[inline]
pub(crate) fn key_value(body: &[u8], message: Span) -> Result<(Span, Any), WireError> {
    if let Some((key, value)) = wire::pair(body, message) {
        return match wire::single(body, value) {
            Some(text) => Ok((key, Any::String(text))),
            None => Ok((key, any(body, value)?)),
        };
    }
    any_key_value(body, message)
}

fn any_key_value(body: &[u8], message: Span) -> Result<(Span, Any), WireError> {
    let (mut key, mut read) = (Span::default(), Any::Null);
    let mut fields = Reader::within(body, message);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Bytes(span)) => key = span,
            (2, Value::Bytes(span)) => read = any(body, span)?,
            (1 | 2, _) => return Err(fields.error("unexpected wire type")),
            _ => {}
        }
    }
    Ok((key, read))
}

/// The members of an `ArrayValue` or `KeyValueList`, as spans of `AnyValue` or `KeyValue` messages.
pub(crate) fn members(body: &[u8], container: Span) -> impl Iterator<Item = Result<Span, WireError>> + '_ {
    let mut fields = Reader::within(body, container);
    std::iter::from_fn(move || {
        loop {
            match fields.next().transpose()? {
                Ok((1, Value::Bytes(span))) => return Some(Ok(span)),
                Ok((1, _)) => return Some(Err(fields.error("unexpected wire type"))),
                Ok(_) => {}
                Err(error) => {
                    fields = Reader::within(body, Span::default());
                    return Some(Err(error));
                }
            }
        }
    })
}

/// Whether JSON can hold the value. What it cannot hold is left out of objects.
pub(crate) fn is_writable(value: Any) -> bool {
    match value {
        Any::Null => false,
        Any::Double(number) => number.is_finite(),
        _ => true,
    }
}

/// Writes a value as JSON inside a quoted CSV field.
pub(crate) fn json(out: &mut Vec<u8>, body: &[u8], value: Any) -> Result<(), WireError> {
    nested_json(out, body, value, 0)
}

fn nested_json(out: &mut Vec<u8>, body: &[u8], value: Any, depth: usize) -> Result<(), WireError> {
    match value {
        Any::Null => out.extend_from_slice(b"null"),
        Any::String(span) => text::json_string(out, span.of(body)),
        Any::Bool(true) => out.extend_from_slice(b"true"),
        Any::Bool(false) => out.extend_from_slice(b"false"),
        Any::Int(number) => text::integer(out, number),
        Any::Double(number) if !number.is_finite() => out.extend_from_slice(b"null"),
        Any::Double(number) => text::real(out, number),
        Any::Bytes(span) => text::json_string(out, STANDARD.encode(span.of(body)).as_bytes()),
        Any::Array(_) | Any::Map(_) if depth >= MAX_DEPTH => text::json_string(out, b"..."),
        Any::Array(span) => {
            out.push(b'[');
            for (index, member) in members(body, span).enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                nested_json(out, body, any(body, member?)?, depth + 1)?;
            }
            out.push(b']');
        }
        Any::Map(span) => {
            out.push(b'{');
            let mut entries = sorted_entries(body, span)?;
            entries.retain(|entry| is_writable(entry.1));
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                text::json_string(out, key.of(body));
                out.push(b':');
                nested_json(out, body, value, depth + 1)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

/// The entries of a `KeyValueList` by key; of equal keys the last stays.
pub(crate) fn sorted_entries(body: &[u8], container: Span) -> Result<Vec<(Span, Any)>, WireError> {
    let mut entries = Vec::new();
    for member in members(body, container) {
        let member = member?;
        wire::push(&mut entries, key_value(body, member)?, member)?;
    }
    sort_entries(body, &mut entries);
    Ok(entries)
}

/// Sorts by key; of equal keys the last stays.
pub(crate) fn sort_entries(body: &[u8], entries: &mut Vec<(Span, Any)>) {
    if entries.is_sorted_by(|a, b| a.0.of(body) < b.0.of(body)) {
        return;
    }
    entries.reverse();
    entries.sort_by(|a, b| a.0.of(body).cmp(b.0.of(body)));
    entries.dedup_by(|later, earlier| later.0.of(body) == earlier.0.of(body));
}

/// Writes a value as the plain text that a label holds: numbers and booleans as written, containers as JSON.
pub(crate) fn label_text(out: &mut Vec<u8>, body: &[u8], value: Any) -> Result<(), WireError> {
    match value {
        Any::Null => {}
        Any::String(span) => out.extend_from_slice(span.of(body)),
        Any::Double(number) => text::real(out, number),
        Any::Bytes(span) => out.extend_from_slice(STANDARD.encode(span.of(body)).as_bytes()),
        Any::Bool(_) | Any::Int(_) => json(out, body, value)?,
        Any::Array(_) | Any::Map(_) => {
            let mut quoted = Vec::new();
            json(&mut quoted, body, value)?;
            undouble_quotes(out, &quoted);
        }
    }
    Ok(())
}

/// JSON as it stands in a CSV field, back into plain JSON.
fn undouble_quotes(out: &mut Vec<u8>, mut quoted: &[u8]) {
    while let Some(at) = memchr::memchr(b'"', quoted) {
        out.extend_from_slice(&quoted[..=at]);
        quoted = quoted.get(at + 2..).unwrap_or_default();
    }
    out.extend_from_slice(quoted);
}
