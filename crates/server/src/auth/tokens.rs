//! Tokens in a file.

use std::path::{Path, PathBuf};

use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::AuthError;

/// The digest of a token.
pub(super) type TokenDigest = [u8; 32];

pub(super) fn digest(token: &str) -> TokenDigest {
    Sha256::digest(token.as_bytes()).into()
}

/// The tokens of a file, as digests: of equal length, so that a comparison tells nothing about them by its time.
pub(super) struct TokenFile {
    path: PathBuf,
    digests: RwLock<Vec<TokenDigest>>,
}

impl TokenFile {
    pub(super) fn read(path: PathBuf) -> Result<Self, AuthError> {
        let unusable = |reason: String| AuthError::TokenFile { path: path.display().to_string(), reason };
        let digests = digests(&std::fs::read_to_string(&path).map_err(|e| unusable(e.to_string()))?);
        if digests.is_empty() {
            return Err(unusable("holds no token; write one a line".to_owned()));
        }
        Ok(TokenFile { path, digests: RwLock::new(digests) })
    }

    /// Whether a token is one of the file's. Takes equally long whichever it is.
    pub(super) fn has(&self, token: &str) -> bool {
        let asked = digest(token);
        let found = self.digests.read().iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&asked));
        found.into()
    }

    /// Takes over what the file holds now. A file that cannot be read changes nothing, an empty one lets nobody in.
    pub(super) async fn refresh(&self) {
        match tokio::fs::read_to_string(&self.path).await {
            Ok(text) => self.replace(digests(&text)),
            Err(error) => tracing::error!(path = %shown(&self.path), %error, "the token file cannot be read; the tokens of before stay"),
        }
    }

    fn replace(&self, digests: Vec<TokenDigest>) {
        if *self.digests.read() == digests {
            return;
        }
        if digests.is_empty() {
            tracing::error!(path = %shown(&self.path), "the token file is empty: nobody is let in by it");
        } else {
            tracing::info!(path = %shown(&self.path), tokens = digests.len(), "the token file has changed");
        }
        *self.digests.write() = digests;
    }
}

fn shown(path: &Path) -> impl std::fmt::Display {
    path.display()
}

fn digests(text: &str) -> Vec<TokenDigest> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(digest).collect()
}
