//! Federations: partitions tell hubs what they have, and hubs answer queries for all of them.
//!
//! [`partition`] reads the schema of a cluster and writes it as a [`heartbeat`] into its hubs; [`hub`] reads heartbeats that
//! are fresh ([`topology`]) and runs what is missing ([`statements`]). A partition that is silent for longer than the hub's
//! time to live is in no entity group any more. [`Federations`] does this beside the looks at resources, so that no cluster
//! that hangs holds one up.

pub mod access;
pub mod heartbeat;
pub mod hub;
pub mod partition;
pub mod statements;
pub mod topology;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crds::conditions::Truth;
use crds::{AdxCluster, ClusterRole, Federation};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::status::Verdict;
use access::{Clients, Kusto};
use hub::Databases;

/// Condition about the federation.
pub const FEDERATION: &str = "FederationReady";
/// The database that is always there.
const DEFAULT_DATABASE: &str = "NetDefaultDB";
/// Between two rounds, and after one that failed, which doubles while it does.
const PERIOD: Duration = Duration::from_secs(600);
const AFTER_FAILURE: Duration = Duration::from_secs(60);
/// Longest round.
const ROUND: Duration = Duration::from_secs(540);
/// When to look again at a round that runs.
const RUNS: Duration = Duration::from_secs(3);
/// Failures that a condition names.
const NAMED: usize = 5;

/// What a round came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Of a hub: partitions with a fresh heartbeat, if they could be read.
    pub partitions: Option<usize>,
    /// Hubs that were told, or statements that ran.
    pub done: usize,
    /// What went wrong, each with its place.
    pub failures: Vec<String>,
    /// Databases that the hub lacks, and that a command cannot make.
    pub missing: Vec<String>,
}

impl Outcome {
    fn failed(why: String) -> Outcome {
        Outcome { failures: vec![why], ..Outcome::default() }
    }

    /// What the condition says of it.
    pub fn verdict(&self, role: ClusterRole) -> Verdict {
        let all = self.failures.len();
        let mut failures = self.failures[..all.min(NAMED)].join("; ");
        if all > NAMED {
            failures.push_str(&format!("; and {} more", all - NAMED));
        }
        let failed = |reason| Verdict::new(Truth::False, reason, failures.clone());
        match (role, self.partitions) {
            (ClusterRole::Federated, None) => failed("HubFailed"),
            (ClusterRole::Federated, Some(0)) => {
                let message = format!("no partition has a fresh heartbeat; what is there stays as it is. {failures}");
                Verdict::new(Truth::False, "NoHeartbeats", message.trim_end())
            }
            (ClusterRole::Federated, Some(_)) if all > 0 => failed("HubPartlyFailed"),
            (ClusterRole::Federated, Some(partitions)) => {
                Verdict::new(Truth::True, "HubReady", format!("queries reach {partitions} partitions"))
            }
            (ClusterRole::Partition, _) if all > 0 && self.done == 0 => failed("HeartbeatFailed"),
            (ClusterRole::Partition, _) if all > 0 => failed("HeartbeatPartlyFailed"),
            (ClusterRole::Partition, _) => Verdict::new(Truth::True, "HeartbeatSent", format!("{} hubs know this partition", self.done)),
        }
    }
}

/// What is missing in the spec of a cluster with a role.
///
/// # Errors
/// The fields.
fn settings(role: ClusterRole, federation: Option<&Federation>) -> Result<Federation, Verdict> {
    let federation = federation.cloned();
    let missing: Vec<&str> = match (&federation, role) {
        (None, _) => vec!["federation"],
        (Some(of), ClusterRole::Partition) => {
            let fields = [("federatedTargets", of.federated_targets.is_empty()), ("partitioning", of.partitioning.is_empty())];
            fields.into_iter().filter(|(_, missing)| *missing).map(|(name, _)| name).collect()
        }
        (Some(of), ClusterRole::Federated) => {
            let fields = [
                ("heartbeatDatabase", of.heartbeat_database.is_empty()),
                ("heartbeatTable", of.heartbeat_table.is_empty()),
                ("heartbeatTTL", of.heartbeat_ttl.is_empty()),
            ];
            fields.into_iter().filter(|(_, missing)| *missing).map(|(name, _)| name).collect()
        }
    };
    match federation {
        Some(federation) if missing.is_empty() => Ok(federation),
        _ => Err(Verdict::new(Truth::False, "FederationInvalid", format!("spec.federation lacks {}", missing.join(", ")))),
    }
}

/// The time, which tests set.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Rounds of all clusters with a role, each by itself. They end when this is dropped.
pub struct Federations {
    kusto: Arc<dyn Kusto>,
    now: Now,
    metrics: Option<Metrics>,
    rounds: Mutex<HashMap<String, Round>>,
}

impl fmt::Debug for Federations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Federations")
    }
}

/// The newest round of a cluster.
struct Round {
    /// What it was begun for.
    of: (Option<i64>, String),
    begun: Instant,
    task: JoinHandle<()>,
    ended: Arc<Mutex<Option<(Outcome, Instant)>>>,
    /// What the one before came to.
    before: Option<Verdict>,
    /// Rounds before it that failed, in a row.
    failed: u32,
}

impl Round {
    /// How it ended, if it did, and the pause that is left then.
    fn ended(&self, role: ClusterRole) -> Option<(Verdict, Duration)> {
        let (outcome, ended) = self.ended.lock().clone()?;
        let until = match outcome.failures.is_empty() {
            true => self.begun + PERIOD,
            false => ended + (AFTER_FAILURE * 2_u32.pow(self.failed.min(4))).min(PERIOD),
        };
        Some((outcome.verdict(role), until.saturating_duration_since(Instant::now())))
    }

    /// Rounds that failed in a row, with this one.
    fn failures(&self) -> u32 {
        match &*self.ended.lock() {
            Some((outcome, _)) if outcome.failures.is_empty() => 0,
            _ => self.failed.saturating_add(1),
        }
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Default for Federations {
    fn default() -> Self {
        Federations::new(Arc::new(Clients::default()), Arc::new(Timestamp::now))
    }
}

impl Federations {
    /// With that access to clusters, and that clock.
    pub fn new(kusto: Arc<dyn Kusto>, now: Now) -> Federations {
        Federations { kusto, now, metrics: None, rounds: Mutex::default() }
    }

    /// The same, with its rounds counted.
    pub(crate) fn counted(self, metrics: Metrics) -> Federations {
        Federations { metrics: Some(metrics), ..self }
    }

    /// Sees to the federation of a cluster that is ready at `endpoint`: what its condition says, none yet if it has just
    /// begun, and when to look again. A cluster without a role has no such condition.
    pub fn look(&self, key: &str, cluster: &AdxCluster, endpoint: &str) -> Option<(Option<Verdict>, Option<Duration>)> {
        let mut rounds = self.rounds.lock();
        let Some(role) = cluster.spec.role else {
            rounds.remove(key);
            return None;
        };
        let federation = match settings(role, cluster.spec.federation.as_ref()) {
            Ok(federation) => federation,
            Err(verdict) => {
                rounds.remove(key);
                return Some((Some(verdict), None));
            }
        };
        let of = (cluster.metadata.generation, endpoint.to_owned());
        let (mut before, mut failed) = (None, 0);
        if let Some(round) = rounds.get(key) {
            let (is_same, ended) = (round.of == of, round.ended(role));
            match &ended {
                None if is_same => return Some((round.before.clone(), Some(RUNS))),
                Some((verdict, left)) if is_same && !left.is_zero() => return Some((Some(verdict.clone()), Some(*left))),
                _ => {}
            }
            before = ended.map(|(verdict, _)| verdict).or_else(|| round.before.clone());
            // whoever changes the spec may have mended it
            failed = if is_same { round.failures() } else { 0 };
        }
        let databases = match (&cluster.spec.local, &cluster.spec.provision) {
            (Some(_), _) => Databases::ByCommand,
            (None, Some(_)) => Databases::InAzure,
            (None, None) => Databases::ByHand,
        };
        let mut round = self.begin(role, federation, databases, of);
        (round.before, round.failed) = (before.clone(), failed);
        rounds.insert(key.to_owned(), round);
        Some((before, Some(RUNS)))
    }

    /// Databases that a hub lacks, as its newest round has found.
    pub fn missing(&self, key: &str) -> Vec<String> {
        let rounds = self.rounds.lock();
        rounds.get(key).and_then(|round| round.ended.lock().as_ref().map(|(outcome, _)| outcome.missing.clone())).unwrap_or_default()
    }

    /// The cluster is gone, or not ready.
    pub fn forget(&self, key: &str) {
        self.rounds.lock().remove(key);
    }

    fn begin(&self, role: ClusterRole, federation: Federation, databases: Databases, of: (Option<i64>, String)) -> Round {
        let (kusto, now, ended) = (self.kusto.clone(), (self.now)(), Arc::new(Mutex::new(None)));
        let (endpoint, store, metrics) = (of.1.clone(), ended.clone(), self.metrics.clone());
        let task = tokio::spawn(async move {
            let round = async {
                match role {
                    ClusterRole::Partition => partition::tell(&*kusto, &endpoint, &federation, now).await,
                    ClusterRole::Federated => {
                        let hub = hub::Hub { kusto: &*kusto, endpoint: &endpoint, databases, now };
                        hub::federate(hub, &federation).await
                    }
                }
            };
            let late = || Outcome::failed(format!("it took longer than {} s", ROUND.as_secs()));
            let outcome = tokio::time::timeout(ROUND, round).await.unwrap_or_else(|_| late());
            if let Some(metrics) = metrics {
                let role = if role == ClusterRole::Partition { "partition" } else { "federated" };
                metrics.federated(role, if outcome.failures.is_empty() { "success" } else { "failure" });
            }
            for failure in &outcome.failures {
                tracing::warn!(cluster = endpoint, failure, "a part of the federation failed; tried again");
            }
            *store.lock() = Some((outcome, Instant::now()));
        });
        Round { of, begun: Instant::now(), task, ended, before: None, failed: 0 }
    }
}
