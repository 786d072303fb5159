//! `adx-mon wal verify`.

use std::io::Write;
use std::path::{Path, PathBuf};

use ::wal::RealDisk;
use ::wal::inspect::{Finding, Verification};
use anyhow::{Context, Result};
use serde_json::json;

use super::{Format, or_here, show, snapshot};

/// Options of `adx-mon wal verify`.
#[derive(clap::Args, Debug)]
pub(super) struct Options {
    /// Storage directories and segment files; the current folder by default
    #[arg(value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    /// How to print
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Whether nothing is damaged.
pub(super) fn run(options: &Options, out: &mut impl Write) -> Result<bool> {
    let mut all = Verification::default();
    for path in or_here(&options.paths) {
        all.merge(of(&path)?);
    }
    match options.format {
        Format::Table => print(&all, out)?,
        Format::Json => writeln!(out, "{}", as_json(&all))?,
    }
    Ok(all.findings.is_empty())
}

/// Checks a directory or a file.
pub(super) fn of(path: &Path) -> Result<Verification> {
    if !path.is_dir() {
        return Verification::of_file(&RealDisk, path).with_context(|| format!("reading {}", path.display()));
    }
    snapshot(path)?;
    Ok(Verification::of_directory(&RealDisk, path)?)
}

/// One finding as a line.
pub(super) fn line(finding: &Finding) -> String {
    let rows = finding.rows.map_or_else(|| "an unknown number of rows".to_owned(), |rows| show::count(rows, "row"));
    let bytes = show::count(finding.bytes, "byte");
    format!("{}: {} at byte {}: {bytes}, {rows} lost", finding.path.display(), finding.kind, finding.offset)
}

pub(super) fn print(all: &Verification, out: &mut impl Write) -> Result<()> {
    all.findings.iter().try_for_each(|finding| writeln!(out, "{}", line(finding)))?;
    let (files, blocks) = (show::count(all.files as u64, "file"), show::count(all.blocks as u64, "block"));
    let (rows, frames) = (show::count(all.rows, "row"), show::count(all.frames as u64, "frame"));
    let found = match all.findings.len() {
        0 => "nothing is damaged".to_owned(),
        n => show::count(n as u64, "damaged place"),
    };
    writeln!(out, "{files}, {blocks}, {rows}, {frames} of the journal: {found}")?;
    if all.torn_bytes > 0 {
        writeln!(out, "{} at the end of the journal were never acknowledged: no damage", show::count(all.torn_bytes, "byte"))?;
    }
    if all.rebuilt > 0 {
        writeln!(out, "{} not whole yet, and in the journal: no damage", show::count(all.rebuilt as u64, "segment"))?;
    }
    Ok(())
}

fn as_json(all: &Verification) -> serde_json::Value {
    let finding = |finding: &Finding| {
        json!({
            "path": finding.path.display().to_string(),
            "offset": finding.offset,
            "bytes": finding.bytes,
            "kind": finding.kind,
            "rows_lost": finding.rows,
        })
    };
    json!({
        "files": all.files,
        "blocks": all.blocks,
        "rows": all.rows,
        "frames": all.frames,
        "torn_bytes": all.torn_bytes,
        "rebuilt": all.rebuilt,
        "findings": all.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}
