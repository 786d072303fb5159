//! The catalogue: databases, tables, columns, functions, ingestion mappings, policies and extents, in SQLite.
//!
//! Every change is one transaction, synced before it returns. What queries need is also kept as an immutable
//! [`Image`] in memory, which is swapped after the transaction is durable: readers never wait and never touch SQLite.

mod edit;
mod extents;
mod model;
mod operations;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

pub(crate) use edit::Edit;
pub(crate) use extents::{BatchKey, ExtentRecord, Round};
pub use model::{Database, Function, Image, StoredMapping, Table, TableColumn, TableId};
pub(crate) use operations::{Operation, OperationState};

/// Format of the catalogue that this program writes.
const FORMAT: i64 = 4;
/// What takes a catalogue from a format to the next one, from format 1 on.
const MIGRATIONS: &[&str] = &[
    "ALTER TABLE extents ADD COLUMN shredded TEXT NOT NULL DEFAULT '[]'",
    include_str!("operations.sql"),
    include_str!("entity_groups.sql"),
];

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
    /// What is to be ended has ended already.
    #[error("the operation has ended already")]
    Ended,
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
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed("opening"))?;
        let settings = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;";
        connection.execute_batch(settings).map_err(failed("opening"))?;
        let format = check_format(&connection, path)?;
        let intact: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed("checking"))?;
        if intact != "ok" {
            return Err(CatalogError::Damaged { path: path.to_owned(), what: intact });
        }
        migrate(&mut connection, format).map_err(failed("bringing tables up to date"))?;
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

/// The format of the file, 0 for a new one.
fn check_format(connection: &Connection, path: &Path) -> Result<i64, CatalogError> {
    let failed = |source| CatalogError::Sqlite { action: "reading the format", path: path.to_owned(), source };
    match connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)? {
        found @ 0..=FORMAT => Ok(found),
        found => Err(CatalogError::Format { path: path.to_owned(), found }),
    }
}

/// Makes the tables of a new file as format 1 has them, and takes them from their format to the newest: all of it, or
/// nothing.
fn migrate(connection: &mut Connection, format: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if format == 0 {
        transaction.execute_batch(include_str!("schema.sql"))?;
    }
    let done = usize::try_from(format).unwrap_or(0).saturating_sub(1);
    MIGRATIONS.iter().skip(done).try_for_each(|step| transaction.execute_batch(step))?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A catalogue of format 1, which had no columns of keys, views and operations, opens with all that was in it; a newer
    /// one does not.
    #[test]
    fn older_formats_are_read_and_newer_ones_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.sqlite");
        drop(Catalog::open(&path).unwrap());
        let raw = Connection::open(&path).unwrap();
        raw.execute_batch(
            "ALTER TABLE extents DROP COLUMN shredded; PRAGMA user_version = 1;
             ALTER TABLE functions DROP COLUMN view; DROP TABLE operations; DROP TABLE cluster_policies; DROP TABLE entity_groups;
             INSERT INTO databases VALUES (1, 'Db', 5);
             INSERT INTO functions VALUES (1, 'F', '()', '{ print 1 }', '', '');
             INSERT INTO tables VALUES (7, 1, 'T', 1, 2, '', '', 5, 0);
             INSERT INTO extents VALUES ('e', 7, 10, 100, 200, 5, 5, 6, NULL, NULL, NULL, '[3]', '[]');",
        )
        .unwrap();
        let catalog = Catalog::open(&path).unwrap();
        let extents = catalog.extents().unwrap();
        assert_eq!((extents[&TableId(7)][0].rows, extents[&TableId(7)][0].shredded.len()), (10, 0));
        assert!(!catalog.image().databases["Db"].functions["F"].view);
        assert!(catalog.image().databases["Db"].entity_groups.is_empty());
        assert_eq!(catalog.resume_operations(0).unwrap(), []);
        drop(catalog);
        raw.pragma_update(None, "user_version", FORMAT + 1).unwrap();
        let error = Catalog::open(&path).unwrap_err();
        assert!(matches!(error, CatalogError::Format { found, .. } if found == FORMAT + 1), "{error}");
    }
}
