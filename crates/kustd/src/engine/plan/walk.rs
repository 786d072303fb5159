//! Access to the parts of an operator: the expressions it evaluates and the trees below it.

use kql::tree::{Aggregate, Expr, ExprKind, MvExpand, Rel, RelOp};

/// Expressions that an operator itself evaluates, not those of its inputs or sub-queries.
pub(super) fn expressions_mut(op: &mut RelOp) -> Vec<&mut Expr> {
    fn expansion(expand: &mut MvExpand) -> Vec<&mut Expr> {
        expand.columns.iter_mut().map(|(expr, ..)| expr).collect()
    }
    fn aggregate(aggregate: &mut Aggregate) -> std::slice::IterMut<'_, Expr> {
        aggregate.args.iter_mut()
    }
    match op {
        RelOp::Table { .. }
        | RelOp::Remote(_)
        | RelOp::BestEffort { .. }
        | RelOp::Values(_)
        | RelOp::Argument
        | RelOp::Materialize(_)
        | RelOp::Distinct(_)
        | RelOp::Serialize(_)
        | RelOp::Take(..)
        | RelOp::Count(_)
        | RelOp::Union(_)
        | RelOp::Partition { .. }
        | RelOp::Sample { .. }
        | RelOp::GetSchema(_) => Vec::new(),
        RelOp::Range { from, to, step } => vec![from, to, step],
        RelOp::Filter(_, predicate) => vec![predicate],
        RelOp::Project(_, exprs) => exprs.iter_mut().collect(),
        RelOp::Summarize { keys, aggregates, .. } => keys.iter_mut().chain(aggregates.iter_mut().flat_map(aggregate)).collect(),
        RelOp::Sort(_, keys) => keys.iter_mut().map(|key| &mut key.expr).collect(),
        RelOp::Join { on, .. } => on.iter_mut().flat_map(|(left, right)| [left, right]).collect(),
        RelOp::MvExpand(expand) => expansion(expand),
        RelOp::MvApply { expand, .. } => expansion(expand),
        RelOp::MakeSeries(series) => {
            let mut all = vec![&mut series.axis, &mut series.step];
            all.extend(series.from.iter_mut().chain(&mut series.to).chain(&mut series.keys));
            for (of, default) in &mut series.aggregates {
                all.extend(aggregate(of).chain(default));
            }
            all
        }
        RelOp::Parse(parse) => vec![&mut parse.source],
        RelOp::ParseKv(parse) => vec![&mut parse.source],
        RelOp::TopNested { levels, .. } => {
            levels.iter_mut().flat_map(|level| std::iter::once(&mut level.of).chain(aggregate(&mut level.by))).collect()
        }
        RelOp::Scan(scan) => {
            let steps = scan.steps.iter_mut();
            steps.flat_map(|step| std::iter::once(&mut step.condition).chain(step.assignments.iter_mut().map(|(_, e)| e))).collect()
        }
        RelOp::Evaluate { args, .. } => args.iter_mut().collect(),
    }
}

/// The inputs of an operator, in the order of [`kql::rows::inputs`].
pub(super) fn inputs_mut(op: &mut RelOp) -> Vec<&mut Rel> {
    match op {
        RelOp::Table { .. } | RelOp::Remote(_) | RelOp::Values(_) | RelOp::Range { .. } | RelOp::Argument | RelOp::Materialize(_) => {
            Vec::new()
        }
        RelOp::Filter(input, _)
        | RelOp::Project(input, _)
        | RelOp::Summarize { input, .. }
        | RelOp::Distinct(input)
        | RelOp::Sort(input, _)
        | RelOp::Serialize(input)
        | RelOp::Take(input, _)
        | RelOp::Count(input)
        | RelOp::Partition { input, .. }
        | RelOp::TopNested { input, .. }
        | RelOp::Sample { input, .. }
        | RelOp::Evaluate { input, .. }
        | RelOp::BestEffort { input, .. }
        | RelOp::GetSchema(input) => vec![input],
        RelOp::Join { left, right, .. } => vec![left, right],
        RelOp::Union(inputs) => inputs.iter_mut().collect(),
        RelOp::MvExpand(expand) => vec![&mut expand.input],
        RelOp::MvApply { expand, .. } => vec![&mut expand.input],
        RelOp::MakeSeries(series) => vec![&mut series.input],
        RelOp::Parse(parse) => vec![&mut parse.input],
        RelOp::ParseKv(parse) => vec![&mut parse.input],
        RelOp::Scan(scan) => vec![&mut scan.input],
    }
}

/// The sub-query that an operator runs for each key or row.
pub(super) fn subquery_mut(op: &mut RelOp) -> Option<&mut Rel> {
    match op {
        RelOp::Partition { subquery, .. } | RelOp::MvApply { subquery, .. } => Some(subquery),
        _ => None,
    }
}

/// The operator alone: its inputs are replaced by the placeholder for rows that are there already.
pub(super) fn without_inputs(rel: &Rel) -> Rel {
    let mut alone = rel.clone();
    for input in inputs_mut(&mut alone.op) {
        input.op = RelOp::Argument;
    }
    alone
}

/// Direct operands of an expression.
pub(super) fn operands(expr: &Expr) -> Vec<&Expr> {
    match &expr.kind {
        ExprKind::Call { args, .. } | ExprKind::Window { args, .. } => args.iter().collect(),
        ExprKind::InSubquery { needle, .. } => vec![needle],
        ExprKind::Const(_) | ExprKind::Column(_) | ExprKind::ScalarSubquery(_) => Vec::new(),
    }
}

/// Direct operands of an expression, to be changed.
pub(super) fn operands_mut(expr: &mut Expr) -> Vec<&mut Expr> {
    match &mut expr.kind {
        ExprKind::Call { args, .. } | ExprKind::Window { args, .. } => args.iter_mut().collect(),
        ExprKind::InSubquery { needle, .. } => vec![needle],
        ExprKind::Const(_) | ExprKind::Column(_) | ExprKind::ScalarSubquery(_) => Vec::new(),
    }
}

/// Operators on top of each other, sub-queries included; stops counting above `limit`.
pub(super) fn depth(rel: &Rel, limit: usize) -> usize {
    if limit == 0 {
        return 1;
    }
    let below = |rel: &Rel| depth(rel, limit - 1);
    let inputs = kql::rows::inputs(rel).into_iter().map(below).max().unwrap_or(0);
    let inner = match &rel.op {
        RelOp::Materialize(shared) => below(shared),
        RelOp::Partition { subquery, .. } | RelOp::MvApply { subquery, .. } => below(subquery),
        _ => 0,
    };
    1 + inputs.max(inner)
}

/// Whether any node of the tree satisfies the predicate; looks into `materialize` and sub-queries of operators.
pub(in crate::engine) fn any(rel: &Rel, predicate: &dyn Fn(&RelOp) -> bool) -> bool {
    let inner = match &rel.op {
        RelOp::Materialize(shared) => any(shared, predicate),
        RelOp::Partition { subquery, .. } | RelOp::MvApply { subquery, .. } => any(subquery, predicate),
        _ => false,
    };
    inner || predicate(&rel.op) || kql::rows::inputs(rel).into_iter().any(|input| any(input, predicate))
}

/// Whether an operator of the tree evaluates a sub-query.
pub(in crate::engine) fn has_subquery(rel: &Rel) -> bool {
    any(rel, &|op| expressions_mut(&mut op.clone()).into_iter().any(|expr| kql::rows::has_subquery(expr)))
}
