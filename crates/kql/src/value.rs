//! Scalar values as the row evaluator sees them.

use std::sync::Arc;

use indexmap::IndexMap;
use rust_decimal::Decimal;

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
