//! Runs a typed tree over rows in memory: the meaning of every operator, in plain Rust.
//!
//! It serves three users: the engine in `kustd`, which hands it the operators that DataFusion does not have
//! ([`apply`]); the binder, for plugins whose columns depend on data; and tests, as the oracle of the vectorised
//! engine. It holds its input in memory, so callers bound what they give it ([`RunContext::max_rows`]).

mod basic;
mod expand;
mod join;
mod parse;
mod partition;
mod plugins;
mod prepare;
mod scan;
mod series;
mod summarize;
mod window;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;

use crate::eval::EvalContext;
use crate::tree::{Query, Rel, RelOp};
use crate::types::{Column, Type};
use crate::value::Value;

pub(crate) use parse::{ParseKvStep, ParseStep};
pub use prepare::{contains_window, has_subquery};
pub use window::window_columns;

/// A row: one value for each column.
pub type Row = Vec<Value>;

/// A table in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// Columns, in order.
    pub columns: Vec<Column>,
    /// Rows; each has as many values as there are columns.
    pub rows: Vec<Row>,
}

impl Rows {
    /// Rows under those columns.
    pub fn new(columns: Vec<Column>, rows: Vec<Row>) -> Self {
        Rows { columns, rows }
    }
}

/// Where stored tables come from.
pub trait Tables {
    /// All rows of a table, or why they cannot be had.
    fn scan(&self, database: &str, table: &str) -> Result<Rows, String>;
}

/// No tables at all: for self-contained queries.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTables;

impl Tables for NoTables {
    fn scan(&self, database: &str, table: &str) -> Result<Rows, String> {
        Err(format!("table '{database}.{table}' cannot be read here: no tables are available"))
    }
}

/// Why a query could not be run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RunError {
    /// A table could not be read.
    #[error("{0}")]
    Table(String),
    /// A plugin or operator got arguments that it cannot work with.
    #[error("{0}")]
    Argument(String),
    /// An operator would make more rows than allowed.
    #[error("the query makes more than {0} rows in one operator; filter or summarize earlier")]
    TooManyRows(usize),
    /// The caller wants no more of it.
    #[error("the query was stopped")]
    Interrupted,
}

/// Tells whether a run is to stop.
pub type Interrupted = Box<dyn Fn() -> bool + Send>;

/// Checks between two questions whether to stop.
const CHECKS: u32 = 1024;

/// What a run needs and remembers.
pub struct RunContext<'a> {
    /// Stored tables.
    pub tables: &'a dyn Tables,
    /// State of scalar evaluation.
    pub eval: EvalContext,
    /// Most rows that one operator may put out.
    pub max_rows: usize,
    /// Asked now and then: whether to stop.
    pub interrupted: Option<Interrupted>,
    checks: Cell<u32>,
    arguments: Vec<Arc<Rows>>,
    materialized: HashMap<usize, Arc<Rows>>,
}

impl<'a> RunContext<'a> {
    /// A context over those tables; `eval` carries the query's `now`.
    pub fn new(tables: &'a dyn Tables, eval: EvalContext) -> Self {
        RunContext {
            tables,
            eval,
            max_rows: 20_000_000,
            interrupted: None,
            checks: Cell::new(0),
            arguments: Vec::new(),
            materialized: HashMap::new(),
        }
    }

    /// To be called for each row or so that an operator puts out: `rows` are there by now.
    fn check(&self, rows: usize) -> Result<(), RunError> {
        let checks = self.checks.get();
        self.checks.set(checks.wrapping_add(1));
        if checks.is_multiple_of(CHECKS) && self.interrupted.as_ref().is_some_and(|interrupted| interrupted()) {
            return Err(RunError::Interrupted);
        }
        if rows > self.max_rows { Err(RunError::TooManyRows(self.max_rows)) } else { Ok(()) }
    }
}

/// Runs every result of a query.
pub fn run_query(query: &Query, ctx: &mut RunContext<'_>) -> Result<Vec<Rows>, RunError> {
    query.results.iter().map(|rel| run(rel, ctx)).collect()
}

/// Runs a tree to its rows.
pub fn run(rel: &Rel, ctx: &mut RunContext<'_>) -> Result<Rows, RunError> {
    match &rel.op {
        RelOp::Table { database, table } => ctx.tables.scan(database, table).map_err(RunError::Table),
        RelOp::Remote(remote) => Err(RunError::Table(format!("cluster '{}' cannot be asked here", remote.cluster))),
        RelOp::Argument => {
            Ok(ctx.arguments.last().map(|rows| (**rows).clone()).unwrap_or_else(|| Rows::new(rel.columns.clone(), Vec::new())))
        }
        RelOp::Materialize(shared) => {
            // The tree outlives the run, so the address names the shared plan.
            let key = Arc::as_ptr(shared) as usize;
            if let Some(done) = ctx.materialized.get(&key) {
                return Ok((**done).clone());
            }
            let rows = run(shared, ctx)?;
            // Inside a sub-query the result may depend on the argument.
            if ctx.arguments.is_empty() {
                ctx.materialized.insert(key, Arc::new(rows.clone()));
            }
            Ok(rows)
        }
        _ => {
            let inputs = inputs(rel).into_iter().map(|input| run(input, ctx)).collect::<Result<Vec<_>, _>>()?;
            apply(rel, inputs, ctx)
        }
    }
}

/// The inputs that an operator reads, in the order that [`apply`] takes them. Sub-queries of `partition` and
/// `mv-apply` are not inputs.
pub fn inputs(rel: &Rel) -> Vec<&Rel> {
    match &rel.op {
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
        RelOp::Union(inputs) => inputs.iter().collect(),
        RelOp::MvExpand(expand) => vec![&expand.input],
        RelOp::MvApply { expand, .. } => vec![&expand.input],
        RelOp::MakeSeries(series) => vec![&series.input],
        RelOp::Parse(parse) => vec![&parse.input],
        RelOp::ParseKv(parse) => vec![&parse.input],
        RelOp::Scan(scan) => vec![&scan.input],
    }
}

/// Runs one operator over inputs that are ready, in the order of [`inputs`].
pub fn apply(rel: &Rel, inputs: Vec<Rows>, ctx: &mut RunContext<'_>) -> Result<Rows, RunError> {
    let mut inputs = inputs.into_iter();
    let mut input = || inputs.next().unwrap_or_else(|| Rows::new(Vec::new(), Vec::new()));
    let columns = rel.columns.clone();
    let rows = match &rel.op {
        RelOp::Table { .. } | RelOp::Remote(_) | RelOp::Argument | RelOp::Materialize(_) => return run(rel, ctx),
        RelOp::BestEffort { .. } => input().rows,
        RelOp::Values(rows) => (**rows).clone(),
        RelOp::Range { from, to, step } => basic::range(from, to, step, ctx)?,
        RelOp::Filter(_, predicate) => basic::filter(input(), predicate, ctx)?,
        RelOp::Project(_, exprs) => basic::project(input(), exprs, ctx)?,
        RelOp::Summarize { keys, aggregates, .. } => summarize::summarize(&input(), keys, aggregates, ctx)?,
        RelOp::Distinct(_) => basic::distinct(input()),
        RelOp::Sort(_, keys) => basic::sort(input(), keys, ctx)?,
        RelOp::Serialize(_) => input().rows,
        RelOp::Take(_, count) => basic::take(input(), *count),
        RelOp::Count(_) => vec![vec![Value::Long(input().rows.len() as i64)]],
        RelOp::Join { kind, on, lookup, .. } => {
            let left = input();
            join::join(left, input(), *kind, on, *lookup, ctx)?
        }
        RelOp::Union(parts) => {
            let mut all = Vec::new();
            for _ in parts {
                all.append(&mut input().rows);
            }
            all
        }
        RelOp::MvExpand(expand) => expand::mv_expand(input(), expand, columns.len(), ctx)?,
        RelOp::MvApply { expand, subquery, keep } => expand::mv_apply(input(), expand, subquery, keep, ctx)?,
        RelOp::MakeSeries(series) => series::make_series(&input(), series, ctx)?,
        RelOp::Parse(parse) => parse::parse(input(), parse, &columns, ctx)?,
        RelOp::ParseKv(parse) => parse::parse_kv(input(), parse, &columns, ctx)?,
        RelOp::Partition { key, subquery, .. } => partition::partition(input(), *key, subquery, ctx)?,
        RelOp::TopNested { levels, .. } => partition::top_nested(&input(), levels, ctx)?,
        RelOp::Scan(scan) => scan::scan(input(), scan, columns.len(), ctx)?,
        RelOp::Sample { count, column, .. } => partition::sample(input(), *count, *column),
        RelOp::Evaluate { plugin, args, .. } => return plugins::evaluate(input(), plugin, args, columns, ctx),
        RelOp::GetSchema(_) => basic::get_schema(&input().columns),
    };
    ctx.check(rows.len())?;
    Ok(Rows { columns, rows })
}

/// The value that stands for "nothing" in a column of that type: null, but the empty string for strings.
pub fn nothing(ty: Type) -> Value {
    if ty == Type::String { Value::String("".into()) } else { Value::Null }
}
