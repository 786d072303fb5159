//! Commands that bring rows: `.ingest inline`, `.set`, `.append`, `.set-or-append`, `.set-or-replace`.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;
use kql::rows::Rows;
use kql::{Type, Value};

use super::execute::{check_name, define_table};
use super::syntax::{Columns, Command, Define, Fill, Parsed, Properties, Show};
use super::{Outcome, guid, long, show, table};
use crate::catalog::{Operation, OperationState, Table};
use crate::engine::ResultTable;
use crate::error::KustoError;
use crate::ingest::{self, Format, Reading};
use crate::operations;
use crate::query::{self, QueryOptions};
use crate::service::Kustd;
use crate::storage::columns::{plain_type, stored_field};
use crate::storage::{Extent, NewRows, Publication, Published};
use crate::update;

/// Properties of `.ingest inline`.
const INLINE_PROPERTIES: [&str; 3] = ["format", "ingestionmappingreference", "ignorefirstrecord"];
/// Properties of `.set-or-append` and its like. `distributed` and `policy_ingestiontime` change nothing here.
const FILL_PROPERTIES: [&str; 7] =
    ["extend_schema", "tags", "ingestifnotexists", "folder", "docstring", "distributed", "policy_ingestiontime"];

pub(super) async fn inline(kustd: &Arc<Kustd>, database: &str, table: &str, properties: &Properties, data: &str) -> Outcome {
    check_properties(".ingest inline", properties, &INLINE_PROPERTIES)?;
    let table = kustd.table(database, table)?;
    let format: Format = properties.get("format").map_or("csv", String::as_str).parse().map_err(KustoError::bad_request)?;
    let mapping = match properties.get("ingestionmappingreference") {
        Some(name) => Some(kustd.mapping(&table, format, name)?),
        None => None,
    };
    let data = data.trim_start().as_bytes();
    let reading = Reading { format, mapping: mapping.as_deref(), skip_first: flag(properties, "ignorefirstrecord") };
    let batch = ingest::read(&table, &reading, data).map_err(|error| KustoError::bad_request(error.to_string()))?;
    let rows = batch.num_rows();
    let bytes = batch.get_array_memory_size();
    if rows > 0 {
        update::ingest(kustd, table, batch, &[]).await?;
    }
    // streamed rows are in no extent yet: the id is that of the operation
    Ok(extent_row(&uuid::Uuid::new_v4().to_string(), bytes as u64, 0, rows as u64))
}

fn flag(properties: &Properties, name: &str) -> bool {
    properties.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Refuses a property that would be without effect.
pub(super) fn check_properties(command: &str, properties: &Properties, known: &[&str]) -> Result<(), KustoError> {
    match properties.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let known = known.join(", ");
            Err(KustoError::bad_request(format!("the property '{name}' of {command} is not supported; it has {known}")))
        }
    }
}

fn extent_row(id: &str, original: u64, size: u64, rows: u64) -> Rows {
    let columns = [
        ("ExtentId", Type::Guid),
        ("OriginalSize", Type::Real),
        ("ExtentSize", Type::Real),
        ("CompressedSize", Type::Real),
        ("IndexSize", Type::Real),
        ("RowCount", Type::Long),
    ];
    let real = |bytes: u64| Value::Real(bytes as f64);
    table(&columns, vec![vec![guid(id), real(original), real(size), real(size), real(0), long(rows)]])
}

/// A command that fills a table from a query.
#[derive(Debug, Clone)]
pub(crate) struct FromQuery {
    how: Fill,
    table: String,
    query: String,
    extend: bool,
    tags: Vec<String>,
    /// Nothing is stored when the table has an extent with one of these tags.
    unless_tagged: Vec<String>,
    /// `folder` and `docstring`, for a table that is created.
    description: Properties,
}

impl FromQuery {
    pub(super) fn new(how: Fill, table: &str, properties: &Properties, query: &str) -> Result<FromQuery, KustoError> {
        check_name("table", table)?;
        check_properties(how.verb(), properties, &FILL_PROPERTIES)?;
        let list = |name: &str| match properties.get(name) {
            None => Ok(Vec::new()),
            Some(json) => serde_json::from_str::<Vec<String>>(json).map_err(|error| {
                KustoError::bad_request(format!("the property '{name}' must be a JSON array of strings such as '[\"a\"]': {error}"))
            }),
        };
        let described = |name: &&str| properties.get(*name).map(|value| ((*name).to_owned(), value.clone()));
        Ok(FromQuery {
            how,
            table: table.to_owned(),
            query: query.to_owned(),
            extend: flag(properties, "extend_schema"),
            tags: list("tags")?,
            unless_tagged: list("ingestifnotexists")?.into_iter().map(|value| format!("ingest-by:{value}")).collect(),
            description: ["folder", "docstring"].iter().filter_map(described).collect(),
        })
    }

    /// The kind of command, for the list of operations.
    pub(crate) fn name(&self) -> &'static str {
        match self.how {
            Fill::Set => "TableSet",
            Fill::Append => "TableAppend",
            Fill::SetOrAppend => "TableSetOrAppend",
            Fill::SetOrReplace => "TableSetOrReplace",
        }
    }

    fn check_table(&self, kustd: &Kustd, database: &str) -> Result<(), KustoError> {
        let exists = kustd.storage.catalog().image().table(database, &self.table).is_some();
        match (self.how, exists) {
            (Fill::Set, true) => Err(KustoError::exists("Table", &self.table)),
            (Fill::Append, false) => Err(KustoError::not_found("Table", &self.table)),
            _ => Ok(()),
        }
    }
}

/// Refuses a command whose query cannot run, before it is taken.
pub(crate) async fn check(kustd: &Arc<Kustd>, database: &str, request: &FromQuery) -> Result<(), KustoError> {
    request.check_table(kustd, database)?;
    if super::is_command(&request.query) {
        return show_command(&request.query).map(drop);
    }
    let snapshot = Arc::new(kustd.snapshot());
    query::columns(snapshot, database, &request.query, kustd.now()).await.map(drop)
}

fn options() -> QueryOptions {
    QueryOptions { no_truncation: true, timeout: Some(operations::LONGEST), ..QueryOptions::default() }
}

/// A command in the place of a query: `.show tables details | project …`.
fn show_command(text: &str) -> Result<(Show, Option<usize>), KustoError> {
    let Parsed { command, pipe } = super::parse(text).map_err(|diagnostic| KustoError::diagnostics(text, &[diagnostic]))?;
    match command {
        Command::Show(what) => Ok((what, pipe)),
        other => Err(KustoError::bad_request(format!("only a '.show' command can stand in the place of a query, not {}", other.name()))),
    }
}

async fn answer(kustd: &Arc<Kustd>, database: &str, text: &str) -> Result<ResultTable, KustoError> {
    let answer = if super::is_command(text) {
        let (what, pipe) = show_command(text)?;
        let rows = show::run(kustd, database, what)?;
        let snapshot = Arc::new(kustd.snapshot());
        match pipe {
            Some(pipe) => query::continue_rows(snapshot, database, rows, text, pipe, kustd.now()).await?,
            None => query::rows_answer(rows)?,
        }
    } else {
        let snapshot = Arc::new(kustd.snapshot());
        query::run(snapshot, database, text, &options(), kustd.now()).await?
    };
    let [result] = <[_; 1]>::try_from(answer.tables)
        .map_err(|tables| KustoError::bad_request(format!("the query has {} results, it must have one", tables.len())))?;
    Ok(result)
}

/// Runs the query and stores its rows; with an operation, its end is part of the same transaction.
pub(crate) async fn from_query(kustd: &Arc<Kustd>, database: &str, request: &FromQuery, operation: Option<&Operation>) -> Outcome {
    request.check_table(kustd, database)?;
    let result = answer(kustd, database, &request.query).await?;
    let target = {
        let (kustd, database, request) = (kustd.clone(), database.to_owned(), request.clone());
        let columns: Columns = result.columns.iter().map(|column| (column.name.clone(), column.ty)).collect();
        blocking(move || target_table(&kustd, &database, &request, columns)).await?
    };
    let batches = result.batches.iter().map(|batch| fit(&target, &result.columns, batch)).collect::<Result<Vec<_>, KustoError>>()?;
    let replace = request.how == Fill::SetOrReplace;
    let mut rows = vec![NewRows { table: target, batches, tags: request.tags.clone(), replace }];
    update::derive(kustd, &mut rows).await?;
    let operation = operation.map(|operation| Operation { state: OperationState::Completed, updated: kustd.now(), ..operation.clone() });
    let publication = Publication { rows, unless_tagged: request.unless_tagged.clone(), operation, ..Publication::default() };
    let kustd = kustd.clone();
    let published = blocking(move || Ok(kustd.storage.append_extents(publication, kustd.now())?)).await?;
    let extent = match published {
        Published::Stored(extents) => extents.into_iter().next().flatten(),
        Published::Known | Published::Repeated => None,
    };
    Ok(match extent.as_deref() {
        Some(Extent { record, .. }) => extent_row(&record.id, record.original_bytes, record.bytes, record.rows),
        None => Rows::new(extent_row("", 0, 0, 0).columns, Vec::new()),
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, KustoError> + Send + 'static) -> Result<T, KustoError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| KustoError::internal(format!("storing the rows: {error}")))?
}

/// The table that a query's rows go to: created when missing, with new columns when allowed.
fn target_table(kustd: &Kustd, database: &str, request: &FromQuery, columns: Columns) -> Result<Arc<Table>, KustoError> {
    kustd.storage.catalog().change(|edit| {
        let existing = edit.image().table(database, &request.table).cloned();
        match existing {
            Some(table) if !request.extend => Ok(table),
            Some(_) => define_table(edit, database, Define::CreateMerge, &request.table, &columns, &BTreeMap::new(), kustd.now()),
            None => define_table(edit, database, Define::CreateMerge, &request.table, &columns, &request.description, kustd.now()),
        }
    })
}

/// A result's batch with the ids of the table's columns: by name where all names are known, else by position.
pub(crate) fn fit(table: &Table, columns: &[kql::Column], batch: &RecordBatch) -> Result<RecordBatch, KustoError> {
    let by_name = columns.iter().all(|column| table.columns.iter().any(|other| other.name == column.name));
    if !by_name && columns.len() > table.columns.len() {
        let message = format!("the query has {} columns, table '{}' has {}", columns.len(), table.name, table.columns.len());
        return Err(KustoError::bad_request(format!("{message}; use 'with (extend_schema=true)' to add the new ones")));
    }
    let mut fields = Vec::new();
    let mut arrays = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        let target = if by_name { table.columns.iter().find(|other| other.name == column.name) } else { table.columns.get(at) };
        let Some(target) = target else { continue };
        if target.ty != column.ty {
            let message = format!(
                "column '{}' of the query is of type {}, column '{}' of table '{}' is of type {}",
                column.name, column.ty, target.name, table.name, target.ty
            );
            return Err(KustoError::bad_request(message));
        }
        let array = batch.column(at);
        let array = match column.ty {
            Type::String => crate::storage::columns::without_nulls(array),
            _ => array.clone(),
        };
        let wanted = if matches!(column.ty, Type::Dynamic) { array.data_type().clone() } else { plain_type(column.ty) };
        let array = datafusion::arrow::compute::cast(&array, &wanted)
            .map_err(|error| KustoError::internal(format!("converting column '{}': {error}", column.name)))?;
        fields.push(stored_field(target, array.data_type()));
        arrays.push(array);
    }
    let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|error| KustoError::internal(format!("storing the query's rows: {error}")))
}
