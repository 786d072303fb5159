//! The operator's own metrics.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::apply::Change;

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Handles of all metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    reconciliations: Family<Labels<2>, Counter>,
    duration: Family<Labels<1>, Histogram>,
    changes: Family<Labels<1>, Counter>,
    watch_errors: Family<Labels<1>, Counter>,
    federation_rounds: Family<Labels<2>, Counter>,
    leading: Gauge,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let buckets = || Histogram::new([0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]);
        let metrics = Self {
            reconciliations: Family::default(),
            duration: Family::new_with_constructor(buckets),
            changes: Family::default(),
            watch_errors: Family::default(),
            federation_rounds: Family::default(),
            leading: Gauge::default(),
        };
        let r = registry.sub_registry_with_prefix("adxmon_operator");
        r.register("reconciliations", "Looks at a resource, by kind and outcome.", metrics.reconciliations.clone());
        r.register("reconciliation_duration_seconds", "How long they took.", metrics.duration.clone());
        r.register("changes", "Objects that were brought to what they shall be, by what was done.", metrics.changes.clone());
        r.register("watch_errors", "Watches that failed and were begun again, by kind of the resource.", metrics.watch_errors.clone());
        r.register("federation_rounds", "Rounds of a federation, by role and outcome.", metrics.federation_rounds.clone());
        r.register("leading", "1 for the one of several operators that acts.", metrics.leading.clone());
        metrics
    }

    pub(crate) fn reconciled(&self, kind: &'static str, outcome: &'static str, took: Duration) {
        self.reconciliations.get_or_create(&[("kind", kind), ("outcome", outcome)]).inc();
        self.duration.get_or_create(&[("kind", kind)]).observe(took.as_secs_f64());
    }

    pub(crate) fn changed(&self, change: Change) {
        if change != Change::None {
            self.changes.get_or_create(&[("action", change.name())]).inc();
        }
    }

    pub(crate) fn federated(&self, role: &'static str, outcome: &'static str) {
        self.federation_rounds.get_or_create(&[("role", role), ("outcome", outcome)]).inc();
    }

    pub(crate) fn watch_failed(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&[("kind", kind)]).inc();
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.leading.set(i64::from(leads));
    }
}
