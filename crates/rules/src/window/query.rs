//! The window of a query that looks at what is new, such as an alert's.

use std::time::Duration;

use jiff::Timestamp;

use super::{Window, after, look_back, time};

/// What a periodic query has to look at now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryWindow {
    /// Nothing before that time.
    Wait(Timestamp),
    /// A window.
    Run {
        /// What to look at.
        window: Window,
        /// What will never be looked at, because it lies too far back.
        skipped: Option<Window>,
    },
}

/// The window from the end of the last success until now, once `interval` has passed since.
///
/// Without a success before, and after the clock has been set back by more than an interval, it is the last `interval`.
/// Downtime is caught up with in one window that is never longer than [`look_back`], so that a run that is late or has failed
/// loses nothing; what lies before is named as skipped. `last_end` moves on only with
/// success, so a window that failed is part of the next one.
pub fn query_window(last_end: Option<Timestamp>, interval: Duration, now: Timestamp) -> QueryWindow {
    let span = |length: Duration| i128::try_from(length.as_nanos()).unwrap_or(i128::MAX);
    let back = |by: Duration| time(now.as_nanosecond().saturating_sub(span(by)));
    let fresh = QueryWindow::Run { window: Window { start: back(interval), end: now }, skipped: None };
    let Some(last_end) = last_end else { return fresh };
    let due = after(last_end, interval);
    if now < due {
        // An end that far ahead was written under another time: waiting for it would silence the query.
        return if last_end > after(now, interval) { fresh } else { QueryWindow::Wait(due) };
    }
    let start = last_end.max(back(look_back(interval)));
    let skipped = (start > last_end).then_some(Window { start: last_end, end: start });
    QueryWindow::Run { window: Window { start, end: now }, skipped }
}
