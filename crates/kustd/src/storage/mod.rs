//! Rows: into the journal, visible in memory, sealed into extents.
//!
//! A streaming ingest is one journal frame; when the frame is durable, the journal's thread publishes its rows under
//! the state lock and the request is answered. [`Storage::tick`] does the rest from time to time: merges small batches
//! in memory, seals tables into extents (one catalogue transaction for the round, then the swap under the lock), carries
//! the rows of small tables forward so that the journal can be trimmed, merges extents, and applies retention.

pub(crate) mod columns;
mod extent;
mod frame;
mod hot;
mod maintenance;
mod recovery;
pub(crate) mod shred;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::error::ArrowError;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use wal::journal::Journal;

use crate::catalog::{BatchKey, Catalog, CatalogError, Image, Operation, Table, TableId};
pub(crate) use extent::Extent;
pub use extent::ExtentError;
pub(crate) use hot::TableData;
use hot::{BatchState, HotBatch, State};
pub(crate) use maintenance::soft_delete_period;

/// Where and how rows are kept.
#[derive(Debug, Clone)]
pub struct StorageOptions {
    /// Folder of catalogue, journal and extents.
    pub dir: PathBuf,
    /// What an acknowledgement promises.
    pub durability: wal::Durability,
    /// Age of extents that are dropped where no policy says otherwise.
    pub retention: Option<Duration>,
    /// The same for some databases.
    pub retentions: HashMap<String, Duration>,
    /// Size of all extents above which the oldest are dropped.
    pub max_bytes: Option<u64>,
    /// Rows of a table that are sealed at once.
    pub seal_rows: u64,
    /// Memory of a table that is sealed at once.
    pub seal_bytes: u64,
    /// Age of hot rows that are sealed.
    pub seal_age: Duration,
    /// Memory of all hot rows above which the largest tables are sealed; above four times this, ingestion is refused.
    pub memory_bytes: u64,
    /// Size of one journal file.
    pub journal_file_bytes: u64,
    /// Size of the journal above which rows are sealed or carried forward; above four times this, ingestion is refused.
    pub journal_budget_bytes: u64,
}

impl StorageOptions {
    /// Good values for one machine.
    pub fn new(dir: &Path) -> StorageOptions {
        StorageOptions {
            dir: dir.to_owned(),
            durability: wal::Durability::Disk,
            retention: None,
            retentions: HashMap::new(),
            max_bytes: None,
            seal_rows: 1_000_000,
            seal_bytes: 64 << 20,
            seal_age: Duration::from_secs(3600),
            memory_bytes: 256 << 20,
            journal_file_bytes: 64 << 20,
            journal_budget_bytes: 512 << 20,
        }
    }
}

/// Failures of storage.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The catalogue.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// An extent.
    #[error(transparent)]
    Extent(#[from] ExtentError),
    /// Columns could not be encoded or brought together.
    #[error("encoding rows: {0}")]
    Arrow(#[from] ArrowError),
    /// The journal could not be opened.
    #[error("opening the journal: {0}")]
    Open(#[from] wal::OpenError),
    /// The journal did not take a frame.
    #[error("the journal did not take the rows: {0}")]
    Refused(#[from] wal::Refusal),
    /// A frame that is whole cannot be read.
    #[error("journal frame {lsn} cannot be read: {what}; start the version that wrote it")]
    Frame {
        /// Its number.
        lsn: u64,
        /// Why.
        what: String,
    },
    /// The folder.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Too much waits to be sealed.
    #[error("{0}; send again later")]
    Overloaded(String),
}

/// What became of an ingestion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ingested {
    /// The rows are durable and visible.
    Stored,
    /// A batch of that id is durable already; nothing was stored.
    Known,
}

/// Rows that go straight into an extent of a table.
pub(crate) struct NewRows {
    /// The table.
    pub(crate) table: Arc<Table>,
    /// The rows.
    pub(crate) batches: Vec<RecordBatch>,
    /// Tags of the extent.
    pub(crate) tags: Vec<String>,
    /// All other rows of the table go.
    pub(crate) replace: bool,
}

/// What becomes visible and durable at once.
#[derive(Default)]
pub(crate) struct Publication {
    /// Rows of several tables; the first is what the command is about.
    pub(crate) rows: Vec<NewRows>,
    /// Nothing is stored when the first table has an extent with one of these tags.
    pub(crate) unless_tagged: Vec<String>,
    /// The sender's id of the batch, one of the first table; empty without one. Stored once.
    pub(crate) batch_id: Vec<u8>,
    /// The operation whose work this is, as it ends.
    pub(crate) operation: Option<Operation>,
}

/// What became of a publication.
pub(crate) enum Published {
    /// The extents, one for each table that rows came for; None where there were no rows.
    Stored(Vec<Option<Arc<Extent>>>),
    /// The table has an extent with such a tag; nothing was stored.
    Known,
    /// A batch of that id is durable already; nothing was stored.
    Repeated,
}

/// The rows of all tables.
pub(crate) struct Storage {
    options: StorageOptions,
    extents: PathBuf,
    catalog: Catalog,
    journal: Journal,
    state: Arc<Mutex<State>>,
    /// One maintenance step at a time; also held by commands that move rows.
    maintenance: Mutex<()>,
}

impl Storage {
    /// The catalogue.
    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// A consistent view: the catalogue's image and the rows of every table.
    pub(crate) fn view(&self) -> (Arc<Image>, HashMap<TableId, Arc<TableData>>) {
        let state = self.state.lock();
        (self.catalog.image(), state.tables.clone())
    }

    /// Rows of one table.
    pub(crate) fn table_data(&self, table: TableId) -> Arc<TableData> {
        self.state.lock().tables.get(&table).cloned().unwrap_or_default()
    }

    /// Memory of hot rows and size of the journal.
    pub(crate) fn pressure(&self) -> (u64, u64) {
        (self.state.lock().hot_bytes, self.journal.bytes())
    }

    /// Makes rows durable and visible at once; once per batch id, which is one of the first table.
    pub(crate) async fn ingest(&self, rows: Vec<NewRows>, batch_id: &[u8], now: i64) -> Result<Ingested, StorageError> {
        self.check_pressure()?;
        let Some(first) = rows.first() else { return Ok(Ingested::Stored) };
        let key = (!batch_id.is_empty()).then(|| batch_key(first.table.id, batch_id));
        if let Some(key) = &key
            && let Some(outcome) = self.reserve(key)
        {
            return match outcome.await {
                Ok(true) => Ok(Ingested::Known),
                _ => Err(StorageError::Overloaded("an earlier request with this batch id has just failed".to_owned())),
            };
        }
        let encoded = encoded(&rows, batch_id, now);
        let (kind, body, rows) = encoded.inspect_err(|_| release(&mut self.state.lock(), key.as_ref(), None, now))?;
        let (answer, outcome) = oneshot::channel();
        let state = self.state.clone();
        self.journal.append(
            kind,
            body,
            Box::new(move |result| {
                let lsn = result.as_ref().ok().copied();
                let batches =
                    lsn.map(|lsn| rows.into_iter().map(|(table, rows)| (table, HotBatch::new(rows, lsn, lsn))).collect::<Vec<_>>());
                // rows and batch id under one lock: maintenance sees both or neither
                let mut state = state.lock();
                for (table, batch) in batches.into_iter().flatten() {
                    state.publish(table, batch);
                }
                release(&mut state, key.as_ref(), lsn, now);
                drop(state);
                // the request may have gone; its rows are stored all the same
                let _ = answer.send(result);
            }),
        );
        match outcome.await {
            Ok(result) => result.map(|_| Ingested::Stored).map_err(StorageError::Refused),
            Err(_) => Err(StorageError::Refused(wal::Refusal::Closed)),
        }
    }

    fn check_pressure(&self) -> Result<(), StorageError> {
        let (memory, journal) = self.pressure();
        if memory > self.options.memory_bytes * 4 {
            return Err(StorageError::Overloaded(format!("{memory} bytes of rows in memory wait to be sealed")));
        }
        if journal > self.options.journal_budget_bytes * 4 {
            return Err(StorageError::Overloaded(format!("{journal} bytes of journal wait to be sealed")));
        }
        Ok(())
    }

    /// Takes a batch id, or returns the outcome to wait for when it is taken.
    fn reserve(&self, key: &BatchKey) -> Option<oneshot::Receiver<bool>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        match state.batches.get_mut(key) {
            None => {
                state.batches.insert(key.clone(), BatchState::InFlight(Vec::new()));
                return None;
            }
            Some(BatchState::InFlight(waiting)) => waiting.push(sender),
            Some(BatchState::Done { .. }) => {
                // the receiver is right here
                let _ = sender.send(true);
            }
        }
        Some(receiver)
    }
}

/// The rows as one journal frame, and as they are to be held.
#[expect(clippy::type_complexity, reason = "used in one place")]
fn encoded(rows: &[NewRows], batch_id: &[u8], now: i64) -> Result<(u8, Vec<u8>, Vec<(TableId, RecordBatch)>), StorageError> {
    let mut batches = Vec::new();
    let mut held = Vec::new();
    for NewRows { table, batches: rows, .. } in rows {
        for rows in rows.iter().filter(|rows| rows.num_rows() > 0) {
            batches.push((&**table, rows));
            held.push((table.id, columns::with_ingestion_time(rows, now)?));
        }
    }
    let header = |table: &Table| frame::RowsHeader { table: table.id, schema_version: table.version, ingested: now, batch_id };
    let (kind, body) = match (batches.as_slice(), rows.first()) {
        ([(table, rows)], _) => (frame::ROWS, frame::encode_rows(&header(table), rows)?),
        (all, Some(first)) => (frame::ROWS_OF_SEVERAL, frame::encode_several(&header(&first.table), all)?),
        (_, None) => (frame::ROWS_OF_SEVERAL, Vec::new()),
    };
    Ok((kind, body, held))
}

/// Ends the reservation of a batch id with the frame that has it, and tells those who wait.
fn release(state: &mut State, key: Option<&BatchKey>, stored: Option<u64>, now: i64) {
    let Some(key) = key else { return };
    let before = match stored {
        Some(lsn) => state.batches.insert(key.clone(), BatchState::Done { seen: now, lsn, kept: false }),
        None => state.batches.remove(key),
    };
    if let Some(BatchState::InFlight(waiting)) = before {
        for waiting in waiting {
            // the request that waited may be gone
            let _ = waiting.send(stored.is_some());
        }
    }
}

fn batch_key(table: TableId, batch_id: &[u8]) -> BatchKey {
    let mut key = table.0.to_be_bytes().to_vec();
    key.extend_from_slice(batch_id);
    BatchKey(key)
}
