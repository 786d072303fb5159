//! The command line, with the names and meanings of the reference.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::azure::{Credentials, Identity};
use anyhow::Context as _;
use azure_arm::Arm;
use clap::{ArgAction, Args, Parser, Subcommand};

use crate::azure::Azure;
use crate::render::{Images, Settings};
use crate::run::{Config, election};

/// Shown below the flags.
const EXAMPLES: &str = "\
Examples:
  In a cluster, after `adx-mon crds | kubectl apply -f -` and `kubectl apply -f deploy/rbac`:
    operator --cluster-labels region=eastus,cloud=public

  What it would install, and what differs from what is there:
    operator render -f monitoring.yaml
    operator diff --namespace monitoring

How each resource is stands in its conditions: kubectl get adx-mon --all-namespaces. Several replicas may run: one of them,
which holds the Lease, acts. LOG_LEVEL (ERROR, WARN, INFO, DEBUG, TRACE) says how much is logged.";

/// Installs the components that custom resources describe, and keeps them as described.
#[derive(Debug, Parser)]
#[command(name = "operator", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Flags {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How it runs.
    #[command(flatten)]
    pub run: RunFlags,
}

/// What else the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prints the objects that resources in files ask for, as YAML.
    #[command(after_help = RENDER_EXAMPLES)]
    Render(RenderFlags),
    /// Prints what differs between a cluster and what its resources ask for.
    #[command(after_help = "Nothing is written. Exit code: 0 if nothing differs, 1 if something does, 2 if it cannot be told.")]
    Diff(DiffFlags),
}

const RENDER_EXAMPLES: &str = "\
A file holds what the cluster would: ADXClusters, Ingestors, Collectors and Alerters, in any order; a MetricsExporter makes
an adxexporter. Nothing is asked of a cluster.

Exit code: 0, or 1 if a resource is wrong; all that is wrong is shown.

Examples:
  operator render -f monitoring.yaml
  operator render -f monitoring.yaml --cluster-labels region=eastus | kubectl diff -f -";

/// Flags of running and of rendering.
#[derive(Debug, Clone, Default, Args)]
pub struct CommonFlags {
    /// Labels of this cluster, for the criteria of resources and of rules.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', action = ArgAction::Append, value_parser = label)]
    pub cluster_labels: Vec<(String, String)>,
    /// Registry and folder of the images of resources that name none.
    #[arg(long, value_name = "PREFIX", default_value = "ghcr.io/azure/adx-mon", env = "ADXMON_IMAGE_PREFIX")]
    pub image_prefix: String,
    /// Tag of these images.
    #[arg(long, value_name = "TAG", default_value = "latest", env = "ADXMON_IMAGE_TAG")]
    pub image_tag: String,
}

impl CommonFlags {
    /// What they ask for.
    pub fn settings(&self) -> Settings {
        let images = Images { prefix: self.image_prefix.clone(), tag: self.image_tag.clone() };
        Settings { images, labels: self.cluster_labels.iter().cloned().collect() }
    }
}

/// Flags of running.
#[derive(Debug, Clone, Args)]
pub struct RunFlags {
    /// What shows in what is installed.
    #[command(flatten)]
    pub common: CommonFlags,
    /// Kubeconfig file; without it that of the environment, or the pod's service account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the Lease; without it that of the kubeconfig or the pod.
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE")]
    pub namespace: Option<String>,
    /// Port of /metrics, /healthz and /readyz.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// Address that they are bound to.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub listen_address: IpAddr,
    /// Address of Azure Resource Manager, for clusters with spec.provision. Other clouds than the public one have their own.
    #[arg(long, value_name = "URL", default_value = azure_arm::PUBLIC_CLOUD, env = "ADXMON_AZURE_RESOURCE_MANAGER")]
    pub azure_resource_manager: String,
    /// Client id of the user-assigned identity to make clusters in Azure with; without it the default chain: environment,
    /// workload identity, managed identity, Azure CLI.
    #[arg(long, value_name = "CLIENT-ID", default_value = "", hide_default_value = true)]
    pub auth_msi_id: String,
    /// How long the operator that acts may be silent before another one takes over, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(3..=600))]
    pub lease_duration: u16,
    /// Accepted for the reference's manifests: a value turns CPU profiles on, at --port: /debug/pprof/profile?seconds=10.
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    pub pprof_bind_address: String,
}

impl RunFlags {
    /// What they ask for.
    ///
    /// # Errors
    /// The address of Resource Manager is none.
    pub fn config(&self) -> anyhow::Result<Config> {
        let tokens = match self.auth_msi_id.trim() {
            "" => Credentials::new().default_chain(),
            id => Credentials::new().managed_identity(Identity::user(id)),
        };
        let user_agent = concat!("adx-mon-operator/", env!("CARGO_PKG_VERSION"));
        let arm = Arm::new(self.azure_resource_manager.trim(), tokens, user_agent).context("--azure-resource-manager")?;
        Ok(Config {
            provisioner: Arc::new(Azure::new(arm)),
            kubeconfig: self.kubeconfig.clone(),
            namespace: self.namespace.clone().filter(|name| !name.is_empty()),
            listen: SocketAddr::new(self.listen_address, self.port),
            profiles: !self.pprof_bind_address.is_empty(),
            election: election(Duration::from_secs(self.lease_duration.into())),
            ..Config::new(self.common.settings())
        })
    }
}

/// Flags of showing differences.
#[derive(Debug, Clone, Args)]
pub struct DiffFlags {
    /// What running needs too.
    #[command(flatten)]
    pub common: CommonFlags,
    /// Kubeconfig file; without it that of the environment.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Only resources of this namespace.
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
}

/// Flags of rendering.
#[derive(Debug, Clone, Args)]
pub struct RenderFlags {
    /// What running needs too.
    #[command(flatten)]
    pub common: CommonFlags,
    /// Files with the resources; - is the standard input.
    #[arg(short, long = "filename", value_name = "FILE", required = true, action = ArgAction::Append)]
    pub files: Vec<PathBuf>,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}
