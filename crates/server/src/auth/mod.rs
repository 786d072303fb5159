//! Who may send requests: bearer tokens from a file, tokens that Kubernetes knows, or both.
//!
//! A request is asked for its token before its body is read. Tokens appear in no log, metric or answer; what is kept of
//! them are digests.

mod review;
mod tokens;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::receive::status::Code;
use crate::receive::{grpc, plain, retry_after};
use review::Reviews;
use tokens::TokenFile;

pub use review::{Accounts, Review, Reviewer};

/// Paths that are usually open: what kubelets and Prometheus ask for.
pub const OPEN_PATHS: [&str; 3] = ["/metrics", "/readyz", "/healthz"];

/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 16 << 10;

/// When to try again while Kubernetes cannot be asked.
const UNAVAILABLE_RETRY_AFTER: Duration = Duration::from_secs(5);

/// How often a refusal is logged; the others are counted.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// Why requests cannot be authenticated.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The file cannot be read, or nobody could be let in by it.
    #[error("token file {path}: {reason}")]
    TokenFile {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// An entry of the list of service accounts.
    #[error("{0:?} is no service account: write namespace/name, or namespace/* for all of a namespace")]
    Account(String),
}

/// What [`Auth`] asks for. At least one of the first two is set.
#[derive(Clone, Default)]
pub struct AuthOptions {
    /// A file with one token a line, `#` for comments; several tokens make rotation possible.
    pub token_file: Option<PathBuf>,
    /// Whom to ask about tokens that the file does not have.
    pub reviewer: Option<Arc<dyn Reviewer>>,
    /// Whose reviewed tokens are good; empty means those of every user that the reviewer knows.
    pub accounts: Vec<Accounts>,
    /// Paths that need no token, such as [`OPEN_PATHS`].
    pub open_paths: Vec<String>,
}

/// Lets requests in.
pub struct Auth {
    tokens: Option<TokenFile>,
    reviews: Option<Reviews>,
    open_paths: HashSet<String>,
    requests: Family<Outcome, Counter>,
    logged: Mutex<Logged>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Default)]
struct Logged {
    last: Option<Instant>,
    since: u64,
}

/// Why a request is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Denied {
    Missing,
    Invalid,
    NotAllowed,
    Unavailable(String),
}

impl Auth {
    /// Reads the token file and registers metrics.
    ///
    /// # Errors
    /// When the token file cannot be read or is empty.
    pub fn new(options: AuthOptions, registry: &mut Registry) -> Result<Arc<Auth>, AuthError> {
        let requests = Family::default();
        registry.register("adxmon_authentication_requests", "Requests by the outcome of their authentication", requests.clone());
        let reviews = options.reviewer.map(|reviewer| Reviews::new(reviewer, options.accounts));
        if let Some(reviews) = &reviews {
            registry.register("adxmon_authentication_reviews", "Tokens that Kubernetes was asked about", reviews.asked());
        }
        Ok(Arc::new(Auth {
            tokens: options.token_file.map(TokenFile::read).transpose()?,
            reviews,
            open_paths: options.open_paths.into_iter().collect(),
            requests,
            logged: Mutex::default(),
        }))
    }

    /// `router`, with a token asked for on every path but the open ones.
    pub fn protect(self: &Arc<Self>, router: Router) -> Router {
        let auth = Arc::clone(self);
        router.layer(middleware::from_fn(move |request: Request, next: Next| {
            let auth = Arc::clone(&auth);
            async move {
                match auth.admit(request.uri().path(), request.headers()).await {
                    Ok(()) => next.run(request).await,
                    Err(denied) => denied.answer(request.headers()),
                }
            }
        }))
    }

    /// Reads the token file again when it changes.
    pub async fn follow(self: Arc<Self>, period: Duration, stop: CancellationToken) {
        let Some(tokens) = &self.tokens else { return };
        while stop.run_until_cancelled(tokio::time::sleep(period)).await.is_some() {
            tokens.refresh().await;
        }
    }

    async fn admit(&self, path: &str, headers: &HeaderMap) -> Result<(), Denied> {
        if self.open_paths.contains(path) {
            return Ok(());
        }
        let admitted = self.check(headers).await;
        let outcome = admitted.as_ref().map_or_else(Denied::name, |()| "admitted");
        self.requests.get_or_create(&Outcome { outcome }).inc();
        if let Err(denied) = &admitted {
            self.log(path, denied);
        }
        admitted
    }

    async fn check(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let token = bearer(headers)?;
        if self.tokens.as_ref().is_some_and(|tokens| tokens.has(token)) {
            return Ok(());
        }
        match &self.reviews {
            Some(reviews) => reviews.check(token).await,
            None => Err(Denied::Invalid),
        }
    }

    fn log(&self, path: &str, denied: &Denied) {
        let mut logged = self.logged.lock();
        logged.since += 1;
        if logged.last.is_some_and(|last| last.elapsed() < LOG_PERIOD) {
            return;
        }
        tracing::warn!(path, refused = logged.since, reason = denied.text(), "requests were refused");
        *logged = Logged { last: Some(Instant::now()), since: 0 };
    }
}

/// The token of `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Result<&str, Denied> {
    let value = headers.get(header::AUTHORIZATION).ok_or(Denied::Missing)?.to_str().map_err(|_| Denied::Invalid)?;
    let (scheme, token) = value.split_once(' ').ok_or(Denied::Missing)?;
    let token = token.trim();
    match scheme.eq_ignore_ascii_case("bearer") {
        true if !token.is_empty() && token.len() <= MAX_TOKEN => Ok(token),
        true => Err(Denied::Invalid),
        false => Err(Denied::Missing),
    }
}

impl Denied {
    fn name(&self) -> &'static str {
        match self {
            Denied::Missing => "missing",
            Denied::Invalid => "invalid",
            Denied::NotAllowed => "not_allowed",
            Denied::Unavailable(_) => "unavailable",
        }
    }

    fn text(&self) -> String {
        match self {
            Denied::Missing => "a bearer token is needed: Authorization: Bearer <token>".to_owned(),
            Denied::Invalid => "the bearer token is not valid here".to_owned(),
            Denied::NotAllowed => "the token is valid, but its account is not among those that may send here".to_owned(),
            Denied::Unavailable(reason) => format!("the token cannot be checked now: {reason}"),
        }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let (http, code, challenge) = match self {
            Denied::Missing => (StatusCode::UNAUTHORIZED, Code::Unauthenticated, "Bearer realm=\"adx-mon\""),
            Denied::Invalid => (StatusCode::UNAUTHORIZED, Code::Unauthenticated, "Bearer realm=\"adx-mon\", error=\"invalid_token\""),
            Denied::NotAllowed => (StatusCode::FORBIDDEN, Code::PermissionDenied, "Bearer realm=\"adx-mon\", error=\"insufficient_scope\""),
            Denied::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, ""),
        };
        if let Some(response) = grpc::refusal(headers, code, &self.text()) {
            return response;
        }
        let mut response = plain(http, &self.text());
        match self {
            Denied::Unavailable(_) => retry_after(&mut response, UNAVAILABLE_RETRY_AFTER),
            _ => drop(response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))),
        }
        response
    }
}
