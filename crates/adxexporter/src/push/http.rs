//! OTLP over HTTP: a POST with a protobuf body.
//!
//! Source of the rules: the OTLP specification, "OTLP/HTTP". Any 2xx is a success, 429, 502, 503 and
//! 504 are repeated after `Retry-After`, everything else is final; errors carry `google.rpc.Status`.

use std::io::Write as _;
use std::time::Duration;

use ::http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use ::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use kusto::with_causes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;
use reqwest::{Client, Response, Url};

use super::{Again, Batch, Failure, PushConfig};

/// What of an answer is read.
const LONGEST_ANSWER: usize = 64 << 10;

pub(super) struct Http {
    client: Client,
    url: Url,
    gzip: bool,
}

impl Http {
    pub(super) fn new(config: &PushConfig) -> Result<Http, String> {
        let url = Url::parse(&config.endpoint).map_err(|error| format!("is no URL ({error})"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err("is not http or https".to_owned());
        }
        let mut client = Client::builder()
            .user_agent(concat!("adx-mon-adxexporter/", env!("CARGO_PKG_VERSION")))
            // A POST that is redirected loses its body.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5));
        if matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| format!("no client can be made ({error})"))?;
        Ok(Http { client, url, gzip: config.gzip })
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
        let mut request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/x-protobuf").body(body);
        if self.gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        let lost = |error: reqwest::Error| Failure { why: with_causes(&error.without_url()), again: Again::After(None) };
        let response = request.send().await.map_err(lost)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let protobuf = is_protobuf(&headers);
        let answer = read(response).await;
        if status.is_success() {
            // Bodies of receivers that answer with something else are no reason to send again.
            let answer = answer.unwrap_or_default();
            return Ok(if protobuf {
                ExportMetricsServiceResponse::decode(answer.as_slice()).unwrap_or_default()
            } else {
                Default::default()
            });
        }
        let why = format!("status {}: {}", status.as_u16(), reason(&answer.unwrap_or_default(), protobuf));
        Err(Failure { why, again: again(status, &headers, Timestamp::now()) })
    }
}

fn again(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Again {
    match status.as_u16() {
        429 | 502 | 503 | 504 => Again::After(headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, now))),
        _ => Again::Never,
    }
}

/// Seconds, or a date.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

fn is_protobuf(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    matches!(media.split(';').next().map(str::trim), Some("application/x-protobuf" | "application/protobuf"))
}

async fn read(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while body.len() < LONGEST_ANSWER {
        match response.chunk().await? {
            Some(chunk) => body.extend_from_slice(&chunk[..chunk.len().min(LONGEST_ANSWER - body.len())]),
            None => break,
        }
    }
    Ok(body)
}

/// The receiver's reason: the message of a `google.rpc.Status`, or the beginning of a text.
fn reason(body: &[u8], protobuf: bool) -> String {
    let text = match protobuf {
        true => tonic_types::Status::decode(body).map(|status| status.message).unwrap_or_default(),
        false => String::from_utf8_lossy(body).into_owned(),
    };
    match text.trim() {
        "" => "no reason given".to_owned(),
        text => text.chars().take(200).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_statuses_of_the_otlp_specification_are_repeated_and_no_others() {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, "7".parse().unwrap())]);
        for status in 300..600 {
            let again = again(StatusCode::from_u16(status).unwrap(), &headers, Timestamp::UNIX_EPOCH);
            let repeated = [429, 502, 503, 504].contains(&status);
            assert_eq!(again, if repeated { Again::After(Some(Duration::from_secs(7))) } else { Again::Never }, "{status}");
        }
    }

    #[test]
    fn pauses_are_seconds_or_dates() {
        let now: Timestamp = "2015-10-21T07:27:30Z".parse().unwrap();
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:27:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }
}
