//! Looking at a resource: what is to be done, doing it, and saying so in its status.
//!
//! [`decide`] is pure: from a resource and what is around it to a [`Step`]. The rest is the I/O around it, the same for all
//! kinds. A look reads what it decides on from the API server, so that it never decides on a stale cache, and whatever may
//! make another look worthwhile is watched ([`watches`]): nothing is asked for while nothing happens.

mod cluster;
mod components;
pub mod decide;
mod install;
mod watches;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::conditions::Truth;
use crds::{Condition, GROUP};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use kube_client::Resource;
use kube_client::api::{Api, ObjectMeta, Patch, PatchParams};
use kube_runtime::controller::{self, Action};
use kube_runtime::events::Recorder;
use kube_runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;

use crate::apply::{ApplyError, Cluster, in_time};
use crate::federation::Federations;
use crate::metrics::Metrics;
use crate::render::Settings;
use crate::status::{Pods, READY, SECURITY, Verdict};

pub use cluster::{NoAzure, Origin, Provisioned, Provisioner, origin};
pub use decide::{Step, Surroundings};
pub(crate) use watches::controller;

/// Longest look at a resource. One that hangs takes a place among [`AT_A_TIME`] for so long.
const LOOK: Duration = Duration::from_secs(60);
/// Looks at resources of one kind at a time.
const AT_A_TIME: u16 = 16;
/// Longest pause after failures, which begins at a second and doubles.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What is waited for is watched; this is for what cannot be.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// What all looks share.
pub struct Context {
    /// The cluster.
    pub cluster: Cluster,
    /// Settings of the operator.
    pub settings: Settings,
    /// Makes clusters in Azure.
    pub provisioner: Arc<dyn Provisioner>,
    /// Keeps federations.
    pub federations: Federations,
    /// Writes events.
    pub recorder: Recorder,
    /// Counts.
    pub metrics: Metrics,
    /// Failures in a row, by kind, namespace and name.
    failures: Mutex<HashMap<String, u32>>,
}

impl Context {
    /// For a cluster.
    pub fn new(cluster: Cluster, settings: Settings, provisioner: Arc<dyn Provisioner>, recorder: Recorder, metrics: Metrics) -> Self {
        Self {
            cluster,
            settings,
            provisioner,
            federations: Federations::default().counted(metrics.clone()),
            recorder,
            metrics,
            failures: Mutex::default(),
        }
    }

    pub(crate) fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.cluster.client().clone(), namespace)
    }
}

/// A kind of resources that the operator looks after.
pub(crate) trait Managed:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Its name.
    const KIND: &'static str;
    /// Whether it has bindings in the cluster, which nobody takes away after it but the operator.
    const HAS_BINDINGS: bool;

    /// Criteria of the spec.
    fn criteria(&self) -> &str;
    /// Conditions of the status.
    fn conditions(&self) -> Vec<Condition>;
    /// The status as it is.
    fn status(&self) -> Value;
    /// Looks at one that is meant for this cluster and is not about to go.
    fn look(&self, context: &Context, report: &mut Report) -> impl Future<Output = Result<Action, LookError>> + Send;

    /// It is gone, or about to go: what goes on for it beside its looks ends.
    fn gone(&self, _context: &Context) {}

    /// Type of the condition that tells how it goes.
    fn condition() -> String {
        format!("{}.{GROUP}", Self::KIND.to_lowercase())
    }

    /// Name of the finalizer, with which the reference's resources are too.
    fn finalizer() -> String {
        format!("{}.{GROUP}/security-cleanup", Self::KIND.to_lowercase())
    }
}

/// What a look finds, for the status.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The condition of the kind.
    pub(crate) owner: Option<Verdict>,
    /// Other conditions; without a verdict, the condition goes.
    pub(crate) others: Vec<(&'static str, Option<Verdict>)>,
    /// Pods of the workloads.
    pub(crate) pods: Option<Pods>,
    /// Whether this generation is installed.
    pub(crate) installed: bool,
    /// Other fields of the status.
    pub(crate) fields: serde_json::Map<String, Value>,
}

/// Why a look came to no end. It is repeated, after a pause that grows.
#[derive(Debug, Error)]
pub(crate) enum LookError {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("it took longer than {} s", LOOK.as_secs())]
    Late,
}

/// Looks at a resource.
async fn look<K: Managed>(object: Arc<K>, context: Arc<Context>) -> Result<Action, LookError> {
    let started = Instant::now();
    let ended = match tokio::time::timeout(LOOK, look_now(&*object, &context)).await {
        Ok(ended) => ended,
        Err(_) => Err(LookError::Late),
    };
    let key = key::<K>(object.meta());
    let outcome = match &ended {
        Ok(_) => {
            context.failures.lock().remove(&key);
            "success"
        }
        Err(error) => {
            *context.failures.lock().entry(key).or_default() += 1;
            let (namespace, name) = names(object.meta());
            tracing::warn!(kind = K::KIND, namespace, name, error = error.to_string(), "the resource is not as it shall be; tried again");
            "failure"
        }
    };
    context.metrics.reconciled(K::KIND, outcome, started.elapsed());
    ended
}

async fn look_now<K: Managed>(seen: &K, context: &Context) -> Result<Action, LookError> {
    let (namespace, name) = names(seen.meta());
    let api: Api<K> = context.api(namespace);
    let Some(object) = in_time(&format!("reading {} {namespace}/{name}", K::KIND), api.get_opt(name)).await? else {
        seen.gone(context);
        return Ok(Action::await_change());
    };
    if object.meta().deletion_timestamp.is_some() {
        object.gone(context);
        if K::HAS_BINDINGS && has_finalizer::<K>(object.meta()) {
            install::remove_bindings::<K>(context, object.meta()).await?;
            set_finalizer::<K>(&api, object.meta(), false).await?;
        }
        return Ok(Action::await_change());
    }
    if K::HAS_BINDINGS && !has_finalizer::<K>(object.meta()) {
        // The change that this is leads to another look.
        set_finalizer::<K>(&api, object.meta(), true).await?;
    }
    let mut report = Report::default();
    let ended = match decide::criteria(object.criteria(), &context.settings.labels) {
        Some(verdict) => {
            report.owner = Some(verdict);
            Ok(Action::await_change())
        }
        None => object.look(context, &mut report).await,
    };
    if let (Err(error), None) = (&ended, &report.owner) {
        report.owner = Some(Verdict::new(Truth::False, "InstallFailed", error.to_string()));
    }
    write_status(&api, &object, report, context).await?;
    ended
}

async fn write_status<K: Managed>(api: &Api<K>, object: &K, report: Report, context: &Context) -> Result<(), LookError> {
    let meta = object.meta();
    let mut conditions = object.conditions();
    let before = crds::conditions::get(&conditions, &K::condition()).map(|condition| condition.reason.clone());
    let now = Timestamp::now();
    if let Some(owner) = &report.owner {
        owner.set(&K::condition(), meta.generation, &mut conditions, now);
        if before.as_deref() != Some(owner.reason) {
            install::tell(context, object, owner.status != Truth::False, owner.reason, &owner.message).await;
        }
    }
    for (type_, verdict) in &report.others {
        match verdict {
            Some(verdict) => drop(verdict.set(type_, meta.generation, &mut conditions, now)),
            None => drop(crds::conditions::remove(&mut conditions, type_)),
        }
    }
    let old = object.status();
    let mut status = report.fields;
    status.insert("conditions".to_owned(), json!(conditions));
    if let Some(pods) = report.pods {
        status.insert("replicas".to_owned(), pods.wanted.into());
        status.insert("readyReplicas".to_owned(), pods.ready.into());
    }
    if let Some(generation) = meta.generation.filter(|_| report.installed) {
        status.insert("observedGeneration".to_owned(), generation.into());
    }
    if status.iter().all(|(name, value)| old.get(name).unwrap_or(&Value::Null) == value) {
        return Ok(());
    }
    let (namespace, name) = names(meta);
    let patch = Patch::Merge(json!({"status": status}));
    let params = PatchParams::default();
    in_time(&format!("writing the status of {} {namespace}/{name}", K::KIND), api.patch_status(name, &params, &patch)).await?;
    Ok(())
}

fn has_finalizer<K: Managed>(meta: &ObjectMeta) -> bool {
    meta.finalizers.iter().flatten().any(|name| *name == K::finalizer())
}

/// With the version that was read: whoever wrote since is not overwritten.
async fn set_finalizer<K: Managed>(api: &Api<K>, meta: &ObjectMeta, there: bool) -> Result<(), LookError> {
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    finalizers.retain(|name| *name != K::finalizer());
    if there {
        finalizers.push(K::finalizer());
    }
    let (namespace, name) = names(meta);
    let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers, "resourceVersion": meta.resource_version}}));
    let doing = format!("writing the finalizers of {} {namespace}/{name}", K::KIND);
    in_time(&doing, api.patch(name, &PatchParams::default(), &patch)).await?;
    Ok(())
}

/// Pause before a look is repeated.
fn pause<K: Managed>(object: Arc<K>, _: &LookError, context: Arc<Context>) -> Action {
    let failures = context.failures.lock().get(&key::<K>(object.meta())).copied().unwrap_or(1);
    let pause = Duration::from_secs(1 << failures.saturating_sub(1).min(6));
    Action::requeue(pause.min(LONGEST_PAUSE))
}

fn names(meta: &ObjectMeta) -> (&str, &str) {
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn key<K: Managed>(meta: &ObjectMeta) -> String {
    let (namespace, name) = names(meta);
    format!("{} {namespace}/{name}", K::KIND)
}

/// Looks at all resources of a kind whenever something happens to them, for ever.
pub(crate) async fn run<K: Managed>(controller: kube_runtime::Controller<K>, context: Arc<Context>) {
    let config = controller::Config::default().concurrency(AT_A_TIME);
    let metrics = context.metrics.clone();
    let looks = controller.with_config(config).run(look::<K>, pause::<K>, context);
    looks
        .for_each(|ended| {
            if let Err(controller::Error::QueueError(error)) = ended {
                metrics.watch_failed(K::KIND);
                tracing::warn!(kind = K::KIND, error = kube_watch::describe_watch(&error), "what happens is not seen; tried again");
            }
            std::future::ready(())
        })
        .await;
}

/// The resource that an object is of.
pub(crate) fn reference<K: Managed>(namespace: &str, name: &str) -> ObjectRef<K> {
    ObjectRef::new(name).within(namespace)
}

/// Conditions that go when nothing is installed any more.
pub(crate) const INSTALLED: [&str; 2] = [READY, SECURITY];
