//! Segments of the requests that are being answered now, and what may be said of a request that stores nothing.
//!
//! Something on the way may repeat a request, and the sender sees the answer to the last copy alone. "Nothing is stored"
//! makes it send the segments elsewhere, so that may be said only when no copy has stored them or still may.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Answer, Shared, many};
use crate::body::{Directory, Entry};

/// Sender, number and digest.
type Key = ([u8; 16], u64, u64);

/// How many requests hold each segment.
#[derive(Default)]
pub(super) struct Arriving(Mutex<HashMap<Key, u32>>);

/// A request that holds its segments, until it is dropped.
pub(super) struct Claim {
    shared: Arc<Shared>,
    sender: [u8; 16],
    entries: Vec<Entry>,
}

impl Claim {
    pub(super) fn take(shared: &Arc<Shared>, directory: &Directory) -> Claim {
        let claim = Claim { shared: shared.clone(), sender: directory.sender, entries: directory.entries.clone() };
        let mut arriving = shared.arriving.0.lock();
        claim.keys().for_each(|key| *arriving.entry(key).or_default() += 1);
        drop(arriving);
        claim
    }

    fn keys(&self) -> impl Iterator<Item = Key> {
        self.entries.iter().map(|entry| (self.sender, entry.number, entry.digest))
    }

    /// The answer to a request that stored nothing for this reason: what is stored comes before why not.
    pub(super) fn answer(&self, why_not: Answer) -> Answer {
        if matches!(why_not, Answer::Unknown(_)) {
            return why_not;
        }
        // In this order: a request lets go of its segments when it has stored them.
        let elsewhere = {
            let arriving = self.shared.arriving.0.lock();
            self.keys().any(|key| arriving.get(&key).is_some_and(|requests| *requests > 1))
        };
        let known = self.entries.iter().filter(|entry| many::is_known(&self.shared, &self.sender, entry)).count();
        if known == self.entries.len() {
            self.shared.metrics.segments("known", known as u64);
            return Answer::AlreadyStored;
        }
        if known > 0 || elsewhere {
            return Answer::Unknown(format!("another request stores some of these segments, or has stored them; and now: {why_not:?}"));
        }
        why_not
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut arriving = self.shared.arriving.0.lock();
        for key in self.keys() {
            if let Some(requests) = arriving.get_mut(&key) {
                *requests -= 1;
                if *requests == 0 {
                    arriving.remove(&key);
                }
            }
        }
    }
}
