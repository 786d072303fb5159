//! When a target is scraped.
//!
//! Each has a place of its own in the interval, a hash of its URL and of the node: targets are spread, and one that is
//! scraped every minute is scraped at the same second of the minute after a restart.

use std::time::Duration;

/// From `now_ms` to the next scrape.
pub(super) fn delay(url: &str, node: &str, interval: Duration, now_ms: i64) -> Duration {
    let interval = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
    let hash = xxhash_rust::xxh3::xxh3_64_with_seed(url.as_bytes(), xxhash_rust::xxh3::xxh3_64(node.as_bytes()));
    let place = (hash % interval.unsigned_abs()).cast_signed();
    Duration::from_millis((place - now_ms.rem_euclid(interval)).rem_euclid(interval).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_changes_nothing_and_targets_are_spread() {
        let interval = Duration::from_secs(30);
        let at = |url: &str, now: i64| (now + i64::try_from(delay(url, "n1", interval, now).as_millis()).unwrap()).rem_euclid(30_000);
        let places: Vec<i64> = (0..1000).map(|i| at(&format!("http://10.0.0.{i}:80/metrics"), 1_700_000_000_000)).collect();
        for (i, place) in places.iter().enumerate() {
            for now in [1_700_000_000_001, 1_700_000_012_345, 1_700_099_999_999, -5] {
                assert_eq!(at(&format!("http://10.0.0.{i}:80/metrics"), now), *place);
            }
        }
        // A thousand balls in ten boxes: each within a half of the mean, which chance misses once in 10^7 times.
        for tenth in 0..10 {
            let here = places.iter().filter(|place| **place / 3000 == tenth).count();
            assert!((50..150).contains(&here), "{here} in tenth {tenth}");
        }
        assert_ne!(delay("u", "n1", interval, 0), delay("u", "n2", interval, 0));
    }
}
