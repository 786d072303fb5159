//! What unit tests share.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

/// The cases of a vector of the reference.
pub(crate) fn vector(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/control").join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut value: Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(value["cases"].take()).unwrap()
}

pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// A duration as Go writes it; none is zero.
pub(crate) fn go(text: &str) -> Duration {
    if text.is_empty() { Duration::ZERO } else { crds::duration::parse(text).unwrap().unsigned_abs() }
}
