//! Telemetry to systems other than Kusto: metrics over OTLP and Prometheus remote write, logs over the fluent forward
//! protocol.
//!
//! Each exporter has a [`Buffer`] of its own, a small store beside the main one: what is handed to an exporter is on
//! disk before the sender of the data hears that it was taken, and an [`Exporter`] task reads it back, oldest first, turns it into
//! messages ([`Client`]) and lets it go once the receiver has it. A receiver that is away for longer than the buffer is large
//! costs its oldest data, counted; it never holds up the main path. Delivery is at least once.
//!
//! The clients are usable alone: [`otlp::Pusher`] sends batches without a buffer, for those who can make them again.

mod attempt;
mod buffer;
mod exporter;
pub mod fluent;
pub mod fuzzing;
mod http;
mod metrics;
pub mod otlp;
pub mod remote_write;
mod retry;
mod samples;
mod tls;

pub use attempt::{Again, Failure, Pushed};
pub use buffer::{Buffer, BufferOptions, Clock};
pub use exporter::{Added, Client, Exporter, ExporterOptions, Origin, Status};
pub use http::{HttpOptions, redacted};
pub use metrics::Metrics;
pub use retry::RetryPolicy;
