//! What happened in the world that rules look at, and what their windows have to be.

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;
use rules::window::{Schedule, Window};

/// There is an event at each multiple of so many nanoseconds since 1970; the factor is its number.
const EVERY: i128 = 700_000_000;

/// Numbers of the events within a window.
pub(crate) fn events(window: &Window) -> Range<i64> {
    let first = |at: Timestamp| i64::try_from((at.as_nanosecond() + EVERY - 1).div_euclid(EVERY)).unwrap();
    first(window.start)..first(window.end)
}

/// Fails unless the windows are all those of the schedule from the first of them on, each once.
pub(crate) fn assert_every_window_once(what: &str, windows: &[Window], interval: Duration) {
    let schedule = Schedule::new(interval, Duration::ZERO).unwrap();
    let mut sorted = windows.to_vec();
    sorted.sort();
    for window in &sorted {
        assert_eq!(Some(*window), schedule.next(schedule.floor(window.start)), "{what}: no window of its schedule");
    }
    for pair in sorted.windows(2) {
        assert_eq!(pair[0].end, pair[1].start, "{what}: after {} comes {}", pair[0], pair[1]);
    }
}
