//! The messages that OTLP/HTTP answers are made of: the export response with its partial success
//! and `google.rpc.Status`, each as protobuf and as proto3 JSON.
//!
//! Sources: opentelemetry-proto `collector/*/v1`, where the three responses share one shape on the
//! wire, and googleapis `google/rpc/status.proto`. In JSON an int64 is a string.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use prost::Message;
use serde_json::json;
use telemetry::Encoding;

/// `google.rpc.Code` values that OTLP uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    InvalidArgument = 3,
    ResourceExhausted = 8,
    Unavailable = 14,
}

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// An error answer in the request's encoding.
pub(super) fn error(status: StatusCode, encoding: Encoding, code: Code, message: &str) -> Response {
    let body = match encoding {
        Encoding::Protobuf => RpcStatus { code: code as i32, message: message.to_owned() }.encode_to_vec(),
        Encoding::Json => json!({ "code": code as i32, "message": message }).to_string().into_bytes(),
    };
    respond(status, encoding, body)
}

/// A success; `rejected` with a message makes it a partial one. `rejected_field` is the JSON name
/// of the count, the only thing in which the three signals differ.
pub(super) fn success(encoding: Encoding, rejected_field: &str, rejected: u64, message: &str) -> Response {
    let partial =
        (rejected > 0).then(|| PartialSuccess { rejected: i64::try_from(rejected).unwrap_or(i64::MAX), error_message: message.to_owned() });
    let body = match (encoding, partial) {
        (Encoding::Protobuf, partial_success) => ExportResponse { partial_success }.encode_to_vec(),
        (Encoding::Json, None) => b"{}".to_vec(),
        (Encoding::Json, Some(partial)) => {
            let partial = json!({ rejected_field: partial.rejected.to_string(), "errorMessage": partial.error_message });
            json!({ "partialSuccess": partial }).to_string().into_bytes()
        }
    };
    respond(StatusCode::OK, encoding, body)
}

fn respond(status: StatusCode, encoding: Encoding, body: Vec<u8>) -> Response {
    let content_type = match encoding {
        Encoding::Protobuf => "application/x-protobuf",
        Encoding::Json => "application/json",
    };
    let mut response = (status, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
