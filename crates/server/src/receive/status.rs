//! The messages that OTLP answers are made of: the export response with its partial success and
//! `google.rpc.Status`, each as protobuf and as proto3 JSON, and the codes of gRPC.
//!
//! Sources: opentelemetry-proto `collector/*/v1`, where the three responses share one shape on the
//! wire, googleapis `google/rpc/status.proto`, `code.proto` and `error_details.proto`, and the Connect protocol for
//! names and HTTP statuses of codes. In JSON an int64 is a string.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use prost::Message;
use serde_json::json;
use telemetry::Encoding;

/// `google.rpc.Code` values that are answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Ok = 0,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl Code {
    /// Its name, as Connect writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Code::Ok => "ok",
            Code::InvalidArgument => "invalid_argument",
            Code::DeadlineExceeded => "deadline_exceeded",
            Code::PermissionDenied => "permission_denied",
            Code::ResourceExhausted => "resource_exhausted",
            Code::Unimplemented => "unimplemented",
            Code::Unavailable => "unavailable",
            Code::Unauthenticated => "unauthenticated",
        }
    }

    /// Its HTTP status, as Connect maps it.
    pub(super) fn http(self) -> StatusCode {
        match self {
            Code::Ok => StatusCode::OK,
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Seconds>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Seconds {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// `google.rpc.RetryInfo`, by its name, where the client is told when to come back.
pub(super) fn details(retry_after: Option<Duration>) -> Option<(&'static str, Vec<u8>)> {
    let delay = retry_after?;
    let seconds = Seconds { seconds: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX), nanos: delay.subsec_nanos().cast_signed() };
    Some(("google.rpc.RetryInfo", RetryInfo { retry_delay: Some(seconds) }.encode_to_vec()))
}

/// `google.rpc.Status` in protobuf.
pub(super) fn rpc_status(code: Code, message: &str, retry_after: Option<Duration>) -> Vec<u8> {
    let details = details(retry_after).map(|(kind, value)| Any { type_url: format!("type.googleapis.com/{kind}"), value });
    RpcStatus { code: code as i32, message: message.to_owned(), details: details.into_iter().collect() }.encode_to_vec()
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
        Encoding::Protobuf => rpc_status(code, message, None),
        Encoding::Json => json!({ "code": code as i32, "message": message }).to_string().into_bytes(),
    };
    respond(status, encoding, body)
}

/// The message of a success; `rejected` with a message makes it a partial one. `rejected_field` is the JSON name
/// of the count, the only thing in which the three signals differ.
pub(super) fn success(encoding: Encoding, rejected_field: &str, rejected: u64, message: &str) -> Vec<u8> {
    let partial =
        (rejected > 0).then(|| PartialSuccess { rejected: i64::try_from(rejected).unwrap_or(i64::MAX), error_message: message.to_owned() });
    match (encoding, partial) {
        (Encoding::Protobuf, partial_success) => ExportResponse { partial_success }.encode_to_vec(),
        (Encoding::Json, None) => b"{}".to_vec(),
        (Encoding::Json, Some(partial)) => {
            let partial = json!({ rejected_field: partial.rejected.to_string(), "errorMessage": partial.error_message });
            json!({ "partialSuccess": partial }).to_string().into_bytes()
        }
    }
}

/// An answer in the request's encoding.
pub(super) fn respond(status: StatusCode, encoding: Encoding, body: Vec<u8>) -> Response {
    let content_type = match encoding {
        Encoding::Protobuf => "application/x-protobuf",
        Encoding::Json => "application/json",
    };
    let mut response = (status, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
