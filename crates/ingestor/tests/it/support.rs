//! An ingestor in this process, on ports of the loopback interface.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ingestor::{Config, Endpoint, Running};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use wal::segment::{BlockMeta, HEADER, Scratch, encode_block};

use crate::fake_kusto::FakeKusto;

pub(crate) struct Process {
    pub(crate) running: Running,
    pub(crate) stop: CancellationToken,
    pub(crate) plain: String,
}

pub(crate) async fn start(dir: &Path, metrics: &[(&str, &FakeKusto)], change: impl FnOnce(&mut Config)) -> Process {
    let mut config = Config::new(dir);
    config.durability = wal::Durability::Process;
    config.listen_plain = SocketAddr::from(([127, 0, 0, 1], 0));
    config.listen_tls = None;
    config.transfer_on_plain = true;
    config.max_segment_age = Duration::from_millis(100);
    config.max_disk_bytes = 1 << 30;
    config.metrics =
        metrics.iter().map(|(database, kusto)| Endpoint { database: (*database).to_owned(), url: kusto.url.clone() }).collect();
    change(&mut config);
    let stop = CancellationToken::new();
    let running = ingestor::start(config, stop.clone()).await.unwrap();
    let plain = format!("http://{}", running.plain);
    Process { running, stop, plain }
}

impl Process {
    pub(crate) async fn finish(self) {
        self.stop.cancel();
        self.running.finished().await.unwrap();
    }

    pub(crate) async fn post(&self, file_name: &str, body: Vec<u8>) -> http::StatusCode {
        self.transfer(file_name, body).await.status()
    }

    pub(crate) async fn transfer(&self, file_name: &str, body: Vec<u8>) -> reqwest::Response {
        let url = format!("{}/transfer?filename={file_name}", self.plain);
        client().post(url).body(body).send().await.unwrap()
    }

    /// Waits until an answer says what is asked for.
    pub(crate) async fn until(&self, path: &str, what: impl Fn(&str) -> bool) {
        let text = Mutex::new(String::new());
        let reached = async {
            loop {
                *text.lock() = self.get(path).await.1;
                if what(&text.lock()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(60), reached).await;
        assert!(in_time.is_ok(), "not seen at {path}: {}", text.lock());
    }

    /// Waits until so many segments are sealed and not settled.
    pub(crate) async fn sealed(&self, count: usize) {
        self.until("/debug/store", |text| text.contains(&format!("sealed segments {count},"))).await;
    }

    pub(crate) async fn get(&self, path: &str) -> (http::StatusCode, String) {
        let response = client().get(format!("{}{path}", self.plain)).send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await;
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

/// One for all requests, since reading the system's certificates takes a while; no connection outlives its request.
pub(crate) fn client() -> reqwest::Client {
    static CLIENT: std::sync::OnceLock<reqwest::Client> = std::sync::OnceLock::new();
    let make = || {
        server::install_crypto();
        reqwest::Client::builder().tls_danger_accept_invalid_certs(true).pool_max_idle_per_host(0).build().unwrap()
    };
    CLIENT.get_or_init(make).clone()
}

/// The ledger that a stopped process has left.
pub(crate) fn ledger(dir: &Path) -> wal::Counts {
    let (store, _) = wal::Store::open(wal::Options::new(dir), wal::RealDisk::new(), 0).unwrap();
    store.ledger().check().unwrap();
    let total = store.ledger().total();
    store.close();
    total
}

pub(crate) fn image(header: &str, rows: &str) -> Vec<u8> {
    let mut out = HEADER.to_vec();
    let meta = BlockMeta { sample_type: 1, rows: rows.lines().count() as u32 };
    encode_block(&mut out, meta, format!("{header}\n{rows}").as_bytes(), &mut Scratch::default());
    out
}

pub(crate) const NARROW: &str = "Timestamp:datetime,Value:real";
pub(crate) const WIDE: &str = "Timestamp:datetime,Value:real,Host:string";
