//! Memory for request bodies: how much all of them together may take.
//!
//! Every body is charged for what it holds, on the wire and inflated, until its rows are stored, so that neither
//! many connections, nor slow storage, nor small bodies that inflate to large ones fill memory. A body that finds no
//! room within a few seconds is refused for now; bodies that wait hold room themselves, so waiting without end could
//! be waiting for each other.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::BodyError;

/// Bytes of request bodies that may be in memory at a time, over all listeners of the process.
const ALL_BODIES: usize = 256 << 20;

/// Room is given in units of this many bytes.
const UNIT: usize = 4 << 10;

/// How long a body waits for room.
const PATIENCE: Duration = Duration::from_secs(3);

static UNITS: Semaphore = Semaphore::const_new(ALL_BODIES / UNIT);

/// What one request body takes; given back when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    from: Option<&'static Semaphore>,
    patience: Duration,
    held: Option<SemaphorePermit<'static>>,
}

impl Room {
    /// A place among the bodies of the process, which takes nothing yet.
    pub(crate) fn new() -> Self {
        Room { from: Some(&UNITS), patience: PATIENCE, held: None }
    }

    /// Room for bodies that somebody else bounds.
    pub(crate) fn unlimited() -> Self {
        Room { from: None, patience: PATIENCE, held: None }
    }

    /// Makes it hold at least `bytes`.
    ///
    /// # Errors
    /// [`BodyError::Busy`] when there is no room for long.
    pub(crate) async fn grow_to(&mut self, bytes: usize) -> Result<(), BodyError> {
        let Some(semaphore) = self.from else { return Ok(()) };
        let held = self.held.as_ref().map_or(0, SemaphorePermit::num_permits);
        let Some(missing @ 1..) = bytes.div_ceil(UNIT).checked_sub(held) else { return Ok(()) };
        let missing = u32::try_from(missing).map_err(|_| BodyError::Busy)?;
        let more = match semaphore.try_acquire_many(missing) {
            Ok(more) => more,
            Err(_) => match tokio::time::timeout(self.patience, semaphore.acquire_many(missing)).await {
                Ok(Ok(more)) => more,
                _ => return Err(BodyError::Busy),
            },
        };
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Room {
        /// Room of its own, for tests.
        pub(crate) fn of_bytes(bytes: usize) -> Self {
            of(Box::leak(Box::new(Semaphore::new(bytes / UNIT))), Duration::from_millis(10))
        }
    }

    fn of(semaphore: &'static Semaphore, patience: Duration) -> Room {
        Room { from: Some(semaphore), patience, held: None }
    }

    #[tokio::test]
    async fn what_is_taken_comes_back_and_a_full_house_is_busy() {
        static TEN: Semaphore = Semaphore::const_new(10);
        let soon = Duration::from_millis(10);
        let (mut one, mut two) = (of(&TEN, soon), of(&TEN, soon));
        one.grow_to(7 * UNIT).await.unwrap();
        one.grow_to(UNIT).await.unwrap();
        two.grow_to(2 * UNIT + 1).await.unwrap();
        assert_eq!(TEN.available_permits(), 0);
        assert!(matches!(two.grow_to(4 * UNIT).await, Err(BodyError::Busy)));
        drop(one);
        two.grow_to(10 * UNIT).await.unwrap();
        drop(two);
        assert_eq!(TEN.available_permits(), 10);
    }

    #[tokio::test]
    async fn a_waiting_body_goes_on_when_another_ends() {
        static TEN: Semaphore = Semaphore::const_new(10);
        let (mut one, mut two) = (of(&TEN, Duration::MAX), of(&TEN, Duration::MAX));
        one.grow_to(8 * UNIT).await.unwrap();
        let mut waiting = std::pin::pin!(two.grow_to(5 * UNIT));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(one);
        waiting.await.unwrap();
    }
}
