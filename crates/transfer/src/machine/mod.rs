//! The sender without its I/O: which segments go next and to whom, and what an answer means.
//!
//! Fed with the sealed segments, answers and the time; it asks for probes, requests and records.
//! Four rules carry the promise of "exactly once, or counted":
//!
//! 1. Before a segment leaves for a receiver, the place where it may now be is durable
//!    ([`Step::Record`]), so that a restart knows whom to ask.
//! 2. A lost answer binds a segment to that receiver for ten minutes. Only then does it go
//!    elsewhere, marked as a possible duplicate.
//! 3. Behind one URL there may be several receivers: requests name the one they mean.
//! 4. The reference's ingestors remember nothing, so a segment repeated there is marked at once.
//!
//! A database that is over its quota waits alone, or goes to another endpoint; an endpoint that is away
//! is backed off from and the next one used; a segment that is never acceptable is found by sending its group one by one.
//!
//! A segment goes to any endpoint in order of preference, as a collector's do, or to one of its own, as those of an
//! ingestor go to the owner of their table ([`Route`]). What its own endpoint does not take soon is not waited for: it is
//! released ([`Step::Release`]), and from then on somebody else's, who uploads it. A segment that may be at a receiver is
//! never released before the answer is known or its time is over, and then only after a record of that is durable. So a
//! segment is never sent and uploaded without being marked.

mod answers;
mod next;
#[cfg(test)]
mod owners;
mod places;
#[cfg(test)]
mod simulation;
mod types;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use places::Endpoint;
pub use places::{Contract, Place, Places};
pub use types::{Answer, Config, Job, Key, Offer, Release, Route, Settle, Step};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    InFlight,
    Settling,
}

/// Where a segment may be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MayBeAt {
    place: Place,
    /// Set once an answer was lost: until then it must not go elsewhere.
    until: Option<u64>,
}

#[derive(Debug)]
struct Item {
    bytes: u64,
    state: State,
    /// Its group was not acceptable: goes without others.
    alone: bool,
    not_before: u64,
    route: Route,
    /// Few have it, and many may wait.
    at: Option<Box<MayBeAt>>,
    maybe_duplicate: bool,
}

#[derive(Debug, Default)]
struct Database {
    items: BTreeMap<u64, Item>,
    /// Endpoints that have no room for it, and until when.
    busy_until: BTreeMap<usize, u64>,
}

/// The sender's state. See the module.
#[derive(Debug)]
pub struct Machine {
    config: Config,
    endpoints: Vec<Endpoint>,
    databases: BTreeMap<Arc<str>, Database>,
    /// Whose turn it is, so that no database starves another.
    turn: usize,
    /// The endpoint that new segments go to.
    active: usize,
    in_flight: HashMap<u64, Job>,
    next_ticket: u64,
    /// What is durable about the places of segments.
    recorded: Places,
    recording: Option<Places>,
    /// Released segments that may be stored elsewhere, until they are settled.
    doubtful: HashSet<Key>,
    /// Segments not seen yet after a restart are taken to be where the record says.
    restarted_ms: Option<u64>,
}

impl Machine {
    /// A machine after a start. `recorded` is what [`Step::Record`] last made durable, if anything.
    pub fn new(config: Config, recorded: Option<&[u8]>, now_ms: u64) -> Machine {
        let recorded = recorded.and_then(Places::decode);
        let endpoints: Vec<Endpoint> = config.endpoints.iter().map(|url| Endpoint::new(url.as_str().into(), url.clone())).collect();
        let active = recorded
            .as_ref()
            .and_then(|r| r.current.as_ref())
            .and_then(|place| endpoints.iter().position(|e| *e.name == *place.endpoint))
            .unwrap_or(0);
        Machine {
            endpoints,
            databases: BTreeMap::new(),
            turn: 0,
            active,
            in_flight: HashMap::new(),
            next_ticket: 1,
            restarted_ms: recorded.is_some().then_some(now_ms),
            recorded: recorded.unwrap_or_default(),
            recording: None,
            doubtful: HashSet::new(),
            config,
        }
    }

    /// Tells of the sealed segments; those known already are skipped. The first call after
    /// [`Machine::new`] must bring all that existed then.
    pub fn offer(&mut self, segments: impl IntoIterator<Item = Offer>) {
        let restarted = self.restarted_ms.take();
        for Offer { key, bytes, route } in segments {
            let known = self.databases.get(&key.database).is_some_and(|d| d.items.contains_key(&key.number));
            if known {
                continue;
            }
            let (at, maybe_duplicate) = self.place_after_restart(&key, &route, restarted);
            let at = at.map(Box::new);
            let item = Item { bytes, state: State::Waiting, alone: false, not_before: 0, route, at, maybe_duplicate };
            self.databases.entry(key.database).or_default().items.insert(key.number, item);
        }
    }

    /// Tells which endpoints segments may have as their own, by name and address; replaces what was told before. What
    /// is bound to one that has gone waits for it, as long as it is bound.
    pub fn set_endpoints<'a>(&mut self, endpoints: impl IntoIterator<Item = (&'a str, &'a str)>) {
        self.endpoints.iter_mut().for_each(|endpoint| endpoint.present = false);
        for (name, url) in endpoints {
            match self.endpoints.iter_mut().find(|endpoint| *endpoint.name == *name) {
                Some(endpoint) => endpoint.is_at(url),
                None => self.endpoints.push(Endpoint::new(name.into(), url.to_owned())),
            }
        }
    }

    /// The address of an endpoint.
    pub fn url(&self, endpoint: usize) -> &str {
        self.endpoints.get(endpoint).map_or("", |endpoint| &endpoint.url)
    }

    /// Segments that are not settled or released yet.
    pub fn pending(&self) -> usize {
        self.databases.values().map(|d| d.items.len()).sum()
    }

    /// Requests that wait for an answer.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// A record is durable, or failed and is asked for again.
    pub fn recorded(&mut self, durable: bool) {
        if let Some(places) = self.recording.take()
            && durable
        {
            self.recorded = places;
        }
    }

    /// An endpoint said what it is, or did not answer.
    pub fn probed(&mut self, endpoint: usize, contract: Option<Contract>, now: u64) {
        let unhealthy_ms = self.config.unhealthy_ms;
        if let Some(endpoint) = self.endpoints.get_mut(endpoint) {
            endpoint.probing = false;
            match contract {
                Some(contract) => {
                    endpoint.contract = Some(contract);
                    endpoint.succeeded();
                }
                None => endpoint.failed(now, None, unhealthy_ms),
            }
        }
    }

    /// Settlements are durable, also those of released segments: the segments are forgotten.
    pub fn settled<'a>(&mut self, keys: impl IntoIterator<Item = &'a Key>) {
        for key in keys {
            self.doubtful.remove(key);
            if let Some(database) = self.databases.get_mut(&key.database) {
                database.items.remove(&key.number);
            }
        }
    }
}
