//! Metrics of summary rules: how far behind each is, and what becomes of windows.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::store::Key;
use crate::summary::machine::Outcome;
use crate::summary::state::State;

type Rule = [(&'static str, String); 2];

/// Metrics of summary rules. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    lag: Family<Rule, Gauge<f64, AtomicU64>>,
    backlog: Family<Rule, Gauge>,
    failed: Family<Rule, Gauge>,
    windows: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Metrics {
    /// Puts them into a registry, as `adxmon_summaryrule_…`.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("adxmon_summaryrule");
        r.register("lag_seconds", "How far the complete windows of a rule are behind those that are due", self.lag.clone());
        r.register("backlog_windows", "Windows of a rule that are due and not in the table", self.backlog.clone());
        r.register("failed_windows", "Windows of a rule that have failed and are not in the table", self.failed.clone());
        r.register("windows", "Windows by outcome: submitted, refused, completed, retried, failed", self.windows.clone());
    }

    pub(crate) fn rule(&self, key: &Key, state: &State, lag: Duration) {
        let rule = labels(key);
        self.lag.get_or_create(&rule).set(lag.as_secs_f64());
        self.backlog.get_or_create(&rule).set(state.backlog);
        self.failed.get_or_create(&rule).set(state.failed.len() as i64);
    }

    /// Forgets a rule that is gone.
    pub(crate) fn remove(&self, key: &Key) {
        let rule = labels(key);
        self.lag.remove(&rule);
        self.backlog.remove(&rule);
        self.failed.remove(&rule);
    }

    pub(crate) fn outcome(&self, outcome: &Outcome) {
        let name = match outcome {
            Outcome::Submitted => "submitted",
            Outcome::Refused => "refused",
            Outcome::Completed(_) => "completed",
            Outcome::Retried => "retried",
            Outcome::Failed(..) => "failed",
        };
        self.windows.get_or_create(&[("outcome", name)]).inc();
    }
}

fn labels(key: &Key) -> Rule {
    [("namespace", key.namespace.clone()), ("name", key.name.clone())]
}
