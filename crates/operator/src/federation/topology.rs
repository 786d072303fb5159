//! Who has what, from the heartbeats that are fresh.
//!
//! A heartbeat comes from another cluster: nothing in it is taken for KQL. What cannot be a name, an address or a column is
//! left out and counted.

use std::collections::{BTreeMap, BTreeSet};

use kusto::Endpoint;

use super::heartbeat::DatabaseSchema;

/// Longest name that Kusto takes.
const LONGEST_NAME: usize = 1024;
/// Most partitions, databases, and tables of a database of one, that are looked at.
const MOST_PARTITIONS: usize = 1_000;
const MOST_DATABASES: usize = 1_000;
const MOST_TABLES: usize = 10_000;

/// A row of the heartbeat table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Who wrote it.
    pub endpoint: String,
    /// JSON of its databases.
    pub schema: String,
}

/// Name and type of a column.
pub type Column = (String, String);

/// A table or view of one name, over all partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableTopology {
    /// Addresses of those that have it.
    pub endpoints: BTreeSet<String>,
    /// Whether it is a table somewhere.
    pub is_table: bool,
    /// Columns, as far as partitions say: those of the first one, then what others have beside them.
    pub columns: Vec<Column>,
}

/// A database of one name, over all partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseTopology {
    /// Addresses of those that have it.
    pub endpoints: BTreeSet<String>,
    /// Its tables and views.
    pub tables: BTreeMap<String, TableTopology>,
}

/// All partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// How many of them are read.
    pub partitions: usize,
    /// Their databases.
    pub databases: BTreeMap<String, DatabaseTopology>,
    /// What was left out, for people.
    pub left_out: Vec<String>,
}

impl Topology {
    /// Of fresh heartbeats, one for each partition.
    pub fn new(rows: &[Row]) -> Topology {
        let mut rows: Vec<&Row> = rows.iter().collect();
        rows.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
        let mut topology = Topology::default();
        for row in rows.iter().skip(MOST_PARTITIONS) {
            topology.left_out.push(format!("{}: more than {MOST_PARTITIONS} partitions", row.endpoint));
        }
        for row in rows.into_iter().take(MOST_PARTITIONS) {
            topology.add(row);
        }
        topology
    }

    fn add(&mut self, row: &Row) {
        let endpoint = match Endpoint::parse(&row.endpoint) {
            Ok(endpoint) => endpoint.to_string(),
            Err(error) => return self.left_out.push(error.message),
        };
        let databases: Vec<DatabaseSchema> = match serde_json::from_str(&row.schema) {
            Ok(databases) => databases,
            Err(error) => return self.left_out.push(format!("{endpoint}: its schema cannot be read: {error}")),
        };
        self.partitions += 1;
        for database in databases {
            self.add_database(&endpoint, &database);
        }
    }

    fn add_database(&mut self, endpoint: &str, schema: &DatabaseSchema) {
        if !is_name(&schema.database) {
            return self.left_out.push(format!("{endpoint}: a database with the name {:?}", schema.database));
        }
        if self.databases.len() >= MOST_DATABASES && !self.databases.contains_key(&schema.database) {
            return self.left_out.push(format!("{endpoint}: more than {MOST_DATABASES} databases, {} is not among them", schema.database));
        }
        let names = schema.tables.iter().map(|name| (name, true)).chain(schema.views.iter().map(|name| (name, false)));
        let (good, bad): (Vec<_>, Vec<_>) = names.partition(|(name, _)| is_name(name));
        self.left_out.extend(bad.into_iter().map(|(name, _)| format!("{endpoint}: a table with the name {name:?}")));
        if good.len() > MOST_TABLES {
            self.left_out.push(format!("{endpoint}: more than {MOST_TABLES} tables in {}", schema.database));
        }
        let database = self.databases.entry(schema.database.clone()).or_default();
        database.endpoints.insert(endpoint.to_owned());
        for (name, is_table) in good.into_iter().take(MOST_TABLES) {
            let table = database.tables.entry(name.clone()).or_default();
            table.endpoints.insert(endpoint.to_owned());
            table.is_table |= is_table;
            let columns = schema.table_schemas.get(name).filter(|_| is_table).and_then(|text| columns(text));
            for column in columns.unwrap_or_default() {
                if !table.columns.iter().any(|(known, _)| *known == column.0) {
                    table.columns.push(column);
                }
            }
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name.trim() == name
        && !name.chars().any(|c| c.is_control() || "'\"`\\[]{}()<>|;\u{2028}\u{2029}".contains(c))
}

/// Columns of `['a']:string, ['b c']:long, d:real`; none if it is anything else.
pub fn columns(text: &str) -> Option<Vec<Column>> {
    const TYPES: [&str; 10] = ["bool", "int", "long", "real", "decimal", "string", "datetime", "timespan", "guid", "dynamic"];
    let mut columns: Vec<Column> = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = match rest.strip_prefix("['") {
            Some(quoted) => quoted.split_once("']")?,
            None => rest.split_at(rest.find(':')?),
        };
        let declared = after.trim_start().strip_prefix(':')?;
        let (ty, after) = declared.split_once(',').unwrap_or((declared, ""));
        let ty = ty.trim();
        let name = name.trim();
        if !is_name(name) || !TYPES.contains(&ty) || columns.iter().any(|(known, _)| known == name) {
            return None;
        }
        columns.push((name.to_owned(), ty.to_owned()));
        rest = after.trim();
    }
    Some(columns)
}
