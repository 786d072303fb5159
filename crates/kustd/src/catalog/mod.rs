//! The catalogue: databases, tables, columns, functions, ingestion mappings, policies and extents, in SQLite.
//!
//! Every change is one transaction, synced before it returns. What queries need is also kept as an immutable
//! [`Image`] in memory, which is swapped after the transaction is durable: readers never wait and never touch SQLite.

mod edit;
mod extents;
mod model;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

pub(crate) use edit::Edit;
pub(crate) use extents::{BatchKey, ExtentRecord, Round};
pub use model::{Database, Function, Image, StoredMapping, Table, TableColumn, TableId};

/// Format of the catalogue that this program writes.
const FORMAT: i64 = 1;

/// Failures of the catalogue.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// SQLite refused.
    #[error("{action} in the catalogue {path}: {source}")]
    Sqlite {
        /// What was being done.
        action: &'static str,
        /// The catalogue file.
        path: PathBuf,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// Written by another version.
    #[error("the catalogue {path} has format {found}, this program knows {FORMAT}: start the version that wrote it")]
    Format {
        /// The catalogue file.
        path: PathBuf,
        /// Format found.
        found: i64,
    },
    /// Readable, but it makes no sense.
    #[error("the catalogue {path} is damaged: {what}; restore it from a backup, or move it away to start empty")]
    Damaged {
        /// The catalogue file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// A handle to the catalogue.
#[derive(Debug)]
pub struct Catalog {
    path: PathBuf,
    connection: Mutex<Connection>,
    image: ArcSwap<Image>,
}

impl Catalog {
    /// Opens or creates the catalogue file.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged or has an unknown format.
    pub fn open(path: &Path) -> Result<Catalog, CatalogError> {
        let failed = |action| move |source| CatalogError::Sqlite { action, path: path.to_owned(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed("opening"))?;
        let settings = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;";
        connection.execute_batch(settings).map_err(failed("opening"))?;
        check_format(&connection, path)?;
        let intact: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed("checking"))?;
        if intact != "ok" {
            return Err(CatalogError::Damaged { path: path.to_owned(), what: intact });
        }
        connection.execute_batch(include_str!("schema.sql")).map_err(failed("creating tables"))?;
        let image = edit::load(&connection, path)?;
        let catalog = Catalog { path: path.to_owned(), connection: Mutex::new(connection), image: ArcSwap::from_pointee(image) };
        Ok(catalog)
    }

    /// The present image.
    pub fn image(&self) -> Arc<Image> {
        self.image.load_full()
    }

    /// Runs `change` in one transaction; on success it is durable and the image is swapped, else nothing happened.
    pub(crate) fn change<T, E>(&self, change: impl FnOnce(&mut Edit<'_>) -> Result<T, E>) -> Result<T, E>
    where
        E: From<CatalogError>,
    {
        let mut connection = self.connection.lock();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|source| self.failed("beginning a change", source))?;
        let mut edit = Edit::new(self, &transaction, Image::clone(&self.image.load()));
        let result = change(&mut edit)?;
        let image = edit.into_image();
        transaction.commit().map_err(|source| self.failed("committing a change", source))?;
        self.image.store(Arc::new(image));
        Ok(result)
    }

    fn failed(&self, action: &'static str, source: rusqlite::Error) -> CatalogError {
        CatalogError::Sqlite { action, path: self.path.clone(), source }
    }

    fn damaged(&self, what: impl Into<String>) -> CatalogError {
        CatalogError::Damaged { path: self.path.clone(), what: what.into() }
    }
}

/// Refuses files of other formats; stamps a new one.
fn check_format(connection: &Connection, path: &Path) -> Result<(), CatalogError> {
    let failed = |source| CatalogError::Sqlite { action: "reading the format", path: path.to_owned(), source };
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    match found {
        0 => connection.pragma_update(None, "user_version", FORMAT).map_err(failed),
        FORMAT => Ok(()),
        found => Err(CatalogError::Format { path: path.to_owned(), found }),
    }
}
