//! The door for the command line: whoever can read the storage directory may see and change what is in it.
//!
//! `control/door.json` in the storage directory, readable by its owner alone, has the address of the running ingestor and a
//! token that is new with every start. It is apart from the authentication of senders: a token that lets somebody send rows
//! does not let him drop dead letters.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use axum::extract::{Path as UrlPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use tokio::sync::oneshot;
use wal::{SegmentId, Store};

use crate::ledger::LedgerReport;

/// Where the running ingestor is, and what opens it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Door {
    pub(crate) url: String,
    pub(crate) token: String,
}

/// A dead letter as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// By which it is named.
    pub id: String,
    /// Its database.
    pub database: String,
    /// Its table.
    pub table: String,
    /// CSV records.
    pub rows: u64,
    /// Length of its file.
    pub bytes: u64,
    /// When its first row came, milliseconds since 1970.
    pub created_ms: u64,
    /// Why it was refused.
    pub reason: String,
    /// Its rows, or some of them, may also be stored elsewhere.
    pub maybe_duplicate: bool,
    /// When it was refused, milliseconds since 1970, if that is known.
    #[serde(default)]
    pub died_ms: Option<u64>,
    /// The file.
    pub path: PathBuf,
}

impl From<wal::DeadLetter> for Letter {
    fn from(letter: wal::DeadLetter) -> Letter {
        let segment = letter.segment;
        Letter {
            id: segment.id.to_string(),
            database: segment.table.database.to_string(),
            table: segment.table.table.to_string(),
            rows: segment.rows,
            bytes: segment.bytes,
            created_ms: segment.created_ms,
            reason: letter.reason,
            maybe_duplicate: letter.maybe_duplicate,
            died_ms: letter.died_ms,
            path: segment.path,
        }
    }
}

/// What to do with dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Retry,
    Drop,
}

impl Action {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Action::Retry => "retry",
            Action::Drop => "drop",
        }
    }
}

pub(crate) fn letters(store: &Store) -> Vec<Letter> {
    store.dead_letters().into_iter().map(Letter::from).collect()
}

/// Does it durably with those that are dead letters.
pub(crate) async fn act(store: &Store, action: Action, ids: &[String]) -> Result<(), wal::Refusal> {
    let ids: Vec<SegmentId> = ids.iter().filter_map(|id| parse_id(id)).collect();
    let (done, outcome) = oneshot::channel();
    let done: wal::Done = Box::new(move |result| drop(done.send(result)));
    match action {
        Action::Retry => store.retry_dead_letters(ids, done),
        Action::Drop => store.drop_dead_letters(ids, done),
    }
    outcome.await.unwrap_or(Err(wal::Refusal::Closed)).map(drop)
}

pub(crate) fn parse_id(text: &str) -> Option<SegmentId> {
    u64::from_str_radix(text, 16).ok().map(SegmentId)
}

fn door_path(storage_dir: &Path) -> PathBuf {
    storage_dir.join("control").join("door.json")
}

/// Writes down where this ingestor is.
pub(crate) fn open_door(storage_dir: &Path, plain: SocketAddr) -> anyhow::Result<Door> {
    let ip = match plain.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let door = Door { url: format!("http://{}", SocketAddr::new(ip, plain.port())), token: uuid::Uuid::new_v4().simple().to_string() };
    let path = door_path(storage_dir);
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(storage_dir))?;
        let next = path.with_extension("new");
        let _ = fs::remove_file(&next);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
        file.write_all(&serde_json::to_vec(&door)?)?;
        fs::rename(&next, &path)
    };
    write().with_context(|| format!("writing {}", path.display()))?;
    Ok(door)
}

/// Where the ingestor of a storage directory is, if it was started ever.
pub(crate) fn find_door(storage_dir: &Path) -> anyhow::Result<Option<Door>> {
    let path = door_path(storage_dir);
    match fs::read(&path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}: it is for the owner of the storage directory", path.display())),
    }
}

/// The routes behind the door.
pub(crate) fn router(store: Store, door: &Door) -> Router {
    let expected = format!("Bearer {}", door.token);
    let check = axum::middleware::from_fn(move |request: Request, next: Next| {
        let given = request.headers().get(http::header::AUTHORIZATION).map(|value| value.as_bytes().to_vec()).unwrap_or_default();
        let good = bool::from(given.ct_eq(expected.as_bytes()));
        async move {
            match good {
                true => next.run(request).await,
                false => StatusCode::UNAUTHORIZED.into_response(),
            }
        }
    });
    Router::new()
        .route("/control/ledger", get(|State(store): State<Store>| async move { Json(LedgerReport::from(&store.ledger())) }))
        .route("/control/dead-letters", get(|State(store): State<Store>| async move { Json(letters(&store)) }))
        .route("/control/dead-letters/{id}", get(show))
        .route("/control/dead-letters/retry", post(|state, ids| change(state, Action::Retry, ids)))
        .route("/control/dead-letters/drop", post(|state, ids| change(state, Action::Drop, ids)))
        .layer(check)
        .with_state(store)
}

async fn show(State(store): State<Store>, UrlPath(id): UrlPath<String>) -> Response {
    let Some(id) = parse_id(&id) else { return StatusCode::NOT_FOUND.into_response() };
    match tokio::task::spawn_blocking(move || store.read_dead_letter(id)).await {
        Ok(Ok(image)) => image.into_response(),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => (StatusCode::NOT_FOUND, error.to_string()).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn change(State(store): State<Store>, action: Action, Json(ids): Json<Vec<String>>) -> Response {
    tracing::info!(?action, count = ids.len(), "dead letters, on command");
    match act(&store, action, &ids).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => (StatusCode::SERVICE_UNAVAILABLE, refusal.to_string()).into_response(),
    }
}
