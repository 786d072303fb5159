//! The clock that uploads go by: the system's, or one that a test moves by hand.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rules::clock::{Clock, SystemClock};

/// A clock in milliseconds since 1970, as the store's times are.
#[derive(Clone)]
pub struct Time(Arc<dyn Clock>);

impl Time {
    /// As `clock` has it.
    pub fn of(clock: Arc<dyn Clock>) -> Time {
        Time(clock)
    }

    /// The present time.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.0.now().as_millisecond()).unwrap_or(0)
    }

    /// Returns when it is `ms` or later.
    pub(crate) async fn sleep_until(&self, ms: u64) {
        let deadline = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        self.0.sleep_until(deadline.unwrap_or(Timestamp::MAX)).await;
    }

    /// Returns after this long.
    pub(crate) async fn sleep(&self, long: Duration) {
        self.sleep_until(self.now_ms().saturating_add(long.as_millis() as u64)).await;
    }
}

impl Default for Time {
    fn default() -> Time {
        Time(Arc::new(SystemClock))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Time").field(&self.0.now()).finish()
    }
}
