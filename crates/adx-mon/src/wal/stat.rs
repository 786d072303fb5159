//! `adx-mon wal stat`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use ::wal::inspect::{JournalFacts, Snapshot};
use ::wal::{Counts, TableKey};
use anyhow::Result;
use serde_json::{Value, json};

use super::{Format, or_here, show, snapshot};

/// Options of `adx-mon wal stat`.
#[derive(clap::Args, Debug)]
pub(super) struct Options {
    /// Storage directories; the current folder by default
    #[arg(value_name = "DIR")]
    paths: Vec<PathBuf>,
    /// How to print
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) fn run(options: &Options, out: &mut impl Write) -> Result<bool> {
    for dir in or_here(&options.paths) {
        let snapshot = snapshot(&dir)?;
        match options.format {
            Format::Table => print(&snapshot, out)?,
            Format::Json => writeln!(out, "{}", as_json(&snapshot))?,
        }
    }
    Ok(true)
}

/// The ledger; of a directory without a journal the rows that are there.
fn tables(snapshot: &Snapshot) -> BTreeMap<TableKey, Counts> {
    if let Some(facts) = &snapshot.journal {
        return facts.ledger.tables.clone();
    }
    let mut tables: BTreeMap<TableKey, Counts> = BTreeMap::new();
    for item in &snapshot.items {
        if let (Some(table), Some(rows)) = (&item.table, item.rows) {
            tables.entry(table.clone()).or_default().on_disk += rows;
        }
    }
    tables
}

const COUNTS: [&str; 8] = ["accepted", "forwarded", "landed", "dead_lettered", "quarantined", "dropped", "on_disk", "maybe_duplicate"];

fn values(counts: &Counts) -> [u64; 8] {
    let Counts { accepted, forwarded, landed, dead_lettered, quarantined, dropped, on_disk, maybe_duplicate } = *counts;
    [accepted, forwarded, landed, dead_lettered, quarantined, dropped, on_disk, maybe_duplicate]
}

fn print(snapshot: &Snapshot, out: &mut impl Write) -> Result<()> {
    let tables = tables(snapshot);
    let mut total = [0; 8];
    let mut rows = Vec::new();
    for (key, counts) in &tables {
        let values = values(counts);
        total.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        let names = [&key.database, &key.table, &key.schema].map(|part| part.to_string());
        rows.push(names.into_iter().chain(values.map(|value| value.to_string())).collect());
    }
    rows.push(["total", "", ""].map(str::to_owned).into_iter().chain(total.map(|value| value.to_string())).collect());
    let titles: Vec<String> = COUNTS.iter().map(|name| format!(">{}", name.to_uppercase().replace('_', " "))).collect();
    let titles: Vec<&str> = ["DATABASE", "TABLE", "SCHEMA"].into_iter().chain(titles.iter().map(String::as_str)).collect();
    show::table(out, &titles, rows)?;
    match &snapshot.journal {
        Some(facts) => print_facts(facts, out)?,
        None => writeln!(out, "no journal: a directory of the reference")?,
    }
    snapshot.foreign.iter().try_for_each(|name| writeln!(out, "not ours: {name}"))?;
    Ok(())
}

fn print_facts(facts: &JournalFacts, out: &mut impl Write) -> Result<()> {
    writeln!(out, "sender: {}", show::hex(&facts.sender))?;
    let checkpoint = facts.checkpoint_lsn.map_or_else(|| "none".to_owned(), |lsn| format!("LSN {lsn}"));
    let (files, bytes) = (show::count(facts.files as u64, "file"), show::count(facts.bytes, "byte"));
    writeln!(out, "journal: {files}, {bytes}, last LSN {}, durable up to LSN {}", facts.last_lsn, facts.durable_lsn)?;
    writeln!(out, "checkpoint: {checkpoint}, {} behind it", show::count(facts.frames, "frame"))?;
    for ((database, reason), rows) in &facts.ledger.filtered {
        writeln!(out, "filtered: {} of {database}: {reason}", show::count(*rows, "row"))?;
    }
    for (database, (next, floor)) in &facts.numbers {
        writeln!(out, "numbers: {database}: next {next}, lowest unsettled {floor}")?;
    }
    for (id, database, floor, remembered, seen_ms) in &facts.senders {
        let (id, seen) = (show::hex(id), show::time(*seen_ms));
        writeln!(out, "receives: {id} {database}: floor {floor}, {remembered} remembered, last at {seen}")?;
    }
    for batch in &facts.batches {
        let segments = show::count(batch.segments.len() as u64, "segment");
        writeln!(out, "batch: {}: {:?}, {segments}", show::hex(&batch.id), batch.state)?;
    }
    for (key, value) in &facts.marks {
        writeln!(out, "mark: {}: {}", key.escape_ascii(), value.escape_ascii())?;
    }
    writeln!(out, "conflicts: {}, ledger resets: {}", facts.ledger.conflicts, facts.ledger.resets)?;
    Ok(())
}

fn as_json(snapshot: &Snapshot) -> Value {
    let table = |(key, counts): (&TableKey, &Counts)| {
        let mut object = json!({ "database": &*key.database, "table": &*key.table, "schema": &*key.schema });
        COUNTS.iter().zip(values(counts)).for_each(|(name, value)| object[*name] = value.into());
        object
    };
    json!({
        "directory": snapshot.dir.display().to_string(),
        "tables": tables(snapshot).iter().map(table).collect::<Vec<_>>(),
        "journal": snapshot.journal.as_ref().map(facts_json),
        "foreign": snapshot.foreign,
    })
}

fn facts_json(facts: &JournalFacts) -> Value {
    let filtered = facts
        .ledger
        .filtered
        .iter()
        .map(|((database, reason), rows)| json!({ "database": &**database, "reason": &**reason, "rows": rows }));
    let numbers = facts.numbers.iter().map(|(database, (next, floor))| json!({ "database": database, "next": next, "floor": floor }));
    let senders = facts.senders.iter().map(|(id, database, floor, remembered, seen_ms)| {
        json!({ "sender": show::hex(id), "database": database, "floor": floor, "remembered": remembered, "seen": show::time(*seen_ms) })
    });
    let batches = facts.batches.iter().map(|batch| {
        let segments: Vec<String> = batch.segments.iter().map(ToString::to_string).collect();
        json!({ "batch": show::hex(&batch.id), "state": format!("{:?}", batch.state), "segments": segments })
    });
    let marks =
        facts.marks.iter().map(|(key, value)| json!({ "key": key.escape_ascii().to_string(), "value": value.escape_ascii().to_string() }));
    json!({
        "sender": show::hex(&facts.sender),
        "files": facts.files,
        "bytes": facts.bytes,
        "checkpoint_lsn": facts.checkpoint_lsn,
        "frames_behind_checkpoint": facts.frames,
        "last_lsn": facts.last_lsn,
        "durable_lsn": facts.durable_lsn,
        "filtered": filtered.collect::<Vec<_>>(),
        "numbers": numbers.collect::<Vec<_>>(),
        "senders": senders.collect::<Vec<_>>(),
        "batches": batches.collect::<Vec<_>>(),
        "marks": marks.collect::<Vec<_>>(),
        "conflicts": facts.ledger.conflicts,
        "ledger_resets": facts.ledger.resets,
    })
}
