//! Makes expressions ready for [`crate::eval::eval`]: sub-queries run once and become constants.

use super::{RunContext, RunError, nothing, run};
use crate::tree::{Expr, ExprKind};
use crate::value::Value;

/// The expression with every sub-query replaced by its result.
pub(super) fn prepare(expr: &Expr, ctx: &mut RunContext<'_>) -> Result<Expr, RunError> {
    if !has_subquery(expr) {
        return Ok(expr.clone());
    }
    let kind = match &expr.kind {
        ExprKind::ScalarSubquery(rel) => {
            let rows = run(rel, ctx)?;
            let value = rows.rows.into_iter().next().and_then(|row| row.into_iter().next());
            ExprKind::Const(value.unwrap_or_else(|| nothing(expr.ty)))
        }
        ExprKind::InSubquery { needle, query, negated, case_insensitive } => {
            let ty = query.columns.first().map_or(needle.ty, |column| column.ty);
            let rows = run(query, ctx)?;
            let mut args = vec![prepare(needle, ctx)?];
            args.extend(rows.rows.into_iter().filter_map(|row| row.into_iter().next()).map(|value| Expr::constant(value, ty)));
            let function = match (negated, case_insensitive) {
                (false, false) => "in",
                (true, false) => "!in",
                (false, true) => "in~",
                (true, true) => "!in~",
            };
            if args.len() == 1 { ExprKind::Const(Value::Bool(*negated)) } else { ExprKind::Call { function, args } }
        }
        ExprKind::Call { function, args } => ExprKind::Call { function, args: prepare_all(args, ctx)? },
        ExprKind::Window { function, args } => ExprKind::Window { function, args: prepare_all(args, ctx)? },
        ExprKind::Const(_) | ExprKind::Column(_) => expr.kind.clone(),
    };
    Ok(Expr { ty: expr.ty, kind })
}

/// [`prepare`] for several expressions.
pub(super) fn prepare_all(exprs: &[Expr], ctx: &mut RunContext<'_>) -> Result<Vec<Expr>, RunError> {
    exprs.iter().map(|expr| prepare(expr, ctx)).collect()
}

/// Evaluates an expression that reads no columns.
pub(super) fn constant(expr: &Expr, ctx: &mut RunContext<'_>) -> Result<Value, RunError> {
    let expr = prepare(expr, ctx)?;
    Ok(crate::eval::eval(&expr, &[], &mut ctx.eval))
}

/// Whether a sub-query is somewhere inside.
pub fn has_subquery(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::ScalarSubquery(_) | ExprKind::InSubquery { .. } => true,
        ExprKind::Call { args, .. } | ExprKind::Window { args, .. } => args.iter().any(has_subquery),
        ExprKind::Const(_) | ExprKind::Column(_) => false,
    }
}

/// Whether a window function is somewhere inside.
pub fn contains_window(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Window { .. } => true,
        ExprKind::Call { args, .. } => args.iter().any(contains_window),
        _ => false,
    }
}
