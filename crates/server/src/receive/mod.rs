//! Receivers: a request body in, rows in the store, an answer in the protocol's own words.
//!
//! Every receiver works the same way: refuse at once what the store could not take (before the body
//! is read), read the body within its limits, decode on the request's own task, commit, answer.
//! Series and records that cannot be used are counted and named in the answer; their neighbours are
//! stored.

pub mod grpc;
mod otlp;
mod remote_write;
pub(crate) mod status;

use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::MethodRouter;
use http::{HeaderValue, StatusCode, header};
use telemetry::Outcome;

pub use otlp::{LogDecoder, otlp_logs, otlp_metrics, otlp_traces};
pub use remote_write::remote_write;

/// What a receiver did with one request, in the extensions of its response, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    /// Rows stored.
    pub accepted: u64,
    /// Samples or records removed by rules.
    pub filtered: u64,
    /// Samples or records that could not be used.
    pub rejected: u64,
}

impl From<&Outcome> for Received {
    fn from(outcome: &Outcome) -> Self {
        Received { accepted: outcome.accepted, filtered: outcome.filtered, rejected: outcome.rejected }
    }
}

/// Bounds the time of every request of `routes`; past it the answer is 503 with `Retry-After`.
pub fn with_timeout(routes: MethodRouter, limit: Duration) -> MethodRouter {
    routes.layer(axum::middleware::from_fn(move |request: Request, next: Next| async move {
        match tokio::time::timeout(limit, next.run(request)).await {
            Ok(response) => response,
            Err(_) => crate::listen::too_slow(limit),
        }
    }))
}

/// Bodies of at least this many bytes may take milliseconds to decode, during which the other tasks
/// of the thread should move elsewhere.
const LONG_DECODE_BYTES: usize = 256 << 10;

/// Runs `decode` of `body_bytes` on this task; a long one in a way that does not hold up other tasks.
pub fn on_this_task<T>(body_bytes: usize, decode: impl FnOnce() -> T) -> T {
    let flavor = tokio::runtime::Handle::current().runtime_flavor();
    if body_bytes >= LONG_DECODE_BYTES && flavor == tokio::runtime::RuntimeFlavor::MultiThread {
        tokio::task::block_in_place(decode)
    } else {
        decode()
    }
}

pub(crate) fn retry_after(response: &mut Response, delay: Duration) {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(delay.as_secs().max(1)));
}

pub(crate) fn plain(status: StatusCode, text: &str) -> Response {
    axum::response::IntoResponse::into_response((status, format!("{text}\n")))
}
