//! `adx-mon wal repair`.

use std::io::Write;
use std::path::{Path, PathBuf};

use ::wal::inspect::{self, Snapshot, Verification};
use ::wal::{OpenReport, RealDisk, Store};
use anyhow::{Context, Result};

use super::{show, snapshot, verify};

/// Options of `adx-mon wal repair`.
#[derive(clap::Args, Debug)]
pub(super) struct Options {
    /// Storage directories whose owner does not run, and segment files of the reference
    #[arg(value_name = "DIR|FILE", required = true)]
    paths: Vec<PathBuf>,
    /// Do it; without this only say what would be done
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(options: &Options, now_ms: u64, out: &mut impl Write) -> Result<bool> {
    for path in &options.paths {
        match (path.is_dir(), options.yes) {
            (true, _) if inspect::has_journal(&RealDisk, path) => directory(path, options.yes, now_ms, out)?,
            (true, _) => {
                let found = verify::of(path)?;
                let mut files: Vec<&PathBuf> = found.findings.iter().map(|finding| &finding.path).collect();
                files.dedup();
                for file in files {
                    single(file, options.yes, out)?;
                }
                if found.findings.is_empty() {
                    writeln!(out, "{}: nothing is damaged", path.display())?;
                }
            }
            (false, yes) => single(path, yes, out)?,
        }
    }
    if !options.yes {
        writeln!(out, "nothing was changed: --yes does it")?;
    }
    Ok(true)
}

/// A file that belongs to no journal.
fn single(path: &Path, yes: bool, out: &mut impl Write) -> Result<()> {
    let found = verify::of(path)?;
    if found.findings.is_empty() {
        writeln!(out, "{}: nothing is damaged", path.display())?;
        return Ok(());
    }
    found.findings.iter().try_for_each(|finding| writeln!(out, "{}", verify::line(finding)))?;
    let kept = format!("{} with {}", show::count(found.blocks as u64, "block"), show::count(found.rows, "row"));
    if !yes {
        writeln!(out, "{}: would keep {kept}, and move the rest to quarantine/", path.display())?;
        return Ok(());
    }
    let repaired = ::wal::repair::file(&RealDisk, path)?;
    writeln!(out, "{}: kept {kept}", path.display())?;
    repaired.aside.iter().try_for_each(|aside| writeln!(out, "damaged bytes are in {}", aside.display()))?;
    Ok(())
}

fn directory(dir: &Path, yes: bool, now_ms: u64, out: &mut impl Write) -> Result<()> {
    let snapshot = snapshot(dir)?;
    let found = verify::of(dir)?;
    verify::print(&found, out)?;
    if !yes {
        return plan(&snapshot, &found, out);
    }
    let options = ::wal::Options { max_disk_bytes: 0, ..::wal::Options::new(dir) };
    let (store, report) = Store::open(options, RealDisk::new(), now_ms)?;
    tell(dir, &report, out)?;
    // Recovery reads old segments no further than it must: a reader finds, sets aside and counts their damage.
    for segment in store.sealed() {
        if let Err(error) = store.open_segment(segment.id) {
            writeln!(out, "{}: {error}", segment.file_name)?;
        }
    }
    store.close();
    Ok(())
}

fn plan(snapshot: &Snapshot, found: &Verification, out: &mut impl Write) -> Result<()> {
    if found.torn_bytes > 0 {
        writeln!(out, "would cut {} of the journal", show::count(found.torn_bytes, "torn byte"))?;
    }
    if !found.findings.is_empty() {
        writeln!(out, "would move damaged bytes to {}", snapshot.dir.join("quarantine").display())?;
    }
    for item in snapshot.items.iter().filter(|item| item.rebuilt_from.is_some()) {
        writeln!(out, "would make {} again from the journal", item.file_name)?;
    }
    for item in snapshot.items.iter().filter(|item| item.place == inspect::Place::File) {
        writeln!(out, "would take over {}, a segment of the reference", item.file_name)?;
    }
    let last = snapshot.journal.as_ref().map_or(0, |facts| facts.last_lsn);
    writeln!(out, "would write a checkpoint behind LSN {last}").context("printing")
}

fn tell(dir: &Path, report: &OpenReport, out: &mut impl Write) -> Result<()> {
    let frames = show::count(report.frames, "frame");
    writeln!(out, "{}: read {frames} behind the checkpoint, {} from the journal", dir.display(), show::count(report.replayed_rows, "row"))?;
    if report.torn_bytes > 0 {
        writeln!(out, "cut {}", show::count(report.torn_bytes, "torn byte"))?;
    }
    for damage in &report.damage {
        let (bytes, rows) = (show::count(damage.bytes, "byte"), show::count(damage.rows, "row"));
        writeln!(out, "{}: {bytes} at byte {} are in quarantine/, {rows} lost", damage.path.display(), damage.offset)?;
    }
    if report.rebuilt > 0 {
        writeln!(out, "made {} again from the journal", show::count(report.rebuilt, "segment"))?;
    }
    report.adopted.iter().try_for_each(|name| writeln!(out, "took over {name}"))?;
    report.foreign.iter().try_for_each(|name| writeln!(out, "left {name} alone: it is not ours"))?;
    Ok(())
}
