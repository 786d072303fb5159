//! Rewrites of trees before they are lowered.

use kql::tree::{Expr, ExprKind, Rel, RelOp};

use crate::engine::scalar;

/// Nodes up to which a predicate is worth repeating the expressions that it reads.
const MAX_NODES: usize = 200;

/// A filter over a projection, as a projection over a filter: the expression then reads stored columns, where it runs
/// once per distinct value of a dictionary and scans can prune with it.
pub(super) fn filter_below_project(input: &Rel, predicate: &Expr) -> Option<Rel> {
    let RelOp::Project(inner, exprs) = &input.op else { return None };
    if exprs.iter().any(|expr| kql::rows::contains_window(expr) || kql::rows::has_subquery(expr) || scalar::is_volatile(expr)) {
        return None;
    }
    let mut nodes = 0;
    let predicate = substitute(predicate, exprs, &mut nodes)?;
    let filter = Rel { columns: inner.columns.clone(), op: RelOp::Filter(inner.clone(), predicate) };
    Some(Rel { columns: input.columns.clone(), op: RelOp::Project(Box::new(filter), exprs.clone()) })
}

/// The expression with columns replaced by what they are; None when it becomes too large or has sub-queries.
fn substitute(expr: &Expr, columns: &[Expr], nodes: &mut usize) -> Option<Expr> {
    *nodes += 1;
    if *nodes > MAX_NODES {
        return None;
    }
    let kind = match &expr.kind {
        ExprKind::Column(index) => {
            let column = columns.get(*index)?;
            *nodes += size(column);
            return Some(column.clone());
        }
        ExprKind::Call { function, args } => {
            let args = args.iter().map(|arg| substitute(arg, columns, nodes)).collect::<Option<Vec<_>>>()?;
            ExprKind::Call { function, args }
        }
        ExprKind::Const(value) => ExprKind::Const(value.clone()),
        _ => return None,
    };
    Some(Expr { ty: expr.ty, kind })
}

fn size(expr: &Expr) -> usize {
    1 + super::walk::operands(expr).into_iter().map(size).sum::<usize>()
}
