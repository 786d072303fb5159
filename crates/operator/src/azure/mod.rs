//! Clusters in Azure, made and changed over Resource Manager.
//!
//! A step reads how things are in Azure, does what can be done at once, and says when to look again. What is under way is known
//! to Azure, so that an operator that is restarted goes on where it was; what is kept here only spares Azure questions:
//! operations that were accepted, and until when nothing need be asked. Nothing in Azure is deleted, and a cluster is made
//! with `If-None-Match: *`, so that none that exists is ever overwritten.

mod steps;
pub mod wanted;

use std::collections::HashMap;
use std::time::Duration;

use azure_arm::{Arm, Error, Kind, Operation};
use crds::conditions::{self, Truth};
use crds::{AdxCluster, AppliedProvisionState};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::reconcile::{Provisioned, Provisioner};
use crate::status::Verdict;
use wanted::Wanted;

/// Longest step; a look at a resource may take a minute.
const STEP: Duration = Duration::from_secs(50);
/// How often a cluster is looked at that is as it shall be.
const STEADY: Duration = Duration::from_secs(600);
/// Pause before something is tried again that Azure has refused, or failed at.
const AFTER_REFUSAL: Duration = Duration::from_secs(300);
/// First and longest pause after failures that pass by themselves.
const PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// Clusters that something is remembered of.
const MOST: usize = 4096;

/// Makes clusters over Resource Manager.
#[derive(Debug)]
pub struct Azure {
    arm: Arm,
    memories: Mutex<HashMap<String, Memory>>,
    /// Subscriptions that Azure wants to be spared, and until when.
    throttled: Mutex<HashMap<String, Instant>>,
}

/// What is known of a cluster beyond what Azure says. It may be lost at any time.
#[derive(Debug, Default)]
struct Memory {
    of: Version,
    /// What was said last, and until when that will do.
    last: Option<(Provisioned, Instant)>,
    /// Accepted by Azure, and not over when last asked for.
    operations: Vec<Operation>,
    /// Failures in a row that pass by themselves.
    failures: u32,
    /// When Azure was last seen to have failed at something.
    failed: Option<Instant>,
    /// When Azure accepted to make the cluster.
    made: Option<Instant>,
    /// URL of the cluster.
    endpoint: Option<String>,
}

/// What is asked for: the generation, and the databases that a hub needs beside those of the spec count too.
type Version = (Option<i64>, usize);

fn version(cluster: &AdxCluster) -> Version {
    (cluster.metadata.generation, cluster.spec.databases.len())
}

/// How a cluster is found.
#[derive(Debug)]
enum Found {
    /// As it shall be, but for what was changed by hand.
    Ready { applied: AppliedProvisionState, by_hand: Vec<String> },
    /// There, and not for us to see.
    Restricted(Error),
    /// Something is under way, or waited for.
    Pending { message: String, again: Duration },
    /// Azure does not take the spec.
    Invalid(String),
    /// Somebody else has the name.
    NameTaken,
    /// Azure failed at something.
    Failed(Error),
}

impl Azure {
    /// Over this client.
    #[must_use]
    pub fn new(arm: Arm) -> Self {
        Self { arm, memories: Mutex::default(), throttled: Mutex::default() }
    }
}

impl Provisioner for Azure {
    fn step<'a>(&'a self, cluster: &'a AdxCluster) -> BoxFuture<'a, Provisioned> {
        Box::pin(async move {
            let wanted = match Wanted::of(cluster) {
                Ok(wanted) => wanted,
                Err(why) => return stop(Verdict::new(Truth::False, "ProvisioningInvalid", why)),
            };
            let meta = &cluster.metadata;
            let key = [&meta.namespace, &meta.name, &meta.uid].map(|part| part.as_deref().unwrap_or_default()).join("/");
            let mut memory = self.memories.lock().remove(&key).unwrap_or_default();
            let provisioned = match self.is_enough(&memory, cluster, &wanted) {
                Some(provisioned) => provisioned,
                None => self.look(cluster, &wanted, &mut memory).await,
            };
            self.keep(key, memory);
            provisioned
        })
    }
}

impl Azure {
    /// What was said last, if it is too early to ask Azure. A changed spec does not wait, unless Azure asked for it.
    fn is_enough(&self, memory: &Memory, cluster: &AdxCluster, wanted: &Wanted) -> Option<Provisioned> {
        let now = Instant::now();
        let throttled = self.throttled.lock().get(&wanted.id.subscription).copied();
        let must_wait = memory.of == version(cluster) || !memory.operations.is_empty();
        let said = memory.last.as_ref().map(|(_, until)| *until).filter(|_| must_wait);
        let until = throttled.into_iter().chain(said).max().filter(|until| now < *until)?;
        let last = match &memory.last {
            Some((last, _)) => last.clone(),
            None => {
                let spared = || under_way(cluster, "Azure is asked later: it gets too many requests in this subscription".to_owned());
                stop(still_true(cluster).unwrap_or_else(spared))
            }
        };
        Some(Provisioned { again: Some(until - now), ..last })
    }

    fn keep(&self, key: String, memory: Memory) {
        let mut memories = self.memories.lock();
        if memories.len() >= MOST {
            tracing::warn!(clusters = MOST, "what is remembered of clusters in Azure is forgotten; each is read again");
            memories.clear();
        }
        memories.insert(key, memory);
    }

    async fn look(&self, cluster: &AdxCluster, wanted: &Wanted, memory: &mut Memory) -> Provisioned {
        let status = cluster.status.clone().unwrap_or_default();
        let before = status.applied_provision_state.unwrap_or_default();
        let found = match tokio::time::timeout(STEP, self.go_on(wanted, &before, memory)).await {
            Ok(found) => found,
            Err(_) => Err(late()),
        };
        let mut provisioned = match found {
            Ok(found) => judge(cluster, found, memory),
            Err(error) => self.explain(cluster, wanted, error, memory),
        };
        // None of the operations is asked for before its time, whatever came between.
        provisioned.again = memory.operations.iter().map(|operation| operation.retry_after).chain(provisioned.again).max();
        let until = provisioned.again.map(|again| Instant::now() + again);
        memory.of = version(cluster);
        memory.last = until.map(|until| (provisioned.clone(), until));
        provisioned
    }

    /// What a request that was not carried out means for the cluster.
    fn explain(&self, cluster: &AdxCluster, wanted: &Wanted, error: Error, memory: &mut Memory) -> Provisioned {
        let name = cluster.metadata.name.as_deref().unwrap_or_default();
        tracing::warn!(cluster = name, kind = ?error.kind, %error, "Azure did not do what was asked for; tried again");
        let refused = |reason, message: String| Provisioned {
            verdict: Verdict::new(Truth::False, reason, message),
            endpoint: memory.endpoint.clone(),
            applied: None,
            again: Some(error.retry_after.unwrap_or(AFTER_REFUSAL).max(AFTER_REFUSAL)),
        };
        match error.kind {
            Kind::Credentials => Provisioned { again: Some(PAUSE.1 / 5), ..refused("NoCredentials", error.to_string()) },
            Kind::Forbidden => refused("PermissionDenied", error.to_string()),
            Kind::Quota => refused("QuotaExceeded", error.to_string()),
            Kind::NotFound if error.code.starts_with("Subscription") => refused("ProvisioningInvalid", error.to_string()),
            Kind::NotFound | Kind::Refused => refused("Failed", error.to_string()),
            Kind::Conflict | Kind::Changed | Kind::Throttled | Kind::Transient => {
                memory.failures = memory.failures.saturating_add(1);
                let pause = (PAUSE.0 * 2u32.pow(memory.failures.min(10) - 1)).min(PAUSE.1);
                let pause = error.retry_after.map_or(pause, |asked| asked.max(PAUSE.0));
                if error.kind == Kind::Throttled {
                    self.spare(&wanted.id.subscription, Instant::now() + pause);
                }
                let verdict = still_true(cluster).unwrap_or_else(|| under_way(cluster, error.to_string()));
                Provisioned { verdict, endpoint: memory.endpoint.clone(), applied: None, again: Some(pause) }
            }
        }
    }

    fn spare(&self, subscription: &str, until: Instant) {
        let mut throttled = self.throttled.lock();
        let now = Instant::now();
        throttled.retain(|_, until| now < *until);
        throttled.insert(subscription.to_owned(), until);
    }
}

/// What is said of a cluster that was found.
fn judge(cluster: &AdxCluster, found: Found, memory: &mut Memory) -> Provisioned {
    memory.failures = 0;
    let endpoint = memory.endpoint.clone();
    let (verdict, applied, again) = match found {
        Found::Ready { applied, by_hand } => {
            memory.failed = None;
            let message = match by_hand.as_slice() {
                [] => "the cluster in Azure is as the spec has it".to_owned(),
                by_hand => format!("the cluster runs; left as it is in Azure, since it is not the operator's: {}", by_hand.join("; ")),
            };
            (Verdict::new(Truth::True, ready_reason(cluster), message), Some(applied), STEADY)
        }
        Found::Restricted(error) => {
            let message = format!(
                "the cluster is taken as it is, since it cannot be read: {error}; with the role Contributor on it, or spec.endpoint in place of spec.provision, nothing has to be guessed"
            );
            (Verdict::new(Truth::True, "PermissionRestricted", message), None, STEADY)
        }
        Found::Pending { message, again } => (under_way(cluster, message), None, again),
        Found::Invalid(message) => (Verdict::new(Truth::False, "ProvisioningInvalid", message), None, AFTER_REFUSAL),
        Found::NameTaken => {
            let name = &cluster.spec.cluster_name;
            let message = format!(
                "the name {name} is another cluster's, in another resource group or subscription: choose another spec.clusterName, or name its resource group"
            );
            (Verdict::new(Truth::False, "NameTaken", message), None, AFTER_REFUSAL / 5)
        }
        Found::Failed(error) => {
            let reason = if error.kind == Kind::Quota { "QuotaExceeded" } else { "Failed" };
            (
                Verdict::new(Truth::False, reason, format!("{error}; tried again in {} minutes", AFTER_REFUSAL.as_secs() / 60)),
                None,
                AFTER_REFUSAL,
            )
        }
    };
    let given = Some(&cluster.spec.endpoint).filter(|url| !url.is_empty() && verdict.reason == "PermissionRestricted");
    Provisioned { endpoint: endpoint.or_else(|| given.cloned()), verdict, applied, again: Some(again) }
}

/// `Complete` where an edit of a cluster that is ready asked for nothing.
fn ready_reason(cluster: &AdxCluster) -> &'static str {
    let conditions = cluster.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let before = conditions::get(conditions, CONDITION).filter(|condition| condition.status == Truth::True.as_str());
    match before {
        Some(before) if before.observed_generation != cluster.metadata.generation || before.reason == "Complete" => "Complete",
        _ => "ClusterReady",
    }
}

/// What was said of this spec, if the cluster was ready: that Azure does not answer says nothing of the cluster.
fn still_true(cluster: &AdxCluster) -> Option<Verdict> {
    let conditions = &cluster.status.as_ref()?.conditions;
    let before = conditions::get(conditions, CONDITION)?;
    let is_current = before.status == Truth::True.as_str() && before.observed_generation == cluster.metadata.generation;
    let reason = ["ClusterReady", "Complete", "PermissionRestricted"].into_iter().find(|reason| *reason == before.reason)?;
    is_current.then(|| Verdict::new(Truth::True, reason, before.message.clone()))
}

/// `Creating` until the cluster was ready for the first time, then `Waiting`.
fn under_way(cluster: &AdxCluster, message: String) -> Verdict {
    let was_ready = cluster.status.as_ref().is_some_and(|status| status.applied_provision_state.is_some());
    Verdict::new(Truth::Unknown, if was_ready { "Waiting" } else { "Creating" }, message)
}

fn stop(verdict: Verdict) -> Provisioned {
    Provisioned { verdict, endpoint: None, applied: None, again: None }
}

fn late() -> Error {
    Error {
        doing: "looking at the cluster in Azure".to_owned(),
        kind: Kind::Transient,
        status: None,
        code: String::new(),
        message: format!("it took longer than {} s", STEP.as_secs()),
        retry_after: None,
    }
}

const CONDITION: &str = "adxcluster.adx-mon.azure.com";
