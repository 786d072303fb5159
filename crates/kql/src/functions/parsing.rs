//! Text into parts: URLs, queries, paths, versions, CSV records, command lines.

use std::sync::Arc;

use indexmap::IndexMap;
use rust_decimal::Decimal;

use super::Function;
use super::signature::{Arg, Resolved, STR, constant_text, fixed};
use crate::types::Type;
use crate::value::{Dynamic, Value};

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("parse_url", |a| fixed(a, &[STR], Type::Dynamic), |_, a| parse_url(text(&a[0]))),
    Function::new(
        "parse_urlquery",
        |a| fixed(a, &[STR], Type::Dynamic),
        |_, a| bag(vec![("Query Parameters", query_parameters(text(&a[0]).trim_start_matches('?')))]),
    ),
    Function::new("parse_path", |a| fixed(a, &[STR], Type::Dynamic), |_, a| parse_path(text(&a[0]))),
    Function::new("parse_version", |a| fixed(a, &[STR], Type::Decimal), |_, a| parse_version(text(&a[0]))),
    Function::new("parse_csv", |a| fixed(a, &[STR], Type::Dynamic), |_, a| parse_csv(text(&a[0]))),
    Function::new("parse_command_line", resolve_command_line, |_, a| parse_command_line(text(&a[0]))),
    Function::new("url_encode", |a| fixed(a, &[STR], Type::String), |_, a| Value::string(encode(text(&a[0]), "+"))),
    Function::new("url_encode_component", |a| fixed(a, &[STR], Type::String), |_, a| Value::string(encode(text(&a[0]), "%20"))),
    Function::new("url_decode", |a| fixed(a, &[STR], Type::String), |_, a| Value::string(decode(text(&a[0])))),
];

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn bag(entries: Vec<(&str, Dynamic)>) -> Value {
    let bag: IndexMap<Arc<str>, Dynamic> = entries.into_iter().map(|(key, value)| (Arc::from(key), value)).collect();
    Value::Dynamic(Dynamic::Bag(Arc::new(bag)))
}

/// Scheme, host, port, path, user, password, query and fragment; empty where the URL has none.
fn parse_url(url: &str) -> Value {
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
    let (authority, path) = match rest.find('/') {
        Some(at) => (&rest[..at], &rest[at..]),
        None => (rest, ""),
    };
    let (user, address) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    // The colons inside of [..] belong to an IPv6 address.
    let (host, port) = match address.rfind(':').filter(|at| !address[*at..].contains(']')) {
        Some(at) => (&address[..at], &address[at + 1..]),
        None => (address, ""),
    };
    bag(vec![
        ("Scheme", Dynamic::string(scheme)),
        ("Host", Dynamic::string(host)),
        ("Port", Dynamic::string(port)),
        ("Path", Dynamic::string(path)),
        ("Username", Dynamic::string(user)),
        ("Password", Dynamic::string(password)),
        ("Query Parameters", query_parameters(query)),
        ("Fragment", Dynamic::string(fragment)),
    ])
}

fn query_parameters(query: &str) -> Dynamic {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    Dynamic::Bag(Arc::new(pairs.map(|(key, value)| (Arc::from(decode(key)), Dynamic::string(decode(value)))).collect()))
}

/// Scheme, root, directory, file name, extension and alternate data stream of a file path of Windows or Unix.
fn parse_path(path: &str) -> Value {
    let (scheme, rest) = match path.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None => ("", path),
    };
    let root_length = if rest.as_bytes().get(1) == Some(&b':') { 2 } else { usize::from(rest.starts_with('/')) };
    let root = if root_length == 2 { &rest[..2] } else { "" };
    let (rest, stream) = match rest[root.len()..].rfind(':') {
        Some(at) => (&rest[..root.len() + at], &rest[root.len() + at + 1..]),
        None => (rest, ""),
    };
    let (directory, file) = match rest.rfind(['/', '\\']) {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (root, &rest[root.len()..]),
    };
    let directory_name = directory.rsplit(['/', '\\']).next().unwrap_or("");
    let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
    bag(vec![
        ("Scheme", Dynamic::string(scheme)),
        ("RootPath", Dynamic::string(root)),
        ("DirectoryPath", Dynamic::string(directory)),
        ("DirectoryName", Dynamic::string(directory_name)),
        ("Filename", Dynamic::string(file)),
        ("Extension", Dynamic::string(extension)),
        ("AlternateDataStreamName", Dynamic::string(stream)),
    ])
}

/// One to four numbers of up to eight digits each, as one decimal in base 10^8.
fn parse_version(version: &str) -> Value {
    let parts: Vec<&str> = version.split('.').collect();
    if parts.len() > 4 {
        return Value::Null;
    }
    let mut total = Decimal::ZERO;
    for index in 0..4 {
        let part = match parts.get(index) {
            None => 0,
            Some(part) if part.len() <= 8 && part.bytes().all(|b| b.is_ascii_digit()) => match part.parse::<u32>() {
                Ok(part) => part,
                Err(_) => return Value::Null,
            },
            Some(_) => return Value::Null,
        };
        let scaled = total.checked_mul(Decimal::from(100_000_000)).and_then(|t| t.checked_add(Decimal::from(part)));
        match scaled {
            Some(scaled) => total = scaled,
            None => return Value::Null,
        }
    }
    Value::Decimal(total)
}

/// Fields of the first record, quoted as by RFC 4180.
fn parse_csv(source: &str) -> Value {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut chars = source.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                field.push('"');
                chars.next();
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => fields.push(Dynamic::string(std::mem::take(&mut field))),
            '\n' | '\r' if !quoted => break,
            c => field.push(c),
        }
    }
    fields.push(Dynamic::string(field));
    Value::array(fields)
}

fn resolve_command_line(args: &[Arg<'_>]) -> Result<Resolved, String> {
    match constant_text(args, 1) {
        Some(parser) if parser.eq_ignore_ascii_case("windows") => fixed(args, &[STR, STR], Type::Dynamic),
        _ => Err("argument 2 must be the constant \"windows\"".into()),
    }
}

/// Arguments as `CommandLineToArgvW` splits them: 2n backslashes before a quote are n, an odd one escapes the quote.
fn parse_command_line(line: &str) -> Value {
    let mut arguments = Vec::new();
    let mut current = String::new();
    let (mut quoted, mut started, mut slashes) = (false, false, 0_usize);
    for c in line.chars() {
        if c == '\\' {
            slashes += 1;
            started = true;
            continue;
        }
        if c == '"' {
            current.extend(std::iter::repeat_n('\\', slashes / 2));
            if slashes % 2 == 1 {
                current.push('"');
            } else {
                quoted = !quoted;
            }
            (slashes, started) = (0, true);
            continue;
        }
        current.extend(std::iter::repeat_n('\\', slashes));
        slashes = 0;
        if c.is_whitespace() && !quoted {
            if started {
                arguments.push(Dynamic::string(std::mem::take(&mut current)));
            }
            started = false;
        } else {
            current.push(c);
            started = true;
        }
    }
    current.extend(std::iter::repeat_n('\\', slashes));
    if started {
        arguments.push(Dynamic::string(current));
    }
    if arguments.is_empty() { Value::Null } else { Value::array(arguments) }
}

/// Percent-encodes with lower-case digits what is not unreserved.
fn encode(source: &str, space: &str) -> String {
    let mut out = String::with_capacity(source.len());
    for byte in source.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-_.!*()".contains(c) {
            out.push(c);
        } else if c == ' ' {
            out.push_str(space);
        } else {
            out.push_str(&format!("%{byte:02x}"));
        }
    }
    out
}

fn decode(source: &str) -> String {
    let mut out = Vec::with_capacity(source.len());
    let bytes = source.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let decoded = digits.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|d| u8::from_str_radix(d, 16).ok());
        match (decoded, bytes[at]) {
            (Some(byte), _) => {
                out.push(byte);
                at += 2;
            }
            (None, b'+') => out.push(b' '),
            (None, byte) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}
