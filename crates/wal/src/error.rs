//! Why the engine says no: to a request ([`Refusal`]) or to starting at all ([`OpenError`]).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a request was not committed. Nothing of a refused request is visible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The database holds as many bytes as its quota allows.
    #[error("database {database} is over its quota: wait until its data is shipped, see to its dead letters or raise the quota")]
    DatabaseOverQuota {
        /// The database whose quota is used up; others are not affected.
        database: Arc<str>,
    },
    /// The global limit is reached or the file system is full.
    #[error("storage is full: wait until data is shipped or raise max-disk-usage")]
    DiskFull,
    /// A new table would exceed the tables allowed in its database.
    #[error("database {database} has reached its number of tables: drop metrics or raise the limit")]
    TooManyTables {
        /// The database that has too many tables.
        database: Arc<str>,
    },
    /// A write or sync of the journal failed; the group was not acknowledged. Retry.
    #[error("syncing the journal failed: retry, and look at the health of the disk")]
    Poisoned,
    /// Too much waits to be written, or the same receipts are being committed by another request. Retry.
    #[error("the journal is busy: retry")]
    Busy,
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
    /// The request can never be accepted.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// Another failure of the file system.
    #[error("storage: {0}")]
    Io(String),
}

impl Refusal {
    /// Whether the same request may succeed later.
    pub fn retryable(&self) -> bool {
        !matches!(self, Refusal::Invalid(_))
    }

    pub(crate) fn from_io(error: &io::Error) -> Refusal {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refusal::DiskFull,
            _ => Refusal::Io(error.to_string()),
        }
    }
}

/// Why a directory could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// An operation on a file failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another process uses the directory.
    #[error("{} is in use by another process: stop it or choose another storage directory", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The directory was written by a newer version.
    #[error("{} was written by a newer version (format {version}): run that version, or drain it first", path.display())]
    NewerVersion {
        /// The file with the unknown version.
        path: PathBuf,
        /// The version it carries.
        version: u8,
    },
}

/// Attaches what was being done, and to which path, to an I/O error.
pub(crate) trait During<T> {
    fn during(self, action: &'static str, path: &Path) -> Result<T, OpenError>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, action: &'static str, path: &Path) -> Result<T, OpenError> {
        self.map_err(|source| OpenError::Io { action, path: path.to_owned(), source })
    }
}
