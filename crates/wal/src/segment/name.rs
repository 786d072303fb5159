//! File names: `<database>_<table>[_<schema>]_<epoch>.wal`.

use std::fmt;
use std::path::Path;

/// The parts of a segment's file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName {
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// Schema hash in base 36; `None` means the default mapping and blocks without header line.
    pub schema: Option<String>,
    /// Flake id in hexadecimal.
    pub epoch: String,
}

/// Why a path does not name a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The extension is not `.wal`.
    #[error("not a WAL segment")]
    Extension,
    /// The parts are too few, too many or empty.
    #[error("invalid WAL segment")]
    Parts,
}

impl FileName {
    /// Parses the last component of `path`.
    pub fn parse(path: &str) -> Result<FileName, NameError> {
        let base = path.rsplit('/').next().unwrap_or_default();
        let stem = base.strip_suffix(".wal").ok_or(NameError::Extension)?;
        let parts: Vec<&str> = stem.split('_').collect();
        let (database, table, schema, epoch) = match parts[..] {
            [database, table, epoch] => (database, table, None, epoch),
            [database, table, schema, epoch] => (database, table, Some(schema), epoch),
            _ => return Err(NameError::Parts),
        };
        if database.is_empty() || table.is_empty() || epoch.is_empty() || schema == Some("") {
            return Err(NameError::Parts);
        }
        Ok(FileName { database: database.to_owned(), table: table.to_owned(), schema: schema.map(str::to_owned), epoch: epoch.to_owned() })
    }

    /// Whether `part` can be a database or table of a file name and stays inside its folder.
    pub fn valid_part(part: &str) -> bool {
        // All bytes at once, which is how nearly every name is.
        let is_usual = !part.is_empty() && part.bytes().fold(true, |usual, byte| usual & byte.is_ascii_alphanumeric());
        if is_usual && part.len() <= 1024 {
            return true;
        }
        let mut before = 0;
        let fits = |byte: u8| {
            let climbs = byte == b'.' && before == b'.';
            before = byte;
            !climbs && !matches!(byte, b'_' | b'/' | b'\\') && !byte.is_ascii_control()
        };
        !part.is_empty() && part.len() <= 1024 && part.bytes().all(fits)
    }

    /// Whether the name, given by somebody else, stays inside a folder.
    pub fn is_contained(&self) -> bool {
        let schema = self.schema.as_deref().unwrap_or("0");
        [&self.database, &self.table, schema, &self.epoch].into_iter().all(FileName::valid_part)
            && Path::new(&self.to_string()).components().count() == 1
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}_", self.database, self.table)?;
        if let Some(schema) = self.schema.as_deref().filter(|s| !s.is_empty()) {
            write!(f, "{schema}_")?;
        }
        write!(f, "{}.wal", self.epoch)
    }
}
