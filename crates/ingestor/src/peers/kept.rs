//! Which sealed segments are uploaded from here.
//!
//! Without peers all are. With them every sealed segment is first the sender's, who hands over what it does not send; so a
//! segment is with one of the two at any time, and never comes back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use wal::{SegmentId, SegmentInfo, Store};

/// What the sender has handed over and is not settled.
#[derive(Default)]
pub(crate) struct Kept {
    segments: Mutex<HashMap<SegmentId, Entry>>,
}

struct Entry {
    database: Arc<str>,
    maybe_elsewhere: bool,
}

impl Kept {
    pub(crate) fn add(&self, segment: &SegmentInfo, maybe_elsewhere: bool) {
        let database = segment.table.database.clone();
        self.segments.lock().insert(segment.id, Entry { database, maybe_elsewhere });
    }
}

/// The sealed segments that are uploaded from here. See the module.
#[derive(Clone)]
pub struct Sealed {
    store: Store,
    changed: watch::Receiver<u64>,
    kept: Option<Arc<Kept>>,
}

impl Sealed {
    /// All of a store. `changed` changes whenever there are new ones.
    pub fn all(store: Store, changed: watch::Receiver<u64>) -> Sealed {
        Sealed { store, changed, kept: None }
    }

    /// Those that are not sent to peers.
    pub(crate) fn kept(store: Store, changed: watch::Receiver<u64>, kept: Arc<Kept>) -> Sealed {
        Sealed { store, changed, kept: Some(kept) }
    }

    /// Waits until there are new ones. An error means that there will never be.
    ///
    /// # Errors
    /// When nobody tells any more.
    pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.changed.changed().await
    }

    /// Those of a database.
    pub fn of(&self, database: &str) -> Vec<SegmentInfo> {
        // Locked first: what is kept was sealed before, so it is in the list unless it is settled.
        let mut kept = self.kept.as_ref().map(|kept| kept.segments.lock());
        let mut sealed = self.store.sealed_after(|name| if name == database { 0 } else { u64::MAX });
        sealed.sort_by_key(|segment| segment.id);
        if let Some(kept) = &mut kept {
            let waiting: HashSet<SegmentId> = sealed.iter().map(|segment| segment.id).collect();
            kept.retain(|id, entry| entry.database.as_ref() != database || waiting.contains(id));
            sealed.retain(|segment| kept.contains_key(&segment.id));
        }
        sealed
    }

    /// Whether its rows may be stored at a peer too. Waits until the sender has said so: after a start it hands over the
    /// members of earlier batches, too. Nothing when it has ended.
    pub async fn maybe_elsewhere(&mut self, id: SegmentId) -> Option<bool> {
        let Some(kept) = self.kept.clone() else { return Some(false) };
        loop {
            // Marked as seen first, so that what comes after the look is not missed.
            self.changed.borrow_and_update();
            let entry = kept.segments.lock().get(&id).map(|entry| entry.maybe_elsewhere);
            if entry.is_some() {
                return entry;
            }
            self.changed.changed().await.ok()?;
        }
    }
}
