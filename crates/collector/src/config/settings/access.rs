//! Who may send to the collector, and how it shows the ingestor who it is.

use std::path::PathBuf;

use server::auth::{Accounts, AuthError, OPEN_PATHS};
use transfer::Credentials;

use super::path;
use crate::config::file::File;

/// `[authentication]`: who may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    /// File with the tokens that are good.
    pub token_file: Option<PathBuf>,
    /// Whether Kubernetes is asked about other tokens.
    pub token_review: bool,
    /// What these tokens must be meant for; the API server itself when empty.
    pub audiences: Vec<String>,
    /// Whose they must be; anybody's when empty.
    pub service_accounts: Vec<Accounts>,
    /// Paths that need no token.
    pub open_paths: Vec<String>,
}

pub(super) fn authentication(settings: &crate::config::file::Authentication) -> Result<Authentication, String> {
    let accounts = settings.service_accounts.iter().map(|text| text.parse().map_err(|error: AuthError| error.to_string()));
    Ok(Authentication {
        token_file: path(&settings.token_file),
        token_review: settings.token_review,
        audiences: settings.audiences.clone(),
        service_accounts: accounts.collect::<Result<_, _>>()?,
        open_paths: settings.open_paths.clone().unwrap_or_else(|| OPEN_PATHS.map(str::to_owned).to_vec()),
    })
}

pub(super) fn credentials(file: &File) -> Credentials {
    Credentials {
        token_file: path(&file.transfer_token_file),
        client_certificate: path(&file.transfer_client_cert_file).zip(path(&file.transfer_client_key_file)),
        server_ca: path(&file.transfer_ca_file),
    }
}
