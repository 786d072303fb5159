//! Casts with Kusto's rules: text that is not exactly a number is null, real to integer truncates and saturates, long
//! to int wraps, what cannot be converted is null.

use std::sync::Arc;

use rust_decimal::Decimal;
use rust_decimal::prelude::{FromPrimitive, ToPrimitive};

use super::{Dynamic, MAX_DATETIME_TICKS, Value, parse_datetime, parse_guid, parse_long, parse_real, parse_timespan};

/// `tobool`
pub fn to_bool(value: &Value) -> Value {
    let result = match value {
        Value::Bool(v) => Some(*v),
        Value::Int(v) => Some(*v != 0),
        Value::Long(v) => Some(*v != 0),
        Value::Real(v) => Some(*v != 0.0),
        Value::Decimal(v) => Some(!v.is_zero()),
        Value::String(v) => bool_of_text(v),
        Value::Dynamic(v) => return scalar(v).map_or(Value::Null, |v| to_bool(&v)),
        _ => None,
    };
    result.map_or(Value::Null, Value::Bool)
}

fn bool_of_text(text: &str) -> Option<bool> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        parse_long(text).map(|v| v != 0)
    }
}

/// `toint`
pub fn to_int(value: &Value) -> Value {
    let result = match value {
        Value::Int(v) => Some(*v),
        Value::Bool(v) => Some(i32::from(*v)),
        // Wraps: the low 32 bits.
        Value::Long(v) => Some(*v as i32),
        Value::Real(v) => v.is_finite().then_some(*v as i32),
        Value::Decimal(v) => v.trunc().to_i32(),
        Value::String(v) => parse_long(v).and_then(|v| i32::try_from(v).ok()),
        Value::Dynamic(v) => return scalar(v).map_or(Value::Null, |v| to_int(&v)),
        Value::DateTime(v) | Value::TimeSpan(v) => Some(*v as i32),
        _ => None,
    };
    result.map_or(Value::Null, Value::Int)
}

/// `tolong`
pub fn to_long(value: &Value) -> Value {
    let result = match value {
        Value::Long(v) => Some(*v),
        Value::Int(v) => Some(i64::from(*v)),
        Value::Bool(v) => Some(i64::from(*v)),
        Value::Real(v) => v.is_finite().then_some(*v as i64),
        Value::Decimal(v) => v.trunc().to_i64(),
        Value::String(v) => parse_long(v),
        Value::DateTime(v) | Value::TimeSpan(v) => Some(*v),
        Value::Dynamic(v) => return scalar(v).map_or(Value::Null, |v| to_long(&v)),
        _ => None,
    };
    result.map_or(Value::Null, Value::Long)
}

/// `toreal`, `todouble`
pub fn to_real(value: &Value) -> Value {
    let result = match value {
        Value::String(v) => parse_real(v),
        Value::Dynamic(v) => return scalar(v).map_or(Value::Null, |v| to_real(&v)),
        other => real_of(other),
    };
    result.map_or(Value::Null, Value::Real)
}

/// The double of a number, bool, datetime or timespan.
pub(crate) fn real_of(value: &Value) -> Option<f64> {
    match value {
        Value::Real(v) => Some(*v),
        Value::Int(v) => Some(f64::from(*v)),
        Value::Long(v) | Value::DateTime(v) | Value::TimeSpan(v) => Some(*v as f64),
        Value::Bool(v) => Some(f64::from(u8::from(*v))),
        Value::Decimal(v) => v.to_f64(),
        _ => None,
    }
}

/// `todecimal`
pub fn to_decimal(value: &Value) -> Value {
    let result = match value {
        Value::String(v) => decimal_of_text(v),
        Value::Dynamic(v) => return scalar(v).map_or(Value::Null, |v| to_decimal(&v)),
        other => decimal_of(other),
    };
    result.map_or(Value::Null, Value::Decimal)
}

fn decimal_of_text(text: &str) -> Option<Decimal> {
    let text = text.trim();
    text.parse().ok().or_else(|| Decimal::from_scientific(text).ok())
}

/// The decimal of a number or bool.
pub(crate) fn decimal_of(value: &Value) -> Option<Decimal> {
    match value {
        Value::Decimal(v) => Some(*v),
        Value::Int(v) => Some(Decimal::from(*v)),
        Value::Long(v) => Some(Decimal::from(*v)),
        Value::Real(v) => Decimal::from_f64(*v),
        Value::Bool(v) => Some(Decimal::from(u8::from(*v))),
        _ => None,
    }
}

/// `todatetime`; a number counts ticks.
pub fn to_datetime(value: &Value) -> Value {
    let ticks = match value {
        Value::DateTime(v) => Some(*v),
        Value::Int(v) => Some(i64::from(*v)),
        Value::Long(v) => Some(*v),
        Value::Real(v) => v.is_finite().then_some(*v as i64),
        Value::String(v) => parse_datetime(v),
        Value::Dynamic(v) => return scalar(v).map_or(Value::Null, |v| to_datetime(&v)),
        _ => None,
    };
    ticks.filter(|v| (0..=MAX_DATETIME_TICKS).contains(v)).map_or(Value::Null, Value::DateTime)
}

/// `totimespan`; a number counts ticks.
pub fn to_timespan(value: &Value) -> Value {
    let ticks = match value {
        Value::TimeSpan(v) => Some(*v),
        Value::Int(v) => Some(i64::from(*v)),
        Value::Long(v) => Some(*v),
        Value::Real(v) => v.is_finite().then_some(*v as i64),
        Value::String(v) => parse_timespan(v),
        Value::Dynamic(v) => return scalar(v).map_or(Value::Null, |v| to_timespan(&v)),
        _ => None,
    };
    ticks.map_or(Value::Null, Value::TimeSpan)
}

/// `toguid`
pub fn to_guid(value: &Value) -> Value {
    let guid = match value {
        Value::Guid(v) => Some(*v),
        Value::String(v) => parse_guid(v),
        Value::Dynamic(v) => return scalar(v).map_or(Value::Null, |v| to_guid(&v)),
        _ => None,
    };
    guid.map_or(Value::Null, Value::Guid)
}

/// `todynamic`, `parse_json`: text is read as JSON, or stays a string when it is none; the rest is wrapped.
pub fn to_dynamic(value: &Value) -> Value {
    match value {
        Value::String(v) if v.is_empty() => Value::Null,
        Value::String(v) => Value::dynamic(Dynamic::parse_json(v).unwrap_or_else(|| Dynamic::String(Arc::clone(v)))),
        other => Value::dynamic(other.to_dynamic()),
    }
}

/// The scalar inside a dynamic; None for arrays, bags and null.
fn scalar(value: &Dynamic) -> Option<Value> {
    match value {
        Dynamic::Null | Dynamic::Array(_) | Dynamic::Bag(_) => None,
        scalar => Some(scalar.to_value()),
    }
}
