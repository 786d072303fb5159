//! Windows of time and when they are due, as pure functions of a schedule, a cursor and the present time.
//!
//! A [`Schedule`] cuts time into windows of one interval, aligned to multiples of it that are counted from
//! 0001-01-01T00:00Z: hours and days fall where people expect them, weeks begin on Monday. The cursor is the exclusive end
//! of what has been taken over; the next window goes from there to the next boundary. So the windows of any history touch
//! each other: no gap and no overlap, also when the interval is edited (the first window after the edit is shorter and
//! leads back to the boundaries). A window is due once it has ended and the delay has passed, never before.
//!
//! What nobody has run yet is no list but the range from the cursor to now: however long an outage, nothing is forgotten
//! and nothing grows. [`Schedule::backlog`] counts it.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

mod query;
pub use query::{QueryWindow, query_window};

/// The smallest step of a Kusto datetime in nanoseconds.
const TICK: i128 = 100;
const SECOND: i128 = 1_000_000_000;
/// 0001-01-01T00:00Z, from which boundaries are counted, in nanoseconds from 1970.
const ORIGIN: i128 = -62_135_596_800 * SECOND;
const HOUR: Duration = Duration::from_secs(3600);

/// How far back the work of a rule goes of which there is no record: whether it counts as new, and the longest window of a query
/// that catches up. An hour, or three intervals if these are longer.
pub fn look_back(interval: Duration) -> Duration {
    interval.saturating_mul(3).max(HOUR)
}

/// A span of time, `start` included and `end` not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// The first instant.
    pub start: Timestamp,
    /// The first instant after it.
    pub end: Timestamp,
}

impl Window {
    /// The last instant that Kusto can tell apart: one tick (100 ns) before the end. With it, `between (_startTime ..
    /// _endTime)` takes every instant once.
    pub fn last_tick(&self) -> Timestamp {
        time(self.end.as_nanosecond() - TICK)
    }

    /// The window that ends one tick after `last`, or at `last` if that is no last tick: the reference has written both.
    pub fn from_last_tick(start: Timestamp, last: Timestamp) -> Window {
        let nanoseconds = last.as_nanosecond();
        let is_last_tick = nanoseconds.div_euclid(TICK).rem_euclid(10) == 9;
        Window { start, end: if is_last_tick { time(nanoseconds + TICK) } else { last } }
    }

    /// Whether the two have an instant in common.
    pub fn overlaps(&self, other: &Window) -> bool {
        self.start < other.end && other.start < self.end
    }
}

impl fmt::Display for Window {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "[{}, {})", self.start, self.end)
    }
}

/// Why a schedule cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The interval is no time at all.
    #[error("the interval is zero: give a duration such as 5m or 1h")]
    Zero,
    /// The times of a status have no fractions of a second.
    #[error("the interval of {0:?} is no whole number of seconds: give a duration such as 30s, 5m or 1h")]
    Fraction(Duration),
    /// Longer than time.
    #[error("{0:?} is too long: give a duration such as 1h or 24h")]
    TooLong(Duration),
}

/// How time is cut into windows, and how long after its end a window is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Nanoseconds, positive.
    interval: i128,
    /// Nanoseconds.
    delay: i128,
}

impl Schedule {
    /// A schedule of windows of `interval`, each due `delay` after its end.
    ///
    /// # Errors
    /// If `interval` is zero or has a fraction of a second, or either is longer than a thousand years.
    pub fn new(interval: Duration, delay: Duration) -> Result<Schedule, ScheduleError> {
        const LONGEST: Duration = Duration::from_secs(1000 * 366 * 86_400);
        if let Some(long) = [interval, delay].into_iter().find(|d| *d > LONGEST) {
            return Err(ScheduleError::TooLong(long));
        }
        let nanoseconds = |d: Duration| i128::try_from(d.as_nanos()).unwrap_or(i128::MAX);
        match nanoseconds(interval) {
            0 => Err(ScheduleError::Zero),
            n if n % SECOND != 0 => Err(ScheduleError::Fraction(interval)),
            interval => Ok(Schedule { interval, delay: nanoseconds(delay) }),
        }
    }

    /// The length of a full window.
    pub fn interval(&self) -> Duration {
        Duration::from_nanos_u128(self.interval.unsigned_abs())
    }

    /// The last boundary at or before `at`.
    pub fn floor(&self, at: Timestamp) -> Timestamp {
        time(self.floor_nanoseconds(at.as_nanosecond()))
    }

    fn floor_nanoseconds(&self, at: i128) -> i128 {
        at - (at - ORIGIN).rem_euclid(self.interval)
    }

    /// The window of a rule that has run none: the latest that was due when the rule was `made`, if that is no longer ago than
    /// [`look_back`]. Whoever runs it then begins where one began that was lost before it could say so. Otherwise
    /// the latest that is due.
    pub fn first(&self, made: Option<Timestamp>, now: Timestamp) -> Window {
        let is_new = |made: &Timestamp| *made <= now && now <= after(*made, look_back(self.interval()));
        let from = made.filter(is_new).unwrap_or(now);
        let end = self.floor_nanoseconds(from.as_nanosecond() - self.delay);
        Window { start: time(end - self.interval), end: time(end) }
    }

    /// The window after the cursor: up to the next boundary. Nothing at the end of time.
    pub fn next(&self, cursor: Timestamp) -> Option<Window> {
        let end = self.floor_nanoseconds(cursor.as_nanosecond()) + self.interval;
        Some(Window { start: cursor, end: Timestamp::from_nanosecond(end).ok()? })
    }

    /// The window after the cursor that has nothing in common with those that are `taken`.
    pub fn next_free(&self, mut cursor: Timestamp, taken: impl IntoIterator<Item = Window> + Clone) -> Option<Window> {
        while let Some(covering) = taken.clone().into_iter().find(|w| w.start <= cursor && cursor < w.end) {
            cursor = covering.end;
        }
        let mut window = self.next(cursor)?;
        for other in taken {
            if other.overlaps(&window) {
                window.end = other.start;
            }
        }
        Some(window)
    }

    /// When a window is due.
    pub fn due_at(&self, window: &Window) -> Timestamp {
        time(window.end.as_nanosecond() + self.delay)
    }

    /// Whether a window has ended and the delay has passed.
    pub fn is_due(&self, window: &Window, now: Timestamp) -> bool {
        self.due_at(window) <= now
    }

    /// How many windows after the cursor are due.
    pub fn backlog(&self, cursor: Timestamp, now: Timestamp) -> u64 {
        let boundaries = |at: i128| (at - ORIGIN).div_euclid(self.interval);
        let due = boundaries(now.as_nanosecond() - self.delay) - boundaries(cursor.as_nanosecond());
        u64::try_from(due).unwrap_or(0)
    }

    /// How far behind `now` the end of what is complete is, not counting what is not due yet.
    pub fn lag(&self, complete_until: Timestamp, now: Timestamp) -> Duration {
        let due = self.floor_nanoseconds(now.as_nanosecond() - self.delay);
        Duration::from_nanos_u128((due - complete_until.as_nanosecond()).max(0).unsigned_abs())
    }
}

/// A time of so many nanoseconds, cut to the range of [`Timestamp`].
fn time(nanoseconds: i128) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds).unwrap_or(if nanoseconds < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// A time so much later, cut to the range of [`Timestamp`].
pub(crate) fn after(at: Timestamp, by: Duration) -> Timestamp {
    time(at.as_nanosecond().saturating_add(i128::try_from(by.as_nanos()).unwrap_or(i128::MAX)))
}

#[cfg(test)]
mod tests;
