//! Tokens for a certificate that is registered with the application: the client signs a statement of who it is.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::SecretString;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::chain::Credential;
use crate::credentials::Credentials;
use crate::directory::Directory;
use crate::error::Error;
use crate::token::{Scope, Token};

/// How long the statement holds, in seconds; Microsoft advises 5 to 10 minutes.
const VALIDITY: i64 = 600;

/// AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_CERTIFICATE_PATH, a PEM file with certificate and key.
pub(crate) struct ClientCertificate(pub(crate) Credentials);

#[async_trait]
impl Credential for ClientCertificate {
    fn name(&self) -> &'static str {
        "client certificate"
    }

    async fn fetch(&self, scope: &Scope) -> Result<Token, Error> {
        let names = ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_CERTIFICATE_PATH"];
        let [tenant, client, path] = self.0.environment.all(names).map_err(|missing| Error::unavailable(format!("{missing} not set")))?;
        // Read each time: certificates are replaced.
        let pem = tokio::fs::read(&path).await.map(SecretPem);
        let pem = pem.map_err(|error| Error::refused(format!("reading AZURE_CLIENT_CERTIFICATE_PATH {path}: {error}")))?;
        let directory = Directory::new(&self.0, scope, &tenant)?;
        let assertion = sign(&pem.0, &client, directory.endpoint().as_str(), (self.0.now)().as_second());
        let assertion = assertion.map_err(|why| Error::refused(format!("AZURE_CLIENT_CERTIFICATE_PATH {path}: {why}")))?;
        directory.assert(scope, &client, assertion).await.map_err(|error| Error {
            message: format!("{error} (application {client} of tenant {tenant}; the certificate of {path} must be registered with it)"),
            ..error
        })
    }
}

/// Has no `Debug`.
struct SecretPem(Vec<u8>);

fn sign(pem: &[u8], client: &str, endpoint: &str, now: i64) -> Result<SecretString, String> {
    let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| "there is no PEM block CERTIFICATE")?;
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| "there is no PEM block of a private key without a password")?;
    let key = any_supported_type(&key).map_err(|_| "the private key cannot be used")?;
    let signer = key.choose_scheme(&[SignatureScheme::RSA_PSS_SHA256]).ok_or("the private key is no RSA key, which Entra ID wants")?;
    let header = json!({"alg": "PS256", "typ": "JWT", "x5t#S256": URL_SAFE_NO_PAD.encode(Sha256::digest(&certificate))});
    let claims = json!({
        "aud": endpoint, "iss": client, "sub": client, "jti": uuid::Uuid::new_v4().to_string(), "iat": now, "nbf": now, "exp": now + VALIDITY,
    });
    let encode = |part: serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let statement = format!("{}.{}", encode(header), encode(claims));
    let signature = signer.sign(statement.as_bytes()).map_err(|_| "signing failed")?;
    Ok(format!("{statement}.{}", URL_SAFE_NO_PAD.encode(signature)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_named_and_not_shown() {
        let elliptic = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
        let (certificate, key) = (elliptic.cert.pem(), elliptic.signing_key.serialize_pem());
        for (pem, says) in [
            (String::new(), "CERTIFICATE"),
            (key.clone(), "CERTIFICATE"),
            (certificate.clone(), "private key"),
            (format!("{certificate}{key}"), "RSA"),
        ] {
            let error = sign(pem.as_bytes(), "c", "https://e", 0).unwrap_err();
            assert!(error.contains(says) && !error.contains("BEGIN"), "{error}");
        }
    }
}
