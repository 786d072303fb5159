//! `.show …`: what there is, as tables of the documented shapes.

mod ingestion;
mod schema;
mod service;

use std::sync::Arc;

use kql::rows::Rows;
use kql::{Type, Value};

use super::syntax::{Scope, Show};
use super::{Outcome, table, text};
use crate::catalog::Table;
use crate::error::KustoError;
use crate::service::Kustd;

pub(super) use self::schema::{entity_groups, functions, table_schemas, tables};

/// Answers `what`, asked in `database`.
pub(super) fn run(kustd: &Arc<Kustd>, database: &str, what: Show) -> Outcome {
    let snapshot = kustd.snapshot();
    let image = snapshot.image();
    let this = || image.database(database).ok_or_else(|| KustoError::not_found("Database", database));
    Ok(match what {
        Show::Tables(names) => {
            schema::check_names(this()?, names.as_deref())?;
            schema::tables(image, database, names.as_deref())
        }
        Show::TableDetails(names) => {
            schema::check_names(this()?, names.as_deref())?;
            schema::table_details(&snapshot, this()?, names.as_deref())
        }
        Show::TableSchema(name, form) => schema::table_schema(&*kustd.table(database, &name)?, form),
        Show::Databases => schema::databases(image, database),
        Show::DatabasesSchema(names, form) => schema::databases_schema(image, database, names, form)?,
        Show::Functions(None) => schema::functions(this()?.functions.values().map(|function| &**function)),
        Show::Functions(Some(name)) => schema::functions([schema::function(this()?, &name)?]),
        Show::FunctionSchema(name) => schema::function_schema(this()?, schema::function(this()?, &name)?),
        Show::EntityGroups(name) => schema::entity_groups(this()?, name.as_deref())?,
        // mappings are of tables and databases only
        Show::Mappings { scope: Scope::Cluster, .. } => table(&MAPPING_COLUMNS, Vec::new()),
        Show::Mappings { scope: Scope::Table(name), kind, name: mapping } => {
            mappings_of(&*kustd.table(database, &name)?, kind.as_deref(), mapping.as_deref())
        }
        Show::Mappings { scope: Scope::Database(name), kind, name: mapping } => {
            let database = image.database(&name).ok_or_else(|| KustoError::not_found("Database", &name))?;
            let rows = database.tables.values().flat_map(|table| mapping_rows(table, kind.as_deref(), mapping.as_deref()));
            table(&MAPPING_COLUMNS, rows.collect())
        }
        Show::Cluster => service::cluster(kustd),
        Show::ClusterDetails => service::cluster_details(kustd, &snapshot),
        Show::Version => service::version(),
        Show::Extents(scope) => service::extents(kustd, &snapshot, database, scope)?,
        Show::Operations(id) => service::operations(kustd, id.as_deref())?,
        Show::Capacity => service::capacity(),
        Show::Principals => service::principals(),
        Show::IngestionResources => ingestion::resources(kustd)?,
        Show::IdentityToken => ingestion::identity_token(),
        Show::IngestionFailures(id) => ingestion::failures(kustd, id.as_deref()),
        Show::Policy { scope, kind } => {
            let stored = stored_policy(kustd, database, &scope, &kind)?;
            policy(&scope, &kind, stored.as_deref())
        }
    })
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

/// A policy as stored, without the defaults.
pub(super) fn stored_policy(kustd: &Kustd, database: &str, scope: &Scope, kind: &str) -> Result<Option<String>, KustoError> {
    Ok(match scope {
        Scope::Cluster => kustd.storage.catalog().image().policies.get(kind).cloned(),
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
        Scope::Cluster => ("", "Cluster"),
        Scope::Table(name) => (name.as_str(), "Table"),
        Scope::Database(name) => (name.as_str(), "Database"),
    };
    let mut letters = kind.chars();
    let kind: String = letters.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(letters).collect();
    let row = vec![text(format!("{kind}Policy")), text(format!("[{entity}]")), text(stored.unwrap_or("null")), text(""), text(of)];
    table(&columns, vec![row])
}
