//! From the typed tree to DataFusion plans.
//!
//! Operators that DataFusion has become plan nodes. An operator that it does not have ends a *stage*: the plan of its
//! input runs to the end, in order, [`kql::rows::apply`] does the operator in memory, and its rows are a table in
//! memory for the plan above. Sub-queries and `materialize` are stages of their own, run once.
//!
//! A plan puts out the tree's columns in their order, under names of its own, stored as [`super::values::arrow_type`]
//! says, strings and dynamics possibly as dictionaries.

mod aggregate;
mod fold;
mod join;
mod keys;
mod predicate;
mod prepare;
mod remote;
mod rewrite;
mod stage;
mod walk;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::catalog::TableProvider;
use datafusion::common::{Column as PlanColumn, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan, LogicalPlanBuilder, cast, lit};
use datafusion::scalar::ScalarValue;
use futures::FutureExt;
use futures::future::BoxFuture;
use kql::tree::{Expr, ExprKind, Rel, RelOp, SortKey};
use kql::{Column, Type, Value};
use parking_lot::Mutex;

use self::stage::Staged;
use super::error::EngineError;
use super::limits::QueryLimits;
use super::scalar::{self, Evaluation};
use super::source::TableSource;
use super::values::{arrow_type, column_name, dictionary_type, is_native, scalar_value};

pub(super) use self::stage::row_bytes;
pub(super) use self::walk::{any as any_operator, has_subquery};

/// Operators on top of each other that a query may have.
const MAX_DEPTH: usize = 500;

/// Prefix of the plan names of stored tables; tables in memory have another.
const STORED: &str = "stored";

/// Plans and runs the parts of one query.
pub(super) struct Planner {
    source: Arc<dyn TableSource>,
    limits: QueryLimits,
    environment: Arc<RuntimeEnv>,
    evaluation: Evaluation,
    /// Results of `materialize`, by address of the shared tree.
    shared: tokio::sync::Mutex<HashMap<usize, Staged>>,
    /// Results of sub-queries in expressions, by address of their tree.
    answers: Mutex<HashMap<usize, Arc<Vec<Value>>>>,
    /// Branches that failed, by address of what their `macro-expand` has in common.
    failed: Mutex<HashMap<usize, Arc<Mutex<HashSet<usize>>>>>,
    /// Memory of stages, held until the query ends.
    held: Mutex<Vec<MemoryReservation>>,
    tables: AtomicUsize,
    projections: AtomicUsize,
}

impl Planner {
    pub(super) fn new(source: Arc<dyn TableSource>, limits: QueryLimits) -> Result<Self, EngineError> {
        Ok(Planner {
            source,
            environment: limits.environment()?,
            evaluation: Evaluation::new(limits.now),
            limits,
            shared: tokio::sync::Mutex::default(),
            answers: Mutex::default(),
            failed: Mutex::default(),
            held: Mutex::default(),
            tables: AtomicUsize::new(0),
            projections: AtomicUsize::new(0),
        })
    }

    /// Refuses trees that are deeper than the engine can walk.
    pub(super) fn check_depth(rel: &Rel) -> Result<(), EngineError> {
        if walk::depth(rel, MAX_DEPTH + 1) > MAX_DEPTH { Err(EngineError::too_complex(MAX_DEPTH)) } else { Ok(()) }
    }

    /// The plan of a tree. Runs the stages below it.
    pub(super) fn plan<'a>(&'a self, rel: &'a Rel) -> BoxFuture<'a, Result<LogicalPlan, EngineError>> {
        self.plan_operator(rel).boxed()
    }

    async fn plan_operator(&self, rel: &Rel) -> Result<LogicalPlan, EngineError> {
        match &rel.op {
            RelOp::Table { database, table } => self.scan(database, table, &rel.columns),
            RelOp::Remote(remote) => self.remote(remote, &rel.columns, None),
            RelOp::BestEffort { input, branch, branches } => self.best_effort(input, *branch, branches).await,
            RelOp::Materialize(shared) => self.materialize(shared).await,
            RelOp::Filter(input, predicate) if !kql::rows::contains_window(predicate) => self.filter(input, predicate).await,
            RelOp::Project(input, exprs) if !exprs.iter().any(kql::rows::contains_window) => self.project(input, exprs).await,
            RelOp::Summarize { input, keys, aggregates } => self.summarize(rel, input, keys, aggregates).await,
            RelOp::Distinct(input) if groups_natively(input.columns.iter().map(|column| column.ty)) => self.distinct(input).await,
            RelOp::Sort(input, keys) if keys.iter().all(|key| sorts_natively(key.expr.ty)) => self.sort(input, keys).await,
            RelOp::Serialize(input) => self.plan(input).await,
            RelOp::Take(input, count) => {
                let count = usize::try_from(*count).unwrap_or(usize::MAX);
                Ok(LogicalPlanBuilder::new(self.plan(input).await?).limit(0, Some(count))?.build()?)
            }
            RelOp::Count(input) => self.count(input).await,
            RelOp::Join { left, right, kind, on, .. } if groups_natively(on.iter().map(|(key, _)| key.ty)) => {
                self.join(left, right, *kind, on).await
            }
            RelOp::MakeSeries(_) => {
                let mut series = rel.clone();
                self.prepare_operator(&mut series).await?;
                self.apply_rows(rewrite::aggregate_before_series(&series).as_ref().unwrap_or(&series)).await
            }
            RelOp::Union(inputs) if !inputs.is_empty() => self.union(inputs).await,
            _ => self.apply_rows(rel).await,
        }
    }

    fn scan(&self, database: &str, table: &str, columns: &[Column]) -> Result<LogicalPlan, EngineError> {
        let provider = self.source.scan(database, table).ok_or_else(|| EngineError::no_table(database, table))?;
        self.scan_provider(provider, self.table_name(STORED), columns)
    }

    /// A scan of those columns, which the provider has by their names.
    pub(super) fn scan_provider(
        &self,
        provider: Arc<dyn TableProvider>,
        name: TableReference,
        columns: &[Column],
    ) -> Result<LogicalPlan, EngineError> {
        let schema = provider.schema();
        let column = |(index, column): (usize, &Column)| {
            let expr = match schema.field_with_name(&column.name) {
                Ok(field) => {
                    let stored = PlanExpr::Column(PlanColumn::new(Some(name.clone()), &column.name));
                    if is_native(field.data_type(), column.ty) { stored } else { cast(stored, arrow_type(column.ty)) }
                }
                Err(_) => lit(scalar_value(&Value::null_of(column.ty), column.ty)),
            };
            expr.alias(column_name(index))
        };
        let exprs: Vec<PlanExpr> = columns.iter().enumerate().map(column).collect();
        Ok(LogicalPlanBuilder::scan(name.clone(), provider_as_source(provider), None)?.project(exprs)?.build()?)
    }

    /// A scan of a table in memory whose columns have the plan's names already.
    fn scan_memory(&self, provider: Arc<dyn TableProvider>) -> Result<LogicalPlan, EngineError> {
        let name = self.table_name("memory");
        let width = provider.schema().fields().len();
        let schema = provider.schema();
        let column =
            |index: usize| PlanExpr::Column(PlanColumn::new(Some(name.clone()), schema.field(index).name())).alias(column_name(index));
        let exprs: Vec<PlanExpr> = (0..width).map(column).collect();
        Ok(LogicalPlanBuilder::scan(name.clone(), provider_as_source(provider), None)?.project(exprs)?.build()?)
    }

    /// Unique in the query, so that no two scans are confused.
    pub(super) fn table_name(&self, prefix: &str) -> TableReference {
        TableReference::bare(format!("{prefix}{}", self.tables.fetch_add(1, Ordering::Relaxed)))
    }

    async fn filter(&self, input: &Rel, predicate: &Expr) -> Result<LogicalPlan, EngineError> {
        let predicate = self.prepare(predicate).await?;
        if let Some(pushed) = rewrite::filter_below_project(input, &predicate) {
            return self.plan(&pushed).await;
        }
        let plan = self.plan(input).await?;
        Ok(match predicate::lower(&predicate, &plan, self.limits.now) {
            Some(condition) => LogicalPlanBuilder::new(plan).filter(condition)?.build()?,
            None => plan,
        })
    }

    async fn project(&self, input: &Rel, exprs: &[Expr]) -> Result<LogicalPlan, EngineError> {
        let exprs = self.prepare_all(exprs).await?;
        let plan = self.plan(input).await?;
        // DataFusion drops a projection that repeats the one below, as if `x + 1 as x` twice were the same as once.
        // Names that no other projection has keep it from that.
        let number = self.projections.fetch_add(1, Ordering::Relaxed);
        let named = |(index, expr): (usize, &Expr)| self.lower(expr, &plan).alias(format!("p{number}_{}", column_name(index)));
        let lowered: Vec<PlanExpr> = exprs.iter().enumerate().map(named).collect();
        Ok(LogicalPlanBuilder::new(plan).project(lowered)?.build()?)
    }

    async fn distinct(&self, input: &Rel) -> Result<LogicalPlan, EngineError> {
        let plan = self.plan(input).await?;
        let keys: Vec<PlanExpr> = input
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| self.lower_key(&Expr::column(index, column.ty), &plan).alias(column_name(index)))
            .collect();
        Ok(LogicalPlanBuilder::new(plan).project(keys)?.distinct()?.build()?)
    }

    async fn sort(&self, input: &Rel, keys: &[SortKey]) -> Result<LogicalPlan, EngineError> {
        let plan = self.plan(input).await?;
        let mut sorts = Vec::with_capacity(keys.len());
        for key in keys {
            let expr = self.prepare(&key.expr).await?;
            if matches!(expr.kind, ExprKind::Const(_)) {
                continue;
            }
            let lowered = if expr.ty == Type::Real { nan_as_null(&self.lower(&expr, &plan)) } else { self.lower_key(&expr, &plan) };
            sorts.push(lowered.sort(!key.descending, key.nulls_first));
        }
        if sorts.is_empty() {
            return Ok(plan);
        }
        Ok(LogicalPlanBuilder::new(plan).sort(sorts)?.build()?)
    }

    async fn union(&self, inputs: &[Rel]) -> Result<LogicalPlan, EngineError> {
        let mut plans = Vec::with_capacity(inputs.len());
        if inputs.iter().any(|input| matches!(input.op, RelOp::BestEffort { .. })) {
            // planning may wait for other clusters
            plans = futures::future::try_join_all(inputs.iter().map(|input| self.plan(input))).await?;
        } else {
            for input in inputs {
                plans.push(self.plan(input).await?);
            }
        }
        plans = same_storage(plans)?;
        if plans.len() == 1 {
            return Ok(plans.remove(0));
        }
        let inputs = plans.into_iter().map(Arc::new).collect();
        Ok(LogicalPlan::Union(datafusion::logical_expr::Union::try_new(inputs)?))
    }

    /// An expression without sub-queries over that input.
    fn lower(&self, expr: &Expr, input: &LogicalPlan) -> PlanExpr {
        scalar::lower(expr, &|index| column_of(input, index), self.limits.now)
    }

    /// An expression to group, join or order by: strings without nulls and dictionaries.
    fn lower_key(&self, expr: &Expr, input: &LogicalPlan) -> PlanExpr {
        let ExprKind::Column(index) = &expr.kind else { return self.lower(expr, input) };
        let field = input.schema().field(*index);
        let as_it_is = match expr.ty {
            Type::String => !field.is_nullable() && *field.data_type() == arrow_type(Type::String),
            ty => *field.data_type() == arrow_type(ty),
        };
        if as_it_is { self.lower(expr, input) } else { scalar::plain_column(column_of(input, *index), expr.ty, self.limits.now) }
    }
}

/// Column `index` of a plan, by the name that it has there.
fn column_of(plan: &LogicalPlan, index: usize) -> PlanExpr {
    PlanExpr::Column(PlanColumn::new_unqualified(plan.schema().field(index).name()))
}

/// Union takes the first input's schema for all, so a column that is a dictionary in some and text in others becomes
/// text.
fn same_storage(plans: Vec<LogicalPlan>) -> Result<Vec<LogicalPlan>, EngineError> {
    let width = plans[0].schema().fields().len();
    let mixed =
        |index: usize| plans.iter().any(|plan| plan.schema().field(index).data_type() != plans[0].schema().field(index).data_type());
    let mixed: Vec<bool> = (0..width).map(mixed).collect();
    let align = |plan: LogicalPlan| {
        let column = |index: usize| {
            let (stored, name) = (column_of(&plan, index), column_name(index));
            let is_dictionary = *plan.schema().field(index).data_type() == dictionary_type();
            if mixed[index] && is_dictionary { cast(stored, arrow_type(Type::String)).alias(name) } else { stored.alias(name) }
        };
        let columns: Vec<PlanExpr> = (0..width).map(column).collect();
        // Nullability differs as well; a projection that is there for every input keeps the schemas alike.
        Ok(LogicalPlanBuilder::new(plan).project(columns)?.build()?)
    };
    plans.into_iter().map(align).collect()
}

/// Types whose storage is equal exactly when the values are, up to dictionaries and null strings. Reals have two zeros
/// and many NaNs, decimals and dynamics several texts for one value.
fn groups_natively(mut types: impl Iterator<Item = Type>) -> bool {
    types.all(|ty| !matches!(ty, Type::Real | Type::Decimal | Type::Dynamic))
}

/// Types whose storage has the order of the values (reals once NaN is out of the way).
fn sorts_natively(ty: Type) -> bool {
    !matches!(ty, Type::Decimal | Type::Dynamic | Type::Guid)
}

/// Kusto orders NaN with the nulls.
fn nan_as_null(number: &PlanExpr) -> PlanExpr {
    // DataFusion orders NaN: the negative ones below and the positive ones above all numbers.
    let is_number = number.clone().gt_eq(lit(f64::NEG_INFINITY)).and(number.clone().lt_eq(lit(f64::INFINITY)));
    PlanExpr::Case(datafusion::logical_expr::Case {
        expr: None,
        when_then_expr: vec![(Box::new(is_number), Box::new(number.clone()))],
        else_expr: Some(Box::new(lit(ScalarValue::Float64(None)))),
    })
}
