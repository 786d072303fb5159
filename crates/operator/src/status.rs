//! What the operator says of a resource: conditions, generation, how many pods are ready.

use crds::Condition;
use crds::conditions::{self, Desired, Truth};
use jiff::Timestamp;
use serde_json::Value;

/// Pods of one or several workloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// How many there shall be.
    pub wanted: i32,
    /// How many are ready.
    pub ready: i32,
    /// Whether all are ready and as the spec has them now.
    pub rolled_out: bool,
}

impl Pods {
    /// Of a StatefulSet, DaemonSet or Deployment as the API server has it.
    pub fn of(workload: &Value) -> Self {
        let number = |path: &str| workload.pointer(path).and_then(Value::as_i64).and_then(|number| i32::try_from(number).ok());
        let status = |name: &str| number(&format!("/status/{name}")).unwrap_or_default();
        let seen = workload.pointer("/status/observedGeneration").and_then(Value::as_i64).unwrap_or_default();
        let current = seen >= workload.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default();
        let (wanted, ready, updated) = match workload["kind"].as_str() {
            Some("DaemonSet") => (status("desiredNumberScheduled"), status("numberReady"), status("updatedNumberScheduled")),
            _ => (number("/spec/replicas").unwrap_or(1), status("readyReplicas"), status("updatedReplicas")),
        };
        Self { wanted, ready, rolled_out: current && ready >= wanted && updated >= wanted }
    }

    /// Of all of them.
    pub fn sum(pods: impl IntoIterator<Item = Pods>) -> Self {
        let none = Self { rolled_out: true, ..Self::default() };
        pods.into_iter().fold(none, |sum, pods| Self {
            wanted: sum.wanted + pods.wanted,
            ready: sum.ready + pods.ready,
            rolled_out: sum.rolled_out && pods.rolled_out,
        })
    }
}

/// One condition as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Status.
    pub status: Truth,
    /// One word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Verdict {
    /// A verdict.
    pub fn new(status: Truth, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into() }
    }

    /// Writes it down; whether that changed anything.
    pub fn set(&self, type_: &str, generation: Option<i64>, conditions: &mut Vec<Condition>, now: Timestamp) -> bool {
        let desired = Desired { type_, status: self.status, reason: self.reason, message: &self.message, observed_generation: generation };
        conditions::set(conditions, &desired, now)
    }
}

/// Condition about readiness, beside the one of the owner.
pub const READY: &str = "Ready";
/// Condition about rights, with the reasons of the reference.
pub const SECURITY: &str = "SecurityReady";

/// What the owner condition says once everything is applied.
pub fn installed(pods: Pods) -> Verdict {
    if pods.rolled_out {
        return Verdict::new(Truth::True, "Ready", format!("{} of {} pods are ready", pods.ready, pods.wanted));
    }
    Verdict::new(
        Truth::True,
        "WaitForReady",
        format!("installed; {} of {} pods are ready and as the spec has them", pods.ready, pods.wanted),
    )
}

/// What `Ready` says then.
pub fn ready(pods: Pods) -> Verdict {
    let (status, reason) = if pods.rolled_out { (Truth::True, "Ready") } else { (Truth::False, "WaitForReady") };
    Verdict::new(status, reason, format!("{} of {} pods are ready", pods.ready, pods.wanted))
}
