//! One window of one exporter: the query's rows are turned into points and pushed batch by batch while
//! they arrive, so that memory holds one batch, however many rows there are.
//!
//! A run that fails midway has pushed some batches. The window is then exported again, with the same
//! points at the same times, which a receiver takes for the same data.

use std::time::Duration;

use jiff::Timestamp;
use kusto::{Client, QueryOptions};
use serde_json::json;

use crate::push::{Batch, PushError, Pusher};
use crate::transform::{Plan, PlanError, Transform};

/// What to export.
#[derive(Clone, Debug)]
pub struct Job {
    /// The database to ask.
    pub database: String,
    /// The whole query.
    pub query: String,
    /// How many lines of `query` stand before the user's own text.
    pub lines_before_body: usize,
    /// How rows become points.
    pub transform: Transform,
    /// The time of rows without a timestamp column.
    pub default_time: Timestamp,
    /// Deadline of the query, its last row included.
    pub timeout: Duration,
}

/// What a run did, also one that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows that the query gave.
    pub rows: u64,
    /// Rows of them that gave no points.
    pub skipped: u64,
    /// Why the first of those did not.
    pub first_skipped: Option<String>,
    /// Points that the receiver took.
    pub points: u64,
    /// Points that it said it would not store.
    pub rejected: u64,
    /// Its first reason or warning.
    pub receiver_said: Option<String>,
    /// Points of batches that were refused or lost.
    pub failed: u64,
    /// Label columns that the result lacks.
    pub missing_labels: Vec<String>,
}

/// Why a window was not exported.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ExportError {
    /// The query failed, at once or after some rows.
    #[error("{}{error}", place(.error, *.lines_before_body))]
    Query {
        /// The service's answer.
        error: kusto::Error,
        /// Lines before the user's text.
        lines_before_body: usize,
    },
    /// The result does not fit the transform.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The receiver does not take the points.
    #[error(transparent)]
    Push(#[from] PushError),
}

/// Where in the user's text the service found a mistake. First in a message, which may be cut.
fn place(error: &kusto::Error, lines_before_body: usize) -> String {
    let line = error.position.and_then(|at| usize::try_from(at.line).ok()?.checked_sub(lines_before_body).map(|line| (line, at.column)));
    match line {
        Some((line @ 1.., column)) => format!("line {line}, column {column} of the body: "),
        _ => String::new(),
    }
}

/// Runs the query and pushes its points. `counts` says what was done, however it ends.
///
/// # Errors
/// See [`ExportError`].
pub async fn export(client: &Client, pusher: &Pusher, job: &Job, counts: &mut Counts) -> Result<(), ExportError> {
    let failed = |error| ExportError::Query { error, lines_before_body: job.lines_before_body };
    let options = QueryOptions {
        timeout: job.timeout,
        // The service would end a result at 500,000 rows or 64 MB; nothing here grows with its length.
        options: vec![("notruncation".to_owned(), json!(true))],
        ..QueryOptions::default()
    };
    let mut rows = client.query_rows(&job.database, &job.query, &options).await.map_err(failed)?;
    let mut plan = None;
    let mut batcher = pusher.batcher();
    while let Some(row) = rows.next().await.map_err(failed)? {
        counts.rows += 1;
        // A result without rows is a success whatever its columns: the query may not know them.
        let plan = match &plan {
            Some(plan) => plan,
            None => plan.insert(planned(&job.transform, &rows, counts)?),
        };
        match plan.points(&row, job.default_time) {
            Ok(points) => {
                for point in &points {
                    if let Some(batch) = point.add_to(&mut batcher) {
                        push(pusher, batch, counts).await?;
                    }
                }
            }
            Err(error) => {
                counts.skipped += 1;
                let row = counts.rows;
                counts.first_skipped.get_or_insert_with(|| format!("row {row}, {error}"));
            }
        }
    }
    match batcher.take() {
        Some(batch) => push(pusher, batch, counts).await,
        None => Ok(()),
    }
}

fn planned(transform: &Transform, rows: &kusto::RowStream, counts: &mut Counts) -> Result<Plan, PlanError> {
    let plan = Plan::new(transform, rows.columns())?;
    counts.missing_labels = plan.missing_labels().to_vec();
    Ok(plan)
}

async fn push(pusher: &Pusher, batch: Batch, counts: &mut Counts) -> Result<(), ExportError> {
    let points = batch.points();
    let pushed = pusher.push(batch).await.inspect_err(|_| counts.failed += points)?;
    counts.points += pushed.accepted;
    counts.rejected += pushed.rejected;
    if counts.receiver_said.is_none() {
        counts.receiver_said = pushed.message;
    }
    Ok(())
}
