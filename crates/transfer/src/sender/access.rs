//! The client that requests go through: whom it trusts, and how it shows who it is. Tokens and certificates live for
//! hours, so their files are read again while the sender runs.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_128;

use super::SenderOptions;

/// How long what was read of the files is good.
const FRESH: Duration = Duration::from_secs(10);

/// How a sender shows who it is. The files may change while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// File with a bearer token, which goes to https endpoints and to this host only.
    pub token_file: Option<PathBuf>,
    /// PEM files of a certificate chain and its key, for receivers that ask for a client's certificate.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// PEM file of the authorities that may have signed the receiver's certificate; those of the system without it.
    pub server_ca: Option<PathBuf>,
}

/// A client and the token for its requests.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) client: reqwest::Client,
    token: Option<HeaderValue>,
}

impl Access {
    /// The value of `Authorization` for a URL, if requests have one.
    ///
    /// # Errors
    /// When the token would cross a network in the clear.
    pub(super) fn token_for(&self, url: &str) -> Result<Option<HeaderValue>, String> {
        match &self.token {
            Some(_) if !may_carry_token(url) => Err(format!("the bearer token is not sent to {url}: use https")),
            token => Ok(token.clone()),
        }
    }
}

/// Whether a token may be sent to this URL: by https, or within this host.
#[must_use]
pub fn may_carry_token(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    url.scheme() == "https" || host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Makes [`Access`] from the files, again when they change.
pub(super) struct Accesses {
    options: SenderOptions,
    current: Mutex<Option<Current>>,
}

struct Current {
    read: Instant,
    digest: u128,
    access: Access,
}

impl Accesses {
    pub(super) fn new(options: SenderOptions) -> Self {
        Accesses { options, current: Mutex::default() }
    }

    /// The client to use now.
    ///
    /// # Errors
    /// Which file is unusable, while there is no earlier content to go on with.
    pub(super) fn current(&self) -> Result<Access, String> {
        let mut current = self.current.lock();
        if let Some(current) = current.as_ref().filter(|current| current.read.elapsed() < FRESH) {
            return Ok(current.access.clone());
        }
        let made = Files::read(&self.options.credentials).and_then(|files| {
            let digest = files.digest();
            match &*current {
                Some(current) if current.digest == digest => Ok((digest, current.access.clone())),
                _ => Ok((digest, files.access(&self.options)?)),
            }
        });
        match (made, current.as_mut()) {
            (Ok((digest, access)), _) => {
                *current = Some(Current { read: Instant::now(), digest, access: access.clone() });
                Ok(access)
            }
            (Err(error), None) => Err(error),
            (Err(error), Some(current)) => {
                tracing::error!(error, "the credentials of before are used on");
                current.read = Instant::now();
                Ok(current.access.clone())
            }
        }
    }

    /// The receiver does not take what it was shown: the files are read before the next request.
    pub(super) fn refused(&self) {
        let mut current = self.current.lock();
        let long_ago = Instant::now().checked_sub(FRESH);
        if let (Some(current), Some(long_ago)) = (current.as_mut(), long_ago) {
            current.read = long_ago;
        }
    }
}

/// What the files hold.
struct Files {
    token: Option<String>,
    identity: Option<Vec<u8>>,
    server_ca: Option<(PathBuf, Vec<u8>)>,
}

impl Files {
    fn read(credentials: &Credentials) -> Result<Files, String> {
        let token = match &credentials.token_file {
            Some(path) => Some(token(path, &String::from_utf8_lossy(&read(path)?))?),
            None => None,
        };
        let identity = match &credentials.client_certificate {
            Some((certificate, key)) => Some([read(certificate)?, b"\n".to_vec(), read(key)?].concat()),
            None => None,
        };
        let server_ca = match &credentials.server_ca {
            Some(path) => Some((path.clone(), read(path)?)),
            None => None,
        };
        Ok(Files { token, identity, server_ca })
    }

    fn digest(&self) -> u128 {
        let mut all = self.token.clone().unwrap_or_default().into_bytes();
        let server_ca = self.server_ca.as_ref().map(|(_, pem)| pem);
        for part in [self.identity.as_ref(), server_ca].into_iter().flatten() {
            all.push(0);
            all.extend_from_slice(part);
        }
        xxh3_128(&all)
    }

    fn access(&self, options: &SenderOptions) -> Result<Access, String> {
        // Another default provider may be installed already; then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .timeout(options.timeout)
            .pool_idle_timeout(Duration::from_secs(90))
            .tcp_nodelay(true)
            .http1_only()
            .tls_danger_accept_invalid_certs(options.insecure_skip_verify);
        if let Some(pem) = &self.identity {
            let unusable = |error| format!("the client's certificate and key cannot be used: {}", super::http::chain(&error));
            builder = builder.identity(reqwest::Identity::from_pem(pem).map_err(unusable)?);
        }
        if let Some((path, pem)) = &self.server_ca {
            let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| named(path, super::http::chain(&error)))?;
            if certificates.is_empty() {
                return Err(named(path, "holds no certificate"));
            }
            builder = builder.tls_certs_only(certificates);
        }
        let client = builder.build().map_err(|error| format!("making the HTTP client: {}", super::http::chain(&error)))?;
        let token = match &self.token {
            Some(token) => {
                let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| "the token file holds no token".to_owned())?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        Ok(Access { client, token })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| named(path, error))
}

/// The first token of a file, so that a file of several, as a listener has it, will do.
fn token(path: &Path, text: &str) -> Result<String, String> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    line.map(str::to_owned).ok_or_else(|| named(path, "holds no token"))
}

fn named(path: &Path, reason: impl Display) -> String {
    format!("{}: {reason}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_stay_off_networks_in_the_clear() {
        for (url, may) in [
            ("https://ingestor:9090", true),
            ("http://127.0.0.1:9091", true),
            ("http://[::1]:9091", true),
            ("http://localhost:9091", true),
            ("http://ingestor:9091", false),
            ("http://127.0.0.1.example.com", false),
            ("not a url", false),
        ] {
            assert_eq!(may_carry_token(url), may, "{url}");
        }
    }
}
