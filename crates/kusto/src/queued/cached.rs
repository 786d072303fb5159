//! A value that the service gives out and that ends some time: asked for by one caller while the others wait or use the old
//! one, renewed early, kept while renewals fail.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::Error;
use crate::retry::random_unit;

/// The latest time of a renewal; the earliest is three quarters of it, so that a fleet does not ask at the same minute.
const LIFE: Duration = Duration::from_secs(3600);
/// How long an old value is used while renewals fail.
const LONGEST_LIFE: Duration = Duration::from_secs(10 * 3600);
/// When a failed renewal is tried again.
const PAUSE: Duration = Duration::from_secs(60);

pub(crate) struct Cached<T> {
    entry: Mutex<Option<Entry<T>>>,
    /// Held by the one who asks.
    asking: tokio::sync::Mutex<()>,
}

struct Entry<T> {
    value: Arc<T>,
    fetched: Instant,
    renew: Instant,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Entry<T> {
        Entry { value: self.value.clone(), fetched: self.fetched, renew: self.renew }
    }
}

impl<T> Default for Cached<T> {
    fn default() -> Cached<T> {
        Cached { entry: Mutex::new(None), asking: tokio::sync::Mutex::new(()) }
    }
}

impl<T> Cached<T> {
    /// The value; `ask` brings it when there is none or when it is time.
    pub(crate) async fn get(&self, ask: impl AsyncFnOnce() -> Result<T, Error>) -> Result<Arc<T>, Error> {
        let old = match self.current() {
            Some(entry) if Instant::now() < entry.renew => return Ok(entry.value),
            old => old,
        };
        let _one = match (self.asking.try_lock(), &old) {
            (Ok(one), _) => one,
            (Err(_), Some(old)) => return Ok(old.value.clone()),
            (Err(_), None) => self.asking.lock().await,
        };
        // somebody else may have asked in the meantime
        if let Some(entry) = self.current()
            && Instant::now() < entry.renew
        {
            return Ok(entry.value);
        }
        match (ask().await, old) {
            (Ok(value), _) => Ok(self.store(value)),
            (Err(error), Some(old)) if old.fetched.elapsed() < LONGEST_LIFE => {
                tracing::warn!(%error, "ingestion resources or token are not renewed; the old ones serve, and it is tried again");
                *self.entry.lock() = Some(Entry { renew: Instant::now() + PAUSE, ..old.clone() });
                Ok(old.value)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// A value other than `stale`, which was refused.
    pub(crate) async fn renewed(&self, stale: &Arc<T>, ask: impl AsyncFnOnce() -> Result<T, Error>) -> Result<Arc<T>, Error> {
        let _one = self.asking.lock().await;
        match self.current() {
            Some(entry) if !Arc::ptr_eq(&entry.value, stale) => Ok(entry.value),
            _ => Ok(self.store(ask().await?)),
        }
    }

    fn current(&self) -> Option<Entry<T>> {
        self.entry.lock().clone()
    }

    fn store(&self, value: T) -> Arc<T> {
        let now = Instant::now();
        let value = Arc::new(value);
        let renew = now + LIFE.mul_f64(0.75 + 0.25 * random_unit());
        *self.entry.lock() = Some(Entry { value: value.clone(), fetched: now, renew });
        value
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn failure() -> Error {
        Error::transient("TEST", crate::Delivery::NotExecuted, "away")
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_renewed_early_and_kept_while_renewals_fail() {
        let cached = Cached::default();
        let get = async |answer: Result<u32, Error>| cached.get(async || answer).await.map(|value| *value);
        assert!(get(Err(failure())).await.is_err());
        assert_eq!(get(Ok(1)).await.unwrap(), 1);
        tokio::time::advance(LIFE / 4 * 3 - Duration::from_secs(1)).await;
        assert_eq!(get(Ok(2)).await.unwrap(), 1, "before three quarters of its life");
        tokio::time::advance(LIFE / 4 + Duration::from_secs(1)).await;
        assert_eq!(get(Err(failure())).await.unwrap(), 1, "the old one serves");
        assert_eq!(get(Ok(3)).await.unwrap(), 1, "not asked again at once");
        tokio::time::advance(PAUSE).await;
        assert_eq!(get(Ok(4)).await.unwrap(), 4);
        tokio::time::advance(LONGEST_LIFE).await;
        assert!(get(Err(failure())).await.is_err(), "too old to be of use");
    }

    #[tokio::test(start_paused = true)]
    async fn one_asks_and_a_refused_value_is_replaced_once() {
        let cached = Cached::default();
        let asked = AtomicU32::new(0);
        let ask = async || {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok::<u32, Error>(asked.fetch_add(1, Ordering::SeqCst))
        };
        let (a, b) = tokio::join!(cached.get(ask), cached.get(ask));
        let (a, b) = (a.unwrap(), b.unwrap());
        assert!(Arc::ptr_eq(&a, &b));
        let (c, d) = tokio::join!(cached.renewed(&a, ask), cached.renewed(&b, ask));
        assert_eq!((*c.unwrap(), *d.unwrap(), asked.load(Ordering::SeqCst)), (1, 1, 2));
    }
}
