//! Where the engine finds stored tables.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::catalog::{MemTable, TableProvider};
use kql::rows::Rows;
use kql::tree::Remote;
use kql::{Column, Value};
use parking_lot::Mutex;

use super::error::EngineError;
use super::limits::QueryLimits;
use super::values::{arrow_type, batch, rows_to_batches};

/// A snapshot of stored tables. One value serves one query, so that each row is seen once.
///
/// Fields of a provider carry the Kusto column names. A column that the query's tree names and the provider lacks
/// reads as nulls. Storage is [`super::values::arrow_type`] or, for strings and dynamics, `Dictionary(Int32, Utf8)`;
/// anything else is cast at the scan, which keeps filters on that column from being pushed down.
///
/// A provider may have the values of a key of a dynamic column as a field more, named as [`key_field`] says: queries for
/// that key then read it instead of the documents.
pub trait TableSource: Send + Sync + 'static {
    /// The table of that name, if there is one.
    fn scan(&self, database: &str, table: &str) -> Option<Arc<dyn TableProvider>>;

    /// The rows of a query of another cluster, whose columns are those; unless overridden none can be asked.
    fn remote(
        &self,
        _remote: &Remote,
        _columns: &[Column],
        _limits: &QueryLimits,
        _branch: Option<Branch>,
    ) -> Option<Arc<dyn TableProvider>> {
        None
    }
}

/// A branch of a `macro-expand` that can do without some of them.
#[derive(Debug, Clone)]
pub struct Branch {
    number: usize,
    count: usize,
    failed: Arc<Mutex<HashSet<usize>>>,
}

impl Branch {
    /// One of `count`; `failed` belongs to all of them.
    pub(super) fn new(number: usize, count: usize, failed: Arc<Mutex<HashSet<usize>>>) -> Self {
        Branch { number, count, failed }
    }

    /// To be called when it fails: whether the query can do without it, since others are left.
    pub(crate) fn is_dispensable(&self) -> bool {
        let mut failed = self.failed.lock();
        failed.insert(self.number);
        failed.len() < self.count
    }
}

/// Name of the field with the values of `key` in the documents of dynamic column `column`.
pub fn key_field(column: &str, key: &str) -> String {
    format!("{column}\u{1f}{key}")
}

/// Tables in memory: rows of management commands that a query continues (`.show tables | where …`), and tests.
#[derive(Debug, Default)]
pub struct MemorySource {
    tables: HashMap<(String, String), Arc<MemTable>>,
}

impl MemorySource {
    /// No tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more table.
    pub fn with_table(mut self, database: &str, table: &str, columns: Vec<Column>, rows: Vec<Vec<Value>>) -> Result<Self, EngineError> {
        let fields = columns.iter().map(|column| Field::new(&column.name, arrow_type(column.ty), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let batches = rows_to_batches(&Rows::new(columns, rows))?
            .into_iter()
            .map(|positional| {
                let rows = positional.num_rows();
                batch(schema.clone(), positional.columns().to_vec(), rows)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let provider = Arc::new(MemTable::try_new(schema, vec![batches])?);
        self.tables.insert((database.to_owned(), table.to_owned()), provider);
        Ok(self)
    }
}

impl TableSource for MemorySource {
    fn scan(&self, database: &str, table: &str) -> Option<Arc<dyn TableProvider>> {
        let found = self.tables.get(&(database.to_owned(), table.to_owned()))?;
        Some(Arc::<MemTable>::clone(found))
    }
}
