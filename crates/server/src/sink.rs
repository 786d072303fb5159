//! Where decoded rows go. Receivers and scrapers know a [`Sink`]; [`WalSink`] is the one that makes
//! rows durable in a [`wal::Store`].

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use telemetry::{Grouped, RowSet, Table};
use tokio::sync::oneshot;

/// Opaque keys and values that become durable together with rows: where a source goes on after a restart. An empty
/// value deletes the key.
pub type Marks = Vec<(Vec<u8>, Vec<u8>)>;

/// Takes the rows of one request, all or nothing.
pub trait Sink: Send + Sync {
    /// Commits `rows`; resolves once they are durable. `filtered` counts what rules removed before.
    fn commit(&self, rows: RowSet, filtered: u64) -> BoxFuture<'_, Result<(), Refused>> {
        self.commit_with_marks(rows, filtered, Marks::new())
    }

    /// The same with marks, which move if and only if the rows are stored.
    fn commit_with_marks(&self, rows: RowSet, filtered: u64, marks: Marks) -> BoxFuture<'_, Result<(), Refused>>;

    /// Whether a commit has a chance now; asked before a body is read, so it must be cheap.
    ///
    /// # Errors
    /// The reason for which requests are refused.
    fn ready(&self) -> Result<(), String>;
}

/// Why rows were not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not now: over quota, disk full. Nothing was stored; the client keeps its data and retries.
    #[error("{reason}")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
        /// What is used up.
        reason: String,
    },
    /// Never: the rows themselves are at fault.
    #[error("{0}")]
    Invalid(String),
    /// The store failed; whether the rows are stored is not known.
    #[error("{0}")]
    Failed(String),
}

impl Refused {
    /// A refusal for now, with the usual delay before the next try.
    #[must_use]
    pub fn overloaded(reason: impl Into<String>) -> Self {
        Refused::Overloaded { retry_after: RETRY_AFTER, reason: reason.into() }
    }
}

/// How long a refused client waits: about as long as a batch takes to be sent and make room.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// How long an answer about the store's usage stays good enough.
const READY_FRESHNESS: Duration = Duration::from_millis(250);

/// How long new tables are left out after a database reached its number of tables.
const EXCESS_FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// A [`Sink`] over a [`wal::Store`].
///
/// A database with as many tables as it may have does not lose its other tables: the request that
/// hits the limit is refused for now, and its repetition is stored without the rows of new tables,
/// which the ledger counts as filtered by `too-many-tables`.
pub struct WalSink {
    store: wal::Store,
    database: Option<Arc<str>>,
    ready: Mutex<Option<(Instant, Result<(), String>)>>,
    full: Mutex<HashMap<Arc<str>, FullDatabase>>,
}

/// A database without room for another table.
struct FullDatabase {
    since: Instant,
    tables: HashSet<wal::TableKey>,
}

impl WalSink {
    /// A sink that commits to `store`.
    #[must_use]
    pub fn new(store: wal::Store) -> Self {
        WalSink { store, database: None, ready: Mutex::new(None), full: Mutex::default() }
    }

    /// The same for one source: rows that its rules remove are counted in the ledger of `database`.
    #[must_use]
    pub fn charging(mut self, database: &str) -> Self {
        self.database = Some(telemetry::names::normalize_id(database).into());
        self
    }

    fn filtered(&self, rows: u64) -> Vec<wal::Filtered> {
        match &self.database {
            Some(database) if rows > 0 => vec![wal::Filtered { database: Arc::clone(database), reason: "rules", rows }],
            _ => Vec::new(),
        }
    }
}

impl Sink for WalSink {
    fn commit_with_marks(&self, rows: RowSet, filtered: u64, marks: Marks) -> BoxFuture<'_, Result<(), Refused>> {
        let mut filtered = self.filtered(filtered);
        let Grouped { bytes, places, tables } = rows.into_grouped();
        let request = wal::Request {
            sections: self.without_excess(tables.into_iter().map(section).collect(), &mut filtered),
            rows: wal::Pieces { bytes, places },
            filtered,
            receipts: Vec::new(),
            marks,
        };
        if request.sections.is_empty() && request.filtered.is_empty() && request.marks.is_empty() {
            return Box::pin(std::future::ready(Ok(())));
        }
        let (done, committed) = oneshot::channel();
        // A receiver that is gone belongs to a client that is gone: the rows are stored all the same.
        let spent = self.store.commit(request, Box::new(move |outcome| drop(done.send(outcome))));
        RowSet::give_back(spent);
        Box::pin(async move {
            match committed.await {
                Ok(Ok(_lsn)) => Ok(()),
                Ok(Err(refusal)) => {
                    self.note_excess(&refusal);
                    Err(refused(&refusal))
                }
                Err(_) => Err(Refused::Failed("the store was closed".to_owned())),
            }
        })
    }

    fn ready(&self) -> Result<(), String> {
        let mut cached = self.ready.lock();
        if let Some((asked, answer)) = &*cached
            && asked.elapsed() < READY_FRESHNESS
        {
            return answer.clone();
        }
        let answer = self.store.usage().refusing.map_or(Ok(()), |refusal| Err(refusal.to_string()));
        *cached = Some((Instant::now(), answer.clone()));
        answer
    }
}

impl WalSink {
    /// Takes out the rows of new tables of full databases.
    fn without_excess(&self, mut sections: Vec<wal::Section>, filtered: &mut Vec<wal::Filtered>) -> Vec<wal::Section> {
        let mut full = self.full.lock();
        if full.is_empty() {
            return sections;
        }
        full.retain(|_, database| database.since.elapsed() < EXCESS_FORGOTTEN_AFTER);
        sections.retain(|section| {
            let fits = full.get(&section.table.database).is_none_or(|database| database.tables.contains(&section.table));
            if !fits {
                let database = Arc::clone(&section.table.database);
                filtered.push(wal::Filtered { database, reason: "too-many-tables", rows: section.rows.into() });
            }
            fits
        });
        sections
    }

    fn note_excess(&self, refusal: &wal::Refusal) {
        let wal::Refusal::TooManyTables { database } = refusal else { return };
        tracing::warn!(%database, "{refusal}; rows of further tables are left out and counted");
        let tables = self.store.ledger().tables.into_keys().filter(|table| table.database == *database).collect();
        self.full.lock().insert(Arc::clone(database), FullDatabase { since: Instant::now(), tables });
    }
}

/// The section of a table whose rows are those pieces of the request.
#[must_use]
pub fn section((table, pieces): (Table, Range<usize>)) -> wal::Section {
    wal::Section {
        table: wal::TableKey { database: table.database, table: table.table, schema: Arc::clone(&table.schema.hash) },
        header: Arc::clone(&table.schema.header),
        sample_type: table.sample_type as u8,
        rows: table.rows,
        body: wal::SectionBody::Pieces(pieces),
    }
}

fn refused(refusal: &wal::Refusal) -> Refused {
    if refusal.retryable() {
        return Refused::overloaded(refusal.to_string());
    }
    match refusal {
        wal::Refusal::Invalid(_) => Refused::Invalid(refusal.to_string()),
        _ => Refused::Failed(refusal.to_string()),
    }
}
