//! The processes, and how they are asked.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use azure_testing::azurite::Azurite;
use kusto::QueryOptions;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::program::{PATIENCE, Program};

/// Its rows are streamed, those of all others are queued.
const STREAMED: &str = "LoadUrgent";

/// A setting of collectors: ingestors have certificates that nobody knows.
pub(super) const ANY_CERTIFICATE: &str = "insecure-skip-verify = true";

pub(super) struct World {
    pub(super) kustd: Program,
    pub(super) ingestors: Vec<Node>,
    pub(super) collectors: Vec<Node>,
    kustd_url: String,
    kusto: kusto::Client,
    http: reqwest::Client,
    ports: Vec<u16>,
    /// What ingestors want of those who ask.
    token: Option<String>,
    _azurite: Azurite,
    /// The last to go: the others print the ends of their logs, which are in it.
    pub(super) folder: TempDir,
}

/// A collector or an ingestor.
pub(super) struct Node {
    pub(super) program: Program,
    pub(super) name: String,
    /// Where it takes rows of clients, and tells of itself.
    pub(super) url: String,
    /// Where it takes segments.
    pub(super) transfer: String,
}

impl World {
    /// kustd alone, with room for so many others; none where Azurite is missing.
    pub(super) async fn start(nodes: usize) -> Option<World> {
        server::install_crypto();
        let azurite = Azurite::start()?;
        let folder = tempfile::tempdir().unwrap();
        let mut ports = free_ports(1 + 2 * nodes);
        let port = ports.pop().unwrap();
        let data = folder.path().join("kustd");
        let listen = format!("127.0.0.1:{port}");
        let arguments = ["--data-dir", data.to_str().unwrap(), "--listen", &listen, "--databases", "Metrics,Logs"];
        let storage = azurite.connection_string();
        let more = ["--durability", "process", "--ingestion-storage", &storage];
        let kustd = Program::start(
            env!("CARGO_BIN_EXE_kustd-to-kill"),
            &folder.path().join("kustd.log"),
            &arguments.into_iter().chain(more).collect::<Vec<_>>(),
        );
        let kustd_url = format!("http://{listen}");
        let kusto = kusto::Client::builder(&kustd_url).retry(kusto::RetryPolicy::none()).build().unwrap();
        // No connection is used again: one to a process that was killed would be a failure of ours.
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(Duration::from_secs(60)).build().unwrap();
        Some(World {
            folder,
            kustd,
            ingestors: Vec::new(),
            collectors: Vec::new(),
            kustd_url,
            kusto,
            http,
            ports,
            token: None,
            _azurite: azurite,
        })
    }

    /// The file that names the ingestors.
    fn peers_file(&self) -> PathBuf {
        self.folder.path().join("peers")
    }

    /// From now on these are the ingestors, by what the file says.
    pub(super) fn members(&self, members: impl IntoIterator<Item = usize>) {
        let line = |at: usize| format!("{}={}\n", self.ingestors[at].name, self.ingestors[at].transfer);
        self.write_peers(&members.into_iter().map(line).collect::<String>());
    }

    /// Read as a whole or not at all.
    fn write_peers(&self, text: &str) {
        let new = self.folder.path().join("peers.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.peers_file()).unwrap();
    }

    /// Names and starts so many ingestors more; together with those before they are the members.
    pub(super) fn add_ingestors(&mut self, count: usize) {
        self.add_ingestors_with(count, "https://127.0.0.1", &[]);
    }

    /// The same for ingestors that are addressed by another name, and have more flags.
    pub(super) fn add_ingestors_with(&mut self, count: usize, address: &str, more: &[&str]) {
        let names: Vec<(String, u16, u16)> = (self.ingestors.len()..self.ingestors.len() + count)
            .map(|at| (format!("ingestor-{at}"), self.ports.pop().unwrap(), self.ports.pop().unwrap()))
            .collect();
        let before = std::fs::read_to_string(self.peers_file()).unwrap_or_default();
        let lines: String = names.iter().map(|(name, _, tls)| format!("{name}={address}:{tls}\n")).collect();
        self.write_peers(&(before + &lines));
        for (name, plain, tls) in names {
            let storage = self.folder.path().join(&name);
            let (peers, url) = (self.peers_file(), &self.kustd_url);
            let flags = format!(
                "--storage-dir {} --durability process --max-disk-usage 1073741824 --hostname {name} --peers-file {}
                 --metrics-kusto-endpoints Metrics={url} --logs-kusto-endpoints Logs={url}
                 --ingestion queued --streaming-tables {STREAMED} --ingestion-batching-time 2s
                 --max-segment-age 1s --max-transfer-age 2s --listen-plain 127.0.0.1:{plain} --listen-tls 127.0.0.1:{tls}",
                storage.display(),
                peers.display()
            );
            let arguments: Vec<&str> = flags.split_whitespace().chain(more.iter().copied()).collect();
            let log = self.folder.path().join(format!("{name}.log"));
            let program = Program::start(env!("CARGO_BIN_EXE_ingestor-to-kill"), &log, &arguments);
            let (url, transfer) = (format!("http://127.0.0.1:{plain}"), format!("{address}:{tls}"));
            self.ingestors.push(Node { program, name, url, transfer });
        }
    }

    /// Starts a collector that prefers the ingestors in this order, with these settings besides.
    pub(super) fn add_collector(&mut self, ingestors: &[usize], top: &str, tables: &str) {
        let name = format!("collector-{}", self.collectors.len());
        let (port, storage) = (self.ports.pop().unwrap(), self.folder.path().join(&name));
        let endpoints: Vec<&str> = ingestors.iter().map(|at| self.ingestors[*at].transfer.as_str()).collect();
        let text = format!(
            "endpoint = {endpoints:?}\nlisten-addr = '127.0.0.1:{port}'\nstorage-dir = '{}'\ndurability = 'process'\n\
             max-segment-age-seconds = 1\n{top}\n\
             [[prometheus-remote-write]]\ndatabase = 'Metrics'\npath = '/receive'\n\
             [otel-log]\ndefault-database = 'Logs'\ndefault-table = 'LoadLogs'\n{tables}",
            storage.display()
        );
        let file = self.folder.path().join(format!("{name}.toml"));
        std::fs::write(&file, text).unwrap();
        let log = self.folder.path().join(format!("{name}.log"));
        let arguments = ["--config", file.to_str().unwrap(), "--hostname", &name];
        let program = Program::start(env!("CARGO_BIN_EXE_collector-to-kill"), &log, &arguments);
        let url = format!("http://127.0.0.1:{port}");
        self.collectors.push(Node { program, name, transfer: String::new(), url });
    }

    /// Ingestors want this token from now on.
    pub(super) fn show_token(&mut self, token: &str) {
        self.token = Some(token.to_owned());
    }

    /// Waits until all that are there take rows.
    pub(super) async fn ready(&self) {
        for node in self.ingestors.iter().chain(&self.collectors) {
            self.node_ready(node).await;
        }
    }

    pub(super) async fn node_ready(&self, node: &Node) {
        page_ready(&self.http, &format!("{}/readyz", node.url)).await;
    }

    /// The text of a page.
    pub(super) async fn get(&self, node: &Node, path: &str) -> Result<String, String> {
        let mut request = self.http.get(format!("{}{path}", node.url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = async { request.send().await?.error_for_status()?.text().await };
        answer.await.map_err(|error| format!("{}: {error}", node.name))
    }

    /// Rows of the first table that a query gives.
    pub(super) async fn query(&self, database: &str, csl: &str) -> Result<Vec<Vec<Value>>, String> {
        let answer = self.kusto.query(database, csl, &QueryOptions::default()).await;
        answer.map(|mut answer| answer.tables.remove(0).rows).map_err(|error| format!("{csl}: {error}"))
    }

    /// The answer to a management command.
    pub(super) async fn command(&self, database: &str, csl: &str) -> Result<kusto::Table, String> {
        self.kusto.mgmt(database, csl).await.map_err(|error| format!("{csl}: {error}"))
    }

    /// The address of a page of kustd.
    pub(super) fn kustd_page(&self, path: &str) -> String {
        format!("{}{path}", self.kustd_url)
    }

    pub(super) fn http(&self) -> &reqwest::Client {
        &self.http
    }
}

/// Free ports below those that the kernel gives to outgoing connections: a port must still be free when a killed process is
/// started again.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let mut random = crate::random::Random::new(u64::from(std::process::id()) ^ now_ms());
    let mut ports = Vec::new();
    while ports.len() < count {
        let port = 10_000 + u16::try_from(random.below(22_000)).unwrap();
        if !ports.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            ports.push(port);
        }
    }
    ports
}

pub(super) fn now_ms() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

/// Waits until there is a page at this address.
pub(crate) async fn page_ready(http: &reqwest::Client, url: &str) {
    let ready = async || match http.get(url).send().await {
        Ok(answer) if answer.status().is_success() => Ok(()),
        other => Err(format!("{url} is not ready: {other:?}")),
    };
    eventually(ready).await;
}

/// Waits for something that happens within seconds on an idle machine.
pub(super) async fn eventually<T>(check: impl AsyncFn() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match check().await {
            Ok(value) => return value,
            Err(why) => assert!(Instant::now() < deadline, "{why}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
