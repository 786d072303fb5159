//! Readiness, and `/debug/store`: what is kept, for people.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::Query;
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wal::Store;

use crate::config::Config;
use crate::ledger::LedgerReport;
use crate::metrics::{by_database, places};
use crate::upload::{Worker, WorkerStatus};

/// How long an answer about the store stays good enough.
const FRESH: Duration = Duration::from_millis(250);
/// Tables that `/debug/store` lists.
const LISTED: usize = 1000;

/// Whether data is taken. Cheap enough to be asked with every request.
pub(crate) struct Admission {
    store: Store,
    max_segments: u64,
    max_bytes: u64,
    /// What waits for each database.
    databases: Vec<(String, watch::Receiver<WorkerStatus>)>,
    stopping: CancellationToken,
    cached: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl Admission {
    pub(crate) fn new(store: Store, config: &Config, workers: &[Worker], stopping: CancellationToken) -> Admission {
        Admission {
            store,
            max_segments: config.max_segment_count,
            max_bytes: config.max_disk_bytes,
            databases: workers.iter().map(|w| (w.database.clone(), w.status.clone())).collect(),
            stopping,
            cached: Mutex::new(None),
        }
    }

    /// Whether the process takes data at all: not while it stops, the store refuses, the disk is used
    /// up, or every database is full.
    pub(crate) fn ready(&self) -> Result<(), String> {
        if self.stopping.is_cancelled() {
            return Err("the ingestor is stopping".to_owned());
        }
        let mut cached = self.cached.lock();
        if let Some((asked, answer)) = &*cached
            && asked.elapsed() < FRESH
        {
            return answer.clone();
        }
        let answer = self.check();
        *cached = Some((Instant::now(), answer.clone()));
        answer
    }

    fn check(&self) -> Result<(), String> {
        let usage = self.store.usage();
        if let Some(refusal) = usage.refusing {
            return Err(refusal.to_string());
        }
        if self.max_bytes > 0 && usage.total_bytes >= self.max_bytes {
            return Err(format!("MaxDiskUsageExceeded: {} bytes are used", usage.total_bytes));
        }
        let full: Vec<String> = self.databases.iter().filter_map(|(name, _)| self.full(name)).collect();
        match full.first() {
            Some(why) if full.len() == self.databases.len() => Err(why.clone()),
            _ => Ok(()),
        }
    }

    /// Why a database takes no more for now: too many of its segments wait. The others go on.
    pub(crate) fn full(&self, database: &str) -> Option<String> {
        let (_, status) = self.databases.iter().find(|(name, _)| name == database)?;
        let waiting = status.borrow().pending as u64;
        let full = self.max_segments > 0 && waiting >= self.max_segments;
        full.then(|| format!("MaxSegmentsExceeded: {waiting} segments of database {database} wait"))
    }
}

/// In which form an answer is wanted.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Format {
    format: Option<String>,
}

/// `/debug/ledger`: JSON for those who ask for it with `?format=json` or an `Accept` header, text for others.
pub(crate) fn ledger(store: &Store, Query(format): Query<Format>, headers: &HeaderMap) -> Response {
    let report = LedgerReport::from(&store.ledger());
    let accept = headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match format.format.as_deref() {
        Some("json") => Json(report).into_response(),
        None if accept.contains("application/json") => Json(report).into_response(),
        _ => report.to_string().into_response(),
    }
}

/// The text of `/debug/store`.
pub(crate) fn describe(store: &Store) -> String {
    let (usage, ledger) = (store.usage(), store.ledger());
    let mut out = String::new();
    let _ = writeln!(out, "bytes {} (journal {}, memory {})", usage.total_bytes, usage.journal_bytes, usage.memtable_bytes);
    let _ = writeln!(
        out,
        "sealed segments {}, dead letters {} bytes, quarantine {} bytes",
        usage.segments, usage.dead_bytes, usage.quarantine_bytes
    );
    if let Some(refusing) = &usage.refusing {
        let _ = writeln!(out, "refusing: {refusing}");
    }
    if let Err(error) = ledger.check() {
        let _ = writeln!(out, "{error}");
    }
    for (database, counts) in by_database(&ledger) {
        let waiting = usage.databases.get(&database).copied().unwrap_or_default();
        let _ = writeln!(out, "\ndatabase {database}: {waiting} bytes wait");
        for (place, rows) in places(&counts) {
            let _ = writeln!(out, "  {place:<16}{rows:>16}");
        }
    }
    let _ = writeln!(out, "\n{:<60}{:>16}{:>16}{:>16}", "table", "accepted", "landed", "on disk");
    for (table, c) in ledger.tables.iter().take(LISTED) {
        let _ = writeln!(out, "{:<60}{:>16}{:>16}{:>16}", table.to_string(), c.accepted, c.landed, c.on_disk);
    }
    if ledger.tables.len() > LISTED {
        let _ = writeln!(out, "… and {} more", ledger.tables.len() - LISTED);
    }
    out
}
