//! Where the rules of a command line live: a folder, or a cluster with its lease and the checkpoint that replicas share.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use crds::AlertRule;
use k8s_openapi::api::core::v1::ConfigMap;
use kube_client::api::{Patch, PatchParams};
use kube_client::{Api, Client};
use rules::clock::{Clock, SystemClock};
use rules::lease::{self, Campaign, Leader, Timing, WhenUnreachable};
use rules::store::files::Folder;
use rules::store::kubernetes::{self, KubernetesStore};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::shards::{Documents, Shards};
use crate::flags::RunFlags;
use crate::run::{Cluster, Config, Surroundings};

/// Name of the Lease.
const LEASE: &str = "alerter";
/// Name of the ConfigMap that keeps the cursors; further ones are called `alerter-checkpoint-1` and so on.
const CHECKPOINT: &str = "alerter-checkpoint";

/// Opens the folder of rules, or connects to the cluster that has them.
///
/// # Errors
/// Where the folder cannot be read, or there is no cluster.
pub async fn surroundings(flags: &RunFlags, config: &Config, shutdown: CancellationToken) -> anyhow::Result<Surroundings> {
    let clock = Arc::new(SystemClock);
    if let Some(path) = &flags.rules_dir {
        let folder = Folder::open(path, &config.data_dir).with_context(|| format!("opening --rules-dir {}", path.display()))?;
        let store = Arc::new(folder.store::<AlertRule>().await);
        if flags.data_dir.is_none() {
            let folder = config.data_dir.display();
            tracing::warn!(%folder, "what is kept there may not survive a restart of the machine: give --data-dir");
        }
        return Ok(Surroundings { store, clock, cluster: None, problem: Arc::new(|| None) });
    }
    let client = kubernetes::connect(flags.kubeconfig.as_deref()).await.context("connecting to the cluster that holds the rules")?;
    let client = client.context("there is no cluster: give --kubeconfig, or rules in files with --rules-dir")?;
    Ok(in_cluster(client, kubernetes::Options::new("alerter"), Timing::default(), clock, shutdown))
}

/// Follows the rules of a cluster, and contends for its lease. Must be called within a tokio runtime.
#[must_use]
pub fn in_cluster(
    client: Client,
    options: kubernetes::Options,
    timing: Timing,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> Surroundings {
    let store = Arc::new(KubernetesStore::<AlertRule>::start(client.clone(), options));
    let namespace = client.default_namespace().to_owned();
    let options = lease::Options {
        namespace: namespace.clone(),
        name: LEASE.into(),
        holder: lease::host_name(),
        timing,
        // An alert may come twice, and has a CorrelationID for that; it may not be missing for as long as an outage lasts.
        when_unreachable: WhenUnreachable::Continue,
    };
    let campaign = Campaign::start(client.clone(), options);
    let holds = follow(campaign.leader(), shutdown);
    let checkpoint = Arc::new(Shards::new(ConfigMaps(Api::namespaced(client, &namespace)), CHECKPOINT));
    let problem = {
        let store = Arc::clone(&store);
        Arc::new(move || store.problem())
    };
    Surroundings { store, clock, cluster: Some(Cluster { holds, checkpoint, campaign: Some(campaign) }), problem }
}

/// Whether we lead, as a value that can be waited for.
fn follow(mut leader: Leader, shutdown: CancellationToken) -> watch::Receiver<bool> {
    let (sender, holds) = watch::channel(leader.is_leader());
    tokio::spawn(async move {
        let follow = async {
            loop {
                let leads = leader.is_leader();
                sender.send_if_modified(|holds| std::mem::replace(holds, leads) != leads);
                leader.changed().await;
            }
        };
        let _: Option<()> = shutdown.run_until_cancelled(follow).await;
        // The last save is still to be made by whoever led until now.
        sender.closed().await;
    });
    holds
}

/// ConfigMaps in the alerter's own namespace.
struct ConfigMaps(Api<ConfigMap>);

#[async_trait]
impl Documents for ConfigMaps {
    async fn get(&self, name: &str) -> anyhow::Result<Option<BTreeMap<String, String>>> {
        Ok(self.0.get_opt(name).await.context("ConfigMap")?.map(|map| map.data.unwrap_or_default()))
    }

    async fn put(&self, name: &str, data: BTreeMap<String, String>) -> anyhow::Result<()> {
        let mut map = ConfigMap { data: Some(data), ..ConfigMap::default() };
        map.metadata.name = Some(name.to_owned());
        let params = PatchParams::apply("alerter").force();
        self.0.patch(name, &params, &Patch::Apply(&map)).await.context("ConfigMap")?;
        Ok(())
    }
}
