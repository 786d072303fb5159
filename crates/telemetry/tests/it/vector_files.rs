//! Files of vectors: inputs and what the reference made of them.

use serde_json::Value;
use std::path::PathBuf;

/// A file of vectors; `None`, after saying so, where the folder is absent outside CI.
pub(crate) fn vectors(file: &str) -> Option<Value> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors");
    let folder = std::env::var_os("ADXMON_VECTORS").map_or_else(|| PathBuf::from(default), PathBuf::from);
    if !folder.is_dir() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no vectors in {}", folder.display());
        eprintln!("skipped: no vectors in {}", folder.display());
        return None;
    }
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}

/// A text of a vector: a string, or `{"base64": …}` where it is not UTF-8.
pub(crate) fn vector_bytes(value: &Value) -> Vec<u8> {
    use base64::Engine as _;
    match value {
        Value::String(text) => text.clone().into_bytes(),
        other => base64::engine::general_purpose::STANDARD.decode(other["base64"].as_str().unwrap()).unwrap(),
    }
}
