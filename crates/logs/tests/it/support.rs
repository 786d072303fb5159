//! Vectors, and rows read back with other people's CSV and JSON readers.

use std::path::Path;
use std::sync::Arc;

use logs::{Entry, LineOptions, LineReader, Value};
use serde_json::Value as Json;

pub(crate) const NOW: u64 = 1_700_000_009_000_000_000;

/// A vector file.
pub(crate) fn vector(name: &str) -> Json {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/collector")).join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// A value of a vector, where `{"$float":"1"}` marks a float64.
pub(crate) fn value(json: &Json) -> Value {
    match json {
        Json::Object(object) if object.contains_key("$float") => Value::Float(object["$float"].as_str().unwrap().parse().unwrap()),
        Json::Object(object) => Value::Map(object.iter().map(|(key, item)| (key.clone(), value(item))).collect()),
        Json::Array(items) => Value::Array(items.iter().map(value).collect()),
        Json::String(text) => Value::from(text.as_str()),
        Json::Number(number) => number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap()), Value::Int),
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Null => Value::Null,
    }
}

/// An entry of its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Owned {
    pub(crate) timestamp: u64,
    pub(crate) stream: String,
    pub(crate) message: String,
    pub(crate) start: u64,
}

impl From<Entry<'_>> for Owned {
    fn from(entry: Entry<'_>) -> Self {
        let Entry { timestamp, stream, message, start, .. } = entry;
        Self { timestamp, stream: stream.to_owned(), message: message.to_owned(), start }
    }
}

/// Pushes lines one after the other; the entries of each.
pub(crate) fn push_all(reader: &mut LineReader, lines: &[&[u8]]) -> Vec<Vec<Owned>> {
    let mut start = 0;
    let mut all = Vec::new();
    for line in lines {
        let mut entries = Vec::new();
        reader.push(line, start, NOW, |entry| entries.push(entry.into()));
        start += line.len() as u64 + 1;
        all.push(entries);
    }
    all
}

pub(crate) fn reader(options: LineOptions) -> LineReader {
    LineReader::new(Arc::new(options))
}

pub(crate) fn messages(entries: &[Vec<Owned>]) -> Vec<&str> {
    entries.iter().flatten().map(|entry| entry.message.as_str()).collect()
}
