//! How requests travel: over HTTPS, or in tests to a function.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

/// Longest answer that is read; a database in a list is less than a kilobyte.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// Carries a request and brings its answer.
#[async_trait]
pub trait Transport: Debug + Send + Sync {
    /// Sends it, once.
    ///
    /// # Errors
    /// No answer came; whether the request arrived is not known.
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError>;
}

/// No answer came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TransportError(pub String);

impl From<reqwest::Error> for TransportError {
    fn from(error: reqwest::Error) -> Self {
        // The URL is in the error's context already.
        let error = error.without_url();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self(text)
    }
}

#[derive(Debug)]
pub(crate) struct Https(reqwest::Client);

impl Https {
    pub(crate) fn new(user_agent: &str) -> Result<Self, TransportError> {
        // Another default provider may be installed already; then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .user_agent(user_agent)
            // A redirect could carry a token to another host.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .pool_idle_timeout(Duration::from_secs(60));
        Ok(Self(client.build()?))
    }
}

#[async_trait]
impl Transport for Https {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let mut answer = self.0.execute(reqwest::Request::try_from(request)?).await?;
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(TransportError(format!("the answer is longer than {MAX_ANSWER_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = http::Response::new(body.freeze());
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(response)
    }
}
