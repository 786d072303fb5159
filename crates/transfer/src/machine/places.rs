//! Endpoints and receivers, and the durable record of where segments may be.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Key;

/// Tries on an endpoint with several receivers behind it before another one is taken.
const MISDIRECTED_TRIES: u32 = 4;
const FIRST_PAUSE_MS: u64 = 1000;
const LONGEST_PAUSE_MS: u64 = 60_000;

/// How an endpoint wants its segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contract {
    /// Ours: many segments in a body, and it remembers them.
    Ours {
        /// Identity of the receiver's store.
        receiver: [u8; 16],
    },
    /// The reference's: one segment a request, and it remembers nothing.
    Reference,
}

impl Contract {
    pub(super) fn receiver(self) -> Option<[u8; 16]> {
        match self {
            Contract::Ours { receiver } => Some(receiver),
            Contract::Reference => None,
        }
    }
}

/// Where a segment can be stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Name of the endpoint, which is its URL where it has no other.
    pub endpoint: String,
    /// The receiver behind it; nothing for one that remembers nothing.
    pub receiver: Option<[u8; 16]>,
}

/// The durable record: where each unsettled segment may be. Written before a segment leaves for a
/// place that the record does not give for it already. JSON, under a mark of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The place of every segment that is not listed.
    pub current: Option<Place>,
    /// The others.
    pub elsewhere: BTreeMap<Key, Elsewhere>,
}

/// A segment's own entry in the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Where it may be; nothing when the time for asking there is over.
    pub place: Option<Place>,
    /// When it may go elsewhere, in milliseconds since 1970.
    pub until: Option<u64>,
    /// It may be at a former place too.
    pub maybe_duplicate: bool,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    version: u8,
    current: Option<Place>,
    elsewhere: Vec<WireEntry>,
}

#[derive(Serialize, Deserialize)]
struct WireEntry {
    database: String,
    number: u64,
    place: Option<Place>,
    until: Option<u64>,
    maybe_duplicate: bool,
}

impl Places {
    /// Notes where a segment may be, unless the default says so.
    pub(super) fn note(&mut self, key: Key, at: Option<&Place>, until: Option<u64>, marked: bool) {
        let place = at.or(self.current.as_ref());
        if marked || place.is_some() && self.current.as_ref() != place {
            let place = place.cloned();
            self.elsewhere.insert(key, Elsewhere { place, until, maybe_duplicate: marked });
        }
    }

    /// The bytes of the record.
    pub fn encode(&self) -> Vec<u8> {
        let elsewhere = self.elsewhere.iter().map(|(key, e)| WireEntry {
            database: key.database.to_string(),
            number: key.number,
            place: e.place.clone(),
            until: e.until,
            maybe_duplicate: e.maybe_duplicate,
        });
        let wire = Wire { version: 1, current: self.current.clone(), elsewhere: elsewhere.collect() };
        serde_json::to_vec(&wire).unwrap_or_default()
    }

    /// The reverse; nothing for bytes that are no record of this version.
    pub fn decode(bytes: &[u8]) -> Option<Places> {
        let wire: Wire = serde_json::from_slice(bytes).ok().filter(|w: &Wire| w.version == 1)?;
        let elsewhere = wire.elsewhere.into_iter().map(|e| {
            let key = Key { database: e.database.into(), number: e.number };
            let maybe_duplicate = e.maybe_duplicate;
            (key, Elsewhere { place: e.place, until: e.until, maybe_duplicate })
        });
        Some(Places { current: wire.current, elsewhere: elsewhere.collect() })
    }
}

/// What is known of an endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// By which segments are bound to it: its address, or a name that outlives addresses.
    pub(super) name: Arc<str>,
    pub(super) url: String,
    /// Whether it is there, as far as anybody knows.
    pub(super) present: bool,
    pub(super) contract: Option<Contract>,
    pub(super) probing: bool,
    pub(super) away_until: u64,
    /// Until then it gets nothing that could be released instead.
    pub(super) unhealthy_until: u64,
    failures: u32,
    misdirected: u32,
}

impl Endpoint {
    pub(super) fn new(name: Arc<str>, url: String) -> Endpoint {
        Endpoint {
            name,
            url,
            present: true,
            contract: None,
            probing: false,
            away_until: 0,
            unhealthy_until: 0,
            failures: 0,
            misdirected: 0,
        }
    }

    /// It is there, at this address. What is known of another address does not hold.
    pub(super) fn is_at(&mut self, url: &str) {
        self.present = true;
        if self.url != url {
            self.url = url.to_owned();
            self.contract = None;
            self.succeeded();
        }
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.misdirected = 0;
        self.away_until = 0;
        self.unhealthy_until = 0;
    }

    pub(super) fn failed(&mut self, now: u64, retry_after_ms: Option<u64>, unhealthy_ms: u64) {
        let pause = (FIRST_PAUSE_MS << self.failures.min(6)).min(LONGEST_PAUSE_MS);
        // A quarter of spread, from what differs between senders and times.
        let spread = now.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        let pause = pause - spread % (pause / 4 + 1);
        let pause = pause.max(retry_after_ms.unwrap_or(0).min(600_000));
        self.failures += 1;
        self.away_until = self.away_until.max(now + pause);
        self.unhealthy_until = self.unhealthy_until.max(now + pause.max(unhealthy_ms));
        // It may come back as another version, or another one may take its address.
        self.contract = None;
    }

    /// A receiver other than the one expected answered. The expected one gets a few tries on new
    /// connections, since changing over has a price for a sender with many connections.
    pub(super) fn misdirected(&mut self, expected: Option<[u8; 16]>, actual: [u8; 16]) {
        let known = self.contract.and_then(Contract::receiver);
        if known != expected {
            return;
        }
        self.misdirected += 1;
        if self.misdirected >= MISDIRECTED_TRIES {
            self.misdirected = 0;
            self.contract = Some(Contract::Ours { receiver: actual });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_reads_back() {
        let place = |n| Place { endpoint: format!("http://h{n}"), receiver: Some([n; 16]) };
        let mut places = Places { current: Some(place(1)), ..Places::default() };
        let key = |number| Key { database: "D".into(), number };
        places.note(key(1), Some(&place(1)), None, false);
        places.note(key(2), Some(&place(2)), Some(9), false);
        places.note(key(3), None, None, true);
        assert_eq!(places.elsewhere.len(), 2);
        assert_eq!(Places::decode(&places.encode()), Some(places));
        // Without a default only what is listed is anywhere.
        let mut places = Places::default();
        places.note(key(1), Some(&place(1)), Some(7), false);
        places.note(key(2), None, None, true);
        places.note(key(3), None, None, false);
        assert_eq!(places.elsewhere.keys().map(|key| key.number).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(Places::decode(&places.encode()), Some(places));
        assert_eq!(Places::decode(b"{}"), None);
    }
}
