//! `adx-mon wal ls`.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use ::wal::TableKey;
use ::wal::inspect::{self, Item};
use anyhow::Result;
use serde_json::json;

use super::{Filter, Format, Place, or_here, show};

/// Options of `adx-mon wal ls`.
#[derive(clap::Args, Debug)]
pub(super) struct Options {
    /// Storage directories and segment files; the current folder by default
    #[arg(value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    filter: Filter,
    /// How to print
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) fn run(options: &Options, now_ms: u64, out: &mut impl Write) -> Result<bool> {
    let mut items: Vec<Item> = Vec::new();
    for path in or_here(&options.paths) {
        let place = Place::of(&path)?;
        items.extend(place.items().iter().filter(|item| options.filter.takes(item.table.as_ref())).cloned());
    }
    items.sort_by(|a, b| (&a.table, a.since_ms, &a.path).cmp(&(&b.table, b.since_ms, &b.path)));
    match options.format {
        Format::Table => as_table(&items, now_ms, out)?,
        Format::Json => items.iter().try_for_each(|item| writeln!(out, "{}", as_json(item, now_ms)))?,
    }
    Ok(true)
}

fn as_table(items: &[Item], now_ms: u64, out: &mut impl Write) -> Result<()> {
    let row = |item: &Item| {
        let part = |part: fn(&TableKey) -> &Arc<str>| item.table.as_ref().map_or_else(|| "?".to_owned(), |key| part(key).to_string());
        vec![
            part(|key| &key.database),
            part(|key| &key.table),
            part(|key| &key.schema),
            item.place.name().to_owned(),
            show::number(item.rows),
            item.bytes.to_string(),
            show::age(item.since_ms, now_ms),
            name(item),
        ]
    };
    show::table(out, &["DATABASE", "TABLE", "SCHEMA", "STATE", ">ROWS", ">BYTES", ">AGE", "FILE"], items.iter().map(row).collect())?;
    let rows = items.iter().filter_map(|item| item.rows).sum();
    let bytes = items.iter().map(|item| item.bytes).sum();
    writeln!(out, "total: {}, {}", show::count(rows, "row"), show::count(bytes, "byte"))?;
    Ok(())
}

fn name(item: &Item) -> String {
    let file = item.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match (item.place, item.rebuilt_from, &item.reason) {
        (inspect::Place::Journal, ..) => "-".to_owned(),
        (_, Some(_), _) => format!("{file} (not whole: made again from the journal)"),
        (.., Some(reason)) => format!("{file} ({reason})"),
        _ => file,
    }
}

fn as_json(item: &Item, now_ms: u64) -> serde_json::Value {
    let key = item.table.as_ref();
    json!({
        "database": key.map(|key| &*key.database),
        "table": key.map(|key| &*key.table),
        "schema": key.map(|key| &*key.schema),
        "state": item.place.name(),
        "rows": item.rows,
        "bytes": item.bytes,
        "since": item.since_ms.map(show::time),
        "age_seconds": item.since_ms.map(|since| now_ms.saturating_sub(since) / 1000),
        "number": item.number,
        "digest": item.digest.map(|digest| format!("{digest:016x}")),
        "reason": item.reason,
        "rebuilt": item.rebuilt_from.is_some(),
        "path": item.path.display().to_string(),
    })
}
