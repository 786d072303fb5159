//! `.show …`: what there is, as tables of the documented shapes.

use std::sync::Arc;

use kql::rows::Rows;
use kql::{Type, Value};
use serde_json::{Map, json};

use super::syntax::{SchemaForm, Scope, Show};
use super::{guid, long, optional_time, table, text};
use crate::catalog::{Database, Function, Image, Table};
use crate::error::KustoError;
use crate::service::{Kustd, Operation};
use crate::snapshot::Snapshot;

type Outcome = Result<Rows, KustoError>;

/// Answers `what`, asked in `database`.
pub(super) fn run(kustd: &Arc<Kustd>, database: &str, what: Show) -> Outcome {
    let snapshot = Snapshot::take(&kustd.storage);
    let image = snapshot.image();
    let this = || image.database(database).ok_or_else(|| KustoError::not_found("Database", database));
    Ok(match what {
        Show::Tables(names) => {
            check_names(this()?, names.as_deref())?;
            tables(image, database, names.as_deref())
        }
        Show::TableDetails(names) => {
            check_names(this()?, names.as_deref())?;
            table_details(&snapshot, this()?, names.as_deref())
        }
        Show::TableSchema(name, form) => table_schema(&*kustd.table(database, &name)?, form),
        Show::Databases => databases(image, database),
        Show::DatabasesSchema(names, form) => databases_schema(image, database, names, form)?,
        Show::Functions(None) => functions(this()?.functions.values().map(|function| &**function)),
        Show::Functions(Some(name)) => functions([function(this()?, &name)?]),
        Show::FunctionSchema(name) => function_schema(this()?, function(this()?, &name)?),
        Show::Mappings { scope: Scope::Table(name), kind, name: mapping } => {
            mappings_of(&*kustd.table(database, &name)?, kind.as_deref(), mapping.as_deref())
        }
        Show::Mappings { scope: Scope::Database(name), kind, name: mapping } => {
            let database = image.database(&name).ok_or_else(|| KustoError::not_found("Database", &name))?;
            let rows = database.tables.values().flat_map(|table| mapping_rows(table, kind.as_deref(), mapping.as_deref()));
            table(&MAPPING_COLUMNS, rows.collect())
        }
        Show::Cluster => cluster(kustd),
        Show::ClusterDetails => cluster_details(kustd, &snapshot),
        Show::Version => version(),
        Show::Extents(scope) => extents(kustd, &snapshot, database, scope)?,
        Show::Operations(id) => operations(kustd, id.as_deref()),
        Show::Capacity => capacity(),
        Show::Principals => principals(),
        Show::Policy { scope, kind } => {
            let stored = stored_policy(kustd, database, &scope, &kind)?;
            policy(&scope, &kind, stored.as_deref())
        }
    })
}

fn check_names(database: &Database, names: Option<&[String]>) -> Result<(), KustoError> {
    match names.unwrap_or_default().iter().find(|name| !database.tables.contains_key(name.as_str())) {
        Some(missing) => Err(KustoError::not_found("Table", missing)),
        None => Ok(()),
    }
}

fn chosen<'a>(database: &'a Database, names: Option<&'a [String]>) -> impl Iterator<Item = &'a Arc<Table>> {
    database.tables.values().filter(move |table| names.is_none_or(|names| names.iter().any(|name| **name == *table.name)))
}

/// `.show tables`
pub(super) fn tables(image: &Image, database: &str, names: Option<&[String]>) -> Rows {
    let columns = [("TableName", Type::String), ("DatabaseName", Type::String), ("Folder", Type::String), ("DocString", Type::String)];
    let row = |table: &Arc<Table>| vec![text(&table.name), text(&table.database), text(&table.folder), text(&table.docstring)];
    table(&columns, image.database(database).map(|db| chosen(db, names).map(row).collect()).unwrap_or_default())
}

fn table_details(snapshot: &Snapshot, database: &Database, names: Option<&[String]>) -> Rows {
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

fn table_schema(stored: &Table, form: SchemaForm) -> Rows {
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
pub(super) fn table_schemas(tables: Vec<Arc<Table>>) -> Rows {
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

fn databases(image: &Image, current: &str) -> Rows {
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

fn databases_schema(image: &Image, current: &str, names: Option<Vec<String>>, form: SchemaForm) -> Outcome {
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
        "FunctionKind": "Unknown", "InputParameters": input_parameters(&function.parameters), "OutputColumns": [],
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

fn function<'a>(database: &'a Database, name: &str) -> Result<&'a Function, KustoError> {
    database.functions.get(name).map(|function| &**function).ok_or_else(|| KustoError::not_found("Function", name))
}

/// `.show functions`
pub(super) fn functions<'a>(functions: impl IntoIterator<Item = &'a Function>) -> Rows {
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

fn function_schema(database: &Database, function: &Function) -> Rows {
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

const MAPPING_COLUMNS: [(&str, Type); 6] = [
    ("Name", Type::String),
    ("Kind", Type::String),
    ("Mapping", Type::String),
    ("LastUpdatedOn", Type::DateTime),
    ("Database", Type::String),
    ("Table", Type::String),
];

/// `.show table T ingestion mappings`
pub(super) fn mappings_of(stored: &Table, kind: Option<&str>, name: Option<&str>) -> Rows {
    table(&MAPPING_COLUMNS, mapping_rows(stored, kind, name))
}

fn mapping_rows(stored: &Table, kind: Option<&str>, name: Option<&str>) -> Vec<Vec<Value>> {
    let wanted = |key: &(String, String)| kind.is_none_or(|kind| kind == key.0) && name.is_none_or(|name| name == key.1);
    let title = |kind: &str| if kind == "csv" { "Csv" } else { "Json" };
    stored
        .mappings
        .iter()
        .filter(|(key, _)| wanted(key))
        .map(|((kind, name), mapping)| {
            vec![
                text(name),
                text(title(kind)),
                text(&mapping.json),
                Value::DateTime(mapping.updated),
                text(&stored.database),
                text(&stored.name),
            ]
        })
        .collect()
}

fn cluster(kustd: &Kustd) -> Rows {
    let columns = [("NodeId", Type::String), ("Address", Type::String), ("Name", Type::String), ("StartTime", Type::DateTime)];
    table(&columns, vec![vec![text("kustd"), text(&kustd.address), text(PERSONAL), Value::DateTime(kustd.started)]])
}

/// The name by which clients know a Kusto that is not a cluster and takes rows directly.
const PERSONAL: &str = "KustoPersonal";

fn cluster_details(kustd: &Kustd, snapshot: &Snapshot) -> Rows {
    let columns = [
        ("NodeId", Type::String),
        ("Address", Type::String),
        ("Name", Type::String),
        ("StartTime", Type::DateTime),
        ("AssignedHotExtents", Type::Long),
        ("IsAdmin", Type::Bool),
        ("MachineTotalMemory", Type::Long),
        ("MachineAvailableMemory", Type::Long),
        ("ProcessorCount", Type::Int),
        ("HotExtentsOriginalSize", Type::Long),
        ("HotExtentsSize", Type::Long),
    ];
    let (mut count, mut original, mut size) = (0u64, 0u64, 0u64);
    for database in snapshot.image().databases.values() {
        for table in database.tables.values() {
            for extent in &snapshot.data(table.id).extents {
                count += 1;
                original += extent.record.original_bytes;
                size += extent.record.bytes;
            }
        }
    }
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
    let (total, available) = crate::service::machine_memory();
    let row = vec![
        text("kustd"),
        text(&kustd.address),
        text(PERSONAL),
        Value::DateTime(kustd.started),
        long(count),
        Value::Bool(true),
        long(total),
        long(available),
        Value::Int(i32::try_from(processors).unwrap_or(i32::MAX)),
        long(original),
        long(size),
    ];
    table(&columns, vec![row])
}

fn version() -> Rows {
    let columns =
        [("BuildVersion", Type::String), ("BuildTime", Type::DateTime), ("ServiceType", Type::String), ("ProductVersion", Type::String)];
    let version = env!("CARGO_PKG_VERSION");
    table(&columns, vec![vec![text(version), Value::Null, text("kustd"), text(format!("kustd {version}"))]])
}

fn extents(kustd: &Kustd, snapshot: &Snapshot, database: &str, scope: Option<Scope>) -> Outcome {
    let columns = [
        ("ExtentId", Type::Guid),
        ("DatabaseName", Type::String),
        ("TableName", Type::String),
        ("MaxCreatedOn", Type::DateTime),
        ("OriginalSize", Type::Real),
        ("ExtentSize", Type::Real),
        ("CompressedSize", Type::Real),
        ("IndexSize", Type::Real),
        ("Blocks", Type::Long),
        ("Segments", Type::Long),
        ("RowCount", Type::Long),
        ("MinCreatedOn", Type::DateTime),
        ("Tags", Type::String),
    ];
    let chosen: Vec<Arc<Table>> = match scope {
        Some(Scope::Table(name)) => vec![kustd.table(database, &name)?],
        other => {
            let name = if let Some(Scope::Database(name)) = &other { name } else { database };
            let found = snapshot.image().database(name).ok_or_else(|| KustoError::not_found("Database", name))?;
            found.tables.values().cloned().collect()
        }
    };
    let mut rows = Vec::new();
    for table in &chosen {
        for extent in &snapshot.data(table.id).extents {
            let record = &extent.record;
            rows.push(vec![
                guid(&record.id),
                text(&table.database),
                text(&table.name),
                Value::DateTime(record.ingested.1),
                Value::Real(record.original_bytes as f64),
                Value::Real(record.bytes as f64),
                Value::Real(record.bytes as f64),
                Value::Real(0.0),
                long(1),
                long(1),
                long(record.rows),
                Value::DateTime(record.ingested.0),
                text(record.tags.join(" ")),
            ]);
        }
    }
    Ok(table(&columns, rows))
}

fn operations(kustd: &Kustd, id: Option<&str>) -> Rows {
    let columns = [
        ("OperationId", Type::Guid),
        ("Operation", Type::String),
        ("NodeId", Type::String),
        ("StartedOn", Type::DateTime),
        ("LastUpdatedOn", Type::DateTime),
        ("Duration", Type::TimeSpan),
        ("State", Type::String),
        ("Status", Type::String),
        ("RootActivityId", Type::Guid),
        ("ShouldRetry", Type::Bool),
        ("Database", Type::String),
        ("Principal", Type::String),
        ("User", Type::String),
        ("AdminEpochStartTime", Type::DateTime),
    ];
    let wanted = id.and_then(|id| uuid::Uuid::parse_str(id).ok()).map(|id| id.as_u128());
    let row = |operation: &Operation| {
        vec![
            Value::Guid(operation.id),
            text(&operation.name),
            text("kustd"),
            Value::DateTime(operation.started),
            Value::DateTime(operation.ended),
            Value::TimeSpan(operation.ended - operation.started),
            text(if operation.failure.is_some() { "Failed" } else { "Completed" }),
            text(operation.failure.as_deref().unwrap_or_default()),
            Value::Guid(operation.id),
            Value::Bool(operation.should_retry),
            text(&operation.database),
            text(""),
            text(""),
            Value::DateTime(kustd.started),
        ]
    };
    let operations = kustd.operations.lock();
    let chosen = operations.iter().filter(|operation| id.is_none() || wanted == Some(operation.id));
    table(&columns, chosen.map(row).collect())
}

fn capacity() -> Rows {
    let columns =
        [("Resource", Type::String), ("Total", Type::Long), ("Consumed", Type::Long), ("Remaining", Type::Long), ("Origin", Type::String)];
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
    let row = |resource: &str| vec![text(resource), long(processors), long(0), long(processors), text("kustd")];
    table(&columns, vec![row("Queries"), row("Ingestions")])
}

fn principals() -> Rows {
    let columns = [("Scope", Type::String), ("DisplayName", Type::String), ("AADObjectID", Type::String), ("Role", Type::String)];
    // nobody signs in: whoever reaches the listener may do everything
    table(&columns, vec![vec![text("Cluster"), text("anonymous"), text(""), text("AllDatabasesAdmin")]])
}

/// A policy as stored, without the defaults.
pub(super) fn stored_policy(kustd: &Kustd, database: &str, scope: &Scope, kind: &str) -> Result<Option<String>, KustoError> {
    Ok(match scope {
        Scope::Table(name) => kustd.table(database, name)?.policies.get(kind).cloned(),
        Scope::Database(name) => {
            let image = kustd.storage.catalog().image();
            let database = image.database(name).ok_or_else(|| KustoError::not_found("Database", name))?;
            database.policies.get(kind).cloned()
        }
    })
}

/// `.show … policy`
pub(super) fn policy(scope: &Scope, kind: &str, stored: Option<&str>) -> Rows {
    let columns = [
        ("PolicyName", Type::String),
        ("EntityName", Type::String),
        ("Policy", Type::String),
        ("ChildEntities", Type::String),
        ("EntityType", Type::String),
    ];
    let (entity, of) = match scope {
        Scope::Table(name) => (name, "Table"),
        Scope::Database(name) => (name, "Database"),
    };
    let mut letters = kind.chars();
    let kind: String = letters.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(letters).collect();
    let row = vec![text(format!("{kind}Policy")), text(format!("[{entity}]")), text(stored.unwrap_or("null")), text(""), text(of)];
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
