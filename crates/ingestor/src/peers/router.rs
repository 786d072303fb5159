//! Where each sealed segment goes: to the owner of its table, or into an upload from here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use transfer::Router;
use transfer::machine::{Release, Route};
use wal::{SegmentId, SegmentInfo, Store, TableKey};

use super::arrivals::Arrivals;
use super::divide::{Limits, uploaded_here};
use super::kept::Kept;
use super::members::Members;
use super::now_ms;
use super::owner::{hash_key, owner};

/// Decides by owner, size and age. See [`Routing::of_table`].
pub struct Routing {
    /// The name of this ingestor.
    pub own: String,
    /// Who is there.
    pub members: watch::Receiver<Members>,
    /// What is worth passing on.
    pub limits: Limits,
    /// When this process started, in milliseconds since 1970: before its store was opened.
    pub started_ms: u64,
    /// What came from peers.
    pub arrivals: Arrivals,
}

impl Routing {
    /// The routes of segments of one table, which are in the order of their ids.
    pub fn of_table(&self, table: &TableKey, segments: &[SegmentInfo], now_ms: u64) -> Vec<Route> {
        let members = self.members.borrow();
        let owner = owner(&hash_key(table), members.keys().map(String::as_str));
        let Some(owner) = owner.filter(|owner| *owner != self.own) else {
            return vec![Route::Keep("its table is owned here"); segments.len()];
        };
        let here = uploaded_here(segments, self.limits, now_ms);
        let route = |(index, segment): (usize, &SegmentInfo)| match () {
            () if index < here => Route::Keep("there is much of it, or it is old"),
            () if segment.created_ms < self.started_ms => Route::Keep("it was here before the start"),
            () if self.arrivals.may_be_in(table, segment.created_ms) => Route::Keep("a peer sent it"),
            () => Route::To { endpoint: owner.into(), until: segment.created_ms + self.limits.max_age_ms },
        };
        segments.iter().enumerate().map(route).collect()
    }
}

/// [`Routing`] for the sender, with what it hands over.
pub(super) struct ByOwner {
    routing: Routing,
    /// Members of batches of an earlier run.
    batched: HashSet<SegmentId>,
    kept: Arc<Kept>,
    wake: Arc<watch::Sender<u64>>,
}

impl ByOwner {
    pub(super) fn new(routing: Routing, store: &Store, kept: Arc<Kept>, wake: Arc<watch::Sender<u64>>) -> ByOwner {
        let batched = store.batches().into_iter().flat_map(|batch| batch.segments).collect();
        ByOwner { routing, batched, kept, wake }
    }
}

impl Router for ByOwner {
    fn route(&mut self, segments: &[SegmentInfo]) -> Vec<Route> {
        let now = now_ms();
        let mut tables: BTreeMap<&TableKey, Vec<SegmentInfo>> = BTreeMap::new();
        for segment in segments.iter().filter(|segment| !self.batched.contains(&segment.id)) {
            tables.entry(&segment.table).or_default().push(segment.clone());
        }
        let mut routes: HashMap<SegmentId, Route> = HashMap::with_capacity(segments.len());
        for (table, mut segments) in tables {
            segments.sort_by_key(|segment| segment.id);
            let found = self.routing.of_table(table, &segments, now);
            routes.extend(segments.iter().map(|segment| segment.id).zip(found));
        }
        segments.iter().map(|segment| routes.remove(&segment.id).unwrap_or(Route::Released)).collect()
    }

    fn released(&mut self, segment: &SegmentInfo, release: &Release) {
        if release.maybe_duplicate {
            tracing::warn!(file = segment.file_name, reason = release.reason, "a segment is uploaded here that a peer may have too");
        }
        self.kept.add(segment, release.maybe_duplicate);
        self.wake.send_modify(|n| *n += 1);
    }
}

/// Segments of the tables of peers must be sealed while they are still young enough to be passed on.
pub(crate) fn segment_age(max_segment_age: Duration, max_transfer_age: Duration) -> Duration {
    max_segment_age.min(max_transfer_age / 2).max(Duration::from_millis(1))
}
