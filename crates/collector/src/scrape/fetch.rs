//! Getting one page of metrics over HTTP, with limits of time and size.

use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Url, redirect};
use telemetry::ExpositionFormat;

/// Largest page, inflated.
const MAX_PAGE_BYTES: usize = 100 << 20;

const ACCEPTED: &str = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// Why a page could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{0:#}")]
    Http(#[from] reqwest::Error),
    #[error("the target answered {0}")]
    Status(reqwest::StatusCode),
    #[error("the page exceeds {MAX_PAGE_BYTES} bytes")]
    TooLarge,
    #[error("the page was cut short: {0}")]
    CutShort(&'static str),
}

/// A page of metrics.
pub(super) struct Page {
    pub(super) body: Vec<u8>,
    pub(super) format: ExpositionFormat,
}

/// A client for one target.
pub(super) struct Fetcher {
    client: Client,
    url: Url,
}

impl Fetcher {
    /// A client for `url`, whose requests take at most `timeout`. No credentials are sent.
    pub(super) fn new(url: &str, timeout: Duration) -> anyhow::Result<Fetcher> {
        let url = Url::parse(url)?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        headers.insert("X-Prometheus-Scrape-Timeout-Seconds", HeaderValue::from_str(&timeout.as_secs_f64().to_string())?);
        let builder = Client::builder()
            .user_agent(concat!("adx-mon-collector/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .timeout(timeout)
            .connect_timeout(timeout.min(Duration::from_secs(5)))
            .pool_max_idle_per_host(1)
            .http1_only();
        let client = if url.scheme() == "https" { builder.build()? } else { plain(builder)? };
        Ok(Fetcher { client, url })
    }

    /// Host and port of the target.
    pub(super) fn instance(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Fetches the page.
    pub(super) async fn fetch(&self) -> Result<Page, FetchError> {
        let mut response = self.client.get(self.url.clone()).send().await?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let format = ExpositionFormat::from_content_type(content_type);
        // Grown step by step, a large page would be held twice.
        let declared = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let mut body = Vec::with_capacity(declared.min(MAX_PAGE_BYTES));
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_PAGE_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        format.check_complete(&body).map_err(FetchError::CutShort)?;
        Ok(Page { body, format })
    }
}

/// A client that never speaks TLS, so that a system without trusted certificates can scrape plain
/// targets. It does not follow a redirect to https, where it would have to trust anybody.
fn plain(builder: reqwest::ClientBuilder) -> Result<Client, reqwest::Error> {
    let follow = redirect::Policy::custom(|attempt| {
        if attempt.url().scheme() == "https" {
            attempt.error("the target redirects to https; use its https URL")
        } else if attempt.previous().len() > 5 {
            attempt.error("too many redirects")
        } else {
            attempt.follow()
        }
    });
    builder.redirect(follow).tls_danger_accept_invalid_certs(true).build()
}
