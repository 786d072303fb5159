//! How much may be in flight between reading a file and making its lines durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Bytes that may be in flight; reading stops above.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    freed: Arc<Freed>,
}

/// Wakes the reader when something was given back.
#[derive(Debug, Default)]
pub(crate) struct Freed {
    pub(crate) notify: Notify,
    pub(crate) any: AtomicBool,
}

/// Shares of one reader.
#[derive(Debug, Clone, Default)]
pub struct Budgets(pub(crate) Arc<Freed>);

impl Budgets {
    /// A budget of `limit` bytes; one chunk may go over it.
    #[must_use]
    pub fn budget(&self, limit: usize) -> Arc<Budget> {
        Arc::new(Budget { limit, used: AtomicUsize::new(0), freed: Arc::clone(&self.0) })
    }
}

impl Budget {
    /// Bytes in flight.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.used() < self.limit
    }

    pub(crate) fn take(budget: &Arc<Budget>, bytes: usize) -> Taken {
        budget.used.fetch_add(bytes, Ordering::Relaxed);
        Taken { budget: Arc::clone(budget), bytes }
    }
}

/// A part of a budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.freed.any.store(true, Ordering::Release);
        self.budget.freed.notify.notify_one();
    }
}
