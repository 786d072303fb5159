//! What goes into the machine and what comes out of it.

use std::sync::Arc;

/// A segment of this sender.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its database.
    pub database: Arc<str>,
    /// Its number in that database.
    pub number: u64,
}

/// A segment that is sealed, and where it may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Which one.
    pub key: Key,
    /// Bytes of its image.
    pub bytes: u64,
    /// Where it may go.
    pub route: Route,
}

/// Where a segment may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To any endpoint, in order of preference. It waits until one takes it.
    Any,
    /// To this endpoint, if it takes it soon: else the segment is released.
    To {
        /// Its name.
        endpoint: Arc<str>,
        /// When it is released at the latest, in milliseconds, if it has not left.
        until: u64,
    },
    /// To none: it is released at once, for this reason, unless it may be at a receiver.
    Keep(&'static str),
    /// It was released before the start, and work on it may have begun.
    Released,
}

/// A segment that this sender does not send: somebody else sees to it from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Which one.
    pub key: Key,
    /// Why.
    pub reason: &'static str,
    /// Whether its rows may be stored elsewhere too.
    pub maybe_duplicate: bool,
}

/// Bounds of the machine's work.
#[derive(Clone, Debug)]
pub struct Config {
    /// URLs of ingestors, in order of preference. Empty: what has [`Route::Any`] waits.
    pub endpoints: Vec<String>,
    /// Bytes of images in one request, unless a single segment is larger.
    pub max_batch_bytes: u64,
    /// Segments in one request.
    pub max_batch_segments: usize,
    /// Requests at a time.
    pub concurrency: usize,
    /// Requests to one endpoint at a time.
    pub endpoint_concurrency: usize,
    /// How long a segment stays with the receiver that may have it, in milliseconds.
    pub pin_ms: u64,
    /// For how long after a failure an endpoint gets nothing that could be released instead, in milliseconds.
    pub unhealthy_ms: u64,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask an endpoint what it is; answer with [`super::Machine::probed`].
    Probe {
        /// Its index; [`super::Machine::url`] has its address.
        endpoint: usize,
    },
    /// Make this durable, then call [`super::Machine::recorded`].
    Record(Vec<u8>),
    /// Send a request; answer with [`super::Machine::answered`].
    Send(Job),
    /// These are not sent from here; the machine has forgotten them.
    Release(Vec<Release>),
    /// Nothing before this time (milliseconds), or before something is reported.
    Wait(Option<u64>),
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Names the request in [`super::Machine::answered`].
    pub ticket: u64,
    /// Index of the endpoint; [`super::Machine::url`] has its address.
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
