//! Commands that change things. Each is one catalogue transaction, or one publication of rows.

use std::sync::Arc;

use kql::Type;
use serde_json::json;

use super::syntax::{Columns, Command, Define, DefineFunction, Properties, Scope};
use super::{Outcome, fill, functions, groups, script, show, table, text};
use crate::catalog::{Edit, Function, Table};
use crate::error::KustoError;
use crate::ingest;
use crate::service::Kustd;
use crate::storage::{NewRows, Publication};
use crate::update;

/// Most columns of a table.
const MOST_COLUMNS: usize = 10_000;
/// Longest name of a database, table, column, function or mapping.
const LONGEST_NAME: usize = 1024;

/// Runs a command in `database`; `source` is the text it was read from.
pub(crate) async fn run(kustd: &Arc<Kustd>, database: &str, source: &str, command: Command) -> Outcome {
    let database = database_name(kustd, database, &command)?;
    match command {
        Command::Show(what) => show::run(kustd, &database, what),
        Command::IngestInline { table, properties, data } => fill::inline(kustd, &database, &table, &properties, &source[data..]).await,
        Command::FromQuery { asynchronous: true, how, table, properties, query } => {
            let request = fill::FromQuery::new(how, &table, &properties, &source[query..])?;
            crate::operations::submit(kustd, database, request).await
        }
        Command::FromQuery { how, table, properties, query, .. } => {
            let request = fill::FromQuery::new(how, &table, &properties, &source[query..])?;
            fill::from_query(kustd, &database, &request, None).await
        }
        Command::ExecuteScript { cluster, properties, script } => {
            script::execute(kustd, &database, cluster, &properties, &source[script..]).await
        }
        other => {
            let (kustd, source) = (kustd.clone(), source.to_owned());
            let changed = tokio::task::spawn_blocking(move || change(&kustd, &database, &source, other)).await;
            changed.map_err(|error| KustoError::internal(format!("running the command: {error}")))?
        }
    }
}

/// The exact name of the request's database; commands about databases need none.
fn database_name(kustd: &Kustd, name: &str, command: &Command) -> Result<String, KustoError> {
    let image = kustd.storage.catalog().image();
    match image.database(name) {
        Some(database) => Ok(database.name.to_string()),
        None if !command.needs_database() => Ok(name.to_owned()),
        None => Err(KustoError::not_found("Database", name)),
    }
}

/// Changes of the catalogue.
fn change(kustd: &Kustd, database: &str, source: &str, command: Command) -> Outcome {
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
            let rows = NewRows { table, batches: Vec::new(), tags: Vec::new(), replace: true };
            storage.append_extents(Publication { rows: vec![rows], ..Publication::default() }, now)?;
        }
        Command::DefineFunction { how, name, parameters, body, body_at, properties } => {
            check_name("function", &name)?;
            let function = functions::read(name, parameters, body, &properties)?;
            functions::validate(kustd, database, &function, &properties, source, body_at)?;
            let function = storage.catalog().change(|edit| define_function(edit, database, how, function))?;
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
        Command::DefineEntityGroup { how, name, entities } => {
            check_name("entity group", &name)?;
            storage.catalog().change(|edit| groups::define(edit, database, how, &name, entities))?;
            return groups::shown(kustd, database, Some(&name));
        }
        Command::DropEntityGroup { name, if_exists } => {
            storage.catalog().change(|edit| groups::drop(edit, database, &name, if_exists))?;
            return groups::shown(kustd, database, None);
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
        Command::Show(_) | Command::IngestInline { .. } | Command::FromQuery { .. } | Command::ExecuteScript { .. } => {
            return Err(KustoError::internal("the command was sent the wrong way"));
        }
    }
    Ok(table(&[("Status", Type::String)], vec![vec![text("Completed")]]))
}

pub(super) fn check_name(what: &str, name: &str) -> Result<(), KustoError> {
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

pub(super) fn define_table(
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
        // policies that are lists grow
        if let (Some(merged), Some(new)) = (merged.as_array_mut(), new.as_array()) {
            merged.extend(new.iter().cloned());
        }
        if let (Some(merged), Some(new)) = (merged.as_object_mut(), new.as_object()) {
            merged.extend(new.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        stored = merged.to_string();
    }
    if kind == "retention" && crate::storage::soft_delete_period(&stored).is_none() && stored != "null" {
        return Err(KustoError::bad_request("a retention policy needs 'SoftDeletePeriod', a timespan such as \"7.00:00:00\""));
    }
    if kind == update::KIND {
        let Scope::Table(table) = scope else { return Err(KustoError::bad_request("an update policy is of a table")) };
        update::check(kustd, database, table, &stored)?;
    }
    store_policy(kustd, database, scope, kind, Some(&stored))?;
    Ok(stored)
}

fn store_policy(kustd: &Kustd, database: &str, scope: &Scope, kind: &str, policy: Option<&str>) -> Result<(), KustoError> {
    kustd.storage.catalog().change(|edit| match scope {
        Scope::Cluster => edit.set_cluster_policy(kind, policy).map_err(KustoError::from),
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
