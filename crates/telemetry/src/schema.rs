//! Table schemas: the default columns of metrics, logs and traces, and the columns lifted out of labels.

use crate::{hash, names};
use std::sync::Arc;

/// One column: its name and Kusto type.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Column {
    /// Column name, ASCII letters and digits.
    pub name: String,
    /// Kusto type: `datetime`, `long`, `dynamic`, …
    pub kind: &'static str,
}

/// Columns of a table in the order of its CSV fields.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Schema {
    /// The columns.
    pub columns: Vec<Column>,
    /// The line `Name:type,Name:type\n` that precedes rows in a segment.
    pub header: Arc<[u8]>,
    /// XXH64 of names and types in base 36, part of a segment's file name.
    pub hash: Arc<str>,
}

/// Kind of rows, as the segment format's block header numbers them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum SampleType {
    /// Not said.
    Unknown = 0,
    /// Metric samples.
    Metric = 1,
    /// Spans.
    Trace = 2,
    /// Log records.
    Log = 3,
}

/// A label or resource key that gets a column of its own instead of a place in the JSON object. Of resource keys
/// that differ in case only, the one written like the name counts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lift {
    /// The label or resource key, matched without regard to ASCII case.
    pub name: String,
    /// The column; the label's name when absent. Normalised like a metric name.
    pub column: Option<String>,
}

impl Lift {
    /// Name of the column, normalised.
    pub fn column_name(&self) -> String {
        names::normalize_metric(self.column.as_deref().unwrap_or(&self.name))
    }
}

const METRIC_COLUMNS: &[(&str, &str)] = &[("Timestamp", "datetime"), ("SeriesId", "long"), ("Labels", "dynamic"), ("Value", "real")];

const LOG_COLUMNS: &[(&str, &str)] = &[
    ("Timestamp", "datetime"),
    ("ObservedTimestamp", "datetime"),
    ("TraceId", "string"),
    ("SpanId", "string"),
    ("SeverityText", "string"),
    ("SeverityNumber", "int"),
    ("Body", "dynamic"),
    ("Resource", "dynamic"),
    ("Attributes", "dynamic"),
];

/// Columns of `OTELTraces` as Microsoft's OpenTelemetry exporter for Azure Data Explorer names them.
const TRACE_COLUMNS: &[(&str, &str)] = &[
    ("TraceID", "string"),
    ("SpanID", "string"),
    ("ParentID", "string"),
    ("SpanName", "string"),
    ("SpanStatus", "string"),
    ("SpanKind", "string"),
    ("StartTime", "datetime"),
    ("EndTime", "datetime"),
    ("ResourceAttributes", "dynamic"),
    ("TraceAttributes", "dynamic"),
    ("Events", "dynamic"),
    ("Links", "dynamic"),
];

impl Schema {
    /// A schema of the given columns.
    pub fn new(columns: Vec<Column>) -> Self {
        let mut header = String::new();
        for column in &columns {
            if !header.is_empty() {
                header.push(',');
            }
            header.push_str(&column.name);
            header.push(':');
            header.push_str(column.kind);
        }
        header.push('\n');
        let hash = hash::base36(hash::schema_hash(&columns)).into();
        Self { columns, header: header.into_bytes().into(), hash }
    }

    /// Metrics, with string columns for the lifted labels in the order given.
    pub fn metrics(lifts: &[Lift]) -> Self {
        Self::with_lifts(METRIC_COLUMNS, lifts)
    }

    /// Logs, with string columns for the lifted resource keys in the order given.
    pub fn logs(lifts: &[Lift]) -> Self {
        Self::with_lifts(LOG_COLUMNS, lifts)
    }

    /// Spans.
    pub fn traces() -> Self {
        Self::with_lifts(TRACE_COLUMNS, &[])
    }

    fn with_lifts(base: &[(&str, &'static str)], lifts: &[Lift]) -> Self {
        let base = base.iter().map(|&(name, kind)| Column { name: name.to_owned(), kind });
        let lifted = lifts.iter().map(|lift| Column { name: lift.column_name(), kind: "string" });
        Self::new(base.chain(lifted).collect())
    }
}
