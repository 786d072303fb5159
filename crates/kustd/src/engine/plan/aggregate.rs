//! `summarize` and `count`.
//!
//! Aggregates that DataFusion computes with Kusto's meaning become its own; when one of a `summarize` is not among
//! them, all are folded by [`super::fold`] with the accumulators of [`kql::aggregates`].

use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::expr_fn::{avg, count, max, min, sum};
use datafusion::logical_expr::{Expr as PlanExpr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, cast, col, lit};
use datafusion::scalar::ScalarValue;
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
        let Some(known) = prepared.iter().map(Known::of).collect::<Option<Vec<_>>>() else {
            return self.fold(rel, input, &keys, &prepared).await;
        };
        let plan = self.plan(input).await?;
        let native = known.into_iter().map(|known| self.native(known, &plan)).collect::<Result<Vec<_>, _>>()?;
        let groups: Vec<PlanExpr> =
            keys.iter().enumerate().map(|(index, key)| self.lower_key(key, &plan).alias(column_name(index))).collect();
        let named = native.iter().enumerate().map(|(index, native)| native.expr.clone().alias(column_name(keys.len() + index)));
        let nans = native
            .iter()
            .enumerate()
            .filter_map(|(index, native)| native.nan.as_ref().map(|(_, count)| count.clone().alias(nan_name(keys.len() + index))));
        let plan = LogicalPlanBuilder::new(plan).aggregate(groups, named.chain(nans).collect::<Vec<_>>())?.build()?;
        let finished = keys.iter().map(|_| None).chain(native.iter().map(Some)).enumerate().map(|(index, native)| {
            let column = col(column_name(index));
            let finished = match native {
                Some(native) => native.finish(column, native.nan.as_ref().map(|_| col(nan_name(index)))),
                None => column,
            };
            finished.alias(column_name(index))
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

    /// The aggregate in DataFusion's terms.
    fn native(&self, known: Known<'_>, input: &LogicalPlan) -> Result<Native, EngineError> {
        let condition = known.condition.map(|condition| self.lower(condition, input));
        let filtered = |aggregate: PlanExpr, condition: Option<PlanExpr>| match condition {
            Some(condition) => aggregate.filter(condition).build(),
            None => Ok(aggregate),
        };
        let Some((function, arg)) = known.of else {
            let expr = filtered(count(lit(1_i64)), condition)?;
            return Ok(Native { expr, nan: None, ty: known.ty, without_input: known.without_input });
        };
        let is_real = arg.ty == Type::Real;
        let arg = self.lower(arg, input);
        // DataFusion's order of NaN depends on the order of rows, so NaN is counted apart.
        let nan_rule = match function {
            Plain::Min if is_real => Some(NanRule::First),
            Plain::Max if is_real => Some(NanRule::Last),
            _ => None,
        };
        let nan = match nan_rule {
            Some(rule) => {
                let is_nan = nan_as_null(&arg).is_null().and(arg.clone().is_not_null());
                let is_nan = condition.iter().fold(is_nan, |is_nan, condition| is_nan.and(condition.clone()));
                Some((rule, filtered(count(lit(1_i64)), Some(is_nan))?))
            }
            None => None,
        };
        let expr = match function {
            Plain::Sum => sum(arg),
            Plain::Avg => avg(arg),
            Plain::Min if is_real => min(nan_as_null(&arg)),
            Plain::Max if is_real => max(nan_as_null(&arg)),
            Plain::Min => min(arg),
            Plain::Max => max(arg),
        };
        Ok(Native { expr: filtered(expr, condition)?, nan, ty: known.ty, without_input: known.without_input })
    }
}

fn nan_name(index: usize) -> String {
    format!("nan{index}")
}

struct Native {
    expr: PlanExpr,
    /// How many NaN there are, which `expr` leaves out, and where they come in order.
    nan: Option<(NanRule, PlanExpr)>,
    ty: Type,
    /// The result over no rows, which is null in DataFusion.
    without_input: Value,
}

impl Native {
    /// The result out of its columns: that of `expr`, and that of `nan` if there is one.
    fn finish(&self, column: PlanExpr, nans: Option<PlanExpr>) -> PlanExpr {
        if let (Some((rule, _)), Some(nans)) = (&self.nan, nans) {
            let nan = PlanExpr::Case(datafusion::logical_expr::Case {
                expr: None,
                when_then_expr: vec![(Box::new(nans.gt(lit(0_i64))), Box::new(lit(f64::NAN)))],
                else_expr: Some(Box::new(lit(ScalarValue::Float64(None)))),
            });
            return match rule {
                NanRule::First => coalesce(vec![nan, column]),
                NanRule::Last => coalesce(vec![column, nan]),
            };
        }
        let filled = match &self.without_input {
            Value::Null => column,
            value => coalesce(vec![column, lit(scalar_value(value, self.ty))]),
        };
        cast(filled, arrow_type(self.ty))
    }
}

/// NaN comes before all numbers.
#[derive(Debug, Clone, Copy)]
enum NanRule {
    /// It is the result if there is one.
    First,
    /// It is the result if there is nothing else.
    Last,
}

enum Plain {
    Sum,
    Min,
    Max,
    Avg,
}

/// An aggregate that DataFusion has, taken apart.
struct Known<'a> {
    /// What of which argument; None: the number of rows.
    of: Option<(Plain, &'a Expr)>,
    condition: Option<&'a Expr>,
    ty: Type,
    without_input: Value,
}

impl<'a> Known<'a> {
    fn of(aggregate: &'a Aggregate) -> Option<Self> {
        let (of, condition) = match (aggregate.function, aggregate.args.as_slice()) {
            ("count", []) => (None, None),
            ("countif", [condition]) => (None, Some(condition)),
            (name, [arg]) => (Some((Plain::of(name)?, arg)), None),
            (name, [arg, condition]) => (Some((Plain::of(name.strip_suffix("if")?)?, arg)), Some(condition)),
            _ => return None,
        };
        let fits = of.as_ref().is_none_or(|(function, arg)| {
            // A constant is rare, and DataFusion treats some of its aggregates in its own way.
            function.takes(arg.ty) && !matches!(arg.kind, ExprKind::Const(_))
        });
        if !fits {
            return None;
        }
        Some(Known { of, condition, ty: aggregate.ty, without_input: without_input(aggregate)? })
    }
}

impl Plain {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "sum" => Self::Sum,
            "min" => Self::Min,
            "max" => Self::Max,
            "avg" => Self::Avg,
            _ => return None,
        })
    }

    fn takes(&self, ty: Type) -> bool {
        match self {
            Self::Sum => matches!(ty, Type::Int | Type::Long | Type::Real | Type::TimeSpan),
            Self::Avg => matches!(ty, Type::Int | Type::Long | Type::Real),
            Self::Min | Self::Max => matches!(ty, Type::Int | Type::Long | Type::Real | Type::DateTime | Type::TimeSpan),
        }
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
