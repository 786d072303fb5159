//! Giving away what is here: at the end of the process, and when an annotation of the pod asks for it.
//!
//! Whoever scales a StatefulSet down annotates the pod with `shutdown-requested` and waits for `shutdown-completed`. From
//! the first on nothing more is taken, what is in memory is sealed, and all of it is uploaded or passed on. The second says
//! that nothing is left here: in the reference it may come after five minutes in any case, active segments are forgotten,
//! and uploads on their way are not waited for.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube_client::api::{Api, Patch, PatchParams};
use kube_runtime::watcher::{self, Event};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transfer::SenderStatus;
use wal::Store;

use crate::config::Config;
use crate::peers::Peering;
use crate::upload::{Worker, WorkerStatus};

const REQUESTED: &str = crate::peers::SHUTDOWN_REQUESTED;
const COMPLETED: &str = "shutdown-completed";
/// Between two words on what is left, and two tries to annotate the pod.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for what is on its way from here.
#[derive(Clone)]
pub(crate) struct Waiting {
    store: Store,
    uploads: Vec<watch::Receiver<WorkerStatus>>,
    sending: Option<watch::Receiver<SenderStatus>>,
}

impl Waiting {
    pub(crate) fn new(store: &Store, workers: &[Worker], peering: Option<&Peering>) -> Waiting {
        Waiting {
            store: store.clone(),
            uploads: workers.iter().map(|worker| worker.status.clone()).collect(),
            sending: peering.map(|peering| peering.sender.watch()),
        }
    }

    /// Seals what is in memory.
    pub(crate) async fn seal(&self) -> anyhow::Result<()> {
        let sealing = self.store.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || sealing.seal_all()).await? {
            tracing::error!(%error, "what is in memory could not be sealed; it is in the journal and comes back at the next start");
        }
        Ok(())
    }

    /// Returns when the store is as asked for, or nothing will happen any more.
    pub(crate) async fn until(&mut self, reached: impl Fn(&Store) -> bool) {
        while !reached(&self.store) {
            let mut changes: Vec<BoxFuture<'_, bool>> = Vec::new();
            changes.extend(self.uploads.iter_mut().map(|status| async { status.changed().await.is_ok() }.boxed()));
            changes.extend(self.sending.iter_mut().map(|status| async { status.changed().await.is_ok() }.boxed()));
            if changes.is_empty() || !futures::future::select_all(changes).await.0 {
                return;
            }
        }
    }
}

/// This process's own pod.
pub(crate) struct OwnPod {
    api: Api<Pod>,
    name: String,
}

impl OwnPod {
    /// The pod that this runs in, if it runs in one. No request is made.
    pub(crate) async fn find(config: &Config) -> anyhow::Result<Option<OwnPod>> {
        let Some(cluster) = &config.cluster else { return Ok(None) };
        let client = kube_watch::connect(cluster.kubeconfig.as_deref()).await.context("connecting to the cluster")?;
        let name = cluster.hostname.clone().unwrap_or_else(rules::lease::host_name);
        Ok(client.filter(|_| crate::peers::stateful_set(&name).is_some()).map(|client| {
            let namespace = cluster.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
            OwnPod { api: Api::namespaced(client, &namespace), name }
        }))
    }

    /// Waits for the annotation, cancels `draining`, and says when everything is away.
    pub(crate) async fn serve(self, mut waiting: Waiting, draining: CancellationToken) {
        self.requested().await;
        tracing::info!("{REQUESTED}: no more data is taken, and what is here is sent away");
        draining.cancel();
        loop {
            let sent = async {
                waiting.seal().await?;
                waiting.until(|store| store.sealed().is_empty()).await;
                anyhow::Ok(())
            };
            let in_time = matches!(tokio::time::timeout(PATIENCE, sent).await, Ok(Ok(())));
            let left = waiting.store.sealed().len();
            if !in_time || left > 0 {
                tracing::warn!(left, "segments are still to be sent away");
            } else if self.complete().await {
                return tracing::info!("{COMPLETED}: nothing is left here");
            } else {
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }

    /// Returns when a drain is asked for that is not completed.
    async fn requested(&self) {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut events = kube_watch::follow(self.api.clone(), config, kube_watch::Pauses::default());
        while let Some(event) = events.next().await {
            let asks = |pod: &Pod| {
                let has = |name: &str| pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(name));
                has(REQUESTED) && !has(COMPLETED)
            };
            match event {
                Ok(Event::Apply(pod) | Event::InitApply(pod)) if asks(&pod) => return,
                Ok(_) => {}
                Err(error) => tracing::debug!(error = kube_watch::describe_watch(&error), "the own pod is not seen"),
            }
        }
        std::future::pending().await
    }

    /// Annotates the pod; whether that was done.
    async fn complete(&self) -> bool {
        let now = Timestamp::try_from(SystemTime::now()).unwrap_or_default();
        let patch = serde_json::json!({"metadata": {"annotations": {COMPLETED: format!("{now:.0}")}}});
        match self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => true,
            Err(error) => {
                let error = kube_watch::describe(&error);
                tracing::error!(error, pod = self.name, "the drain is done and cannot be told: this needs the right to patch pods");
                false
            }
        }
    }
}
