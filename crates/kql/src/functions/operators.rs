//! Arithmetic and logic. Integers wrap and compute as long; division by zero is null for integers and decimals and an
//! infinity for reals; the remainder is never negative; a null operand makes null.

use rust_decimal::Decimal;

use super::Function;
use super::signature::{Arg, BOOL, Resolved, fixed, variadic, wider, wrong_count};
use crate::types::Type;
use crate::value::{MAX_DATETIME_TICKS, Value};

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("+", resolve_add, |_, a| add(&a[0], &a[1])),
    Function::new("-", resolve_subtract, |_, a| subtract(&a[0], &a[1])),
    Function::new("*", resolve_multiply, |_, a| multiply(&a[0], &a[1])),
    Function::new("/", resolve_divide, |_, a| divide(&a[0], &a[1])),
    Function::new("%", resolve_remainder, |_, a| remainder(&a[0], &a[1])),
    Function::new("neg", resolve_negate, |_, a| negate(&a[0])),
    Function::new("and", |a| variadic(a, &[], BOOL, 2, Type::Bool), |_, a| all_true(a)),
    Function::new("or", |a| variadic(a, &[], BOOL, 2, Type::Bool), |_, a| any_true(a)),
    Function::new("not", |a| fixed(a, &[BOOL], Type::Bool), |_, a| not(&a[0])),
];

fn pair(args: &[Arg<'_>]) -> Result<(Type, Type), String> {
    match args {
        [a, b] => Ok((a.ty, b.ty)),
        _ => Err(wrong_count(args.len(), 2, Some(2))),
    }
}

fn resolved(ty: Type, a: Type, b: Type) -> Result<Resolved, String> {
    Ok(Resolved { ty, args: vec![a, b] })
}

/// The numeric overload: both operands in the wider type, never below long. A dynamic operand counts as the other
/// operand's type, at least real.
fn numeric(a: Type, b: Type, operator: &str) -> Result<Resolved, String> {
    let number = |ty: Type| match ty {
        Type::Dynamic => Some(Type::Real),
        Type::Bool => Some(Type::Long),
        ty if ty.is_numeric() => Some(ty),
        _ => None,
    };
    match (number(a), number(b)) {
        (Some(x), Some(y)) => {
            let ty = wider(wider(x, y), Type::Long);
            resolved(ty, ty, ty)
        }
        _ => Err(format!("operator {operator} is not defined for {a} and {b}")),
    }
}

fn resolve_add(args: &[Arg<'_>]) -> Result<Resolved, String> {
    use Type::{DateTime, Dynamic, TimeSpan};
    match pair(args)? {
        (DateTime, TimeSpan | Dynamic) => resolved(DateTime, DateTime, TimeSpan),
        (TimeSpan | Dynamic, DateTime) => resolved(DateTime, TimeSpan, DateTime),
        (TimeSpan, TimeSpan | Dynamic) | (Dynamic, TimeSpan) => resolved(TimeSpan, TimeSpan, TimeSpan),
        (a, b) => numeric(a, b, "+"),
    }
}

fn resolve_subtract(args: &[Arg<'_>]) -> Result<Resolved, String> {
    use Type::{DateTime, Dynamic, TimeSpan};
    match pair(args)? {
        (DateTime, DateTime | Dynamic) | (Dynamic, DateTime) => resolved(TimeSpan, DateTime, DateTime),
        (DateTime, TimeSpan) => resolved(DateTime, DateTime, TimeSpan),
        (TimeSpan, TimeSpan | Dynamic) | (Dynamic, TimeSpan) => resolved(TimeSpan, TimeSpan, TimeSpan),
        (a, b) => numeric(a, b, "-"),
    }
}

fn resolve_multiply(args: &[Arg<'_>]) -> Result<Resolved, String> {
    use Type::TimeSpan;
    match pair(args)? {
        (TimeSpan, b) if b.is_numeric() => resolved(TimeSpan, TimeSpan, scale_type(b)),
        (a, TimeSpan) if a.is_numeric() => resolved(TimeSpan, scale_type(a), TimeSpan),
        (a, b) => numeric(a, b, "*"),
    }
}

fn scale_type(ty: Type) -> Type {
    if matches!(ty, Type::Int | Type::Long) { Type::Long } else { Type::Real }
}

fn resolve_divide(args: &[Arg<'_>]) -> Result<Resolved, String> {
    use Type::{Dynamic, Real, TimeSpan};
    match pair(args)? {
        (TimeSpan, TimeSpan | Dynamic) | (Dynamic, TimeSpan) => resolved(Real, TimeSpan, TimeSpan),
        (TimeSpan, b) if b.is_numeric() => resolved(TimeSpan, TimeSpan, scale_type(b)),
        (a, b) => numeric(a, b, "/"),
    }
}

fn resolve_remainder(args: &[Arg<'_>]) -> Result<Resolved, String> {
    use Type::{DateTime, TimeSpan};
    match pair(args)? {
        (TimeSpan, TimeSpan) => resolved(TimeSpan, TimeSpan, TimeSpan),
        (DateTime, TimeSpan) => resolved(TimeSpan, DateTime, TimeSpan),
        (a, b) => numeric(a, b, "%"),
    }
}

fn resolve_negate(args: &[Arg<'_>]) -> Result<Resolved, String> {
    let ty = match args {
        [a] if a.ty.is_numeric() || a.ty == Type::TimeSpan => a.ty,
        [a] if a.ty == Type::Dynamic => Type::Real,
        [a] => return Err(format!("operator - is not defined for {}", a.ty)),
        _ => return Err(wrong_count(args.len(), 1, Some(1))),
    };
    Ok(Resolved { ty, args: vec![ty] })
}

/// Ticks as a datetime; null outside of the years 1 to 9999.
pub(super) fn datetime(ticks: Option<i64>) -> Value {
    ticks.filter(|t| (0..=MAX_DATETIME_TICKS).contains(t)).map_or(Value::Null, Value::DateTime)
}

fn timespan(ticks: Option<i64>) -> Value {
    ticks.map_or(Value::Null, Value::TimeSpan)
}

fn decimal(value: Option<Decimal>) -> Value {
    value.map_or(Value::Null, Value::Decimal)
}

/// `a + b`
pub(crate) fn add(a: &Value, b: &Value) -> Value {
    use Value::{DateTime, Decimal, Long, Real, TimeSpan};
    match (a, b) {
        (Long(x), Long(y)) => Long(x.wrapping_add(*y)),
        (Real(x), Real(y)) => Real(x + y),
        (Decimal(x), Decimal(y)) => decimal(x.checked_add(*y)),
        (DateTime(x), TimeSpan(y)) | (TimeSpan(x), DateTime(y)) => datetime(x.checked_add(*y)),
        (TimeSpan(x), TimeSpan(y)) => timespan(x.checked_add(*y)),
        _ => Value::Null,
    }
}

/// `a - b`
pub(crate) fn subtract(a: &Value, b: &Value) -> Value {
    use Value::{DateTime, Decimal, Long, Real, TimeSpan};
    match (a, b) {
        (Long(x), Long(y)) => Long(x.wrapping_sub(*y)),
        (Real(x), Real(y)) => Real(x - y),
        (Decimal(x), Decimal(y)) => decimal(x.checked_sub(*y)),
        (DateTime(x), DateTime(y)) | (TimeSpan(x), TimeSpan(y)) => timespan(x.checked_sub(*y)),
        (DateTime(x), TimeSpan(y)) => datetime(x.checked_sub(*y)),
        _ => Value::Null,
    }
}

fn multiply(a: &Value, b: &Value) -> Value {
    use Value::{Decimal, Long, Real, TimeSpan};
    match (a, b) {
        (Long(x), Long(y)) => Long(x.wrapping_mul(*y)),
        (Real(x), Real(y)) => Real(x * y),
        (Decimal(x), Decimal(y)) => decimal(x.checked_mul(*y)),
        (TimeSpan(x), Long(y)) | (Long(y), TimeSpan(x)) => timespan(x.checked_mul(*y)),
        (TimeSpan(x), Real(y)) | (Real(y), TimeSpan(x)) => timespan(ticks_of_real(*x as f64 * y)),
        _ => Value::Null,
    }
}

fn ticks_of_real(value: f64) -> Option<i64> {
    (value.abs() < 9.223_372_036_854_775e18).then_some(value as i64)
}

fn divide(a: &Value, b: &Value) -> Value {
    use Value::{Decimal, Long, Real, TimeSpan};
    match (a, b) {
        (Long(_), Long(0)) | (TimeSpan(_), Long(0)) => Value::Null,
        (Long(x), Long(y)) => Long(x.wrapping_div(*y)),
        (Real(x), Real(y)) => Real(x / y),
        (Decimal(x), Decimal(y)) => decimal(x.checked_div(*y)),
        (TimeSpan(x), TimeSpan(y)) => Real(*x as f64 / *y as f64),
        (TimeSpan(x), Long(y)) => TimeSpan(x.wrapping_div(*y)),
        (TimeSpan(x), Real(y)) => timespan(ticks_of_real(*x as f64 / y)),
        _ => Value::Null,
    }
}

fn remainder(a: &Value, b: &Value) -> Value {
    use Value::{DateTime, Decimal, Long, Real, TimeSpan};
    match (a, b) {
        (_, Long(0) | TimeSpan(0)) => Value::Null,
        (Long(x), Long(y)) => Long(x.wrapping_rem_euclid(*y)),
        (Real(x), Real(y)) => Real(x.rem_euclid(*y)),
        (Decimal(x), Decimal(y)) => decimal(x.checked_rem(*y).map(|r| if r.is_sign_negative() { r + y.abs() } else { r })),
        (TimeSpan(x) | DateTime(x), TimeSpan(y)) => TimeSpan(x.wrapping_rem_euclid(*y)),
        _ => Value::Null,
    }
}

fn negate(value: &Value) -> Value {
    match value {
        Value::Int(v) => Value::Int(v.wrapping_neg()),
        Value::Long(v) => Value::Long(v.wrapping_neg()),
        Value::Real(v) => Value::Real(-v),
        Value::Decimal(v) => Value::Decimal(-*v),
        Value::TimeSpan(v) => timespan(v.checked_neg()),
        _ => Value::Null,
    }
}

/// `and` in three-valued logic.
fn all_true(values: &[Value]) -> Value {
    if values.contains(&Value::Bool(false)) {
        Value::Bool(false)
    } else if values.iter().any(Value::is_null) {
        Value::Null
    } else {
        Value::Bool(true)
    }
}

/// `or` in three-valued logic.
fn any_true(values: &[Value]) -> Value {
    if values.contains(&Value::Bool(true)) {
        Value::Bool(true)
    } else if values.iter().any(Value::is_null) {
        Value::Null
    } else {
        Value::Bool(false)
    }
}

/// `not`; null stays null.
pub(super) fn not(value: &Value) -> Value {
    match value {
        Value::Bool(v) => Value::Bool(!v),
        _ => Value::Null,
    }
}
