//! Log records on their way through the collector: from lines and OTLP requests to rows, without I/O.
//!
//! ```text
//! line of a file ─▶ LineReader ─────────────▶ Entry ─▶ Parsers ─▶ Record ─▶ Transforms ─▶ Batch ─▶ RowSet
//!                   format, parts, multi-line   │                   ▲                        ▲
//!                                               └───────────────────┼── no parser, transform ┘
//! OTLP request ─▶ otlp_records ─────────────────────────────────────┘
//! ```
//!
//! - A [`LineReader`] belongs to one file. It takes lines, joins what belongs together and shows each whole message as
//!   an [`Entry`]. What has begun and not ended is bounded, and can be saved with the file's cursor.
//! - An [`Entry`] goes straight into a [`Batch`] ([`Batch::line`]), or becomes a [`Record`] ([`Entry::record`]) when it
//!   has to be parsed, changed or exported ([`Batch::record`]).
//! - [`Transforms`] are what a configuration does to records; each worker has its own clone.
//! - An [`Encoder`] holds what the rows of a source have in common. A resource is encoded once for each file
//!   ([`Encoder::resource`]).
//!
//! ```
//! use std::sync::Arc;
//! use logs::{Batch, Destination, Encoder, LineFormat, LineOptions, LineReader};
//!
//! let encoder = Encoder::new(Default::default(), Vec::new());
//! let resource = encoder.resource(&logs::Map::from([("pod".to_owned(), "web-1".into())]));
//! let destination = Destination::new("Logs", "Web").unwrap();
//! let mut reader = LineReader::new(Arc::new(LineOptions { format: LineFormat::Cri, ..Default::default() }));
//!
//! let mut batch = Batch::new(&encoder);
//! let line = b"2024-01-02T03:04:05Z stdout F hello";
//! reader.push(line, 0, 1_700_000_000_000_000_000, |entry| {
//!     batch.line(&entry, &resource, &destination).unwrap();
//! });
//! let (rows, counts) = batch.finish();
//! assert_eq!((counts.rows, rows.tables()[0].rows), (1, 1));
//! ```

mod encode;
mod lines;
mod multi_line;
mod otlp;
mod parsers;
mod record;
mod transforms;
mod value;

pub use encode::{Batch, BatchCounts, EncodedResource, Encoder, NoRow};
pub use lines::{DEFAULT_MAX_BYTES, Entry, LineCounts, LineFormat, LineOptions, LineReader, StateError};
pub use multi_line::{Language, MultiLine, MultiLineSettings};
pub use otlp::otlp_records;
pub use parsers::{Parser, Parsers};
pub use record::{Destination, MESSAGE, Record, Severity};
pub use transforms::{PathStep, TransformCounts, TransformError, Transforms};
pub use value::{Map, Value};
