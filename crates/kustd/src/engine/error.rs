//! What can go wrong with a query, in the terms of the Kusto protocol: a code that clients know, a message, and
//! whether repeating the query can help.

use datafusion::error::DataFusionError;
use kql::rows::RunError;
use thiserror::Error;

/// A query that could not be answered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct EngineError {
    /// Code as Kusto's REST answers carry it (`E_QUERY_RESULT_SET_TOO_LARGE`, `E_RUNAWAY_QUERY`, …).
    pub code: &'static str,
    /// What was being done and how to get out, for people.
    pub message: String,
    /// Whether the same query fails again; false for time-outs, cancellation and I/O.
    pub permanent: bool,
}

impl EngineError {
    fn new(code: &'static str, permanent: bool, message: impl Into<String>) -> Self {
        EngineError { code, message: message.into(), permanent }
    }

    /// The result has more rows or bytes than a query may return.
    pub(super) fn too_large(what: &str) -> Self {
        let message =
            format!("query result is larger than {what}; summarize or take fewer rows, or start the query with 'set notruncation;'");
        Self::new("E_QUERY_RESULT_SET_TOO_LARGE", true, message)
    }

    /// The query needs more memory than it may have.
    pub(super) fn out_of_memory(detail: impl Into<String>) -> Self {
        Self::new("E_RUNAWAY_QUERY", true, format!("query needs more memory than it may use: {}", detail.into()))
    }

    /// The deadline passed.
    pub(super) fn timeout() -> Self {
        Self::new("E_QUERY_TIMEOUT", false, "query ran into its time limit; narrow it, or raise servertimeout")
    }

    /// The caller cancelled.
    pub(super) fn cancelled() -> Self {
        Self::new("E_QUERY_CANCELLED", false, "query was cancelled")
    }

    /// Nested deeper than the engine allows.
    pub(super) fn too_complex(limit: usize) -> Self {
        Self::new("E_QUERY_TOO_COMPLEX", true, format!("query has more than {limit} operators on top of each other"))
    }

    /// The query asks for something that cannot be done with its data.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new("General_BadRequest", true, message)
    }

    /// Another cluster failed, or did not answer in time.
    pub(crate) fn remote(message: impl Into<String>, permanent: bool) -> Self {
        Self::new("E_REMOTE", permanent, message)
    }

    /// Whether another cluster is the reason.
    pub(crate) fn is_remote(&self) -> bool {
        self.code == "E_REMOTE"
    }

    /// A table that the tree names and the source does not have, for example one dropped meanwhile.
    pub(super) fn no_table(database: &str, table: &str) -> Self {
        Self::new("E_TABLE_NOT_FOUND", true, format!("table '{table}' does not exist in database '{database}'"))
    }

    /// A fault of the engine itself or of the disk below it.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new("E_INTERNAL", false, message)
    }
}

impl From<DataFusionError> for EngineError {
    fn from(error: DataFusionError) -> Self {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(detail) => Self::out_of_memory(detail.as_str()),
            DataFusionError::External(inner) => match inner.downcast_ref::<EngineError>() {
                Some(own) => own.clone(),
                None => Self::internal(inner.to_string()),
            },
            root => Self::internal(format!("running the query: {root}")),
        }
    }
}

impl From<datafusion::arrow::error::ArrowError> for EngineError {
    fn from(error: datafusion::arrow::error::ArrowError) -> Self {
        DataFusionError::from(error).into()
    }
}

impl From<EngineError> for DataFusionError {
    fn from(error: EngineError) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

impl From<RunError> for EngineError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Table(message) => Self::internal(message),
            RunError::Argument(message) => Self::invalid(message),
            RunError::TooManyRows(_) => Self::out_of_memory(error.to_string()),
            RunError::Interrupted => Self::timeout(),
        }
    }
}
