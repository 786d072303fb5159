//! How long a start takes after a kill, with many sealed segments.
//!
//! ```text
//! cargo run --release -p wal --example wal_restart -- [segments] [rows per segment] [directory]
//! ```
//! The first store is left without closing it, by a process of its own that ends at once.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use wal::{Options, RealDisk, Request, Section, SectionBody, Store, TableKey};

const NOW: u64 = 1_760_000_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| args.get(i).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (segments, rows) = (number(0, 10_000), number(1, 100));
    let dir = args.get(2).map_or_else(|| std::env::temp_dir().join("wal-restart"), PathBuf::from);
    if std::env::var_os("WAL_RESTART_FILL").is_some() {
        fill(&dir, segments, rows)?;
        // No destructor runs: the store is not closed.
        std::process::exit(0);
    }
    let _ = std::fs::remove_dir_all(&dir);
    let mut child = Command::new(std::env::current_exe()?);
    child.args([segments.to_string(), rows.to_string()]).arg(&dir).env("WAL_RESTART_FILL", "1");
    assert!(child.status()?.success(), "filling failed");

    let start = Instant::now();
    let (store, report) = Store::open(Options::new(&dir), RealDisk::new(), NOW + 60_000)?;
    let elapsed = start.elapsed();
    assert_eq!(store.sealed().len(), segments);
    let (frames, replayed) = (report.frames, report.replayed_rows);
    writeln!(std::io::stdout(), "{segments} segments, {frames} frames, {replayed} rows read back: {elapsed:?}")?;
    store.close();
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Sealed segments of 5,000 tables, then a second of rows that are in the journal alone.
fn fill(dir: &std::path::Path, segments: usize, rows: usize) -> Result<(), Box<dyn std::error::Error>> {
    let (store, _) = Store::open(Options::new(dir), RealDisk::new(), NOW)?;
    let mut sealed = 0;
    while sealed < segments {
        let tables = (segments - sealed).min(5000);
        commit(&store, tables, rows)?;
        store.seal_all()?;
        sealed += tables;
    }
    commit(&store, 250, 100)?;
    std::mem::forget(store);
    Ok(())
}

fn commit(store: &Store, tables: usize, rows: usize) -> Result<(), Box<dyn std::error::Error>> {
    let header: Arc<[u8]> = Arc::from(&b"Timestamp:datetime,SeriesId:long,Labels:dynamic,Value:real\n"[..]);
    for from in (0..tables).step_by(100) {
        let section = |table: usize| {
            let mut body = Vec::new();
            for row in 0..rows {
                let hash = ((table * 131 + row) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let labels = format!("{{\"\"host\"\":\"\"{:x}\"\",\"\"pad\"\":\"\"{}\"\"}}", hash, "x".repeat(250));
                let _ = writeln!(body, "2025-10-09T08:00:00Z,{},\"{labels}\",1", hash as i64);
            }
            Section {
                table: TableKey::new("Metrics", format!("Table{table}"), "2cawzsrvl4mw4"),
                header: header.clone(),
                sample_type: 1,
                rows: rows as u32,
                body: SectionBody::Rows(body),
            }
        };
        let sections = (from..tables.min(from + 100)).map(section).collect();
        store.commit_wait(Request { sections, ..Request::default() })?;
    }
    Ok(())
}
