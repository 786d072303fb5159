//! Limits of tables.

use telemetry::names::normalize_id;

use super::file;

/// What a table may have; the names are as tables have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableLimit {
    /// None means every database.
    database: Option<String>,
    /// None means every table, each with a limit of its own.
    table: Option<String>,
    /// Series of metrics in an hour.
    pub max_series: Option<usize>,
    /// Rows, on an average over a minute.
    pub max_rows_per_second: Option<u64>,
}

impl TableLimit {
    /// Whether it is the limit of this table.
    pub(crate) fn is_about(&self, database: &str, table: &str) -> bool {
        let named = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
        named(&self.database, database) && named(&self.table, table)
    }
}

impl From<&file::TableLimit> for TableLimit {
    fn from(limit: &file::TableLimit) -> Self {
        let name = |name: &String| Some(normalize_id(name)).filter(|name| !name.is_empty());
        TableLimit {
            database: name(&limit.database),
            table: name(&limit.table),
            max_series: usize::try_from(limit.max_series).ok().filter(|max| *max > 0),
            max_rows_per_second: u64::try_from(limit.max_rows_per_second).ok().filter(|max| *max > 0),
        }
    }
}
