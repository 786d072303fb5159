//! Wiring: stores of rules, the schedule, health and metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use crds::SummaryRule;
use kusto::Client;
use prometheus_client::registry::Registry;
use rules::backoff::random_unit;
use rules::clock::{Clock, SystemClock};
use rules::runner::Executor;
use rules::store::Objects;
use rules::summary::metrics::Metrics as SummaryMetrics;
use rules::summary::operations::Kusto;
use rules::summary::{Owner, Runner};
use rules::unserved::{Served, Unserved};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::push::{PushConfig, Pusher};
use crate::schedule::{Bounds, Database, Scheduler, Shared};
use crate::sources::{Rules, Sources};

const WAY_OUT: &str = "to have it served, name it in --kusto-endpoints of an adxexporter";

/// What an exporter process does.
pub struct Config {
    /// Labels of this cluster.
    pub labels: BTreeMap<String, String>,
    /// Databases by name.
    pub databases: BTreeMap<String, Client>,
    /// The receiver of the metrics.
    pub push: PushConfig,
    /// Put before every metric's name.
    pub prefix: String,
    /// Address of health and metrics, if they are served.
    pub listen: Option<SocketAddr>,
    /// Where rules live.
    pub rules: Rules,
    /// Bounds of what runs.
    pub bounds: Bounds,
    /// The time that schedules go by.
    pub clock: Arc<dyn Clock>,
    /// What pauses before a new try vary by: uniform in 0..1.
    pub random: fn() -> f64,
}

impl Config {
    /// A configuration with the system's clock, default bounds and neither labels nor listener.
    pub fn new(databases: BTreeMap<String, Client>, push: PushConfig, rules: Rules) -> Config {
        Config {
            labels: BTreeMap::new(),
            databases,
            push,
            prefix: String::new(),
            listen: None,
            rules,
            bounds: Bounds::default(),
            clock: Arc::new(SystemClock),
            random: random_unit,
        }
    }
}

/// A running exporter process.
#[derive(Debug)]
pub struct Running {
    /// Where health and metrics are served.
    pub address: Option<SocketAddr>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Waits until it has stopped, which it does when its token is cancelled.
    ///
    /// # Errors
    /// What made it stop otherwise.
    pub async fn finished(self) -> anyhow::Result<()> {
        self.task.await?
    }
}

/// Starts the exporter; it runs until `shutdown` is cancelled.
///
/// # Errors
/// An unusable OTLP endpoint, address, folder or cluster, with what to do about it.
pub async fn start(config: Config, shutdown: CancellationToken) -> anyhow::Result<Running> {
    server::install_crypto();
    let pusher = Pusher::new(config.push)?;
    // The runner of summary rules makes the same, and logs what is wrong with it.
    let lets = rules::prelude::Labels::new(&config.labels);
    let listener = match config.listen {
        Some(address) => {
            let hint = format!("listening on {address}: choose another address with --health-probe-port");
            Some(TcpListener::bind(address).await.context(hint)?)
        }
        None => None,
    };
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry, config.clock.clone(), &pusher.endpoint());
    let summary_metrics = SummaryMetrics::default();
    summary_metrics.register(&mut registry);
    let sources = Sources::open(config.rules).await?;
    let served = Served::of("adxexporter", WAY_OUT, &config.databases);
    let unserved = Unserved::new(sources.exporters.clone(), served.clone(), config.labels.clone().into_iter().collect());
    let mut executors: Vec<Box<dyn Executor>> = vec![Box::new(unserved)];
    let summary_rules = sources.summary_rules.clone().map(|rules| {
        let kusto = |client: &Client| Arc::new(client.clone()) as Arc<dyn Kusto>;
        let clusters = config.databases.iter().map(|(name, client)| (name.clone(), kusto(client))).collect();
        let labels = config.labels.clone().into_iter().collect();
        executors.push(Box::new(Unserved::<SummaryRule>::new(rules.clone(), served, labels)));
        let runner = Runner::new(rules, clusters, &config.labels, Owner::Exporter, config.clock.clone(), summary_metrics);
        match &sources.deployment {
            Some(name) => runner.deployment(name),
            None => runner,
        }
    });
    let clock = config.clock.clone();
    let shared = Arc::new(Shared {
        store: sources.exporters.clone(),
        clock: config.clock,
        random: config.random,
        databases: Database::all(config.databases, config.bounds.queries),
        labels: config.labels.into_iter().collect(),
        lets,
        prefix: config.prefix,
        pusher,
        metrics,
        bounds: config.bounds,
    });
    let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
    tracing::info!(databases = ?shared.databases.keys(), receiver = ?shared.pusher, ?address, "the exporter is running");
    let mut tasks = JoinSet::new();
    if let Some(listener) = listener {
        let (exporters, rules) = (sources.exporters.objects(), sources.summary_rules.as_ref().map(|rules| rules.objects()));
        let listed = move || exporters.is_ready() && rules.as_ref().is_none_or(Objects::is_ready);
        let ready = move || if listed() { Ok(()) } else { Err("the rules have not been listed yet".to_owned()) };
        let router = server::operations_router(Arc::new(ready), Arc::new(registry));
        let serving = server::serve(listener, router, server::Limits::default(), None, shutdown.clone());
        tasks.spawn(async move { serving.await.context("serving health and metrics") });
    }
    let (leader, stop) = (sources.leader.clone(), shutdown.clone());
    tasks.spawn(async move {
        Scheduler::new(shared).run(leader, stop).await;
        Ok(())
    });
    let (leader, stop) = (sources.leader.clone(), shutdown.clone());
    tasks.spawn(async move {
        rules::runner::run(executors, leader, clock, stop.clone()).await;
        // One that has ended ends nothing else.
        stop.cancelled().await;
        Ok(())
    });
    if let Some(runner) = summary_rules {
        let (leader, stop) = (sources.leader.clone(), shutdown.clone());
        tasks.spawn(async move {
            runner.run(leader, stop.clone()).await;
            // Without a database there is nothing to run, which ends nothing else.
            stop.cancelled().await;
            Ok(())
        });
    }
    let supervised = supervise(tasks, shutdown);
    let task = tokio::spawn(async move {
        let ended = supervised.await;
        sources.close().await;
        ended
    });
    Ok(Running { address, task })
}

/// Waits for all parts; when one fails, the others end too.
async fn supervise(mut tasks: JoinSet<anyhow::Result<()>>, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.map_err(anyhow::Error::from).flatten();
        if ended.is_err() && result.is_ok() {
            result = ended;
        }
        shutdown.cancel();
    }
    result
}
