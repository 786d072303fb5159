//! Rows that are in the journal but not yet in an extent, held in memory as Arrow batches.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::error::ArrowError;
use tokio::sync::oneshot;

use super::columns::{self, INGESTED};
use super::extent::Extent;
use crate::catalog::{BatchKey, Table, TableId};

/// Batches of one size class that are merged into one.
const FAN_IN: usize = 8;
/// Batches of this many rows are left as they are.
const LARGE_ROWS: usize = 128 * 1024;

/// Some rows of a table.
#[derive(Debug)]
pub(crate) struct HotBatch {
    /// The rows, with the hidden ingestion time.
    pub(crate) rows: RecordBatch,
    /// Largest LSN whose rows are in here; what a seal moves the table's position to.
    pub(crate) lsn: u64,
    /// The oldest frame in the journal that is needed to get these rows back.
    pub(crate) journal_lsn: u64,
    /// Earliest ingestion, ticks.
    pub(crate) ingested: i64,
    /// Memory.
    pub(crate) bytes: usize,
}

impl HotBatch {
    pub(crate) fn new(rows: RecordBatch, lsn: u64, journal_lsn: u64) -> HotBatch {
        let ingested = columns::range(&rows, INGESTED).map_or(0, |range| range.0);
        let bytes = rows.get_array_memory_size();
        HotBatch { rows, lsn, journal_lsn, ingested, bytes }
    }
}

/// The rows of one table: hot ones and extents. Immutable once a query holds it.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableData {
    /// Hot batches.
    pub(crate) hot: Vec<Arc<HotBatch>>,
    /// Extents.
    pub(crate) extents: Vec<Arc<Extent>>,
}

impl TableData {
    /// Rows that are in no table yet.
    pub(crate) fn of(batches: &[RecordBatch], now: i64) -> Result<TableData, ArrowError> {
        let hot = |batch| Ok(Arc::new(HotBatch::new(columns::with_ingestion_time(batch, now)?, 0, 0)));
        Ok(TableData { hot: batches.iter().map(hot).collect::<Result<_, ArrowError>>()?, extents: Vec::new() })
    }

    /// Hot rows.
    pub(crate) fn hot_rows(&self) -> u64 {
        self.hot.iter().map(|batch| batch.rows.num_rows() as u64).sum()
    }

    /// Memory of the hot rows.
    pub(crate) fn hot_bytes(&self) -> u64 {
        self.hot.iter().map(|batch| batch.bytes as u64).sum()
    }

    /// LSN that all hot rows are at or below.
    pub(crate) fn hot_lsn(&self) -> u64 {
        self.hot.iter().map(|batch| batch.lsn).max().unwrap_or(0)
    }

    /// All rows.
    pub(crate) fn rows(&self) -> u64 {
        self.hot_rows() + self.extents.iter().map(|extent| extent.record.rows).sum::<u64>()
    }
}

/// What became of a batch id.
#[derive(Debug)]
pub(crate) enum BatchState {
    /// Being written; repeats wait for the outcome (true: stored).
    InFlight(Vec<oneshot::Sender<bool>>),
    /// Durable since then (ticks); `kept` once the catalogue knows it too.
    Done {
        /// When.
        seen: i64,
        /// The frame that has the id.
        lsn: u64,
        /// In the catalogue as well, so that its frame may go.
        kept: bool,
    },
}

/// All rows of all tables, behind one lock.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Rows by table.
    pub(crate) tables: HashMap<TableId, Arc<TableData>>,
    /// Batch ids of the last day.
    pub(crate) batches: HashMap<BatchKey, BatchState>,
    /// Memory of all hot rows.
    pub(crate) hot_bytes: u64,
    /// Largest LSN published.
    pub(crate) last_lsn: u64,
}

impl State {
    /// Makes rows visible.
    pub(crate) fn publish(&mut self, table: TableId, batch: HotBatch) {
        self.hot_bytes += batch.bytes as u64;
        self.last_lsn = self.last_lsn.max(batch.lsn).max(batch.journal_lsn);
        Arc::make_mut(self.tables.entry(table).or_default()).hot.push(Arc::new(batch));
    }

    /// Puts `new` in the place of hot batches that are still there; false when one of them is gone.
    pub(crate) fn replace_hot(&mut self, table: TableId, old: &[Arc<HotBatch>], new: Option<HotBatch>) -> bool {
        let Some(data) = self.tables.get_mut(&table) else { return false };
        let is_old = |batch: &Arc<HotBatch>| old.iter().any(|other| Arc::ptr_eq(batch, other));
        if data.hot.iter().filter(|batch| is_old(batch)).count() != old.len() {
            return false;
        }
        let data = Arc::make_mut(data);
        data.hot.retain(|batch| !is_old(batch));
        self.hot_bytes -= old.iter().map(|batch| batch.bytes as u64).sum::<u64>();
        if let Some(new) = new {
            self.hot_bytes += new.bytes as u64;
            data.hot.push(Arc::new(new));
        }
        true
    }

    /// Forgets a dropped table; its extents are deleted once unread.
    pub(crate) fn drop_table(&mut self, table: TableId) {
        if let Some(data) = self.tables.remove(&table) {
            self.hot_bytes -= data.hot_bytes();
            data.extents.iter().for_each(|extent| extent.doom());
        }
    }

    /// The oldest frame that is still needed, for its rows or for a batch id that the catalogue does not know yet.
    pub(crate) fn oldest_needed(&self) -> u64 {
        let rows = self.tables.values().flat_map(|data| &data.hot).map(|batch| batch.journal_lsn);
        let ids = self.batches.values().filter_map(|batch| match batch {
            BatchState::Done { lsn, kept: false, .. } => Some(*lsn),
            _ => None,
        });
        rows.chain(ids).min().unwrap_or(self.last_lsn + 1)
    }
}

/// Batches worth merging: a full class of similar size, so that a row is copied a few times only.
pub(crate) fn crowded_class(hot: &[Arc<HotBatch>]) -> Option<Vec<Arc<HotBatch>>> {
    let mut classes: HashMap<u32, Vec<Arc<HotBatch>>> = HashMap::new();
    for batch in hot.iter().filter(|batch| batch.rows.num_rows() < LARGE_ROWS) {
        let class = (batch.rows.num_rows().max(1)).ilog2() / 3;
        classes.entry(class).or_default().push(batch.clone());
    }
    classes.into_iter().filter(|(_, members)| members.len() >= FAN_IN).min_by_key(|(class, _)| *class).map(|(_, m)| m)
}

/// The batches as one.
pub(crate) fn merged(table: &Table, batches: &[Arc<HotBatch>]) -> Result<HotBatch, ArrowError> {
    let rows: Vec<RecordBatch> = batches.iter().map(|batch| batch.rows.clone()).collect();
    let targets = columns::stored_targets(table, &rows);
    let conformed = rows.iter().map(|batch| columns::conform(batch, &targets)).collect::<Result<Vec<_>, _>>()?;
    let lsn = batches.iter().map(|batch| batch.lsn).max().unwrap_or(0);
    let journal_lsn = batches.iter().map(|batch| batch.journal_lsn).min().unwrap_or(0);
    Ok(HotBatch::new(columns::concat(&conformed, &targets)?, lsn, journal_lsn))
}
