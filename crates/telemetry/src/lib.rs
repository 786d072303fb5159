//! Telemetry in memory: what arrives as remote write, OTLP or an exposition page leaves as CSV rows per table.
//!
//! An *intake* ([`MetricIntake`], [`LogIntake`], [`TraceIntake`]) holds the settings of one source, decodes a
//! request body by borrowing from it, filters, and appends rows to a [`RowSet`]. Nothing here knows HTTP, disks or
//! an async runtime. A body that cannot be framed at all is a [`DecodeError`]; one bad series, point or record is
//! counted in the [`Outcome`] and leaves its neighbours alone.

mod added;
pub mod client;
mod error;
pub mod export;
pub mod hash;
mod labels;
mod logs;
mod metrics;
pub mod names;
mod otlp;
mod rows;
pub mod rules;
mod schema;
pub mod text;
mod traces;
mod wire;

pub use added::Added;
pub use error::{DecodeError, Encoding, Outcome};
pub use logs::{LogIntake, LogOptions};
pub use metrics::{ExpositionFormat, MetricIntake, PageProgress, Reading, STALE, ScrapedPage, SeriesSet, Written, is_stale};
pub use otlp::view::{AnyView, ListView, LogRecordView, MapView, otlp_log_records};
pub use rows::{Destination, Grouped, RowSet, RowsOfTable, Table, TableRows};
pub use schema::{Column, Lift, SampleType, Schema};
pub use traces::{TraceIntake, TraceOptions};
