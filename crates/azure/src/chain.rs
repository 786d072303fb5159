//! Several ways to a token, tried in turn.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

use crate::error::{Error, Kind};
use crate::token::{Scope, Token};

/// One way to a token; asks anew each time.
#[async_trait]
pub(crate) trait Credential: Send + Sync {
    /// Its name in messages.
    fn name(&self) -> &'static str;

    async fn fetch(&self, scope: &Scope) -> Result<Token, Error>;
}

/// The first link that is set up.
pub(crate) struct Chain {
    links: Vec<Box<dyn Credential>>,
    /// The link that gave a token; from then on no other is asked, so that the identity does not change.
    chosen: AtomicUsize,
}

const NONE: usize = usize::MAX;

impl Chain {
    pub(crate) fn new(links: Vec<Box<dyn Credential>>) -> Chain {
        Chain { links, chosen: AtomicUsize::new(NONE) }
    }
}

#[async_trait]
impl Credential for Chain {
    fn name(&self) -> &'static str {
        "the chain of Azure credentials"
    }

    async fn fetch(&self, scope: &Scope) -> Result<Token, Error> {
        if let Some(link) = self.links.get(self.chosen.load(Ordering::Relaxed)) {
            return link.fetch(scope).await.map_err(|error| Error { message: format!("{}: {error}", link.name()), ..error });
        }
        let mut tried = Vec::new();
        let mut kind = Kind::Unavailable;
        for (index, link) in self.links.iter().enumerate() {
            match link.fetch(scope).await {
                Ok(token) => {
                    self.chosen.store(index, Ordering::Relaxed);
                    tracing::info!(credential = link.name(), %scope, principal = ?token.principal().and_then(|p| p.fqn()), "Azure credentials found");
                    return Ok(token);
                }
                Err(error) => {
                    tracing::debug!(credential = link.name(), %scope, %error, "no token from this credential");
                    tried.push(format!("{}: {error}", link.name()));
                    kind = error.kind;
                }
            }
            if kind != Kind::Unavailable {
                break;
            }
        }
        let message = match kind {
            Kind::Unavailable => "no Azure credentials are set up",
            _ => "the Azure credentials that are set up give no token",
        };
        Err(Error { kind, message: format!("{message}. Tried in this order: {}", tried.join("; ")) })
    }
}
