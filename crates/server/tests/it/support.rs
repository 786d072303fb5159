//! A server on a loopback port, and a sink that remembers what it was given.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use futures::future::BoxFuture;
use server::{BodyLimits, Limits, Marks, Refused, Sink, receive};
use telemetry::rules::{MetricRules, MetricRulesConfig};
use telemetry::{LogIntake, LogOptions, MetricIntake, RowSet, TraceIntake, TraceOptions};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A server that runs until it is dropped.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) served: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub(crate) async fn start(router: Router, limits: Limits) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(server::serve(listener, router, limits, None, shutdown.clone()));
        Server { addr, shutdown, served }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Remembers rows by table; refuses when told to.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) rows: Mutex<BTreeMap<String, String>>,
    pub(crate) filtered: Mutex<u64>,
    pub(crate) refuse: Mutex<Option<Refused>>,
    pub(crate) unready: Mutex<Option<String>>,
    /// Whether commits never end.
    pub(crate) hang: AtomicBool,
    /// Told when a commit begins.
    pub(crate) entered: Notify,
    gate: Arc<tokio::sync::RwLock<()>>,
}

impl Recorder {
    /// Commits wait until what it returns is dropped.
    pub(crate) fn hold(&self) -> tokio::sync::OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.gate).try_write_owned().unwrap()
    }

    /// The CSV rows of `database.table`.
    pub(crate) fn table(&self, name: &str) -> String {
        self.rows.lock().unwrap().get(name).cloned().unwrap_or_default()
    }
}

impl Sink for Recorder {
    fn commit_with_marks(&self, rows: RowSet, filtered: u64, _marks: Marks) -> BoxFuture<'_, Result<(), Refused>> {
        Box::pin(async move {
            self.entered.notify_one();
            let _gate = self.gate.read().await;
            if self.hang.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            if let Some(refused) = self.refuse.lock().unwrap().clone() {
                return Err(refused);
            }
            *self.filtered.lock().unwrap() += filtered;
            for table in rows.by_table() {
                let name = format!("{}.{}", table.database, table.table);
                self.rows.lock().unwrap().entry(name).or_default().push_str(&String::from_utf8(table.bytes).unwrap());
            }
            Ok(())
        })
    }

    fn ready(&self) -> Result<(), String> {
        self.unready.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

/// Receivers of all signals before a [`Recorder`].
pub(crate) async fn receivers() -> (Server, Arc<Recorder>) {
    receivers_with(Limits::default()).await
}

pub(crate) async fn receivers_with(listener: Limits) -> (Server, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let sink = || Arc::clone(&recorder) as Arc<dyn Sink>;
    let config = MetricRulesConfig { drop_metrics: vec!["^dropme$".to_owned()], ..MetricRulesConfig::default() };
    let metrics = Arc::new(MetricIntake::new("Metrics", MetricRules::compile(&config).unwrap(), Vec::new()));
    let logs = Arc::new(LogIntake::new(LogOptions::default()));
    let traces = Arc::new(TraceIntake::new(TraceOptions { default_database: Some("Traces".to_owned()), ..TraceOptions::default() }));
    let limits = BodyLimits::default();
    let router = Router::new()
        .route("/receive", receive::remote_write(Arc::clone(&metrics), sink(), limits))
        .route("/v1/metrics", receive::otlp_metrics(metrics, sink(), limits))
        .route("/v1/logs", receive::otlp_logs(logs, sink(), limits))
        .route("/v1/traces", receive::otlp_traces(traces, sink(), limits));
    (Server::start(router, listener).await, recorder)
}

/// An HTTP client; TLS is not used.
pub(crate) fn client() -> reqwest::Client {
    server::install_crypto();
    reqwest::Client::builder().tls_danger_accept_invalid_certs(true).no_proxy().build().unwrap()
}
