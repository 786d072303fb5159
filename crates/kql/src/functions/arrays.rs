//! Functions over dynamic arrays and sets. What is not an array gives null.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::Function;
use super::signature::{Arg, BOOL, DYNAMIC, LONG, Param, Resolved, fixed, optional, variadic};
use crate::types::Type;
use crate::value::{Dynamic, Value, compare_dynamic};

/// Most elements that an array built here may have.
const MAX_ELEMENTS: usize = 1 << 20;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new(
        "array_length",
        |a| fixed(a, &[DYNAMIC], Type::Long),
        |_, a| a[0].as_array().map_or(Value::Null, |items| Value::Long(items.len() as i64)),
    )
    .alias(&["arraylength"]),
    Function::new("array_concat", |a| variadic(a, &[], DYNAMIC, 1, Type::Dynamic), |_, a| concat(a)),
    Function::new("array_reverse", one, |_, a| map(&a[0], |items| items.iter().rev().cloned().collect())),
    Function::new("array_slice", |a| fixed(a, &[DYNAMIC, LONG, LONG], Type::Dynamic), |_, a| slice(a)),
    Function::new("array_split", |a| fixed(a, &[DYNAMIC, Param::Any], Type::Dynamic), |_, a| split(a)),
    Function::new("array_sum", |a| fixed(a, &[DYNAMIC], Type::Real), |_, a| sum(&a[0])),
    Function::new("array_index_of", resolve_index_of, |_, a| index_of(a)),
    Function::new("array_rotate_left", |a| fixed(a, &[DYNAMIC, LONG], Type::Dynamic), |_, a| rotate(a, 1)),
    Function::new("array_rotate_right", |a| fixed(a, &[DYNAMIC, LONG], Type::Dynamic), |_, a| rotate(a, -1)),
    Function::new("array_shift_left", resolve_shift, |_, a| shift(a, 1)),
    Function::new("array_shift_right", resolve_shift, |_, a| shift(a, -1)),
    Function::new("array_sort_asc", resolve_sort, |_, a| sort(a, false)),
    Function::new("array_sort_desc", resolve_sort, |_, a| sort(a, true)),
    Function::new("array_sort_asc nth", resolve_sort_nth, |_, a| sort_nth(a, false)),
    Function::new("array_sort_desc nth", resolve_sort_nth, |_, a| sort_nth(a, true)),
    Function::new("array_iff", |a| fixed(a, &[DYNAMIC, Param::Any, Param::Any], Type::Dynamic), |_, a| iff(a)).alias(&["array_iif"]),
    Function::new("pack_array", |a| variadic(a, &[], Param::Any, 1, Type::Dynamic), |_, a| pack(a)),
    Function::new("repeat", |a| fixed(a, &[Param::Any, LONG], Type::Dynamic), |_, a| repeat(a)),
    Function::new("range", resolve_range, |_, a| range(a)),
    Function::new("zip", |a| variadic(a, &[], DYNAMIC, 2, Type::Dynamic), |_, a| zip(a)),
    Function::new("set_union", |a| variadic(a, &[], DYNAMIC, 1, Type::Dynamic), |_, a| set_union(a)),
    Function::new("set_intersect", |a| variadic(a, &[], DYNAMIC, 2, Type::Dynamic), |_, a| set_intersect(a)),
    Function::new("set_difference", |a| variadic(a, &[], DYNAMIC, 2, Type::Dynamic), |_, a| set_difference(a)),
    Function::new(
        "set_equals",
        |a| fixed(a, &[DYNAMIC, DYNAMIC], Type::Bool),
        |_, a| match (a[0].as_array(), a[1].as_array()) {
            (Some(x), Some(y)) => Value::Bool(keys(x) == keys(y)),
            _ => Value::Null,
        },
    ),
    Function::new(
        "set_has_element",
        |a| fixed(a, &[DYNAMIC, Param::Any], Type::Bool),
        |_, a| a[0].as_array().map_or(Value::Null, |items| Value::Bool(items.iter().any(|item| is(item, &a[1])))),
    ),
    Function::new("jaccard_index", |a| fixed(a, &[DYNAMIC, DYNAMIC], Type::Real), |_, a| jaccard(a)),
];

fn one(args: &[Arg<'_>]) -> Result<Resolved, String> {
    fixed(args, &[DYNAMIC], Type::Dynamic)
}

fn map(value: &Value, compute: impl FnOnce(&[Dynamic]) -> Vec<Dynamic>) -> Value {
    value.as_array().map_or(Value::Null, |items| Value::array(compute(items)))
}

fn concat(args: &[Value]) -> Value {
    if args.iter().all(|arg| arg.as_array().is_none()) {
        return Value::Null;
    }
    Value::array(args.iter().filter_map(Value::as_array).flat_map(|items| items.iter().cloned()).collect())
}

/// An index from the front, or from the end when negative.
fn absolute(index: i64, length: usize) -> i64 {
    if index < 0 { index.saturating_add(length as i64) } else { index }
}

fn slice(args: &[Value]) -> Value {
    let (Some(items), Some(start), Some(end)) = (args[0].as_array(), args[1].as_long(), args[2].as_long()) else {
        return Value::Null;
    };
    let start = absolute(start, items.len()).max(0);
    let end = absolute(end, items.len()).saturating_add(1).min(items.len() as i64);
    if start >= end {
        return Value::array(Vec::new());
    }
    Value::array(items[start as usize..end as usize].to_vec())
}

/// Cuts at one index or at each index of an array; negative ones count from the end.
fn split(args: &[Value]) -> Value {
    let Some(items) = args[0].as_array() else {
        return Value::Null;
    };
    let indexes: Vec<i64> = match &args[1] {
        Value::Dynamic(Dynamic::Array(list)) => list.iter().filter_map(|i| i.to_value().as_long()).collect(),
        single => single.as_long().into_iter().collect(),
    };
    if indexes.is_empty() {
        return Value::Null;
    }
    let mut parts = Vec::new();
    let mut from = 0;
    for index in indexes {
        let at = absolute(index, items.len()).clamp(from as i64, items.len() as i64) as usize;
        parts.push(Dynamic::array(items[from..at].to_vec()));
        from = at;
    }
    parts.push(Dynamic::array(items[from..].to_vec()));
    Value::array(parts)
}

fn sum(value: &Value) -> Value {
    value.as_array().map_or(Value::Null, |items| Value::Real(items.iter().filter_map(Dynamic::as_real).sum()))
}

fn resolve_index_of(args: &[Arg<'_>]) -> Result<Resolved, String> {
    optional(args, &[DYNAMIC, Param::Any, LONG, LONG, LONG], 2, Type::Long)
}

/// Whether an element is a value; numbers are equal whatever their types.
fn is(element: &Dynamic, value: &Value) -> bool {
    let value = value.to_dynamic();
    match (element, &value) {
        (Dynamic::Long(_) | Dynamic::Real(_), Dynamic::Long(_) | Dynamic::Real(_)) => element.as_real() == value.as_real(),
        _ => element.group_key() == value.group_key(),
    }
}

/// Index of the n-th occurrence inside a range of indexes; -1 if there is none.
fn index_of(args: &[Value]) -> Value {
    let number = |index: usize, default: i64| args.get(index).map_or(Some(default), Value::as_long);
    let (Some(items), Some(start), Some(length), Some(occurrence)) = (args[0].as_array(), number(2, 0), number(3, -1), number(4, 1)) else {
        return Value::Null;
    };
    if length < -1 || occurrence < 1 {
        return Value::Null;
    }
    let start = absolute(start, items.len()).max(0);
    let end = if length < 0 { items.len() as i64 } else { start.saturating_add(length).min(items.len() as i64) };
    let mut found = (start..end).filter(|index| is(&items[*index as usize], &args[1]));
    let nth = usize::try_from(occurrence - 1).unwrap_or(usize::MAX);
    Value::Long(found.nth(nth).unwrap_or(-1))
}

fn rotate(args: &[Value], direction: i64) -> Value {
    let (Some(items), Some(count)) = (args[0].as_array(), args[1].as_long()) else {
        return Value::Null;
    };
    let mut rotated = items.to_vec();
    if !rotated.is_empty() {
        let by = (i128::from(count) * i128::from(direction)).rem_euclid(rotated.len() as i128);
        rotated.rotate_left(by as usize);
    }
    Value::array(rotated)
}

fn resolve_shift(args: &[Arg<'_>]) -> Result<Resolved, String> {
    optional(args, &[DYNAMIC, LONG, Param::Any], 2, Type::Dynamic)
}

fn shift(args: &[Value], direction: i128) -> Value {
    let (Some(items), Some(count)) = (args[0].as_array(), args[1].as_long()) else {
        return Value::Null;
    };
    let fill = args.get(2).map_or(Dynamic::Null, Value::to_dynamic);
    let by = i128::from(count) * direction;
    let element = |index: usize| {
        let from = usize::try_from(index as i128 + by).ok();
        from.and_then(|from| items.get(from)).cloned().unwrap_or_else(|| fill.clone())
    };
    Value::array((0..items.len()).map(element).collect())
}

fn resolve_sort(args: &[Arg<'_>]) -> Result<Resolved, String> {
    if args.len() > 1 && args[1].ty == Type::Dynamic {
        return Err("several arrays can only be sorted as columns of their own, in print, extend or project".into());
    }
    optional(args, &[DYNAMIC, BOOL], 1, Type::Dynamic)
}

/// Nulls go last, or first when the second argument is false.
fn sort(args: &[Value], descending: bool) -> Value {
    let nulls_last = args.get(1) != Some(&Value::Bool(false));
    map(&args[0], |items| sorted_order(items, descending, nulls_last).map(|index| items[index].clone()).collect())
}

/// The indexes of an array's elements in sorted order.
fn sorted_order(items: &[Dynamic], descending: bool, nulls_last: bool) -> impl Iterator<Item = usize> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by(|a, b| match (&items[*a], &items[*b]) {
        (Dynamic::Null, Dynamic::Null) => Ordering::Equal,
        (Dynamic::Null, _) if nulls_last => Ordering::Greater,
        (Dynamic::Null, _) => Ordering::Less,
        (_, Dynamic::Null) if nulls_last => Ordering::Less,
        (_, Dynamic::Null) => Ordering::Greater,
        (a, b) if descending => compare_dynamic(b, a),
        (a, b) => compare_dynamic(a, b),
    });
    order.into_iter()
}

fn resolve_sort_nth(args: &[Arg<'_>]) -> Result<Resolved, String> {
    let nulls = args.len() > 2 && args.last().is_some_and(|arg| arg.ty == Type::Bool);
    let mut resolved = variadic(&args[..args.len() - usize::from(nulls)], &[LONG], DYNAMIC, 1, Type::Dynamic)?;
    resolved.args.extend(nulls.then_some(Type::Bool));
    Ok(resolved)
}

/// The n-th of several arrays (the first argument says which) in the order that sorts the first of them; null unless it
/// is as long as that one. A bool at the end says whether nulls go last.
fn sort_nth(args: &[Value], descending: bool) -> Value {
    let nulls_last = args.last() != Some(&Value::Bool(false));
    let nth = args[0].as_long().and_then(|index| usize::try_from(index).ok());
    let wanted = nth.and_then(|index| args[1..].get(index)).and_then(Value::as_array);
    match (args[1].as_array(), wanted) {
        (Some(first), Some(wanted)) if first.len() == wanted.len() => {
            Value::array(sorted_order(first, descending, nulls_last).map(|index| wanted[index].clone()).collect())
        }
        _ => Value::Null,
    }
}

fn iff(args: &[Value]) -> Value {
    let choose = |branch: &Value, index: usize| match branch {
        Value::Dynamic(Dynamic::Array(items)) => items.get(index).cloned().unwrap_or(Dynamic::Null),
        scalar => scalar.to_dynamic(),
    };
    map(&args[0], |conditions| {
        let chosen = conditions.iter().enumerate().map(|(index, condition)| match truth(condition) {
            Some(true) => choose(&args[1], index),
            Some(false) => choose(&args[2], index),
            None => Dynamic::Null,
        });
        chosen.collect()
    })
}

fn truth(condition: &Dynamic) -> Option<bool> {
    match condition {
        Dynamic::Bool(v) => Some(*v),
        number => number.as_real().map(|v| v != 0.0),
    }
}

fn pack(args: &[Value]) -> Value {
    Value::array(args.iter().map(Value::to_dynamic).collect())
}

fn repeat(args: &[Value]) -> Value {
    let Some(count) = args[1].as_long() else {
        return Value::Null;
    };
    let count = usize::try_from(count).unwrap_or(0).min(MAX_ELEMENTS);
    Value::array(vec![args[0].to_dynamic(); count])
}

fn resolve_range(args: &[Arg<'_>]) -> Result<Resolved, String> {
    use super::signature::{DATETIME, TIMESPAN};
    let ty = args.first().map_or(Type::Long, |arg| arg.ty);
    match ty {
        Type::DateTime => optional(args, &[DATETIME, DATETIME, TIMESPAN], 2, Type::Dynamic),
        Type::TimeSpan => optional(args, &[TIMESPAN, TIMESPAN, TIMESPAN], 2, Type::Dynamic),
        _ if args.iter().all(|arg| matches!(arg.ty, Type::Int | Type::Long)) => optional(args, &[LONG, LONG, LONG], 2, Type::Dynamic),
        _ => optional(args, &[super::signature::REAL; 3], 2, Type::Dynamic),
    }
}

/// Values from a first to a last one; the step is 1, an hour for timespans, a day for datetimes.
fn range(args: &[Value]) -> Value {
    use crate::value::{TICKS_PER_DAY, TICKS_PER_SECOND};
    let default = |from: &Value| match from {
        Value::Real(_) => Value::Real(1.0),
        Value::TimeSpan(_) => Value::TimeSpan(3600 * TICKS_PER_SECOND),
        Value::DateTime(_) => Value::TimeSpan(TICKS_PER_DAY),
        _ => Value::Long(1),
    };
    let step = args.get(2).cloned().unwrap_or_else(|| default(&args[0]));
    let items = match (&args[0], &args[1], &step) {
        (Value::Long(from), Value::Long(to), Value::Long(step)) => ticks_range(*from, *to, *step, Dynamic::Long),
        (Value::TimeSpan(from), Value::TimeSpan(to), Value::TimeSpan(step)) => ticks_range(*from, *to, *step, Dynamic::TimeSpan),
        (Value::DateTime(from), Value::DateTime(to), Value::TimeSpan(step)) => ticks_range(*from, *to, *step, Dynamic::DateTime),
        (Value::Real(from), Value::Real(to), Value::Real(step)) => real_range(*from, *to, *step),
        _ => None,
    };
    items.map_or(Value::Null, Value::array)
}

fn ticks_range(from: i64, to: i64, step: i64, wrap: fn(i64) -> Dynamic) -> Option<Vec<Dynamic>> {
    if step == 0 {
        return None;
    }
    let within = |at: i64| if step > 0 { at <= to } else { at >= to };
    let values = std::iter::successors(Some(from), |at| at.checked_add(step)).take_while(|at| within(*at));
    Some(values.take(MAX_ELEMENTS).map(wrap).collect())
}

fn real_range(from: f64, to: f64, step: f64) -> Option<Vec<Dynamic>> {
    if step == 0.0 || !step.is_finite() || !from.is_finite() || to.is_nan() {
        return None;
    }
    let within = |at: f64| if step > 0.0 { at <= to } else { at >= to };
    let values = (0..MAX_ELEMENTS).map(|index| from + step * index as f64).take_while(|at| within(*at));
    Some(values.map(Dynamic::Real).collect())
}

fn zip(args: &[Value]) -> Value {
    let columns: Option<Vec<_>> = args.iter().map(Value::as_array).collect();
    let Some(columns) = columns else {
        return Value::Null;
    };
    let length = columns.iter().map(|items| items.len()).max().unwrap_or(0);
    let row = |index: usize| Dynamic::array(columns.iter().map(|items| items.get(index).cloned().unwrap_or(Dynamic::Null)).collect());
    Value::array((0..length).map(row).collect())
}

fn keys(items: &[Dynamic]) -> HashSet<crate::value::Key> {
    items.iter().map(Dynamic::group_key).collect()
}

/// Distinct elements in order of first appearance.
fn distinct<'a>(items: impl Iterator<Item = &'a Dynamic>) -> Vec<Dynamic> {
    let mut seen = HashSet::new();
    items.filter(|item| seen.insert(item.group_key())).cloned().collect()
}

fn set_union(args: &[Value]) -> Value {
    if args.iter().all(|arg| arg.as_array().is_none()) {
        return Value::Null;
    }
    Value::array(distinct(args.iter().filter_map(Value::as_array).flat_map(|items| items.iter())))
}

fn set_intersect(args: &[Value]) -> Value {
    let sets: Option<Vec<_>> = args.iter().map(Value::as_array).collect();
    let Some(sets) = sets else {
        return Value::Null;
    };
    let others: Vec<_> = sets[1..].iter().map(|items| keys(items)).collect();
    let everywhere = |item: &&Dynamic| others.iter().all(|keys| keys.contains(&item.group_key()));
    Value::array(distinct(sets[0].iter().filter(everywhere)))
}

fn set_difference(args: &[Value]) -> Value {
    let Some(first) = args[0].as_array() else {
        return Value::Null;
    };
    let removed: HashSet<_> = args[1..].iter().filter_map(Value::as_array).flat_map(|items| items.iter().map(Dynamic::group_key)).collect();
    Value::array(distinct(first.iter().filter(|item| !removed.contains(&item.group_key()))))
}

fn jaccard(args: &[Value]) -> Value {
    let (Some(x), Some(y)) = (args[0].as_array(), args[1].as_array()) else {
        return Value::Null;
    };
    let (x, y) = (keys(x), keys(y));
    Value::Real(x.intersection(&y).count() as f64 / x.union(&y).count() as f64)
}
