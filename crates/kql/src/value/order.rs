//! Order of values for sorting and comparison operators, and hashable keys for grouping.

use std::cmp::Ordering;
use std::sync::Arc;

use rust_decimal::Decimal;

use super::{Dynamic, Value, cast};

/// A value as a key of a hash map: equal for values that group together (all NaN, -0.0 and 0.0, int and long).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// null
    Null,
    /// bool
    Bool(bool),
    /// int and long
    Integer(i64),
    /// real, as bits of a canonical NaN and zero
    Real(u64),
    /// decimal
    Decimal(Decimal),
    /// string
    String(Arc<str>),
    /// datetime
    DateTime(i64),
    /// timespan
    TimeSpan(i64),
    /// guid
    Guid(u128),
    /// Array or bag, as JSON
    Container(String),
}

impl Value {
    /// The key that rows with this value group by.
    pub fn group_key(&self) -> Key {
        match self {
            Value::Null => Key::Null,
            Value::Bool(v) => Key::Bool(*v),
            Value::Int(v) => Key::Integer(i64::from(*v)),
            Value::Long(v) => Key::Integer(*v),
            Value::Real(v) => Key::Real(canonical_bits(*v)),
            Value::Decimal(v) => Key::Decimal(v.normalize()),
            Value::String(v) => Key::String(v.clone()),
            Value::DateTime(v) => Key::DateTime(*v),
            Value::TimeSpan(v) => Key::TimeSpan(*v),
            Value::Guid(v) => Key::Guid(*v),
            Value::Dynamic(v) => v.group_key(),
        }
    }
}

impl Dynamic {
    /// The key that rows with this value group by.
    pub fn group_key(&self) -> Key {
        match self {
            Dynamic::Array(_) | Dynamic::Bag(_) => Key::Container(self.to_json()),
            scalar => scalar.to_value().group_key(),
        }
    }
}

fn canonical_bits(value: f64) -> u64 {
    if value.is_nan() {
        f64::NAN.to_bits()
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    }
}

/// Order of two values for sorting. Nulls come first (callers place them themselves); NaN comes before all numbers;
/// numbers of different types compare by value; values of unrelated types by type.
pub fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Bool(x), Value::Bool(y)) => x.cmp(y),
        (Value::String(x), Value::String(y)) => x.as_bytes().cmp(y.as_bytes()),
        (Value::DateTime(x), Value::DateTime(y)) | (Value::TimeSpan(x), Value::TimeSpan(y)) => x.cmp(y),
        (Value::Guid(x), Value::Guid(y)) => x.cmp(y),
        (Value::Dynamic(x), Value::Dynamic(y)) => compare_dynamic(x, y),
        (Value::Dynamic(x), y) => compare_dynamic(x, &y.to_dynamic()),
        (x, Value::Dynamic(y)) => compare_dynamic(&x.to_dynamic(), y),
        _ => compare_numbers(a, b).unwrap_or_else(|| rank(a).cmp(&rank(b))),
    }
}

/// Order of two dynamic values: by kind, then by value; containers by their JSON text.
pub fn compare_dynamic(a: &Dynamic, b: &Dynamic) -> Ordering {
    match (a, b) {
        (Dynamic::Array(_), Dynamic::Array(_)) | (Dynamic::Bag(_), Dynamic::Bag(_)) => a.to_json().cmp(&b.to_json()),
        (Dynamic::Array(_) | Dynamic::Bag(_), _) | (_, Dynamic::Array(_) | Dynamic::Bag(_)) => dynamic_rank(a).cmp(&dynamic_rank(b)),
        _ => compare(&a.to_value(), &b.to_value()),
    }
}

fn dynamic_rank(value: &Dynamic) -> u8 {
    match value {
        Dynamic::Array(_) => 20,
        Dynamic::Bag(_) => 21,
        scalar => rank(&scalar.to_value()),
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Int(_) | Value::Long(_) | Value::Real(_) | Value::Decimal(_) => 2,
        Value::DateTime(_) => 3,
        Value::TimeSpan(_) => 4,
        Value::Guid(_) => 5,
        Value::String(_) => 6,
        Value::Dynamic(_) => 7,
    }
}

/// Order of two numbers, NaN first; None if one is not a number.
fn compare_numbers(a: &Value, b: &Value) -> Option<Ordering> {
    let number = |v: &Value| matches!(v, Value::Int(_) | Value::Long(_) | Value::Real(_) | Value::Decimal(_));
    if !number(a) || !number(b) {
        return None;
    }
    if let (Some(x), Some(y)) = (a.as_long(), b.as_long()) {
        return Some(x.cmp(&y));
    }
    if matches!(a, Value::Real(_)) || matches!(b, Value::Real(_)) {
        let (x, y) = (cast::real_of(a)?, cast::real_of(b)?);
        return Some(match (x.is_nan(), y.is_nan()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            _ => x.partial_cmp(&y)?,
        });
    }
    Some(cast::decimal_of(a)?.cmp(&cast::decimal_of(b)?))
}
