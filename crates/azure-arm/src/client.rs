//! Sending a request: address, token, deadline, errors.

use std::sync::Arc;
use std::time::Duration;

use azure::{Scope, TokenSource};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use reqwest::Url;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Kind};
use crate::transport::{Https, Transport, TransportError};

/// Resource Manager of the public cloud.
pub const PUBLIC_CLOUD: &str = "https://management.azure.com";
/// Longest wait for an answer, the token included.
const DEADLINE: Duration = Duration::from_secs(20);

/// A client of Resource Manager. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Arm {
    base: Url,
    tokens: Arc<dyn TokenSource>,
    scope: Scope,
    transport: Arc<dyn Transport>,
}

/// What is sent.
pub(crate) struct Request {
    /// For errors.
    pub(crate) doing: String,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) condition: Option<(HeaderName, HeaderValue)>,
    pub(crate) body: Option<Value>,
}

/// An answer that is a success.
pub(crate) type Answer = http::Response<Bytes>;

impl Arm {
    /// Of a cloud, such as [`PUBLIC_CLOUD`].
    ///
    /// # Errors
    /// The address is neither https nor this machine's, or no client can be made.
    pub fn new(address: &str, tokens: Arc<dyn TokenSource>, user_agent: &str) -> Result<Self, Error> {
        let failed = |TransportError(why)| Error::new("making a client of Resource Manager", Kind::Refused, why);
        Self::with_transport(address, tokens, Arc::new(Https::new(user_agent).map_err(failed)?))
    }

    /// The same, with requests that travel otherwise.
    ///
    /// # Errors
    /// The address is neither https nor this machine's.
    pub fn with_transport(address: &str, tokens: Arc<dyn TokenSource>, transport: Arc<dyn Transport>) -> Result<Self, Error> {
        let base = Url::parse(address).ok().filter(|url| url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url)));
        let Some(mut base) = base else {
            let message = format!("{address:?} is no address of Resource Manager: give one with https, such as {PUBLIC_CLOUD}");
            return Err(Error::new("making a client of Resource Manager", Kind::Refused, message));
        };
        base.set_path("/");
        base.set_query(None);
        // Tokens are for the cloud's Resource Manager, whose identifier is its address.
        let scope = Scope::new(base.as_str());
        Ok(Self { base, tokens, scope, transport })
    }

    /// An address below the root. Names come from outside: one that would lead elsewhere is refused.
    pub(crate) fn url<'a>(&self, doing: &str, path: impl IntoIterator<Item = &'a str>, version: &str) -> Result<Url, Error> {
        let mut url = self.base.clone();
        for segment in path {
            if segment.is_empty() || segment == "." || segment == ".." {
                return Err(Error::new(doing, Kind::Refused, format!("{segment:?} is no name")));
            }
            if let Ok(mut segments) = url.path_segments_mut() {
                segments.pop_if_empty().push(segment);
            }
        }
        url.query_pairs_mut().append_pair("api-version", version);
        Ok(url)
    }

    /// An address that Azure gave, if it is of this Resource Manager: tokens go nowhere else.
    pub(crate) fn own(&self, address: &str) -> Option<Url> {
        Url::parse(address).ok().filter(|url| url.origin() == self.base.origin())
    }

    /// Sends it within the deadline.
    pub(crate) async fn send(&self, request: Request) -> Result<Answer, Error> {
        let doing = request.doing.clone();
        match tokio::time::timeout(DEADLINE, self.send_now(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::new(&doing, Kind::Transient, format!("no answer within {} s", DEADLINE.as_secs()))),
        }
    }

    async fn send_now(&self, request: Request) -> Result<Answer, Error> {
        let doing = request.doing.as_str();
        let no_token = |error: azure::Error| {
            let kind = if error.kind == azure::Kind::Transient { Kind::Transient } else { Kind::Credentials };
            Error::new(doing, kind, error.message)
        };
        let lost = |TransportError(why)| Error::new(doing, Kind::Transient, why);
        let token = self.tokens.token(&self.scope).await.map_err(no_token)?;
        let mut answer = self.transport.send(request.http(token.header())?).await.map_err(lost)?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            let token = self.tokens.renew(&self.scope, &token).await.map_err(no_token)?;
            answer = self.transport.send(request.http(token.header())?).await.map_err(lost)?;
        }
        if answer.status().is_success() {
            return Ok(answer);
        }
        let error = Error::of_answer(doing, answer.status(), answer.headers(), answer.body());
        let id = answer.headers().get("x-ms-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
        tracing::debug!(%error, request_id = id, "Azure did not carry out a request");
        Err(error)
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, doing: String, url: Url) -> Result<T, Error> {
        let answer = self.send(Request { doing: doing.clone(), method: Method::GET, url, condition: None, body: None }).await?;
        read(&doing, &answer)
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, doing: String, url: Url, body: Option<Value>) -> Result<T, Error> {
        let answer = self.send(Request { doing: doing.clone(), method: Method::POST, url, condition: None, body }).await?;
        read(&doing, &answer)
    }
}

impl Request {
    fn http(&self, token: HeaderValue) -> Result<http::Request<Bytes>, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::new(&self.doing, Kind::Refused, error.to_string());
        let body = match &self.body {
            Some(body) => serde_json::to_vec(body).map_err(|error| failed(&error))?.into(),
            None => Bytes::new(),
        };
        let mut request = http::Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.url.as_str().parse().map_err(|error: http::uri::InvalidUri| failed(&error))?;
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, token);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if self.body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        headers.extend(self.condition.clone());
        Ok(request)
    }
}

/// The body of a success. One that is none of Azure's says nothing of the request.
pub(crate) fn read<T: DeserializeOwned>(doing: &str, answer: &Answer) -> Result<T, Error> {
    serde_json::from_slice(answer.body())
        .map_err(|error| Error::new(doing, Kind::Transient, format!("the answer is not as Azure describes it: {error}")))
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost" | "[::1]") => true,
        Some(host) => host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback()),
        None => false,
    }
}
