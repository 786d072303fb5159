//! Prometheus remote write: a Snappy block with a `prometheus.WriteRequest` (1.0), or with an
//! `io.prometheus.write.v2.Request` (2.0) where `Content-Type` says so.
//!
//! Headers of 1.0 are read leniently, as senders in the field expect: the body is taken for Snappy
//! whatever `Content-Encoding` says. Any other declared message is refused with 415, and so is another
//! coding of 2.0. Answers to 2.0 say how many samples and histograms were written; exemplars never are.

use std::cell::RefCell;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use telemetry::{MetricIntake, RowSet, Written};

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
/// | 202, 204 of version 2.0 | everything that the rules keep is durable |
/// | 400 | the body or some series are malformed; the other series are durable |
/// | 413, 415 | too large; a message or coding that is neither of 1.0 nor of 2.0 |
/// | 429 + `Retry-After` | the store is full; nothing was stored |
/// | 500 | the store failed; retry |
/// | 503 + `Retry-After` | too much at a time; nothing was stored |
pub fn remote_write(intake: Arc<MetricIntake>, sink: Arc<dyn Sink>, limits: BodyLimits) -> MethodRouter {
    post(receive).with_state(Arc::new(Receiver { intake, sink, limits }))
}

async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Body) -> Response {
    let version = match Version::of(&headers) {
        Ok(version) => version,
        Err(failure) => return failure.into_response(),
    };
    match receiver.store(version, &headers, body).await {
        Ok(written) => answer(version, &written),
        // Nothing was written, and a missing header says that.
        Err(failure) => failure.into_response(),
    }
}

impl Receiver {
    async fn store(&self, version: Version, headers: &HeaderMap, body: Body) -> Result<Written, Failure> {
        self.sink.ready().map_err(|reason| Failure::Sink(Refused::overloaded(reason)))?;
        // Held until the rows are stored.
        let mut room = Room::new();
        let wire = read_wire(&mut room, headers, body, self.limits.wire).await?;
        let inflated = snappy_len(&wire, self.limits.inflated)?;
        room.grow_to(wire.len() + inflated).await?;
        let mut rows = RowSet::new();
        let written = on_this_task(inflated, || self.decode(version, &wire, &mut rows))?;
        drop(wire);
        self.sink.commit(rows, written.outcome.filtered).await.map_err(Failure::Sink)?;
        Ok(written)
    }

    fn decode(&self, version: Version, wire: &[u8], rows: &mut RowSet) -> Result<Written, Failure> {
        INFLATED.with_borrow_mut(|inflated| {
            snappy_block(wire, self.limits.inflated, inflated)?;
            let written = match version {
                Version::One => self.intake.remote_write(inflated, rows).map(|outcome| Written { outcome, ..Written::default() }),
                Version::Two => self.intake.remote_write_2(inflated, rows),
            };
            if inflated.capacity() > KEEP_INFLATED_BYTES {
                *inflated = Vec::new();
            }
            written.map_err(|e| Failure::Message(e.to_string()))
        })
    }
}

thread_local! {
    /// The inflated body of the request that this thread decodes now.
    static INFLATED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Larger buffers are given back rather than kept per thread.
const KEEP_INFLATED_BYTES: usize = 4 << 20;

/// Which message a body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    fn of(headers: &HeaderMap) -> Result<Version, Failure> {
        let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or_default().trim();
        let mut parameters = text(header::CONTENT_TYPE).split(';').skip(1).map(str::trim);
        match parameters.find_map(|parameter| parameter.strip_prefix("proto=")).map(|proto| proto.trim_matches('"')) {
            None | Some("prometheus.WriteRequest") => Ok(Version::One),
            Some("io.prometheus.write.v2.Request") => match text(header::CONTENT_ENCODING) {
                "" => Ok(Version::Two),
                coding if coding.eq_ignore_ascii_case("snappy") => Ok(Version::Two),
                coding => Err(Failure::OtherCoding(coding.to_owned())),
            },
            Some(other) => Err(Failure::OtherMessage(other.to_owned())),
        }
    }
}

fn answer(version: Version, written: &Written) -> Response {
    let outcome = &written.outcome;
    let mut response = match (outcome.rejected, version) {
        (0, Version::One) => StatusCode::ACCEPTED.into_response(),
        (0, Version::Two) => StatusCode::NO_CONTENT.into_response(),
        _ => {
            let first = outcome.first_error.as_deref().unwrap_or("unknown");
            let text = format!("rejected {} samples, stored {}; first: {first}", outcome.rejected, outcome.accepted);
            plain(StatusCode::BAD_REQUEST, &text)
        }
    };
    if version == Version::Two {
        let counts = [("samples", written.samples), ("histograms", written.histograms), ("exemplars", 0)];
        for (kind, count) in counts {
            if let Ok(name) = HeaderName::try_from(format!("x-prometheus-remote-write-{kind}-written")) {
                response.headers_mut().insert(name, HeaderValue::from(count));
            }
        }
    }
    response.extensions_mut().insert(Received::from(outcome));
    response
}

enum Failure {
    Body(BodyError),
    Message(String),
    OtherMessage(String),
    OtherCoding(String),
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
                &format!("unsupported remote write message {proto:?}: send io.prometheus.write.v2.Request or prometheus.WriteRequest"),
            ),
            Failure::OtherCoding(coding) => {
                plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, &format!("unsupported Content-Encoding {coding:?} of remote write: use snappy"))
            }
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
