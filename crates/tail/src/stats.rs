//! Counts of what a reader does, for metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Counts, of one reader or of several that share them; all but the gauges only grow.
#[derive(Debug, Default)]
pub struct Stats {
    /// Paths that are followed (gauge).
    pub files: AtomicU64,
    /// Files that are open (gauge).
    pub open: AtomicU64,
    /// Bytes read.
    pub bytes: AtomicU64,
    /// Files that took the place of another at their path.
    pub rotations: AtomicU64,
    /// Files that were truncated or written anew.
    pub truncations: AtomicU64,
    /// Rests of rotated files that were found and read on.
    pub continued: AtomicU64,
    /// Files that were gone before their end was read, as far as can be told.
    pub lost: AtomicU64,
    /// Attempts to read that failed.
    pub errors: AtomicU64,
    /// Folders without notification, which are looked at instead.
    pub polled: AtomicU64,
    /// Times that notifications were lost and everything was looked at.
    pub overflows: AtomicU64,
    lag: Mutex<BTreeMap<Arc<str>, u64>>,
}

impl Stats {
    /// Unread bytes by scope of the targets, as of when each file was last looked at.
    pub fn lag(&self) -> BTreeMap<Arc<str>, u64> {
        self.lag.lock().clone()
    }

    pub(crate) fn lag_changed(&self, scope: &Arc<str>, old: u64, new: u64) {
        if old != new {
            let mut lag = self.lag.lock();
            let sum = lag.entry(Arc::clone(scope)).or_default();
            *sum = sum.saturating_sub(old).saturating_add(new);
        }
    }

    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
