//! The HTTP shell that collector, ingestor and kustd share: listeners with limits, request bodies
//! with limits, the remote-write and OTLP receivers in front of the store, health and metrics
//! endpoints, and logging.
//!
//! The way of a request: [`serve`] accepts the connection, [`receive`] reads the body with
//! [`read_body`], decodes it on the request's own task and hands the rows to a [`Sink`], which
//! answers only once they are durable.

pub mod auth;
mod body;
mod exposition;
pub mod fuzzing;
mod listen;
mod logging;
mod operations;
pub mod profile;
pub mod receive;
mod room;
mod sink;
pub mod tls;

pub use auth::{Auth, AuthOptions};
pub use body::{BodyError, BodyLimits, inflate_limited, read_body};
pub use listen::{Connections, Limits, serve, serve_counted};
pub use logging::init_logging;
pub use operations::{ClockJumps, ListenerMetrics, metrics_endpoint, operations_router, run_store_ticks};
pub use sink::{Marks, Refused, Sink, WalSink, section};
pub use tls::{Tls, TlsFiles, install_crypto};
