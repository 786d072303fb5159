//! Readiness, and `/debug/store`: what is kept, for people.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wal::Store;

use crate::metrics::{by_database, places};

/// How long an answer about the store stays good enough.
const FRESH: Duration = Duration::from_millis(250);
/// Tables that `/debug/store` lists.
const LISTED: usize = 1000;

/// Whether data is taken: not while the store refuses, too many segments wait, or the disk is used
/// up. Cheap enough to be asked with every request.
pub(crate) fn readiness(
    store: Store,
    max_segments: u64,
    max_bytes: u64,
    stopping: tokio_util::sync::CancellationToken,
) -> Arc<dyn Fn() -> Result<(), String> + Send + Sync> {
    let cached: Mutex<Option<(Instant, Result<(), String>)>> = Mutex::new(None);
    Arc::new(move || {
        if stopping.is_cancelled() {
            return Err("the ingestor is stopping".to_owned());
        }
        let mut cached = cached.lock();
        if let Some((asked, answer)) = &*cached
            && asked.elapsed() < FRESH
        {
            return answer.clone();
        }
        let answer = check(&store, max_segments, max_bytes);
        *cached = Some((Instant::now(), answer.clone()));
        answer
    })
}

fn check(store: &Store, max_segments: u64, max_bytes: u64) -> Result<(), String> {
    let usage = store.usage();
    if let Some(refusal) = usage.refusing {
        return Err(refusal.to_string());
    }
    if usage.segments as u64 >= max_segments {
        return Err(format!("MaxSegmentsExceeded: {} segments wait", usage.segments));
    }
    if max_bytes > 0 && usage.total_bytes >= max_bytes {
        return Err(format!("MaxDiskUsageExceeded: {} bytes are used", usage.total_bytes));
    }
    Ok(())
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
