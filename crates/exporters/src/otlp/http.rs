//! OTLP over HTTP: a POST with a protobuf body.
//!
//! Source of the rules: the OTLP specification, "OTLP/HTTP". Any 2xx is a success, 429, 502, 503 and
//! 504 are repeated after `Retry-After`, everything else is final; errors carry `google.rpc.Status`.

use std::io::Write as _;

use ::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use ::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;

use super::{Batch, PushConfig};
use crate::attempt::{Again, Failure, asked_pause, first_words, read_answer};
use crate::http::Poster;

pub(super) struct Http {
    poster: Poster,
    gzip: bool,
}

impl Http {
    pub(super) fn new(config: &PushConfig) -> Result<Http, String> {
        Ok(Http { poster: Poster::new(&config.endpoint, &config.http)?, gzip: config.gzip })
    }

    pub(super) fn encode(&self, batch: &Batch) -> Bytes {
        let plain = batch.request().encode_to_vec();
        if !self.gzip {
            return plain.into();
        }
        let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
        // Writing to memory does not fail.
        match encoder.write_all(&plain).and_then(|()| encoder.finish()) {
            Ok(bytes) => bytes.into(),
            Err(_) => Bytes::new(),
        }
    }

    pub(super) async fn send(&self, body: Bytes) -> Result<ExportMetricsServiceResponse, Failure> {
        let mut request = self.poster.post().await?.header(CONTENT_TYPE, "application/x-protobuf").body(body);
        if self.gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        let response = request.send().await.map_err(Failure::lost)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let protobuf = is_protobuf(&headers);
        // Bodies of receivers that answer with something else are no reason to send again.
        let answer = read_answer(response).await.unwrap_or_default();
        if status.is_success() {
            let answer = if protobuf { ExportMetricsServiceResponse::decode(answer.as_slice()).ok() } else { None };
            return Ok(answer.unwrap_or_default());
        }
        Err(Failure { why: format!("status {}: {}", status.as_u16(), reason(&answer, protobuf)), again: again(status, &headers) })
    }
}

fn again(status: StatusCode, headers: &HeaderMap) -> Again {
    match status.as_u16() {
        429 | 502 | 503 | 504 => Again::After(asked_pause(headers)),
        _ => Again::Never,
    }
}

fn is_protobuf(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    matches!(media.split(';').next().map(str::trim), Some("application/x-protobuf" | "application/protobuf"))
}

/// The receiver's reason: the message of a `google.rpc.Status`, or the beginning of a text.
fn reason(body: &[u8], protobuf: bool) -> String {
    match protobuf {
        true => first_words(&tonic_types::Status::decode(body).map(|status| status.message).unwrap_or_default()),
        false => first_words(&String::from_utf8_lossy(body)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use ::http::header::RETRY_AFTER;

    use super::*;

    #[test]
    fn the_statuses_of_the_otlp_specification_are_repeated_and_no_others() {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, "7".parse().unwrap())]);
        for status in 300..600 {
            let again = again(StatusCode::from_u16(status).unwrap(), &headers);
            let repeated = [429, 502, 503, 504].contains(&status);
            assert_eq!(again, if repeated { Again::After(Some(Duration::from_secs(7))) } else { Again::Never }, "{status}");
        }
    }
}
