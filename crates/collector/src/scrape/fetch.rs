//! Getting one page of metrics over HTTP, with limits of time and size.
//!
//! Targets that are checked alike share a client, and with it connections that stay open between scrapes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, StatusCode, redirect};
use telemetry::ExpositionFormat;
use tokio::sync::Semaphore;

use crate::config::{ScrapeTarget, TlsMode};

/// Pages beyond this size are read a few at a time only, so that they do not fill the memory together.
const LARGE: usize = 2 << 20;
const LARGE_AT_A_TIME: usize = 4;
/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;
/// An open connection waits this long for the next scrape.
const IDLE: Duration = Duration::from_secs(300);

const TEXT: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,\
                    text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
const PROTOBUF: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,";

/// Why a page could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{}", causes(.0))]
    Http(#[from] reqwest::Error),
    #[error("no answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    #[error("the target answered {0}{hint}", hint = hint(*.0))]
    Status(StatusCode),
    #[error("the page has more than {0} bytes; raise body-size-limit")]
    TooLarge(usize),
    #[error("the page was cut short: {0}")]
    CutShort(&'static str),
    #[error("the certificates of {path}: {reason}")]
    Certificates { path: String, reason: String },
    #[error("the service account's token, {path}: {reason}")]
    Token { path: String, reason: String },
}

/// An error of the client with all its causes, without the URL, which is told beside it.
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        cause = error.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; it wants credentials: service-account-token of a static target or the annotation adx-mon/scrape-token send the token"
        }
        _ => "",
    }
}

/// A page of metrics.
pub(super) struct Page {
    pub(super) body: Vec<u8>,
    pub(super) format: ExpositionFormat,
}

/// What fetches pages.
pub(super) struct Fetcher {
    accepted: HeaderValue,
    max_bytes: usize,
    /// Folder of the service account: its token, and the authorities of the cluster.
    account: PathBuf,
    clients: Mutex<HashMap<TlsMode, Client>>,
    large: Arc<Semaphore>,
}

impl Fetcher {
    /// Pages of up to `max_bytes`; with `protobuf`, that format is preferred.
    pub(super) fn new(max_bytes: usize, protobuf: bool, account: &Path) -> Fetcher {
        let accepted = if protobuf { format!("{PROTOBUF}{TEXT}") } else { TEXT.to_owned() };
        Fetcher {
            accepted: HeaderValue::from_str(&accepted).unwrap_or_else(|_| HeaderValue::from_static(TEXT)),
            max_bytes,
            account: account.to_owned(),
            clients: Mutex::default(),
            large: Arc::new(Semaphore::new(LARGE_AT_A_TIME)),
        }
    }

    /// Fetches the page of a target.
    pub(super) async fn fetch(&self, target: &ScrapeTarget, timeout: Duration) -> Result<Page, FetchError> {
        tokio::time::timeout(timeout, self.fetch_now(target, timeout)).await.unwrap_or(Err(FetchError::TimedOut(timeout)))
    }

    async fn fetch_now(&self, target: &ScrapeTarget, timeout: Duration) -> Result<Page, FetchError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, self.accepted.clone());
        let seconds = HeaderValue::from_str(&timeout.as_secs_f64().to_string());
        headers
            .extend(seconds.ok().map(|seconds| (reqwest::header::HeaderName::from_static("x-prometheus-scrape-timeout-seconds"), seconds)));
        let mut request = self.client(&target.tls)?.get(&target.url).headers(headers);
        if target.token {
            request = request.bearer_auth(self.token()?);
        }
        let mut response = request.send().await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let format = ExpositionFormat::from_content_type(content_type);
        // Grown step by step, a large page would be held twice.
        let declared = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let mut body = Vec::with_capacity(declared.min(self.max_bytes).min(LARGE));
        let mut is_large = None;
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > self.max_bytes {
                return Err(FetchError::TooLarge(self.max_bytes));
            }
            if body.len() + chunk.len() > LARGE && is_large.is_none() {
                is_large = Arc::clone(&self.large).acquire_owned().await.ok();
                body.reserve_exact(declared.min(self.max_bytes).saturating_sub(body.len()));
            }
            body.extend_from_slice(&chunk);
        }
        format.check_complete(&body).map_err(FetchError::CutShort)?;
        Ok(Page { body, format })
    }

    /// The client of targets that are checked like this.
    fn client(&self, mode: &TlsMode) -> Result<Client, FetchError> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(mode) {
            return Ok(client.clone());
        }
        let client = client(mode, &self.account)?;
        clients.insert(mode.clone(), client.clone());
        Ok(client)
    }

    /// The token; read for every request, since Kubernetes replaces it.
    fn token(&self) -> Result<String, FetchError> {
        let path = self.account.join("token");
        match std::fs::read_to_string(&path) {
            Ok(token) => Ok(token.trim().to_owned()),
            Err(error) => Err(FetchError::Token { path: path.display().to_string(), reason: error.to_string() }),
        }
    }
}

fn client(mode: &TlsMode, account: &Path) -> Result<Client, FetchError> {
    let builder = Client::builder()
        .user_agent(concat!("adx-mon-collector/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(5))
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(IDLE)
        .no_proxy()
        .http1_only();
    let builder = match mode {
        // Never speaks TLS, so that a system without trusted certificates can scrape plain targets. It does not follow a
        // redirect to https, where it would have to trust anybody.
        TlsMode::Plain => builder.redirect(follow(false)).tls_danger_accept_invalid_certs(true),
        TlsMode::System => builder.redirect(follow(true)),
        TlsMode::ClusterCa => builder.redirect(follow(true)).tls_certs_only(authorities(&account.join("ca.crt"))?),
        TlsMode::File(path) => builder.redirect(follow(true)).tls_certs_only(authorities(path)?),
        TlsMode::Unverified => builder.redirect(follow(true)).tls_danger_accept_invalid_certs(true),
    };
    Ok(builder.build()?)
}

fn follow(https: bool) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| {
        if attempt.url().scheme() == "https" && !https {
            attempt.error("the target redirects to https; use its https URL")
        } else if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("too many redirects")
        } else {
            attempt.follow()
        }
    })
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, FetchError> {
    let failed = |reason: String| FetchError::Certificates { path: path.display().to_string(), reason };
    let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| failed(causes(&error)))?;
    if certificates.is_empty() {
        return Err(failed("there is none".to_owned()));
    }
    Ok(certificates)
}
