//! What programs meet in Azure, for their tests: a metadata service that issues tokens, and a Kusto over TLS that wants
//! them. The Kusto is another one, over HTTP, with a door before it. [`resource_manager`]: what makes clusters. And
//! [`azurite`]: Microsoft's emulator of storage.

#![allow(clippy::unwrap_used)]

pub mod azurite;
pub mod resource_manager;

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use server::{Tls, TlsFiles};
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The certificate of an authority made for one test, and what a server named `localhost` needs to be trusted by who
/// trusts it. HTTP/2 or HTTP/1.1, as the client likes.
pub fn authority() -> (String, Tls) {
    server::install_crypto();
    let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let file = |pem: String| {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(pem.as_bytes()).unwrap();
        file
    };
    let (own, key) = (file(own.pem()), file(key.serialize_pem()));
    let files = TlsFiles { certificate: own.path().to_owned(), key: key.path().to_owned(), client_ca: None };
    (certificate.pem(), Tls::from_files(&files).unwrap())
}

/// A machine in Azure beside a Kusto.
pub struct Azure {
    /// Address of the Kusto, over TLS.
    pub kusto: String,
    metadata: String,
    certificate: NamedTempFile,
    seen: Arc<Seen>,
}

struct Seen {
    /// Queries of requests for tokens.
    asked: Mutex<Vec<String>>,
    /// Requests without a token that counts.
    refused: Mutex<Vec<String>>,
    /// How long tokens live.
    life: Duration,
    /// The tokens, and when they end.
    tokens: Mutex<HashMap<String, Instant>>,
}

impl Seen {
    /// The header of a request that may enter.
    fn admits(&self, authorization: &HeaderValue) -> bool {
        let token = authorization.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
        token.is_some_and(|token| self.tokens.lock().get(token).is_some_and(|end| Instant::now() < *end))
    }
}

impl Azure {
    /// A door before the Kusto at this address.
    pub async fn before(kusto: &str) -> Azure {
        Azure::with_life(kusto, Duration::from_secs(3599)).await
    }

    /// The same with tokens that live so long.
    pub async fn with_life(kusto: &str, life: Duration) -> Azure {
        let (pem, tls) = authority();
        let seen = Arc::new(Seen { asked: Mutex::default(), refused: Mutex::default(), life, tokens: Mutex::default() });
        let mut certificate = NamedTempFile::new().unwrap();
        certificate.write_all(pem.as_bytes()).unwrap();
        let metadata = Router::new().fallback(issue).with_state(Arc::clone(&seen));
        let door = Door { kusto: kusto.to_owned(), seen: Arc::clone(&seen), client: reqwest::Client::builder().no_gzip().build().unwrap() };
        let door = Router::new().fallback(enter).layer(DefaultBodyLimit::disable()).with_state(door);
        Azure {
            metadata: format!("http://127.0.0.1:{}", listen(metadata, None).await),
            kusto: format!("https://localhost:{}", listen(door, Some(tls)).await),
            certificate,
            seen,
        }
    }

    /// Environment variables by which a program finds the metadata service, and trusts the Kusto's certificate and its host
    /// with tokens.
    pub fn environment(&self) -> [(&'static str, String); 3] {
        let certificate = self.certificate.path().to_str().unwrap().to_owned();
        [
            ("AZURE_POD_IDENTITY_AUTHORITY_HOST", self.metadata.clone()),
            ("SSL_CERT_FILE", certificate),
            ("ADXMON_KUSTO_TRUSTED_HOSTS", "localhost".to_owned()),
        ]
    }

    /// Queries of the requests for tokens so far.
    pub fn asked(&self) -> Vec<String> {
        self.seen.asked.lock().clone()
    }

    /// Paths of requests to Kusto that had no token that counts.
    pub fn refused(&self) -> Vec<String> {
        self.seen.refused.lock().clone()
    }
}

async fn listen(router: Router, tls: Option<Tls>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(server::serve(listener, router, server::Limits::default(), tls, CancellationToken::new()));
    port
}

async fn issue(State(seen): State<Arc<Seen>>, uri: Uri, headers: HeaderMap) -> Response {
    if uri.path() != "/metadata/identity/oauth2/token" || headers.get("metadata").is_none_or(|value| value != "true") {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let mut asked = seen.asked.lock();
    asked.push(uri.query().unwrap_or_default().to_owned());
    let token = format!("TOKEN-{}", asked.len());
    seen.tokens.lock().insert(token.clone(), Instant::now() + seen.life);
    let seconds = seen.life.as_secs();
    format!(r#"{{"access_token":"{token}","expires_in":"{seconds}","token_type":"Bearer"}}"#).into_response()
}

#[derive(Clone)]
struct Door {
    kusto: String,
    seen: Arc<Seen>,
    client: reqwest::Client,
}

async fn enter(State(door): State<Door>, method: Method, uri: Uri, mut headers: HeaderMap, body: Bytes) -> Response {
    const METADATA: &str = "/v1/rest/auth/metadata";
    if uri.path() == METADATA {
        return StatusCode::NOT_FOUND.into_response();
    }
    if headers.remove("authorization").is_none_or(|value| !door.seen.admits(&value)) {
        door.seen.refused.lock().push(uri.path().to_owned());
        return StatusCode::UNAUTHORIZED.into_response();
    }
    headers.remove("host");
    headers.remove("content-length");
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let answer = door.client.request(method, format!("{}{path}", door.kusto)).headers(headers).body(body).send().await.unwrap();
    (answer.status(), answer.bytes().await.unwrap()).into_response()
}
