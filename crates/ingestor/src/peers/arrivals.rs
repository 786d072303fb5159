//! What came from peers, which is not passed on once more.
//!
//! Two ingestors may for a while see different members, and each take the other for the owner of a table. So whoever has
//! rows from a peer uploads them. Rows of several senders share a segment, so what is remembered is when rows of a peer
//! last came for a table: a segment with an older first row may hold them. Nothing of this is durable: what was here before
//! the start is uploaded here as well.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use wal::TableKey;

type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// See the module. Clones share it.
#[derive(Clone)]
pub struct Arrivals {
    clock: Clock,
    /// Longer than this nobody asks, in milliseconds.
    remember_ms: u64,
    tables: Arc<Mutex<HashMap<TableKey, Arrival>>>,
}

#[derive(Debug, Default)]
struct Arrival {
    /// Requests that are being stored.
    running: usize,
    /// When the last one was stored.
    last_ms: u64,
}

impl Arrivals {
    /// Segments that are older than `remember_ms` are never asked about. `clock` gives milliseconds since 1970.
    pub fn new(remember_ms: u64, clock: Clock) -> Arrivals {
        Arrivals { clock, remember_ms, tables: Arc::default() }
    }

    /// Rows of a peer are being stored in these tables, until what is returned is dropped.
    pub fn begin(&self, tables: Vec<TableKey>) -> Box<dyn Any + Send> {
        let mut known = self.tables.lock();
        for table in &tables {
            known.entry(table.clone()).or_default().running += 1;
        }
        Box::new(Running { arrivals: self.clone(), tables })
    }

    /// Whether a segment may hold rows of a peer.
    pub fn may_be_in(&self, table: &TableKey, created_ms: u64) -> bool {
        self.tables.lock().get(table).is_some_and(|arrival| arrival.running > 0 || arrival.last_ms >= created_ms)
    }
}

struct Running {
    arrivals: Arrivals,
    tables: Vec<TableKey>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let now = (self.arrivals.clock)();
        let mut known = self.arrivals.tables.lock();
        for table in &self.tables {
            if let Some(arrival) = known.get_mut(table) {
                arrival.running = arrival.running.saturating_sub(1);
                arrival.last_ms = now;
            }
        }
        let oldest = now.saturating_sub(self.arrivals.remember_ms);
        known.retain(|_, arrival| arrival.running > 0 || arrival.last_ms >= oldest);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_segment_that_began_before_the_last_arrival_may_hold_rows_of_it() {
        let now = Arc::new(AtomicU64::new(1000));
        let clock = now.clone();
        let arrivals = Arrivals::new(500, Arc::new(move || clock.load(Ordering::SeqCst)));
        let table = |name: &str| TableKey::new("D", name, "s");
        assert!(!arrivals.may_be_in(&table("A"), 0));
        let running = arrivals.begin(vec![table("A"), table("B")]);
        assert!(arrivals.may_be_in(&table("A"), u64::MAX), "it is not known yet which segment they come into");
        now.store(1100, Ordering::SeqCst);
        drop(running);
        for (created, expected) in [(900, true), (1100, true), (1101, false)] {
            assert_eq!(arrivals.may_be_in(&table("A"), created), expected, "{created}");
        }
        assert!(!arrivals.may_be_in(&table("C"), 0));
        // What nobody asks about any more takes no memory.
        now.store(1601, Ordering::SeqCst);
        drop(arrivals.begin(vec![table("C")]));
        assert_eq!(arrivals.tables.lock().len(), 1);
    }
}
