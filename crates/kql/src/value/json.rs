//! JSON of dynamic values, with a depth limit.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Dynamic, Value, format_datetime, format_timespan};

impl Dynamic {
    /// Reads strict JSON, nested at most 127 deep. None if it is not JSON.
    pub fn parse_json(text: &str) -> Option<Dynamic> {
        serde_json::from_str(text).ok()
    }

    /// Compact JSON. Datetimes, timespans, guids and decimals are strings in their usual text form; NaN and the
    /// infinities, which JSON does not have, are strings too.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out);
        out
    }

    /// Appends compact JSON.
    pub fn write_json(&self, out: &mut String) {
        match self {
            Dynamic::Null => out.push_str("null"),
            Dynamic::Bool(v) => out.push_str(if *v { "true" } else { "false" }),
            Dynamic::Long(v) => {
                let _ = write!(out, "{v}");
            }
            Dynamic::Real(v) => write_real(*v, out),
            Dynamic::Decimal(v) => write_string(&v.normalize().to_string(), out),
            Dynamic::String(v) => write_string(v, out),
            Dynamic::DateTime(v) => write_string(&format_datetime(*v), out),
            Dynamic::TimeSpan(v) => write_string(&format_timespan(*v), out),
            Dynamic::Guid(v) => write_string(&uuid::Uuid::from_u128(*v).to_string(), out),
            Dynamic::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write_json(out);
                }
                out.push(']');
            }
            Dynamic::Bag(bag) => {
                out.push('{');
                for (index, (key, item)) in bag.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_string(key, out);
                    out.push(':');
                    item.write_json(out);
                }
                out.push('}');
            }
        }
    }
}

impl Value {
    /// The value as JSON, in the form that it has inside a dynamic.
    pub fn to_json(&self) -> String {
        self.to_dynamic().to_json()
    }
}

fn write_real(value: f64, out: &mut String) {
    if value.is_nan() {
        out.push_str("\"NaN\"");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" });
    } else {
        // The nearest of the shortest decimals, so that numbers read from JSON print as they were written.
        let _ = write!(out, "{value:?}");
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

impl<'de> Deserialize<'de> for Dynamic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DynamicVisitor)
    }
}

struct DynamicVisitor;

impl<'de> Visitor<'de> for DynamicVisitor {
    type Value = Dynamic;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Dynamic, E> {
        Ok(Dynamic::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Dynamic, E> {
        Ok(Dynamic::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Dynamic, E> {
        Ok(Dynamic::Long(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Dynamic, E> {
        Ok(i64::try_from(value).map_or(Dynamic::Real(value as f64), Dynamic::Long))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Dynamic, E> {
        Ok(Dynamic::Real(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Dynamic, E> {
        Ok(Dynamic::String(Arc::from(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Dynamic, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Dynamic::Array(Arc::new(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Dynamic, A::Error> {
        let mut bag = IndexMap::new();
        while let Some((key, item)) = map.next_entry::<Arc<str>, Dynamic>()? {
            bag.insert(key, item);
        }
        Ok(Dynamic::Bag(Arc::new(bag)))
    }
}
