//! SQLite on a thread of its own. What is asked for at the same time shares one transaction, so that thousands of rules
//! cost few writes; an answer is given only after the commit.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, Savepoint};
use tokio::sync::{mpsc, oneshot};

/// Most changes in one transaction.
const MAX_BATCH: usize = 256;
/// Changes that may wait before callers do.
const QUEUE: usize = 1024;

const SCHEMA: &str = include_str!("schema.sql");
const VERSION: i64 = 3;
/// From each version to the next.
const CHANGES: [&str; 2] = [
    "ALTER TABLE notifications ADD COLUMN refusals INTEGER NOT NULL DEFAULT 0;",
    "ALTER TABLE cursors ADD COLUMN reached INTEGER NOT NULL DEFAULT 0;",
];

/// Why the state could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StateError {
    /// The file cannot be used.
    #[error("opening the alerter's state in {path}: {source}; make it writable or choose another --data-dir")]
    Open {
        /// The file.
        path: String,
        /// Why.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// It was written by a newer version.
    #[error(
        "the alerter's state in {path} has format {version}, which this version does not know; use a newer alerter or another --data-dir"
    )]
    Newer {
        /// The file.
        path: String,
        /// Its format.
        version: i64,
    },
    /// Another process has it.
    #[error("the alerter's state in {path} is in use by another process; give each alerter its own --data-dir")]
    InUse {
        /// The file.
        path: String,
    },
    /// A read or a write failed, most often since the disk is full.
    #[error("keeping the alerter's state: {0}")]
    Failed(Arc<rusqlite::Error>),
    /// The thread has ended.
    #[error("the alerter's state is closed")]
    Closed,
}

/// Runs within the transaction and returns what tells the caller after its commit.
type Job = Box<dyn FnOnce(&mut Savepoint<'_>) -> Finish + Send>;
type Finish = Box<dyn FnOnce(Result<(), Arc<rusqlite::Error>>) + Send>;

/// A handle of the database. Cheap to clone; the thread ends with the last one.
#[derive(Clone)]
pub(super) struct Database {
    jobs: mpsc::Sender<Job>,
}

impl Database {
    /// Opens or makes the file.
    pub(super) fn open(path: &Path) -> Result<Database, StateError> {
        let connection = match connect(path) {
            Err(StateError::Open { source, .. }) if is_damaged(&*source) => {
                set_aside(path)?;
                connect(path)?
            }
            other => other?,
        };
        let (jobs, queue) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("alerter-state".into())
            .spawn(move || serve(connection, queue))
            .map_err(|e| open_error(path, e))?;
        Ok(Database { jobs })
    }

    /// Runs `work` in a transaction of its own outcome: its error undoes its own changes only.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, StateError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |savepoint| {
            let result = work(savepoint);
            if result.is_err() {
                // Nothing more can be done about a failing rollback: the commit fails then too.
                let _ = savepoint.rollback();
            }
            Box::new(move |committed| {
                let result = result.map_err(Arc::new).and_then(|value| committed.map(|()| value));
                // The caller may have gone.
                let _ = answer.send(result);
            })
        });
        self.jobs.send(job).await.map_err(|_| StateError::Closed)?;
        answered.await.map_err(|_| StateError::Closed)?.map_err(StateError::Failed)
    }
}

fn serve(mut connection: Connection, mut queue: mpsc::Receiver<Job>) {
    let mut jobs = Vec::with_capacity(MAX_BATCH);
    loop {
        if queue.blocking_recv_many(&mut jobs, MAX_BATCH) == 0 {
            return;
        }
        let mut finishes = Vec::with_capacity(jobs.len());
        let committed = commit(&mut connection, jobs.drain(..), &mut finishes).map_err(Arc::new);
        for finish in finishes {
            finish(committed.clone());
        }
    }
}

fn commit(connection: &mut Connection, jobs: impl Iterator<Item = Job>, finishes: &mut Vec<Finish>) -> rusqlite::Result<()> {
    let mut transaction = connection.transaction()?;
    for job in jobs {
        let mut savepoint = transaction.savepoint()?;
        finishes.push(job(&mut savepoint));
        savepoint.commit()?;
    }
    transaction.commit()
}

/// Opens the file alone, in a mode where a commit survives the process: written to the kernel, not synced each time. After
/// a power failure the last commits may be gone, but then notifications and cursors together: their windows run again.
fn connect(path: &Path) -> Result<Connection, StateError> {
    let open = |e: rusqlite::Error| match e.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy) => StateError::InUse { path: path.display().to_string() },
        _ => open_error(path, e),
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| open_error(path, e))?;
    }
    let connection = Connection::open(path).map_err(open)?;
    connection.busy_timeout(std::time::Duration::from_secs(1)).map_err(open)?;
    // The one that holds the lock reads every page of it without asking again.
    connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;").map_err(open)?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(open)?;
    let changes = match usize::try_from(version) {
        Ok(0) => SCHEMA.to_owned(),
        Ok(known) if version <= VERSION => CHANGES[known - 1..].concat(),
        _ => return Err(StateError::Newer { path: path.display().to_string(), version }),
    };
    if version < VERSION {
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {changes} PRAGMA user_version = {VERSION}; COMMIT;")).map_err(open)?;
    }
    // What an ended process had claimed is due again.
    connection.execute_batch("UPDATE notifications SET claimed = 0").map_err(open)?;
    Ok(connection)
}

fn open_error(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> StateError {
    StateError::Open { path: path.display().to_string(), source: Arc::new(source) }
}

fn is_damaged(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let code = error.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
    matches!(code, Some(DatabaseCorrupt | NotADatabase))
}

/// Keeps a damaged file for whoever wants to look at it, and lets the alerter begin anew: its windows run again.
fn set_aside(path: &Path) -> Result<(), StateError> {
    let aside = path.with_extension(format!("damaged-{}", jiff::Timestamp::now().as_second()));
    tracing::error!(path = %path.display(), kept_as = %aside.display(), "the alerter's state is damaged: beginning anew");
    for end in ["-wal", "-shm"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(end);
        // Most often there is none.
        let _ = std::fs::remove_file(beside);
    }
    std::fs::rename(path, aside).map_err(|e| open_error(path, e))
}
