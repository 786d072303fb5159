//! Rewrites of trees before they are lowered.

use kql::tree::{Aggregate, Expr, ExprKind, MakeSeries, Rel, RelOp};
use kql::{Column, Type, Value};

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

/// `make-series` over one row for each series and bin, which `summarize` makes before: it holds bins in memory instead
/// of samples. Bounds and step are constants already. None when the axis is not one of ticks or longs.
pub(super) fn aggregate_before_series(rel: &Rel) -> Option<Rel> {
    let RelOp::MakeSeries(series) = &rel.op else { return None };
    let bin = bin_of_axis(series)?;
    let mut keys = series.keys.clone();
    keys.push(bin);
    let aggregates: Vec<Aggregate> = series.aggregates.iter().map(|(aggregate, _)| aggregate.clone()).collect();
    let types = keys.iter().map(|key| key.ty).chain(aggregates.iter().map(|aggregate| aggregate.ty));
    let columns: Vec<Column> = types.enumerate().map(|(index, ty)| Column::new(format!("Column{index}"), ty)).collect();
    let column = |index: usize| Expr::column(index, columns[index].ty);
    let input = Box::new(within_bounds(series));
    let single = |(index, (aggregate, default)): (usize, &(Aggregate, Option<Expr>))| {
        let args = vec![column(keys.len() + index)];
        (Aggregate { function: "take_any", args, ty: aggregate.ty }, default.clone())
    };
    let outer = MakeSeries {
        aggregates: series.aggregates.iter().enumerate().map(single).collect(),
        axis: column(series.keys.len()),
        keys: (0..series.keys.len()).map(column).collect(),
        input: Rel { columns: columns.clone(), op: RelOp::Summarize { input, keys: keys.clone(), aggregates } },
        from: series.from.clone(),
        to: series.to.clone(),
        step: series.step.clone(),
        nonempty: series.nonempty,
    };
    Some(Rel { columns: rel.columns.clone(), op: RelOp::MakeSeries(Box::new(outer)) })
}

/// The start of the bin that a row falls into: from the first bin on, or at multiples of the step.
fn bin_of_axis(series: &MakeSeries) -> Option<Expr> {
    let ty = series.axis.ty;
    let step = if ty == Type::DateTime { Type::TimeSpan } else { ty };
    let fits = matches!(ty, Type::DateTime | Type::TimeSpan | Type::Long) && series.step.ty == step;
    if !fits || !is_value(&series.step) || series.from.iter().any(|from| from.ty != ty || !is_value(from)) {
        return None;
    }
    let mut args = vec![series.axis.clone(), series.step.clone()];
    args.extend(series.from.clone());
    let function = if series.from.is_some() { "bin_at" } else { "bin" };
    Some(Expr { ty, kind: ExprKind::Call { function, args } })
}

fn is_value(expr: &Expr) -> bool {
    matches!(&expr.kind, ExprKind::Const(value) if !value.is_null())
}

/// The input without rows outside of the bounds, where these are known.
fn within_bounds(series: &MakeSeries) -> Rel {
    let compare = |function: &'static str, bound: &Option<Expr>| {
        let bound = bound.as_ref().filter(|bound| is_value(bound) && bound.ty == series.axis.ty)?;
        let args = vec![series.axis.clone(), bound.clone()];
        Some(Expr { ty: Type::Bool, kind: ExprKind::Call { function, args } })
    };
    let always = Expr::constant(Value::Bool(true), Type::Bool);
    let args = vec![compare(">=", &series.from).unwrap_or_else(|| always.clone()), compare("<", &series.to).unwrap_or(always)];
    let predicate = Expr { ty: Type::Bool, kind: ExprKind::Call { function: "and", args } };
    Rel { columns: series.input.columns.clone(), op: RelOp::Filter(Box::new(series.input.clone()), predicate) }
}
