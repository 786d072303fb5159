//! Wiring: connections, the election, the controllers while this operator leads, and what it serves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use crds::{AdxCluster, Alerter, Collector, Ingestor};
use kube_client::Client;
use kube_runtime::events::{Recorder, Reporter};
use lease::{Campaign, Leader, Timing};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::apply::Cluster;
use crate::metrics::Metrics;
use crate::reconcile::{self, Context, NoAzure, Provisioner};
use crate::render::Settings;

/// Name of the Lease, and of the operator in events.
const NAME: &str = "adx-mon-operator";

/// Rarer than other programs: an operator that is gone for half a minute is missed by nobody, and the API server is spared.
const LEASE: Duration = Duration::from_secs(30);

/// When a lease of that length is renewed and asked for.
pub(crate) fn election(valid: Duration) -> Timing {
    Timing { valid, renew_within: valid * 2 / 3, retry: valid / 6 }
}

/// What an operator runs with.
#[derive(Clone)]
pub struct Config {
    /// Kubeconfig file; without it that of the environment, or the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the Lease; without it that of the kubeconfig or the pod.
    pub namespace: Option<String>,
    /// What shows in what is installed.
    pub settings: Settings,
    /// Address of metrics and health.
    pub listen: SocketAddr,
    /// Whether CPU profiles are taken on request.
    pub profiles: bool,
    /// How long leadership takes.
    pub election: Timing,
    /// Makes clusters in Azure.
    pub provisioner: Arc<dyn Provisioner>,
}

impl Config {
    /// Without Azure, on any address, port 8080.
    pub fn new(settings: Settings) -> Self {
        Self {
            kubeconfig: None,
            namespace: None,
            settings,
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            profiles: false,
            election: election(LEASE),
            provisioner: Arc::new(NoAzure),
        }
    }
}

/// An operator that runs.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    serving: JoinHandle<anyhow::Result<()>>,
    leading: JoinHandle<()>,
}

impl Running {
    /// Where it serves metrics and health.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has stopped.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn finished(self) -> anyhow::Result<()> {
        let served = self.serving.await.context("a part of the operator ended in a panic")?;
        self.leading.await.context("a part of the operator ended in a panic")?;
        served
    }
}

/// Starts an operator; it runs until `shutdown`.
///
/// # Errors
/// There is no cluster, or no place to listen.
pub async fn start(config: Config, shutdown: CancellationToken) -> anyhow::Result<Running> {
    server::install_crypto();
    let client = kube_watch::connect(config.kubeconfig.as_deref()).await.context("connecting to the cluster")?;
    let client = client.context("there is no cluster: give --kubeconfig, or run in a pod")?;
    let listener = TcpListener::bind(config.listen).await.with_context(|| format!("listening on {}", config.listen))?;
    let address = listener.local_addr().context("reading the address of the listener")?;
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let (connected, is_connected) = tokio::sync::watch::channel(false);
    let ready = Arc::new(move || match *is_connected.borrow() {
        true => Ok(()),
        false => Err("the API server has not answered yet".to_owned()),
    });
    let mut router = server::operations_router(ready, Arc::new(registry));
    let mut limits = server::Limits::default();
    if config.profiles {
        router = router.merge(server::profile::router());
        limits.request_timeout = limits.request_timeout.max(Duration::from_secs(server::profile::MAX_SECONDS + 10));
    }
    let serving = server::serve(listener, router, limits, None, shutdown.child_token());
    let failing = shutdown.clone();
    let serving = tokio::spawn(async move {
        let stop = failing.drop_guard();
        serving.await.context("serving metrics and health")?;
        stop.disarm();
        Ok(())
    });
    let leading = tokio::spawn(async move {
        let Some(cluster) = shutdown.run_until_cancelled(reach(&client)).await else { return };
        connected.send_replace(true);
        lead(config, cluster, metrics, shutdown).await;
    });
    Ok(Running { address, serving, leading })
}

/// The cluster, once it answers.
async fn reach(client: &Client) -> Cluster {
    loop {
        match Cluster::new(client.clone()).await {
            Ok(cluster) => return cluster,
            Err(error) => tracing::warn!(error = error.to_string(), "the cluster is not reached; tried again"),
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// Contends, and looks after resources while it leads.
async fn lead(config: Config, cluster: Cluster, metrics: Metrics, shutdown: CancellationToken) {
    let client = cluster.client().clone();
    let namespace = config.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let options = lease::Options {
        namespace,
        name: NAME.to_owned(),
        holder: lease::host_name(),
        timing: config.election,
        when_unreachable: lease::WhenUnreachable::StepDown,
    };
    let campaign = Campaign::start(client.clone(), options);
    let mut leader = campaign.leader();
    let reporter = Reporter { controller: NAME.to_owned(), instance: Some(lease::host_name()) };
    let recorder = Recorder::new(client, reporter);
    let contend = async {
        loop {
            leader.elected().await;
            metrics.leads(true);
            let context =
                Context::new(cluster.clone(), config.settings.clone(), Arc::clone(&config.provisioner), recorder.clone(), metrics.clone());
            tokio::select! {
                () = look_after(Arc::new(context)) => {}
                () = lost(&mut leader) => {}
            }
            metrics.leads(false);
        }
    };
    shutdown.run_until_cancelled(contend).await;
    metrics.leads(false);
    campaign.release().await;
}

async fn lost(leader: &mut Leader) {
    while leader.is_leader() {
        leader.changed().await;
    }
}

/// All controllers, for ever. What they do ends where it is when this is dropped; the next leader looks at everything.
async fn look_after(context: Arc<Context>) {
    tokio::join!(
        reconcile::run(reconcile::controller::<AdxCluster>(&context), Arc::clone(&context)),
        reconcile::run(reconcile::controller::<Ingestor>(&context), Arc::clone(&context)),
        reconcile::run(reconcile::controller::<Collector>(&context), Arc::clone(&context)),
        reconcile::run(reconcile::controller::<Alerter>(&context), Arc::clone(&context)),
    );
}
