//! What the HTTP clients of this crate share: the endpoint, TLS, headers and a token.
//!
//! Files of certificates live for months, tokens for an hour: the ones are read again every some seconds, the others for
//! every request.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Identity, Url};

use crate::attempt::Failure;
use crate::tls::{Renewed, TlsPem, TlsSources};

/// How our clients call themselves.
pub(crate) const USER_AGENT: &str = concat!("adx-mon/", env!("CARGO_PKG_VERSION"));

/// How a receiver wants to be spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpOptions {
    /// Headers (metadata, over gRPC) of every request.
    pub headers: BTreeMap<String, String>,
    /// A file whose content is sent as bearer token; read for every request, since tokens are renewed.
    pub bearer_token_file: Option<PathBuf>,
    /// Certificates (PEM) that the receiver's must be signed by; the system's when absent.
    pub ca_file: Option<PathBuf>,
    /// PEM files of a certificate chain and its key, for receivers that ask for a client's certificate.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
}

impl HttpOptions {
    /// The headers, checked once.
    pub(crate) fn header_map(&self) -> Result<HeaderMap, String> {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            let parsed = HeaderName::try_from(name.as_str()).map_err(|error| format!("has a header {name:?} ({error})"))?;
            let mut value =
                HeaderValue::try_from(value.as_str()).map_err(|error| format!("has a bad value of header {name:?} ({error})"))?;
            value.set_sensitive(true);
            map.insert(parsed, value);
        }
        Ok(map)
    }

    /// `Authorization` with the token of the file, if there is one.
    pub(crate) async fn authorization(&self) -> Result<Option<HeaderValue>, Failure> {
        let Some(file) = &self.bearer_token_file else { return Ok(None) };
        let unusable = |why: String| Failure::passing(format!("the bearer token in {} cannot be used: {why}", file.display()));
        let token = tokio::fs::read_to_string(file).await.map_err(|error| unusable(error.to_string()))?;
        let mut value =
            HeaderValue::try_from(format!("Bearer {}", token.trim())).map_err(|_| unusable("it is no header value".to_owned()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    pub(crate) fn tls_sources(&self) -> TlsSources {
        TlsSources { ca: self.ca_file.clone(), identity: self.client_certificate.clone() }
    }
}

/// A client that posts to one URL.
#[derive(Debug)]
pub(crate) struct Poster {
    client: Renewed<Client>,
    url: Url,
    headers: HeaderMap,
    options: HttpOptions,
}

impl Poster {
    pub(crate) fn new(endpoint: &str, options: &HttpOptions) -> Result<Poster, String> {
        let url = Url::parse(endpoint).map_err(|error| format!("is no URL ({error})"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err("is not http or https".to_owned());
        }
        let is_local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let any_certificate = options.insecure_skip_verify;
        let client = Renewed::new(options.tls_sources(), move |pem| client(pem, is_local, any_certificate))?;
        Ok(Poster { client, url, headers: options.header_map()?, options: options.clone() })
    }

    /// A request with the configured headers.
    pub(crate) async fn post(&self) -> Result<reqwest::RequestBuilder, Failure> {
        let mut headers = self.headers.clone();
        if let Some(authorization) = self.options.authorization().await? {
            headers.insert(AUTHORIZATION, authorization);
        }
        Ok(self.client.get().post(self.url.clone()).headers(headers))
    }
}

fn client(pem: &TlsPem, is_local: bool, any_certificate: bool) -> Result<Client, String> {
    let mut client = Client::builder()
        .user_agent(USER_AGENT)
        // A POST that is redirected loses its body.
        .redirect(reqwest::redirect::Policy::none())
        .tls_danger_accept_invalid_certs(any_certificate)
        .connect_timeout(Duration::from_secs(5));
    if let Some(pem) = &pem.ca {
        let certificates = Certificate::from_pem_bundle(pem).map_err(|error| format!("has an unusable CA file ({error})"))?;
        client = client.tls_certs_only(certificates);
    }
    if let Some((certificate, key)) = &pem.identity {
        let both = [&certificate[..], b"\n", &key[..]].concat();
        let identity = Identity::from_pem(&both).map_err(|error| format!("has an unusable client certificate ({error})"))?;
        client = client.identity(identity);
    }
    if is_local {
        client = client.no_proxy();
    }
    client.build().map_err(|error| format!("no client can be made ({error})"))
}

/// A URL without its password.
pub fn redacted(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut url) if url.password().is_some() => {
            // Fails only for URLs that cannot have a password.
            let _ = url.set_password(Some("***"));
            url.to_string()
        }
        _ => url.to_owned(),
    }
}
