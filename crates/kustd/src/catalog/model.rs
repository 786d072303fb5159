//! What the catalogue knows, as plain values. An [`Image`] is immutable: a query keeps the one it started with.

use std::collections::BTreeMap;
use std::sync::Arc;

use kql::binder::EntityReference;
use kql::{Column, Type};

/// Identity of a table; a dropped and re-created table gets a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub i64);

/// Everything but extents, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Databases by name.
    pub databases: BTreeMap<Arc<str>, Arc<Database>>,
    /// Policies of the whole as JSON text, by kind.
    pub policies: BTreeMap<String, String>,
}

/// A database.
#[derive(Debug, Clone)]
pub struct Database {
    /// Identity.
    pub id: i64,
    /// Name as created; looked up without regard to case, as Kusto does.
    pub name: Arc<str>,
    /// When it was created, ticks.
    pub created: i64,
    /// Tables by name (case-sensitive).
    pub tables: BTreeMap<Arc<str>, Arc<Table>>,
    /// Stored functions by name.
    pub functions: BTreeMap<Arc<str>, Arc<Function>>,
    /// Policies as JSON text, by kind (`retention`, `caching`, …).
    pub policies: BTreeMap<String, String>,
    /// Entity groups by name.
    pub entity_groups: BTreeMap<String, Vec<EntityReference>>,
}

/// A table without its rows.
#[derive(Debug, Clone)]
pub struct Table {
    /// Identity.
    pub id: TableId,
    /// Database that holds it.
    pub database: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Columns in order.
    pub columns: Vec<TableColumn>,
    /// Id of the next new column; ids are never reused.
    pub next_column: u32,
    /// Grows with each change of the columns.
    pub version: u32,
    /// `folder`
    pub folder: String,
    /// `docstring`
    pub docstring: String,
    /// When it was created, ticks.
    pub created: i64,
    /// Ingestion mappings by kind (`csv`, `json`) and name.
    pub mappings: BTreeMap<(String, String), Arc<StoredMapping>>,
    /// Policies as JSON text, by kind.
    pub policies: BTreeMap<String, String>,
}

/// A column with the identity that extents know it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableColumn {
    /// Unique in the table, from 1.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Type.
    pub ty: Type,
}

/// A stored function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Name.
    pub name: String,
    /// Parameter list with parentheses.
    pub parameters: String,
    /// Body with braces.
    pub body: String,
    /// `folder`
    pub folder: String,
    /// `docstring`
    pub docstring: String,
    /// Wildcards of `union` and `search` find it, as they find tables.
    pub view: bool,
}

/// An ingestion mapping as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMapping {
    /// The JSON text.
    pub json: String,
    /// When it was last set, ticks.
    pub updated: i64,
}

impl Image {
    /// The database of that name, without regard to case.
    pub fn database(&self, name: &str) -> Option<&Arc<Database>> {
        self.databases.get(name).or_else(|| self.databases.values().find(|database| database.name.eq_ignore_ascii_case(name)))
    }

    /// The table of that name.
    pub fn table(&self, database: &str, table: &str) -> Option<&Arc<Table>> {
        self.database(database)?.tables.get(table)
    }
}

impl Table {
    /// A table that is not stored yet.
    pub(crate) fn new(database: &Arc<str>, name: &str, now: i64) -> Table {
        Table {
            id: TableId(0),
            database: database.clone(),
            name: name.into(),
            columns: Vec::new(),
            next_column: 1,
            version: 0,
            folder: String::new(),
            docstring: String::new(),
            created: now,
            mappings: BTreeMap::new(),
            policies: BTreeMap::new(),
        }
    }

    /// Appends a column.
    pub(crate) fn add_column(&mut self, name: &str, ty: Type) {
        self.columns.push(TableColumn { id: self.next_column, name: name.to_owned(), ty });
        self.next_column += 1;
    }

    /// The columns as queries see them.
    pub fn schema(&self) -> Vec<Column> {
        self.columns.iter().map(|column| Column::new(column.name.clone(), column.ty)).collect()
    }

    /// Position of the column that tells when a row happened: `Timestamp` if it is a datetime, else the first datetime.
    pub fn time_column(&self) -> Option<usize> {
        let is_time = |column: &TableColumn| column.ty == Type::DateTime;
        self.columns
            .iter()
            .position(|column| column.name == "Timestamp" && is_time(column))
            .or_else(|| self.columns.iter().position(is_time))
    }
}
