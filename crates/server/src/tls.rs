//! TLS: the process-wide crypto provider, server configurations from PEM, and the self-signed pair
//! that an ingestor without certificate uses.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

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

/// A server configuration from a PEM certificate chain and key, for HTTP/2 and HTTP/1.1.
///
/// # Errors
/// [`TlsError`] when a file is unreadable or the two do not fit.
pub fn server_config(cert_file: &Path, key_file: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let pem = |what, path: &Path, e: rustls::pki_types::pem::Error| TlsError::Pem {
        what,
        path: path.display().to_string(),
        reason: e.to_string(),
    };
    let chain = CertificateDer::pem_file_iter(cert_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| pem("certificate", cert_file, e))?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|e| pem("private key", key_file, e))?;
    build(chain, key)
}

/// A server configuration with a fresh self-signed ECDSA P-256 certificate for `names`.
///
/// # Errors
/// [`TlsError`] when a name is not a valid DNS name or address.
pub fn self_signed(names: &[String]) -> Result<Arc<ServerConfig>, TlsError> {
    let made = rcgen::generate_simple_self_signed(names.to_vec())?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    build(vec![made.cert.der().clone()], key)
}

fn build(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Arc<ServerConfig>, TlsError> {
    install_crypto();
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
