//! Rows of one request, grouped by table in the order of first use.

use crate::export::ExportRows;
use crate::schema::{SampleType, Schema};
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Rows that one request may become: a few bytes of samples repeat all labels of their series, so a small body can
/// ask for very much. Normal requests stay near twice their own size.
const MAX_BYTES: usize = 256 << 20;

/// Tables that one request may write to.
const MAX_TABLES: usize = 10_000;

/// First allocation of a table's rows: a few samples.
const FIRST_BYTES: usize = 2048;

/// Buffers that are kept for the next set, and the largest of them.
const MAX_SPARE: usize = 1024;
const MAX_SPARE_BYTES: usize = 4096;

/// Buffers that no set uses at the moment.
static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

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

/// Where rows go: everything that tells one table of a [`RowSet`] from another.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// Database, normalised.
    pub database: &'a Arc<str>,
    /// Table, normalised.
    pub table: &'a Arc<str>,
    /// Columns of the rows.
    pub schema: &'a Arc<Schema>,
    /// What the rows are.
    pub sample_type: SampleType,
}

/// Rows of one request by table, in order of first use.
///
/// A set may serve several intakes one after the other; [`RowSet::clear`] makes it ready for the next request and
/// keeps its allocations.
#[derive(Clone, Debug, Default)]
pub struct RowSet {
    tables: Vec<TableRows>,
    /// Where the first `named` tables are.
    by_name: HashMap<Vec<u8>, u32, RandomState>,
    named: usize,
    key: Vec<u8>,
    spare: Vec<Vec<u8>>,
    bytes: usize,
    /// By tap of the intake; empty when there are none.
    exports: Vec<ExportRows>,
}

impl RowSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it holds no row.
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(|table| table.rows == 0)
    }

    /// Number of rows over all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| u64::from(table.rows)).sum()
    }

    /// The rows by table.
    pub fn into_tables(mut self) -> Vec<TableRows> {
        RowSet::give_back(std::mem::take(&mut self.spare));
        self.tables.retain(|table| table.rows > 0);
        self.tables
    }

    /// The rows by table. A table whose every row was refused may stand here without rows.
    pub fn tables(&self) -> &[TableRows] {
        &self.tables
    }

    /// The rows by table, to take some out: whoever does keeps `rows` true.
    pub fn tables_mut(&mut self) -> &mut [TableRows] {
        &mut self.tables
    }

    /// Forgets all rows and keeps the allocations.
    pub fn clear(&mut self) {
        self.by_name.clear();
        self.named = 0;
        self.exports.clear();
        self.bytes = 0;
        self.spare.extend(self.tables.drain(..).map(|table| {
            let mut bytes = table.bytes;
            bytes.clear();
            bytes
        }));
    }

    /// Keeps the memory of rows whose bytes are elsewhere now for the sets that come: a request writes to hundreds of
    /// tables, and fresh memory for each costs more than the rows.
    pub fn give_back(mut buffers: Vec<Vec<u8>>) {
        let mut spare = SPARE.lock();
        buffers.retain(|buffer| buffer.capacity() <= MAX_SPARE_BYTES);
        buffers.truncate(MAX_SPARE.saturating_sub(spare.len()));
        spare.append(&mut buffers);
    }

    /// A buffer for the rows of a table.
    fn buffer(&mut self) -> Vec<u8> {
        if self.spare.is_empty() {
            self.spare = std::mem::take(&mut *SPARE.lock());
        }
        match self.spare.pop() {
            Some(mut buffer) => {
                buffer.clear();
                buffer
            }
            None => Vec::with_capacity(FIRST_BYTES),
        }
    }

    /// What the taps of the intake took ([`crate::MetricIntake::tap`]), in their order; empty when they took nothing.
    pub fn take_exports(&mut self) -> Vec<ExportRows> {
        std::mem::take(&mut self.exports)
    }

    /// The rows of a tap.
    pub(crate) fn export(&mut self, tap: usize) -> &mut ExportRows {
        if self.exports.len() <= tap {
            self.exports.resize_with(tap + 1, ExportRows::default);
        }
        &mut self.exports[tap]
    }

    /// Index of the table for [`RowSet::append`], made when it is not there yet; `None` when there are too many. It
    /// holds until [`RowSet::clear`].
    pub fn find_or_add(&mut self, to: Destination<'_>) -> Option<usize> {
        while let Some(table) = self.tables.get(self.named) {
            write_key(&mut self.key, [&table.database, &table.table, &table.schema.hash]);
            self.by_name.insert(self.key.clone(), self.named as u32);
            self.named += 1;
        }
        write_key(&mut self.key, [to.database, to.table, &to.schema.hash]);
        match self.by_name.get(&self.key) {
            Some(&index) => Some(index as usize),
            None => self.add(to),
        }
    }

    /// [`RowSet::find_or_add`] for a caller who knows that the table is not there yet.
    pub(crate) fn add(&mut self, to: Destination<'_>) -> Option<usize> {
        let index = self.tables.len();
        if index == MAX_TABLES {
            return None;
        }
        let bytes = self.buffer();
        self.tables.push(TableRows {
            database: to.database.clone(),
            table: to.table.clone(),
            schema: to.schema.clone(),
            sample_type: to.sample_type,
            rows: 0,
            bytes,
        });
        Some(index)
    }

    /// Whether [`RowSet::append`] would refuse any row.
    pub fn is_full(&self) -> bool {
        self.bytes > MAX_BYTES
    }

    /// Appends one row, written by `write`, to the table at `index`; false when the set holds too much already.
    ///
    /// # Panics
    /// When `index` is not one that [`RowSet::find_or_add`] gave since the last [`RowSet::clear`].
    #[inline]
    pub fn append(&mut self, index: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.is_full() {
            return false;
        }
        let table = &mut self.tables[index];
        let before = table.bytes.len();
        write(&mut table.bytes);
        table.rows += 1;
        self.bytes += table.bytes.len() - before;
        true
    }

    /// Why [`RowSet::find_or_add`] refused.
    pub fn too_many_tables() -> String {
        format!("the request writes to more than {MAX_TABLES} tables; send smaller requests")
    }

    /// Why [`RowSet::append`] refused.
    pub fn too_large() -> String {
        format!("the request expands to more than {} MiB of rows; send smaller requests", MAX_BYTES >> 20)
    }
}

fn write_key(key: &mut Vec<u8>, parts: [&Arc<str>; 3]) {
    key.clear();
    for part in parts {
        key.extend_from_slice(part.as_bytes());
        key.push(0);
    }
}
