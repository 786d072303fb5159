//! Filters: each conjunct that DataFusion understands as it is becomes a native comparison, so that scans can prune
//! files and row groups with it; the rest becomes functions.
//!
//! A native comparison may differ from Kusto's only in giving null where Kusto gives false: a filter keeps neither.

use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan, and, lit};
use kql::tree::{Expr, ExprKind};
use kql::{Type, Value};

use super::column_of;
use crate::engine::scalar::{self, Comparison};
use crate::engine::values::scalar_value;

/// Longest list that is worth a native `IN`: readers prune with no longer ones.
const MAX_LIST: usize = 20;

/// The condition of a filter; None when it is always true.
pub(super) fn lower(predicate: &Expr, input: &LogicalPlan, now: i64) -> Option<PlanExpr> {
    let mut conjuncts = Vec::new();
    split(predicate, &mut conjuncts);
    let conditions: Vec<PlanExpr> =
        conjuncts.into_iter().filter(|expr| !is_true(expr)).flat_map(|expr| condition(expr, input, now)).collect();
    balanced(conditions)
}

/// Conjuncts of nested `and`s, in order.
fn split<'a>(expr: &'a Expr, conjuncts: &mut Vec<&'a Expr>) {
    match &expr.kind {
        ExprKind::Call { function: "and", args } => args.iter().for_each(|arg| split(arg, conjuncts)),
        _ => conjuncts.push(expr),
    }
}

fn is_true(expr: &Expr) -> bool {
    matches!(expr.kind, ExprKind::Const(Value::Bool(true)))
}

/// A tree of `AND`s of logarithmic depth, since DataFusion walks it recursively.
fn balanced(mut conditions: Vec<PlanExpr>) -> Option<PlanExpr> {
    if conditions.len() < 2 {
        return conditions.pop();
    }
    let right = conditions.split_off(conditions.len() / 2);
    Some(and(balanced(conditions)?, balanced(right)?))
}

fn condition(expr: &Expr, input: &LogicalPlan, now: i64) -> Vec<PlanExpr> {
    native(expr, input).unwrap_or_else(|| vec![scalar::lower(expr, &|index| column_of(input, index), now)])
}

fn native(expr: &Expr, input: &LogicalPlan) -> Option<Vec<PlanExpr>> {
    let ExprKind::Call { function, args } = &expr.kind else { return None };
    match (*function, args.as_slice()) {
        ("between", [value, low, high]) if value.ty == low.ty && value.ty == high.ty => {
            Some(vec![compare(Comparison::GreaterOrEqual, value, low, input)?, compare(Comparison::LessOrEqual, value, high, input)?])
        }
        ("in", [needle, candidates @ ..]) if candidates.len() <= MAX_LIST => {
            let column = comparable(needle, Comparison::Equal, input)?;
            let list = candidates.iter().map(|candidate| literal(candidate, needle.ty)).collect::<Option<Vec<_>>>()?;
            Some(vec![column.in_list(list, false)])
        }
        (function, [left, right]) => {
            let op = Comparison::of(function)?;
            let native = compare(op, left, right, input).or_else(|| compare(op.flipped(), right, left, input))?;
            Some(vec![native])
        }
        _ => None,
    }
}

fn compare(op: Comparison, column: &Expr, constant: &Expr, input: &LogicalPlan) -> Option<PlanExpr> {
    let (column, constant) = (comparable(column, op, input)?, literal(constant, column.ty)?);
    Some(match op {
        Comparison::Equal => column.eq(constant),
        Comparison::Less => column.lt(constant),
        Comparison::LessOrEqual => column.lt_eq(constant),
        Comparison::Greater => column.gt(constant),
        Comparison::GreaterOrEqual => column.gt_eq(constant),
        // Kusto keeps nulls here.
        Comparison::NotEqual => return None,
    })
}

/// A column whose storage compares like its values. Reals do not: DataFusion orders NaN and the two zeros.
fn comparable(expr: &Expr, op: Comparison, input: &LogicalPlan) -> Option<PlanExpr> {
    let ExprKind::Column(index) = expr.kind else { return None };
    let fits = match expr.ty {
        Type::Int | Type::Long | Type::DateTime | Type::TimeSpan => true,
        Type::String => op == Comparison::Equal,
        _ => false,
    };
    fits.then(|| column_of(input, index))
}

/// A constant that is not null; the empty string stands for null in older files, so it is not native either.
fn literal(expr: &Expr, ty: Type) -> Option<PlanExpr> {
    match &expr.kind {
        ExprKind::Const(value) if expr.ty == ty && !value.is_null() && value.as_str() != Some("") => Some(lit(scalar_value(value, ty))),
        _ => None,
    }
}
