//! What failed, for `.show ingestion failures`: in memory, the last ones.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Failures that are remembered.
const REMEMBERED: usize = 10_000;

/// An ingestion that failed.
#[derive(Debug, Clone)]
pub(crate) struct IngestionFailure {
    /// The try, a guid.
    pub(crate) operation: String,
    /// Where the rows were to go.
    pub(crate) database: String,
    pub(crate) table: String,
    /// Ticks.
    pub(crate) failed: i64,
    /// The blob, without its signature.
    pub(crate) source: String,
    pub(crate) details: String,
    /// It fails again until somebody changes something.
    pub(crate) permanent: bool,
    /// Kusto's code.
    pub(crate) code: String,
    /// An update policy is to blame.
    pub(crate) from_update_policy: bool,
}

/// The last failures, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    list: Mutex<VecDeque<IngestionFailure>>,
}

impl Failures {
    pub(crate) fn put(&self, failure: IngestionFailure) {
        let mut list = self.list.lock();
        if list.len() == REMEMBERED {
            list.pop_front();
        }
        list.push_back(failure);
    }

    pub(crate) fn list(&self) -> Vec<IngestionFailure> {
        self.list.lock().iter().cloned().collect()
    }
}
