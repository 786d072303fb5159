//! The manual clock.

use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use rules::clock::{Clock as _, ManualClock, SystemClock};

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[tokio::test]
async fn sleepers_wake_at_their_time_and_not_before() {
    let clock = ManualClock::new(time("2025-01-01T00:00:00Z"));
    let deadline = time("2025-01-01T01:00:00Z");
    let sleeper = tokio::spawn({
        let clock = clock.clone();
        async move {
            clock.sleep_until(deadline).await;
            clock.now()
        }
    });
    assert_eq!(clock.next_deadline().await, deadline);
    clock.advance(Duration::from_secs(3599));
    tokio::task::yield_now().await;
    assert!(!sleeper.is_finished());
    clock.advance(Duration::from_secs(1));
    assert_eq!(sleeper.await.unwrap(), deadline);
}

#[tokio::test]
async fn a_dropped_sleep_is_no_deadline() {
    let clock = ManualClock::new(time("2025-01-01T00:00:00Z"));
    let early = clock.sleep_until(time("2025-01-01T00:01:00Z"));
    let late = clock.sleep_until(time("2025-01-01T00:02:00Z"));
    tokio::select! {
        biased;
        () = early => unreachable!(),
        () = late => unreachable!(),
        deadline = clock.next_deadline() => assert_eq!(deadline, time("2025-01-01T00:01:00Z")),
    }
    let late = clock.sleep_until(time("2025-01-01T00:03:00Z"));
    tokio::select! {
        biased;
        () = late => unreachable!(),
        deadline = clock.next_deadline() => assert_eq!(deadline, time("2025-01-01T00:03:00Z")),
    }
}

#[test]
fn the_system_clock_returns_at_once_for_times_past() {
    assert!(SystemClock.sleep_until(time("2001-01-01T00:00:00Z")).now_or_never().is_some());
}
