//! Row-wise operators, ordering and `range`.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::prepare::{constant, contains_window, prepare, prepare_all};
use super::{Row, Rows, RunContext, RunError, window};
use crate::eval::eval;
use crate::functions;
use crate::tree::{Expr, SortKey};
use crate::types::{Column, Type};
use crate::value::{self, Value};

pub(super) fn filter(input: Rows, predicate: &Expr, ctx: &mut RunContext<'_>) -> Result<Vec<Row>, RunError> {
    let predicate = prepare(predicate, ctx)?;
    let input = window::with_windows(input, std::slice::from_ref(&predicate), ctx)?;
    let width = input.width;
    let predicate = &input.exprs[0];
    let mut kept = Vec::new();
    for mut row in input.rows {
        if eval(predicate, &row, &mut ctx.eval) == Value::Bool(true) {
            row.truncate(width);
            kept.push(row);
        }
    }
    Ok(kept)
}

pub(super) fn project(input: Rows, exprs: &[Expr], ctx: &mut RunContext<'_>) -> Result<Vec<Row>, RunError> {
    let exprs = prepare_all(exprs, ctx)?;
    if exprs.iter().any(contains_window) {
        let input = window::with_windows(input, &exprs, ctx)?;
        return Ok(project_rows(&input.rows, &input.exprs, ctx));
    }
    Ok(project_rows(&input.rows, &exprs, ctx))
}

fn project_rows(rows: &[Row], exprs: &[Expr], ctx: &mut RunContext<'_>) -> Vec<Row> {
    rows.iter().map(|row| exprs.iter().map(|expr| eval(expr, row, &mut ctx.eval)).collect()).collect()
}

pub(super) fn distinct(input: Rows) -> Vec<Row> {
    let mut seen = HashSet::new();
    input.rows.into_iter().filter(|row| seen.insert(row.iter().map(Value::group_key).collect::<Vec<_>>())).collect()
}

pub(super) fn take(mut input: Rows, count: u64) -> Vec<Row> {
    input.rows.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    input.rows
}

pub(super) fn sort(input: Rows, keys: &[SortKey], ctx: &mut RunContext<'_>) -> Result<Vec<Row>, RunError> {
    let exprs: Vec<Expr> = keys.iter().map(|key| key.expr.clone()).collect();
    let exprs = prepare_all(&exprs, ctx)?;
    let mut keyed: Vec<(Row, Row)> =
        input.rows.into_iter().map(|row| (exprs.iter().map(|expr| eval(expr, &row, &mut ctx.eval)).collect(), row)).collect();
    keyed.sort_by(|(a, _), (b, _)| {
        keys.iter().zip(a.iter().zip(b)).map(|(key, (a, b))| compare_key(key, a, b)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    });
    Ok(keyed.into_iter().map(|(_, row)| row).collect())
}

fn compare_key(key: &SortKey, a: &Value, b: &Value) -> Ordering {
    let nulls = |first: bool| if first { Ordering::Less } else { Ordering::Greater };
    match (is_null(a), is_null(b)) {
        (true, true) => Ordering::Equal,
        (true, false) => nulls(key.nulls_first),
        (false, true) => nulls(key.nulls_first).reverse(),
        (false, false) if key.descending => value::compare(b, a),
        (false, false) => value::compare(a, b),
    }
}

/// Kusto orders NaN with the nulls.
fn is_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Real(real) => real.is_nan(),
        _ => false,
    }
}

/// `range`: from, from + step, … up to and including `to`. A step of zero or in the wrong direction gives no rows.
pub(super) fn range(from: &Expr, to: &Expr, step: &Expr, ctx: &mut RunContext<'_>) -> Result<Vec<Row>, RunError> {
    let ty = from.ty;
    let (mut at, to, step) = (constant(from, ctx)?, constant(to, ctx)?, constant(step, ctx)?);
    let direction = match sign(&step) {
        Some(sign) if sign != 0 => sign,
        _ => return Ok(Vec::new()),
    };
    let add = functions::lookup("+").ok_or_else(|| RunError::Argument("range: the + operator is missing".into()))?;
    let mut rows = Vec::new();
    while !matches!(at, Value::Null) && !matches!(to, Value::Null) {
        let order = value::compare(&at, &to);
        if (direction > 0 && order.is_gt()) || (direction < 0 && order.is_lt()) {
            break;
        }
        ctx.check(rows.len())?;
        let next = (add.eval)(&mut ctx.eval, &[at.clone(), step.clone()]);
        // An overflow would start over from the other end.
        if (value::compare(&next, &at) == Ordering::Greater) != (direction > 0) {
            rows.push(vec![at]);
            break;
        }
        rows.push(vec![std::mem::replace(&mut at, narrow(next, ty))]);
    }
    Ok(rows)
}

/// `int + int` is a long, but a range of ints stays one of ints.
fn narrow(value: Value, ty: Type) -> Value {
    match (value, ty) {
        (Value::Long(long), Type::Int) => i32::try_from(long).map_or(Value::Null, Value::Int),
        (value, _) => value,
    }
}

fn sign(value: &Value) -> Option<i32> {
    let of = |ordering: Ordering| Some(ordering as i32);
    match value {
        Value::Int(int) => of(int.cmp(&0)),
        Value::Long(long) | Value::TimeSpan(long) => of(long.cmp(&0)),
        Value::Real(real) => real.partial_cmp(&0.0).and_then(of),
        Value::Decimal(decimal) => of(decimal.cmp(&Default::default())),
        _ => None,
    }
}

pub(super) fn get_schema(columns: &[Column]) -> Vec<Row> {
    let text = |s: &str| Value::String(s.into());
    let row = |(index, column): (usize, &Column)| {
        vec![text(&column.name), Value::Int(index as i32), text(clr_name(column.ty)), text(column.ty.name())]
    };
    columns.iter().enumerate().map(row).collect()
}

/// The .NET name of a type, as `getschema` and `.show table schema` print it.
pub(super) fn clr_name(ty: Type) -> &'static str {
    match ty {
        Type::Bool => "System.SByte",
        Type::Int => "System.Int32",
        Type::Long => "System.Int64",
        Type::Real => "System.Double",
        Type::Decimal => "System.Data.SqlTypes.SqlDecimal",
        Type::String => "System.String",
        Type::DateTime => "System.DateTime",
        Type::TimeSpan => "System.TimeSpan",
        Type::Guid => "System.Guid",
        Type::Dynamic => "System.Object",
    }
}
