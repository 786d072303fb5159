//! Sending a request: headers, deadline, repetition, errors.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder, Retryable as _};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{RequestBuilder, Response};

use crate::error::{Delivery, Error};

/// The version of the services' REST interface that this was written against.
const PROTOCOL_VERSION: &str = "2021-12-02";
/// Longest answer that is read whole; messages and rows are at most 64 KiB, and 32 come at once.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// How often and how patiently a request is repeated.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Tries in all.
    pub attempts: usize,
    /// The pause before the second try; later ones double, with jitter.
    pub first_pause: Duration,
    /// The longest pause. A service that asks for more is left to the caller.
    pub longest_pause: Duration,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry { attempts: 4, first_pause: Duration::from_millis(200), longest_pause: Duration::from_secs(5) }
    }
}

/// Sends requests to any account. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Storage {
    http: reqwest::Client,
    retry: Retry,
    /// Longest silence within a request.
    timeout: Duration,
}

/// What a request may be repeated after.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Any transient failure: doing it twice is the same as doing it once.
    Always,
    /// Only failures that are known to have changed nothing.
    IfNotExecuted,
}

impl Storage {
    /// A client that trusts the system's authorities, or those in `authorities` (PEM) in their place.
    ///
    /// # Errors
    /// For unusable certificates.
    pub fn new(retry: Retry, authorities: Option<&[u8]>) -> Result<Storage, Error> {
        // Another default provider may be installed already; then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let failed = |error| Error::from_transport("making a client of storage", error);
        let timeout = Duration::from_secs(60);
        let mut http = reqwest::Client::builder()
            // A redirect could carry a signature to another host.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(timeout)
            .pool_idle_timeout(Duration::from_secs(60))
            // A blob is wanted as it is stored.
            .no_gzip()
            .tcp_nodelay(true);
        if let Some(pem) = authorities {
            http = http.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem).map_err(failed)?);
        }
        Ok(Storage { http: http.build().map_err(failed)?, retry, timeout })
    }

    /// Sends a request until it succeeds, must not be repeated, or patience ends.
    pub(crate) async fn send(
        &self,
        doing: &str,
        repeat: Repeat,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let Retry { attempts, first_pause, longest_pause } = self.retry;
        let pauses = ExponentialBuilder::new()
            .with_min_delay(first_pause)
            .with_max_delay(longest_pause)
            .with_max_times(attempts.saturating_sub(1))
            .with_jitter();
        let attempt = || async { self.send_once(doing, request(&self.http)).await };
        attempt
            .retry(pauses.build())
            // a refused signature stays refused: the caller has to bring another
            .when(|error| {
                let allowed = repeat == Repeat::Always || error.delivery == Delivery::NotExecuted;
                error.is_transient() && !error.is_refusal_of_signature() && allowed
            })
            .adjust(|error, pause| {
                let pause = pause?.max(error.retry_after.unwrap_or_default());
                (pause <= longest_pause).then_some(pause)
            })
            .notify(|error, pause| tracing::debug!(%error, ?pause, "a request to storage is repeated"))
            .await
    }

    async fn send_once(&self, doing: &str, request: RequestBuilder) -> Result<Response, Error> {
        let request = request.header("x-ms-version", PROTOCOL_VERSION);
        // a server that takes a body and then is silent
        let sent = tokio::time::timeout(self.timeout * 10, request.send()).await;
        let response =
            sent.map_err(|_| Error { delivery: Delivery::Unknown, ..Error::invalid(doing, "TIMEOUT", "no answer came in time") })?;
        let response = response.map_err(|error| Error::from_transport(doing, error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let headers = response.headers();
        let code = headers.get("x-ms-error-code").and_then(|code| code.to_str().ok());
        Err(Error::from_answer(doing, status.as_u16(), code, retry_after(headers)))
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn fetch(
        &self,
        doing: &str,
        repeat: Repeat,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Vec<u8>, Error> {
        let mut response = self.send(doing, repeat, request).await?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| Error::from_transport(doing, error))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(Error::invalid(doing, "TOO_LARGE", format!("the answer is longer than {MAX_ANSWER_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// `Retry-After` in seconds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(3600)))
}
