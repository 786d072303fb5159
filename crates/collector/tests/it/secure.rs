//! Who may send to a collector, and how it shows the ingestor who it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use collector::Config;
use prometheus_client::registry::Registry;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use reqwest::header::WWW_AUTHENTICATE;
use server::{Auth, AuthOptions, Connections, Limits, Tls, TlsFiles};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use transfer::receiver::{self, ReceiverOptions};

use crate::support::{Collector, RECEIVERS, client, one_sample};

/// An authority with a certificate for `localhost` that serves and another one for clients, as files.
pub(crate) struct Certificates(tempfile::TempDir);

impl Certificates {
    pub(crate) fn new() -> Certificates {
        let dir = tempfile::tempdir().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(dir.path().join("ca.crt"), authority.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(authority, key);
        for name in ["server", "client"] {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
            std::fs::write(dir.path().join(format!("{name}.crt")), certificate.pem()).unwrap();
            std::fs::write(dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Certificates(dir)
    }

    /// A folder for others to fill.
    pub(crate) fn empty() -> Certificates {
        Certificates(tempfile::tempdir().unwrap())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// An ingestor's intake that wants a client certificate and a token.
pub(crate) struct Ingestor {
    pub(crate) url: String,
    pub(crate) store: wal::Store,
    connections: Arc<Connections>,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Drop for Ingestor {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// With the certificate and the token file of these names.
pub(crate) async fn ingestor(certificates: &Certificates, (name, token_file): (&str, &str)) -> Ingestor {
    let dir = tempfile::tempdir().unwrap();
    let options = wal::Options { durability: wal::Durability::Process, ..wal::Options::new(dir.path()) };
    let (store, _) = wal::Store::open(options, wal::RealDisk::new(), 0).unwrap();
    let router = receiver::router(store.clone(), ReceiverOptions::default(), Arc::new(|| Ok(())));
    let options = AuthOptions { token_file: Some(certificates.file(token_file)), ..AuthOptions::default() };
    let auth = Auth::new(options, &mut Registry::default()).unwrap();
    let files = TlsFiles {
        certificate: certificates.file(&format!("{name}.crt")),
        key: certificates.file(&format!("{name}.key")),
        client_ca: Some(certificates.file("ca.crt")),
    };
    let tls = Tls::from_files(&files).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let (stop, connections) = (CancellationToken::new(), Arc::<Connections>::default());
    tokio::spawn(Arc::clone(&auth).follow(Duration::from_millis(20), stop.clone()));
    let serving =
        server::serve_counted(listener, auth.protect(router), Limits::default(), Some(tls), stop.clone(), Arc::clone(&connections));
    tokio::spawn(serving);
    Ingestor { url, store, connections, stop, _dir: dir }
}

fn settings(ingestor: &Ingestor, certificates: &Certificates, identity: bool, token_file: &Path) -> String {
    let file = |name: &str| certificates.file(name).display().to_string();
    let mut settings = format!(
        "endpoint = '{}'\nmax-segment-age-seconds = 1\ntransfer-ca-file = '{}'\ntransfer-token-file = '{}'\n",
        ingestor.url,
        file("ca.crt"),
        token_file.display()
    );
    if identity {
        let pair = format!("transfer-client-cert-file = '{}'\ntransfer-client-key-file = '{}'\n", file("client.crt"), file("client.key"));
        settings.push_str(&pair);
    }
    settings
}

pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{what} does not happen"));
}

fn accepted(ingestor: &Ingestor) -> u64 {
    ingestor.store.ledger().total().accepted
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_go_to_an_ingestor_that_wants_a_certificate_and_a_token() {
    let certificates = Certificates::new();
    let (theirs, ours) = (certificates.file("tokens"), certificates.file("token"));
    std::fs::write(&theirs, "# rotated daily\ntoday\n").unwrap();
    std::fs::write(&ours, "today\n").unwrap();
    let ingestor = ingestor(&certificates, ("server", "tokens")).await;

    let stranger = Collector::start(&settings(&ingestor, &certificates, false, &ours), RECEIVERS).await;
    assert_eq!(stranger.write("stranger", 1.0).await, 202);
    until("a refused handshake", || ingestor.connections.handshakes_failed() > 0).await;
    assert_eq!(accepted(&ingestor), 0);

    let collector = Collector::start(&settings(&ingestor, &certificates, true, &ours), RECEIVERS).await;
    assert_eq!(collector.write("first", 1.0).await, 202);
    until("the first row arrives", || accepted(&ingestor) == 1).await;

    // The token changes on both sides, first here: what waits is sent once the collector has the new one.
    std::fs::write(&theirs, "tomorrow\n").unwrap();
    let closed = async {
        let file = |name: &str| std::fs::read_to_string(certificates.file(name)).unwrap();
        let identity = reqwest::Identity::from_pem(format!("{}{}", file("client.crt"), file("client.key")).as_bytes()).unwrap();
        let http = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).identity(identity).no_proxy().build().unwrap();
        let status = async || http.get(format!("{}/transfer", ingestor.url)).bearer_auth("today").send().await.unwrap().status();
        while status().await != 401 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), closed).await.unwrap();
    assert_eq!(collector.write("second", 1.0).await, 202);
    std::fs::write(&ours, "tomorrow\n").unwrap();
    until("the second row arrives", || accepted(&ingestor) == 2).await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_need_a_token_and_whoever_asks_for_metrics_does_not() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokens"), "good").unwrap();
    let authentication = format!("[authentication]\ntoken-file = '{}'\n", dir.path().join("tokens").display());
    let collector = Collector::start("otlp-grpc-listen-addr = '127.0.0.1:0'", &format!("{authentication}{RECEIVERS}")).await;
    let send = async |token: &str| {
        let request = client().post(format!("{}/receive", collector.url)).bearer_auth(token).body(one_sample("up", 1.0));
        request.send().await.unwrap()
    };
    assert_eq!(send("good").await.status(), 202);
    let refused = send("bad").await;
    assert_eq!(refused.status(), 401);
    assert!(refused.headers().contains_key(WWW_AUTHENTICATE));
    assert_eq!(collector.write("up", 1.0).await, 401);
    for (path, status) in [("/readyz", 200), ("/healthz", 200), ("/debug/store", 401), ("/v1/logs", 401), ("/nothing", 401)] {
        assert_eq!(collector.get(path).await.0, status, "{path}");
    }
    let grpc = collector.running().otlp_grpc.unwrap();
    assert_eq!(client().get(format!("http://{grpc}/nothing")).send().await.unwrap().status(), 401);
    let count = collector.metric("adxmon_authentication_requests_total{outcome=\"admitted\"}").await;
    assert_eq!(count, Some(1.0));
    collector.stop().await;
}

/// One certificate and one authority for HTTP, OTLP over gRPC and the ports of sources.
#[tokio::test(flavor = "multi_thread")]
async fn every_listener_wants_the_certificate_of_a_client() {
    let certificates = Certificates::new();
    let file = |name: &str| certificates.file(name).display().to_string();
    let settings = format!(
        "tls-cert-file = '{}'\ntls-key-file = '{}'\ntls-client-ca-file = '{}'\notlp-grpc-listen-addr = '127.0.0.1:0'\n",
        file("server.crt"),
        file("server.key"),
        file("ca.crt")
    );
    let tables = format!("[[otel-metric]]\ndatabase = 'Port'\ngrpc-port = 1\n{RECEIVERS}");
    let any_port = |config: &mut Config| {
        config.metrics.iter_mut().for_each(|endpoint| endpoint.grpc_port = endpoint.grpc_port.map(|_| 0));
    };
    let collector = Collector::start_with(&settings, &tables, any_port).await;
    let running = collector.running();
    let builder = || reqwest::Client::builder().tls_danger_accept_invalid_certs(true).no_proxy();
    let pem = ["client.crt", "client.key"].map(|name| std::fs::read_to_string(certificates.file(name)).unwrap()).concat();
    let (stranger, known) =
        (builder().build().unwrap(), builder().identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap()).build().unwrap());
    let json = br#"{"resourceMetrics":[]}"#;
    let frame = [&[0, 0, 0, 0, json.len() as u8][..], json].concat();
    let grpc = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    let grpc_web = "application/grpc-web+json";
    for (address, path, kind, body) in [
        (running.addr, "/v1/metrics", "application/json", json.to_vec()),
        (running.otlp_grpc.unwrap(), grpc, grpc_web, frame.clone()),
        (running.grpc_ports[0], grpc, grpc_web, frame),
    ] {
        let url = format!("https://localhost:{}{path}", address.port());
        let post = |client: &reqwest::Client| client.post(&url).header(reqwest::header::CONTENT_TYPE, kind).body(body.clone()).send();
        assert!(post(&stranger).await.is_err(), "{url}");
        let answer = post(&known).await.unwrap();
        assert_eq!(answer.status(), 200, "{url}");
        let text = String::from_utf8_lossy(&answer.bytes().await.unwrap()).into_owned();
        assert!(path != grpc || text.contains("grpc-status: 0"), "{url}: {text}");
    }
    collector.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn token_review_without_a_cluster_and_missing_files_are_said_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let error = async |tables: &str| {
        let text = format!("listen-addr = '127.0.0.1:0'\nstorage-dir = '{}'\n{tables}", dir.path().display());
        let (config, _) = collector::Config::from_toml(&text, "node-1").unwrap();
        let error = collector::start(config, CancellationToken::new()).await.err().expect("it starts");
        format!("{error:#}")
    };
    if std::env::var_os("KUBECONFIG").is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() {
        let text = error("[authentication]\ntoken-review = true").await;
        assert!(text.contains("no cluster"), "{text}");
    }
    let text = error("[authentication]\ntoken-file = '/no/such/file'").await;
    assert!(text.contains("/no/such/file"), "{text}");
}
