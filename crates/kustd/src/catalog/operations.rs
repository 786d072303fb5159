//! Asynchronous commands in the catalogue. An operation ends once: the transaction that stores its rows is the one that
//! says `Completed`, so that after a crash it has either both or neither.

use rusqlite::params;

use super::{Catalog, CatalogError, Edit};

/// What has become of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OperationState {
    /// Waits or runs.
    InProgress,
    /// Has done what it was to do.
    Completed,
    /// Has done nothing.
    Failed,
    /// Was not taken, because too many others wait.
    Throttled,
}

impl OperationState {
    /// The name in `.show operations`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            OperationState::InProgress => "InProgress",
            OperationState::Completed => "Completed",
            OperationState::Failed => "Failed",
            OperationState::Throttled => "Throttled",
        }
    }

    fn parse(name: &str) -> Option<OperationState> {
        use OperationState::{Completed, Failed, InProgress, Throttled};
        [InProgress, Completed, Failed, Throttled].into_iter().find(|state| state.name() == name)
    }
}

/// A command that ran or runs. Times are ticks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    /// Guid.
    pub(crate) id: u128,
    /// Kind of command: `TableSetOrAppend`.
    pub(crate) name: String,
    /// Database of the request.
    pub(crate) database: String,
    /// When it was taken.
    pub(crate) started: i64,
    /// When its state last changed.
    pub(crate) updated: i64,
    /// What has become of it.
    pub(crate) state: OperationState,
    /// Why it failed.
    pub(crate) status: String,
    /// Whether the same command may work when it is sent again.
    pub(crate) should_retry: bool,
}

impl Edit<'_> {
    /// Stores a new operation, and forgets ended ones that began before `oldest`, or before `most` others.
    pub(crate) fn begin_operation(&mut self, operation: &Operation, oldest: i64, most: usize) -> Result<(), CatalogError> {
        let sql = "DELETE FROM operations WHERE state <> 'InProgress' AND (started < ?1
                       OR started < (SELECT started FROM operations ORDER BY started DESC LIMIT 1 OFFSET ?2))";
        self.execute("forgetting operations", sql, params![oldest, most as i64])?;
        let sql = "INSERT INTO operations (id, name, database, started, updated, state, status, should_retry)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let values = params![
            operation.id.to_be_bytes(),
            operation.name,
            operation.database,
            operation.started,
            operation.updated,
            operation.state.name(),
            operation.status,
            operation.should_retry
        ];
        self.execute("storing an operation", sql, values)
    }

    /// Ends an operation that is in progress; an error when it has ended already.
    pub(crate) fn end_operation(&mut self, operation: &Operation) -> Result<(), CatalogError> {
        let sql = "UPDATE operations SET updated = ?2, state = ?3, status = ?4, should_retry = ?5
                   WHERE id = ?1 AND state = 'InProgress'";
        let Operation { updated, state, status, should_retry, .. } = operation;
        self.execute("ending an operation", sql, params![operation.id.to_be_bytes(), updated, state.name(), status, should_retry])?;
        match self.transaction.changes() {
            1 => Ok(()),
            _ => Err(CatalogError::Ended),
        }
    }
}

impl Catalog {
    /// All stored operations, oldest first, after those in progress were ended as failed: nobody runs them any more.
    pub(crate) fn resume_operations(&self, now: i64) -> Result<Vec<Operation>, CatalogError> {
        self.change(|edit| {
            let sql = "UPDATE operations SET updated = ?1, state = 'Failed', should_retry = 1,
                       status = 'kustd ended before the operation did; none of its rows are stored' WHERE state = 'InProgress'";
            edit.execute("ending operations", sql, [now])
        })?;
        let connection = self.connection.lock();
        let load = || -> rusqlite::Result<Vec<Operation>> {
            let sql = "SELECT id, name, database, started, updated, state, status, should_retry FROM operations ORDER BY started, id";
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([], |row| {
                let state: String = row.get(5)?;
                Ok(Operation {
                    id: u128::from_be_bytes(row.get(0)?),
                    name: row.get(1)?,
                    database: row.get(2)?,
                    started: row.get(3)?,
                    updated: row.get(4)?,
                    // a state of a later version has ended in some way
                    state: OperationState::parse(&state).unwrap_or(OperationState::Failed),
                    status: row.get(6)?,
                    should_retry: row.get(7)?,
                })
            })?;
            rows.collect()
        };
        load().map_err(|source| self.failed("loading operations", source))
    }
}
