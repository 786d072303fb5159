//! What goes next, and to whom.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::{Contract, Job, Key, Machine, MayBeAt, Place, Places, Release, Route, State, Step};

/// Where segments that wait can go.
enum Destination {
    Ready(usize, Contract),
    Probe(usize),
    Later(Option<u64>),
}

/// What segments must share to share a request: where they may be, or else where they may go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Way {
    Bound(Place),
    To(Arc<str>),
    Any,
}

impl super::Item {
    /// Nothing for one that goes nowhere.
    fn way(&self) -> Option<Way> {
        match (&self.at, &self.route) {
            (Some(at), _) => Some(Way::Bound(at.place.clone())),
            (None, Route::Any) => Some(Way::Any),
            (None, Route::To { endpoint, .. }) => Some(Way::To(endpoint.clone())),
            (None, Route::Keep(_) | Route::Released) => None,
        }
    }
}

impl Machine {
    /// What to do now. To be called again after each step until it says [`Step::Wait`].
    pub fn next(&mut self, now: u64) -> Step {
        if self.recording.is_some() {
            return Step::Wait(None);
        }
        self.databases.retain(|_, database| {
            database.busy_until.retain(|_, until| *until > now);
            !database.items.is_empty() || !database.busy_until.is_empty()
        });
        let names: Vec<Arc<str>> = self.databases.keys().cloned().collect();
        for name in &names {
            self.expire_pins(name, now);
            if let Some(step) = self.release(name, now) {
                return step;
            }
        }
        if let Some(step) = names.iter().find_map(|name| self.record_doubts(name, now)) {
            return step;
        }
        if self.in_flight.len() >= self.config.concurrency {
            return Step::Wait(self.next_release(now));
        }
        let mut wake = self.next_release(now);
        for step in 0..names.len() {
            let name = &names[(self.turn + step) % names.len()];
            match self.next_of(name, now) {
                Some(Step::Wait(at)) => wake = earlier(wake, at),
                // It stays this one's turn until what was recorded for it has left: another one's record would undo it.
                Some(record @ Step::Record(_)) => {
                    self.turn = (self.turn + step) % names.len();
                    return record;
                }
                Some(action) => {
                    self.turn = (self.turn + step + 1) % names.len();
                    return action;
                }
                None => {}
            }
        }
        Step::Wait(wake)
    }

    fn next_of(&mut self, name: &Arc<str>, now: u64) -> Option<Step> {
        let database = self.databases.get(name)?;
        if !database.items.values().any(|i| i.state == State::Waiting) {
            return None;
        }
        let mut wake = None;
        let mut blocked: HashSet<Way> = HashSet::new();
        for (number, item) in &database.items {
            if item.state != State::Waiting {
                continue;
            }
            if item.not_before > now {
                wake = earlier(wake, Some(item.not_before));
                continue;
            }
            let Some(way) = item.way().filter(|way| !blocked.contains(way)) else { continue };
            match self.destination(&way, &database.busy_until, now) {
                Destination::Ready(endpoint, contract) => {
                    let first = *number;
                    return Some(self.dispatch(name, first, &way, endpoint, contract, now));
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
                    blocked.insert(way);
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
    fn destination(&self, way: &Way, busy_until: &BTreeMap<usize, u64>, now: u64) -> Destination {
        let count = self.endpoints.len();
        let named = |name: &str| (0..count).filter(|&i| &*self.endpoints[i].name == name).collect();
        let candidates: Vec<usize> = match way {
            Way::Bound(place) => named(&place.endpoint),
            Way::To(endpoint) => named(endpoint),
            Way::Any => (0..count).map(|i| (self.active + i) % count).collect(),
        };
        let mut wake = None;
        for index in candidates {
            let endpoint = &self.endpoints[index];
            if !endpoint.present || self.in_flight_at(index) >= self.config.endpoint_concurrency {
                continue;
            }
            let not_before = endpoint.away_until.max(busy_until.get(&index).copied().unwrap_or_default());
            if not_before > now {
                wake = earlier(wake, Some(not_before));
                continue;
            }
            return match (&endpoint.contract, way) {
                (None, _) if endpoint.probing => Destination::Later(None),
                (None, _) => Destination::Probe(index),
                (Some(Contract::Ours { .. }), Way::Bound(Place { receiver: Some(receiver), .. })) => {
                    Destination::Ready(index, Contract::Ours { receiver: *receiver })
                }
                // One that remembers took its data and is gone: nobody to ask until the time is up.
                (Some(Contract::Reference), Way::Bound(Place { receiver: Some(_), .. })) => continue,
                (Some(contract), _) => Destination::Ready(index, *contract),
            };
        }
        Destination::Later(wake)
    }

    fn in_flight_at(&self, endpoint: usize) -> usize {
        self.in_flight.values().filter(|job| job.endpoint == endpoint).count()
    }

    fn dispatch(&mut self, name: &Arc<str>, first: u64, way: &Way, endpoint: usize, contract: Contract, now: u64) -> Step {
        let numbers = self.group(name, first, way, contract);
        let place = Place { endpoint: self.endpoints[endpoint].name.to_string(), receiver: contract.receiver() };
        // A database without room at the active endpoint does not take the others along.
        let leads = *way == Way::Any && (endpoint == self.active || self.endpoints[self.active].away_until > now);
        if leads {
            self.active = endpoint;
        }
        if let Some(places) = self.places_to_record(name, &numbers, &place, leads) {
            return self.record(places);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let mut segments = Vec::with_capacity(numbers.len());
        if let Some(database) = self.databases.get_mut(name) {
            for number in numbers {
                if let Some(item) = database.items.get_mut(&number) {
                    item.state = State::InFlight;
                    let until = item.at.take().and_then(|at| at.until);
                    item.at = Some(Box::new(MayBeAt { place: place.clone(), until }));
                    segments.push(Key { database: name.clone(), number });
                }
            }
        }
        let job = Job { ticket, endpoint, receiver: contract.receiver(), segments };
        self.in_flight.insert(ticket, job.clone());
        Step::Send(job)
    }

    /// The first segment and those behind it that may share its request.
    fn group(&self, name: &Arc<str>, first: u64, way: &Way, contract: Contract) -> Vec<u64> {
        let mut numbers = Vec::new();
        let mut bytes = 0u64;
        let Some(database) = self.databases.get(name) else { return numbers };
        let most = match contract {
            Contract::Ours { .. } => self.config.max_batch_segments.max(1),
            Contract::Reference => 1,
        };
        for (number, item) in database.items.range(first..) {
            if item.state != State::Waiting || item.way().as_ref() != Some(way) {
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

    // -- what is not sent from here ----------------------------------------------------------------

    /// Lets go of what its endpoint does not take. What may be stored elsewhere leaves a record of that first.
    fn release(&mut self, name: &Arc<str>, now: u64) -> Option<Step> {
        let mut released = self.not_sent(name, now);
        released.retain(|(number, _)| self.has_no_doubts(name, std::slice::from_ref(number)));
        let database = self.databases.get_mut(name)?;
        let releases = released.into_iter().filter_map(|(number, reason)| {
            let item = database.items.remove(&number)?;
            let key = Key { database: name.clone(), number };
            Some(Release { key, reason, maybe_duplicate: item.maybe_duplicate })
        });
        let releases: Vec<Release> = releases.collect();
        self.doubtful.extend(releases.iter().filter(|release| release.maybe_duplicate).map(|release| release.key.clone()));
        (!releases.is_empty()).then_some(Step::Release(releases))
    }

    /// Records that what is released next may be stored elsewhere too.
    fn record_doubts(&mut self, name: &Arc<str>, now: u64) -> Option<Step> {
        let numbers: Vec<u64> = self.not_sent(name, now).into_iter().map(|(number, _)| number).collect();
        if self.has_no_doubts(name, &numbers) {
            return None;
        }
        let places = self.places(self.recorded.current.as_ref(), |_, _| None);
        Some(self.record(places))
    }

    /// Whether all that is in doubt about these is on record.
    fn has_no_doubts(&self, name: &Arc<str>, numbers: &[u64]) -> bool {
        let items = self.databases.get(name).map(|database| &database.items);
        numbers.iter().all(|number| {
            let marked = items.and_then(|items| items.get(number)).is_some_and(|item| item.maybe_duplicate);
            let key = Key { database: name.clone(), number: *number };
            !marked || self.recorded.elsewhere.get(&key).is_some_and(|recorded| recorded.maybe_duplicate)
        })
    }

    /// Free segments that are not sent, and why.
    fn not_sent(&self, name: &Arc<str>, now: u64) -> Vec<(u64, &'static str)> {
        let Some(database) = self.databases.get(name) else { return Vec::new() };
        let free = database.items.iter().filter(|(_, item)| item.state == State::Waiting && item.at.is_none());
        free.filter_map(|(number, item)| Some((*number, self.reason_to_release(item, &database.busy_until, now)?))).collect()
    }

    /// Why a free segment is not sent, if so.
    fn reason_to_release(&self, item: &super::Item, busy_until: &BTreeMap<usize, u64>, now: u64) -> Option<&'static str> {
        let (name, until) = match &item.route {
            Route::Any => return None,
            Route::Keep(reason) => return Some(reason),
            Route::Released => return Some("begun before the start"),
            Route::To { endpoint, until } => (endpoint, *until),
        };
        let found = (0..self.endpoints.len()).find(|&i| self.endpoints[i].name == *name && self.endpoints[i].present);
        let Some(index) = found else { return Some("its owner is gone") };
        if item.maybe_duplicate {
            Some("its owner does not answer")
        } else if until <= now {
            Some("it waited too long")
        } else if self.endpoints[index].unhealthy_until > now {
            Some("its owner is unhealthy")
        } else if busy_until.get(&index).is_some_and(|until| *until > now) {
            Some("its owner has no room for the database")
        } else {
            None
        }
    }

    /// When the next segment has waited too long.
    fn next_release(&self, now: u64) -> Option<u64> {
        let items = self.databases.values().flat_map(|database| database.items.values());
        let waiting = items.filter(|item| item.state == State::Waiting);
        let times = waiting.filter_map(|item| match (&item.at, &item.route) {
            (Some(at), _) => at.until,
            (None, Route::To { until, .. }) => Some(*until),
            _ => None,
        });
        times.filter(|at| *at > now).min()
    }

    // -- what is durable about places --------------------------------------------------------------

    fn record(&mut self, places: Places) -> Step {
        let bytes = places.encode();
        self.recording = Some(places);
        Step::Record(bytes)
    }

    /// The record that must be durable before these segments go to `place`, unless it is already.
    fn places_to_record(&self, name: &Arc<str>, numbers: &[u64], place: &Place, leads: bool) -> Option<Places> {
        let database = self.databases.get(name)?;
        let holds = numbers.iter().all(|number| {
            let key = Key { database: name.clone(), number: *number };
            let marked = database.items.get(number).is_some_and(|i| i.maybe_duplicate);
            match self.recorded.elsewhere.get(&key) {
                Some(e) => e.place.as_ref() == Some(place) && e.maybe_duplicate == marked,
                None => self.recorded.current.as_ref() == Some(place) && !marked,
            }
        });
        if holds {
            return None;
        }
        let current = if leads { Some(place) } else { self.recorded.current.as_ref() };
        Some(self.places(current, |database, number| (database == name && numbers.contains(&number)).then_some(place)))
    }

    /// Where segments may be, with those that are just leaving.
    fn places<'a>(&'a self, current: Option<&Place>, leaving: impl Fn(&Arc<str>, u64) -> Option<&'a Place>) -> Places {
        let mut places = Places { current: current.cloned(), elsewhere: BTreeMap::new() };
        for (database, held) in &self.databases {
            for (number, item) in &held.items {
                let key = Key { database: database.clone(), number: *number };
                let at = leaving(database, *number).or(item.at.as_ref().map(|at| &at.place));
                let until = item.at.as_ref().and_then(|at| at.until);
                places.note(key, at, until, item.maybe_duplicate);
            }
        }
        // Those that were released stay on record until they are settled.
        for key in &self.doubtful {
            places.note(key.clone(), None, None, true);
        }
        places
    }

    /// What the record says about a segment that was there before the start.
    pub(super) fn place_after_restart(&self, key: &Key, route: &Route, restarted: Option<u64>) -> (Option<MayBeAt>, bool) {
        let Some(now) = restarted else { return (None, false) };
        let pinned = now + self.config.pin_ms;
        let (place, until, marked) = match self.recorded.elsewhere.get(key) {
            Some(e) => (e.place.as_ref(), e.until.unwrap_or(pinned).min(pinned), e.maybe_duplicate),
            None => (self.recorded.current.as_ref(), pinned, false),
        };
        // It was released, so nobody has it whose answer was not known, unless it is marked.
        if *route == Route::Released {
            return (None, marked);
        }
        let known = |place: &Place| *route != Route::Any || self.endpoints.iter().any(|e| *e.name == *place.endpoint);
        match place {
            Some(place) if place.receiver.is_some() && known(place) => (Some(MayBeAt { place: place.clone(), until: Some(until) }), marked),
            // Nobody can be asked: it may be there.
            Some(_) => (None, true),
            None => (None, marked),
        }
    }
}

fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
