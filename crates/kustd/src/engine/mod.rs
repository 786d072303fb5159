//! The query engine: runs the typed trees of [`kql`] over snapshots of stored tables, by way of DataFusion.
//!
//! [`run`] answers a query. Operators become DataFusion plans where DataFusion has them with Kusto's meaning, and are
//! done in memory by [`kql::rows`] otherwise (see [`plan`]); scalar expressions are functions that follow Kusto's rules
//! of null, string and time (see [`scalar`]).

mod error;
mod limits;
mod plan;
mod results;
mod runtime;
mod scalar;
mod source;
#[cfg(test)]
mod tests;
pub mod values;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kql::eval::EvalContext;
use kql::rows::{NoTables, Rows, RunContext};
use kql::tree::{Query, Rel, RelOp};

pub use self::error::EngineError;
pub use self::limits::{QueryLimits, Warnings};
pub use self::results::ResultTable;
pub use self::source::{Branch, MemorySource, TableSource, key_field};

use self::plan::Planner;

/// Rows of constants up to which a query without stored tables runs row by row: planning would take longer.
const SHORTCUT_ROWS: usize = 2_000;

/// Runs a query over a snapshot of the tables. Dropping the future cancels it.
pub async fn run(query: &Query, source: Arc<dyn TableSource>, limits: QueryLimits) -> Result<Vec<ResultTable>, EngineError> {
    let results = query.results.clone();
    let names = results::names(results.len());
    bounded(limits.clone(), async move {
        let planner = Planner::new(source, limits.clone())?;
        let mut tables = Vec::with_capacity(results.len());
        for (rel, name) in results.iter().zip(names) {
            tables.push(results::collect(&planner, rel, name, &limits).await?);
        }
        Ok(tables)
    })
    .await
}

/// Waits for something that other machines have to say. Not for threads that drive other futures.
pub(crate) fn wait<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, EngineError> {
    runtime::block_on(async move { Ok(work.await) })
}

/// Runs one tree and waits for its rows: for plugins whose columns the binder learns from data.
///
/// It blocks, so it must not be called on a thread that drives other futures.
pub fn run_rel_blocking(rel: &Rel, source: Arc<dyn TableSource>, limits: QueryLimits) -> Result<Rows, EngineError> {
    let rel = rel.clone();
    runtime::block_on(within_limits(limits.clone(), async move {
        Planner::check_depth(&rel)?;
        let (now, interruption) = (limits.now, limits.interruption());
        let planner = Planner::new(source, limits)?;
        // A plan must know its columns, and here they are what is asked for: only the input can be planned.
        if let RelOp::Evaluate { input, open_schema: true, .. } = &rel.op {
            let input = planner.rows(input).await?.0;
            let mut context = RunContext::new(&NoTables, EvalContext::new(now));
            context.interrupted = Some(interruption);
            return Ok(kql::rows::apply(&rel, vec![input], &mut context)?);
        }
        Ok(planner.rows(&rel).await?.0)
    }))
}

/// Runs on the query threads, once there is a place, until the deadline or a cancellation.
async fn bounded<T: Send + 'static>(
    limits: QueryLimits,
    work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
) -> Result<T, EngineError> {
    runtime::spawn(within_limits(limits, work)).await
}

async fn within_limits<T>(limits: QueryLimits, work: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
    let deadline = async {
        match limits.deadline {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    };
    let in_place = async {
        let places = if limits.reaches_out.load(Ordering::Relaxed) { runtime::waiting_places() } else { runtime::places() };
        // the semaphore is never closed
        let _place = places.acquire().await;
        work.await
    };
    tokio::select! {
        biased;
        () = limits.cancel.cancelled() => Err(EngineError::cancelled()),
        () = deadline => Err(EngineError::timeout()),
        result = in_place => result,
    }
}

/// The rows of a tree over few constants, without a plan; None when it is not one.
fn shortcut(rel: &Rel, limits: &QueryLimits) -> Option<Result<Rows, EngineError>> {
    let heavy = |op: &RelOp| match op {
        RelOp::Table { .. } | RelOp::Remote(_) | RelOp::Range { .. } => true,
        RelOp::Values(rows) => rows.len() > SHORTCUT_ROWS,
        _ => false,
    };
    if !limits.row_shortcut || plan::any_operator(rel, &heavy) || plan::has_subquery(rel) {
        return None;
    }
    let mut context = RunContext::new(&NoTables, EvalContext::new(limits.now));
    // Operators that multiply rows (joins, mv-expand) must not get far in this way.
    context.max_rows = context.max_rows.min(limits.memory / 256);
    context.interrupted = Some(limits.interruption());
    Some(kql::rows::run(rel, &mut context).map_err(EngineError::from))
}
