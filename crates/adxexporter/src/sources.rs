//! Where rules come from, and whether this process is the one that acts on them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use crds::{MetricsExporter, SummaryRule};
use rules::lease::{self, Campaign, Leader};
use rules::store::Store;
use rules::store::files::Folder;
use rules::store::kubernetes::{self, KubernetesStore};

/// Name of the lease of which replicas share one.
const LEASE: &str = "adxexporter";
/// Who writes to the API server, in its records.
const COMPONENT: &str = "adxexporter";

/// Where rules live.
#[derive(Clone)]
pub enum Rules {
    /// In a cluster. Of several replicas the one that holds the lease `adxexporter` acts.
    Cluster {
        /// The file that says how to reach it; without one the environment's, or the pod's own.
        kubeconfig: Option<PathBuf>,
        /// Namespace of the lease; without one that of the kubeconfig or the pod.
        namespace: Option<String>,
    },
    /// In YAML files.
    Files {
        /// Their folder.
        rules: PathBuf,
        /// The folder where their status is kept.
        data: PathBuf,
    },
    /// In stores that somebody else has opened.
    Stores {
        /// The exporters.
        exporters: Arc<dyn Store<MetricsExporter>>,
        /// The summary rules; none if others run them.
        summary_rules: Option<Arc<dyn Store<SummaryRule>>>,
        /// Whether this process is the one that acts.
        leader: Leader,
    },
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rules::Cluster { kubeconfig, namespace } => write!(f, "Cluster({kubeconfig:?}, {namespace:?})"),
            Rules::Files { rules, data } => write!(f, "Files({}, {})", rules.display(), data.display()),
            Rules::Stores { .. } => f.write_str("Stores"),
        }
    }
}

/// Opened rules.
pub(crate) struct Sources {
    pub(crate) exporters: Arc<dyn Store<MetricsExporter>>,
    pub(crate) summary_rules: Option<Arc<dyn Store<SummaryRule>>>,
    /// Whether this process acts.
    pub(crate) leader: Leader,
    /// Namespace and name of the lease, by which others know this deployment.
    pub(crate) deployment: Option<String>,
    /// The election, if there is one.
    campaign: Option<Campaign>,
}

impl Sources {
    pub(crate) async fn open(rules: Rules) -> anyhow::Result<Sources> {
        match rules {
            Rules::Cluster { kubeconfig, namespace } => in_cluster(kubeconfig.as_deref(), namespace).await,
            Rules::Files { rules, data } => in_files(&rules, &data).await,
            Rules::Stores { exporters, summary_rules, leader } => {
                Ok(Sources { exporters, summary_rules, leader, deployment: None, campaign: None })
            }
        }
    }

    /// Gives the lease back, once nothing acts any more.
    pub(crate) async fn close(self) {
        if let Some(campaign) = self.campaign {
            campaign.release().await;
        }
    }
}

async fn in_cluster(kubeconfig: Option<&Path>, namespace: Option<String>) -> anyhow::Result<Sources> {
    let client = kubernetes::connect(kubeconfig).await.context("connecting to the cluster")?.context(
        "no cluster: this is no pod, and KUBECONFIG is not set; give --kubeconfig FILE, or --rules-dir DIR --data-dir DIR for rules in files",
    )?;
    let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let options = kubernetes::Options::new(COMPONENT);
    let exporters = KubernetesStore::<MetricsExporter>::start(client.clone(), options.clone());
    let summary_rules = KubernetesStore::<SummaryRule>::start(client.clone(), options);
    let deployment = Some(format!("{namespace}/{LEASE}"));
    let lease = lease::Options {
        namespace,
        name: LEASE.to_owned(),
        holder: lease::host_name(),
        timing: lease::Timing::default(),
        // Each window once: that rests on what the API server has on record.
        when_unreachable: lease::WhenUnreachable::StepDown,
    };
    let campaign = Campaign::start(client, lease);
    let leader = campaign.leader();
    let summary_rules: Option<Arc<dyn Store<SummaryRule>>> = Some(Arc::new(summary_rules));
    Ok(Sources { exporters: Arc::new(exporters), summary_rules, leader, deployment, campaign: Some(campaign) })
}

async fn in_files(rules: &Path, data: &Path) -> anyhow::Result<Sources> {
    let folder = Folder::open(rules, data).context("opening the rules; check --rules-dir and --data-dir")?;
    let exporters = folder.store::<MetricsExporter>().await;
    let summary_rules = folder.store::<SummaryRule>().await;
    for error in folder.errors() {
        tracing::error!(%error, "a mistake in the rules");
    }
    let summary_rules: Option<Arc<dyn Store<SummaryRule>>> = Some(Arc::new(summary_rules));
    let (leader, deployment) = (Leader::always(), None);
    Ok(Sources { exporters: Arc::new(exporters), summary_rules, leader, deployment, campaign: None })
}
