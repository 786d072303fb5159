//! What an ingestor does with a Kubernetes cluster: its leader runs SummaryRules on the databases, and applies
//! Functions and ManagementCommands to them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use azure::TokenSource;
use crds::criteria::Labels;
use crds::{Function, ManagementCommand, SummaryRule};
use kusto::Client;
use prometheus_client::registry::Registry;
use rules::clock::SystemClock;
use rules::function::Functions;
use rules::lease::{self, Campaign, Leader};
use rules::management_command::ManagementCommands;
use rules::runner::{self, Executor};
use rules::store::kubernetes::{self, KubernetesStore};
use rules::summary;
use rules::target::{Deployment, Metrics, Target};
use rules::unserved::{Served, Unserved};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

const WAY_OUT: &str = "to have it served, name it in --metrics-kusto-endpoints or --logs-kusto-endpoints of an ingestor";

/// Where rules come from.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Kubeconfig file; without one the file of `KUBECONFIG` or the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the lease by which the leader is elected; without one that of the kubeconfig or the pod.
    pub namespace: Option<String>,
    /// Name of this host; without one that of `HOSTNAME`.
    pub hostname: Option<String>,
    /// Labels of this cluster, for criteria.
    pub labels: Vec<(String, String)>,
}

/// Rules that are being run.
pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
    campaign: Campaign,
}

/// Starts to run rules, if there is a cluster and a database.
pub(crate) async fn start(config: &Config, credentials: &Arc<dyn TokenSource>, registry: &mut Registry) -> anyhow::Result<Option<Running>> {
    let Some(cluster) = &config.cluster else { return Ok(None) };
    let Some(client) = kubernetes::connect(cluster.kubeconfig.as_deref()).await? else {
        tracing::info!("no rules are run: there is neither --kubeconfig nor KUBECONFIG nor the service account of a pod");
        return Ok(None);
    };
    let clients = clients(config, credentials)?;
    if clients.is_empty() {
        tracing::info!("no rules are run: there are no databases with an endpoint");
        return Ok(None);
    }
    let options = lease::Options {
        namespace: cluster.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned()),
        name: "ingestor".to_owned(),
        holder: cluster.hostname.clone().unwrap_or_else(lease::host_name),
        timing: lease::Timing::default(),
        // Each window and command once: that rests on what the API server has on record.
        when_unreachable: lease::WhenUnreachable::StepDown,
    };
    let deployment = format!("{}/{}", options.namespace, options.name);
    let campaign = Campaign::start(client.clone(), options);
    let targets: Vec<Target> = clients.iter().map(|(database, client)| Target::new(database, client.clone())).collect();
    let labels: Labels = cluster.labels.iter().cloned().collect();
    let metrics = Metrics::default();
    metrics.register(registry);
    let summary_metrics = summary::metrics::Metrics::default();
    summary_metrics.register(registry);
    let functions = Arc::new(KubernetesStore::<Function>::start(client.clone(), kubernetes::Options::new("ingestor")));
    let commands = Arc::new(KubernetesStore::<ManagementCommand>::start(client.clone(), kubernetes::Options::new("ingestor")));
    let summaries = Arc::new(KubernetesStore::<SummaryRule>::start(client, kubernetes::Options::new("ingestor")));
    let served = Served::of("ingestor", WAY_OUT, clients.iter().map(|(database, client)| (database, client)));
    let mut executors: Vec<Box<dyn Executor>> = vec![
        Box::new(Unserved::<Function>::new(functions.clone(), served.clone(), labels.clone())),
        Box::new(Unserved::<ManagementCommand>::new(commands.clone(), served.clone(), labels.clone())),
        Box::new(Unserved::<SummaryRule>::new(summaries.clone(), served, labels.clone())),
    ];
    let targets = Deployment::new(&deployment, targets);
    executors.extend(Functions::of_each_endpoint(functions, &targets, &labels, &metrics));
    executors.extend(ManagementCommands::of_each_endpoint(commands, &targets, &labels, &metrics));
    let summaries = summary::Runner::new(
        summaries,
        clients.into_iter().map(|(database, client)| (database, Arc::new(client) as Arc<dyn summary::operations::Kusto>)).collect(),
        &cluster.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        summary::Owner::Ingestor,
        Arc::new(SystemClock),
        summary_metrics,
    );
    let summaries = summaries.deployment(deployment);
    let stop = CancellationToken::new();
    let (leader, stopped) = (campaign.leader(), stop.clone());
    let task = tokio::spawn(async move {
        let summaries = summaries.run(leader.clone(), stopped.clone());
        tokio::join!(runner::run(executors, leader, Arc::new(SystemClock), stopped), summaries);
    });
    Ok(Some(Running { stop, task, campaign }))
}

/// The databases with their clients.
pub(crate) fn clients(config: &Config, credentials: &Arc<dyn TokenSource>) -> anyhow::Result<Vec<(String, Client)>> {
    let endpoints = config.metrics.iter().chain(&config.logs);
    let client = endpoints.map(|endpoint| {
        let client = Client::builder(&endpoint.url).application("adx-mon-ingestor").credentials(Arc::clone(credentials));
        let client = client.trusted_hosts(&config.trusted_hosts).build();
        Ok((endpoint.database.clone(), client.with_context(|| format!("preparing the client of {}", endpoint.url))?))
    });
    client.collect()
}

impl Running {
    /// Whether this ingestor is the leader.
    pub(crate) fn leader(&self) -> Leader {
        self.campaign.leader()
    }

    /// Ends what runs, then lets another ingestor lead.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
        self.campaign.release().await;
    }
}
