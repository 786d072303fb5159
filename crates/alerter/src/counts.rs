//! A line in the log every five minutes: what was done since the last one.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use rules::clock::Clock;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Metrics, Outcome};

/// Between two lines.
const PERIOD: SignedDuration = SignedDuration::from_mins(5);

/// What was done since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Evaluations, in the order of [`Outcome::ALL`].
    pub(crate) evaluations: [u64; Outcome::ALL.len()],
    /// Notifications that the receiver took.
    pub(crate) alerts: u64,
    /// Time of all evaluations.
    pub(crate) took: Duration,
}

impl Totals {
    /// What was done between an earlier look and this one.
    pub(crate) fn since(&self, before: &Totals) -> Totals {
        let mut evaluations = self.evaluations;
        evaluations.iter_mut().zip(before.evaluations).for_each(|(now, before)| *now = now.saturating_sub(before));
        Totals { evaluations, alerts: self.alerts.saturating_sub(before.alerts), took: self.took.saturating_sub(before.took) }
    }

    /// How many evaluations ended so.
    pub(crate) fn of(&self, outcome: Outcome) -> u64 {
        Outcome::ALL.iter().zip(self.evaluations).find(|(known, _)| **known == outcome).map_or(0, |(_, count)| count)
    }

    /// Mean time of an evaluation; zero without any.
    pub(crate) fn mean(&self) -> Duration {
        let count: u64 = self.evaluations.iter().sum();
        u32::try_from(count).ok().and_then(|count| self.took.checked_div(count)).unwrap_or_default()
    }
}

/// Logs until `shutdown`.
pub(crate) async fn log(metrics: Metrics, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
    let mut before = metrics.totals();
    loop {
        let next = clock.now().checked_add(PERIOD).unwrap_or(jiff::Timestamp::MAX);
        if shutdown.run_until_cancelled(clock.sleep_until(next)).await.is_none() {
            return;
        }
        let totals = metrics.totals();
        say(&totals.since(&before));
        before = totals;
    }
}

fn say(done: &Totals) {
    tracing::info!(
        success = done.of(Outcome::Success),
        setup_error = done.of(Outcome::SetupError),
        user_error = done.of(Outcome::UserError),
        service_error = done.of(Outcome::ServiceError),
        notification_throttled = done.of(Outcome::NotificationThrottled),
        alerts = done.alerts,
        mean_seconds = done.mean().as_secs_f64(),
        "evaluations in the last five minutes"
    );
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::state::Target;

    #[test]
    fn a_line_has_what_was_done_since_the_last_one() {
        let metrics = Metrics::register(&mut Registry::default(), "r");
        assert_eq!((metrics.totals(), metrics.totals().mean()), (Totals::default(), Duration::ZERO));
        metrics.evaluated("n/r", Outcome::Success, Duration::from_secs(9));
        metrics.delivered(Target::Receiver, "n/r");
        let before = metrics.totals();
        for (outcome, seconds) in [(Outcome::Success, 1), (Outcome::UserError, 2), (Outcome::Success, 6)] {
            metrics.evaluated("n/r", outcome, Duration::from_secs(seconds));
        }
        metrics.delivered(Target::Receiver, "n/r");
        metrics.delivered(Target::Alertmanager, "n/r");
        let done = metrics.totals().since(&before);
        let counts = Outcome::ALL.map(|outcome| (outcome.name(), done.of(outcome)));
        let expected = [("success", 2), ("setup_error", 0), ("user_error", 1), ("service_error", 0), ("notification_throttled", 0)];
        assert_eq!((counts, done.alerts, done.mean()), (expected, 1, Duration::from_secs(3)));
    }
}
