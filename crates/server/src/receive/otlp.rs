//! OTLP for logs, metrics and traces in protobuf and JSON, over HTTP; gRPC is in [`super::grpc`].
//!
//! Source of the rules: the OTLP specification, "OTLP/HTTP". Answers are in the request's encoding;
//! errors carry `google.rpc.Status`; 429 and 503 mean "retry", with `Retry-After`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use telemetry::{DecodeError, Encoding, LogIntake, MetricIntake, Outcome, RowSet, TraceIntake};

use super::status::{self, Code};
use super::{Received, on_this_task, retry_after};
use crate::body::{BodyError, read_body_into};
use crate::room::Room;
use crate::{BodyLimits, Refused, Sink};

/// What differs between the three signals.
pub(super) trait Signal: Send + Sync + 'static {
    /// JSON name of the count of rejected items.
    const REJECTED: &'static str;
    /// What the items are called in messages.
    const ITEMS: &'static str;
    /// Start of the message about an unreadable body.
    const UNREADABLE: &'static str;
    /// Message about items that name no destination.
    const UNROUTED: &'static str = "";

    fn decode(&self, body: &[u8], encoding: Encoding, rows: &mut RowSet) -> Result<Outcome, DecodeError>;

    /// Why a request that was read is refused as a whole.
    fn refuse(_outcome: &Outcome) -> Option<String> {
        None
    }
}

impl Signal for MetricIntake {
    const REJECTED: &'static str = "rejectedDataPoints";
    const ITEMS: &'static str = "data points";
    const UNREADABLE: &'static str = "Unable to unmarshal ExportMetricsServiceRequest.";

    fn decode(&self, body: &[u8], encoding: Encoding, rows: &mut RowSet) -> Result<Outcome, DecodeError> {
        self.otlp(body, encoding, rows)
    }
}

/// What makes rows of OTLP log requests.
pub trait LogDecoder: Send + Sync + 'static {
    /// Decodes an `ExportLogsServiceRequest` into rows.
    ///
    /// # Errors
    /// When the body cannot be read as a whole.
    fn decode_logs(&self, body: &[u8], encoding: Encoding, rows: &mut RowSet) -> Result<Outcome, DecodeError>;
}

impl LogDecoder for LogIntake {
    fn decode_logs(&self, body: &[u8], encoding: Encoding, rows: &mut RowSet) -> Result<Outcome, DecodeError> {
        self.otlp(body, encoding, rows)
    }
}

impl<D: LogDecoder> Signal for D {
    const REJECTED: &'static str = "rejectedLogRecords";
    const ITEMS: &'static str = "log records";
    const UNREADABLE: &'static str = "Failed to unmarshal request body:";
    const UNROUTED: &'static str = "Logs lacking kusto.database and kusto.table attributes or body fields";

    fn decode(&self, body: &[u8], encoding: Encoding, rows: &mut RowSet) -> Result<Outcome, DecodeError> {
        self.decode_logs(body, encoding, rows)
    }

    fn refuse(outcome: &Outcome) -> Option<String> {
        match outcome {
            Outcome { accepted: 0, rejected: 0, filtered: 0, .. } => Some("No logs to process.".to_owned()),
            Outcome { accepted: 0, filtered: 0, .. } => Some(all_dropped("logs", "otel-log", outcome)),
            _ => None,
        }
    }
}

impl Signal for TraceIntake {
    const REJECTED: &'static str = "rejectedSpans";
    const ITEMS: &'static str = "spans";
    const UNREADABLE: &'static str = "Failed to unmarshal request body:";
    const UNROUTED: &'static str = "Spans lacking kusto.database and kusto.table attributes";

    fn decode(&self, body: &[u8], encoding: Encoding, rows: &mut RowSet) -> Result<Outcome, DecodeError> {
        self.otlp(body, encoding, rows)
    }

    fn refuse(outcome: &Outcome) -> Option<String> {
        match outcome {
            Outcome { accepted: 0, filtered: 0, rejected: 1.., .. } => Some(all_dropped("spans", "otel-trace", outcome)),
            _ => None,
        }
    }
}

/// Why nothing of a request was stored; in the reference's words where it is for want of a destination.
fn all_dropped(items: &str, section: &str, outcome: &Outcome) -> String {
    if outcome.unrouted < outcome.rejected {
        return format!("All {items} dropped. First: {}", outcome.first_error.as_deref().unwrap_or_default());
    }
    format!(
        "All {items} dropped. Required kusto.database and kusto.table attributes or body fields are missing. \
         Set the attributes, or a default destination in [{section}] of the configuration."
    )
}

/// Message of a partial success.
fn partly_dropped<S: Signal>(outcome: &Outcome) -> String {
    if outcome.unrouted == outcome.rejected {
        return S::UNROUTED.to_owned();
    }
    let first = outcome.first_error.as_deref().unwrap_or_default();
    format!("{} {} were not stored; first: {first}", outcome.rejected, S::ITEMS)
}

/// What stores the requests of one signal, whatever protocol brings them.
pub(super) struct Receiver<S> {
    pub(super) signal: Arc<S>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) limits: BodyLimits,
}

/// The receiver of `ExportMetricsServiceRequest`.
pub fn otlp_metrics(intake: Arc<MetricIntake>, sink: Arc<dyn Sink>, limits: BodyLimits) -> MethodRouter {
    receiver(intake, sink, limits)
}

/// The receiver of `ExportLogsServiceRequest`.
pub fn otlp_logs(intake: Arc<impl LogDecoder>, sink: Arc<dyn Sink>, limits: BodyLimits) -> MethodRouter {
    receiver(intake, sink, limits)
}

/// The receiver of `ExportTraceServiceRequest`.
pub fn otlp_traces(intake: Arc<TraceIntake>, sink: Arc<dyn Sink>, limits: BodyLimits) -> MethodRouter {
    receiver(intake, sink, limits)
}

fn receiver<S: Signal>(signal: Arc<S>, sink: Arc<dyn Sink>, limits: BodyLimits) -> MethodRouter {
    post(receive::<S>).with_state(Arc::new(Receiver { signal, sink, limits }))
}

async fn receive<S: Signal>(State(receiver): State<Arc<Receiver<S>>>, headers: HeaderMap, body: Body) -> Response {
    let encoding = match encoding(&headers) {
        Ok(encoding) => encoding,
        // The sender's encoding is unknown: protobuf is what every OTLP client reads.
        Err(text) => {
            return status::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, Encoding::Protobuf, Code::InvalidArgument, &text);
        }
    };
    match receiver.store(&headers, body, encoding).await {
        Ok(outcome) => answer::<S>(encoding, &outcome),
        Err(failure) => failure.answer(encoding),
    }
}

impl<S: Signal> Receiver<S> {
    async fn store(&self, headers: &HeaderMap, body: Body, encoding: Encoding) -> Result<Outcome, Failure> {
        self.ready()?;
        // Held until the rows are stored.
        let mut room = Room::new();
        let body = read_body_into(&mut room, headers, body, &self.limits).await.map_err(Failure::Body)?;
        self.keep(body, encoding).await
    }

    /// Whether a request has a chance; asked before its body is read.
    pub(super) fn ready(&self) -> Result<(), Failure> {
        self.sink.ready().map_err(|reason| Failure::Sink(Refused::overloaded(reason)))
    }

    /// Decodes a request and makes its rows durable. The caller holds room for the body.
    pub(super) async fn keep(&self, body: Bytes, encoding: Encoding) -> Result<Outcome, Failure> {
        let mut rows = RowSet::new();
        let decoded = on_this_task(body.len(), || self.signal.decode(&body, encoding, &mut rows));
        let outcome = decoded.map_err(|error| Failure::Unreadable(format!("{} {error}", S::UNREADABLE)))?;
        drop(body);
        if let Some(text) = S::refuse(&outcome) {
            return Err(Failure::Unusable(text, Received::from(&outcome)));
        }
        self.sink.commit(rows, outcome.filtered).await.map_err(Failure::Sink)?;
        Ok(outcome)
    }
}

/// The encoding that `Content-Type` names; parameters are allowed and ignored.
fn encoding(headers: &HeaderMap) -> Result<Encoding, String> {
    let text = headers.get(header::CONTENT_TYPE).map_or("", |v| v.to_str().unwrap_or("\u{fffd}"));
    let media = text.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/x-protobuf") || media.eq_ignore_ascii_case("application/protobuf") {
        Ok(Encoding::Protobuf)
    } else if media.eq_ignore_ascii_case("application/json") {
        Ok(Encoding::Json)
    } else {
        Err(format!("Unsupported Content-Type: {text}; use application/x-protobuf or application/json"))
    }
}

fn answer<S: Signal>(encoding: Encoding, outcome: &Outcome) -> Response {
    let mut response = status::respond(StatusCode::OK, encoding, export_response::<S>(encoding, outcome));
    response.extensions_mut().insert(Received::from(outcome));
    response
}

/// The message of a success, a partial one where something was rejected.
pub(super) fn export_response<S: Signal>(encoding: Encoding, outcome: &Outcome) -> Vec<u8> {
    let message = if outcome.rejected > 0 { partly_dropped::<S>(outcome) } else { String::new() };
    status::success(encoding, S::REJECTED, outcome.rejected, &message)
}

/// Why a request is not stored.
pub(super) enum Failure {
    Body(BodyError),
    Unreadable(String),
    Unusable(String, Received),
    Sink(Refused),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Body(error) => error.fmt(f),
            Failure::Unreadable(text) | Failure::Unusable(text, _) => f.write_str(text),
            Failure::Sink(Refused::Overloaded { reason, .. }) => write!(f, "Overloaded. Retry later: {reason}"),
            Failure::Sink(refused) => refused.fmt(f),
        }
    }
}

impl Failure {
    /// When to try again, where that helps.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Failure::Body(error) => error.retry_after(),
            Failure::Sink(Refused::Overloaded { retry_after, .. }) => Some(*retry_after),
            Failure::Sink(Refused::Failed(_)) => Some(FAILED_RETRY_AFTER),
            Failure::Unreadable(_) | Failure::Unusable(..) | Failure::Sink(Refused::Invalid(_)) => None,
        }
    }

    /// What was counted before the request was refused.
    pub(super) fn received(&self) -> Option<Received> {
        match self {
            Failure::Unusable(_, received) => Some(*received),
            _ => None,
        }
    }

    fn answer(self, encoding: Encoding) -> Response {
        let (http, code) = match &self {
            Failure::Body(error) if error.retry_after().is_some() => (error.status(), Code::Unavailable),
            Failure::Body(error) => (error.status(), Code::InvalidArgument),
            Failure::Unreadable(_) | Failure::Unusable(..) | Failure::Sink(Refused::Invalid(_)) => {
                (StatusCode::BAD_REQUEST, Code::InvalidArgument)
            }
            Failure::Sink(Refused::Overloaded { .. }) => (StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted),
            Failure::Sink(Refused::Failed(_)) => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
        };
        let mut response = status::error(http, encoding, code, &self.to_string());
        self.retry_after().into_iter().for_each(|delay| retry_after(&mut response, delay));
        if let Some(received) = self.received() {
            response.extensions_mut().insert(received);
        }
        response
    }
}

/// When to try again after the store failed.
const FAILED_RETRY_AFTER: Duration = Duration::from_secs(5);
