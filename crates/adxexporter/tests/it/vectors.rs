//! Files of `tests/vectors/control`.

use serde_json::Value;

pub(crate) fn cases(file: &str) -> Vec<Value> {
    let path = format!("{}/../../tests/vectors/control/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let file: Value = serde_json::from_str(&text).unwrap();
    file["cases"].as_array().unwrap().clone()
}
