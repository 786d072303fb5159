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

mod places;
#[cfg(test)]
mod simulation;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use places::Endpoint;
pub use places::{Contract, Place, Places};

/// A segment of this sender.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its database.
    pub database: Arc<str>,
    /// Its number in that database.
    pub number: u64,
}

/// Bounds of the machine's work.
#[derive(Clone, Debug)]
pub struct Config {
    /// URLs of ingestors, in order of preference. Empty: everything waits.
    pub endpoints: Vec<String>,
    /// Bytes of images in one request, unless a single segment is larger.
    pub max_batch_bytes: u64,
    /// Segments in one request.
    pub max_batch_segments: usize,
    /// Requests at a time.
    pub concurrency: usize,
    /// How long a segment stays with the receiver that may have it, in milliseconds.
    pub pin_ms: u64,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask an endpoint what it is; answer with [`Machine::probed`].
    Probe {
        /// Index in [`Config::endpoints`].
        endpoint: usize,
    },
    /// Make this durable, then call [`Machine::recorded`].
    Record(Vec<u8>),
    /// Send a request; answer with [`Machine::answered`].
    Send(Job),
    /// Nothing before this time (milliseconds), or before something is reported.
    Wait(Option<u64>),
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Names the request in [`Machine::answered`].
    pub ticket: u64,
    /// Index in [`Config::endpoints`].
    pub endpoint: usize,
    /// The receiver it is meant for; nothing for the reference's ingestors.
    pub receiver: Option<[u8; 16]>,
    /// The segments, of one database, in the order of their numbers.
    pub segments: Vec<Key>,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 202, or 409: durable there, but for the segments listed by index with a reason.
    Stored {
        /// Segments that are refused for ever.
        refused: Vec<(usize, String)>,
    },
    /// 400 or 413: not acceptable as it is.
    Unacceptable {
        /// Why.
        reason: String,
    },
    /// 429: nothing is stored; the database must wait, or go to another endpoint.
    DatabaseBusy {
        /// For how long, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// 503, no connection, or an answer that proves that nothing was stored.
    Unavailable {
        /// For how long, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// 421: another receiver answered, and stored nothing.
    Misdirected {
        /// The one that answered.
        actual: [u8; 16],
    },
    /// 5xx or silence after the body: stored or not.
    Unknown,
    /// Nothing was sent: these segments, by index, cannot be read here.
    Unreadable {
        /// Index and reason.
        segments: Vec<(usize, String)>,
    },
}

/// The end of a segment for this sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// Which one.
    pub key: Key,
    /// Why it goes to the dead letters; nothing when the receiver has it.
    pub dead: Option<String>,
    /// Whether its rows may be stored elsewhere too.
    pub maybe_duplicate: bool,
}

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
    at: Option<MayBeAt>,
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
    /// Segments not seen yet after a restart are taken to be where the record says.
    restarted_ms: Option<u64>,
}

impl Machine {
    /// A machine after a start. `recorded` is what [`Step::Record`] last made durable, if anything.
    pub fn new(config: Config, recorded: Option<&[u8]>, now_ms: u64) -> Machine {
        let recorded = recorded.and_then(Places::decode);
        let endpoints: Vec<Endpoint> = config.endpoints.iter().map(|url| Endpoint::new(url.clone())).collect();
        let active = recorded
            .as_ref()
            .and_then(|r| r.current.as_ref())
            .and_then(|place| endpoints.iter().position(|e| e.url == place.endpoint))
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
            config,
        }
    }

    /// Tells of the sealed segments; those known already are skipped. The first call after
    /// [`Machine::new`] must bring all that existed then.
    pub fn offer(&mut self, segments: impl IntoIterator<Item = (Key, u64)>) {
        let restarted = self.restarted_ms.take();
        for (key, bytes) in segments {
            let known = self.databases.get(&key.database).is_some_and(|d| d.items.contains_key(&key.number));
            if known {
                continue;
            }
            let (at, maybe_duplicate) = self.place_after_restart(&key, restarted);
            let item = Item { bytes, state: State::Waiting, alone: false, not_before: 0, at, maybe_duplicate };
            self.databases.entry(key.database).or_default().items.insert(key.number, item);
        }
    }

    /// Segments that are not settled yet.
    pub fn pending(&self) -> usize {
        self.databases.values().map(|d| d.items.len()).sum()
    }

    /// Requests that wait for an answer.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// What to do now. To be called again after each step until it says [`Step::Wait`].
    pub fn next(&mut self, now: u64) -> Step {
        if self.recording.is_some() || self.in_flight.len() >= self.config.concurrency {
            return Step::Wait(None);
        }
        self.databases.retain(|_, database| {
            database.busy_until.retain(|_, until| *until > now);
            !database.items.is_empty() || !database.busy_until.is_empty()
        });
        let names: Vec<Arc<str>> = self.databases.keys().cloned().collect();
        let mut wake: Option<u64> = None;
        for step in 0..names.len() {
            let name = &names[(self.turn + step) % names.len()];
            match self.next_of(name, now) {
                Some(Step::Wait(at)) => wake = earlier(wake, at),
                Some(action) => {
                    self.turn = (self.turn + step + 1) % names.len();
                    return action;
                }
                None => {}
            }
        }
        Step::Wait(wake)
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
        if let Some(endpoint) = self.endpoints.get_mut(endpoint) {
            endpoint.probing = false;
            match contract {
                Some(contract) => {
                    endpoint.contract = Some(contract);
                    endpoint.succeeded();
                }
                None => endpoint.failed(now, None),
            }
        }
    }

    /// A request ended. The settlements returned are to be made durable, then reported with
    /// [`Machine::settled`].
    pub fn answered(&mut self, ticket: u64, answer: Answer, now: u64) -> Vec<Settle> {
        let Some(job) = self.in_flight.remove(&ticket) else { return Vec::new() };
        self.note_endpoint(&job, &answer, now);
        match answer {
            Answer::Stored { refused } => self.stored(&job, refused),
            Answer::Unacceptable { reason } => self.unacceptable(&job, &reason),
            Answer::DatabaseBusy { retry_after_ms } => {
                let until = now + retry_after_ms.unwrap_or(10_000).clamp(100, 3_600_000);
                for key in &job.segments {
                    self.not_stored(key, 0);
                }
                if let Some(database) = job.segments.first().and_then(|k| self.databases.get_mut(&k.database)) {
                    database.busy_until.insert(job.endpoint, until);
                }
                Vec::new()
            }
            Answer::Unavailable { .. } => {
                self.requeue(&job, 0);
                Vec::new()
            }
            Answer::Misdirected { .. } => {
                // A bound segment tries again in a second, on another connection.
                self.requeue(&job, now + 1000);
                Vec::new()
            }
            Answer::Unknown => {
                self.unknown(&job, now);
                Vec::new()
            }
            Answer::Unreadable { segments } => self.unreadable(&job, segments),
        }
    }

    /// Settlements are durable: the segments are forgotten.
    pub fn settled<'a>(&mut self, keys: impl IntoIterator<Item = &'a Key>) {
        for key in keys {
            if let Some(database) = self.databases.get_mut(&key.database) {
                database.items.remove(&key.number);
            }
        }
    }

    // -- what goes next ------------------------------------------------------------------------

    fn next_of(&mut self, name: &Arc<str>, now: u64) -> Option<Step> {
        self.expire_pins(name, now);
        let database = self.databases.get(name)?;
        if !database.items.values().any(|i| i.state == State::Waiting) {
            return None;
        }
        let mut wake = None;
        let mut blocked: HashSet<Option<Place>> = HashSet::new();
        for (number, item) in &database.items {
            if item.state != State::Waiting {
                continue;
            }
            if item.not_before > now {
                wake = earlier(wake, Some(item.not_before));
                continue;
            }
            let bound = item.at.as_ref().map(|at| at.place.clone());
            if blocked.contains(&bound) {
                continue;
            }
            match self.destination(bound.as_ref(), &database.busy_until, now) {
                Destination::Ready(endpoint, contract) => {
                    let first = *number;
                    return Some(self.dispatch((name, first, bound), endpoint, contract, now));
                }
                Destination::Probe(endpoint) => {
                    self.endpoints[endpoint].probing = true;
                    return Some(Step::Probe { endpoint });
                }
                Destination::Later(at) => {
                    wake = earlier(wake, at);
                    if let Some(until) = item.at.as_ref().and_then(|at| at.until) {
                        wake = earlier(wake, Some(until));
                    }
                    blocked.insert(bound);
                }
            }
        }
        Some(Step::Wait(wake))
    }

    /// Segments that were bound for long enough become free, and are marked.
    fn expire_pins(&mut self, name: &Arc<str>, now: u64) {
        let Some(database) = self.databases.get_mut(name) else { return };
        for item in database.items.values_mut().filter(|i| i.state == State::Waiting) {
            if item.at.as_ref().is_some_and(|at| at.until.is_some_and(|until| until <= now)) {
                item.at = None;
                item.maybe_duplicate = true;
            }
        }
    }

    /// The endpoint for segments that are bound to a place, or for free ones.
    fn destination(&self, bound: Option<&Place>, busy_until: &BTreeMap<usize, u64>, now: u64) -> Destination {
        let count = self.endpoints.len();
        let candidates: Vec<usize> = match bound {
            Some(place) => (0..count).filter(|&i| self.endpoints[i].url == place.endpoint).collect(),
            None => (0..count).map(|i| (self.active + i) % count).collect(),
        };
        let mut wake = None;
        for index in candidates {
            let endpoint = &self.endpoints[index];
            let not_before = endpoint.away_until.max(busy_until.get(&index).copied().unwrap_or_default());
            if not_before > now {
                wake = earlier(wake, Some(not_before));
                continue;
            }
            return match (&endpoint.contract, bound) {
                (None, _) if endpoint.probing => Destination::Later(None),
                (None, _) => Destination::Probe(index),
                (Some(Contract::Ours { .. }), Some(Place { receiver: Some(receiver), .. })) => {
                    Destination::Ready(index, Contract::Ours { receiver: *receiver })
                }
                // One that remembers took its data and is gone: nobody to ask until the time is up.
                (Some(Contract::Reference), Some(Place { receiver: Some(_), .. })) => continue,
                (Some(contract), _) => Destination::Ready(index, *contract),
            };
        }
        Destination::Later(wake)
    }

    fn dispatch(&mut self, (name, first, bound): (&Arc<str>, u64, Option<Place>), endpoint: usize, contract: Contract, now: u64) -> Step {
        let numbers = self.group(name, first, bound.as_ref(), contract);
        let place = Place { endpoint: self.endpoints[endpoint].url.clone(), receiver: contract.receiver() };
        // A database without room at the active endpoint does not take the others along.
        let leads = bound.is_none() && (endpoint == self.active || self.endpoints[self.active].away_until > now);
        if leads {
            self.active = endpoint;
        }
        if let Some(places) = self.places_to_record(name, &numbers, &place, leads) {
            let bytes = places.encode();
            self.recording = Some(places);
            return Step::Record(bytes);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let mut segments = Vec::with_capacity(numbers.len());
        if let Some(database) = self.databases.get_mut(name) {
            for number in numbers {
                if let Some(item) = database.items.get_mut(&number) {
                    item.state = State::InFlight;
                    let until = item.at.take().and_then(|at| at.until);
                    item.at = Some(MayBeAt { place: place.clone(), until });
                    segments.push(Key { database: name.clone(), number });
                }
            }
        }
        let job = Job { ticket, endpoint, receiver: contract.receiver(), segments };
        self.in_flight.insert(ticket, job.clone());
        Step::Send(job)
    }

    /// The first segment and those behind it that may share its request.
    fn group(&self, name: &Arc<str>, first: u64, bound: Option<&Place>, contract: Contract) -> Vec<u64> {
        let mut numbers = Vec::new();
        let mut bytes = 0u64;
        let Some(database) = self.databases.get(name) else { return numbers };
        let most = match contract {
            Contract::Ours { .. } => self.config.max_batch_segments.max(1),
            Contract::Reference => 1,
        };
        for (number, item) in database.items.range(first..) {
            if item.state != State::Waiting || item.at.as_ref().map(|at| &at.place) != bound {
                continue;
            }
            let fits = bytes.saturating_add(item.bytes) <= self.config.max_batch_bytes;
            let alone = item.alone && !numbers.is_empty();
            if !numbers.is_empty() && (!fits || alone) || numbers.len() >= most {
                break;
            }
            bytes = bytes.saturating_add(item.bytes);
            numbers.push(*number);
            if item.alone {
                break;
            }
        }
        numbers
    }

    // -- what is durable about places ----------------------------------------------------------

    /// The record that must be durable before these segments go to `place`, unless it is already.
    fn places_to_record(&self, name: &Arc<str>, numbers: &[u64], place: &Place, free: bool) -> Option<Places> {
        let database = self.databases.get(name)?;
        let holds = numbers.iter().all(|number| {
            let key = Key { database: name.clone(), number: *number };
            let marked = database.items.get(number).is_some_and(|i| i.maybe_duplicate);
            match self.recorded.elsewhere.get(&key) {
                Some(e) => e.place == *place && e.maybe_duplicate == marked,
                None => self.recorded.current.as_ref() == Some(place) && !marked,
            }
        });
        if holds {
            return None;
        }
        let current = if free { Some(place.clone()) } else { self.recorded.current.clone() };
        let mut places = Places { current, elsewhere: BTreeMap::new() };
        for (database, held) in &self.databases {
            for (number, item) in &held.items {
                let key = Key { database: database.clone(), number: *number };
                let leaving = database == name && numbers.contains(number);
                let at = if leaving { Some(place) } else { item.at.as_ref().map(|at| &at.place) };
                let until = item.at.as_ref().and_then(|at| at.until);
                places.note(key, at, until, item.maybe_duplicate);
            }
        }
        Some(places)
    }

    /// What the record says about a segment that was there before the start.
    fn place_after_restart(&self, key: &Key, restarted: Option<u64>) -> (Option<MayBeAt>, bool) {
        let Some(now) = restarted else { return (None, false) };
        let pinned = now + self.config.pin_ms;
        let (place, until, marked) = match self.recorded.elsewhere.get(key) {
            Some(e) => (Some(&e.place), e.until.unwrap_or(pinned).min(pinned), e.maybe_duplicate),
            None => (self.recorded.current.as_ref(), pinned, false),
        };
        match place {
            Some(place) if place.receiver.is_some() && self.endpoints.iter().any(|e| e.url == place.endpoint) => {
                (Some(MayBeAt { place: place.clone(), until: Some(until) }), marked)
            }
            // Nobody can be asked: it may be there.
            Some(_) => (None, true),
            None => (None, marked),
        }
    }

    // -- what answers mean -----------------------------------------------------------------------

    fn note_endpoint(&mut self, job: &Job, answer: &Answer, now: u64) {
        let endpoint = &mut self.endpoints[job.endpoint];
        match answer {
            Answer::Unavailable { retry_after_ms } => endpoint.failed(now, *retry_after_ms),
            Answer::Unknown => endpoint.failed(now, None),
            Answer::Misdirected { actual } => endpoint.misdirected(job.receiver, *actual),
            Answer::Unreadable { .. } => {}
            _ => endpoint.succeeded(),
        }
    }

    fn item(&mut self, key: &Key) -> Option<&mut Item> {
        self.databases.get_mut(&key.database)?.items.get_mut(&key.number)
    }

    fn settle(&mut self, key: &Key, dead: Option<String>) -> Option<Settle> {
        let item = self.item(key)?;
        item.state = State::Settling;
        Some(Settle { key: key.clone(), dead, maybe_duplicate: item.maybe_duplicate })
    }

    fn stored(&mut self, job: &Job, refused: Vec<(usize, String)>) -> Vec<Settle> {
        let mut refused: HashMap<usize, String> = refused.into_iter().collect();
        let ends = job.segments.iter().enumerate();
        ends.filter_map(|(index, key)| self.settle(key, refused.remove(&index))).collect()
    }

    fn unacceptable(&mut self, job: &Job, reason: &str) -> Vec<Settle> {
        if let [only] = job.segments.as_slice() {
            return self.settle(only, Some(reason.to_owned())).into_iter().collect();
        }
        for key in &job.segments {
            self.not_stored(key, 0);
            if let Some(item) = self.item(key) {
                item.alone = true;
            }
        }
        Vec::new()
    }

    fn unreadable(&mut self, job: &Job, segments: Vec<(usize, String)>) -> Vec<Settle> {
        self.requeue(job, 0);
        let ends = segments.into_iter().filter_map(|(index, reason)| {
            let key = job.segments.get(index)?.clone();
            self.settle(&key, Some(reason))
        });
        ends.collect()
    }

    fn requeue(&mut self, job: &Job, bound_not_before: u64) {
        for key in &job.segments {
            self.not_stored(key, bound_not_before);
        }
    }

    /// This request stored nothing. An earlier one may have: then the segment stays bound.
    fn not_stored(&mut self, key: &Key, bound_not_before: u64) {
        if let Some(item) = self.item(key) {
            item.state = State::Waiting;
            if item.at.as_ref().is_some_and(|at| at.until.is_none()) {
                item.at = None;
            } else {
                item.not_before = bound_not_before;
            }
        }
    }

    fn unknown(&mut self, job: &Job, now: u64) {
        let pinned = now + self.config.pin_ms;
        for key in &job.segments {
            let Some(item) = self.item(key) else { continue };
            item.state = State::Waiting;
            match &mut item.at {
                Some(at) if at.place.receiver.is_some() => {
                    at.until.get_or_insert(pinned);
                }
                _ => {
                    item.at = None;
                    item.maybe_duplicate = true;
                }
            }
        }
    }
}

enum Destination {
    Ready(usize, Contract),
    Probe(usize),
    Later(Option<u64>),
}

fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
