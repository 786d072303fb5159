//! `bin`, `bin_at`, `floor`, `ceiling`, `round`: rounding to multiples. A bin size that is not positive gives null.

use rust_decimal::Decimal;
use rust_decimal::RoundingStrategy;

use super::Function;
use super::operators::datetime;
use super::signature::{Arg, LONG, Param, Resolved, fixed, optional, wider, wrong_count};
use crate::types::Type;
use crate::value::Value;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("bin", resolve_bin, |_, a| bin(&a[0], &a[1])),
    Function::new("floor", resolve_floor, |_, a| if a.len() == 1 { floor(&a[0]) } else { bin(&a[0], &a[1]) }),
    Function::new("bin_at", resolve_bin_at, |_, a| bin_at(&a[0], &a[1], &a[2])),
    Function::new("ceiling", |a| fixed(a, &[Param::Number], whole_type(a)), |_, a| ceiling(&a[0])).alias(&["ceil"]),
    Function::new("round", |a| optional(a, &[Param::Number, LONG], 1, round_type(a)), |_, a| round(a)),
];

fn whole_type(args: &[Arg<'_>]) -> Type {
    match args.first().map(|arg| arg.ty) {
        Some(ty @ (Type::Int | Type::Long | Type::Decimal)) => ty,
        _ => Type::Real,
    }
}

fn round_type(args: &[Arg<'_>]) -> Type {
    whole_type(args)
}

/// Types in which value and size are taken, and that of the result.
fn bin_types(value: Type, size: Type) -> Result<(Type, Type, Type), String> {
    use Type::{DateTime, Dynamic, Real, TimeSpan};
    match (value, size) {
        (DateTime | TimeSpan, TimeSpan | Dynamic) => Ok((value, TimeSpan, value)),
        (DateTime | TimeSpan, Type::Long | Type::Int) => Ok((value, Type::Long, value)),
        (Dynamic, TimeSpan) => Ok((DateTime, TimeSpan, DateTime)),
        (Dynamic, b) if b.is_numeric() => Ok((wider(Real, b), wider(Real, b), wider(Real, b))),
        (a, b) if a.is_numeric() && b.is_numeric() => {
            let ty = wider(a, b);
            Ok((ty, ty, ty))
        }
        (a, Dynamic) if a.is_numeric() => Ok((wider(Real, a), wider(Real, a), wider(Real, a))),
        (a, b) => Err(format!("values of type {a} cannot be binned by {b}")),
    }
}

fn resolve_bin(args: &[Arg<'_>]) -> Result<Resolved, String> {
    let [value, size] = args else {
        return Err(wrong_count(args.len(), 2, Some(2)));
    };
    let (value, size, ty) = bin_types(value.ty, size.ty)?;
    Ok(Resolved { ty, args: vec![value, size] })
}

fn resolve_floor(args: &[Arg<'_>]) -> Result<Resolved, String> {
    if args.len() == 1 { fixed(args, &[Param::Number], whole_type(args)) } else { resolve_bin(args) }
}

fn resolve_bin_at(args: &[Arg<'_>]) -> Result<Resolved, String> {
    let [value, size, at] = args else {
        return Err(wrong_count(args.len(), 3, Some(3)));
    };
    let (value, size, ty) = bin_types(value.ty, size.ty)?;
    let (_, at, _) = match (value, at.ty) {
        (Type::DateTime, Type::DateTime) | (Type::TimeSpan, Type::TimeSpan) => (value, value, value),
        (value, at) if value.is_numeric() && at.is_numeric() => {
            let wide = wider(wider(value, at), size);
            return Ok(Resolved { ty: wide, args: vec![wide; 3] });
        }
        (value, at) => return Err(format!("the fixed point of bins of {value} cannot be of type {at}")),
    };
    Ok(Resolved { ty, args: vec![value, size, at] })
}

fn floor_to(value: i64, size: i64) -> Option<i64> {
    if size <= 0 {
        return None;
    }
    value.div_euclid(size).checked_mul(size)
}

pub(super) fn bin(value: &Value, size: &Value) -> Value {
    match (value, size) {
        (Value::Int(v), Value::Int(s)) => {
            let binned = floor_to(i64::from(*v), i64::from(*s)).and_then(|v| i32::try_from(v).ok());
            binned.map_or(Value::Null, Value::Int)
        }
        (Value::Long(v), Value::Long(s)) => floor_to(*v, *s).map_or(Value::Null, Value::Long),
        (Value::Real(v), Value::Real(s)) if *s > 0.0 => Value::Real((v / s).floor() * s),
        (Value::Decimal(v), Value::Decimal(s)) if *s > Decimal::ZERO => {
            let binned = v.checked_div(*s).and_then(|q| q.floor().checked_mul(*s));
            binned.map_or(Value::Null, Value::Decimal)
        }
        (Value::DateTime(v), Value::TimeSpan(s) | Value::Long(s)) => datetime(floor_to(*v, *s)),
        (Value::TimeSpan(v), Value::TimeSpan(s) | Value::Long(s)) => floor_to(*v, *s).map_or(Value::Null, Value::TimeSpan),
        _ => Value::Null,
    }
}

fn bin_at(value: &Value, size: &Value, at: &Value) -> Value {
    let shifted = |v: i64, s: i64, at: i64| floor_to(v.checked_sub(at)?, s)?.checked_add(at);
    match (value, size, at) {
        (Value::Int(_), Value::Int(_), Value::Int(_)) | (Value::Long(_), Value::Long(_), Value::Long(_)) => {
            let (Some(v), Some(s), Some(at)) = (value.as_long(), size.as_long(), at.as_long()) else {
                return Value::Null;
            };
            let binned = shifted(v, s, at);
            if matches!(value, Value::Int(_)) {
                binned.and_then(|v| i32::try_from(v).ok()).map_or(Value::Null, Value::Int)
            } else {
                binned.map_or(Value::Null, Value::Long)
            }
        }
        (Value::Real(v), Value::Real(s), Value::Real(at)) if *s > 0.0 => Value::Real(((v - at) / s).floor() * s + at),
        (Value::DateTime(v), Value::TimeSpan(s) | Value::Long(s), Value::DateTime(at)) => datetime(shifted(*v, *s, *at)),
        (Value::TimeSpan(v), Value::TimeSpan(s) | Value::Long(s), Value::TimeSpan(at)) => {
            shifted(*v, *s, *at).map_or(Value::Null, Value::TimeSpan)
        }
        _ => Value::Null,
    }
}

fn floor(value: &Value) -> Value {
    match value {
        Value::Real(v) => Value::Real(v.floor()),
        Value::Decimal(v) => Value::Decimal(v.floor()),
        whole => whole.clone(),
    }
}

fn ceiling(value: &Value) -> Value {
    match value {
        Value::Real(v) => Value::Real(v.ceil()),
        Value::Decimal(v) => Value::Decimal(v.ceil()),
        whole => whole.clone(),
    }
}

/// Rounds half away from zero, to decimal places that may be negative.
fn round(args: &[Value]) -> Value {
    let Some(places) = args.get(1).map_or(Some(0), Value::as_long) else {
        return Value::Null;
    };
    let places = places.clamp(-300, 300) as i32;
    match &args[0] {
        Value::Real(v) => Value::Real(round_real(*v, places)),
        Value::Decimal(v) if places >= 0 => Value::Decimal(v.round_dp_with_strategy(places as u32, RoundingStrategy::MidpointAwayFromZero)),
        Value::Int(_) | Value::Long(_) if places >= 0 => args[0].clone(),
        Value::Int(v) => Value::Int(round_real(f64::from(*v), places) as i32),
        Value::Long(v) => Value::Long(round_real(*v as f64, places) as i64),
        _ => Value::Null,
    }
}

fn round_real(value: f64, places: i32) -> f64 {
    if places < 0 {
        let scale = 10_f64.powi(-places);
        return (value / scale).round() * scale;
    }
    let scaled = value * 10_f64.powi(places);
    // Beyond 2^52 there is nothing left to round.
    if !scaled.is_finite() || scaled.abs() >= 4_503_599_627_370_496.0 {
        return value;
    }
    scaled.round() / 10_f64.powi(places)
}
