//! `iff`, `case`, `coalesce`, `max_of`, `min_of` and constants. The evaluator computes only the branch that is taken.

use super::Function;
use super::signature::{Arg, BOOL, Resolved, common, fixed, wrong_count};
use crate::types::Type;
use crate::value::{Value, compare};

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("iff", resolve_iff, |_, a| a[if is_true(&a[0]) { 1 } else { 2 }].clone()).alias(&["iif"]),
    Function::new("case", resolve_case, |_, a| case(a)),
    Function::new("coalesce", resolve_coalesce, |_, a| coalesce(a)),
    Function::new("max_of", resolve_choice, |_, a| extreme(a, true)),
    Function::new("min_of", resolve_choice, |_, a| extreme(a, false)),
    Function::new("assert", resolve_assert, |_, a| a[0].clone()),
    Function::new("now", resolve_now, |ctx, a| now(ctx.now, a.first())),
    Function::new(
        "ago",
        |a| fixed(a, &[super::signature::TIMESPAN], Type::DateTime),
        |ctx, a| super::operators::subtract(&Value::DateTime(ctx.now), &a[0]),
    ),
];

/// Whether a condition holds; null does not.
pub(crate) fn is_true(value: &Value) -> bool {
    *value == Value::Bool(true)
}

fn resolve_iff(args: &[Arg<'_>]) -> Result<Resolved, String> {
    let [_, then, otherwise] = args else {
        return Err(wrong_count(args.len(), 3, Some(3)));
    };
    let ty = common([then.ty, otherwise.ty])?;
    let condition = fixed(&args[..1], &[BOOL], ty)?;
    Ok(Resolved { ty, args: vec![condition.args[0], ty, ty] })
}

fn resolve_case(args: &[Arg<'_>]) -> Result<Resolved, String> {
    if args.len() < 3 || args.len().is_multiple_of(2) {
        return Err("expected pairs of a condition and a value, then a last value".into());
    }
    let is_condition = |index: usize| index.is_multiple_of(2) && index + 1 < args.len();
    let ty = common(args.iter().enumerate().filter(|(index, _)| !is_condition(*index)).map(|(_, arg)| arg.ty))?;
    let types = args.iter().enumerate().map(
        |(index, arg)| {
            if is_condition(index) { fixed(&[*arg], &[BOOL], ty).map(|r| r.args[0]) } else { Ok(ty) }
        },
    );
    Ok(Resolved { ty, args: types.collect::<Result<_, _>>()? })
}

fn resolve_coalesce(args: &[Arg<'_>]) -> Result<Resolved, String> {
    resolve_choice(args)
}

fn resolve_choice(args: &[Arg<'_>]) -> Result<Resolved, String> {
    if args.is_empty() || args.len() > 64 {
        return Err(wrong_count(args.len(), 1, Some(64)));
    }
    let ty = common(args.iter().map(|arg| arg.ty))?;
    Ok(Resolved { ty, args: vec![ty; args.len()] })
}

/// The condition has to be constant; if it does not hold, the query is refused with the message.
fn resolve_assert(args: &[Arg<'_>]) -> Result<Resolved, String> {
    let resolved = fixed(args, &[BOOL, super::signature::STR], Type::Bool)?;
    match args[0].constant {
        Some(condition) if is_true(condition) => Ok(resolved),
        Some(_) => Err(format!("assertion failed: {}", super::signature::constant_text(args, 1).unwrap_or(""))),
        None => Err("argument 1 must be constant".into()),
    }
}

fn resolve_now(args: &[Arg<'_>]) -> Result<Resolved, String> {
    super::signature::optional(args, &[super::signature::TIMESPAN], 0, Type::DateTime)
}

fn now(ticks: i64, offset: Option<&Value>) -> Value {
    match offset {
        None => Value::DateTime(ticks),
        Some(offset) => super::operators::add(&Value::DateTime(ticks), offset),
    }
}

fn case(args: &[Value]) -> Value {
    let (pairs, last) = args.split_at(args.len() - 1);
    let taken = pairs.chunks_exact(2).find(|pair| is_true(&pair[0])).map(|pair| &pair[1]);
    taken.unwrap_or(&last[0]).clone()
}

/// Whether `coalesce` passes over a value: null, or the empty string.
pub(crate) fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn coalesce(args: &[Value]) -> Value {
    args.iter().find(|value| !is_absent(value)).or(args.last()).cloned().unwrap_or(Value::Null)
}

/// The largest or smallest of the values that are not null.
fn extreme(args: &[Value], largest: bool) -> Value {
    let present = args.iter().filter(|value| !value.is_null());
    let best = if largest { present.max_by(|a, b| compare(a, b)) } else { present.min_by(|a, b| compare(a, b)) };
    best.cloned().unwrap_or(Value::Null)
}
