//! Responses: headers that clients look for, errors, compression, and what browsers ask before they call.

use std::convert::Infallible;
use std::io::Write as _;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_ENCODING, CONTENT_TYPE, ORIGIN,
    RETRY_AFTER, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::answer::{self, Identity, Pieces};
use crate::error::KustoError;
use crate::query::Answer;
use crate::text;

const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
const ACTIVITY_ID: HeaderName = HeaderName::from_static("x-ms-activity-id");
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// The form of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Frames {
    /// Tables only.
    Management,
    /// Tables with an index.
    Version1,
    /// Frames.
    Version2 {
        /// Rows in fragments.
        fragmented: bool,
    },
}

/// One request and its response.
pub(super) struct Talk {
    identity: Identity,
    gzip: bool,
}

impl Talk {
    pub(super) fn new(headers: &HeaderMap, now: i64) -> Talk {
        let header = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let accepts = |coding: &str| {
            let mut parts = coding.trim().split(';');
            let gzip = matches!(parts.next().map(str::trim), Some("gzip" | "*"));
            gzip && !parts.any(|part| matches!(part.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        };
        let activity_id = uuid::Uuid::new_v4().to_string();
        let client = header(&CLIENT_REQUEST_ID);
        Talk {
            identity: Identity {
                client_request_id: if client.is_empty() { format!("unspecified;{activity_id}") } else { client.to_owned() },
                activity_id,
                now: text::datetime_text(now),
            },
            gzip: header(&ACCEPT_ENCODING).split(',').any(accepts),
        }
    }

    /// The response to an outcome.
    pub(super) fn respond(self, outcome: Result<(Answer, Frames), KustoError>) -> Response {
        let (answer, frames) = match outcome {
            Ok(answered) => answered,
            Err(error) => return self.error(&error),
        };
        let pieces = match frames {
            Frames::Management => answer::management(answer),
            Frames::Version1 => answer::version_1(answer, &self.identity),
            Frames::Version2 { fragmented } => answer::version_2(answer, &self.identity, fragmented),
        };
        let mut response = if self.gzip {
            let encoder = GzEncoder::new(Vec::new(), Compression::fast());
            let mut response = streamed(Gzipped { pieces, encoder: Some(encoder) });
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response
        } else {
            streamed(pieces)
        };
        self.identify(response.headers_mut());
        response
    }

    /// The response to an error.
    pub(super) fn error(&self, error: &KustoError) -> Response {
        let context = serde_json::json!({
            "timestamp": self.identity.now,
            "serviceAlias": "kustd",
            "machineName": "kustd",
            "processName": "kustd",
            "processId": std::process::id(),
            "threadId": 0,
            "clientRequestId": self.identity.client_request_id,
            "activityId": self.identity.activity_id,
            "subActivityId": self.identity.activity_id,
            "activityType": "GW.Http.CallContext",
            "parentActivityId": self.identity.activity_id,
            "activityStack": "",
        });
        let mut response = (error.status, error.body(&context).to_string()).into_response();
        if let Some(seconds) = error.retry_after() {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        self.identify(response.headers_mut());
        response
    }

    fn identify(&self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, JSON);
        for (name, value) in [(CLIENT_REQUEST_ID, &self.identity.client_request_id), (ACTIVITY_ID, &self.identity.activity_id)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
    }
}

fn streamed(chunks: impl Iterator<Item = Vec<u8>> + Send + 'static) -> Response {
    Response::new(Body::from_stream(futures::stream::iter(chunks.map(Ok::<_, Infallible>))))
}

/// Compresses piece by piece.
struct Gzipped {
    pieces: Pieces,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Iterator for Gzipped {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let encoder = self.encoder.as_mut()?;
            match self.pieces.next() {
                Some(piece) => {
                    // writing into a Vec does not fail
                    let _ = encoder.write_all(&piece);
                    let out = std::mem::take(encoder.get_mut());
                    if !out.is_empty() {
                        return Some(out);
                    }
                }
                None => return self.encoder.take().and_then(|encoder| encoder.finish().ok()),
            }
        }
    }
}

/// 404 in Kusto's words.
pub(super) async fn unknown_route(uri: Uri, headers: HeaderMap) -> Response {
    let error = KustoError {
        status: StatusCode::NOT_FOUND,
        code: "General_NotFound",
        exception: "Kusto.Data.Exceptions.KustoBadRequestException",
        message: format!("there is no '{}' here; queries go to /v2/rest/query, commands to /v1/rest/mgmt", uri.path()),
        permanent: true,
        inner: None,
    };
    Talk::new(&headers, crate::service::system_ticks()).error(&error)
}

/// Lets web pages of Kusto's own front end and of this machine call; others get no permission.
pub(super) async fn cross_origin(request: axum::extract::Request, next: Next) -> Response {
    let origin = request.headers().get(ORIGIN).filter(|origin| is_allowed(origin)).cloned();
    let asked = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let mut response = if request.method() == Method::OPTIONS { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let Some(origin) = origin else { return response };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-ms-client-request-id, x-ms-activity-id"));
    if let Some(asked) = asked {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked);
    }
    response
}

fn is_allowed(origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    let Some((scheme, host)) = origin.split_once("://") else { return false };
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    match scheme {
        "https" if name == "dataexplorer.azure.com" || name.ends_with(".dataexplorer.azure.com") => true,
        "http" | "https" => matches!(name, "localhost" | "127.0.0.1" | "[::1]"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        for (origin, allowed) in [
            ("https://dataexplorer.azure.com", true),
            ("http://localhost:3000", true),
            ("http://[::1]:80", true),
            ("https://evil.example", false),
            ("https://dataexplorer.azure.com.evil.example", false),
            ("http://localhost.evil.example", false),
            ("null", false),
        ] {
            assert_eq!(is_allowed(&HeaderValue::from_static(origin)), allowed, "{origin}");
        }
    }
}
