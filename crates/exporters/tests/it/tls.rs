//! Receivers that ask for a client's certificate, signed by an authority of their own.

use std::path::PathBuf;
use std::sync::Arc;

use exporters::fluent::{Destination, FluentConfig, FluentForward};
use exporters::otlp::{OtlpMetrics, Protocol, PushConfig};
use exporters::remote_write::{RemoteWrite, RemoteWriteConfig};
use exporters::{Exporter, HttpOptions};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{LONG, Rig, sample};

/// An authority, a certificate of it for clients in files, and a receiver that wants one.
struct Receiver {
    files: TempDir,
    client: CertificateDer<'static>,
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Receiver {
    async fn start() -> Receiver {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let files = tempfile::tempdir().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = authority.self_signed(&key).unwrap();
        let issuer = Issuer::new(authority, key);
        let signed = |name: &str| {
            let key = KeyPair::generate().unwrap();
            (CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap(), key)
        };
        let (server, server_key) = signed("localhost");
        let (client, client_key) = signed("client");
        for (name, pem) in [("ca.crt", ca.pem()), ("client.crt", client.pem()), ("client.key", client_key.serialize_pem())] {
            std::fs::write(files.path().join(name), pem).unwrap();
        }
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let key = PrivateKeyDer::Pkcs8(server_key.serialize_der().into());
        let mut config =
            ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(vec![server.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Receiver { files, client: client.der().clone(), listener, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn identity(&self) -> (PathBuf, PathBuf) {
        (self.file("client.crt"), self.file("client.key"))
    }

    fn address(&self) -> String {
        format!("localhost:{}", self.listener.local_addr().unwrap().port())
    }

    /// What the next client shows, or why it is not taken.
    async fn next(&self) -> Result<CertificateDer<'static>, String> {
        let next = async {
            let (stream, _) = self.listener.accept().await.unwrap();
            let stream = self.acceptor.accept(stream).await.map_err(|error| error.to_string())?;
            let (_, connection) = stream.get_ref();
            Ok(connection.peer_certificates().unwrap()[0].clone().into_owned())
        };
        tokio::time::timeout(LONG, next).await.expect("nobody connects")
    }
}

/// An exporter of each kind, with an identity or none.
async fn start(kind: &str, rig: &Rig, receiver: &Receiver, identity: Option<(PathBuf, PathBuf)>) -> Exporter {
    let http = HttpOptions { ca_file: Some(receiver.file("ca.crt")), client_certificate: identity.clone(), ..HttpOptions::default() };
    let url = format!("https://{}/", receiver.address());
    let otlp = |protocol| OtlpMetrics::new(PushConfig { protocol, http: http.clone(), ..PushConfig::new(&url) }, false).unwrap();
    if kind == "fluent" {
        rig.keep_logs(&json!([{"body": {"stringValue": "x"}, "attributes": [{"key": "tag", "value": {"stringValue": "t"}}]}])).await;
        let destination = Destination::parse(&format!("tls://{}", receiver.address())).unwrap();
        // Without acknowledgements what is written before a receiver has looked at the certificate counts as taken.
        let acknowledge = Some(LONG);
        let config =
            FluentConfig { acknowledge, ca_file: http.ca_file, client_certificate: identity, ..FluentConfig::new(destination, "tag") };
        return rig.start(FluentForward::new(config));
    }
    rig.keep(&[sample(1)]).await;
    match kind {
        "http" => rig.start(otlp(Protocol::Http)),
        "grpc" => rig.start(otlp(Protocol::Grpc)),
        _ => rig.start(RemoteWrite::new(RemoteWriteConfig { http, ..RemoteWriteConfig::new(&url) }).unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exporters_show_a_certificate_to_receivers_that_ask_for_one() {
    for kind in ["http", "grpc", "remote write", "fluent"] {
        let receiver = Receiver::start().await;
        let rig = Rig::new();
        let exporter = start(kind, &rig, &receiver, Some(receiver.identity())).await;
        assert_eq!(receiver.next().await.as_ref(), Ok(&receiver.client), "{kind}");
        exporter.end().await;
        let rig = Rig::new();
        let _exporter = start(kind, &rig, &receiver, None).await;
        // What the one before still tries goes by.
        let refused = async { while receiver.next().await.is_ok() {} };
        tokio::time::timeout(LONG, refused).await.unwrap_or_else(|_| panic!("{kind} is taken without a certificate"));
        assert_eq!(rig.buffer.segments(), 1, "{kind}: nothing is lost meanwhile");
    }
}
