//! Running a query: snapshot, binding, engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::catalog::TableProvider;
use kql::Value;
use kql::binder::{BindOptions, bind};
use kql::catalog::{RemoteError, StoredFunction, TableSchema};
use kql::rows::Rows;
use kql::tree::{Rel, RelOp, Remote};

use crate::engine::{self, Branch, MemorySource, QueryLimits, ResultTable, TableSource};
use crate::error::KustoError;
use crate::remote::HOPS;
use crate::snapshot::{Names, Snapshot};
use crate::text;

/// Longest that a query may run.
const LONGEST: Duration = Duration::from_secs(3600);
/// Name under which the rows of a command are a table for the operators behind it.
const COMMAND_ROWS: &str = "_";

/// What a request asks for beside its text.
#[derive(Debug, Clone, Default)]
pub(crate) struct QueryOptions {
    /// Values of query parameters, as KQL literals.
    pub(crate) parameters: BTreeMap<String, String>,
    /// `servertimeout`
    pub(crate) timeout: Option<Duration>,
    /// `notruncation`
    pub(crate) no_truncation: bool,
    /// `truncationmaxrecords`: more rows are an error.
    pub(crate) max_rows: Option<u64>,
    /// `query_take_max_records`: more rows are left out.
    pub(crate) take: Option<u64>,
    /// `truncationmaxsize`
    pub(crate) max_bytes: Option<u64>,
    /// `query_now`, ticks
    pub(crate) now: Option<i64>,
    /// `request_readonly`
    pub(crate) read_only: bool,
    /// `best_effort`
    pub(crate) best_effort: bool,
    /// Clusters that the query has come through.
    pub(crate) hops: u32,
}

impl QueryOptions {
    /// The limits for a query that starts now.
    pub(crate) fn limits(&self, clock: i64) -> QueryLimits {
        let mut limits = QueryLimits::new(self.now.unwrap_or(clock));
        limits.hops = self.hops;
        if self.no_truncation {
            limits = limits.without_truncation();
        }
        if let Some(rows) = self.max_rows {
            limits.max_rows = Some(rows);
        }
        if let Some(bytes) = self.max_bytes {
            limits.max_bytes = Some(bytes);
        }
        if let Some(timeout) = self.timeout {
            limits.deadline = Some(Instant::now() + timeout.min(LONGEST));
        }
        limits
    }
}

/// The answer to a query.
pub(crate) struct Answer {
    /// Result tables.
    pub(crate) tables: Vec<ResultTable>,
    /// `render`, as JSON object text.
    pub(crate) visualization: Option<String>,
    /// What it lacks.
    pub(crate) warnings: Vec<String>,
}

/// Runs `text` in `database` over `snapshot`.
pub(crate) async fn run(
    snapshot: Arc<Snapshot>,
    database: &str,
    text: &str,
    options: &QueryOptions,
    clock: i64,
) -> Result<Answer, KustoError> {
    let mut options = options.clone();
    read_options(&set_in(text), &mut options);
    let limits = options.limits(clock);
    let names = Names { snapshot: snapshot.clone(), database: database.to_owned(), limits: limits.clone(), asks: true };
    run_bound(names, snapshot, database, text, &options, limits).await
}

/// The columns of the results of `text`, which is bound but not run.
pub(crate) async fn columns(snapshot: Arc<Snapshot>, database: &str, text: &str, clock: i64) -> Result<Vec<Vec<kql::Column>>, KustoError> {
    let (database, text) = (database.to_owned(), text.to_owned());
    // binding may run parts of the query (bag_unpack, pivot)
    let bound = tokio::task::spawn_blocking(move || bound_columns(snapshot, &database, &text, clock)).await;
    bound.map_err(|error| KustoError::internal(format!("binding the query: {error}")))?
}

/// [`columns`], for a thread that may block.
pub(crate) fn bound_columns(snapshot: Arc<Snapshot>, database: &str, text: &str, clock: i64) -> Result<Vec<Vec<kql::Column>>, KustoError> {
    let names = Names { snapshot, database: database.to_owned(), limits: QueryLimits::new(clock), asks: true };
    let options = BindOptions { now: clock, database: database.to_owned(), ..BindOptions::default() };
    let query = bind(text, &names, &options).map_err(|diagnostics| KustoError::diagnostics(text, &diagnostics))?;
    Ok(query.results.into_iter().map(|rel| rel.columns).collect())
}

/// Continues the rows of a command with the operators at the end of `text`, which starts at byte `pipe`.
pub(crate) async fn continue_rows(
    snapshot: Arc<Snapshot>,
    database: &str,
    rows: Rows,
    text: &str,
    pipe: usize,
    clock: i64,
) -> Result<Answer, KustoError> {
    // the command becomes blanks behind the table's name, so that places in the text stay what they are
    let blanks = " ".repeat(pipe.saturating_sub(COMMAND_ROWS.len()));
    let query = format!("{COMMAND_ROWS}{blanks}{}", &text[pipe..]);
    let limits = QueryLimits::new(clock);
    let names = Names { snapshot: snapshot.clone(), database: database.to_owned(), limits: limits.clone(), asks: true };
    let columns = rows.columns.clone();
    let memory = MemorySource::new().with_table(database, COMMAND_ROWS, rows.columns, rows.rows)?;
    let source = Arc::new(CommandSource { snapshot, memory });
    let names = CommandNames { names, database: database.to_owned(), columns, source: source.clone() };
    run_bound(names, source, database, &query, &QueryOptions::default(), limits).await
}

/// The rows of a command as they are.
pub(crate) fn rows_answer(rows: Rows) -> Result<Answer, KustoError> {
    let mut arrays = Vec::with_capacity(rows.columns.len());
    let mut fields = Vec::with_capacity(rows.columns.len());
    for (at, column) in rows.columns.iter().enumerate() {
        let values = rows.rows.iter().filter_map(|row| row.get(at));
        let array = engine::values::values_to_array(values, column.ty)?;
        fields.push(Field::new(&column.name, array.data_type().clone(), true));
        arrays.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.rows.len()));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|error| KustoError::internal(format!("building the answer: {error}")))?;
    let table = ResultTable { name: "PrimaryResult".to_owned(), columns: rows.columns, batches: vec![batch] };
    Ok(Answer { tables: vec![table], visualization: None, warnings: Vec::new() })
}

async fn run_bound(
    names: impl kql::catalog::Catalog + Send + 'static,
    source: Arc<dyn TableSource>,
    database: &str,
    text: &str,
    options: &QueryOptions,
    limits: QueryLimits,
) -> Result<Answer, KustoError> {
    let bind_options = BindOptions {
        now: limits.now,
        database: database.to_owned(),
        parameters: options.parameters.clone(),
        best_effort: options.best_effort,
    };
    let text: Arc<str> = text.into();
    let bound = {
        let text = text.clone();
        // binding may run parts of the query (bag_unpack, pivot)
        tokio::task::spawn_blocking(move || bind(&text, &names, &bind_options)).await
    };
    let mut query = bound
        .map_err(|error| KustoError::internal(format!("binding the query: {error}")))?
        .map_err(|diagnostics| KustoError::diagnostics(&text, &diagnostics))?;
    if let Some(rows) = options.take {
        query.results =
            query.results.into_iter().map(|rel| Rel { columns: rel.columns.clone(), op: RelOp::Take(Box::new(rel), rows) }).collect();
    }
    let warnings = limits.warnings.clone();
    let tables = engine::run(&query, source, limits).await?;
    Ok(Answer { tables, visualization: query.visualization, warnings: warnings.all() })
}

/// The rows of a command beside the stored tables.
struct CommandSource {
    snapshot: Arc<Snapshot>,
    memory: MemorySource,
}

impl TableSource for CommandSource {
    fn scan(&self, database: &str, table: &str) -> Option<Arc<dyn TableProvider>> {
        self.memory.scan(database, table).or_else(|| self.snapshot.scan(database, table))
    }

    fn remote(
        &self,
        remote: &Remote,
        columns: &[kql::Column],
        limits: &QueryLimits,
        branch: Option<Branch>,
    ) -> Option<Arc<dyn TableProvider>> {
        self.snapshot.remote(remote, columns, limits, branch)
    }
}

struct CommandNames {
    names: Names,
    database: String,
    columns: Vec<kql::Column>,
    source: Arc<CommandSource>,
}

impl kql::catalog::Catalog for CommandNames {
    fn table(&self, database: Option<&str>, name: &str) -> Option<TableSchema> {
        if database.is_none() && name == COMMAND_ROWS {
            let columns = self.columns.clone();
            return Some(TableSchema { database: self.database.clone(), name: name.to_owned(), columns });
        }
        self.names.table(database, name)
    }

    fn function(&self, database: Option<&str>, name: &str) -> Option<StoredFunction> {
        self.names.function(database, name)
    }

    fn tables(&self, database: Option<&str>, wildcard: &str) -> Vec<TableSchema> {
        self.names.tables(database, wildcard)
    }

    fn views(&self, database: Option<&str>, wildcard: &str) -> Vec<String> {
        self.names.views(database, wildcard)
    }

    fn databases(&self) -> Vec<String> {
        self.names.databases()
    }

    fn entity_group(&self, name: &str) -> Result<Vec<String>, RemoteError> {
        self.names.entity_group(name)
    }

    fn cluster(&self, name: &str) -> Result<Option<String>, String> {
        self.names.cluster(name)
    }

    fn remote_columns(&self, queries: &[Remote]) -> Vec<Result<Vec<kql::Column>, RemoteError>> {
        self.names.remote_columns(queries)
    }

    fn warn(&self, message: String) {
        self.names.warn(message);
    }

    fn endpoint(&self) -> String {
        self.names.endpoint()
    }

    fn run(&self, rel: &Rel) -> Result<Rows, String> {
        let source: Arc<dyn TableSource> = self.source.clone();
        engine::run_rel_blocking(rel, source, self.names.limits.clone()).map_err(|error| error.to_string())
    }
}

/// The options that a text sets itself, as a request would send them.
fn set_in(text: &str) -> serde_json::Map<String, serde_json::Value> {
    let json = |value: Value| match value {
        Value::Bool(flag) => flag.into(),
        Value::Long(number) => number.into(),
        other => other.to_text().into(),
    };
    kql::request_options(text).into_iter().map(|(name, value)| (name, json(value))).collect()
}

/// Reads the options that matter from a request's `Options`; unknown ones are ignored.
pub(crate) fn read_options(options: &serde_json::Map<String, serde_json::Value>, into: &mut QueryOptions) {
    use serde_json::Value;
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let flag = |value: &Value| value.as_bool().unwrap_or_else(|| value.as_str().is_some_and(|s| s.eq_ignore_ascii_case("true")));
    for (name, value) in options {
        match name.to_ascii_lowercase().as_str() {
            "servertimeout" => {
                let ticks = value.as_str().and_then(text::parse_timespan).filter(|ticks| *ticks > 0);
                into.timeout = ticks.map(|ticks| Duration::from_nanos(ticks.unsigned_abs().saturating_mul(100)));
            }
            "norequesttimeout" if flag(value) => into.timeout = Some(LONGEST),
            "notruncation" => into.no_truncation = flag(value),
            "truncationmaxrecords" => into.max_rows = number(value),
            "query_take_max_records" => into.take = number(value),
            "truncationmaxsize" => into.max_bytes = number(value),
            "query_now" => into.now = value.as_str().and_then(text::parse_datetime),
            "request_readonly" | "request_readonly_hardline" => into.read_only |= flag(value),
            "best_effort" => into.best_effort = flag(value),
            HOPS => into.hops = number(value).and_then(|hops| u32::try_from(hops).ok()).unwrap_or(u32::MAX),
            _ => {}
        }
    }
}
