//! The alerter's own metrics. The names of the reference are kept; those of `rule_*` and `notifications_*` are ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::counts::Totals;
use crate::state::Target;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The query ran and its rows were kept for delivery.
    Success,
    /// The rule cannot run as it stands.
    SetupError,
    /// The query, its database or its result is wrong.
    UserError,
    /// Kusto, or the alerter itself, could not do its part.
    ServiceError,
    /// There were more rows than may become notifications.
    NotificationThrottled,
}

impl Outcome {
    /// All there are.
    pub const ALL: [Outcome; 5] =
        [Outcome::Success, Outcome::SetupError, Outcome::UserError, Outcome::ServiceError, Outcome::NotificationThrottled];

    /// The label's value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::SetupError => "setup_error",
            Outcome::UserError => "user_error",
            Outcome::ServiceError => "service_error",
            Outcome::NotificationThrottled => "notification_throttled",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabels {
    namespace: String,
    name: String,
}

type RuleGauge = Family<RuleLabels, Gauge>;
type Labelled<M> = Family<[(&'static str, &'static str); 1], M>;

/// Handles of all metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    health_check: Family<[(&'static str, String); 1], Gauge>,
    query_health: RuleGauge,
    queries_run: Counter,
    notification_unhealthy: RuleGauge,
    evaluation_duration: Histogram,
    evaluations: Labelled<Counter>,
    alerts_generated: Counter,
    rule_last_success: Family<RuleLabels, Gauge<f64, AtomicU64>>,
    windows_skipped: Counter,
    rules: Gauge,
    running: Gauge,
    unkept: Gauge,
    unconfirmed: Gauge,
    notifications_waiting: Labelled<Gauge>,
    notifications_oldest: Labelled<Gauge<f64, AtomicU64>>,
    notifications_delivered: Labelled<Counter>,
    notifications_failed: Labelled<Counter>,
    notifications_dropped: Counter,
    status_writes: Counter,
    queries_cut_off: Counter,
    channel_full: Labelled<Counter>,
    /// Nanoseconds of all evaluations: a histogram does not tell its sum.
    took: Arc<AtomicU64>,
    region: Arc<str>,
}

impl Metrics {
    /// Registers the metrics of an alerter in `region`.
    pub fn register(registry: &mut Registry, region: &str) -> Metrics {
        let buckets = [0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
        let m = Metrics {
            health_check: Family::default(),
            query_health: Family::default(),
            queries_run: Counter::default(),
            notification_unhealthy: Family::default(),
            evaluation_duration: Histogram::new(buckets),
            evaluations: Family::default(),
            alerts_generated: Counter::default(),
            rule_last_success: Family::default(),
            windows_skipped: Counter::default(),
            rules: Gauge::default(),
            running: Gauge::default(),
            unkept: Gauge::default(),
            unconfirmed: Gauge::default(),
            notifications_waiting: Family::default(),
            notifications_oldest: Family::default(),
            notifications_delivered: Family::default(),
            notifications_failed: Family::default(),
            notifications_dropped: Counter::default(),
            status_writes: Counter::default(),
            queries_cut_off: Counter::default(),
            channel_full: Family::default(),
            took: Arc::default(),
            region: region.into(),
        };
        // Outcomes that have not come yet are counted as zero, so that rates have a beginning.
        for outcome in Outcome::ALL {
            drop(m.evaluations.get_or_create(&[("outcome", outcome.name())]));
        }
        let r = registry.sub_registry_with_prefix("adxmon_alerter");
        r.register("health_check", "1 while the alerter schedules rules", m.health_check.clone());
        r.register("query_health", "1 if the rule's last query was answered, 0 if Kusto could not", m.query_health.clone());
        r.register("queries_run", "Queries that ended in success", m.queries_run.clone());
        r.register("notification_unhealthy", "1 if the rule's last delivery failed", m.notification_unhealthy.clone());
        r.register("alert_rule_evaluation_duration_seconds", "Time of an evaluation", m.evaluation_duration.clone());
        r.register("alert_rule_evaluations", "Evaluations by outcome", m.evaluations.clone());
        r.register("alerts_generated", "Notifications that the receiver took", m.alerts_generated.clone());
        r.register(
            "rule_last_success_timestamp_seconds",
            "End of the last window that the rule's query covered with success",
            m.rule_last_success.clone(),
        );
        r.register("windows_skipped", "Windows that lay too far back to be caught up with", m.windows_skipped.clone());
        r.register("rules", "Rules that are known", m.rules.clone());
        r.register("queries_running", "Queries that run now", m.running.clone());
        r.register("results_waiting", "Results of queries that are not kept yet; from 256 on no query starts", m.unkept.clone());
        r.register(
            "leads_unconfirmed",
            "1 while rules run here though the API server does not answer, so that another alerter may run them too",
            m.unconfirmed.clone(),
        );
        r.register("notifications_waiting", "Notifications that nobody has taken yet", m.notifications_waiting.clone());
        r.register(
            "notifications_oldest_timestamp_seconds",
            "When the oldest waiting notification was made; 0 if none waits",
            m.notifications_oldest.clone(),
        );
        r.register("notifications_delivered", "Notifications that a target took", m.notifications_delivered.clone());
        r.register("notifications_failed", "Tries of delivery that failed", m.notifications_failed.clone());
        r.register("notifications_dropped", "Notifications given up: too many, too old or refused", m.notifications_dropped.clone());
        r.register("status_writes", "Writes of a rule's status", m.status_writes.clone());
        r.register(
            "queries_cut_off",
            "Queries that took longer than quick ones get and run again among the slow ones",
            m.queries_cut_off.clone(),
        );
        r.register("channel_full", "How often a part had to wait since another was behind", m.channel_full.clone());
        m
    }

    /// The scheduler is alive.
    pub fn alive(&self, rules: usize, running: usize) {
        self.health_check.get_or_create(&[("location", self.region.to_string())]).set(1);
        self.rules.set(i64::try_from(rules).unwrap_or(i64::MAX));
        self.running.set(i64::try_from(running).unwrap_or(i64::MAX));
    }

    /// Results of so many queries are not kept yet.
    pub fn unkept(&self, results: usize) {
        self.unkept.set(i64::try_from(results).unwrap_or(i64::MAX));
    }

    /// Whether rules run here without an answer of the API server.
    pub fn unconfirmed(&self, unconfirmed: bool) {
        self.unconfirmed.set(unconfirmed.into());
    }

    /// A rule ran.
    pub fn evaluated(&self, rule: &str, outcome: Outcome, took: Duration) {
        self.evaluations.get_or_create(&[("outcome", outcome.name())]).inc();
        self.evaluation_duration.observe(took.as_secs_f64());
        self.took.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let health = match outcome {
            Outcome::Success | Outcome::UserError => Some(1),
            Outcome::ServiceError => Some(0),
            Outcome::SetupError | Outcome::NotificationThrottled => None,
        };
        if let Some(health) = health {
            self.query_health.get_or_create(&labels(rule)).set(health);
        }
        if outcome == Outcome::Success {
            self.queries_run.inc();
        }
    }

    /// What was done so far.
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            evaluations: Outcome::ALL.map(|outcome| self.evaluations.get_or_create(&[("outcome", outcome.name())]).get()),
            alerts: self.alerts_generated.get(),
            took: Duration::from_nanos(self.took.load(Ordering::Relaxed)),
        }
    }

    /// A rule has covered time up to `end`.
    pub fn covered(&self, rule: &str, end: jiff::Timestamp) {
        self.rule_last_success.get_or_create(&labels(rule)).set(seconds(end));
    }

    /// A window lay too far back.
    pub fn skipped(&self) {
        self.windows_skipped.inc();
    }

    /// A target took a notification.
    pub fn delivered(&self, target: Target, rule: &str) {
        self.notifications_delivered.get_or_create(&[("target", target.name())]).inc();
        self.notification_unhealthy.get_or_create(&labels(rule)).set(0);
        if target == Target::Receiver {
            self.alerts_generated.inc();
        }
    }

    /// A try of delivery failed.
    pub fn undelivered(&self, target: Target, rule: &str) {
        self.notifications_failed.get_or_create(&[("target", target.name())]).inc();
        self.notification_unhealthy.get_or_create(&labels(rule)).set(1);
    }

    /// A notification is given up.
    pub fn dropped(&self) {
        self.notifications_dropped.inc();
    }

    /// A status was written.
    pub fn status_written(&self) {
        self.status_writes.inc();
    }

    /// A query took longer than quick ones get.
    pub fn cut_off(&self) {
        self.queries_cut_off.inc();
    }

    /// A channel was full.
    pub fn full(&self, channel: &'static str) {
        self.channel_full.get_or_create(&[("channel", channel)]).inc();
    }

    /// How often a channel was full.
    #[cfg(test)]
    pub(crate) fn times_full(&self, channel: &'static str) -> u64 {
        self.channel_full.get_or_create(&[("channel", channel)]).get()
    }

    /// What waits in the outbox.
    pub fn waiting(&self, target: Target, waiting: crate::state::Waiting) {
        let label = [("target", target.name())];
        self.notifications_waiting.get_or_create(&label).set(i64::try_from(waiting.notifications).unwrap_or(i64::MAX));
        self.notifications_oldest.get_or_create(&label).set(waiting.oldest.map_or(0.0, seconds));
    }

    /// Removes the series of a rule that is gone.
    pub fn forget(&self, rule: &str) {
        let labels = labels(rule);
        self.query_health.remove(&labels);
        self.notification_unhealthy.remove(&labels);
        self.rule_last_success.remove(&labels);
    }
}

fn labels(rule: &str) -> RuleLabels {
    let (namespace, name) = rule.split_once('/').unwrap_or(("", rule));
    RuleLabels { namespace: namespace.to_owned(), name: name.to_owned() }
}

fn seconds(time: jiff::Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}
