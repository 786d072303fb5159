//! Kusto as a rule sees it: commands that are taken and run for a while, and what has become of them.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use kusto::text::quote_string;
use kusto::{Client, Delivery, Error, QueryOptions, Table};
use serde_json::Value;

/// Most ids that one query asks for.
pub const MAX_IDS: usize = 200;
/// How long Kusto may take to take a command.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(120);
/// How long Kusto may take to tell what has become of commands.
const POLL_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of an error that go into a status, as in the reference.
const MAX_MESSAGE: usize = 256;

/// Kusto did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why, for people.
    pub message: String,
    /// Whether it is the service that is in trouble, and not the command.
    pub transient: bool,
    /// The pause that the service asked for.
    pub retry_after: Option<Duration>,
    /// Line (from 1, of the whole command) and column that it is about.
    pub position: Option<(usize, usize)>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal {
            transient: error.is_transient() || error.delivery == Delivery::Unknown,
            retry_after: error.retry_after,
            position: error.position.map(|p| (p.line as usize, p.column as usize)),
            message: cut(&error.to_string(), MAX_MESSAGE).to_owned(),
        }
    }
}

/// What has become of an operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Kusto's word: `InProgress`, `Completed`, `Failed`, `Throttled` ...
    pub state: String,
    /// Whether Kusto says that it may be repeated.
    pub should_retry: bool,
    /// More about it, such as the error.
    pub status: String,
}

/// What has become of operations, by id. Those that Kusto does not know are missing.
pub type Answers = BTreeMap<String, Progress>;

/// A service that runs commands.
#[async_trait]
pub trait Kusto: Send + Sync {
    /// Hands over a command, and returns the id of its operation.
    async fn submit(&self, database: &str, statement: &str) -> Result<String, Refusal>;

    /// Asks, in one query, for operations: no more than [`MAX_IDS`].
    async fn progress(&self, database: &str, ids: &[String]) -> Result<Answers, Refusal>;
}

#[async_trait]
impl Kusto for Client {
    async fn submit(&self, database: &str, statement: &str) -> Result<String, Refusal> {
        let options = QueryOptions { timeout: SUBMIT_TIMEOUT, ..QueryOptions::default() };
        let table = self.mgmt_with(database, statement, &options).await?;
        operation_id(&table).ok_or_else(|| Refusal {
            message: "Kusto took the command and gave no operation id".to_owned(),
            transient: true,
            retry_after: None,
            position: None,
        })
    }

    async fn progress(&self, database: &str, ids: &[String]) -> Result<Answers, Refusal> {
        let options = QueryOptions { timeout: POLL_TIMEOUT, ..QueryOptions::default() };
        Ok(answers(&self.mgmt_with(database, &poll(ids), &options).await?))
    }
}

/// The query that asks for operations.
pub fn poll(ids: &[String]) -> String {
    let ids = ids.iter().map(|id| quote_string(id)).collect::<Vec<_>>().join(", ");
    format!(
        ".show operations | where tostring(OperationId) in ({ids}) \
         | summarize arg_max(LastUpdatedOn, State, ShouldRetry, Status) by OperationId = tostring(OperationId) \
         | project OperationId, State, ShouldRetry = todouble(ShouldRetry), Status"
    )
}

/// The id in the answer to an async command: its `OperationId`, or its only cell.
fn operation_id(table: &Table) -> Option<String> {
    let row = table.rows.first()?;
    let at = table.column("OperationId").or((row.len() == 1).then_some(0))?;
    row[at].as_str().filter(|id| !id.is_empty()).map(str::to_owned)
}

fn answers(table: &Table) -> Answers {
    let text = |row, column| table.text(row, column).unwrap_or_default().to_owned();
    let retry = |row: usize| match table.column("ShouldRetry").map(|at| &table.rows[row][at]) {
        Some(Value::Number(n)) => n.as_f64().is_some_and(|n| n != 0.0),
        Some(Value::Bool(yes)) => *yes,
        _ => false,
    };
    let progress = |row| Progress { state: text(row, "State"), should_retry: retry(row), status: text(row, "Status") };
    (0..table.rows.len()).map(|row| (text(row, "OperationId"), progress(row))).collect()
}

/// What a rule has to do about an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It runs.
    Keep,
    /// Its rows are in the table.
    Done,
    /// It did not do its work, for a reason that may be empty, and may be submitted again.
    Retry(String),
    /// It has failed for good, for a reason that may be empty.
    Fail(String),
}

/// Judges what Kusto says. `tagged` tells whether the operation may be repeated without harm even if it did its work.
pub fn judge(progress: &Progress, tagged: bool) -> Verdict {
    let why = || cut(&progress.status, 200).to_owned();
    match (progress.state.as_str(), progress.should_retry) {
        ("Completed" | "Skipped", _) => Verdict::Done,
        ("" | "InProgress" | "Scheduled", _) => Verdict::Keep,
        ("Throttled", _) => Verdict::Retry(why()),
        ("Abandoned", _) if tagged => Verdict::Retry(why()),
        ("PartiallySucceeded", _) => Verdict::Fail(why()),
        (_, true) => Verdict::Retry(why()),
        ("Failed" | "BadInput" | "Canceled" | "Cancelled" | "Abandoned", false) => Verdict::Fail(why()),
        // A state that does not exist yet.
        (_, false) => Verdict::Keep,
    }
}

/// The beginning of a text, no longer than `bytes`.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
