//! Rows of one request, grouped by table in the order of first use.

use crate::schema::{SampleType, Schema};
use std::sync::Arc;

/// CSV rows for one table.
#[derive(Clone, Debug)]
pub struct TableRows {
    /// Database, normalised.
    pub database: Arc<str>,
    /// Table, normalised.
    pub table: Arc<str>,
    /// Columns of the rows.
    pub schema: Arc<Schema>,
    /// What the rows are.
    pub sample_type: SampleType,
    /// Number of rows in `bytes`.
    pub rows: u32,
    /// CSV rows without header, each ending in `\n`.
    pub bytes: Vec<u8>,
}

/// Rows of one request by table, in order of first use.
#[derive(Debug, Default)]
pub struct RowSet {
    tables: Vec<TableRows>,
}

impl RowSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it holds no row.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// Number of rows over all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| u64::from(table.rows)).sum()
    }

    /// The rows by table.
    pub fn into_tables(self) -> Vec<TableRows> {
        self.tables
    }

    /// The rows by table.
    pub fn tables(&self) -> &[TableRows] {
        &self.tables
    }

    /// Forgets all rows and keeps the allocations.
    pub fn clear(&mut self) {
        self.tables.clear();
    }
}
