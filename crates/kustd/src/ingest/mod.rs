//! Ingestion: bytes in one of Kusto's text formats become one typed Arrow batch of a table.
//!
//! Structure is strict, values are not: a body that cannot be split into records and fields is refused whole, with the
//! row (and column) at which that shows; a cell that does not fit its column's type becomes null.

mod builder;
mod delimited;
mod json;
mod mapping;
mod stream;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::Schema;

use crate::catalog::{StoredMapping, Table};
use crate::storage::columns::stored_field;
use crate::text;
use builder::ColumnBuilder;
use mapping::Transform;

pub(crate) use mapping::check as check_mapping;
pub(crate) use stream::{Limits, Unread, read_stream};

/// Formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Delimited text with that byte between fields.
    Delimited(u8),
    /// One JSON object per line.
    Json,
    /// JSON objects one after another or in arrays.
    MultiJson,
}

impl Format {
    /// The kind of mapping that goes with the format.
    pub(crate) fn mapping_kind(self) -> &'static str {
        match self {
            Format::Delimited(_) => "csv",
            Format::Json | Format::MultiJson => "json",
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Format, String> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "csv" => Format::Delimited(b','),
            "tsv" | "tsve" => Format::Delimited(b'\t'),
            "psv" => Format::Delimited(b'|'),
            "scsv" => Format::Delimited(b';'),
            "sohsv" => Format::Delimited(1),
            "json" => Format::Json,
            "multijson" => Format::MultiJson,
            _ => return Err(format!("the format '{name}' is not supported: use csv, tsv, psv, scsv, sohsv, json or multijson")),
        })
    }
}

/// Why a body was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadInput {
    /// Row from 1, 0 when it is about the whole.
    row: u64,
    column: Option<String>,
    what: String,
}

impl BadInput {
    fn row(row: u64, what: impl Into<String>) -> BadInput {
        BadInput { row, column: None, what: what.into() }
    }

    fn cell(row: u64, column: &str, what: impl Into<String>) -> BadInput {
        BadInput { row, column: Some(column.to_owned()), what: what.into() }
    }

    /// Whether a row is to blame, and not the mapping or the whole body.
    pub(crate) fn is_about_a_row(&self) -> bool {
        self.row > 0
    }
}

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.row, &self.column) {
            (0, _) => f.write_str(&self.what),
            (row, Some(column)) => write!(f, "row {row}, column '{column}': {}", self.what),
            (row, None) => write!(f, "row {row}: {}", self.what),
        }
    }
}

impl std::error::Error for BadInput {}

/// How a body is to be read.
pub(crate) struct Reading<'a> {
    /// Its format.
    pub(crate) format: Format,
    /// Mapping to use; by position or by name without one.
    pub(crate) mapping: Option<&'a StoredMapping>,
    /// The first record is a header.
    pub(crate) skip_first: bool,
}

/// Where a text stands in a longer one.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    /// Records before it.
    before: u64,
    /// More text follows.
    more: bool,
}

/// What was read of a text.
struct Taken {
    /// Bytes; the rest begins with an unfinished record.
    bytes: usize,
    /// Records, a header included.
    records: u64,
    /// Records that became rows.
    rows: u64,
}

/// Reads `body` into one batch whose columns are those of the table, in its order.
pub(crate) fn read(table: &Table, reading: &Reading<'_>, body: &[u8]) -> Result<RecordBatch, BadInput> {
    read_part(table, reading, body, Part::default()).map(|(batch, _)| batch)
}

fn read_part(table: &Table, reading: &Reading<'_>, body: &[u8], part: Part) -> Result<(RecordBatch, Taken), BadInput> {
    let rules = match (reading.mapping, reading.format) {
        (Some(mapping), _) => mapping::parse(&mapping.json, table).map_err(|what| BadInput::row(0, what))?,
        (None, Format::Delimited(_)) => mapping::by_position(table),
        (None, Format::Json | Format::MultiJson) => mapping::by_name(table),
    };
    let mut builders: Vec<ColumnBuilder> = table.columns.iter().map(|column| ColumnBuilder::new(column.ty)).collect();
    let taken = match reading.format {
        Format::Delimited(delimiter) => delimited::read(body, part, delimiter, reading.skip_first, table, &rules, &mut builders)?,
        Format::Json => json::read_lines(body, part, table, &rules, &mut builders)?,
        Format::MultiJson => {
            let rows = json::read_multi(body, table, &rules, &mut builders)?;
            Taken { bytes: body.len(), records: rows, rows }
        }
    };
    let arrays: Vec<ArrayRef> = builders.into_iter().map(ColumnBuilder::finish).collect();
    let fields: Vec<_> = table.columns.iter().zip(&arrays).map(|(column, array)| stored_field(column, array.data_type())).collect();
    let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(usize::try_from(taken.rows).ok());
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|error| BadInput::row(0, format!("building columns: {error}")))?;
    Ok((batch, taken))
}

/// Appends a text cell.
fn push_cell(builder: &mut ColumnBuilder, cell: &str, transform: Transform) {
    match transform {
        Transform::None => builder.push_text(cell),
        Transform::Unix(per_second) => {
            builder.push_datetime(text::parse_long(cell).and_then(|n| text::unix_ticks(n, per_second)));
        }
    }
}
