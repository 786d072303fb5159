//! Prometheus remote write 1.0, as its sender.
//!
//! Source of the rules: the remote-write 1.0 specification. 5xx and 429 are repeated, after `Retry-After` if it is there;
//! other 4xx are final. Labels are sorted by name and not empty; names keep to Prometheus' alphabet.

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use telemetry::client::{Series, add_series};
use telemetry::export::{ExportExemplar, ExportSeries};

use crate::attempt::{Again, Failure, Pushed, asked_pause, first_words, read_answer};
use crate::exporter::{Added, Client, Origin};
use crate::http::{HttpOptions, Poster, redacted};
use crate::samples::{Line, Samples};
use crate::tls::install_crypto;

/// Where to and how samples are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteWriteConfig {
    /// The receiver's URL, used as it is.
    pub endpoint: String,
    /// Headers, token and trusted certificates.
    pub http: HttpOptions,
    /// Samples in a request.
    pub max_samples: usize,
    /// Bytes of a request before compression, about.
    pub max_bytes: usize,
}

impl RemoteWriteConfig {
    /// 2,000 samples and 1 MiB, as Prometheus sends them.
    pub fn new(endpoint: &str) -> RemoteWriteConfig {
        RemoteWriteConfig { endpoint: endpoint.to_owned(), http: HttpOptions::default(), max_samples: 2000, max_bytes: 1 << 20 }
    }
}

/// An endpoint that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("remote-write endpoint {endpoint:?}: {why}; give a full URL such as http://prometheus:9090/api/v1/write")]
pub struct EndpointError {
    endpoint: String,
    why: String,
}

/// Sends samples to a remote-write receiver.
#[derive(Debug)]
pub struct RemoteWrite {
    config: RemoteWriteConfig,
    poster: Poster,
    series: Vec<(Series, Vec<ExportExemplar>)>,
    count: usize,
    bytes: usize,
    /// Samples, exemplars without one included, and body of each request, or why there is none.
    ready: VecDeque<(u64, Result<Bytes, String>)>,
    samples: Samples,
}

impl RemoteWrite {
    /// Checks the endpoint; nothing is sent yet.
    ///
    /// # Errors
    /// An endpoint that cannot be used.
    pub fn new(config: RemoteWriteConfig) -> Result<RemoteWrite, EndpointError> {
        install_crypto();
        let unusable = |why| EndpointError { endpoint: redacted(&config.endpoint), why };
        let poster = Poster::new(&config.endpoint, &config.http).map_err(unusable)?;
        Ok(RemoteWrite { config, poster, series: Vec::new(), count: 0, bytes: 0, ready: VecDeque::new(), samples: Samples::default() })
    }
}

impl Client for RemoteWrite {
    fn add(&mut self, _: Origin<'_>, row: &[u8]) -> Added {
        let full = self.count >= self.config.max_samples || self.bytes >= self.config.max_bytes;
        if full {
            self.finish();
        }
        let Some(Line { timestamp_ms, value, exemplars, same, series, .. }) = self.samples.read(row) else { return Added::Skipped };
        if !same || self.series.is_empty() {
            let labels = labels_of(series);
            self.bytes += labels.iter().map(size).sum::<usize>();
            self.series.push((Series { labels, samples: Vec::new() }, Vec::new()));
        }
        if let Some((series, sent)) = self.series.last_mut() {
            series.samples.extend(value.map(|value| (timestamp_ms, value)));
            let exemplars = exemplars.into_iter().map(|exemplar| of_sample(exemplar, timestamp_ms));
            sent.extend(exemplars.inspect(|exemplar| self.bytes += 18 + exemplar.labels.iter().map(size).sum::<usize>()));
        }
        self.count += 1;
        self.bytes += 18;
        if full { Added::Ready } else { Added::Taken }
    }

    fn finish(&mut self) {
        let series = std::mem::take(&mut self.series);
        if series.is_empty() {
            return;
        }
        self.bytes = 0;
        let mut plain = Vec::new();
        series.iter().for_each(|(series, exemplars)| add_series(&mut plain, series, exemplars));
        let samples = std::mem::take(&mut self.count) as u64;
        self.ready.push_back((samples, compressed(&plain)));
    }

    fn ready(&self) -> u64 {
        self.ready.front().map_or(0, |(samples, _)| *samples)
    }

    async fn send(&mut self) -> Result<Pushed, Failure> {
        let Some((samples, body)) = self.ready.front() else { return Ok(Pushed::default()) };
        let body = body.clone().map_err(|why| Failure { why, again: Again::Never })?;
        let request = self
            .poster
            .post()
            .await?
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(CONTENT_ENCODING, "snappy")
            .header("X-Prometheus-Remote-Write-Version", "0.1.0")
            .body(body);
        let response = request.send().await.map_err(Failure::lost)?;
        let (status, asked) = (response.status(), asked_pause(response.headers()));
        if status.is_success() {
            let pushed = Pushed { accepted: *samples, ..Pushed::default() };
            self.ready.pop_front();
            return Ok(pushed);
        }
        let answer = read_answer(response).await.unwrap_or_default();
        let why = format!("status {}: {}", status.as_u16(), first_words(&String::from_utf8_lossy(&answer)));
        let passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        Err(Failure { why, again: if passing { Again::After(asked) } else { Again::Never } })
    }

    fn discard(&mut self) {
        self.ready.pop_front();
    }
}

/// About what a label takes in a request.
fn size((name, value): &(String, String)) -> usize {
    name.len() + value.len() + 6
}

/// An exemplar as Prometheus wants it, with a time of its own.
fn of_sample(exemplar: ExportExemplar, timestamp_ms: i64) -> ExportExemplar {
    let timestamp_ms = Some(exemplar.timestamp_ms.unwrap_or(timestamp_ms));
    let labels = exemplar.labels.into_iter().map(|(name, value)| (in_alphabet(&name, false).into_owned(), value)).collect();
    ExportExemplar { timestamp_ms, labels, ..exemplar }
}

/// A body as receivers want it, or why it cannot be.
fn compressed(plain: &[u8]) -> Result<Bytes, String> {
    let body = snap::raw::Encoder::new().compress_vec(plain);
    body.map(Bytes::from).map_err(|error| format!("a request of {} bytes cannot be compressed ({error})", plain.len()))
}

/// The labels of a series as Prometheus wants them: its alphabet, sorted, no empty values. Labels whose names become the
/// same are joined with `;`, as Prometheus' own translation of OTLP does.
fn labels_of(series: &ExportSeries) -> Vec<(String, String)> {
    let own = series.labels.iter().filter(|(name, value)| !value.is_empty() && !name.is_empty());
    let mut labels: Vec<(String, String)> = own.map(|(name, value)| (in_alphabet(name, false).into_owned(), value.clone())).collect();
    labels.push(("__name__".to_owned(), in_alphabet(&series.metric, true).into_owned()));
    labels.sort();
    labels.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            earlier.1.push(';');
            earlier.1.push_str(&later.1);
        }
        same
    });
    labels
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`, with colons in names of metrics; everything else becomes `_`.
fn in_alphabet(name: &str, metric: bool) -> Cow<'_, str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || (metric && c == ':');
    let digit_first = name.starts_with(|c: char| c.is_ascii_digit());
    if name.chars().all(fits) && !digit_first {
        return Cow::Borrowed(name);
    }
    let first = if digit_first { "_" } else { "" };
    Cow::Owned(first.chars().chain(name.chars().map(|c| if fits(c) { c } else { '_' })).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(metric: &str, labels: &[(&str, &str)]) -> Vec<(String, String)> {
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        labels_of(&ExportSeries { metric: metric.to_owned(), labels, ..ExportSeries::default() })
    }

    #[test]
    fn labels_are_as_the_specification_wants_them() {
        let got = labels("http.server.duration", &[("host.name", "h"), ("Zone", "z"), ("empty", ""), ("host_name", "g"), ("9", "n")]);
        let wanted = [("Zone", "z"), ("_9", "n"), ("__name__", "http_server_duration"), ("host_name", "g;h")];
        assert_eq!(got, wanted.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(labels("a:b", &[]), [("__name__".to_owned(), "a:b".to_owned())]);
    }

    proptest! {
        #[test]
        fn names_are_in_the_alphabet_sorted_and_different(metric in "\\PC{1,8}", pairs in prop::collection::vec(("\\PC{0,6}", "\\PC{0,3}"), 0..6)) {
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let labels = labels(&metric, &pairs);
            prop_assert!(labels.is_sorted_by(|a, b| a.0 < b.0));
            for (name, value) in &labels {
                prop_assert!(!value.is_empty());
                prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{}", name);
                prop_assert!(!name.as_bytes()[0].is_ascii_digit());
            }
        }
    }
}
