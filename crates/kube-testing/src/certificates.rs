//! Keys and certificates of one API server, made afresh for each.

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// All in PEM.
pub(crate) struct Certificates {
    pub(crate) ca: String,
    pub(crate) server: String,
    pub(crate) server_key: String,
    /// Signs the tokens of service accounts.
    pub(crate) tokens_key: String,
    pub(crate) tokens_public: String,
}

impl Certificates {
    pub(crate) fn new() -> Result<Self> {
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        ca.distinguished_name.push(DnType::CommonName, "test-ca");
        let ca_certificate = ca.self_signed(&ca_key)?;
        let issuer = Issuer::new(ca, ca_key);

        let key = KeyPair::generate()?;
        let names = ["localhost", "kubernetes.default.svc", "127.0.0.1"].map(str::to_owned);
        let mut server = CertificateParams::new(names)?;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server = server.signed_by(&key, &issuer)?;

        let tokens = KeyPair::generate()?;
        Ok(Self {
            ca: ca_certificate.pem(),
            server: server.pem(),
            server_key: key.serialize_pem(),
            tokens_key: tokens.serialize_pem(),
            tokens_public: tokens.public_key_pem(),
        })
    }
}

/// A token that nobody can guess.
pub(crate) fn secret() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
