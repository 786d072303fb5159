//! Commands that change things. Each is one catalogue transaction, or one publication of rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;
use kql::rows::Rows;
use kql::{Type, Value};
use serde_json::json;

use super::syntax::{Columns, Command, Define, DefineFunction, Fill, Properties, Scope};
use super::{guid, long, show, table, text};
use crate::catalog::{Edit, Function, Table};
use crate::error::KustoError;
use crate::ingest::{self, Format, Reading};
use crate::query::{self, QueryOptions};
use crate::service::Kustd;
use crate::snapshot::Snapshot;
use crate::storage::columns::{plain_type, stored_field};

type Outcome = Result<Rows, KustoError>;

/// Most columns of a table.
const MOST_COLUMNS: usize = 10_000;
/// Longest name of a database, table, column, function or mapping.
const LONGEST_NAME: usize = 1024;

/// Runs a command in `database`; `source` is the text it was read from.
pub(crate) async fn run(kustd: &Arc<Kustd>, database: &str, source: &str, command: Command) -> Outcome {
    let database = database_name(kustd, database, &command)?;
    match command {
        Command::Show(what) => show::run(kustd, &database, what),
        Command::IngestInline { table, properties, data } => ingest_inline(kustd, &database, &table, &properties, &source[data..]).await,
        Command::FromQuery { how, table, properties, query } => {
            from_query(kustd, &database, how, &table, &properties, &source[query..]).await
        }
        other => {
            let kustd = kustd.clone();
            let changed = tokio::task::spawn_blocking(move || change(&kustd, &database, other)).await;
            changed.map_err(|error| KustoError::internal(format!("running the command: {error}")))?
        }
    }
}

/// The exact name of the request's database; commands about databases need none.
fn database_name(kustd: &Kustd, name: &str, command: &Command) -> Result<String, KustoError> {
    let image = kustd.storage.catalog().image();
    match image.database(name) {
        Some(database) => Ok(database.name.to_string()),
        None if matches!(command, Command::CreateDatabase { .. } | Command::Show(_) | Command::ClearCache) => Ok(name.to_owned()),
        None => Err(KustoError::not_found("Database", name)),
    }
}

/// Changes of the catalogue.
fn change(kustd: &Kustd, database: &str, command: Command) -> Outcome {
    let now = kustd.now();
    let storage = &kustd.storage;
    match command {
        Command::DefineTables { how, tables, properties } => {
            let defined = storage.catalog().change(|edit| {
                tables.iter().map(|(name, columns)| define_table(edit, database, how, name, columns, &properties, now)).collect()
            })?;
            return Ok(show::table_schemas(defined));
        }
        Command::DropTables { names, if_exists } => {
            let dropped = storage.catalog().change(|edit| drop_tables(edit, database, &names, if_exists))?;
            storage.forget_tables(&dropped);
            let image = storage.catalog().image();
            return Ok(show::tables(&image, database, None));
        }
        Command::RenameTable { from, to } => {
            check_name("table", &to)?;
            storage.catalog().change(|edit| {
                let mut table = find(edit, database, &from)?;
                if edit.image().table(database, &to).is_some() {
                    return Err(KustoError::exists("Table", &to));
                }
                table.name = to.as_str().into();
                edit.put_table(table).map_err(KustoError::from)
            })?;
        }
        Command::AlterColumn { table, column, ty } => edit_columns(kustd, database, &table, |table| {
            // values of the old type are not converted: a new column takes the name
            let at = position(table, &column)?;
            if table.columns[at].ty != ty {
                table.columns[at].ty = ty;
                table.columns[at].id = table.next_column;
                table.next_column += 1;
            }
            Ok(())
        })?,
        Command::RenameColumn { table, column, to } => edit_columns(kustd, database, &table, |table| {
            check_name("column", &to)?;
            if table.columns.iter().any(|other| other.name == to) {
                return Err(KustoError::exists("Column", &to));
            }
            let at = position(table, &column)?;
            table.columns[at].name.clone_from(&to);
            Ok(())
        })?,
        Command::DropColumns { table, columns } => edit_columns(kustd, database, &table, |table| {
            for column in &columns {
                let at = position(table, column)?;
                table.columns.remove(at);
            }
            Ok(())
        })?,
        Command::Describe { table, folder, docstring } => edit_columns(kustd, database, &table, |table| {
            if let Some(folder) = folder {
                table.folder = folder;
            }
            if let Some(docstring) = docstring {
                table.docstring = docstring;
            }
            Ok(())
        })?,
        Command::ClearTable { table } => {
            let table = kustd.table(database, &table)?;
            storage.append_extent(&table, &[], Vec::new(), true, now)?;
        }
        Command::DefineFunction { how, name, parameters, body, properties } => {
            check_name("function", &name)?;
            let function = storage.catalog().change(|edit| {
                define_function(
                    edit,
                    database,
                    how,
                    Function {
                        name,
                        parameters,
                        body,
                        folder: properties.get("folder").cloned().unwrap_or_default(),
                        docstring: properties.get("docstring").cloned().unwrap_or_default(),
                    },
                )
            })?;
            return Ok(show::functions([&function]));
        }
        Command::DropFunction { name, if_exists } => {
            storage.catalog().change(|edit| {
                let known = edit.image().database(database).is_some_and(|db| db.functions.contains_key(name.as_str()));
                match (known, if_exists) {
                    (true, _) => edit.drop_function(database, &name).map_err(KustoError::from),
                    (false, true) => Ok(()),
                    (false, false) => Err(KustoError::not_found("Function", &name)),
                }
            })?;
        }
        Command::DefineMapping { table, kind, name, json, or_alter } => {
            check_name("mapping", &name)?;
            ingest::check_mapping(&json).map_err(KustoError::bad_request)?;
            storage.catalog().change(|edit| {
                let table = find(edit, database, &table)?;
                if !or_alter && table.mappings.contains_key(&(kind.clone(), name.clone())) {
                    return Err(KustoError::exists("Mapping", &name));
                }
                edit.put_mapping(&table, &kind, &name, &json, now).map_err(KustoError::from)
            })?;
            let table = kustd.table(database, &table)?;
            return Ok(show::mappings_of(&table, Some(&kind), Some(&name)));
        }
        Command::DropMapping { table, kind, name } => {
            storage.catalog().change(|edit| {
                let table = find(edit, database, &table)?;
                if !table.mappings.contains_key(&(kind.clone(), name.clone())) {
                    return Err(KustoError::not_found("Mapping", &name));
                }
                edit.drop_mapping(&table, &kind, &name).map_err(KustoError::from)
            })?;
        }
        Command::CreateDatabase { name, if_not_exists } => {
            check_name("database", &name)?;
            storage.catalog().change(|edit| match (edit.image().database(&name).is_some(), if_not_exists) {
                (true, true) => Ok(()),
                (true, false) => Err(KustoError::exists("Database", &name)),
                (false, _) => edit.create_database(&name, now).map_err(KustoError::from),
            })?;
            return Ok(table(&[("DatabaseName", Type::String)], vec![vec![text(name)]]));
        }
        Command::DropDatabase { name, if_exists } => drop_database(kustd, &name, if_exists)?,
        Command::SetPolicy { scope, kind, policy, merge } => {
            let policy = set_policy(kustd, database, &scope, &kind, policy, merge)?;
            return Ok(show::policy(&scope, &kind, Some(&policy)));
        }
        Command::DeletePolicy { scope, kind } => store_policy(kustd, database, &scope, &kind, None)?,
        // answers are never taken from a cache
        Command::ClearCache => {}
        Command::Show(_) | Command::IngestInline { .. } | Command::FromQuery { .. } => {
            return Err(KustoError::internal("the command was sent the wrong way"));
        }
    }
    Ok(table(&[("Status", Type::String)], vec![vec![text("Completed")]]))
}

fn check_name(what: &str, name: &str) -> Result<(), KustoError> {
    let bad = name.is_empty()
        || name.len() > LONGEST_NAME
        || name.starts_with('$')
        || name.chars().any(|c| c.is_control() || "/\\\"'`<>|*?".contains(c));
    if bad {
        let name: String = name.chars().take(64).collect();
        return Err(KustoError::bad_request(format!("'{}' is not a valid name of a {what}", name.escape_debug())));
    }
    Ok(())
}

fn find(edit: &Edit<'_>, database: &str, name: &str) -> Result<Table, KustoError> {
    let table = edit.image().table(database, name);
    table.map(|table| Table::clone(table)).ok_or_else(|| KustoError::not_found("Table", name))
}

fn position(table: &Table, column: &str) -> Result<usize, KustoError> {
    let at = table.columns.iter().position(|other| other.name == column);
    at.ok_or_else(|| KustoError::not_found("Column", column))
}

fn define_table(
    edit: &mut Edit<'_>,
    database: &str,
    how: Define,
    name: &str,
    columns: &Columns,
    properties: &Properties,
    now: i64,
) -> Result<Arc<Table>, KustoError> {
    check_name("table", name)?;
    for (column, _) in columns {
        check_name("column", column)?;
    }
    if columns.len() > MOST_COLUMNS {
        return Err(KustoError::bad_request(format!("table '{name}' would have more than {MOST_COLUMNS} columns")));
    }
    let existing = edit.image().table(database, name).cloned();
    let mut table = match (&existing, how) {
        (Some(table), Define::Create) => return Ok(table.clone()),
        (Some(table), _) => Table::clone(table),
        (None, Define::Alter | Define::AlterMerge) => return Err(KustoError::not_found("Table", name)),
        (None, _) => {
            let database = edit.image().database(database).ok_or_else(|| KustoError::not_found("Database", database))?;
            Table::new(&database.name.clone(), name, now)
        }
    };
    if how == Define::Alter {
        table.columns.retain(|column| columns.iter().any(|(name, _)| *name == column.name));
    }
    for (column, ty) in columns {
        match table.columns.iter().find(|other| other.name == *column) {
            None => table.add_column(column, *ty),
            Some(other) if other.ty == *ty => {}
            Some(other) => {
                let message =
                    format!("column '{column}' of table '{name}' is of type {}, not {ty}; use '.alter column' to change it", other.ty);
                return Err(KustoError::bad_request(message));
            }
        }
    }
    if how == Define::Alter {
        let order = |name: &str| columns.iter().position(|(other, _)| other == name);
        table.columns.sort_by_key(|column| order(&column.name));
    }
    if let Some(folder) = properties.get("folder") {
        table.folder.clone_from(folder);
    }
    if let Some(docstring) = properties.get("docstring") {
        table.docstring.clone_from(docstring);
    }
    // a repeated definition costs no transaction
    if let Some(existing) = existing
        && existing.columns == table.columns
        && existing.folder == table.folder
        && existing.docstring == table.docstring
    {
        return Ok(existing);
    }
    Ok(edit.put_table(table)?)
}

fn drop_tables(edit: &mut Edit<'_>, database: &str, names: &[String], if_exists: bool) -> Result<Vec<crate::catalog::TableId>, KustoError> {
    let mut dropped = Vec::new();
    for name in names {
        match find(edit, database, name) {
            Ok(table) => {
                edit.drop_table(&table)?;
                dropped.push(table.id);
            }
            Err(_) if if_exists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(dropped)
}

fn edit_columns(
    kustd: &Kustd,
    database: &str,
    table: &str,
    edit_table: impl FnOnce(&mut Table) -> Result<(), KustoError>,
) -> Result<(), KustoError> {
    kustd.storage.catalog().change(|edit| {
        let mut table = find(edit, database, table)?;
        edit_table(&mut table)?;
        edit.put_table(table).map(drop).map_err(KustoError::from)
    })
}

fn define_function(edit: &mut Edit<'_>, database: &str, how: DefineFunction, function: Function) -> Result<Function, KustoError> {
    let known = edit.image().database(database).and_then(|db| db.functions.get(function.name.as_str())).cloned();
    match (known, how) {
        (Some(known), DefineFunction::CreateIfNotExists) => return Ok(Function::clone(&known)),
        (Some(_), DefineFunction::Create) => return Err(KustoError::exists("Function", &function.name)),
        (None, DefineFunction::Alter) => return Err(KustoError::not_found("Function", &function.name)),
        _ => {}
    }
    edit.put_function(database, function.clone())?;
    Ok(function)
}

fn drop_database(kustd: &Kustd, name: &str, if_exists: bool) -> Result<(), KustoError> {
    let storage = &kustd.storage;
    let dropped = storage.catalog().change(|edit| {
        let Some(database) = edit.image().database(name).cloned() else {
            return if if_exists { Ok(Vec::new()) } else { Err(KustoError::not_found("Database", name)) };
        };
        edit.drop_database(&database.name)?;
        Ok(database.tables.values().map(|table| table.id).collect())
    })?;
    storage.forget_tables(&dropped);
    Ok(())
}

/// The policy as stored; `merge` keeps the properties that are not given.
fn set_policy(kustd: &Kustd, database: &str, scope: &Scope, kind: &str, policy: String, merge: bool) -> Result<String, KustoError> {
    let mut stored = policy;
    if merge && let Some(before) = show::stored_policy(kustd, database, scope, kind)? {
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap_or(json!({}));
        let (mut merged, new) = (parse(&before), parse(&stored));
        if let (Some(merged), Some(new)) = (merged.as_object_mut(), new.as_object()) {
            merged.extend(new.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        stored = merged.to_string();
    }
    if kind == "retention" && crate::storage::soft_delete_period(&stored).is_none() && stored != "null" {
        return Err(KustoError::bad_request("a retention policy needs 'SoftDeletePeriod', a timespan such as \"7.00:00:00\""));
    }
    store_policy(kustd, database, scope, kind, Some(&stored))?;
    Ok(stored)
}

fn store_policy(kustd: &Kustd, database: &str, scope: &Scope, kind: &str, policy: Option<&str>) -> Result<(), KustoError> {
    kustd.storage.catalog().change(|edit| match scope {
        Scope::Table(name) => {
            let table = find(edit, database, name)?;
            edit.set_table_policy(&table, kind, policy).map_err(KustoError::from)
        }
        Scope::Database(name) => {
            let found = edit.image().database(name).map(|database| database.name.clone());
            let name = found.ok_or_else(|| KustoError::not_found("Database", name))?;
            edit.set_database_policy(&name, kind, policy).map_err(KustoError::from)
        }
    })
}

async fn ingest_inline(kustd: &Arc<Kustd>, database: &str, table: &str, properties: &Properties, data: &str) -> Outcome {
    let table = kustd.table(database, table)?;
    let format: Format = properties.get("format").map_or("csv", String::as_str).parse().map_err(KustoError::bad_request)?;
    let mapping = match properties.get("ingestionmappingreference") {
        Some(name) => Some(kustd.mapping(&table, format, name)?),
        None => None,
    };
    let skip_first = properties.get("ignorefirstrecord").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let data = data.trim_start().as_bytes();
    let reading = Reading { format, mapping: mapping.as_deref(), skip_first };
    let batch = ingest::read(&table, &reading, data).map_err(|error| KustoError::bad_request(error.to_string()))?;
    let rows = batch.num_rows();
    let bytes = batch.get_array_memory_size();
    if rows > 0 {
        kustd.storage.ingest(&table, batch, &[], kustd.now()).await?;
    }
    // streamed rows are in no extent yet: the id is that of the operation
    Ok(extent_row(&uuid::Uuid::new_v4().to_string(), bytes as u64, 0, rows as u64))
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

async fn from_query(kustd: &Arc<Kustd>, database: &str, how: Fill, name: &str, properties: &Properties, query: &str) -> Outcome {
    check_name("table", name)?;
    let exists = kustd.storage.catalog().image().table(database, name).is_some();
    match (how, exists) {
        (Fill::Set, true) => return Err(KustoError::exists("Table", name)),
        (Fill::Append, false) => return Err(KustoError::not_found("Table", name)),
        _ => {}
    }
    let snapshot = Arc::new(Snapshot::take(&kustd.storage));
    let options = QueryOptions { no_truncation: true, ..QueryOptions::default() };
    let answer = query::run(snapshot, database, query, &options, kustd.now()).await?;
    let [result] = <[_; 1]>::try_from(answer.tables)
        .map_err(|tables| KustoError::bad_request(format!("the query has {} results, it must have one", tables.len())))?;
    let (kustd, name, database) = (kustd.clone(), name.to_owned(), database.to_owned());
    let extend = properties.get("extend_schema").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let tags = properties.get("tags").and_then(|tags| serde_json::from_str(tags).ok()).unwrap_or_default();
    let stored = tokio::task::spawn_blocking(move || {
        let columns: Columns = result.columns.iter().map(|column| (column.name.clone(), column.ty)).collect();
        let table = target_table(&kustd, &database, &name, columns, extend)?;
        let batches = result.batches.iter().map(|batch| fit(&table, &result.columns, batch)).collect::<Result<Vec<_>, KustoError>>()?;
        let replace = how == Fill::SetOrReplace;
        Ok::<_, KustoError>(kustd.storage.append_extent(&table, &batches, tags, replace, kustd.now())?)
    });
    let extent = stored.await.map_err(|error| KustoError::internal(format!("storing the rows: {error}")))??;
    Ok(match extent {
        Some(extent) => {
            let record = &extent.record;
            extent_row(&record.id, record.original_bytes, record.bytes, record.rows)
        }
        None => Rows::new(extent_row("", 0, 0, 0).columns, Vec::new()),
    })
}

/// The table that a query's rows go to: created when missing, with new columns when allowed.
fn target_table(kustd: &Kustd, database: &str, name: &str, columns: Columns, extend: bool) -> Result<Arc<Table>, KustoError> {
    kustd.storage.catalog().change(|edit| {
        let existing = edit.image().table(database, name).cloned();
        let how = match existing {
            Some(table) if !extend => return Ok(table),
            _ => Define::CreateMerge,
        };
        define_table(edit, database, how, name, &columns, &BTreeMap::new(), kustd.now())
    })
}

/// A result's batch with the ids of the table's columns: by name where all names are known, else by position.
fn fit(table: &Table, columns: &[kql::Column], batch: &RecordBatch) -> Result<RecordBatch, KustoError> {
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
