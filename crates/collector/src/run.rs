//! Running a collector: what starts in which order, what a new configuration changes, and how it ends.
//!
//! The end is a drain: intake stops (listener and scrapers), what was accepted is sealed and sent
//! as long as the deadline allows, and the store is closed. Nothing depends on the drain for
//! safety: what is not sent stays on disk and is sent after the next start.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use axum::Router;
use axum::routing::{any, get};
use prometheus_client::registry::Registry;
use reqwest::StatusCode;
use server::{Connections, ListenerMetrics};
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use transfer::{Sender, SenderOptions};

use crate::cluster::Cluster;
use crate::config::{Backend, Config};
use crate::exporting::Exporters;
use crate::limits::Limits;
use crate::listeners::Listeners;
use crate::logs::SyslogServers;
use crate::metrics::{Metrics, StateCollector};
use crate::node_labels::NodeLabeling;
use crate::pipeline::{Kind, Pipeline};
use crate::reload::{Intake, LiveRoutes, Reload, Reloaded, Reloader};
use crate::{authentication, debug, identity, logs, scrape};

/// The time for all of the drain: of the half minute that Kubernetes gives a pod by default. Requests under way have the
/// first ten seconds of it ([`server::Limits::grace`]), sending what is left has the rest.
const DRAIN_DEADLINE: Duration = Duration::from_secs(25);

/// How often the status line is logged.
const STATUS_INTERVAL: Duration = Duration::from_secs(60);

/// A collector that runs.
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Where it speaks OTLP over gRPC for all signals.
    pub otlp_grpc: Option<SocketAddr>,
    /// Where sources of metrics speak OTLP over gRPC, in the order of the configuration.
    pub grpc_ports: Vec<SocketAddr>,
    /// Where syslog is received, in the order of the configuration.
    pub syslog: Vec<SocketAddr>,
    reloader: Reloader,
    supervisor: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// What gives it another configuration.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Resolves once the collector has ended and drained.
    ///
    /// # Errors
    /// When it ended for another reason than its shutdown.
    pub async fn finished(self) -> anyhow::Result<()> {
        self.supervisor.await.context("the collector's supervisor failed")?
    }
}

/// Starts a collector; it ends, with a drain, when `shutdown` is cancelled.
///
/// # Errors
/// What keeps it from starting: an unusable storage directory, a taken port, a setting that cannot
/// be run.
pub async fn start(config: Config, shutdown: CancellationToken) -> anyhow::Result<Running> {
    if config.backend == Backend::ClickHouse {
        bail!(
            "storage-backend \"clickhouse\" is not supported: set storage-backend = \"adx\" and send to an ingestor that writes to Kusto"
        );
    }
    server::install_crypto();
    let listeners = Listeners::bind(&config).await?;
    let (addr, otlp_grpc, grpc_ports) = listeners.addresses()?;
    let store = open_store(&config).await?;
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry, &config.region, config.count_drops);
    let parts = Parts {
        limits: Arc::new(Limits::new(Arc::clone(&metrics))),
        metrics,
        connections: Arc::default(),
        draining: Arc::default(),
        background: CancellationToken::new(),
        store,
        cluster: Arc::default(),
        exporters: Arc::new(Mutex::new(Exporters::new(&config.storage_dir, exporters::Metrics::register(&mut registry)))),
        syslog: Arc::default(),
    };
    let sender = (!config.endpoints.is_empty()).then(|| parts.sender(&config, &mut registry));
    registry.register_collector(Box::new(StateCollector { store: parts.store.clone(), connections: Arc::clone(&parts.connections) }));
    registry.register_collector(Box::new(ListenerMetrics(vec![Arc::clone(&parts.connections)])));
    let jumps = server::ClockJumps::default();
    registry.register_collector(Box::new(jumps.clone()));
    let accepting = shutdown.child_token();
    let auth = authentication::start(&config, &mut registry, &accepting).await?;
    let intake = parts.intake(&config, &accepting).await?;
    let routes = LiveRoutes::new(&intake.receivers);
    let routers = authentication::protected(auth.as_ref(), routes.routers(parts.operations(registry, config.enable_pprof)));
    let served = listeners.serve(routers, &config, Arc::clone(&parts.connections), &accepting)?;
    let ticks = server::run_store_ticks(parts.store.clone(), jumps, parts.background.clone());
    tokio::spawn(log_status(parts.store.clone(), Arc::clone(&parts.metrics), parts.background.clone()));
    tracing::info!(%addr, storage_dir = %config.storage_dir.display(), durability = %config.durability, "collector started");
    let (reloader, reloads) = Reloader::channel();
    let syslog = parts.syslog.lock().await.addresses();
    let supervisor = Supervisor { parts, config, sender, served, routes, intake, ticks };
    Ok(Running { addr, otlp_grpc, grpc_ports, syslog, reloader, supervisor: tokio::spawn(supervisor.run(reloads, shutdown)) })
}

async fn open_store(config: &Config) -> anyhow::Result<wal::Store> {
    let options = wal::Options {
        durability: config.durability,
        segment_max_bytes: config.segment_max_bytes,
        segment_max_age_ms: u64::try_from(config.segment_max_age.as_millis()).unwrap_or(u64::MAX),
        max_disk_bytes: config.max_disk_bytes,
        database_quota_bytes: config.database_quota_bytes,
        max_tables_per_database: config.max_tables_per_database,
        ..wal::Options::new(&config.storage_dir)
    };
    let dir = config.storage_dir.display().to_string();
    let open = move || wal::Store::open(options, wal::RealDisk::new(), now_ms());
    let (store, report) = tokio::task::spawn_blocking(open).await?.with_context(|| format!("opening the store in {dir}"))?;
    for damage in &report.damage {
        tracing::error!(
            file = %damage.path.display(), offset = damage.offset, bytes = damage.bytes, rows = damage.rows,
            "unreadable bytes were copied to quarantine"
        );
    }
    tracing::info!(dir, replayed_rows = report.replayed_rows, torn_bytes = report.torn_bytes, "store opened");
    Ok(store)
}

/// What the parts of a running collector share.
struct Parts {
    store: wal::Store,
    metrics: Arc<Metrics>,
    connections: Arc<Connections>,
    draining: Arc<AtomicBool>,
    /// Ends what must outlive the intake: the sender, the store's clock, what follows the cluster.
    background: CancellationToken,
    /// Outlives reloads, so that what is known of the cluster is there even if it is away at that moment.
    cluster: Arc<Mutex<Cluster>>,
    exporters: Arc<Mutex<Exporters>>,
    /// Outlive reloads, so that what tables have had counts on.
    limits: Arc<Limits>,
    /// Outlives reloads, so that senders keep their connections.
    syslog: Arc<Mutex<SyslogServers>>,
}

impl Parts {
    fn sender(&self, config: &Config, registry: &mut Registry) -> Sender {
        let options = SenderOptions {
            endpoints: config.endpoints.clone(),
            concurrency: config.transfer_concurrency,
            gzip: config.transfer_gzip,
            insecure_skip_verify: config.insecure_skip_verify,
            credentials: config.credentials.clone(),
            ..SenderOptions::default()
        };
        Sender::start(self.store.clone(), options, self.background.clone(), registry)
    }

    /// What takes data in, as `config` says, started; it ends when `running` is cancelled.
    async fn intake(&self, config: &Config, running: &CancellationToken) -> anyhow::Result<Intake> {
        let cluster = {
            let mut cluster = self.cluster.lock().await;
            cluster.follow(config, &self.metrics, &self.background).await?;
            cluster.clone()
        };
        let pods = cluster.pods.clone();
        let exporters = {
            let mut exporters = self.exporters.lock().await;
            exporters.follow(config).await?;
            exporters.buffers()
        };
        let stop = running.child_token();
        let pipeline = Pipeline {
            node: NodeLabeling { node: cluster.node, stop: stop.clone() },
            store: self.store.clone(),
            metrics: Arc::clone(&self.metrics),
            draining: Arc::clone(&self.draining),
            identity: identity::labels(),
            body: server::BodyLimits::default(),
            exporters,
            limits: Arc::clone(&self.limits),
        };
        self.limits.follow(config.table_limits.clone(), Instant::now());
        let mut receivers = pipeline.receivers(config)?;
        let mut sources = JoinSet::new();
        if let Some(settings) = &config.scrape {
            let intake =
                pipeline.intake(&settings.database, &settings.rules, config, &settings.exporters).context("rules of prometheus-scrape")?;
            pipeline.node.follow(&settings.node_labels, intake.added());
            let sink = pipeline.sink(Kind::Metrics, Some(&settings.database), settings.discard, &settings.exporters);
            let scraper = scrape::Scraper::new(settings.clone(), config.node.clone(), intake, sink, Arc::clone(&self.metrics));
            receivers.http = receivers.http.merge(scrape::router(scraper.board(), settings));
            let discovered = scrape::Discovered {
                pods: cluster.pods.filter(|_| settings.discovery),
                services: cluster.services.filter(|_| settings.services),
            };
            sources = scrape::start(scraper, discovered, &stop);
        }
        receivers.http = receivers.http.fallback(|| async { (StatusCode::NOT_FOUND, "404 page not found\n") });
        let started = match logs::start(&pipeline, config, pods, cluster.events.as_ref(), &stop, &mut sources) {
            Ok(()) => self.syslog.lock().await.follow(&pipeline, config, running).await,
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            // What has started of a configuration that cannot be run ends before the one of before goes on.
            stop.cancel();
            while sources.join_next().await.is_some() {}
            return Err(error);
        }
        Ok(Intake::new(receivers, sources, stop))
    }

    fn operations(&self, registry: Registry, profiles: bool) -> Router {
        let (store, draining) = (self.store.clone(), Arc::clone(&self.draining));
        let readyz = move || async move { readiness(&store, draining.load(Ordering::Relaxed)) };
        let (store, exporters) = (self.store.clone(), Arc::clone(&self.exporters));
        Router::new()
            .route("/metrics", server::metrics_endpoint(Arc::new(registry)))
            .route("/readyz", any(readyz))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/debug/store", any(move || async move { debug::store_page(&store, &exporters.lock().await.page()) }))
            .merge(if profiles { server::profile::router() } else { Router::new() })
    }
}

/// The answer of `/readyz`, in the reference's words where it has them.
fn readiness(store: &wal::Store, draining: bool) -> (StatusCode, String) {
    let reason = match store.usage().refusing {
        _ if draining => "ShuttingDown",
        None => return (StatusCode::OK, "status=ok backend=adx\n".to_owned()),
        Some(wal::Refusal::DiskFull) => "MaxDiskUsageExceeded",
        Some(wal::Refusal::Poisoned) => "JournalSyncFailed",
        Some(_) => "StoreRefuses",
    };
    (StatusCode::SERVICE_UNAVAILABLE, format!("status=not_ready reason={reason} backend=adx\n"))
}

/// Watches over the parts and ends them in order.
struct Supervisor {
    parts: Parts,
    /// What runs now.
    config: Config,
    sender: Option<Sender>,
    served: JoinHandle<std::io::Result<()>>,
    routes: LiveRoutes,
    intake: Intake,
    ticks: JoinHandle<()>,
}

impl Supervisor {
    async fn run(mut self, mut reloads: mpsc::Receiver<Reload>, shutdown: CancellationToken) -> anyhow::Result<()> {
        let early = loop {
            tokio::select! {
                () = shutdown.cancelled() => break None,
                served = &mut self.served => break Some(served),
                Some(Reload { config, done }) = reloads.recv() => {
                    let outcome = self.reload(config, &shutdown).await;
                    self.parts.metrics.reloaded(outcome.is_ok());
                    // Whoever asked may be gone; the outcome is in the metrics.
                    let _ = done.send(outcome);
                }
            }
        };
        drop(reloads);
        self.parts.draining.store(true, Ordering::Relaxed);
        shutdown.cancel();
        let deadline = Instant::now() + DRAIN_DEADLINE;
        tracing::info!("draining: intake stops");
        let served = match early {
            Some(served) => served,
            None => self.served.await,
        };
        let sources = tokio::time::timeout_at(deadline, self.intake.end());
        let syslog = async { self.parts.syslog.lock().await.end(deadline).await };
        if let (Err(_), ()) = tokio::join!(sources, syslog) {
            tracing::warn!("sources did not end in time: what they hold and have no word of is read or sent again");
        }
        let exporters = async { self.parts.exporters.lock().await.drain(deadline).await };
        tokio::join!(drain(&self.parts.store, self.sender.as_ref(), deadline), exporters);
        self.parts.background.cancel();
        let _ = self.ticks.await;
        drop(self.sender);
        let store = self.parts.store;
        tokio::task::spawn_blocking(move || store.close()).await.context("closing the store")?;
        tracing::info!("collector ended");
        served.context("the listener failed")?.context("the listener failed")
    }

    /// Goes on with `config`, or with what there was if that cannot be.
    async fn reload(&mut self, config: anyhow::Result<Config>, shutdown: &CancellationToken) -> anyhow::Result<Reloaded> {
        let (mut config, mut after_restart) = self.config.reloaded(config?);
        if config.grpc_ports().ne(self.config.grpc_ports()) {
            after_restart.push("otel-metric.grpc-port");
        }
        self.intake.end().await;
        let (intake, outcome) = match self.parts.intake(&config, shutdown).await {
            Ok(intake) => (intake, Ok(Reloaded { after_restart })),
            Err(error) => {
                config = self.config.clone();
                (self.parts.intake(&config, shutdown).await.context("starting with the configuration of before")?, Err(error))
            }
        };
        self.routes.replace(&intake.receivers);
        (self.intake, self.config) = (intake, config);
        outcome
    }
}

/// One line a minute on how the collector does.
async fn log_status(store: wal::Store, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut samples = 0;
    while stop.run_until_cancelled(tokio::time::sleep(STATUS_INTERVAL)).await.is_some() {
        let usage = store.usage();
        let stored = metrics.samples_stored.get();
        tracing::info!(
            samples_per_second = (stored - samples) / STATUS_INTERVAL.as_secs(),
            closed_segments = usage.segments,
            waiting_bytes = usage.databases.values().sum::<u64>(),
            disk_bytes = usage.total_bytes,
            refusing = usage.refusing.map(|r| r.to_string()).unwrap_or_default(),
            "status"
        );
        samples = stored;
    }
}

async fn drain(store: &wal::Store, sender: Option<&Sender>, deadline: Instant) {
    // Without an ingestor there is nobody to send to; open segments just go on after the next start.
    let Some(sender) = sender else { return };
    let sealing = store.clone();
    match tokio::task::spawn_blocking(move || sealing.seal_all()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "segments were not sealed; they are sent after the next start"),
        Err(error) => tracing::error!(%error, "sealing failed"),
    }
    let report = sender.drain(deadline.duration_since(Instant::now())).await;
    tracing::info!(?report, "drained");
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
