//! The time that schedules go by: the system's, or one that a test moves by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A source of wall-clock time.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The present time.
    fn now(&self) -> Timestamp;

    /// Returns when the clock shows `deadline` or later; at once if it does already.
    async fn sleep_until(&self, deadline: Timestamp);
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// The runtime's timers follow a monotonic clock, which neither counts a suspended machine nor sees the wall clock being
/// set. So sleeps look at the wall clock again after this long.
const LONGEST_NAP: Duration = Duration::from_secs(5);

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        while let Ok(left) = Duration::try_from(deadline.duration_since(Timestamp::now())) {
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LONGEST_NAP)).await;
        }
    }
}

/// A clock that stands still until it is moved. Clones share the time.
#[derive(Debug, Clone)]
pub struct ManualClock {
    state: Arc<Mutex<State>>,
    /// Somebody went to sleep.
    slept: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    now: Timestamp,
    next_id: u64,
    /// Who sleeps, by deadline.
    sleepers: BTreeMap<(Timestamp, u64), Arc<Notify>>,
}

impl ManualClock {
    /// A clock that shows `now`.
    pub fn new(now: Timestamp) -> Self {
        let state = State { now, next_id: 0, sleepers: BTreeMap::new() };
        Self { state: Arc::new(Mutex::new(state)), slept: Arc::default() }
    }

    /// Sets the time, forwards or backwards, and wakes whoever slept until then.
    pub fn set(&self, now: Timestamp) {
        let mut state = self.state.lock();
        state.now = now;
        let due = state.sleepers.range(..=(now, u64::MAX)).map(|(_, sleeper)| sleeper.clone()).collect::<Vec<_>>();
        drop(state);
        due.iter().for_each(|sleeper| sleeper.notify_one());
    }

    /// Moves the time on.
    ///
    /// # Panics
    /// Past the year 9999.
    pub fn advance(&self, by: Duration) {
        let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
        let now = self.now() + by;
        self.set(now);
    }

    /// Waits until somebody sleeps, and returns the earliest deadline.
    pub async fn next_deadline(&self) -> Timestamp {
        loop {
            let slept = self.slept.notified();
            if let Some((deadline, _)) = self.state.lock().sleepers.keys().next() {
                return *deadline;
            }
            slept.await;
        }
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state.lock().now
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        let (_sleeper, wake) = {
            let mut state = self.state.lock();
            if state.now >= deadline {
                return;
            }
            let wake = Arc::new(Notify::new());
            let key = (deadline, state.next_id);
            state.next_id += 1;
            state.sleepers.insert(key, wake.clone());
            (Sleeper { clock: self, key }, wake)
        };
        self.slept.notify_waiters();
        while self.now() < deadline {
            wake.notified().await;
        }
    }
}

/// Takes a sleeper off the list, also when its future is dropped.
struct Sleeper<'a> {
    clock: &'a ManualClock,
    key: (Timestamp, u64),
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.clock.state.lock().sleepers.remove(&self.key);
    }
}
