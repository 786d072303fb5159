//! Values of a record's body, attributes and resource, and their JSON inside a CSV row.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use telemetry::text;

/// Keys and their values, in the order of keys.
pub type Map = BTreeMap<String, Value>;

/// A value. Integers of 64 bits are exact.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// JSON's null.
    Null,
    /// A bool.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer beyond the range of `i64`, as JSON may have.
    Uint(u64),
    /// A floating-point number.
    Float(f64),
    /// Text.
    String(String),
    /// Bytes; base64 in JSON.
    Bytes(Vec<u8>),
    /// An array.
    Array(Vec<Value>),
    /// A map.
    Map(Map),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl Value {
    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether JSON can hold it. NaN and the infinities are left out of objects, as in OTLP's rows.
    pub(crate) fn is_writable(&self) -> bool {
        !matches!(self, Self::Float(number) if !number.is_finite())
    }

    /// Writes it as JSON inside a quoted CSV field.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Int(number) => text::integer(out, *number),
            Self::Uint(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Self::Float(number) if !number.is_finite() => out.extend_from_slice(b"null"),
            Self::Float(number) => text::real(out, *number),
            Self::String(string) => text::json_string(out, string.as_bytes()),
            Self::Bytes(bytes) => text::json_string(out, STANDARD.encode(bytes).as_bytes()),
            Self::Array(values) => {
                out.push(b'[');
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    value.write_json(out);
                }
                out.push(b']');
            }
            Self::Map(map) => write_object(out, map.iter().map(|(key, value)| (key.as_str(), value)), |_| false),
        }
    }

    /// The value as plain text: strings as they are, numbers and booleans as written, the rest as JSON; null is empty.
    pub fn to_text(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::String(text) => text.clone(),
            Self::Float(number) if !number.is_finite() => {
                let mut out = Vec::new();
                text::real(&mut out, *number);
                String::from_utf8_lossy(&out).into_owned()
            }
            Self::Bytes(bytes) => STANDARD.encode(bytes),
            other => {
                let mut out = Vec::new();
                other.write_json(&mut out);
                String::from_utf8_lossy(&out).replace("\"\"", "\"")
            }
        }
    }
}

/// Writes an object with the members whose keys are not hidden, as JSON inside a quoted CSV field.
pub(crate) fn write_object<'m>(out: &mut Vec<u8>, members: impl Iterator<Item = (&'m str, &'m Value)>, hidden: impl Fn(&str) -> bool) {
    out.push(b'{');
    let mut first = true;
    for (key, value) in members {
        if hidden(key) || !value.is_writable() {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        text::json_string(out, key.as_bytes());
        out.push(b':');
        value.write_json(out);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `to_text` turns the doubled quotes of CSV back, also where JSON itself has an empty string.
    #[test]
    fn text_of_containers_is_plain_json() {
        let map = Map::from([("a".to_owned(), Value::from("")), ("b".to_owned(), Value::Array(vec![Value::from("x\"y"), Value::Null]))]);
        assert_eq!(Value::Map(map).to_text(), r#"{"a":"","b":["x\"y",null]}"#);
        assert_eq!(Value::Uint(u64::MAX).to_text(), "18446744073709551615");
        assert_eq!(Value::Float(f64::NAN).to_text(), "NaN");
    }
}
