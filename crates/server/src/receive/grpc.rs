//! OTLP over gRPC, and over the two protocols that come from the same services: gRPC-Web and Connect.
//!
//! A call is one message in a frame of five bytes and the message, so the request is taken from the body as it is and
//! decoded by the same walkers as OTLP over HTTP; nothing of it becomes an object first. Sources: gRPC over HTTP/2
//! (`PROTOCOL-HTTP2.md`), gRPC-Web (`PROTOCOL-WEB.md`), the Connect protocol, and the OTLP specification,
//! "OTLP/gRPC Response" and "OTLP/gRPC Throttling".

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use http_body_util::{BodyExt, Full};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::json;
use telemetry::{Encoding, MetricIntake, Outcome, TraceIntake};

use super::otlp::{Failure, LogDecoder, Receiver, Signal, export_response};
use super::status::{Code, details, rpc_status};
use super::{Received, plain, retry_after};
use crate::body::{BodyError, inflate_message, read_body_into, read_wire};
use crate::room::Room;
use crate::{BodyLimits, Refused, Sink};

/// Path of the service for metrics.
pub const METRICS_PATH: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
/// Path of the service for logs.
pub const LOGS_PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
/// Path of the service for traces.
pub const TRACES_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// How a call ended, in the extensions of its response, for metrics: `ok` or the name of a code such as `unavailable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallStatus(pub &'static str);

/// The metrics service, for [`METRICS_PATH`]. A call takes at most `timeout`, or less if the client says so.
pub fn metrics(intake: Arc<MetricIntake>, sink: Arc<dyn Sink>, limits: BodyLimits, timeout: Duration) -> MethodRouter {
    service(Receiver { signal: intake, sink, limits }, timeout)
}

/// The logs service, for [`LOGS_PATH`].
pub fn logs(intake: Arc<impl LogDecoder>, sink: Arc<dyn Sink>, limits: BodyLimits, timeout: Duration) -> MethodRouter {
    service(Receiver { signal: intake, sink, limits }, timeout)
}

/// The trace service, for [`TRACES_PATH`].
pub fn traces(intake: Arc<TraceIntake>, sink: Arc<dyn Sink>, limits: BodyLimits, timeout: Duration) -> MethodRouter {
    service(Receiver { signal: intake, sink, limits }, timeout)
}

/// The fallback of a router with services: UNIMPLEMENTED with the name for calls, 404 for everything else.
pub async fn not_found(request: Request) -> Response {
    match Dialect::of(request.headers()) {
        Some(dialect) if dialect.protocol != Protocol::Connect => {
            let path = request.uri().path();
            let text = format!("unknown service or method {path}: OTLP metrics, logs and traces are served where they are configured");
            dialect.failure(&Status::new(Code::Unimplemented, text))
        }
        _ => plain(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

/// The answer to a call that is refused before it is looked at, if it is a call; other requests get HTTP's own words.
pub(crate) fn refusal(headers: &HeaderMap, code: Code, text: &str) -> Option<Response> {
    let dialect = Dialect::of(headers).filter(|dialect| dialect.protocol != Protocol::Connect)?;
    Some(dialect.failure(&Status::new(code, text)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Grpc,
    GrpcWeb,
    Connect,
}

/// Protocol and encoding of a call, which its content type names.
#[derive(Debug, Clone, Copy)]
struct Dialect {
    content_type: &'static str,
    protocol: Protocol,
    encoding: Encoding,
}

const DIALECTS: [Dialect; 8] = [
    Dialect { content_type: "application/grpc", protocol: Protocol::Grpc, encoding: Encoding::Protobuf },
    Dialect { content_type: "application/grpc+proto", protocol: Protocol::Grpc, encoding: Encoding::Protobuf },
    Dialect { content_type: "application/grpc+json", protocol: Protocol::Grpc, encoding: Encoding::Json },
    Dialect { content_type: "application/grpc-web", protocol: Protocol::GrpcWeb, encoding: Encoding::Protobuf },
    Dialect { content_type: "application/grpc-web+proto", protocol: Protocol::GrpcWeb, encoding: Encoding::Protobuf },
    Dialect { content_type: "application/grpc-web+json", protocol: Protocol::GrpcWeb, encoding: Encoding::Json },
    Dialect { content_type: "application/proto", protocol: Protocol::Connect, encoding: Encoding::Protobuf },
    Dialect { content_type: "application/json", protocol: Protocol::Connect, encoding: Encoding::Json },
];

/// What an answer says besides its message.
struct Status {
    code: Code,
    message: String,
    retry_after: Option<Duration>,
}

impl Status {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Status { code, message: message.into(), retry_after: None }
    }
}

struct Service<S> {
    receiver: Receiver<S>,
    timeout: Duration,
}

fn service<S: Signal>(receiver: Receiver<S>, timeout: Duration) -> MethodRouter {
    post(export::<S>).with_state(Arc::new(Service { receiver, timeout }))
}

async fn export<S: Signal>(State(service): State<Arc<Service<S>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Some(dialect) = Dialect::of(&parts.headers) else { return unknown_protocol() };
    if dialect.protocol == Protocol::Grpc && parts.version < Version::HTTP_2 {
        return plain(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "gRPC needs HTTP/2");
    }
    let limit = match asked_timeout(&parts.headers) {
        Ok(asked) => asked.map_or(service.timeout, |asked| asked.min(service.timeout)),
        Err(text) => return dialect.failure(&Status::new(Code::InvalidArgument, text)),
    };
    match tokio::time::timeout(limit, service.receiver.call(dialect, &parts.headers, body)).await {
        Ok(Ok(outcome)) => dialect.success::<S>(&outcome),
        Ok(Err(failure)) => {
            let received = failure.received();
            let mut response = dialect.failure(&Status::from(failure));
            if let Some(received) = received {
                response.extensions_mut().insert(received);
            }
            response
        }
        Err(_) => {
            let text = format!("the call was not done within {} ms; retry", limit.as_millis());
            dialect.failure(&Status::new(Code::DeadlineExceeded, text))
        }
    }
}

impl<S: Signal> Receiver<S> {
    async fn call(&self, dialect: Dialect, headers: &HeaderMap, body: Body) -> Result<Outcome, Failure> {
        self.ready()?;
        // Held until the rows are stored.
        let mut room = Room::new();
        let message = match dialect.protocol {
            Protocol::Connect => read_body_into(&mut room, headers, body, &self.limits).await,
            Protocol::Grpc | Protocol::GrpcWeb => read_message(&mut room, headers, body, &self.limits).await,
        };
        self.keep(message.map_err(Failure::Body)?, dialect.encoding).await
    }
}

/// Bytes of a frame before its message: whether it is compressed, and its length.
const FRAME_HEAD: usize = 5;

/// The message of a body that is one frame.
async fn read_message(room: &mut Room, headers: &HeaderMap, body: Body, limits: &BodyLimits) -> Result<Bytes, BodyError> {
    let mut message = read_wire(room, headers, body, limits.wire.saturating_add(FRAME_HEAD)).await?;
    let Some(&[compressed, a, b, c, d]) = message.first_chunk::<FRAME_HEAD>() else {
        return Err(BodyError::Read("a call is one frame of five bytes and a message".to_owned()));
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let _head = message.split_to(FRAME_HEAD);
    if message.len() != length {
        let text = format!("the frame of {length} bytes has {} bytes behind its head; a call is one whole message", message.len());
        return Err(BodyError::Read(text));
    }
    match compressed {
        0 => Ok(message),
        1 => inflate_message(room, headers.get("grpc-encoding"), &message, limits.inflated).await,
        _ => Err(BodyError::Read(format!("a frame with the unknown flag {compressed}"))),
    }
}

fn unknown_protocol() -> Response {
    let known = DIALECTS.map(|dialect| dialect.content_type).join(", ");
    let mut response = plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, &format!("unsupported Content-Type; use one of {known}"));
    HeaderValue::try_from(known).into_iter().for_each(|known| drop(response.headers_mut().insert("accept-post", known)));
    response
}

/// The time that the client gives the call.
fn asked_timeout(headers: &HeaderMap) -> Result<Option<Duration>, String> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default());
    if let Some(value) = text("grpc-timeout") {
        return grpc_timeout(value).map(Some).ok_or_else(|| format!("grpc-timeout {value:?} is no time: write it like 10S"));
    }
    match text("connect-timeout-ms") {
        None => Ok(None),
        Some(value) => match value.parse() {
            Ok(ms) if value.len() <= 10 => Ok(Some(Duration::from_millis(ms))),
            _ => Err(format!("connect-timeout-ms {value:?} is no number of milliseconds")),
        },
    }
}

/// At most eight digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

impl Dialect {
    fn of(headers: &HeaderMap) -> Option<Dialect> {
        let media = headers.get(header::CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim();
        DIALECTS.into_iter().find(|dialect| dialect.content_type.eq_ignore_ascii_case(media))
    }

    fn success<S: Signal>(self, outcome: &Outcome) -> Response {
        let message = export_response::<S>(self.encoding, outcome);
        let ok = Status::new(Code::Ok, "");
        let body = match self.protocol {
            Protocol::Connect => Body::from(message),
            Protocol::Grpc => {
                let trailers = std::future::ready(Some(Ok(trailers(&ok))));
                Body::new(Full::new(frame(0, &message)).with_trailers(trailers))
            }
            Protocol::GrpcWeb => Body::from([frame(0, &message), frame(TRAILERS, &trailer_text(&trailers(&ok)))].concat()),
        };
        let mut response = self.respond(StatusCode::OK, &ok, body);
        response.extensions_mut().insert(Received::from(outcome));
        response
    }

    /// An answer without a message. gRPC carries it in the headers, which the client takes for trailers.
    fn failure(self, status: &Status) -> Response {
        match self.protocol {
            Protocol::Grpc | Protocol::GrpcWeb => {
                let mut response = self.respond(StatusCode::OK, status, Body::empty());
                response.headers_mut().extend(trailers(status));
                response
            }
            Protocol::Connect => {
                let detail = |(kind, value): (&str, Vec<u8>)| json!({ "type": kind, "value": STANDARD_NO_PAD.encode(value) });
                let details: Vec<_> = details(status.retry_after).map(detail).into_iter().collect();
                let body = json!({ "code": status.code.name(), "message": status.message, "details": details });
                let mut response = self.respond(status.code.http(), status, Body::from(body.to_string()));
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                status.retry_after.into_iter().for_each(|delay| retry_after(&mut response, delay));
                response
            }
        }
    }

    fn respond(self, http: StatusCode, status: &Status, body: Body) -> Response {
        let mut response = (http, body).into_response();
        let (name, codings) = match self.protocol {
            Protocol::Grpc | Protocol::GrpcWeb => ("grpc-accept-encoding", "identity,gzip,zstd"),
            Protocol::Connect => ("accept-encoding", "gzip,zstd"),
        };
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        response.headers_mut().insert(name, HeaderValue::from_static(codings));
        response.extensions_mut().insert(CallStatus(status.code.name()));
        response
    }
}

/// Flag of the frame that holds the trailers of gRPC-Web.
const TRAILERS: u8 = 0x80;

fn frame(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(FRAME_HEAD + message.len());
    frame.put_u8(flag);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}

fn trailer_text(trailers: &HeaderMap) -> Vec<u8> {
    trailers.iter().flat_map(|(name, value)| [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat()).collect()
}

/// What `grpc-message` may not hold as it is.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// Longest message of a status: clients take about 8 KiB of headers.
const MAX_MESSAGE: usize = 1024;

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let mut put = |name: &'static str, text: String| {
        HeaderValue::try_from(text).into_iter().for_each(|value| drop(trailers.insert(name, value)));
    };
    put("grpc-status", (status.code as i32).to_string());
    if status.code != Code::Ok {
        let message = &status.message[..status.message.floor_char_boundary(MAX_MESSAGE)];
        put("grpc-message", utf8_percent_encode(message, ESCAPED).to_string());
        if let Some(delay) = status.retry_after {
            put("grpc-status-details-bin", STANDARD_NO_PAD.encode(rpc_status(status.code, message, Some(delay))));
        }
    }
    trailers
}

/// "Unavailable" is what OTLP's clients retry, whether or not they read `RetryInfo`; "resource exhausted" without it
/// means that the same request will never do.
impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let code = match &failure {
            Failure::Body(BodyError::Busy) => Code::Unavailable,
            Failure::Body(BodyError::TooLarge { .. } | BodyError::InflatesTooLarge { .. }) => Code::ResourceExhausted,
            Failure::Body(BodyError::UnsupportedEncoding(_)) => Code::Unimplemented,
            Failure::Body(BodyError::TooSlow { .. }) => Code::DeadlineExceeded,
            Failure::Body(BodyError::Corrupt { .. } | BodyError::Read(_)) => Code::InvalidArgument,
            Failure::Unreadable(_) | Failure::Unusable(..) | Failure::Sink(Refused::Invalid(_)) => Code::InvalidArgument,
            Failure::Sink(Refused::Overloaded { .. } | Refused::Failed(_)) => Code::Unavailable,
        };
        Status { code, message: failure.to_string(), retry_after: failure.retry_after() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The grammar of gRPC over HTTP/2: at most eight digits and one of six units.
    #[test]
    fn timeouts_are_read_as_the_specification_writes_them() {
        for (text, seconds) in [("1H", 3600.0), ("2M", 120.0), ("10S", 10.0), ("250m", 0.25), ("5u", 5e-6), ("99999999n", 0.099_999_999)] {
            assert_eq!(grpc_timeout(text).map(|t| t.as_secs_f64()), Some(seconds), "{text}");
        }
        for text in ["", "S", "10", "10s", "-1S", "123456789S", "1.5S", "+1S", "1é"] {
            assert_eq!(grpc_timeout(text), None, "{text}");
        }
    }

    #[test]
    fn messages_are_percent_encoded_and_short() {
        let trailers = trailers(&Status::new(Code::Unavailable, format!("100%\n{}", "é".repeat(2000))));
        let message = trailers.get("grpc-message").unwrap().to_str().unwrap();
        assert!(message.starts_with("100%25%0A%C3%A9"), "{message}");
        assert_eq!(message.matches("%C3%A9").count(), (MAX_MESSAGE - 5) / 2);
    }
}
