//! Comparison operators. Equality is total: a null equals no value, and null against null is null; the orderings are
//! null with any null. `in` compares like `==`.

use std::cmp::Ordering;

use super::Function;
use super::operators::{add, not, subtract};
use super::signature::{Arg, Resolved, converts, wider, wrong_count};
use crate::types::Type;
use crate::value::{Dynamic, Value, compare, to_guid};

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("==", resolve_comparison, |_, a| equals(&a[0], &a[1])),
    Function::new("!=", resolve_comparison, |_, a| not(&equals(&a[0], &a[1]))).alias(&["<>"]),
    Function::new("<", resolve_comparison, |_, a| ordered(a, Ordering::is_lt)),
    Function::new("<=", resolve_comparison, |_, a| ordered(a, Ordering::is_le)),
    Function::new(">", resolve_comparison, |_, a| ordered(a, Ordering::is_gt)),
    Function::new(">=", resolve_comparison, |_, a| ordered(a, Ordering::is_ge)),
    Function::new("in", resolve_in, |_, a| Value::Bool(is_in(a))),
    Function::new("!in", resolve_in, |_, a| Value::Bool(!is_in(a))),
    Function::new("between", resolve_between, |_, a| between(a)),
    Function::new("!between", resolve_between, |_, a| not(&between(a))),
    Function::new("around", resolve_around, |_, a| between(&[a[0].clone(), subtract(&a[1], &a[2]), add(&a[1], &a[2])])),
];

/// The types in which two values are compared.
fn comparable(a: Type, b: Type) -> Result<(Type, Type), String> {
    let refused = || Err(format!("values of types {a} and {b} cannot be compared"));
    match (a, b) {
        _ if a == b => Ok((a, b)),
        (Type::Dynamic, _) | (_, Type::Dynamic) => Ok((a, b)),
        (Type::Bool, other) | (other, Type::Bool) if other.is_numeric() => Ok((wide_bool(a), wide_bool(b))),
        (Type::Guid, Type::String) | (Type::String, Type::Guid) => Ok((Type::Guid, Type::Guid)),
        _ if a.is_numeric() && b.is_numeric() => {
            let ty = wider(a, b);
            Ok((ty, ty))
        }
        _ => refused(),
    }
}

fn wide_bool(ty: Type) -> Type {
    if ty == Type::Bool { Type::Long } else { ty }
}

fn resolve_comparison(args: &[Arg<'_>]) -> Result<Resolved, String> {
    let [a, b] = args else {
        return Err(wrong_count(args.len(), 2, Some(2)));
    };
    let (a, b) = comparable(a.ty, b.ty)?;
    Ok(Resolved { ty: Type::Bool, args: vec![a, b] })
}

fn resolve_in(args: &[Arg<'_>]) -> Result<Resolved, String> {
    let [needle, candidates @ ..] = args else {
        return Err(wrong_count(0, 2, None));
    };
    for candidate in candidates {
        comparable(needle.ty, candidate.ty)?;
    }
    Ok(Resolved { ty: Type::Bool, args: args.iter().map(|a| a.ty).collect() })
}

fn resolve_between(args: &[Arg<'_>]) -> Result<Resolved, String> {
    let [value, low, high] = args else {
        return Err(wrong_count(args.len(), 3, Some(3)));
    };
    let types = match (value.ty, low.ty, high.ty) {
        (Type::DateTime, Type::DateTime, Type::TimeSpan) => vec![Type::DateTime, Type::DateTime, Type::TimeSpan],
        (a, b, c) if a.is_numeric() && b.is_numeric() && c.is_numeric() => vec![wider(wider(a, b), c); 3],
        (Type::Dynamic, b, c) if b == c => vec![b; 3],
        (a, b, c) if converts(b, a) && converts(c, a) => vec![a; 3],
        (a, b, c) => return Err(format!("between is not defined for {a}, {b} and {c}")),
    };
    Ok(Resolved { ty: Type::Bool, args: types })
}

/// A value, a centre and how far from it.
fn resolve_around(args: &[Arg<'_>]) -> Result<Resolved, String> {
    let [value, center, delta] = args else {
        return Err(wrong_count(args.len(), 3, Some(3)));
    };
    let types = match (value.ty, center.ty, delta.ty) {
        (Type::DateTime, Type::DateTime, Type::TimeSpan) => vec![Type::DateTime, Type::DateTime, Type::TimeSpan],
        (Type::TimeSpan, Type::TimeSpan, Type::TimeSpan) => vec![Type::TimeSpan; 3],
        (a, b, c) if a.is_numeric() && b.is_numeric() && c.is_numeric() => {
            vec![wider(wider(wider(a, b), c), Type::Long); 3]
        }
        (a, b, c) => return Err(format!("around is not defined for {a}, {b} and {c}")),
    };
    Ok(Resolved { ty: Type::Bool, args: types })
}

/// `a == b`; null for null against null.
pub(crate) fn equals(a: &Value, b: &Value) -> Value {
    match (a, b) {
        (Value::Null, Value::Null) => Value::Null,
        // The null string is the empty string, also against a dynamic null.
        (Value::Null, Value::String(text)) | (Value::String(text), Value::Null) => Value::Bool(text.is_empty()),
        (Value::Null, _) | (_, Value::Null) => Value::Bool(false),
        _ => Value::Bool(same(a, b)),
    }
}

/// Whether two values that are not null are equal.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(x), Value::String(y)) => x == y,
        (Value::Long(x), Value::Long(y)) => x == y,
        (Value::Real(x), Value::Real(y)) => x == y,
        (Value::Dynamic(x), Value::Dynamic(y)) => same_dynamic(x, y),
        (Value::Dynamic(x), y) | (y, Value::Dynamic(x)) => same_scalar(x, y),
        _ => not_nan(a) && not_nan(b) && compare(a, b).is_eq(),
    }
}

/// A dynamic against a typed scalar: in the scalar's type.
fn same_scalar(x: &Dynamic, y: &Value) -> bool {
    match (x, y) {
        (Dynamic::Array(_) | Dynamic::Bag(_), Value::String(text)) => x.to_json() == **text,
        (Dynamic::Array(_) | Dynamic::Bag(_) | Dynamic::Null, _) => false,
        (Dynamic::String(text), Value::String(other)) => text == other,
        (_, Value::String(other)) => x.to_text() == **other,
        (Dynamic::String(_), Value::Guid(_)) => to_guid(&x.to_value()) == *y,
        (Dynamic::String(_), Value::DateTime(_)) => crate::value::to_datetime(&x.to_value()) == *y,
        (Dynamic::String(_), Value::TimeSpan(_)) => crate::value::to_timespan(&x.to_value()) == *y,
        (Dynamic::String(_), Value::Bool(_)) => crate::value::to_bool(&x.to_value()) == *y,
        (Dynamic::String(_), _) => match crate::value::to_real(&x.to_value()) {
            Value::Null => false,
            number => same(&number, y),
        },
        _ => same(&x.to_value(), y),
    }
}

fn same_dynamic(a: &Dynamic, b: &Dynamic) -> bool {
    match (a, b) {
        (Dynamic::Array(x), Dynamic::Array(y)) => x.len() == y.len() && x.iter().zip(y.iter()).all(|(x, y)| same_dynamic(x, y)),
        (Dynamic::Bag(x), Dynamic::Bag(y)) => x.len() == y.len() && x.iter().all(|(key, x)| y.get(key).is_some_and(|y| same_dynamic(x, y))),
        (Dynamic::Null, Dynamic::Null) => true,
        (Dynamic::Array(_) | Dynamic::Bag(_) | Dynamic::Null, _) | (_, Dynamic::Array(_) | Dynamic::Bag(_) | Dynamic::Null) => false,
        _ => same(&a.to_value(), &b.to_value()),
    }
}

fn not_nan(value: &Value) -> bool {
    !matches!(value, Value::Real(v) if v.is_nan())
}

fn ordered(args: &[Value], accepts: fn(Ordering) -> bool) -> Value {
    let (a, b) = (&args[0], &args[1]);
    if a.is_null() || b.is_null() {
        return Value::Null;
    }
    let (a, b) = match (a, b) {
        (Value::Dynamic(x), Value::Dynamic(y)) => (x.to_value(), y.to_value()),
        (Value::Dynamic(x), y) => (like(x, y), y.clone()),
        (x, Value::Dynamic(y)) => (x.clone(), like(y, x)),
        _ => (a.clone(), b.clone()),
    };
    if a.is_null() || b.is_null() {
        return Value::Null;
    }
    Value::Bool(not_nan(&a) && not_nan(&b) && accepts(compare(&a, &b)))
}

/// A dynamic in the type of the scalar that it is compared with.
fn like(value: &Dynamic, other: &Value) -> Value {
    let value = value.to_value();
    match other {
        Value::String(_) => Value::string(value.to_text()),
        Value::DateTime(_) => crate::value::to_datetime(&value),
        Value::TimeSpan(_) => crate::value::to_timespan(&value),
        Value::Guid(_) => to_guid(&value),
        Value::Bool(_) => crate::value::to_bool(&value),
        _ => match value {
            Value::String(_) => crate::value::to_real(&value),
            Value::Bool(v) => Value::Long(i64::from(v)),
            number => number,
        },
    }
}

/// Candidates of `in` and its kin, with dynamic arrays opened.
pub(super) fn candidates<'a>(args: &'a [Value]) -> Box<dyn Iterator<Item = Value> + 'a> {
    Box::new(args.iter().flat_map(|arg| -> Box<dyn Iterator<Item = Value> + 'a> {
        match arg {
            Value::Dynamic(Dynamic::Array(items)) => Box::new(items.iter().map(Dynamic::to_value)),
            other => Box::new(std::iter::once(other.clone())),
        }
    }))
}

fn is_in(args: &[Value]) -> bool {
    let needle = &args[0];
    candidates(&args[1..]).any(|candidate| equals(needle, &candidate) == Value::Bool(true))
}

fn between(args: &[Value]) -> Value {
    let high = match (&args[1], &args[2]) {
        (low @ Value::DateTime(_), span @ Value::TimeSpan(_)) => add(low, span),
        (_, high) => high.clone(),
    };
    if args[0].is_null() || args[1].is_null() || high.is_null() {
        return Value::Null;
    }
    let numbers = not_nan(&args[0]) && not_nan(&args[1]) && not_nan(&high);
    Value::Bool(numbers && compare(&args[0], &args[1]).is_ge() && compare(&args[0], &high).is_le())
}
