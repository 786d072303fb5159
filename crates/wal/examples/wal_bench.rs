//! What a row costs: CPU time and bytes written, for remote-write samples of about 340 CSV bytes.
//!
//! ```text
//! cargo run --release -p wal --example wal_bench -- [rows] [tables] [rows per table and request] [directory]
//! ```
//! Segments are settled as a healthy sender would do it. CPU time is that of the whole process, without
//! making the rows.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wal::{Options, Outcome, RealDisk, Request, Section, SectionBody, Settlement, Store, TableKey};

const HEADER: &[u8] = b"Timestamp:datetime,SeriesId:long,Labels:dynamic,Value:real\n";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let mut number = |default: usize| args.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (rows, tables, per_table) = (number(1_000_000), number(500), number(10));
    let dir = args.next().map_or_else(|| std::env::temp_dir().join("wal-bench"), PathBuf::from);
    let _ = std::fs::remove_dir_all(&dir);

    let tables_per_request = (1000 / per_table).clamp(1, tables);
    let mut requests = Vec::new();
    let mut made = 0;
    let mut csv_bytes = 0;
    while made < rows {
        let (request, bytes) = request(requests.len(), tables, tables_per_request, per_table);
        made += tables_per_request * per_table;
        csv_bytes += bytes;
        requests.push(request);
    }

    let (store, report) = Store::open(Options::new(&dir), RealDisk::new(), now(0))?;
    assert_eq!(report.frames, 0, "a new directory");
    let cpu = cpu_time();
    let start = Instant::now();
    let mut latencies = Vec::with_capacity(requests.len());
    for (i, request) in requests.into_iter().enumerate() {
        let sent = Instant::now();
        store.commit_wait(request)?;
        latencies.push(sent.elapsed());
        if i % 8 == 0 {
            // 1000 rows a request, 25,000 rows a second: 40 ms.
            store.tick(now(i as u64 * 40));
            settle(&store)?;
        }
    }
    store.seal_all()?;
    settle(&store)?;
    let (elapsed, cpu) = (start.elapsed(), cpu_time() - cpu);
    let written = store.usage().written_bytes;
    store.ledger().check()?;
    store.close();

    latencies.sort();
    let percentile = |p: usize| latencies[(latencies.len() - 1) * p / 100];
    let mut out = std::io::stdout().lock();
    writeln!(out, "{made} rows in {tables} tables, {per_table} rows per table and request")?;
    writeln!(out, "csv bytes per row      {:8.1}", csv_bytes as f64 / made as f64)?;
    writeln!(out, "bytes written per row  {:8.1}", written as f64 / made as f64)?;
    writeln!(out, "cpu us per row         {:8.3}", cpu.as_secs_f64() * 1e6 / made as f64)?;
    writeln!(out, "rows per second        {:8.0}", made as f64 / elapsed.as_secs_f64())?;
    writeln!(out, "commit p50 {:?}, p99 {:?}", percentile(50), percentile(99))?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn now(ms: u64) -> u64 {
    1_760_000_000_000 + ms
}

fn settle(store: &Store) -> Result<(), Box<dyn std::error::Error>> {
    let items: Vec<Settlement> = store
        .sealed()
        .into_iter()
        .map(|info| Settlement { segment: info.id, outcome: Outcome::Forwarded, reason: String::new(), maybe_duplicate: false })
        .collect();
    if !items.is_empty() {
        store.settle_wait(items)?;
    }
    Ok(())
}

/// One request as Prometheus sends it: a thousand samples, the same metric of many series side by side.
fn request(number: usize, tables: usize, tables_per_request: usize, per_table: usize) -> (Request, usize) {
    let header: Arc<[u8]> = HEADER.into();
    let mut sections = Vec::with_capacity(tables_per_request);
    let mut total = 0;
    for t in 0..tables_per_request {
        let table = (number * tables_per_request + t) % tables;
        let mut body = Vec::new();
        for r in 0..per_table {
            let series = (number * per_table + r) * 7919 % 20_000;
            let hash = (series as u64 ^ table as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let value = (hash >> 40) as f64 / 16.0;
            let _ = writeln!(
                body,
                "2025-10-09T08:{:02}:{:02}.123Z,{},\"{{\"\"cluster\"\":\"\"prod-westeurope-1\"\",\"\"container\"\":\"\"app-{}\"\",\
                 \"\"host\"\":\"\"aks-nodepool1-{:08}-vmss{:06x}\"\",\"\"namespace\"\":\"\"team-{}\"\",\"\"pod\"\":\"\"app-{}-{:08x}-{:05x}\"\",\
                 \"\"instance\"\":\"\"10.{}.{}.{}:9090\"\",\"\"job\"\":\"\"kubernetes-pods\"\",\"\"region\"\":\"\"westeurope\"\"}}\",{}",
                number / 60 % 60,
                number % 60,
                hash as i64,
                series % 40,
                31_415_926,
                series % 97,
                series % 12,
                series % 40,
                (hash >> 20) as u32,
                (hash >> 3) & 0xFFFFF,
                series % 200,
                series % 250,
                series % 251,
                value,
            );
        }
        total += body.len();
        sections.push(Section {
            table: TableKey::new("Metrics", format!("HttpServerRequestDuration{table}"), "2cawzsrvl4mw4"),
            header: header.clone(),
            sample_type: 1,
            rows: per_table as u32,
            body: SectionBody::Rows(body),
        });
    }
    (Request { sections, ..Request::default() }, total)
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    // Fields 14 and 15 of proc(5), in hundredths of a second.
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
