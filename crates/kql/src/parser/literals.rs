//! Values of typed literals: `datetime(…)`, `timespan(…)`, `guid(…)`, `dynamic(…)`, `int(…)` and so on.

use std::sync::Arc;

use indexmap::IndexMap;
use rust_decimal::Decimal;

use crate::types::Type;
use crate::value::{Dynamic, Value, parse_datetime, parse_timespan};

/// Deepest nesting of a dynamic literal.
const MAX_DYNAMIC_DEPTH: usize = 100;

/// The value of `ty(raw)`; the error says what is wrong with it.
pub(super) fn typed(ty: Type, raw: &str) -> Result<Value, String> {
    let raw = raw.trim();
    if raw == "null" || (raw.is_empty() && ty != Type::Dynamic) {
        return Ok(Value::Null);
    }
    let inner = unquote(raw);
    if ty == Type::DateTime && inner.len() <= 4 && inner.bytes().all(|b| b.is_ascii_digit()) {
        // a number is not a date: Kusto reads `datetime(2025)` as null
        return Ok(Value::Null);
    }
    let wrong = || format!("'{}' is not a {ty} literal", raw.chars().take(60).collect::<String>());
    match ty {
        Type::Bool => boolean(inner).map(Value::Bool).ok_or_else(wrong),
        Type::Int => integer(inner).and_then(|n| i32::try_from(n).ok()).map(Value::Int).ok_or_else(wrong),
        Type::Long => integer(inner).map(Value::Long).ok_or_else(wrong),
        Type::Real => real(inner).map(Value::Real).ok_or_else(wrong),
        Type::Decimal => decimal(inner).map(Value::Decimal).ok_or_else(wrong),
        Type::DateTime => datetime(inner).map(Value::DateTime).ok_or_else(wrong),
        Type::TimeSpan => parse_timespan(inner).map(Value::TimeSpan).ok_or_else(wrong),
        Type::Guid => uuid::Uuid::try_parse(inner).map(|id| Value::Guid(id.as_u128())).map_err(|_| wrong()),
        Type::String => Ok(Value::String(inner.into())),
        Type::Dynamic => dynamic(raw),
    }
}

/// The content of a plain quoted text; other text as it is.
fn unquote(raw: &str) -> &str {
    let raw = raw.strip_prefix('@').unwrap_or(raw);
    for quote in ['"', '\''] {
        if let Some(inner) = raw.strip_prefix(quote).and_then(|r| r.strip_suffix(quote)) {
            return inner;
        }
    }
    raw
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        other => other.parse::<i64>().ok().map(|n| n != 0),
    }
}

fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text.strip_prefix('+').unwrap_or(text).trim_start()),
    };
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        let value = u64::from_str_radix(hex, 16).ok()?.cast_signed();
        return Some(if negative { value.wrapping_neg() } else { value });
    }
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let magnitude = digits.parse::<u64>().ok()?;
    match (negative, magnitude) {
        (true, m) if m <= i64::MIN.unsigned_abs() => Some(m.wrapping_neg().cast_signed()),
        (false, m) => i64::try_from(m).ok(),
        _ => None,
    }
}

fn real(text: &str) -> Option<f64> {
    match text.to_ascii_lowercase().as_str() {
        "nan" => Some(f64::NAN),
        "inf" | "+inf" | "infinity" | "+infinity" => Some(f64::INFINITY),
        "-inf" | "-infinity" => Some(f64::NEG_INFINITY),
        plain if plain.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+')) => plain.parse().ok(),
        _ => None,
    }
}

fn decimal(text: &str) -> Option<Decimal> {
    text.parse().or_else(|_| Decimal::from_scientific(text)).ok()
}

/// A datetime as it may stand in a literal: what the casts read, also with spaces around the hyphens of the date.
fn datetime(text: &str) -> Option<i64> {
    parse_datetime(text).or_else(|| parse_datetime(&text.replacen(" - ", "-", 2)))
}

/// The content of `dynamic(…)`: JSON, with KQL literals as values and either quote.
fn dynamic(raw: &str) -> Result<Value, String> {
    let mut reader = DynamicReader { text: raw, at: 0 };
    let value = reader.value(0)?;
    reader.spaces();
    if reader.at < raw.len() {
        return Err(format!("unexpected text in a dynamic literal at byte {}", reader.at));
    }
    Ok(match value {
        Dynamic::Null => Value::Null,
        other => Value::Dynamic(other),
    })
}

struct DynamicReader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> DynamicReader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        if self.rest().starts_with("//") {
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
            self.spaces();
        }
    }

    fn eat(&mut self, c: char) -> bool {
        self.spaces();
        let found = self.rest().starts_with(c);
        self.at += if found { c.len_utf8() } else { 0 };
        found
    }

    fn wrong(&self, wanted: &str) -> String {
        format!("a dynamic literal needs {wanted} at byte {}", self.at)
    }

    fn value(&mut self, depth: usize) -> Result<Dynamic, String> {
        if depth > MAX_DYNAMIC_DEPTH {
            return Err(format!("a dynamic literal is nested deeper than {MAX_DYNAMIC_DEPTH} levels"));
        }
        if self.eat('[') {
            return self.array(depth);
        }
        if self.eat('{') {
            return self.bag(depth);
        }
        let (value, length) = super::leading_literal(self.rest()).ok_or_else(|| self.wrong("a value"))?;
        self.at += length;
        Ok(value.to_dynamic())
    }

    fn array(&mut self, depth: usize) -> Result<Dynamic, String> {
        let mut items = Vec::new();
        while !self.eat(']') {
            items.push(self.value(depth + 1)?);
            if !self.eat(',') {
                if !self.eat(']') {
                    return Err(self.wrong("',' or ']'"));
                }
                break;
            }
        }
        Ok(Dynamic::Array(Arc::new(items)))
    }

    fn bag(&mut self, depth: usize) -> Result<Dynamic, String> {
        let mut bag = IndexMap::new();
        while !self.eat('}') {
            self.spaces();
            let (key, length) = match super::leading_literal(self.rest()) {
                Some((Value::String(key), length)) => (key, length),
                _ => return Err(self.wrong("a quoted key")),
            };
            self.at += length;
            if !self.eat(':') {
                return Err(self.wrong("':'"));
            }
            bag.insert(key, self.value(depth + 1)?);
            if !self.eat(',') {
                if !self.eat('}') {
                    return Err(self.wrong("',' or '}'"));
                }
                break;
            }
        }
        Ok(Dynamic::Bag(Arc::new(bag)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::UNIX_EPOCH_TICKS;

    #[test]
    fn typed_literals() {
        assert_eq!(typed(Type::Int, "null"), Ok(Value::Null));
        assert_eq!(typed(Type::Int, "-7"), Ok(Value::Int(-7)));
        assert_eq!(typed(Type::Long, "0xFF"), Ok(Value::Long(255)));
        assert_eq!(typed(Type::Bool, "1"), Ok(Value::Bool(true)));
        assert_eq!(typed(Type::Real, "-inf"), Ok(Value::Real(f64::NEG_INFINITY)));
        assert!(typed(Type::Int, "3000000000").is_err());
        assert!(typed(Type::Guid, "12").is_err());
    }

    #[test]
    fn dynamic_literals_are_json_with_kql_values() {
        let Ok(Value::Dynamic(Dynamic::Bag(bag))) = typed(Type::Dynamic, r#"{"a":[1,-2.5,null],'b':datetime(1970-01-01)}"#) else {
            panic!()
        };
        let items = vec![Dynamic::Long(1), Dynamic::Real(-2.5), Dynamic::Null];
        assert_eq!(bag["a"], Dynamic::Array(Arc::new(items)));
        assert_eq!(bag["b"], Dynamic::DateTime(UNIX_EPOCH_TICKS));
        assert!(typed(Type::Dynamic, "[1").is_err());
        assert!(typed(Type::Dynamic, &"[".repeat(100_000)).is_err());
        assert_eq!(typed(Type::Dynamic, "null"), Ok(Value::Null));
    }
}
