//! A token that somebody else looks after.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::error::Error;
use crate::token::{Scope, Token, TokenSource};

/// The same token for every scope.
///
/// # Errors
/// Where it is empty or cannot be part of an HTTP header.
pub fn fixed_token(token: &str) -> Result<Arc<dyn TokenSource>, Error> {
    Token::new(token.trim().to_owned(), Timestamp::MAX).map(|token| Arc::new(Fixed(Arc::new(token))) as Arc<dyn TokenSource>)
}

struct Fixed(Arc<Token>);

impl fmt::Debug for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fixed")
    }
}

#[async_trait]
impl TokenSource for Fixed {
    async fn token(&self, _: &Scope) -> Result<Arc<Token>, Error> {
        Ok(Arc::clone(&self.0))
    }

    async fn renew(&self, _: &Scope, _: &Token) -> Result<Arc<Token>, Error> {
        Ok(Arc::clone(&self.0))
    }
}
