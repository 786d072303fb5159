//! What a client proves itself with.

use std::sync::Arc;

use azure::{Token, TokenSource};
use reqwest::header::HeaderValue;
use tokio::time::{Instant, timeout_at};

use crate::audience::Audience;
use crate::endpoint::Endpoint;
use crate::error::{Delivery, Error};

/// Credentials of one endpoint. An endpoint without TLS has none.
pub(crate) enum Credentials {
    None,
    Azure { source: Arc<dyn TokenSource>, audience: Audience },
}

/// What a request was sent with.
pub(crate) enum Proof {
    None,
    Token(Arc<Token>),
}

impl Proof {
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        match self {
            Proof::None => None,
            Proof::Token(token) => Some(token.header()),
        }
    }
}

impl Credentials {
    /// What the next request is sent with.
    pub(crate) async fn proof(&self, doing: &str, http: &reqwest::Client, endpoint: &Endpoint, deadline: Instant) -> Result<Proof, Error> {
        let (source, audience) = match self {
            Credentials::None => return Ok(Proof::None),
            Credentials::Azure { source, audience } => (source, audience),
        };
        let token = async { source.token(&audience.scope(http, endpoint).await).await };
        in_time(doing, deadline, token).await.map(Proof::Token)
    }

    /// Another token than the one that the service refused, if there is one.
    pub(crate) async fn renewed(
        &self,
        doing: &str,
        http: &reqwest::Client,
        endpoint: &Endpoint,
        deadline: Instant,
        refused: &Proof,
    ) -> Result<Option<Proof>, Error> {
        let (Credentials::Azure { source, audience }, Proof::Token(refused)) = (self, refused) else { return Ok(None) };
        let token = async { source.renew(&audience.scope(http, endpoint).await, refused).await };
        let token = in_time(doing, deadline, token).await?;
        Ok(Some(token).filter(|token| !token.is(refused)).map(Proof::Token))
    }
}

/// A token, or why there is none. That is transient whatever the reason: the request is not at fault, and succeeds as soon
/// as the credentials do.
async fn in_time(
    doing: &str,
    deadline: Instant,
    token: impl Future<Output = Result<Arc<Token>, azure::Error>>,
) -> Result<Arc<Token>, Error> {
    match timeout_at(deadline, token).await {
        Ok(Ok(token)) => Ok(token),
        Ok(Err(error)) => Err(Error::transient("CREDENTIALS", Delivery::NotExecuted, format!("{doing}: {error}"))),
        Err(_) => Err(Error::transient("CREDENTIALS", Delivery::NotExecuted, format!("{doing}: no Azure token came in time"))),
    }
}
