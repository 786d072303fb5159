//! Vectors, and a collector in a scratch folder.

use std::path::Path;
use std::time::Duration;

use collector::{Config, Running};
use telemetry::client::{Series, remote_write_body};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// The text of a vector file.
pub(crate) fn vector(name: &str) -> String {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A collector that runs in a folder of its own.
pub(crate) struct Collector {
    pub(crate) url: String,
    pub(crate) dir: TempDir,
    pub(crate) shutdown: CancellationToken,
    running: Option<Running>,
}

pub(crate) const RECEIVERS: &str = "
[[prometheus-remote-write]]
database = 'Metrics'
path = '/receive'
drop-metrics = ['^dropme$']
[[otel-metric]]
database = 'Metrics'
path = '/v1/metrics'
[otel-log]
[otel-trace]
database = 'Traces'
";

impl Collector {
    /// Starts one with `settings` (top-level keys) and `tables`.
    pub(crate) async fn start(settings: &str, tables: &str) -> Collector {
        Collector::start_in(tempfile::tempdir().unwrap(), settings, tables).await
    }

    pub(crate) async fn start_in(dir: TempDir, settings: &str, tables: &str) -> Collector {
        Collector::start_changed(dir, settings, tables, |_| ()).await
    }

    /// Starts one whose configuration `change` changes.
    pub(crate) async fn start_with(settings: &str, tables: &str, change: impl FnOnce(&mut Config)) -> Collector {
        Collector::start_changed(tempfile::tempdir().unwrap(), settings, tables, change).await
    }

    async fn start_changed(dir: TempDir, settings: &str, tables: &str, change: impl FnOnce(&mut Config)) -> Collector {
        let text = configuration(dir.path(), settings, tables);
        let (mut config, _warnings) = Config::from_toml(&text, "node-1").unwrap();
        change(&mut config);
        let shutdown = CancellationToken::new();
        let running = collector::start(config, shutdown.clone()).await.unwrap();
        Collector { url: format!("http://{}", running.addr), dir, shutdown, running: Some(running) }
    }

    /// Gives it another configuration, as SIGHUP does with the file.
    pub(crate) async fn reload(&self, settings: &str, tables: &str) -> anyhow::Result<Vec<&'static str>> {
        let text = configuration(self.dir.path(), settings, tables);
        let config = Config::from_toml(&text, "node-1").map(|(config, _)| config).map_err(anyhow::Error::from);
        let reloaded = self.running.as_ref().unwrap().reloader().reload(config).await?;
        Ok(reloaded.after_restart)
    }

    /// What `start` gave.
    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Drains, and gives the folder back.
    pub(crate) async fn stop(mut self) -> TempDir {
        self.shutdown.cancel();
        self.running.take().unwrap().finished().await.unwrap();
        self.dir
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let response = client().get(format!("{}{path}", self.url)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// The value of a metric of the collector's own, written with its labels.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until a metric has a value.
    pub(crate) async fn until(&self, name: &str, wanted: impl Fn(f64) -> bool) -> f64 {
        let wait = async {
            loop {
                if let Some(value) = self.metric(name).await.filter(|v| wanted(*v)) {
                    return value;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("{name} did not get there"))
    }

    /// Sends one sample by remote write.
    pub(crate) async fn write(&self, name: &str, value: f64) -> u16 {
        let response = client().post(format!("{}/receive", self.url)).body(one_sample(name, value)).send().await.unwrap();
        response.status().as_u16()
    }
}

fn configuration(dir: &Path, settings: &str, tables: &str) -> String {
    format!("listen-addr = '127.0.0.1:0'\nstorage-dir = '{}'\ndurability = 'process'\n{settings}\n{tables}", dir.display())
}

pub(crate) fn one_sample(name: &str, value: f64) -> Vec<u8> {
    let labels = vec![("__name__".to_owned(), name.to_owned()), ("host".to_owned(), "h".to_owned())];
    let body = remote_write_body(&[Series { labels, samples: vec![(1_700_000_000_000, value)] }]);
    snap::raw::Encoder::new().compress_vec(&body).unwrap()
}

pub(crate) fn client() -> reqwest::Client {
    server::install_crypto();
    reqwest::Client::builder().tls_danger_accept_invalid_certs(true).no_proxy().build().unwrap()
}
