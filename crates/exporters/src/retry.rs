//! When to send a batch again: exponential back-off with jitter, never sooner than the receiver asked
//! for, and not for longer than the owner of the data can wait.

use std::time::Duration;

/// How patiently a batch is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Upper bound of the first pause; it doubles with each try.
    pub first_pause: Duration,
    /// No pause is longer, unless the receiver asks for more.
    pub longest_pause: Duration,
    /// No pause ends later than this after the first try.
    pub total: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy { first_pause: Duration::from_secs(1), longest_pause: Duration::from_secs(30), total: Duration::from_secs(120) }
    }
}

impl RetryPolicy {
    /// The pause after try number `tried`, or nothing when it is time to give up. `random` is in 0..=1.
    pub(crate) fn pause(&self, tried: u32, asked: Option<Duration>, spent: Duration, random: f64) -> Option<Duration> {
        let doubled = self.first_pause.saturating_mul(1 << tried.saturating_sub(1).min(16));
        // Half fixed, half random: spreads senders without ever hammering.
        let pause = doubled.min(self.longest_pause).mul_f64(0.5 + 0.5 * random).max(asked.unwrap_or_default());
        (spent.saturating_add(pause) <= self.total).then_some(pause)
    }
}

/// A number in 0..=1 from the operating system's randomness.
pub(crate) fn random_unit() -> f64 {
    f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 255.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_obey_the_receiver_and_end() {
        let seconds = Duration::from_secs;
        let policy = RetryPolicy { first_pause: seconds(1), longest_pause: seconds(3), total: seconds(60) };
        let pause = |tried, asked, spent| policy.pause(tried, asked, seconds(spent), 1.0);
        assert_eq!([1, 2, 3, 40].map(|tried| pause(tried, None, 0)), [1, 2, 3, 3].map(|s| Some(seconds(s))));
        assert_eq!(policy.pause(1, None, seconds(0), 0.0), Some(Duration::from_millis(500)));
        assert_eq!(pause(1, Some(seconds(30)), 0), Some(seconds(30)));
        assert_eq!(pause(1, Some(seconds(30)), 31), None);
        assert_eq!(pause(1, Some(Duration::MAX), 0), None);
    }
}
