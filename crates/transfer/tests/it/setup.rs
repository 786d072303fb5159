//! Stores in scratch folders, and receivers that can be made to misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use transfer::receiver::{self, ReceiverOptions};
use wal::segment::{BlockMeta, HEADER, Scratch, encode_block};
use wal::{RealDisk, Section, SectionBody, Store, TableKey};

pub(crate) const HEADER_LINE: &str = "Timestamp:datetime,Value:real\n";

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Opens a store that was closed; its folder is free once the last task has let go of it.
pub(crate) async fn reopen(dir: &std::path::Path) -> Store {
    for _ in 0..500 {
        match try_open(dir, |_| {}) {
            Err(wal::OpenError::Locked { .. }) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            opened => return opened.unwrap(),
        }
    }
    panic!("the store stays locked");
}

pub(crate) fn open(dir: &std::path::Path) -> Store {
    try_open(dir, |_| {}).unwrap()
}

fn try_open(dir: &std::path::Path, change: impl FnOnce(&mut wal::Options)) -> Result<Store, wal::OpenError> {
    let mut options = wal::Options::new(dir);
    options.durability = wal::Durability::Process;
    options.journal_file_bytes = 4 << 20;
    change(&mut options);
    Store::open(options, RealDisk::new(), now_ms()).map(|(store, _)| store)
}

pub(crate) fn key(table: &str) -> TableKey {
    TableKey::new("Metrics", table, "abc")
}

/// Commits rows and seals them.
pub(crate) fn write(store: &Store, table: &str, rows: std::ops::Range<u32>) {
    let csv: String = rows.clone().map(|i| format!("2026-01-01T00:00:00Z,{i}\n")).collect();
    let section = Section {
        table: key(table),
        header: HEADER_LINE.as_bytes().into(),
        sample_type: 1,
        rows: rows.len() as u32,
        body: SectionBody::Rows(csv.into_bytes()),
    };
    store.commit_wait(wal::Request { sections: vec![section], ..Default::default() }).unwrap();
    store.seal_all().unwrap();
}

/// The CSV rows of a store's sealed segments, sorted.
pub(crate) fn rows(store: &Store) -> Vec<String> {
    store.seal_all().unwrap();
    let mut rows: Vec<String> = Vec::new();
    for info in store.sealed() {
        let image = store.read_segment(info.id).unwrap();
        let csv = wal::segment::values(&image, true);
        rows.extend(String::from_utf8(csv).unwrap().lines().map(str::to_owned));
    }
    rows.sort();
    rows
}

/// A segment image, one block for each text, header line added.
pub(crate) fn image(blocks: &[&str]) -> Vec<u8> {
    let mut out = HEADER.to_vec();
    for value in blocks {
        let meta = BlockMeta { sample_type: 1, rows: value.lines().count() as u32 };
        let value = format!("{HEADER_LINE}{value}");
        encode_block(&mut out, meta, value.as_bytes(), &mut Scratch::default());
    }
    out
}

/// What happens to the next transfers.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    /// So many answers are lost behind the receiver.
    pub(crate) lose_answers: Arc<AtomicUsize>,
    pub(crate) requests: Arc<AtomicUsize>,
}

pub(crate) struct Peer {
    pub(crate) store: Store,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) url: String,
    pub(crate) faults: Faults,
    pub(crate) server: tokio::task::JoinHandle<()>,
}

pub(crate) async fn peer() -> Peer {
    peer_with(|_| {}).await
}

pub(crate) async fn peer_with(change: impl FnOnce(&mut ReceiverOptions)) -> Peer {
    limited_peer(|_| {}, change).await
}

/// A peer that takes data while `taking`, and whose databases are `full` or not.
pub(crate) async fn peer_that_takes(taking: &Arc<AtomicBool>, full: &Arc<AtomicBool>) -> Peer {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (url, server) = serve(router_that_takes(store.clone(), taking, full)).await;
    Peer { store, dir, url, faults: Faults::default(), server }
}

pub(crate) fn router_that_takes(store: Store, taking: &Arc<AtomicBool>, full: &Arc<AtomicBool>) -> Router {
    let (taking, full) = (taking.clone(), full.clone());
    let full: receiver::Full = Arc::new(move |_| full.load(Ordering::Relaxed).then(|| "full".to_owned()));
    let options = ReceiverOptions { full: Some(full), ..ReceiverOptions::default() };
    let ready = move || if taking.load(Ordering::Relaxed) { Ok(()) } else { Err("not now".to_owned()) };
    receiver::router(store, options, Arc::new(ready))
}

pub(crate) async fn limited_peer(limit: impl FnOnce(&mut wal::Options), change: impl FnOnce(&mut ReceiverOptions)) -> Peer {
    let dir = tempfile::tempdir().unwrap();
    let store = try_open(dir.path(), limit).unwrap();
    let mut options = ReceiverOptions::default();
    change(&mut options);
    let faults = Faults::default();
    let router = receiver::router(store.clone(), options, Arc::new(|| Ok(()))).layer(from_fn_with_state(faults.clone(), misbehave));
    let (url, server) = serve(router).await;
    Peer { store, dir, url, faults, server }
}

pub(crate) async fn serve(router: Router) -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, server)
}

async fn misbehave(State(faults): State<Faults>, request: Request, next: Next) -> Response {
    let transfer = request.method() == http::Method::POST;
    let response = next.run(request).await;
    if transfer {
        faults.requests.fetch_add(1, Ordering::SeqCst);
        let lost = faults.lose_answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if lost.is_ok() {
            return StatusCode::GATEWAY_TIMEOUT.into_response();
        }
    }
    response
}

pub(crate) fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}
