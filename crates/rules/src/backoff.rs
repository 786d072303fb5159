//! Pauses before what failed is tried again: doubling, partly random so that many do not come back at once, and never
//! shorter than the service asks for.

use std::time::Duration;

/// Pauses that double from `first` to `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest pause after the first failure.
    pub first: Duration,
    /// No pause is longer, unless the service asks for more.
    pub longest: Duration,
}

impl Backoff {
    /// The pause after `failures` earlier failures in a row. Half of it is fixed, the other half times `random`, which is
    /// uniform in 0..1; `asked` is what the service asked for.
    #[must_use]
    pub fn pause(&self, failures: u32, asked: Option<Duration>, random: f64) -> Duration {
        let ceiling = self.first.saturating_mul(1 << failures.min(20)).min(self.longest);
        ceiling.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0)).max(asked.unwrap_or_default())
    }
}

/// A uniform number in 0..1.
#[must_use]
pub fn random_unit() -> f64 {
    // The first 48 bits of a version 4 UUID are random.
    (uuid::Uuid::new_v4().as_u128() >> 80) as f64 / (1u64 << 48) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_the_service_is_obeyed() {
        let (second, backoff) = (Duration::from_secs(1), Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(300) });
        let at = |failures| backoff.pause(failures, None, 1.0).as_secs();
        assert_eq!([at(0), at(1), at(4), at(9), at(60)], [1, 2, 16, 300, 300]);
        assert_eq!(backoff.pause(1, None, 0.0), second);
        assert_eq!(backoff.pause(0, Some(Duration::from_secs(900)), 1.0), Duration::from_secs(900));
        assert_eq!(backoff.pause(3, Some(second), 1.0), Duration::from_secs(8));
        let short = Backoff { first: second, longest: second / 2 };
        assert_eq!(short.pause(0, None, 1.0), second / 2);
    }

    #[test]
    fn random_numbers_are_units_and_differ() {
        let numbers = [(); 100].map(|()| random_unit());
        assert!(numbers.iter().all(|n| (0.0..1.0).contains(n)) && numbers[1..].iter().any(|n| *n != numbers[0]));
    }
}
