//! Who may send to the collector, and how it shows the ingestor who it is.

use server::auth::{AuthError, OPEN_PATHS};
use token_review::Authentication;
use transfer::Credentials;

use super::path;
use crate::config::file::File;

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
