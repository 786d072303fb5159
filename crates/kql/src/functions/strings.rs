//! String functions. Positions and lengths count characters (code points), from 0.

use std::sync::Arc;

use super::Function;
use super::signature::{DYNAMIC, LONG, Param, REAL, STR, fixed, optional, variadic};
use crate::types::Type;
use crate::value::{Dynamic, Value};

/// Longest text that a function may build, so that `strrep` and its kin cannot exhaust memory.
const MAX_TEXT: usize = 64 << 20;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("strlen", |a| fixed(a, &[STR], Type::Long), |_, a| Value::Long(text(&a[0]).chars().count() as i64)),
    Function::new("string_size", |a| fixed(a, &[STR], Type::Long), |_, a| Value::Long(text(&a[0]).len() as i64)),
    Function::new("strcat", |a| variadic(a, &[], Param::Text, 1, Type::String), |_, a| strcat(a)),
    Function::new("strcat_delim", |a| variadic(a, &[STR], Param::Text, 1, Type::String), |_, a| join(a[1..].iter().map(text), text(&a[0]))),
    Function::new("strcat_array", |a| fixed(a, &[DYNAMIC, STR], Type::String), |_, a| strcat_array(a)),
    Function::new("tolower", |a| fixed(a, &[STR], Type::String), |_, a| Value::string(text(&a[0]).to_lowercase())).alias(&["lower"]),
    Function::new("toupper", |a| fixed(a, &[STR], Type::String), |_, a| Value::string(text(&a[0]).to_uppercase())).alias(&["upper"]),
    Function::new(
        "reverse",
        |a| fixed(a, &[Param::Text], Type::String),
        |_, a| Value::string(text(&a[0]).chars().rev().collect::<String>()),
    ),
    Function::new("substring", |a| optional(a, &[STR, LONG, LONG], 2, Type::String), |_, a| substring(a)),
    Function::new("split", |a| optional(a, &[STR, STR, LONG], 2, Type::Dynamic), |_, a| split(a)),
    Function::new("replace_string", |a| fixed(a, &[STR, STR, STR], Type::String), |_, a| replace_string(a)),
    Function::new("replace_strings", |a| fixed(a, &[STR, DYNAMIC, DYNAMIC], Type::String), |_, a| replace_strings(a)),
    Function::new("strrep", |a| optional(a, &[Param::Text, LONG, Param::Text], 2, Type::String), |_, a| strrep(a)),
    Function::new("translate", |a| fixed(a, &[STR, STR, STR], Type::String), |_, a| translate(a)),
    Function::new("to_utf8", |a| fixed(a, &[STR], Type::Dynamic), |_, a| codepoints(&a[0])).alias(&["unicode_codepoints_from_string"]),
    Function::new("make_string", |a| variadic(a, &[], Param::Any, 1, Type::String), |_, a| make_string(a))
        .alias(&["unicode_codepoints_to_string"]),
    Function::new("format_bytes", |a| optional(a, &[REAL, LONG, STR], 1, Type::String), |_, a| format_bytes(a)),
    Function::new(
        "punycode_from_string",
        |a| fixed(a, &[STR], Type::String),
        |_, a| Value::string(idna::punycode::encode_str(text(&a[0])).unwrap_or_default()),
    ),
    Function::new(
        "punycode_to_string",
        |a| fixed(a, &[STR], Type::String),
        |_, a| Value::string(idna::punycode::decode_to_string(text(&a[0])).unwrap_or_default()),
    ),
];

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn strcat(args: &[Value]) -> Value {
    join(args.iter().map(text), "")
}

/// Joins pieces; null if the result would be too long to hold.
fn join<'a>(pieces: impl Iterator<Item = &'a str>, delimiter: &str) -> Value {
    let mut out = String::new();
    for (index, piece) in pieces.enumerate() {
        if index > 0 {
            out.push_str(delimiter);
        }
        out.push_str(piece);
        if out.len() > MAX_TEXT {
            return Value::string("");
        }
    }
    Value::string(out)
}

fn strcat_array(args: &[Value]) -> Value {
    let Some(items) = args[0].as_array() else {
        return Value::string("");
    };
    let pieces: Vec<String> = items.iter().map(Dynamic::to_text).collect();
    join(pieces.iter().map(String::as_str), text(&args[1]))
}

/// A negative start counts from the end; one before the text, or a negative length, gives nothing.
fn substring(args: &[Value]) -> Value {
    let source = text(&args[0]);
    let length = args.get(2).map_or(Some(i64::MAX), Value::as_long);
    let (Some(start), Some(length)) = (args[1].as_long(), length) else {
        return Value::string("");
    };
    let start = if start < 0 { source.chars().count() as i64 + start } else { start };
    if start < 0 || length <= 0 {
        return Value::string("");
    }
    let skip = usize::try_from(start).unwrap_or(usize::MAX);
    let take = usize::try_from(length).unwrap_or(usize::MAX);
    Value::string(source.chars().skip(skip).take(take).collect::<String>())
}

fn split(args: &[Value]) -> Value {
    let (source, delimiter) = (text(&args[0]), text(&args[1]));
    let mut parts: Box<dyn Iterator<Item = &str>> =
        if delimiter.is_empty() { Box::new(std::iter::once(source)) } else { Box::new(source.split(delimiter)) };
    match args.get(2) {
        None => Value::array(parts.map(Dynamic::string).collect()),
        Some(index) => {
            let index = index.as_long().and_then(|index| usize::try_from(index).ok());
            let part = index.and_then(|index| parts.nth(index));
            part.map_or(Value::Null, |part| Value::array(vec![Dynamic::string(part)]))
        }
    }
}

fn replace_string(args: &[Value]) -> Value {
    let (source, lookup) = (text(&args[0]), text(&args[1]));
    if lookup.is_empty() { args[0].clone() } else { bounded(source.replace(lookup, text(&args[2]))) }
}

fn bounded(out: String) -> Value {
    Value::string(if out.len() > MAX_TEXT { String::new() } else { out })
}

/// Replaces many texts; what one replacement has put in is not searched again.
fn replace_strings(args: &[Value]) -> Value {
    let (Some(lookups), Some(rewrites)) = (args[1].as_array(), args[2].as_array()) else {
        return args[0].clone();
    };
    if lookups.len() != rewrites.len() {
        return Value::string("");
    }
    let mut pieces = vec![(text(&args[0]).to_owned(), false)];
    for (lookup, rewrite) in lookups.iter().zip(rewrites.iter()) {
        let (lookup, rewrite) = (lookup.to_text(), rewrite.to_text());
        if !lookup.is_empty() {
            pieces = pieces.into_iter().flat_map(|piece| replace_piece(piece, &lookup, &rewrite)).collect();
        }
        if pieces.iter().map(|(piece, _)| piece.len()).sum::<usize>() > MAX_TEXT {
            return Value::string("");
        }
    }
    Value::string(pieces.into_iter().map(|(piece, _)| piece).collect::<String>())
}

/// Cuts a piece of text, with whether it was put in, at each occurrence of a lookup.
fn replace_piece((piece, replaced): (String, bool), lookup: &str, rewrite: &str) -> Vec<(String, bool)> {
    if replaced || !piece.contains(lookup) {
        return vec![(piece, replaced)];
    }
    let mut out = Vec::new();
    for (index, part) in piece.split(lookup).enumerate() {
        if index > 0 {
            out.push((rewrite.to_owned(), true));
        }
        if !part.is_empty() {
            out.push((part.to_owned(), false));
        }
    }
    out
}

/// Repeats at most 1024 times, as Kusto does.
fn strrep(args: &[Value]) -> Value {
    let Some(times) = args[1].as_long() else {
        return Value::string("");
    };
    let times = usize::try_from(times.clamp(0, 1024)).unwrap_or(0);
    join(std::iter::repeat_n(text(&args[0]), times), args.get(2).map_or("", text))
}

/// Replaces the characters of one list by those at the same place of another, whose last character stands for the
/// rest; an empty replacement list removes.
fn translate(args: &[Value]) -> Value {
    let search: Vec<char> = text(&args[0]).chars().collect();
    let replacement: Vec<char> = text(&args[1]).chars().collect();
    let replaced = text(&args[2]).chars().filter_map(|c| match search.iter().position(|s| *s == c) {
        None => Some(c),
        Some(index) => replacement.get(index).or(replacement.last()).copied(),
    });
    Value::string(replaced.collect::<String>())
}

fn codepoints(value: &Value) -> Value {
    Value::array(text(value).chars().map(|c| Dynamic::Long(i64::from(u32::from(c)))).collect())
}

fn make_string(args: &[Value]) -> Value {
    fn append(value: &Dynamic, out: &mut String) -> Option<()> {
        match value {
            Dynamic::Long(code) => out.push(char::from_u32(u32::try_from(*code).ok()?)?),
            Dynamic::String(text) => out.push_str(text),
            Dynamic::Array(items) => items.iter().try_for_each(|item| append(item, out))?,
            _ => return None,
        }
        Some(())
    }
    let mut out = String::new();
    let complete = args.iter().try_for_each(|arg| append(&arg.to_dynamic(), &mut out));
    complete.map_or_else(|| Value::string(""), |()| Value::String(Arc::from(out)))
}

/// `format_bytes(1024)` is `1 KB`.
fn format_bytes(args: &[Value]) -> Value {
    const UNITS: [&str; 7] = ["Bytes", "KB", "MB", "GB", "TB", "PB", "EB"];
    let Value::Real(value) = args[0] else {
        return Value::string("");
    };
    let precision = args.get(1).and_then(Value::as_long).unwrap_or(0).clamp(0, 15) as usize;
    let index = match args.get(2).map(text).filter(|unit| !unit.is_empty()) {
        Some(wanted) => match UNITS.iter().position(|unit| unit.eq_ignore_ascii_case(wanted)) {
            Some(index) => index,
            None => return Value::string(""),
        },
        None => (0..UNITS.len()).rev().find(|i| value.abs() >= 1024_f64.powi(*i as i32)).unwrap_or(0),
    };
    let scaled = value / 1024_f64.powi(index as i32);
    let mut number = format!("{scaled:.precision$}");
    if number.contains('.') {
        number.truncate(number.trim_end_matches('0').trim_end_matches('.').len());
    }
    Value::string(format!("{number} {}", UNITS[index]))
}
