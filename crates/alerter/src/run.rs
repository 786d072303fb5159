//! Wiring: from a configuration to a running alerter.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use azure::TokenSource;
use crds::AlertRule;
use crds::criteria::Labels;
use kusto::{Client, RetryPolicy, TrustedHost};
use prometheus_client::registry::Registry;
use reqwest::Url;
use rules::clock::Clock;
use rules::lease::{Campaign, Leader};
use rules::store::Store;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::channel::channel;
use crate::checkpoint::{Checkpoint, Leadership};
use crate::delivery::{Courier, route};
use crate::engine::{Engine, Parts, Settings};
use crate::metrics::Metrics;
use crate::state::{State, Target};
use crate::{counts, http};

/// How often the outbox is counted and the lease looked at.
const COUNT_PERIOD: Duration = Duration::from_secs(10);
/// What became of deliveries and may wait for the writer of statuses before couriers do.
const NEWS: usize = 1024;
/// Longest answer of a query: rules look for few rows, and many run at a time.
pub(crate) const MAX_ANSWER_BYTES: usize = 16 << 20;

/// What an alerter runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of the HTTP listener.
    pub listen: SocketAddr,
    /// URL of the cluster, by database.
    pub kusto_endpoints: BTreeMap<String, String>,
    /// Tokens for https endpoints.
    pub credentials: Option<Arc<dyn TokenSource>>,
    /// Hosts that get them beside those of Azure.
    pub trusted_hosts: Vec<TrustedHost>,
    /// The cloud, a label of criteria.
    pub cloud: String,
    /// The region: a label of criteria, and `_region` of queries.
    pub region: String,
    /// Further labels of criteria.
    pub tags: BTreeMap<String, String>,
    /// Base URL of the receiver; empty: our own, which logs.
    pub alerter_address: String,
    /// Base URL of Alertmanager, if it is a target too.
    pub alertmanager_url: Option<String>,
    /// Queries at a time.
    pub concurrency: usize,
    /// Rows of one run that become notifications.
    pub max_notifications: usize,
    /// Folder of cursors and outbox.
    pub data_dir: PathBuf,
    /// How long others may take.
    pub deadlines: Deadlines,
    /// Whether CPU profiles are taken on request.
    pub profiles: bool,
}

/// How long others may take to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Kusto for a query.
    pub query: Duration,
    /// Kusto for a query before it has to run again among the slow ones, which share half of the slots.
    pub quick: Duration,
    /// A receiver for a notification.
    pub delivery: Duration,
}

impl Default for Deadlines {
    /// Five minutes and one minute, as in the reference, and ten seconds: no rule is to wait longer for others.
    fn default() -> Self {
        Deadlines { query: Duration::from_secs(300), quick: Duration::from_secs(10), delivery: Duration::from_secs(60) }
    }
}

/// What the alerter of a configuration is run on.
pub struct Surroundings {
    /// Where the rules live.
    pub store: Arc<dyn Store<AlertRule>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What replicas in a cluster share; without it rules run here in any case.
    pub cluster: Option<Cluster>,
    /// Why the rules cannot be read, if they cannot: the alerter is not ready then.
    pub problem: Arc<dyn Fn() -> Option<String> + Send + Sync>,
}

/// What replicas share.
pub struct Cluster {
    /// Whether we hold the lease.
    pub holds: watch::Receiver<bool>,
    /// Where cursors are kept for other replicas.
    pub checkpoint: Arc<dyn Checkpoint>,
    /// The election, to be given up at the end.
    pub campaign: Option<Campaign>,
}

/// An alerter that runs.
pub struct Running {
    address: SocketAddr,
    campaign: Option<Campaign>,
    tasks: Vec<JoinHandle<anyhow::Result<()>>>,
    leadership: Option<JoinHandle<()>>,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has stopped.
    ///
    /// # Errors
    /// The first failure of a part, which ends all of them.
    pub async fn finished(self) -> anyhow::Result<()> {
        let mut result = Ok(());
        for task in self.tasks {
            let ended = task.await.context("a part of the alerter ended in a panic").and_then(|ended| ended);
            result = result.and(ended);
        }
        if let Some(leadership) = self.leadership {
            leadership.await.context("a part of the alerter ended in a panic")?;
        }
        if let Some(campaign) = self.campaign {
            campaign.release().await;
        }
        result
    }
}

impl Config {
    /// Labels that criteria see: region and cloud outweigh tags.
    #[must_use]
    pub fn labels(&self) -> Labels {
        let forced = [("region".to_owned(), self.region.clone()), ("cloud".to_owned(), self.cloud.clone())];
        self.tags.clone().into_iter().chain(forced).collect()
    }

    /// Clients by database.
    ///
    /// # Errors
    /// Where an endpoint cannot be used.
    pub fn clients(&self) -> anyhow::Result<BTreeMap<String, Client>> {
        let client = |(database, endpoint): (&String, &String)| {
            // The engine repeats what fails: a call that waits would hold a slot.
            let builder = Client::builder(endpoint).application("adx-mon-alerter").retry(RetryPolicy::none());
            let mut builder = builder.max_answer_bytes(MAX_ANSWER_BYTES);
            if let Some(credentials) = &self.credentials {
                builder = builder.credentials(Arc::clone(credentials)).trusted_hosts(&self.trusted_hosts);
            }
            let client = builder.build().with_context(|| format!("--kusto-endpoint of database {database}"))?;
            Ok((database.clone(), client))
        };
        self.kusto_endpoints.iter().map(client).collect()
    }
}

/// Starts an alerter; it runs until `shutdown`.
///
/// # Errors
/// Where an address or the data folder cannot be used.
pub async fn start(config: Config, surroundings: Surroundings, shutdown: CancellationToken) -> anyhow::Result<Running> {
    let Surroundings { store, clock, cluster, problem } = surroundings;
    let databases = config.clients()?;
    let listener = TcpListener::bind(config.listen).await.with_context(|| format!("listening on {}", config.listen))?;
    let address = listener.local_addr()?;
    let targets = targets(&config, address)?;
    let state = State::open(&config.data_dir)?;
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry, &config.region);
    let (leads, leading) = watch::channel(cluster.is_none());
    let (progress, news) = channel(NEWS, "deliveries", &metrics);
    let wakes: Vec<Arc<Notify>> = targets.iter().map(|_| Arc::default()).collect();
    let parts = Parts {
        store: Arc::clone(&store),
        state: state.clone(),
        clock: Arc::clone(&clock),
        metrics: metrics.clone(),
        labels: config.labels(),
        settings: Arc::new(Settings {
            databases,
            region: config.region.clone(),
            max_notifications: config.max_notifications,
            query_deadline: config.deadlines.query,
            quick: config.deadlines.quick,
            targets: targets.iter().map(|(target, _)| *target).collect(),
        }),
        slots: config.concurrency.max(1),
        leading: leading.clone(),
        wake: wakes.clone(),
        progress: progress.clone(),
    };
    let (engine, writer) = Engine::new(parts, news);
    let rules = store.objects();
    let ready: http::Ready = Arc::new(move || match problem() {
        Some(problem) if !rules.is_ready() => Err(problem),
        None if !rules.is_ready() => Err("the rules have not been read yet".to_owned()),
        _ => Ok(()),
    });
    let extras = http::Extras { receiver: config.alerter_address.is_empty(), profiles: config.profiles };
    let router = http::router(Arc::new(registry), ready, engine.table(), Arc::clone(&clock), extras);
    let mut limits = server::Limits::default();
    if config.profiles {
        limits.request_timeout = limits.request_timeout.max(Duration::from_secs(server::profile::MAX_SECONDS + 10));
    }
    let serving = server::serve(listener, router, limits, None, shutdown.child_token());
    let mut tasks = vec![spawn(&shutdown, async move { Ok(serving.await?) }), {
        let (stop, writing) = (shutdown.clone(), writer);
        spawn(&shutdown, async move {
            writing.run(stop).await;
            Ok(())
        })
    }];
    for ((target, url), wake) in targets.iter().cloned().zip(wakes) {
        let (clock, progress) = (Arc::clone(&clock), progress.clone());
        let (state, metrics, leading) = (state.clone(), metrics.clone(), leading.clone());
        let timeout = config.deadlines.delivery;
        let courier = Courier { target, url, timeout, state, clock, metrics, wake, leading, progress };
        let stop = shutdown.clone();
        tasks.push(spawn(&shutdown, async move { Ok(courier.run(stop).await?) }));
    }
    let counts = counts::log(metrics.clone(), Arc::clone(&clock), shutdown.clone());
    tasks.push(spawn(&shutdown, async move {
        counts.await;
        Ok(())
    }));
    let leader = cluster.as_ref().and_then(|cluster| cluster.campaign.as_ref()).map(Campaign::leader);
    tasks.push(spawn(&shutdown, count(state.clone(), metrics, targets, leader, shutdown.clone())));
    let stop = shutdown.clone();
    tasks.push(spawn(&shutdown, async move { Ok(engine.run(stop).await?) }));
    let (mut leadership, mut campaign) = (None, None);
    if let Some(cluster) = cluster {
        let follow = Leadership { holds: cluster.holds, leads, checkpoint: cluster.checkpoint, state, clock };
        leadership = Some(tokio::spawn(follow.run(shutdown)));
        campaign = cluster.campaign;
    }
    Ok(Running { address, campaign, tasks, leadership })
}

/// Runs a part; if it fails, all stop.
fn spawn(shutdown: &CancellationToken, part: impl Future<Output = anyhow::Result<()>> + Send + 'static) -> JoinHandle<anyhow::Result<()>> {
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        let stop = shutdown.drop_guard();
        let ended = part.await;
        if ended.is_ok() {
            stop.disarm();
        }
        ended
    })
}

fn targets(config: &Config, own: SocketAddr) -> anyhow::Result<Vec<(Target, Url)>> {
    let own = format!("http://127.0.0.1:{}", own.port());
    let receiver = if config.alerter_address.is_empty() { &own } else { &config.alerter_address };
    let mut targets = vec![(Target::Receiver, route("--alerter-address", receiver, &["alerts"])?)];
    if let Some(url) = &config.alertmanager_url {
        targets.push((Target::Alertmanager, route("--alertmanager-url", url, &["api", "v2", "alerts"])?));
    }
    Ok(targets)
}

/// Counts what waits in the outbox, and tells whether the lease is confirmed.
async fn count(
    state: State,
    metrics: Metrics,
    targets: Vec<(Target, Url)>,
    leader: Option<Leader>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut interval = tokio::time::interval(COUNT_PERIOD);
    while shutdown.run_until_cancelled(interval.tick()).await.is_some() {
        for (target, _) in &targets {
            metrics.waiting(*target, state.waiting(*target).await?);
        }
        metrics.unconfirmed(leader.as_ref().is_some_and(Leader::is_unconfirmed));
    }
    Ok(())
}
