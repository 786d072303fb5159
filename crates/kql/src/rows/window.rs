//! Window functions over serialized rows: `prev`, `next`, `row_number`, `row_cumsum`, `row_rank_*`,
//! `row_window_session`. All rows are one partition; a restart predicate begins a new one.

use super::{Row, Rows, RunContext, RunError};
use crate::eval::eval;
use crate::functions;
use crate::tree::{Expr, ExprKind};
use crate::types::Type;
use crate::value::Value;

/// Rows with the window functions computed into columns behind the input's, and the expressions that read them.
pub(super) struct WithWindows {
    pub(super) rows: Vec<Row>,
    pub(super) exprs: Vec<Expr>,
    /// Columns of the input, before those that were added.
    pub(super) width: usize,
}

/// Computes all window functions in `exprs`, inner ones first, as further columns of the rows.
pub(super) fn with_windows(input: Rows, exprs: &[Expr], ctx: &mut RunContext<'_>) -> Result<WithWindows, RunError> {
    let width = input.columns.len();
    let mut rows = input.rows;
    let mut next_column = width;
    let exprs = exprs.iter().map(|expr| replace(expr, &mut rows, &mut next_column, ctx)).collect::<Result<_, _>>()?;
    Ok(WithWindows { rows, exprs, width })
}

/// Public face of [`with_windows`] for engines: appends the computed columns to the rows and gives the expressions
/// rewritten to read them, without any window function left.
pub fn window_columns(input: Rows, exprs: &[Expr], ctx: &mut RunContext<'_>) -> Result<(Vec<Row>, Vec<Expr>), RunError> {
    with_windows(input, exprs, ctx).map(|done| (done.rows, done.exprs))
}

fn replace(expr: &Expr, rows: &mut [Row], next_column: &mut usize, ctx: &mut RunContext<'_>) -> Result<Expr, RunError> {
    let kind = match &expr.kind {
        ExprKind::Window { function, args } => {
            let args = args.iter().map(|arg| replace(arg, rows, next_column, ctx)).collect::<Result<Vec<_>, _>>()?;
            let values = compute(function, &args, rows, ctx)?;
            for (row, value) in rows.iter_mut().zip(values) {
                row.push(value);
            }
            *next_column += 1;
            ExprKind::Column(*next_column - 1)
        }
        ExprKind::Call { function, args } => {
            ExprKind::Call { function, args: args.iter().map(|arg| replace(arg, rows, next_column, ctx)).collect::<Result<_, _>>()? }
        }
        other => other.clone(),
    };
    Ok(Expr { ty: expr.ty, kind })
}

fn compute(function: &str, args: &[Expr], rows: &[Row], ctx: &mut RunContext<'_>) -> Result<Vec<Value>, RunError> {
    match function {
        "prev" => Ok(shifted(args, rows, -1, ctx)),
        "next" => Ok(shifted(args, rows, 1, ctx)),
        "row_number" => Ok(row_number(args, rows, ctx)),
        "row_cumsum" => row_cumsum(args, rows, ctx),
        "row_rank_dense" => Ok(row_rank(args, rows, ctx, true)),
        "row_rank_min" => Ok(row_rank(args, rows, ctx, false)),
        "row_window_session" => Ok(row_window_session(args, rows, ctx)),
        other => Err(RunError::Argument(format!("the window function '{other}' is not supported"))),
    }
}

/// `prev(expr, offset, default)` with direction -1, `next` with 1.
fn shifted(args: &[Expr], rows: &[Row], direction: i64, ctx: &mut RunContext<'_>) -> Vec<Value> {
    let Some(expr) = args.first() else { return vec![Value::Null; rows.len()] };
    let values: Vec<Value> = rows.iter().map(|row| eval(expr, row, &mut ctx.eval)).collect();
    (0..rows.len())
        .map(|at| {
            let offset = args.get(1).map_or(1, |arg| integer(&eval(arg, &rows[at], &mut ctx.eval)).unwrap_or(1));
            let from = (at as i64).checked_add(direction.saturating_mul(offset)).and_then(|index| usize::try_from(index).ok());
            match from.and_then(|index| values.get(index)) {
                Some(value) => value.clone(),
                None => args.get(2).map_or_else(|| super::nothing(expr.ty), |arg| eval(arg, &rows[at], &mut ctx.eval)),
            }
        })
        .collect()
}

fn row_number(args: &[Expr], rows: &[Row], ctx: &mut RunContext<'_>) -> Vec<Value> {
    let mut at: Option<i64> = None;
    rows.iter()
        .map(|row| {
            let start = args.first().and_then(|arg| integer(&eval(arg, row, &mut ctx.eval))).unwrap_or(1);
            let number = match at {
                Some(last) if !restarts(args.get(1), row, ctx) => last.wrapping_add(1),
                _ => start,
            };
            at = Some(number);
            Value::Long(number)
        })
        .collect()
}

fn row_cumsum(args: &[Expr], rows: &[Row], ctx: &mut RunContext<'_>) -> Result<Vec<Value>, RunError> {
    let add = functions::lookup("+").ok_or_else(|| RunError::Argument("row_cumsum: the + operator is missing".into()))?;
    let Some(term) = args.first() else { return Ok(vec![Value::Null; rows.len()]) };
    let mut sum: Option<Value> = None;
    let mut sums = Vec::with_capacity(rows.len());
    for row in rows {
        if restarts(args.get(1), row, ctx) {
            sum = None;
        }
        let value = eval(term, row, &mut ctx.eval);
        let next = match (&sum, value) {
            (None, Value::Null) => None,
            (None, value) => Some(value),
            (Some(sum), Value::Null) => Some(sum.clone()),
            (Some(sum), value) => Some(same_type((add.eval)(&mut ctx.eval, &[sum.clone(), value]), term.ty)),
        };
        sums.push(next.clone().unwrap_or_else(|| zero(term.ty)));
        sum = next;
    }
    Ok(sums)
}

fn zero(ty: Type) -> Value {
    match ty {
        Type::Int => Value::Int(0),
        Type::Long => Value::Long(0),
        Type::Real => Value::Real(0.0),
        Type::TimeSpan => Value::TimeSpan(0),
        Type::Decimal => Value::Decimal(Default::default()),
        _ => Value::Null,
    }
}

fn same_type(value: Value, ty: Type) -> Value {
    match (value, ty) {
        (Value::Long(long), Type::Int) => Value::Int(long as i32),
        (value, _) => value,
    }
}

/// Dense: 1, 2, 3 for each new value. Otherwise the number of the first row with that value.
fn row_rank(args: &[Expr], rows: &[Row], ctx: &mut RunContext<'_>, dense: bool) -> Vec<Value> {
    let Some(term) = args.first() else { return vec![Value::Null; rows.len()] };
    let (mut rank, mut position) = (0i64, 0i64);
    let mut last: Option<Value> = None;
    rows.iter()
        .map(|row| {
            if restarts(args.get(1), row, ctx) {
                (rank, position, last) = (0, 0, None);
            }
            position += 1;
            let value = eval(term, row, &mut ctx.eval);
            let same = last.as_ref().is_some_and(|last| last.group_key() == value.group_key());
            if !same {
                rank = if dense { rank + 1 } else { position };
                last = Some(value);
            }
            Value::Long(rank)
        })
        .collect()
}

/// `row_window_session(time, max from first, max between neighbours, restart)`: the first time of the row's session.
fn row_window_session(args: &[Expr], rows: &[Row], ctx: &mut RunContext<'_>) -> Vec<Value> {
    let [time, from_first, between, ..] = args else { return vec![Value::Null; rows.len()] };
    let mut session: Option<(i64, i64)> = None;
    rows.iter()
        .map(|row| {
            let Value::DateTime(now) = eval(time, row, &mut ctx.eval) else { return Value::Null };
            let limit = |expr: &Expr, ctx: &mut RunContext<'_>| match eval(expr, row, &mut ctx.eval) {
                Value::TimeSpan(ticks) => ticks,
                _ => i64::MAX,
            };
            let (max_first, max_between) = (limit(from_first, ctx), limit(between, ctx));
            let restart = restarts(args.get(3), row, ctx);
            let first = match session {
                Some((first, last)) if !restart && now.saturating_sub(first) <= max_first && now.saturating_sub(last) <= max_between => {
                    first
                }
                _ => now,
            };
            session = Some((first, now));
            Value::DateTime(first)
        })
        .collect()
}

fn restarts(restart: Option<&Expr>, row: &[Value], ctx: &mut RunContext<'_>) -> bool {
    restart.is_some_and(|expr| eval(expr, row, &mut ctx.eval) == Value::Bool(true))
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(int) => Some(i64::from(*int)),
        Value::Long(long) => Some(*long),
        Value::Real(real) => Some(*real as i64),
        _ => None,
    }
}
