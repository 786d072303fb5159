//! Numbers, times and tables as people read them.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// A table with a header line; columns whose title begins with `>` are aligned to the right.
pub(super) fn table(out: &mut impl Write, titles: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
    let mut grid = Table::new();
    grid.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    grid.set_header(titles.iter().map(|title| title.trim_start_matches('>')));
    grid.add_rows(rows);
    for (index, title) in titles.iter().enumerate() {
        let Some(column) = grid.column_mut(index) else { continue };
        column.set_padding((0, 2));
        if title.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    grid.to_string().lines().try_for_each(|line| writeln!(out, "{}", line.trim_end()))
}

/// A number, or `?` where nobody can tell.
pub(super) fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

/// How long ago, in the two largest units.
pub(super) fn age(since_ms: Option<u64>, now_ms: u64) -> String {
    let Some(since) = since_ms else { return "?".to_owned() };
    let seconds = now_ms.saturating_sub(since) / 1000;
    let rounded = match seconds {
        0..3600 => seconds,
        3600..86_400 => seconds / 60 * 60,
        _ => seconds / 3600 * 3600,
    };
    humantime::format_duration(Duration::from_secs(rounded)).to_string()
}

/// RFC 3339.
pub(super) fn time(ms: u64) -> String {
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(ms.min(253_402_300_799_999))).to_string()
}

/// `1 row`, `2 rows`.
pub(super) fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
