//! What the fuzz targets call: readers of bytes from outside, with the properties that hold for any input.

use kql::Type;

use crate::catalog::{StoredMapping, Table};
use crate::ingest::{BadInput, Format, Reading, read};
use crate::queued::Message;

/// One column of every type.
const COLUMNS: [(&str, Type); 10] = [
    ("Bool", Type::Bool),
    ("Int", Type::Int),
    ("Long", Type::Long),
    ("Real", Type::Real),
    ("Decimal", Type::Decimal),
    ("String", Type::String),
    ("DateTime", Type::DateTime),
    ("TimeSpan", Type::TimeSpan),
    ("Guid", Type::Guid),
    ("Dynamic", Type::Dynamic),
];

/// Reads `bytes` as a message of queued ingestion: as they are, and as what Base64 holds.
///
/// # Panics
/// When the reader does, when a message is taken that lacks what every message needs, or when the blob's signature shows in
/// what reports say of it.
pub fn queue_message(bytes: &[u8]) {
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
    for text in [&*String::from_utf8_lossy(bytes), &encoded] {
        let message = Message::read(text);
        if message.what.is_ok() {
            let named = !message.id.is_nil() && !message.database.is_empty() && !message.table.is_empty() && !message.blob.is_empty();
            assert!(named, "a message was taken that names nothing: {message:?}");
        }
        assert!(!message.source().contains('?'), "a source has a signature");
    }
}

/// Reads `bytes` as CSV into a table with a column of every type: by position and through a mapping that reverses the
/// fields, with and without a header.
///
/// # Panics
/// When a column of the batch is not as long as the rows that were counted, when the mapping changes how many rows there
/// are, or when a header is anything but one row less.
pub fn csv(bytes: &[u8]) {
    let mut table = Table::new(&"Db".into(), "T", 0);
    for (name, ty) in COLUMNS {
        table.add_column(name, ty);
    }
    let reversed = reversing_mapping();
    let by_position = rows(&table, None, false, bytes);
    let by_mapping = rows(&table, Some(&reversed), false, bytes);
    assert_eq!(by_position.as_ref().ok(), by_mapping.as_ref().ok(), "both read the same fields");
    for (mapping, all) in [(None, by_position), (Some(&reversed), by_mapping)] {
        let behind_header = rows(&table, mapping, true, bytes);
        if let Ok(all) = all {
            assert_eq!(behind_header, Ok(all.saturating_sub(1)), "a header is one row");
        }
    }
}

/// The first field goes to the last column, and so on.
fn reversing_mapping() -> StoredMapping {
    let entry =
        |(at, (name, _)): (usize, (&str, Type))| serde_json::json!({ "Column": name, "Properties": { "Ordinal": COLUMNS.len() - 1 - at } });
    let entries: serde_json::Value = COLUMNS.into_iter().enumerate().map(entry).collect();
    StoredMapping { json: entries.to_string(), updated: 0 }
}

fn rows(table: &Table, mapping: Option<&StoredMapping>, skip_first: bool, bytes: &[u8]) -> Result<usize, BadInput> {
    let reading = Reading { format: Format::Delimited(b','), mapping, skip_first };
    match read(table, &reading, bytes) {
        Ok(batch) => Ok(batch.num_rows()),
        Err(error) => {
            assert!(error.is_about_a_row(), "columns and rows differ: {error}");
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn csv_of_all_kinds() {
        for text in [
            "",
            "\u{feff}true,1,2,3.5,4.25,text,2024-01-01,1.02:03:04,74be27de-1e4e-49d9-b579-fe0b331d3642,\"{\"\"a\"\":1}\"\n",
            "a\r\n\r\nb,c\r\"d",
            "\"a\nb\",\"",
            ",,,,,,,,,,,,,,,,\n\n\n",
        ] {
            super::csv(text.as_bytes());
        }
        super::csv(b"\xff,\xfe\n\xff");
    }
}
