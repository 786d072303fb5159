//! Vectors and scripted services.

use serde_json::Value;

use crate::fake::Asked;
use crate::world::TICK;

/// The cases of a vector file.
pub(crate) fn cases(file: &str) -> Vec<Value> {
    let path = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/control")).join(file);
    let mut all: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    match all["cases"].take() {
        Value::Array(cases) => cases,
        other => panic!("{file} has no cases: {other}"),
    }
}

/// The text of a JSON string.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string"))
}

/// Each window begins where the last successful one ended.
pub(crate) fn assert_touching(asked: &[Asked], failed: &[usize]) {
    let windows: Vec<_> = asked.iter().map(|asked| asked.window.unwrap()).collect();
    let mut expected = windows[0].0;
    for (at, (start, end)) in windows.iter().enumerate() {
        assert_eq!(*start, expected, "window {at} of {windows:?}");
        assert!(start < end);
        if !failed.contains(&at) {
            expected = *end + TICK;
        }
    }
}
