//! `/debug/store`: what the store holds, as text for people.

use std::fmt::Write;

/// Segments listed at most; the totals above them count all.
const LISTED_SEGMENTS: usize = 1000;

/// The page.
pub(crate) fn store_page(store: &wal::Store, exporters: &str) -> String {
    let mut page = String::from("backend=adx\n\n");
    // Writing to a String does not fail.
    let _ = usage(&mut page, &store.usage());
    let _ = ledger(&mut page, &store.ledger());
    if !exporters.is_empty() {
        let _ = write!(page, "\nExporters:\n{exporters}");
    }
    let _ = segments(&mut page, &store.sealed());
    page
}

fn usage(page: &mut String, usage: &wal::Usage) -> std::fmt::Result {
    writeln!(
        page,
        "Store: {} bytes on disk, journal {} bytes, in memory {} bytes",
        usage.total_bytes, usage.journal_bytes, usage.memtable_bytes
    )?;
    writeln!(page, "Dead letters: {} bytes, quarantine: {} bytes", usage.dead_bytes, usage.quarantine_bytes)?;
    if let Some(refusal) = &usage.refusing {
        writeln!(page, "REFUSING: {refusal}")?;
    }
    writeln!(page, "\nBytes waiting per database:")?;
    for (database, bytes) in &usage.databases {
        writeln!(page, "  {database:<40} {bytes:>14}")?;
    }
    Ok(())
}

fn ledger(page: &mut String, ledger: &wal::Ledger) -> std::fmt::Result {
    match ledger.check() {
        Ok(()) => writeln!(page, "\nLedger (rows), balanced:")?,
        Err(error) => writeln!(page, "\nLedger (rows), NOT BALANCED: {error}")?,
    }
    writeln!(page, "  {:<60} {:>12} {:>12} {:>12} {:>12}", "table", "accepted", "forwarded", "on disk", "lost or dead")?;
    for (table, c) in &ledger.tables {
        let lost = c.dead_lettered + c.quarantined + c.dropped;
        writeln!(page, "  {:<60} {:>12} {:>12} {:>12} {lost:>12}", table.to_string(), c.accepted, c.forwarded, c.on_disk)?;
    }
    Ok(())
}

fn segments(page: &mut String, sealed: &[wal::SegmentInfo]) -> std::fmt::Result {
    writeln!(page, "\nClosed segments: {}", sealed.len())?;
    for segment in sealed.iter().take(LISTED_SEGMENTS) {
        writeln!(page, "  {} {} bytes {} rows", segment.file_name, segment.bytes, segment.rows)?;
    }
    if sealed.len() > LISTED_SEGMENTS {
        writeln!(page, "  ... and {} more", sealed.len() - LISTED_SEGMENTS)?;
    }
    Ok(())
}
