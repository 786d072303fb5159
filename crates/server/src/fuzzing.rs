//! What the fuzz target calls: a receiver of bytes from outside, with the properties that hold for any input.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use http_body_util::BodyExt as _;
use telemetry::rules::MetricRules;
use telemetry::{MetricIntake, RowSet};
use tower::ServiceExt as _;

use crate::receive::grpc;
use crate::{BodyLimits, Marks, Refused, Sink};

/// Content types of gRPC and gRPC-Web.
const CONTENT_TYPES: [&str; 4] = ["application/grpc", "application/grpc+json", "application/grpc-web+proto", "application/grpc-web+json"];
const ENCODINGS: [Option<&str>; 8] =
    [None, Some("identity"), Some("gzip"), Some("zstd"), Some("snappy"), Some("x-gzip"), Some("br"), Some("")];

/// A call of OTLP over gRPC or gRPC-Web. The first byte chooses its content type, encoding and protocol version, the second is
/// the length of its `grpc-timeout`, and behind that comes its body. Each call has an answer with a status, which is OK only where
/// the body is one frame as long as its head says.
///
/// # Panics
/// When a property does not hold.
pub fn grpc_call(bytes: &[u8]) {
    let [choice, length, rest @ ..] = bytes else { return };
    let Some((timeout, body)) = rest.split_at_checked(usize::from(*length % 16)) else { return };
    let mut request = Request::new(Body::from(body.to_vec()));
    *request.version_mut() = if choice & 0x80 == 0 { Version::HTTP_2 } else { Version::HTTP_11 };
    *request.method_mut() = http::Method::POST;
    let mut put = |name: &'static str, value: &[u8]| {
        HeaderValue::from_bytes(value).is_ok_and(|value| request.headers_mut().insert(HeaderName::from_static(name), value).is_none())
    };
    put("content-type", CONTENT_TYPES[usize::from(choice & 3)].as_bytes());
    ENCODINGS[usize::from(choice >> 2 & 7)].map(|encoding| put("grpc-encoding", encoding.as_bytes()));
    let timed = !timeout.is_empty() && put("grpc-timeout", timeout);

    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    runtime.block_on(async {
        let Ok(response) = service().oneshot(request).await;
        if choice & 0x80 != 0 && choice & 2 == 0 {
            return assert_eq!(response.status(), 505, "gRPC has no frames in HTTP/1.1");
        }
        let status = status(response).await;
        assert!(status <= 16, "the status {status} is none");
        if timed && !is_timeout(timeout) {
            assert_eq!(status, 3, "{:?} is no time", String::from_utf8_lossy(timeout));
        }
        assert!(status != 0 || is_frame(body), "a body that is no frame was taken");
    });
}

fn service() -> axum::routing::MethodRouter {
    let intake = Arc::new(MetricIntake::new("Metrics", MetricRules::default(), Vec::new()));
    let limits = BodyLimits { wire: 2048, inflated: 1 << 20 };
    grpc::metrics(intake, Arc::new(Nowhere), limits, Duration::from_secs(60))
}

/// A status is in the headers of an answer without a message, and otherwise in its trailers; those of gRPC-Web are text
/// behind its message.
async fn status(response: Response) -> u32 {
    let number = |headers: &HeaderMap| headers.get("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok());
    assert_eq!(response.status(), 200);
    if let Some(status) = number(response.headers()) {
        return status;
    }
    let Ok(body) = response.into_body().collect().await else { return u32::MAX };
    if let Some(status) = body.trailers().and_then(number) {
        return status;
    }
    let text = body.to_bytes();
    let ok = text.windows(14).any(|window| window == b"grpc-status: 0");
    if ok { 0 } else { u32::MAX }
}

/// `TimeoutValue` and `TimeoutUnit` of gRPC's grammar.
fn is_timeout(text: &[u8]) -> bool {
    matches!(text.split_last(), Some((unit, digits)) if b"HMSmun".contains(unit)
        && (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit))
}

fn is_frame(body: &[u8]) -> bool {
    matches!(body, [0 | 1, a, b, c, d, message @ ..] if u32::from_be_bytes([*a, *b, *c, *d]) as usize == message.len())
}

/// Takes everything.
struct Nowhere;

impl Sink for Nowhere {
    fn commit_with_marks(&self, _rows: RowSet, _filtered: u64, _marks: Marks) -> BoxFuture<'_, Result<(), Refused>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}
