//! Files of vectors: inputs and what the reference made of them.

use serde_json::Value;
use std::path::Path;

/// A file of vectors.
pub(crate) fn vectors(file: &str) -> Value {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors")).join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// A text of a vector: a string, or `{"base64": …}` where it is not UTF-8.
pub(crate) fn vector_bytes(value: &Value) -> Vec<u8> {
    use base64::Engine as _;
    match value {
        Value::String(text) => text.clone().into_bytes(),
        other => base64::engine::general_purpose::STANDARD.decode(other["base64"].as_str().unwrap()).unwrap(),
    }
}
