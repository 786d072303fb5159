//! TLS: certificates that change, certificates of clients, and handshakes that do not end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use server::{Connections, Limits, Tls, TlsFiles};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Longer than any limit of these tests, shorter than patience.
const PATIENCE: Duration = Duration::from_secs(20);

/// An authority that signs certificates.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key in PEM.
    fn sign(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn write_pair(dir: &Path, (certificate, key): &(String, String)) {
    std::fs::write(dir.join("tls.crt"), certificate).unwrap();
    std::fs::write(dir.join("tls.key"), key).unwrap();
}

fn files(dir: &Path, client_ca: Option<PathBuf>) -> TlsFiles {
    TlsFiles { certificate: dir.join("tls.crt"), key: dir.join("tls.key"), client_ca }
}

struct Secure {
    url: String,
    port: u16,
    stop: CancellationToken,
    connections: Arc<Connections>,
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(files: TlsFiles, limits: Limits) -> Secure {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, stop, connections) = (listener.local_addr().unwrap().port(), CancellationToken::new(), Arc::<Connections>::default());
    let tls = Tls::from_files(&files).unwrap();
    tokio::spawn(tls.clone().follow(files, Duration::from_millis(20), stop.clone()));
    let router = Router::new().route("/", get(|| async { "hello" }));
    tokio::spawn(server::serve_counted(listener, router, limits, Some(tls), stop.clone(), Arc::clone(&connections)));
    Secure { url: format!("https://localhost:{port}/"), port, stop, connections }
}

/// A client that trusts `authority`, and shows a certificate if it has one.
fn client(authority: &Authority, identity: Option<&(String, String)>) -> reqwest::Client {
    server::install_crypto();
    let root = reqwest::Certificate::from_pem(authority.pem.as_bytes()).unwrap();
    let mut builder = reqwest::Client::builder().tls_certs_only([root]).no_proxy();
    if let Some((certificate, key)) = identity {
        builder = builder.identity(reqwest::Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap());
    }
    builder.build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_used_and_connections_of_before_go_on() {
    let (old, new) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    write_pair(dir.path(), &old.sign());
    let server = serve(files(dir.path(), None), Limits::default()).await;
    let before = client(&old, None);
    assert_eq!(before.get(&server.url).send().await.unwrap().status(), 200);

    // The certificate without its key is unusable, so the old pair stays.
    let pair = new.sign();
    std::fs::write(dir.path().join("tls.crt"), &pair.0).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(client(&old, None).get(&server.url).send().await.unwrap().status(), 200);
    std::fs::write(dir.path().join("tls.key"), &pair.1).unwrap();
    let taken_over = async {
        while client(&new, None).get(&server.url).send().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, taken_over).await.unwrap();
    assert!(client(&old, None).get(&server.url).send().await.is_err(), "the old certificate is gone");
    // This one is open since before.
    assert_eq!(before.get(&server.url).send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_show_certificates_of_our_authority() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    write_pair(dir.path(), &ours.sign());
    let client_ca = dir.path().join("clients.crt");
    std::fs::write(&client_ca, &ours.pem).unwrap();
    let server = serve(files(dir.path(), Some(client_ca.clone())), Limits::default()).await;
    let pair = ours.sign();
    assert_eq!(client(&ours, Some(&pair)).get(&server.url).send().await.unwrap().status(), 200);
    assert!(client(&ours, None).get(&server.url).send().await.is_err(), "no certificate");
    assert!(client(&ours, Some(&theirs.sign())).get(&server.url).send().await.is_err(), "another authority");
    let counted = async {
        while server.connections.handshakes_failed() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.unwrap();

    // The authorities may change, too.
    std::fs::write(&client_ca, format!("{}{}", ours.pem, theirs.pem)).unwrap();
    let admitted = async {
        let pair = theirs.sign();
        while client(&ours, Some(&pair)).get(&server.url).send().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, admitted).await.unwrap();
}

#[test]
fn unusable_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let error = |client_ca| Tls::from_files(&files(dir.path(), client_ca)).unwrap_err().to_string();
    assert!(error(None).contains("tls.key"));
    write_pair(dir.path(), &(authority.sign().0, authority.sign().1));
    assert!(error(None).contains("certificate and key"), "{}", error(None));
    write_pair(dir.path(), &authority.sign());
    let empty = dir.path().join("empty.crt");
    std::fs::write(&empty, "").unwrap();
    assert!(error(Some(empty)).contains("empty.crt"));
    std::fs::write(dir.path().join("tls.crt"), "").unwrap();
    assert!(error(None).contains("tls.crt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_do_not_end_or_are_none_are_closed_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    write_pair(dir.path(), &Authority::new().sign());
    let server = serve(files(dir.path(), None), Limits { header_timeout: Duration::from_millis(200), ..Limits::default() }).await;
    let mut half = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    // The head of a TLS record of 512 bytes, and nothing of it.
    half.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
    let mut plain = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    for stream in [&mut half, &mut plain] {
        let mut got = Vec::new();
        // A reset is a close, too.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut got)).await.expect("the server did not close the connection");
    }
    assert_eq!((server.connections.overdue(), server.connections.handshakes_failed()), (1, 1));
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// As many as the limit of open files allows, at most 10,000: both ends are in this process.
#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_cost_little_and_keep_nobody_out() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.map_or(20_200, |limit| limit as usize);
    let count = (limit.saturating_sub(200) / 2).min(10_000);
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    write_pair(dir.path(), &authority.sign());
    let server = serve(files(dir.path(), None), Limits { header_timeout: Duration::from_secs(3600), ..Limits::default() }).await;
    let client = client(&authority, None);
    assert_eq!(client.get(&server.url).send().await.unwrap().status(), 200);
    let before = resident();
    let mut silent = Vec::with_capacity(count);
    while silent.len() < count {
        silent.push(TcpStream::connect(("127.0.0.1", server.port)).await.unwrap());
    }
    let all_there = async {
        while server.connections.active() < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, all_there).await.unwrap();
    let each = resident().saturating_sub(before) / count;
    assert!(each < 4096, "{each} bytes for each of {count} connections");
    assert_eq!(client.get(&server.url).send().await.unwrap().status(), 200);
}
