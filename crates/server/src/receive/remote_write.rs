//! Prometheus remote write 1.0: a Snappy block with a `prometheus.WriteRequest`.
//!
//! Headers are read leniently, as senders in the field expect: the body is taken for Snappy
//! whatever `Content-Encoding` says. Only a declared other message (remote write 2.0) is refused,
//! with the 415 on which such a sender falls back to 1.0.

use std::cell::RefCell;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use http::{HeaderMap, StatusCode, header};
use telemetry::{MetricIntake, Outcome, RowSet};

use super::{Received, on_this_task, plain, retry_after};
use crate::body::{BodyError, read_wire, snappy_block, snappy_len};
use crate::room::Room;
use crate::{BodyLimits, Refused, Sink};

struct Receiver {
    intake: Arc<MetricIntake>,
    sink: Arc<dyn Sink>,
    limits: BodyLimits,
}

/// The receiver of remote write.
///
/// | answer | when |
/// |---|---|
/// | 202 | everything that the rules keep is durable |
/// | 400 | the body or some series are malformed; the other series are durable |
/// | 413, 415 | too large; not remote write 1.0 |
/// | 429 + `Retry-After` | the store is full; nothing was stored |
/// | 500 | the store failed; retry |
/// | 503 + `Retry-After` | too much at a time; nothing was stored |
pub fn remote_write(intake: Arc<MetricIntake>, sink: Arc<dyn Sink>, limits: BodyLimits) -> MethodRouter {
    post(receive).with_state(Arc::new(Receiver { intake, sink, limits }))
}

async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Body) -> Response {
    match receiver.store(&headers, body).await {
        Ok(outcome) => answer(&outcome),
        Err(failure) => failure.into_response(),
    }
}

impl Receiver {
    async fn store(&self, headers: &HeaderMap, body: Body) -> Result<Outcome, Failure> {
        refuse_other_messages(headers)?;
        self.sink.ready().map_err(|reason| Failure::Sink(Refused::overloaded(reason)))?;
        // Held until the rows are stored.
        let mut room = Room::new();
        let wire = read_wire(&mut room, headers, body, self.limits.wire).await?;
        let inflated = snappy_len(&wire, self.limits.inflated)?;
        room.grow_to(wire.len() + inflated).await?;
        let mut rows = RowSet::new();
        let outcome = on_this_task(inflated, || self.decode(&wire, &mut rows))?;
        drop(wire);
        self.sink.commit(rows, outcome.filtered).await.map_err(Failure::Sink)?;
        Ok(outcome)
    }

    fn decode(&self, wire: &[u8], rows: &mut RowSet) -> Result<Outcome, Failure> {
        INFLATED.with_borrow_mut(|inflated| {
            snappy_block(wire, self.limits.inflated, inflated)?;
            let outcome = self.intake.remote_write(inflated, rows).map_err(|e| Failure::Message(e.to_string()));
            if inflated.capacity() > KEEP_INFLATED_BYTES {
                *inflated = Vec::new();
            }
            outcome
        })
    }
}

thread_local! {
    /// The inflated body of the request that this thread decodes now.
    static INFLATED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Larger buffers are given back rather than kept per thread.
const KEEP_INFLATED_BYTES: usize = 4 << 20;

fn refuse_other_messages(headers: &HeaderMap) -> Result<(), Failure> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let proto = content_type.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("proto="));
    match proto.map(|p| p.trim_matches('"')) {
        None | Some("prometheus.WriteRequest") => Ok(()),
        Some(other) => Err(Failure::OtherMessage(other.to_owned())),
    }
}

fn answer(outcome: &Outcome) -> Response {
    let mut response = if outcome.rejected == 0 {
        StatusCode::ACCEPTED.into_response()
    } else {
        let first = outcome.first_error.as_deref().unwrap_or("unknown");
        let text = format!("rejected {} samples, stored {}; first: {first}", outcome.rejected, outcome.accepted);
        plain(StatusCode::BAD_REQUEST, &text)
    };
    response.extensions_mut().insert(Received::from(outcome));
    response
}

enum Failure {
    Body(BodyError),
    Message(String),
    OtherMessage(String),
    Sink(Refused),
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        Failure::Body(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Failure::Body(error) => {
                let mut response = plain(error.status(), &error.to_string());
                error.retry_after().into_iter().for_each(|delay| retry_after(&mut response, delay));
                response
            }
            Failure::Message(text) => plain(StatusCode::BAD_REQUEST, &text),
            Failure::OtherMessage(proto) => plain(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                &format!("unsupported remote write message {proto:?}: send prometheus.WriteRequest (remote write 1.0)"),
            ),
            Failure::Sink(Refused::Overloaded { retry_after: delay, reason }) => {
                let mut response = plain(StatusCode::TOO_MANY_REQUESTS, &format!("Overloaded. Retry later: {reason}"));
                retry_after(&mut response, delay);
                response
            }
            Failure::Sink(Refused::Invalid(text)) => plain(StatusCode::BAD_REQUEST, &text),
            Failure::Sink(Refused::Failed(text)) => plain(StatusCode::INTERNAL_SERVER_ERROR, &text),
        }
    }
}
