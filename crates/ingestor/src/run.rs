//! An ingestor from start to drain.
//!
//! Start: store, uploads, listeners. Kusto need not answer then: data is kept until it does, and a
//! sick database does not stop the others. Stop: take no more, end what is running, seal, upload
//! within the grace period; what is left is uploaded after the next start.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Query, Request};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use azure::TokenSource;
use http::HeaderMap;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rules::lease::Leader;
use server::{Auth, Connections, Limits, ListenerMetrics, Sink, Tls, TlsFiles, receive};
use telemetry::rules::MetricRules;
use telemetry::{LogIntake, LogOptions, MetricIntake, TraceIntake, TraceOptions};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use transfer::receiver::{FromPeer, ReceiverMetrics, ReceiverOptions};
use wal::{BatchState, RealDisk, SegmentId, SegmentInfo, Store};

use crate::cluster;
use crate::config::{Config, Endpoint};
use crate::control;
use crate::drain::{OwnPod, Waiting};
use crate::leader::{self, Tasks};
use crate::ledger::LedgerMetrics;
use crate::metrics::{StoreMetrics, UploadMetrics};
use crate::peers::{self, Peering, Sealed};
use crate::sink::KnownDatabases;
use crate::status::{self, Admission, Format};
use crate::upload::plan::{Gather, Limits as UploadLimits};
use crate::upload::{DatabaseOptions, Destination, KustoDatabase, Parts as WorkerParts, Worker};

/// CSV in a batch that is streamed: as much as a service takes in a few requests.
const STREAMED_BYTES: u64 = 64 << 20;
/// CSV in a batch that is queued, at most and, if the rows are not too old, at least: what Kusto recommends.
const QUEUED_BYTES: (u64, u64) = (1_000_000_000, 100_000_000);
const METRICS_PERIOD: Duration = Duration::from_secs(5);
/// How often the files of certificates and tokens are looked at.
const FILES_PERIOD: Duration = Duration::from_secs(10);
/// How long the storage directory may still be in use at the start.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// A transfer may be large and its network slow.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(300);

type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// A running ingestor.
pub struct Running {
    /// Where it listens without TLS.
    pub plain: SocketAddr,
    /// Where it listens with TLS.
    pub tls: Option<SocketAddr>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Waits until it has stopped, which it does when its token is cancelled.
    ///
    /// # Errors
    /// What went wrong while running or stopping.
    pub async fn finished(self) -> anyhow::Result<()> {
        self.task.await.context("the ingestor's main task failed")?
    }
}

/// Starts an ingestor; it runs until `shutdown` is cancelled, and then drains.
///
/// # Errors
/// An unusable storage folder, address, certificate or endpoint, with what to do about it.
pub async fn start(config: Config, shutdown: CancellationToken) -> anyhow::Result<Running> {
    server::install_crypto();
    let (plain, tls) = bind(&config).await?;
    let certificate = match &tls {
        Some(_) => Some(certificate(&config, &shutdown)?),
        None => None,
    };
    let addresses = (plain.local_addr()?, tls.as_ref().map(TcpListener::local_addr).transpose()?);
    let neighbourhood = peers::find(&config).await?;
    let store = open_store(&config, neighbourhood.is_some()).await?;
    let mut registry = Registry::default();
    let store_metrics = StoreMetrics::default();
    store_metrics.register(&mut registry, &config.region);

    // One source for all, so that a token is asked for once.
    let credentials = azure::Credentials::new().default_chain();
    let rules = cluster::start(&config, &credentials, &mut registry).await?;
    let stop_uploads = CancellationToken::new();
    let (wake, sealed) = watch::channel(0u64);
    let wake = Arc::new(wake);
    let sealing = wake.clone();
    store.on_sealed(Arc::new(move || sealing.send_modify(|n| *n += 1)));
    let peering = match neighbourhood {
        Some(neighbourhood) => Some(neighbourhood.start(&config, &store, wake, &mut registry, &stop_uploads)?),
        None => None,
    };
    let sealed = match &peering {
        Some(peering) => peering.sealed(&store, sealed),
        None => Sealed::all(store.clone(), sealed),
    };
    // The end of intake: with the process, or before it.
    let draining = shutdown.child_token();
    let workers = start_workers(&config, &credentials, &store, sealed, &mut registry, &draining, &stop_uploads)?;
    let waiting = Waiting::new(&store, &workers, peering.as_ref());
    if let Some(pod) = OwnPod::find(&config).await? {
        let (serving, stop) = (pod.serve(waiting.clone(), draining.clone()), shutdown.clone());
        tokio::spawn(async move { stop.run_until_cancelled(serving).await });
    }
    if let Some(leader) = rules.as_ref().map(cluster::Running::leader).or_else(|| config.leader.then(Leader::always)) {
        let tasks = Tasks::new(databases(&config, &credentials)?, leader, &mut registry);
        tokio::spawn(tasks.run(shutdown.clone()));
    }
    tokio::spawn(leader::audit(store.clone(), config.storage_dir.clone(), store_metrics.unaccounted.clone(), shutdown.clone()));
    let admission = Arc::new(Admission::new(store.clone(), &config, &workers, draining));
    let receiver = ReceiverMetrics::default();
    receiver.register(&mut registry);
    let invalid_logs = store_metrics.invalid_logs.clone();
    let auth = authentication(&config, &mut registry, &shutdown).await?;
    let connections: Vec<Arc<Connections>> = vec![Arc::default(), Arc::default()];
    registry.register_collector(Box::new(ListenerMetrics(connections.clone())));
    registry.register_collector(Box::new(LedgerMetrics(store.clone())));
    let jumps = server::ClockJumps::default();
    registry.register_collector(Box::new(jumps.clone()));
    let from_peer = peering.as_ref().map(Peering::on_arrival);
    let options = receiver_options(&config, &admission, receiver, from_peer);
    let routers = Routers::new(&config, &store, &admission, options, invalid_logs, Arc::new(registry)).protected(auth.as_ref());
    let door = control::open_door(&config.storage_dir, addresses.0)?;
    let routers = routers.with_control(control::router(store.clone(), &door));

    let limits = limits(&config);
    let counts = connections[0].clone();
    let serving = server::serve_counted(plain, routers.plain, limits.clone(), None, shutdown.clone(), counts);
    let mut listeners = vec![tokio::spawn(serving)];
    if let Some(tls) = tls {
        let counts = connections[1].clone();
        let serving = server::serve_counted(tls, routers.tls, limits, certificate, shutdown.clone(), counts);
        listeners.push(tokio::spawn(serving));
    }
    tracing::info!(plain = %addresses.0, tls = ?addresses.1, databases = ?config.databases(), "the ingestor is running");
    let parts = Parts { rules, store, workers, waiting, listeners, stop_uploads, store_metrics, jumps, connections, grace: config.grace };
    let task = tokio::spawn(parts.run(shutdown));
    Ok(Running { plain: addresses.0, tls: addresses.1, task })
}

/// The databases for the tasks of the leader.
fn databases(config: &Config, credentials: &Arc<dyn TokenSource>) -> anyhow::Result<Vec<leader::Database>> {
    let clients = cluster::clients(config, credentials)?.into_iter().enumerate();
    let database = |(index, (name, client))| leader::Database { name, client, metrics: index < config.metrics.len() };
    Ok(clients.map(database).collect())
}

async fn bind(config: &Config) -> anyhow::Result<(TcpListener, Option<TcpListener>)> {
    let bind = async |address: SocketAddr, flag: &str| {
        let hint = format!("listening on {address}: choose another address with {flag}");
        TcpListener::bind(address).await.context(hint)
    };
    let plain = bind(config.listen_plain, "--listen-plain").await?;
    let tls = match config.listen_tls {
        Some(address) => Some(bind(address, "--listen-tls").await?),
        None => None,
    };
    Ok((plain, tls))
}

/// Who may send, if not everybody.
async fn authentication(config: &Config, registry: &mut Registry, stop: &CancellationToken) -> anyhow::Result<Option<Arc<Auth>>> {
    let Some(settings) = &config.authentication else { return Ok(None) };
    let kubeconfig = config.cluster.as_ref().and_then(|cluster| cluster.kubeconfig.as_deref());
    Ok(Some(settings.start(kubeconfig, registry, stop).await.context("authentication")?))
}

/// TLS of the listener; certificates in files are followed.
fn certificate(config: &Config, stop: &CancellationToken) -> anyhow::Result<Tls> {
    if let Some((cert, key)) = &config.certificate {
        let files = TlsFiles { certificate: cert.clone(), key: key.clone(), client_ca: config.client_ca.clone() };
        let tls = Tls::from_files(&files)?;
        tokio::spawn(tls.clone().follow(files, FILES_PERIOD, stop.clone()));
        return Ok(tls);
    }
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    names.extend(std::env::var("HOSTNAME").ok().filter(|n| !n.is_empty()));
    Ok(Tls::self_signed(&names)?)
}

async fn open_store(config: &Config, has_peers: bool) -> anyhow::Result<Store> {
    let mut options = config.store_options();
    if let (true, Some(peers)) = (has_peers, &config.peers) {
        let age = peers::segment_age(config.max_segment_age, peers.max_age);
        options.segment_max_age_ms = age.as_millis() as u64;
    }
    let dir = options.dir.clone();
    let open = move || open_when_free(&options);
    let (store, report) =
        tokio::task::spawn_blocking(open).await?.with_context(|| format!("opening the storage directory {}", dir.display()))?;
    tracing::info!(
        frames = report.frames,
        replayed_rows = report.replayed_rows,
        rebuilt = report.rebuilt,
        adopted = report.adopted.len(),
        torn_bytes = report.torn_bytes,
        "the store is open"
    );
    for damage in &report.damage {
        tracing::error!(path = %damage.path.display(), offset = damage.offset, bytes = damage.bytes, rows = damage.rows, "unreadable bytes are in quarantine");
    }
    for file in &report.foreign {
        tracing::warn!(file, "a file in the storage directory is not ours and is left alone");
    }
    if report.ledger_reset {
        tracing::error!("ledger reset: no checkpoint of the journal was readable");
    }
    Ok(store)
}

/// Opens the store; a process that is just ending gets some seconds to let go of the directory.
fn open_when_free(options: &wal::Options) -> Result<(Store, wal::OpenReport), wal::OpenError> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match Store::open(options.clone(), RealDisk::new(), now_ms()) {
            Err(wal::OpenError::Locked { .. }) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
            opened => return opened,
        }
    }
}

fn start_workers(
    config: &Config,
    credentials: &Arc<dyn TokenSource>,
    store: &Store,
    sealed: Sealed,
    registry: &mut Registry,
    hurry: &CancellationToken,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<Worker>> {
    let metrics = Arc::new(UploadMetrics::default());
    metrics.register(registry);
    let mut workers: Vec<Worker> = Vec::new();
    for (database, destination) in destinations(config, credentials)? {
        if workers.iter().any(|w| w.database == database) {
            anyhow::bail!("database {database} is named for metrics and for logs: a database is of one kind");
        }
        let parts = WorkerParts {
            store: store.clone(),
            limits: upload_limits(config, &destination),
            destination,
            urgent: config.streaming_tables.clone(),
            queue: config.queue,
            sealed: sealed.clone(),
            metrics: metrics.clone(),
            time: config.time.clone(),
            hurry: hurry.clone(),
            shutdown: stop.clone(),
        };
        workers.push(Worker::start(&database, parts));
    }
    Ok(workers)
}

fn upload_limits(config: &Config, destination: &Destination) -> UploadLimits {
    let (max_segments, concurrency) = (config.max_batch_segments, config.uploads);
    match destination {
        Destination::Kusto(database) if database.prefers_queue() => {
            let (most, least) = QUEUED_BYTES;
            let gather = Some(Gather { bytes: least, age_ms: config.max_transfer_age.as_millis() as u64 });
            UploadLimits { max_segments, max_bytes: most, concurrency, gather }
        }
        _ => UploadLimits { max_segments, max_bytes: STREAMED_BYTES, concurrency, gather: None },
    }
}

fn destinations(config: &Config, credentials: &Arc<dyn TokenSource>) -> anyhow::Result<Vec<(String, Destination)>> {
    let mut all = Vec::new();
    for (endpoints, metrics, fake) in [(&config.metrics, true, "FakeMetrics"), (&config.logs, false, "FakeLogs")] {
        if endpoints.is_empty() {
            all.push((fake.to_owned(), Destination::Fake));
        }
        for Endpoint { database, url } in endpoints {
            let options = DatabaseOptions {
                database: database.clone(),
                url: url.clone(),
                metrics,
                ingestion: config.ingestion,
                streaming_bytes: config.streaming_bytes,
                streaming_tables: config.streaming_tables.clone(),
                time: config.time.clone(),
            };
            let kusto = KustoDatabase::new(options, Arc::clone(credentials), &config.trusted_hosts)?;
            all.push((database.clone(), Destination::Kusto(Box::new(kusto))));
        }
    }
    Ok(all)
}

fn limits(config: &Config) -> Limits {
    Limits {
        max_connections: config.max_connections,
        idle_timeout: Duration::from_secs(300),
        request_timeout: TRANSFER_TIMEOUT,
        ..Limits::default()
    }
}

/// What `/transfer` takes.
fn receiver_options(config: &Config, admission: &Arc<Admission>, metrics: ReceiverMetrics, from_peer: Option<FromPeer>) -> ReceiverOptions {
    let full = admission.clone();
    ReceiverOptions {
        databases: Some(config.databases().into_iter().collect()),
        full: Some(Arc::new(move |database| full.full(database))),
        drop_prefixes: config.drop_prefixes.clone(),
        from_peer,
        metrics: Some(Arc::new(metrics)),
        ..ReceiverOptions::default()
    }
}

struct Routers {
    plain: Router,
    tls: Router,
}

impl Routers {
    /// With what has a door of its own.
    fn with_control(self, control: Router) -> Routers {
        // What is not behind that door stays behind its own, unknown paths included.
        Routers { plain: control.fallback_service(self.plain), ..self }
    }

    /// The same behind `auth`.
    fn protected(self, auth: Option<&Arc<Auth>>) -> Routers {
        let Some(auth) = auth else { return self };
        Routers { plain: auth.protect(self.plain), tls: auth.protect(self.tls) }
    }

    fn new(
        config: &Config,
        store: &Store,
        admission: &Arc<Admission>,
        options: ReceiverOptions,
        invalid_logs: Gauge,
        registry: Arc<Registry>,
    ) -> Routers {
        let ready: Ready = {
            let admission = admission.clone();
            Arc::new(move || admission.ready())
        };
        let transfer = transfer::receiver::router(store.clone(), options, ready.clone());
        let telemetry = telemetry_router(config, store, admission, invalid_logs);
        let readyz = {
            let ready = ready.clone();
            get(move || async move {
                match ready() {
                    Ok(()) => (http::StatusCode::OK, "ok".to_owned()),
                    Err(_) => (http::StatusCode::SERVICE_UNAVAILABLE, "not ready".to_owned()),
                }
            })
        };
        let described = store.clone();
        let debug = get(move || async move { status::describe(&described) });
        let mut plain = server::operations_router(ready.clone(), registry).route("/debug/store", debug);
        let ledger = store.clone();
        let ledger = get(move |query: Query<Format>, headers: HeaderMap| async move { status::ledger(&ledger, query, &headers) });
        plain = plain.route("/debug/ledger", ledger).merge(telemetry.clone());
        if config.profiles {
            plain = plain.merge(server::profile::router());
        }
        if config.transfer_on_plain {
            plain = plain.merge(transfer.clone());
        }
        let tls = transfer.route("/readyz", readyz).merge(telemetry);
        let slow = config.slow_request;
        Routers { plain: log_slow(plain, slow), tls: log_slow(tls, slow) }
    }
}

/// Remote write and OTLP.
fn telemetry_router(config: &Config, store: &Store, admission: &Arc<Admission>, invalid_logs: Gauge) -> Router {
    let known: HashSet<String> = config.databases().into_iter().collect();
    let sink: Arc<dyn Sink> = Arc::new(KnownDatabases::new(store.clone(), known, admission.clone()));
    let metrics = Arc::new(MetricIntake::new(config.metrics_database(), MetricRules::default(), Vec::new()));
    let (database, table) = config.default_logs.clone().unzip();
    let logs = LogOptions { default_database: database.clone(), default_table: table, ..LogOptions::default() };
    let traces = TraceOptions { default_database: database, ..TraceOptions::default() };
    let body = Limits::default().body;
    let remote_write = || receive::remote_write(metrics.clone(), sink.clone(), body);
    Router::new()
        .route("/api/v1/write", remote_write())
        .route("/receive", remote_write())
        .route("/v1/metrics", receive::otlp_metrics(metrics.clone(), sink.clone(), body))
        .route("/v1/logs", count_rejected(receive::otlp_logs(Arc::new(LogIntake::new(logs)), sink.clone(), body), invalid_logs))
        .route("/v1/traces", receive::otlp_traces(Arc::new(TraceIntake::new(traces)), sink.clone(), body))
}

/// Counts records that could not be used: logs without a destination.
fn count_rejected(route: MethodRouter, rejected: Gauge) -> MethodRouter {
    route.layer(axum::middleware::from_fn(move |request: Request, next: Next| {
        let rejected = rejected.clone();
        async move {
            let response: Response = next.run(request).await;
            if let Some(received) = response.extensions().get::<receive::Received>() {
                rejected.inc_by(received.rejected as i64);
            }
            response
        }
    }))
}

fn log_slow(router: Router, threshold: Duration) -> Router {
    if threshold.is_zero() {
        return router;
    }
    router.layer(axum::middleware::from_fn(move |request: Request, next: Next| async move {
        let (method, path, started) = (request.method().clone(), request.uri().path().to_owned(), Instant::now());
        let response: Response = next.run(request).await;
        let took = started.elapsed();
        if took >= threshold {
            tracing::warn!(%method, path, status = response.status().as_u16(), took_ms = took.as_millis() as u64, "a slow request");
        }
        response
    }))
}

/// What runs, and is to be stopped in order.
struct Parts {
    rules: Option<cluster::Running>,
    store: Store,
    workers: Vec<Worker>,
    waiting: Waiting,
    listeners: Vec<JoinHandle<std::io::Result<()>>>,
    stop_uploads: CancellationToken,
    store_metrics: StoreMetrics,
    jumps: server::ClockJumps,
    connections: Vec<Arc<Connections>>,
    grace: Duration,
}

impl Parts {
    async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let stop_ticks = CancellationToken::new();
        let ticks = server::run_store_ticks(self.store.clone(), self.jumps, stop_ticks.clone());
        let mut interval = tokio::time::interval(METRICS_PERIOD);
        while shutdown.run_until_cancelled(interval.tick()).await.is_some() {
            self.store_metrics.refresh(&self.store.usage(), &self.store.ledger(), now_ms());
            self.store_metrics.connections(&self.connections);
        }
        if let Some(rules) = self.rules {
            rules.stop().await;
        }
        for listener in self.listeners {
            listener.await.context("a listener failed")??;
        }
        drain(&self.store, self.waiting, self.grace).await?;
        self.stop_uploads.cancel();
        for worker in self.workers {
            worker.finished().await;
        }
        stop_ticks.cancel();
        ticks.await?;
        let store = self.store;
        tokio::task::spawn_blocking(move || store.close()).await.context("closing the store")
    }
}

/// Seals what is here and waits until it is uploaded, in Kusto's queue or with a peer, or the time is over.
async fn drain(store: &Store, mut waiting: Waiting, grace: Duration) -> anyhow::Result<()> {
    waiting.seal().await?;
    let in_time = tokio::time::timeout(grace, waiting.until(|store| to_upload(store).is_empty())).await.is_ok();
    let (left, queued) = (to_upload(store).len(), store.batches().iter().filter(|b| b.state == BatchState::Queued).count());
    if queued > 0 {
        tracing::info!(queued, "batches are in Kusto's queue; what became of them is asked for after the next start");
    }
    match (in_time, left) {
        (true, 0) => tracing::info!("everything is uploaded, or with a peer"),
        _ => tracing::warn!(left, "segments are left; they are sent on after the next start"),
    }
    Ok(())
}

/// Segments that are neither settled nor in a batch that Kusto has in its queue.
fn to_upload(store: &Store) -> Vec<SegmentInfo> {
    let queued = store.batches().into_iter().filter(|batch| batch.state == BatchState::Queued);
    let queued: HashSet<SegmentId> = queued.flat_map(|batch| batch.segments).collect();
    store.sealed().into_iter().filter(|segment| !queued.contains(&segment.id)).collect()
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
