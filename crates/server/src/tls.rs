//! TLS: the process-wide crypto provider, certificates from PEM files that may change while a listener runs, client
//! certificates, and the self-signed pair that an ingestor without certificate uses.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// Why a TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file is missing, unreadable or holds no such item.
    #[error("cannot read {what} from {path}: {reason}")]
    Pem {
        /// `certificate` or `private key`.
        what: &'static str,
        /// The file.
        path: String,
        /// What the reader said.
        reason: String,
    },
    /// Certificate and key do not fit, or the key kind is unknown.
    #[error("cannot use the certificate and key: {0}")]
    Pair(#[from] rustls::Error),
    /// The self-signed certificate could not be made.
    #[error("cannot make a self-signed certificate: {0}")]
    SelfSigned(#[from] rcgen::Error),
}

/// Installs ring as the crypto provider of the process; later calls do nothing.
pub fn install_crypto() {
    // An error only says that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The PEM files of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Certificates of authorities: clients must show a certificate of one of them.
    pub client_ca: Option<PathBuf>,
}

/// TLS of a listener, for HTTP/2 and HTTP/1.1. What connections to come use can be replaced; those that are there go on.
#[derive(Debug, Clone)]
pub struct Tls {
    current: Arc<ArcSwap<ServerConfig>>,
}

impl Tls {
    /// From PEM files.
    ///
    /// # Errors
    /// [`TlsError`] when a file is unreadable or the pair does not fit.
    pub fn from_files(files: &TlsFiles) -> Result<Tls, TlsError> {
        Ok(Tls::new(Pem::read(files)?.config(files)?))
    }

    /// With a fresh self-signed ECDSA P-256 certificate for `names`.
    ///
    /// # Errors
    /// [`TlsError`] when a name is not a valid DNS name or address.
    pub fn self_signed(names: &[String]) -> Result<Tls, TlsError> {
        let made = rcgen::generate_simple_self_signed(names.to_vec())?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        Ok(Tls::new(build(vec![made.cert.der().clone()], key, None)?))
    }

    fn new(config: ServerConfig) -> Tls {
        Tls { current: Arc::new(ArcSwap::from_pointee(config)) }
    }

    /// What a connection that begins now uses.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Shakes hands on a connection that began now, for protocols other than HTTP.
    ///
    /// # Errors
    /// A peer that does not speak TLS or does not show what it must.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> std::io::Result<TlsStream<S>> {
        TlsAcceptor::from(self.config()).accept(stream).await
    }

    /// Looks every `period` whether the files hold something else than before, and takes it over; what is unusable is
    /// logged, and the old certificate stays.
    pub async fn follow(self, files: TlsFiles, period: Duration, stop: CancellationToken) {
        let mut seen = digest(&files).await;
        while stop.run_until_cancelled(tokio::time::sleep(period)).await.is_some() {
            let now = digest(&files).await;
            if now == seen {
                continue;
            }
            seen = now;
            match Pem::read(&files).and_then(|pem| pem.config(&files)) {
                Ok(config) => {
                    self.current.store(Arc::new(config));
                    tracing::info!(certificate = %files.certificate.display(), "the new certificate is used from now on");
                }
                Err(error) => tracing::error!(%error, "the new certificate cannot be used; the old one stays"),
            }
        }
    }
}

/// What tells one content of the files from another; files that cannot be read count as empty.
async fn digest(files: &TlsFiles) -> [u8; 32] {
    let mut digest = Sha256::new();
    for path in [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()].into_iter().flatten() {
        let bytes = tokio::fs::read(path).await.unwrap_or_default();
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    }
    digest.finalize().into()
}

/// What the files hold.
struct Pem {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client_ca: Vec<CertificateDer<'static>>,
}

impl Pem {
    fn read(files: &TlsFiles) -> Result<Pem, TlsError> {
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| pem("private key", &files.key, &e))?;
        let client_ca = files.client_ca.as_deref().map_or(Ok(Vec::new()), certificates)?;
        Ok(Pem { chain: certificates(&files.certificate)?, key, client_ca })
    }

    fn config(self, files: &TlsFiles) -> Result<ServerConfig, TlsError> {
        let Some(path) = &files.client_ca else { return build(self.chain, self.key, None) };
        let unusable = |reason: String| TlsError::Pem { what: "client authority", path: path.display().to_string(), reason };
        let mut roots = RootCertStore::empty();
        for certificate in self.client_ca {
            roots.add(certificate).map_err(|e| unusable(e.to_string()))?;
        }
        install_crypto();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(|e| unusable(e.to_string()))?;
        build(self.chain, self.key, Some(verifier))
    }
}

/// The certificates of a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match all.map_err(|e| pem("certificate", path, &e))? {
        none if none.is_empty() => Err(pem("certificate", path, &rustls::pki_types::pem::Error::NoItemsFound)),
        all => Ok(all),
    }
}

fn pem(what: &'static str, path: &Path, error: &rustls::pki_types::pem::Error) -> TlsError {
    TlsError::Pem { what, path: path.display().to_string(), reason: error.to_string() }
}

fn build(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, TlsError> {
    install_crypto();
    let builder = ServerConfig::builder();
    let builder = match clients {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
