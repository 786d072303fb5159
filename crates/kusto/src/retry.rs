//! When to try again: exponential back-off with full jitter between a floor and a ceiling, never
//! sooner than the service asked for, and never past the call's deadline.

use std::time::Duration;

use crate::error::Error;

/// How often and how patiently a call is repeated.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Tries in all; 1 means no retry.
    pub attempts: u32,
    /// Upper bound of the first pause; it doubles with each try.
    pub first_pause: Duration,
    /// No pause is longer, unless the service asks for more.
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy { attempts: 4, first_pause: Duration::from_millis(500), longest_pause: Duration::from_secs(20) }
    }
}

impl RetryPolicy {
    /// One try only: for callers that keep the work and schedule retries themselves.
    pub fn none() -> Self {
        RetryPolicy { attempts: 1, ..RetryPolicy::default() }
    }

    /// The pause before try `tried + 1`, or nothing if the call is to end with this error.
    /// `random` is uniform in 0..1.
    pub(crate) fn pause(&self, tried: u32, error: &Error, remaining: Duration, random: f64) -> Option<Duration> {
        if !error.is_transient() || tried >= self.attempts {
            return None;
        }
        let doubled = self.first_pause.saturating_mul(1u32 << (tried.saturating_sub(1)).min(16));
        let ceiling = doubled.min(self.longest_pause);
        // Half fixed, half random: spreads callers without ever hammering.
        let pause = ceiling.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0));
        let pause = pause.max(error.retry_after.unwrap_or_default());
        (pause < remaining).then_some(pause)
    }
}

/// A uniform number in 0..1 from the operating system's randomness.
pub(crate) fn random_unit() -> f64 {
    // The first 52 random bits of a version 4 UUID are free of its fixed bits up to bit 48.
    let bits = uuid::Uuid::new_v4().as_u128() >> 80;
    bits as f64 / (1u64 << 48) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Delivery;

    fn busy(retry_after: Option<Duration>) -> Error {
        Error { retry_after, ..Error::transient("X", Delivery::NotExecuted, "busy") }
    }

    #[test]
    fn pauses_double_up_to_the_ceiling_and_end_with_the_attempts() {
        let policy = RetryPolicy { attempts: 4, first_pause: Duration::from_secs(1), longest_pause: Duration::from_secs(3) };
        let hour = Duration::from_secs(3600);
        let at = |tried, random| policy.pause(tried, &busy(None), hour, random);
        assert_eq!(at(1, 1.0), Some(Duration::from_secs(1)));
        assert_eq!(at(1, 0.0), Some(Duration::from_millis(500)));
        assert_eq!(at(2, 1.0), Some(Duration::from_secs(2)));
        assert_eq!(at(3, 1.0), Some(Duration::from_secs(3)));
        assert_eq!(at(4, 1.0), None);
    }

    #[test]
    fn the_service_is_obeyed_and_the_deadline_kept() {
        let policy = RetryPolicy::default();
        let asked = busy(Some(Duration::from_secs(30)));
        assert_eq!(policy.pause(1, &asked, Duration::from_secs(60), 0.5), Some(Duration::from_secs(30)));
        assert_eq!(policy.pause(1, &asked, Duration::from_secs(29), 0.5), None);
    }

    #[test]
    fn permanent_errors_are_not_repeated() {
        let wrong = Error::invalid("SEM0100", "no");
        assert_eq!(RetryPolicy::default().pause(1, &wrong, Duration::MAX, 0.5), None);
    }

    #[test]
    fn random_numbers_are_units() {
        for _ in 0..1000 {
            assert!((0.0..1.0).contains(&random_unit()));
        }
    }
}
