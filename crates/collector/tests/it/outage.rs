//! A whole collector under load whose ingestor is away, then answers 429, 500, with torn connections, slowly, and then well.
//!
//! The hour of it, with time as a number, is in `crates/transfer/tests/it/outage.rs`; here are the real program, its memory
//! as the kernel counts it, and HTTP.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::Query;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use parking_lot::Mutex;
use reqwest::StatusCode;
use server::Limits;
use telemetry::client::{Series, remote_write_body};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::binary::launch;
use crate::support::client;

/// Samples of one request.
const SAMPLES: u64 = 1000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Health {
    #[default]
    Away,
    /// 429, with the time of the next try.
    Full,
    /// 500, every other time though it has stored the request.
    Failing,
    /// Connections break, before the request has come or before the answer has.
    Torn,
    /// It takes two seconds for an answer.
    Slow,
    Well,
}

/// An ingestor like the reference's.
#[derive(Default)]
struct Ingestor {
    health: Mutex<Health>,
    /// Requests, and of a torn ingestor connections, that met it in each state.
    met: Mutex<HashMap<Health, u64>>,
    connections: AtomicU64,
    /// How often each sample came, by its number.
    came: Mutex<HashMap<u64, u32>>,
}

impl Ingestor {
    /// Listens at `addr` until the end of the test.
    async fn listen(self: &Arc<Self>, addr: SocketAddr) {
        let this = Arc::clone(self);
        let transfer = move |Query(query): Query<HashMap<String, String>>, body: Bytes| async move {
            assert!(query.contains_key("filename"));
            this.take(&body).await
        };
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let behind = inner.local_addr().unwrap();
        let router = Router::new().route("/transfer", post(transfer));
        tokio::spawn(server::serve(inner, router, Limits::default(), None, CancellationToken::new()));
        let (front, this) = (TcpListener::bind(addr).await.unwrap(), Arc::clone(self));
        tokio::spawn(async move {
            while let Ok((stream, _)) = front.accept().await {
                tokio::spawn(Arc::clone(&this).connection(stream, behind));
            }
        });
    }

    /// Between a sender and the server, to break what is between them.
    async fn connection(self: Arc<Self>, mut stream: TcpStream, behind: SocketAddr) {
        let mut server = TcpStream::connect(behind).await.unwrap();
        let ((mut from_sender, mut to_sender), (mut from_server, mut to_server)) = (stream.split(), server.split());
        let torn = || *self.health.lock() == Health::Torn;
        let before = self.connections.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        let up = async {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(n @ 1..) = from_sender.read(&mut buffer).await {
                if torn() && before || to_server.write_all(&buffer[..n]).await.is_err() {
                    return;
                }
            }
        };
        let down = async {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
                if torn() || to_sender.write_all(&buffer[..n]).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = up => {}
            () = down => {}
        }
        if torn() {
            self.meets(Health::Torn);
        }
    }

    /// Counts one; how many there were before.
    fn meets(&self, health: Health) -> u64 {
        let mut met = self.met.lock();
        let count = met.entry(health).or_default();
        *count += 1;
        *count - 1
    }

    /// Is so until it was met so often.
    async fn is(&self, health: Health, times: u64) {
        *self.health.lock() = health;
        self.met.lock().remove(&health);
        let met = async {
            while self.met.lock().get(&health).copied().unwrap_or_default() < times {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(90), met).await.unwrap_or_else(|_| panic!("nobody asks while it is {health:?}"));
    }

    async fn take(&self, body: &[u8]) -> Response {
        let health = *self.health.lock();
        let even = health != Health::Torn && self.meets(health).is_multiple_of(2);
        match health {
            Health::Full => return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response(),
            Health::Failing if even => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            Health::Slow => tokio::time::sleep(Duration::from_secs(2)).await,
            _ => {}
        }
        let text = String::from_utf8(wal::segment::values(body, true)).unwrap();
        let mut came = self.came.lock();
        for row in text.lines() {
            let value: f64 = row.rsplit_once(',').unwrap().1.parse().unwrap();
            *came.entry(value as u64).or_default() += 1;
        }
        let answer = if health == Health::Failing { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::ACCEPTED };
        answer.into_response()
    }
}

/// Sends samples with increasing numbers until it is told to stop; how many were acknowledged.
async fn load(url: String, stop: CancellationToken) -> u64 {
    let client = client();
    let labels = |n: u64| vec![("__name__".to_owned(), "load".to_owned()), ("host".to_owned(), format!("h{}{}", n % 50, "x".repeat(100)))];
    let mut next = 0;
    while !stop.is_cancelled() {
        let samples = (next..next + SAMPLES).map(|n| Series { labels: labels(n), samples: vec![(1_700_000_000_000 + n as i64, n as f64)] });
        let body = snap::raw::Encoder::new().compress_vec(&remote_write_body(&samples.collect::<Vec<_>>())).unwrap();
        let response = client.post(format!("{url}/receive")).body(body).send().await.unwrap();
        assert_eq!(response.status(), 202);
        next += SAMPLES;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    next
}

/// Resident memory of a process, in bytes.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_the_ingestor_is_away_or_sick() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let dir = tempfile::tempdir().unwrap();
    let (mut child, url) = launch(
        dir.path(),
        &format!(
            "endpoint = 'http://{addr}'\ndisable-gzip = true\ndurability = 'process'\nmax-segment-age-seconds = 1\n\
             [[prometheus-remote-write]]\ndatabase = 'Metrics'\npath = '/receive'\n"
        ),
    );
    let (ingestor, stop) = (Arc::new(Ingestor::default()), CancellationToken::new());
    let loading = tokio::spawn(load(url.clone(), stop.clone()));
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let early = memory(child.id());
    tokio::time::sleep(Duration::from_secs(4)).await;
    ingestor.listen(addr).await;
    // An answer in between makes the sender ask sooner again.
    for (health, times) in [(Health::Full, 2), (Health::Slow, 1), (Health::Failing, 2), (Health::Slow, 1), (Health::Torn, 2)] {
        ingestor.is(health, times).await;
    }
    let (backlog, late) = (on_disk(&url).await, memory(child.id()));
    let (came, sick) = (ingestor.came.lock().len(), began.elapsed());
    *ingestor.health.lock() = Health::Well;
    let well = Instant::now();
    // The load goes on while the backlog drains.
    let drained = async {
        let mut first = None;
        while on_disk(&url).await > 30_000.0 {
            if first.is_none() && ingestor.came.lock().len() > came {
                first = Some(Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        first.unwrap_or(well).elapsed()
    };
    let drained = tokio::time::timeout(Duration::from_secs(120), drained).await.expect("the backlog drains");
    let drain_memory = memory(child.id());
    stop.cancel();
    let acknowledged = loading.await.unwrap();
    let all = async {
        while (ingestor.came.lock().len() as u64) < acknowledged {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let arrived = tokio::time::timeout(Duration::from_secs(60), all).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let came = ingestor.came.lock();
    let lost = (0..acknowledged).filter(|n| !came.contains_key(n)).count();
    let again: u64 = came.values().map(|times| u64::from(times - 1)).sum();
    println!(
        "{acknowledged} samples, {lost} lost, {again} again; backlog of {backlog} rows in {sick:?}, drained in {drained:?}; \
         resident after 3 s, at the end and after the drain: {early}, {late}, {drain_memory}"
    );
    assert_eq!(lost, 0, "{arrived:?}");
    // What was stored and not answered for comes again, as with the reference's contract it has to.
    assert!(again > 0);
    assert!(backlog > 50_000.0, "{backlog}");
    assert!(drained < sick / 2, "{drained:?} of {sick:?}");
    assert!(late.max(drain_memory) < early + (24 << 20), "{early}, {late}, {drain_memory}");
}

/// Rows that wait.
async fn on_disk(url: &str) -> f64 {
    let page = client().get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    let name = "adxmon_ledger_rows{database=\"Metrics\",state=\"on_disk\"} ";
    page.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or_default()
}
