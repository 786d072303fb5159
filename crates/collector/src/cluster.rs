//! What the collector knows of the Kubernetes cluster around it, as far as the configuration asks for it.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, KubernetesSettings};
use crate::metrics::Metrics;
use crate::pods::{self, Kubelet, Node, PodSource, Pods, Problem, Services, Source};

/// Snapshots that follow the cluster. None of what nobody asked for.
#[derive(Clone, Default)]
pub(crate) struct Cluster {
    /// The pods of this node.
    pub(crate) pods: Option<watch::Receiver<Pods>>,
    /// The annotated Services.
    pub(crate) services: Option<watch::Receiver<Services>>,
    /// The Node object of this node.
    pub(crate) node: Option<watch::Receiver<Arc<Node>>>,
    /// What events are asked of.
    pub(crate) events: Option<kube_client::Client>,
    wanted: Wanted,
    stop: CancellationToken,
}

/// What a configuration asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Wanted {
    settings: KubernetesSettings,
    pods: bool,
    services: bool,
    events: bool,
}

impl Cluster {
    /// Follows what `config` asks for, until `stop`; what is followed already goes on. An API server or a kubelet that does
    /// not answer is no error: it is asked again.
    ///
    /// # Errors
    /// No cluster where one is needed; a kubeconfig, token or certificate that cannot be used.
    pub(crate) async fn follow(&mut self, config: &Config, metrics: &Metrics, stop: &CancellationToken) -> anyhow::Result<()> {
        let wanted = Wanted {
            settings: config.kubernetes.clone(),
            pods: config.discovers_pods(),
            services: config.discovers_services(),
            events: config.events.is_some(),
        };
        if wanted != self.wanted {
            let joined = join(wanted, config, metrics, stop.child_token()).await?;
            self.stop.cancel();
            *self = joined;
        }
        Ok(())
    }
}

async fn join(wanted: Wanted, config: &Config, metrics: &Metrics, stop: CancellationToken) -> anyhow::Result<Cluster> {
    let settings = &wanted.settings;
    let problem = |source| Problem::new(source, metrics);
    let needs_api = settings.node || wanted.services || wanted.events || (wanted.pods && settings.kubelet.is_none());
    let client = if needs_api { Some(client(settings).await?) } else { None };
    let source = match (&settings.kubelet, &client) {
        _ if !wanted.pods => None,
        (Some(kubelet), _) => Some(PodSource::Kubelet(Kubelet::new(kubelet)?)),
        (None, client) => client.clone().map(PodSource::Api),
    };
    let pods = source.map(|source| pods::start(source, &config.node, problem(Source::Pods), &stop));
    let services = client.clone().filter(|_| wanted.services);
    let services = services.map(|client| pods::start_services(client, problem(Source::Services), &stop));
    let events = client.clone().filter(|_| wanted.events);
    let node = match client {
        Some(client) if settings.node => Some(pods::start_node(client, &config.node, problem(Source::Node), &stop).await),
        _ => None,
    };
    Ok(Cluster { pods, services, node, events, wanted, stop })
}

async fn client(settings: &KubernetesSettings) -> anyhow::Result<kube_client::Client> {
    let client = kube_watch::connect(settings.kubeconfig.as_deref()).await.context("connecting to the cluster")?;
    client.context(
        "pods, the node or events are to be discovered, but there is no cluster here: set kube-config, or set disable-discovery \
         in prometheus-scrape and disable-kube-discovery in host-log, and remove metadata-watch and kubernetes-events",
    )
}
