//! The custom resources against the specification's vectors and field tables.

#![allow(clippy::unwrap_used)]

mod conditions;
mod criteria;
mod decoding;
mod duration;
mod rules;
mod schema;

use serde_json::Value;

/// The cases of a file of vectors.
fn cases(name: &str) -> Vec<Value> {
    let path = format!("{}/../../tests/vectors/control/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let file: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    file["cases"].as_array().unwrap().clone()
}
