//! `summarize` and `count`.
//!
//! Aggregates that DataFusion computes with Kusto's meaning become its own; when one of a `summarize` is not among
//! them, all are folded by [`super::fold`] with the accumulators of [`kql::aggregates`].

use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::expr_fn::{avg, count, max, min, sum};
use datafusion::logical_expr::{Expr as PlanExpr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, cast, lit};
use kql::tree::{Aggregate, Expr, ExprKind, Rel};
use kql::{Type, Value, aggregates};

use super::{Planner, groups_natively, nan_as_null};
use crate::engine::error::EngineError;
use crate::engine::values::{arrow_type, column_name, scalar_value};

impl Planner {
    pub(super) async fn count(&self, input: &Rel) -> Result<LogicalPlan, EngineError> {
        let plan = self.plan(input).await?;
        let all = count(lit(1_i64)).alias(column_name(0));
        Ok(LogicalPlanBuilder::new(plan).aggregate(Vec::<PlanExpr>::new(), vec![all])?.build()?)
    }

    pub(super) async fn summarize(
        &self,
        rel: &Rel,
        input: &Rel,
        keys: &[Expr],
        aggregates: &[Aggregate],
    ) -> Result<LogicalPlan, EngineError> {
        let keys = self.prepare_all(keys).await?;
        let mut prepared = Vec::with_capacity(aggregates.len());
        for aggregate in aggregates {
            prepared.push(Aggregate { args: self.prepare_all(&aggregate.args).await?, ..aggregate.clone() });
        }
        if keys.is_empty() && prepared.is_empty() || !groups_natively(keys.iter().map(|key| key.ty)) {
            return self.fold(rel, input, &keys, &prepared).await;
        }
        let Some(native) = prepared.iter().map(|aggregate| self.native(aggregate)).collect::<Option<Vec<_>>>() else {
            return self.fold(rel, input, &keys, &prepared).await;
        };
        let plan = self.plan(input).await?;
        let groups: Vec<PlanExpr> =
            keys.iter().enumerate().map(|(index, key)| self.lower_key(key, &plan).alias(column_name(index))).collect();
        let named = native.iter().enumerate().map(|(index, native)| native.expr.clone().alias(column_name(keys.len() + index)));
        let plan = LogicalPlanBuilder::new(plan).aggregate(groups, named.collect::<Vec<_>>())?.build()?;
        let finished = keys.iter().map(|_| None).chain(native.iter().map(Some)).enumerate().map(|(index, native)| {
            let column = datafusion::logical_expr::col(column_name(index));
            native.map_or_else(|| column.clone(), |native| native.finish(column.clone())).alias(column_name(index))
        });
        Ok(LogicalPlanBuilder::new(plan).project(finished.collect::<Vec<_>>())?.build()?)
    }

    pub(super) async fn prepare_all(&self, exprs: &[Expr]) -> Result<Vec<Expr>, EngineError> {
        let mut prepared = Vec::with_capacity(exprs.len());
        for expr in exprs {
            prepared.push(self.prepare(expr).await?);
        }
        Ok(prepared)
    }

    /// The aggregate in DataFusion's terms, if it has it.
    fn native(&self, aggregate: &Aggregate) -> Option<Native> {
        let known = Known::of(aggregate)?;
        let expr = match (&known.function, known.arg) {
            (Plain::Count, _) => count(lit(1_i64)),
            (Plain::Sum, Some(arg)) => sum(self.lower(arg)),
            // DataFusion's order of NaN depends on the order of rows.
            (Plain::Min, Some(arg)) if arg.ty == Type::Real => min(nan_as_null(arg, self.limits.now)),
            (Plain::Max, Some(arg)) if arg.ty == Type::Real => max(nan_as_null(arg, self.limits.now)),
            (Plain::Min, Some(arg)) => min(self.lower(arg)),
            (Plain::Max, Some(arg)) => max(self.lower(arg)),
            (Plain::Avg, Some(arg)) => avg(self.lower(arg)),
            (_, None) => return None,
        };
        let expr = match known.condition {
            Some(condition) => expr.filter(self.lower(condition)).build().ok()?,
            None => expr,
        };
        Some(Native { expr, ty: aggregate.ty, without_input: without_input(aggregate)? })
    }
}

struct Native {
    expr: PlanExpr,
    ty: Type,
    /// The result over no rows, which is null in DataFusion.
    without_input: Value,
}

impl Native {
    fn finish(&self, column: PlanExpr) -> PlanExpr {
        let filled = match &self.without_input {
            Value::Null => column,
            value => coalesce(vec![column, lit(scalar_value(value, self.ty))]),
        };
        cast(filled, arrow_type(self.ty))
    }
}

enum Plain {
    Count,
    Sum,
    Min,
    Max,
    Avg,
}

/// An aggregate that DataFusion has, taken apart.
struct Known<'a> {
    function: Plain,
    arg: Option<&'a Expr>,
    condition: Option<&'a Expr>,
}

impl<'a> Known<'a> {
    fn of(aggregate: &'a Aggregate) -> Option<Self> {
        let args = aggregate.args.as_slice();
        let (function, arg, condition) = match (aggregate.function, args) {
            ("count", []) => (Plain::Count, None, None),
            ("countif", [condition]) => (Plain::Count, None, Some(condition)),
            ("sum", [arg]) => (Plain::Sum, Some(arg), None),
            ("sumif", [arg, condition]) => (Plain::Sum, Some(arg), Some(condition)),
            ("min", [arg]) => (Plain::Min, Some(arg), None),
            ("minif", [arg, condition]) => (Plain::Min, Some(arg), Some(condition)),
            ("max", [arg]) => (Plain::Max, Some(arg), None),
            ("maxif", [arg, condition]) => (Plain::Max, Some(arg), Some(condition)),
            ("avg", [arg]) => (Plain::Avg, Some(arg), None),
            ("avgif", [arg, condition]) => (Plain::Avg, Some(arg), Some(condition)),
            _ => return None,
        };
        let fits = match (&function, arg.map(|arg| arg.ty)) {
            (Plain::Count, _) => true,
            (Plain::Sum, Some(ty)) => matches!(ty, Type::Int | Type::Long | Type::Real | Type::TimeSpan),
            (Plain::Avg, Some(ty)) => matches!(ty, Type::Int | Type::Long | Type::Real),
            (_, Some(ty)) => matches!(ty, Type::Int | Type::Long | Type::Real | Type::DateTime | Type::TimeSpan),
            (_, None) => false,
        };
        let constant = arg.is_some_and(|arg| matches!(arg.kind, ExprKind::Const(_)));
        (fits && !constant).then_some(Known { function, arg, condition })
    }
}

/// What the aggregate gives over no rows; None when it is not the same as over nulls only, since DataFusion cannot
/// tell them apart.
fn without_input(aggregate: &Aggregate) -> Option<Value> {
    let known = aggregates::lookup(aggregate.function)?;
    let types: Vec<Type> = aggregate.args.iter().map(|arg| arg.ty).collect();
    let empty = (known.new)(&types).finish();
    if !matches!(aggregate.function, "count" | "countif") {
        let mut nulls = (known.new)(&types);
        let args: Vec<Value> = types.iter().map(|ty| if *ty == Type::Bool { Value::Bool(true) } else { Value::null_of(*ty) }).collect();
        nulls.update(&args);
        if nulls.finish().group_key() != empty.group_key() {
            return None;
        }
    }
    Some(empty)
}
