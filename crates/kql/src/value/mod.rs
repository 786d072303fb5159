//! Scalar values as the row evaluator sees them: text forms, JSON, casts, order and hashable keys.

mod cast;
mod json;
mod order;
#[cfg(test)]
mod tests;
mod text;
mod time;

pub use cast::{to_bool, to_datetime, to_decimal, to_dynamic, to_guid, to_int, to_long, to_real, to_timespan};
pub use order::{Key, compare, compare_dynamic};
pub use text::{format_real, parse_guid, parse_long, parse_real};
pub use time::{
    CivilTime, MAX_DATETIME_TICKS, civil_from_ticks, days_in_month, format_datetime, format_timespan, parse_datetime, parse_timespan,
    ticks_from_civil,
};

use std::sync::Arc;

use indexmap::IndexMap;
use rust_decimal::Decimal;

use crate::types::Type;

/// Ticks (100 ns) in one second.
pub const TICKS_PER_SECOND: i64 = 10_000_000;
/// Ticks in one day.
pub const TICKS_PER_DAY: i64 = 86_400 * TICKS_PER_SECOND;
/// Ticks from 0001-01-01 to 1970-01-01.
pub const UNIX_EPOCH_TICKS: i64 = 621_355_968_000_000_000;

/// One scalar. The type is known statically, so null carries none. A string is never [`Value::Null`]:
/// the empty string stands for it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// null of any type but string
    Null,
    /// bool
    Bool(bool),
    /// int
    Int(i32),
    /// long
    Long(i64),
    /// real
    Real(f64),
    /// decimal
    Decimal(Decimal),
    /// string
    String(Arc<str>),
    /// datetime: ticks since year 1
    DateTime(i64),
    /// timespan: ticks
    TimeSpan(i64),
    /// guid: big-endian 128 bits, as printed
    Guid(u128),
    /// dynamic; a JSON null inside a dynamic column is [`Value::Null`]
    Dynamic(Dynamic),
}

/// A dynamic value. Cheap to clone: arrays and bags are shared.
#[derive(Debug, Clone, PartialEq)]
pub enum Dynamic {
    /// JSON null, inside arrays and bags
    Null,
    /// boolean
    Bool(bool),
    /// integer
    Long(i64),
    /// floating point
    Real(f64),
    /// decimal literal inside a dynamic
    Decimal(Decimal),
    /// string
    String(Arc<str>),
    /// datetime literal inside a dynamic, ticks
    DateTime(i64),
    /// timespan literal inside a dynamic, ticks
    TimeSpan(i64),
    /// guid literal inside a dynamic
    Guid(u128),
    /// array
    Array(Arc<Vec<Dynamic>>),
    /// property bag, in insertion order
    Bag(Arc<IndexMap<Arc<str>, Dynamic>>),
}

impl Value {
    /// The null of a type: the empty string for strings.
    pub fn null_of(ty: Type) -> Value {
        if ty == Type::String { Value::String(Arc::from("")) } else { Value::Null }
    }

    /// A string value.
    pub fn string(text: impl AsRef<str>) -> Value {
        Value::String(Arc::from(text.as_ref()))
    }

    /// Whether it is null; an empty string is not.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The type; None for null.
    pub fn ty(&self) -> Option<Type> {
        Some(match self {
            Value::Null => return None,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Long(_) => Type::Long,
            Value::Real(_) => Type::Real,
            Value::Decimal(_) => Type::Decimal,
            Value::String(_) => Type::String,
            Value::DateTime(_) => Type::DateTime,
            Value::TimeSpan(_) => Type::TimeSpan,
            Value::Guid(_) => Type::Guid,
            Value::Dynamic(_) => Type::Dynamic,
        })
    }

    /// The value as an element of an array or bag.
    pub fn to_dynamic(&self) -> Dynamic {
        match self {
            Value::Null => Dynamic::Null,
            Value::Bool(v) => Dynamic::Bool(*v),
            Value::Int(v) => Dynamic::Long(i64::from(*v)),
            Value::Long(v) => Dynamic::Long(*v),
            Value::Real(v) => Dynamic::Real(*v),
            Value::Decimal(v) => Dynamic::Decimal(*v),
            Value::String(v) => Dynamic::String(v.clone()),
            Value::DateTime(v) => Dynamic::DateTime(*v),
            Value::TimeSpan(v) => Dynamic::TimeSpan(*v),
            Value::Guid(v) => Dynamic::Guid(*v),
            Value::Dynamic(v) => v.clone(),
        }
    }

    /// A value of type dynamic; JSON null becomes [`Value::Null`].
    pub fn dynamic(value: Dynamic) -> Value {
        if matches!(value, Dynamic::Null) { Value::Null } else { Value::Dynamic(value) }
    }

    /// The scalar inside a dynamic, see [`Dynamic::to_value`].
    pub fn from_dynamic(value: Dynamic) -> Value {
        value.to_value()
    }

    /// A dynamic array.
    pub fn array(items: Vec<Dynamic>) -> Value {
        Value::Dynamic(Dynamic::Array(Arc::new(items)))
    }

    /// The elements of a dynamic array.
    pub fn as_array(&self) -> Option<&Arc<Vec<Dynamic>>> {
        match self {
            Value::Dynamic(Dynamic::Array(items)) => Some(items),
            _ => None,
        }
    }

    /// The properties of a dynamic bag.
    pub fn as_bag(&self) -> Option<&Arc<IndexMap<Arc<str>, Dynamic>>> {
        match self {
            Value::Dynamic(Dynamic::Bag(bag)) => Some(bag),
            _ => None,
        }
    }

    /// An integer out of int, long or a dynamic integer.
    pub fn as_long(&self) -> Option<i64> {
        match self {
            Value::Int(v) => Some(i64::from(*v)),
            Value::Long(v) | Value::Dynamic(Dynamic::Long(v)) => Some(*v),
            _ => None,
        }
    }

    /// Text of a string, also of one inside a dynamic.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(v) | Value::Dynamic(Dynamic::String(v)) => Some(v),
            _ => None,
        }
    }
}

impl Dynamic {
    /// A string element.
    pub fn string(text: impl AsRef<str>) -> Dynamic {
        Dynamic::String(Arc::from(text.as_ref()))
    }

    /// An array of elements.
    pub fn array(items: Vec<Dynamic>) -> Dynamic {
        Dynamic::Array(Arc::new(items))
    }

    /// The scalar inside as a typed value; arrays and bags stay dynamic, JSON null is [`Value::Null`].
    pub fn to_value(&self) -> Value {
        match self {
            Dynamic::Null => Value::Null,
            Dynamic::Bool(v) => Value::Bool(*v),
            Dynamic::Long(v) => Value::Long(*v),
            Dynamic::Real(v) => Value::Real(*v),
            Dynamic::Decimal(v) => Value::Decimal(*v),
            Dynamic::String(v) => Value::String(v.clone()),
            Dynamic::DateTime(v) => Value::DateTime(*v),
            Dynamic::TimeSpan(v) => Value::TimeSpan(*v),
            Dynamic::Guid(v) => Value::Guid(*v),
            Dynamic::Array(_) | Dynamic::Bag(_) => Value::Dynamic(self.clone()),
        }
    }

    /// The number inside, if it is one.
    pub fn as_real(&self) -> Option<f64> {
        match self {
            Dynamic::Long(v) => Some(*v as f64),
            Dynamic::Real(v) => Some(*v),
            Dynamic::Decimal(v) => num_from_decimal(*v),
            _ => None,
        }
    }
}

/// The nearest double of a decimal.
fn num_from_decimal(value: Decimal) -> Option<f64> {
    use rust_decimal::prelude::ToPrimitive;
    value.to_f64()
}
