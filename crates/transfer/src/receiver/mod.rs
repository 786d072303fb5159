//! `POST /transfer`: segments from our senders, many in a body, and from the reference's, one each.
//!
//! What both share: nothing is stored before the whole body is here and checked; the answer is sent
//! when rows and receipts are durable, in one frame; good blocks are kept and bad bytes put aside
//! in the store's quarantine and named in the answer; a body of up to 16 MiB is held in memory, a
//! larger one goes straight into a segment file of its own. What is stored already is looked for first: a
//! receiver that takes nothing now says so only of what it does not have.
//!
//! | answer | when |
//! |---|---|
//! | 202 | durable; for ours a JSON body names segments refused for ever and bytes in quarantine |
//! | 409 | durable already |
//! | 400 | no segment, a bad name, or a database that is not configured |
//! | 413 | larger than the limit |
//! | 421 | meant for another receiver behind the same address |
//! | 429 | over quota (for the reference's senders: any lack of room); with `Retry-After` |
//! | 500 | the outcome is not known, or some of it is stored and the rest cannot be now |
//! | 503 | nothing stored and not now; with `Retry-After` |
//!
//! `GET /transfer` answers 204 with the headers by which a sender knows what it talks to.

mod admit;
mod arriving;
mod intake;
mod many;
mod metrics;
mod reader;
mod recent;
mod single;

use std::any::Any;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use wal::TableKey;
use wal::segment::FileName;

use crate::names::{CONTENT_TYPE_MANY, HEADER_DATABASE, HEADER_EXPECT, HEADER_PEER, HEADER_RECEIVER, HEADER_VERSION, hex, unhex};
pub use metrics::ReceiverMetrics;
use reader::ReadError;
use recent::Recent;

/// What of a refused body is read, so that its sender sees the answer.
const DRAIN_BYTES: u64 = 32 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// How long a sender waits when no better time is known.
const PAUSE: Duration = Duration::from_secs(10);

/// What a receiver takes.
#[derive(Clone)]
pub struct ReceiverOptions {
    /// Databases that are configured; nothing means all.
    pub databases: Option<HashSet<String>>,
    /// Why a database takes no more for now, if so: its own 429, which does not concern the others.
    pub full: Option<Full>,
    /// Segments whose file name begins with one of these are acknowledged and dropped.
    pub drop_prefixes: Vec<String>,
    /// Longest body after decompression.
    pub max_body_bytes: u64,
    /// Bodies up to this size are one frame of the journal; larger ones hold one segment, which
    /// becomes a file without passing through the journal.
    pub max_frame_bytes: u64,
    /// Bodies held in memory at a time, in bytes; further requests wait.
    pub max_buffered_bytes: u64,
    /// Told of what comes from peers, if somebody wants to know.
    pub from_peer: Option<FromPeer>,
    /// Counters, if somebody shows them.
    pub metrics: Option<Arc<ReceiverMetrics>>,
}

impl Default for ReceiverOptions {
    fn default() -> ReceiverOptions {
        ReceiverOptions {
            databases: None,
            full: None,
            drop_prefixes: Vec::new(),
            max_body_bytes: 256 << 20,
            max_frame_bytes: 16 << 20,
            max_buffered_bytes: 128 << 20,
            from_peer: None,
            metrics: None,
        }
    }
}

/// Whether the process takes data at all; an error says why not.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Why a database takes no more for now, if so.
pub type Full = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Called before rows of a peer are stored in these tables; what it returns is dropped when they are.
pub type FromPeer = Arc<dyn Fn(Vec<TableKey>) -> Box<dyn Any + Send> + Send + Sync>;

/// A router with `/transfer`.
pub fn router(store: wal::Store, options: ReceiverOptions, ready: Ready) -> Router {
    let recent = Recent::load(&store, now_ms());
    let shared = Arc::new(Shared {
        identity: store.sender_id(),
        buffers: Arc::new(Semaphore::new((options.max_buffered_bytes / 1024) as usize)),
        recent: Mutex::new(recent),
        arriving: arriving::Arriving::default(),
        name_freed: tokio::sync::Notify::new(),
        metrics: options.metrics.clone().unwrap_or_default(),
        store,
        options,
        ready,
    });
    Router::new().route("/transfer", any(handle)).with_state(shared)
}

pub(crate) struct Shared {
    store: wal::Store,
    options: ReceiverOptions,
    ready: Ready,
    identity: [u8; 16],
    /// Memory for bodies, in KiB.
    buffers: Arc<Semaphore>,
    recent: Mutex<Recent>,
    arriving: arriving::Arriving,
    name_freed: tokio::sync::Notify,
    metrics: Arc<ReceiverMetrics>,
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    // In a task of its own: a client that goes away must not interrupt what remembers its segments.
    let work = tokio::spawn(async move { dispatch(&shared, request).await });
    work.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a transfer failed");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    })
}

async fn dispatch(shared: &Arc<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let is_ours = parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).is_some_and(|v| v.trim().starts_with(CONTENT_TYPE_MANY));
    let mut response = if parts.method == Method::GET && parts.uri.query().is_none() {
        StatusCode::NO_CONTENT.into_response()
    } else if is_ours {
        let answer = match misdirected(shared, &parts.headers) {
            true => {
                drain(body).await;
                Answer::Misdirected
            }
            false => many::receive(shared, &parts.headers, body).await,
        };
        answer.respond(true)
    } else {
        let query = parts.uri.query().unwrap_or_default();
        single::receive(shared, query, &parts.headers, body).await.respond(false)
    };
    shared.metrics.request("/transfer", response.status().as_u16());
    let headers = response.headers_mut();
    headers.insert(HEADER_VERSION, HeaderValue::from(u16::from(crate::body::VERSION)));
    if let Ok(identity) = HeaderValue::from_str(&hex(&shared.identity)) {
        headers.insert(HEADER_RECEIVER, identity);
    }
    response
}

fn misdirected(shared: &Shared, headers: &HeaderMap) -> bool {
    let expected = headers.get(HEADER_EXPECT).and_then(|v| v.to_str().ok()).and_then(unhex);
    expected.is_some_and(|expected| expected != shared.identity)
}

/// An answer, in the terms of both contracts.
#[derive(Debug)]
pub(crate) enum Answer {
    /// 202 with this body, which may be empty.
    Stored(String),
    AlreadyStored,
    /// 400.
    Unacceptable(String),
    /// 413.
    TooLarge(u64),
    Misdirected,
    /// 429 for one database.
    DatabaseFull(String, String),
    /// 429 for a sender that can only wait: its database has no room for another table.
    TableRefused(String, String),
    /// Nothing stored, for lack of room or because the process does not take data.
    Busy(String),
    /// 500.
    Unknown(String),
}

impl Answer {
    /// The response in our contract, or in the reference's, whose senders know no 503 with a
    /// meaning of its own and back off on 429.
    fn respond(self, ours: bool) -> Response {
        let mut close = false;
        let mut pause = None;
        let mut database = None;
        let (status, text) = match self {
            Answer::Stored(body) => (StatusCode::ACCEPTED, body),
            Answer::AlreadyStored => (StatusCode::CONFLICT, "already stored\n".to_owned()),
            Answer::Unacceptable(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")),
            Answer::TooLarge(limit) => {
                close = true;
                let text = format!("the body is larger than {limit} bytes: send smaller segments\n");
                (StatusCode::PAYLOAD_TOO_LARGE, text)
            }
            Answer::Misdirected => {
                close = true;
                (StatusCode::MISDIRECTED_REQUEST, "meant for another receiver\n".to_owned())
            }
            Answer::DatabaseFull(name, why) | Answer::TableRefused(name, why) => {
                pause = Some(PAUSE);
                database = Some(name);
                (StatusCode::TOO_MANY_REQUESTS, format!("{why}\n"))
            }
            Answer::Busy(why) if ours => {
                pause = Some(PAUSE);
                (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
            }
            Answer::Busy(_) => {
                close = true;
                pause = Some(PAUSE);
                (StatusCode::TOO_MANY_REQUESTS, "Overloaded. Retry later\n".to_owned())
            }
            Answer::Unknown(why) => {
                close = true;
                (StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n"))
            }
        };
        let mut response = (status, text).into_response();
        let headers = response.headers_mut();
        if close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(pause) = pause {
            headers.insert(RETRY_AFTER, HeaderValue::from(pause.as_secs()));
        }
        if let Some(Ok(name)) = database.map(|name| HeaderValue::from_str(&name)) {
            headers.insert(HEADER_DATABASE, name);
        }
        response
    }

    fn from_refusal(refusal: &wal::Refusal) -> Answer {
        use wal::Refusal;
        let why = refusal.to_string();
        match refusal {
            Refusal::DatabaseOverQuota { database } => Answer::DatabaseFull(database.to_string(), why),
            Refusal::TooManyTables { database } => Answer::TableRefused(database.to_string(), why),
            Refusal::DiskFull | Refusal::Closed => Answer::Busy(why),
            Refusal::Invalid(_) => Answer::Unacceptable(why),
            // A frame may have reached the disk although its sync failed, and another request may be
            // storing the same segments: the sender must ask here again.
            _ => Answer::Unknown(why),
        }
    }

    fn from_read(error: ReadError) -> Answer {
        match error {
            ReadError::TooLarge(limit) => Answer::TooLarge(limit),
            ReadError::NotGzip => Answer::Unacceptable("Invalid gzip encoding".to_owned()),
            // Damage on the way: the sender is to repeat, not to give up.
            ReadError::Broken(why) => Answer::Busy(why),
        }
    }
}

impl Shared {
    /// The name of a segment that may be stored, or why not.
    fn check_name(&self, file_name: &str) -> Result<FileName, &'static str> {
        let name = FileName::parse(file_name).map_err(|_| "Filename is invalid")?;
        let alphanumeric = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric());
        let parts = [&name.database, &name.table, &name.epoch];
        let whole = name.to_string() == file_name && name.is_contained();
        if !whole || !parts.into_iter().all(|p| alphanumeric(p)) || !name.schema.as_deref().is_none_or(alphanumeric) {
            return Err("Filename is invalid");
        }
        match &self.options.databases {
            Some(known) if !known.contains(&name.database) => Err("Filename is invalid: its database is not configured"),
            _ => Ok(name),
        }
    }

    /// Refuses for now what goes to a database that takes no more.
    fn check_room(&self, name: &FileName) -> Result<(), Answer> {
        match self.options.full.as_ref().and_then(|full| full(&name.database)) {
            Some(why) => Err(Answer::DatabaseFull(name.database.clone(), why)),
            None => Ok(()),
        }
    }

    /// Tells of rows that come from a peer, until what is returned is dropped. Those of the reference's say so by what they
    /// lack: only collectors compress.
    fn note_peer<'a>(&self, headers: &HeaderMap, ours: bool, names: impl IntoIterator<Item = &'a FileName>) -> Option<Box<dyn Any + Send>> {
        let note = self.options.from_peer.as_ref()?;
        let is_peer = headers.contains_key(HEADER_PEER) || !ours && !headers.contains_key(http::header::CONTENT_ENCODING);
        is_peer.then(|| note(names.into_iter().map(admit::table_of).collect()))
    }

    fn drop_prefix(&self, file_name: &str) -> Option<&str> {
        self.options.drop_prefixes.iter().find(|p| file_name.starts_with(p.as_str())).map(String::as_str)
    }
}

/// Reads and forgets what is left of a body, within bounds, so that its sender can read the answer.
async fn drain(body: Body) {
    use http_body_util::BodyExt as _;
    let mut body = body;
    let read = async {
        let mut left = DRAIN_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let len = frame.data_ref().map_or(0, |d| d.len() as u64);
            if len > left {
                return;
            }
            left -= len;
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME, read).await;
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
