//! A kustd to talk to: its folder outlives it, its clock stands where the test puts it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use kustd::{Config, RemoteSettings, Running, StorageOptions};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// 2024-05-01T00:00:00Z in ticks.
pub(crate) const START: i64 = 638_501_184_000_000_000;
/// Ticks of one second.
pub(crate) const SECOND: i64 = 10_000_000;

/// A running kustd and a client of it.
pub(crate) struct Kustd {
    pub(crate) client: reqwest::Client,
    pub(crate) address: String,
    pub(crate) clock: Arc<AtomicI64>,
    shutdown: CancellationToken,
    running: Running,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Rows of the first table of a version 1 answer.
    pub(crate) fn rows(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()["Tables"][0]["Rows"].as_array().unwrap().clone()
    }

    /// Column names of the first table of a version 1 answer.
    pub(crate) fn columns(&self) -> Vec<String> {
        let json = self.json();
        let columns = json["Tables"][0]["Columns"].as_array().unwrap();
        columns.iter().map(|column| column["ColumnName"].as_str().unwrap().to_owned()).collect()
    }

    /// `error.@message`, after checking the status.
    pub(crate) fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()["error"]["@message"].as_str().unwrap().to_owned()
    }
}

impl Kustd {
    pub(crate) async fn start(folder: &Path) -> Kustd {
        Self::start_with(folder, |_| ()).await
    }

    pub(crate) async fn start_with(folder: &Path, change: impl FnOnce(&mut StorageOptions)) -> Kustd {
        Self::try_start(folder, change).await.unwrap_or_else(|error| panic!("{error:#}"))
    }

    pub(crate) async fn try_start(folder: &Path, change: impl FnOnce(&mut StorageOptions)) -> anyhow::Result<Kustd> {
        Self::try_start_queued(folder, Vec::new(), change).await
    }

    /// With queued ingestion through these accounts.
    pub(crate) async fn start_queued(folder: &Path, accounts: &[&azure_testing::azurite::Azurite]) -> Kustd {
        let accounts = accounts.iter().map(|azurite| azurite.connection_string()).collect();
        Self::try_start_queued(folder, accounts, |_| ()).await.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// With other clusters.
    pub(crate) async fn start_federated(folder: &Path, remote: RemoteSettings) -> Kustd {
        Self::try_start_configured(folder, Vec::new(), remote, |_| ()).await.unwrap_or_else(|error| panic!("{error:#}"))
    }

    pub(crate) async fn try_start_queued(
        folder: &Path,
        ingestion_storage: Vec<String>,
        change: impl FnOnce(&mut StorageOptions),
    ) -> anyhow::Result<Kustd> {
        Self::try_start_configured(folder, ingestion_storage, RemoteSettings::default(), change).await
    }

    async fn try_start_configured(
        folder: &Path,
        ingestion_storage: Vec<String>,
        remote: RemoteSettings,
        change: impl FnOnce(&mut StorageOptions),
    ) -> anyhow::Result<Kustd> {
        server::install_crypto();
        let config = Config {
            data_dir: folder.to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            durability: wal::Durability::Process,
            databases: vec!["Metrics".into()],
            retention: None,
            max_bytes: None,
            ingestion_storage,
            remote,
        };
        let mut options =
            StorageOptions { durability: wal::Durability::Process, journal_file_bytes: 1 << 20, ..StorageOptions::new(folder) };
        change(&mut options);
        let clock = Arc::new(AtomicI64::new(START));
        let shutdown = CancellationToken::new();
        let read = clock.clone();
        let running = kustd::start_with(config, options, Arc::new(move || read.load(Ordering::SeqCst)), shutdown.clone()).await?;
        let address = format!("http://{}", running.addr);
        Ok(Kustd { client: reqwest::Client::new(), address, clock, shutdown, running })
    }

    /// Ends it in order.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.running.finished().await.unwrap();
    }

    pub(crate) fn advance(&self, seconds: i64) {
        self.clock.fetch_add(seconds * SECOND, Ordering::SeqCst);
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Reply { status, headers, text: response.text().await.unwrap() }
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(self.client.post(format!("{}{path}", self.address)).json(&body)).await
    }

    /// A version 1 query in `Metrics`.
    pub(crate) async fn query(&self, text: &str) -> Reply {
        self.post("/v1/rest/query", json!({"db": "Metrics", "csl": text})).await
    }

    /// A management command in `Metrics`.
    pub(crate) async fn command(&self, text: &str) -> Reply {
        self.post("/v1/rest/mgmt", json!({"db": "Metrics", "csl": text})).await
    }

    /// A command that must work; its rows.
    pub(crate) async fn done(&self, text: &str) -> Vec<Value> {
        self.command(text).await.rows()
    }

    pub(crate) async fn ingest(&self, table: &str, parameters: &str, body: impl Into<Vec<u8>>) -> Reply {
        let address = format!("{}/v1/rest/ingest/Metrics/{table}?{parameters}", self.address);
        self.send(self.client.post(address).body(body.into())).await
    }

    pub(crate) async fn ingest_batch(&self, table: &str, id: &str, body: &str) -> Reply {
        let address = format!("{}/v1/rest/ingest/Metrics/{table}?streamFormat=csv", self.address);
        self.send(self.client.post(address).header("x-adxmon-batch-id", id).body(body.to_owned())).await
    }

    /// The number of rows of a table.
    pub(crate) async fn count(&self, table: &str) -> u64 {
        self.query(&format!("{table} | count")).await.rows()[0][0].as_u64().unwrap()
    }

    /// Waits until `text` answers with `expected` as its first row.
    pub(crate) async fn until(&self, text: &str, expected: Value) {
        let limit = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let rows = self.command(text).await.rows();
            if rows.first() == Some(&expected) {
                return;
            }
            assert!(tokio::time::Instant::now() < limit, "{text}: {rows:?}, not {expected}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}
