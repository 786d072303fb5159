//! Databases, tables, columns and functions.

use std::sync::Arc;

use kql::rows::Rows;
use kql::{Type, Value};
use serde_json::{Map, json};

use super::Outcome;
use crate::catalog::{Database, Function, Image, Table};
use crate::commands::syntax::SchemaForm;
use crate::commands::{long, optional_time, table, text};
use crate::error::KustoError;
use crate::snapshot::Snapshot;

pub(super) fn check_names(database: &Database, names: Option<&[String]>) -> Result<(), KustoError> {
    match names.unwrap_or_default().iter().find(|name| !database.tables.contains_key(name.as_str())) {
        Some(missing) => Err(KustoError::not_found("Table", missing)),
        None => Ok(()),
    }
}

fn chosen<'a>(database: &'a Database, names: Option<&'a [String]>) -> impl Iterator<Item = &'a Arc<Table>> {
    database.tables.values().filter(move |table| names.is_none_or(|names| names.iter().any(|name| **name == *table.name)))
}

/// `.show tables`
pub(in crate::commands) fn tables(image: &Image, database: &str, names: Option<&[String]>) -> Rows {
    let columns = [("TableName", Type::String), ("DatabaseName", Type::String), ("Folder", Type::String), ("DocString", Type::String)];
    let row = |table: &Arc<Table>| vec![text(&table.name), text(&table.database), text(&table.folder), text(&table.docstring)];
    table(&columns, image.database(database).map(|db| chosen(db, names).map(row).collect()).unwrap_or_default())
}

pub(super) fn table_details(snapshot: &Snapshot, database: &Database, names: Option<&[String]>) -> Rows {
    let columns = [
        ("TableName", Type::String),
        ("DatabaseName", Type::String),
        ("Folder", Type::String),
        ("DocString", Type::String),
        ("TotalExtents", Type::Long),
        ("TotalExtentSize", Type::Real),
        ("TotalOriginalSize", Type::Real),
        ("TotalRowCount", Type::Long),
        ("HotExtents", Type::Long),
        ("HotExtentSize", Type::Real),
        ("HotOriginalSize", Type::Real),
        ("HotRowCount", Type::Long),
        ("RetentionPolicy", Type::String),
        ("CachingPolicy", Type::String),
        ("ShardingPolicy", Type::String),
        ("MergePolicy", Type::String),
        ("StreamingIngestionPolicy", Type::String),
        ("IngestionBatchingPolicy", Type::String),
        ("MinExtentsCreationTime", Type::DateTime),
        ("MaxExtentsCreationTime", Type::DateTime),
        ("TableId", Type::Guid),
    ];
    let row = |stored: &Arc<Table>| {
        let data = snapshot.data(stored.id);
        let created = || data.extents.iter().map(|extent| extent.record.created);
        let count = long(data.extents.len());
        let size = Value::Real(data.extents.iter().map(|extent| extent.record.bytes).sum::<u64>() as f64);
        let extents: u64 = data.extents.iter().map(|extent| extent.record.original_bytes).sum();
        let original = Value::Real((extents + data.hot_bytes()) as f64);
        let rows = long(data.rows());
        let policy = |kind: &str| {
            let policy = stored.policies.get(kind).or_else(|| database.policies.get(kind));
            text(policy.map_or("null", String::as_str))
        };
        vec![
            text(&stored.name),
            text(&stored.database),
            text(&stored.folder),
            text(&stored.docstring),
            count.clone(),
            size.clone(),
            original.clone(),
            rows.clone(),
            count,
            size,
            original,
            rows,
            policy("retention"),
            policy("caching"),
            policy("sharding"),
            policy("merge"),
            policy("streamingingestion"),
            policy("ingestionbatching"),
            optional_time(created().min()),
            optional_time(created().max()),
            Value::Guid(table_guid(stored)),
        ]
    };
    table(&columns, chosen(database, names).map(row).collect())
}

/// A table's id in the form that the protocol has for it.
fn table_guid(table: &Table) -> u128 {
    u128::from(table.id.0.cast_unsigned())
}

pub(super) fn table_schema(stored: &Table, form: SchemaForm) -> Rows {
    let schema = match form {
        SchemaForm::Json => json!({"Name": &*stored.name, "OrderedColumns": ordered_columns(stored)}).to_string(),
        SchemaForm::Csl | SchemaForm::Rows => csl_columns(stored),
    };
    table(&SCHEMA_COLUMNS, vec![schema_row(stored, schema)])
}

const SCHEMA_COLUMNS: [(&str, Type); 5] = [
    ("TableName", Type::String),
    ("Schema", Type::String),
    ("DatabaseName", Type::String),
    ("Folder", Type::String),
    ("DocString", Type::String),
];

fn schema_row(stored: &Table, schema: String) -> Vec<Value> {
    vec![text(&stored.name), text(schema), text(&stored.database), text(&stored.folder), text(&stored.docstring)]
}

/// What commands that define tables answer with.
pub(in crate::commands) fn table_schemas(tables: Vec<Arc<Table>>) -> Rows {
    let schema = |table: &Arc<Table>| json!({"Name": &*table.name, "OrderedColumns": ordered_columns(table)}).to_string();
    table(&SCHEMA_COLUMNS, tables.iter().map(|table| schema_row(table, schema(table))).collect())
}

fn csl_columns(table: &Table) -> String {
    table.columns.iter().map(|column| format!("{}:{}", column.name, column.ty)).collect::<Vec<_>>().join(",")
}

fn ordered_columns(table: &Table) -> Vec<serde_json::Value> {
    table.columns.iter().map(|column| json!({"Name": column.name, "Type": system_type(column.ty), "CslType": column.ty.name()})).collect()
}

fn system_type(ty: Type) -> &'static str {
    match ty {
        Type::Bool => "System.SByte",
        Type::Int => "System.Int32",
        Type::Long => "System.Int64",
        Type::Real => "System.Double",
        Type::Decimal => "System.Data.SqlTypes.SqlDecimal",
        Type::String => "System.String",
        Type::DateTime => "System.DateTime",
        Type::TimeSpan => "System.TimeSpan",
        Type::Guid => "System.Guid",
        Type::Dynamic => "System.Object",
    }
}

pub(super) fn databases(image: &Image, current: &str) -> Rows {
    let columns = [
        ("DatabaseName", Type::String),
        ("PersistentStorage", Type::String),
        ("Version", Type::String),
        ("IsCurrent", Type::Bool),
        ("DatabaseAccessMode", Type::String),
        ("PrettyName", Type::String),
        ("ReservedSlot1", Type::Bool),
        ("DatabaseId", Type::Guid),
        ("InTransitionTo", Type::String),
        ("SuspensionState", Type::String),
    ];
    let row = |database: &Arc<Database>| {
        vec![
            text(&database.name),
            text(""),
            text("v1.0"),
            Value::Bool(database.name.eq_ignore_ascii_case(current)),
            text("ReadWrite"),
            text(&database.name),
            Value::Bool(false),
            Value::Guid(u128::from(database.id.cast_unsigned())),
            text(""),
            text(""),
        ]
    };
    table(&columns, image.databases.values().map(row).collect())
}

pub(super) fn databases_schema(image: &Image, current: &str, names: Option<Vec<String>>, form: SchemaForm) -> Outcome {
    let chosen: Vec<&Arc<Database>> = match names {
        None => image.databases.values().collect(),
        Some(names) => {
            let names = if names.is_empty() { vec![current.to_owned()] } else { names };
            let find = |name: &String| image.database(name).ok_or_else(|| KustoError::not_found("Database", name));
            names.iter().map(find).collect::<Result<_, _>>()?
        }
    };
    Ok(match form {
        SchemaForm::Json => {
            let databases: Map<String, serde_json::Value> =
                chosen.iter().map(|database| (database.name.to_string(), database_json(database))).collect();
            let schema = json!({"Plugins": [], "Databases": databases}).to_string();
            table(&[("DatabaseSchema", Type::String)], vec![vec![text(schema)]])
        }
        SchemaForm::Csl => {
            let script = |database: &Arc<Database>| -> Vec<Vec<Value>> {
                let of = |table: &Arc<Table>| vec![text(format!(".create table ['{}'] ({})", table.name, csl_columns(table)))];
                database.tables.values().map(of).collect()
            };
            table(&[("DatabaseSchemaScript", Type::String)], chosen.iter().flat_map(|database| script(database)).collect())
        }
        SchemaForm::Rows => schema_rows(&chosen),
    })
}

/// One row per database, per table and per column, as `.show databases schema` gives them.
fn schema_rows(databases: &[&Arc<Database>]) -> Rows {
    let columns = [
        ("DatabaseName", Type::String),
        ("TableName", Type::String),
        ("ColumnName", Type::String),
        ("ColumnType", Type::String),
        ("IsDefaultTable", Type::Bool),
        ("IsDefaultColumn", Type::Bool),
        ("PrettyName", Type::String),
        ("Version", Type::String),
        ("Folder", Type::String),
        ("DocString", Type::String),
    ];
    let row = |database: &str, table: &str, column: &str, ty: &str, version: &str, folder: &str, doc: &str| {
        let no = Value::Bool(false);
        vec![text(database), text(table), text(column), text(ty), no.clone(), no, text(""), text(version), text(folder), text(doc)]
    };
    let mut rows = Vec::new();
    for database in databases {
        rows.push(row(&database.name, "", "", "", "v1.0", "", ""));
        for table in database.tables.values() {
            rows.push(row(&database.name, &table.name, "", "", "", &table.folder, &table.docstring));
            for column in &table.columns {
                rows.push(row(&database.name, &table.name, &column.name, system_type(column.ty), "", "", ""));
            }
        }
    }
    table(&columns, rows)
}

fn database_json(database: &Database) -> serde_json::Value {
    let tables: Map<String, serde_json::Value> = database
        .tables
        .values()
        .map(|table| {
            let shape = json!({
                "Name": &*table.name, "Folder": table.folder, "DocString": table.docstring,
                "EntityType": "Table", "OrderedColumns": ordered_columns(table),
            });
            (table.name.to_string(), shape)
        })
        .collect();
    let functions: Map<String, serde_json::Value> =
        database.functions.values().map(|function| (function.name.clone(), function_json(function))).collect();
    json!({
        "Name": &*database.name, "Tables": tables, "ExternalTables": {}, "MaterializedViews": {}, "EntityGroups": {},
        "MajorVersion": 1, "MinorVersion": 0, "Functions": functions, "DatabaseAccessMode": "ReadWrite",
    })
}

fn function_json(function: &Function) -> serde_json::Value {
    json!({
        "Name": function.name, "Folder": function.folder, "DocString": function.docstring, "Body": function.body,
        "FunctionKind": if function.view { "ViewFunction" } else { "Unknown" }, "InputParameters": input_parameters(&function.parameters), "OutputColumns": [],
    })
}

/// The parameters of `(T:(a:long), x:string="y", z:timespan)`.
fn input_parameters(parameters: &str) -> Vec<serde_json::Value> {
    let inner = parameters.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or_default();
    split_at_commas(inner).into_iter().filter_map(input_parameter).collect()
}

fn input_parameter(parameter: &str) -> Option<serde_json::Value> {
    let (name, declared) = parameter.split_once(':')?;
    let declared = declared.trim();
    let name = name.trim();
    if let Some(columns) = declared.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        let column = |column: &str| {
            let (name, ty) = column.split_once(':')?;
            let ty = Type::parse(ty.trim())?;
            Some(json!({"Name": name.trim(), "Type": system_type(ty), "CslType": ty.name()}))
        };
        let columns: Vec<_> = split_at_commas(columns).into_iter().filter_map(column).collect();
        return Some(json!({"Name": name, "Columns": columns}));
    }
    let (ty, default) = declared.split_once('=').map_or((declared, None), |(ty, default)| (ty, Some(default.trim())));
    let ty = Type::parse(ty.trim())?;
    let mut shape = json!({"Name": name, "Type": system_type(ty), "CslType": ty.name()});
    if let Some(default) = default {
        shape["CslDefaultValue"] = default.into();
    }
    Some(shape)
}

/// Splits at commas outside brackets and quotes.
fn split_at_commas(text: &str) -> Vec<&str> {
    let (mut depth, mut quote, mut start) = (0i32, None, 0);
    let mut parts = Vec::new();
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth -= 1,
            (None, ',') if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

pub(super) fn function<'a>(database: &'a Database, name: &str) -> Result<&'a Function, KustoError> {
    database.functions.get(name).map(|function| &**function).ok_or_else(|| KustoError::not_found("Function", name))
}

/// `.show functions`
pub(in crate::commands) fn functions<'a>(functions: impl IntoIterator<Item = &'a Function>) -> Rows {
    let columns = [
        ("Name", Type::String),
        ("Parameters", Type::String),
        ("Body", Type::String),
        ("Folder", Type::String),
        ("DocString", Type::String),
    ];
    let row = |function: &Function| {
        vec![text(&function.name), text(&function.parameters), text(&function.body), text(&function.folder), text(&function.docstring)]
    };
    table(&columns, functions.into_iter().map(row).collect())
}

/// `.show entity_groups`, or one of them
pub(in crate::commands) fn entity_groups(database: &Database, name: Option<&str>) -> Result<Rows, KustoError> {
    if let Some(name) = name.filter(|name| !database.entity_groups.contains_key(*name)) {
        return Err(KustoError::not_found("EntityGroup", name));
    }
    let row = |(name, entities): (&String, &Vec<kql::binder::EntityReference>)| {
        let entities = entities.iter().map(|entity| kql::Dynamic::string(&entity.text)).collect();
        vec![text(name), Value::array(entities)]
    };
    let groups = database.entity_groups.iter().filter(|(known, _)| name.is_none_or(|name| name == *known));
    Ok(table(&[("Name", Type::String), ("Entities", Type::Dynamic)], groups.map(row).collect()))
}

pub(super) fn function_schema(database: &Database, function: &Function) -> Rows {
    let columns = [
        ("Name", Type::String),
        ("Schema", Type::String),
        ("DatabaseName", Type::String),
        ("Folder", Type::String),
        ("DocString", Type::String),
    ];
    let schema = function_json(function).to_string();
    let row = vec![text(&function.name), text(schema), text(&database.name), text(&function.folder), text(&function.docstring)];
    table(&columns, vec![row])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_the_functions_that_are_installed() {
        let parameters = "(T:(Timestamp:datetime, SeriesId: long, Labels:dynamic, Value:real), interval:timespan=1m)";
        let shapes = input_parameters(parameters);
        assert_eq!(shapes.len(), 2);
        assert_eq!(shapes[0]["Columns"][1], json!({"Name": "SeriesId", "Type": "System.Int64", "CslType": "long"}));
        assert_eq!(shapes[1]["CslDefaultValue"], "1m");
    }
}
