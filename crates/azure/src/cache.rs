//! Keeps tokens, and renews them before they end.
//!
//! Per scope there is at most one request under way, in a task of its own: a caller that gives up does not end what others
//! wait for. A token is renewed in the background, by the first use after half of its life, so that a service that is
//! away for less than the other half is not noticed. After a failure nothing is asked for a while that doubles with each
//! further one; callers without a token get the error of the last try meanwhile.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::chain::Credential;
use crate::credentials::Now;
use crate::error::Error;
use crate::token::{Scope, Token, TokenSource};

/// A token is not handed out in the last moments of its life: the request has to arrive.
const MARGIN: SignedDuration = SignedDuration::from_secs(10);
/// A token that is younger is not renewed, neither for its age nor because a service refuses it.
const YOUNGEST: SignedDuration = SignedDuration::from_secs(30);
/// The pause after the first failure; it doubles up to the longest.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(1);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(60);
/// The longest that one try may take, its own repetitions included.
const PATIENCE: Duration = Duration::from_secs(300);

/// A credential whose tokens are kept.
pub(crate) struct Cache {
    credential: Arc<dyn Credential>,
    now: Now,
    /// As many as there are services with their own audience: a handful.
    entries: Mutex<HashMap<Scope, Arc<Mutex<Entry>>>>,
}

/// What is known of one scope.
#[derive(Default)]
struct Entry {
    held: Option<Held>,
    /// Closed when the request that is under way has ended.
    flight: Option<watch::Receiver<()>>,
    failures: u32,
    /// The error of the last try, and when the next one may begin.
    failed: Option<(Error, Timestamp)>,
}

struct Held {
    token: Arc<Token>,
    since: Timestamp,
    renew: Timestamp,
}

impl Held {
    fn is_good(&self, now: Timestamp) -> bool {
        now + MARGIN < self.token.expires()
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({})", self.credential.name())
    }
}

#[async_trait]
impl TokenSource for Cache {
    async fn token(&self, scope: &Scope) -> Result<Arc<Token>, Error> {
        self.get(scope, None).await
    }

    async fn renew(&self, scope: &Scope, refused: &Token) -> Result<Arc<Token>, Error> {
        self.get(scope, Some(refused)).await
    }
}

/// What a caller gets at once.
enum Found {
    Token(Arc<Token>),
    /// The request that is under way.
    Flight(watch::Receiver<()>),
}

impl Cache {
    pub(crate) fn new(credential: Arc<dyn Credential>, now: Now) -> Cache {
        Cache { credential, now, entries: Mutex::default() }
    }

    async fn get(&self, scope: &Scope, refused: Option<&Token>) -> Result<Arc<Token>, Error> {
        let entry = Arc::clone(self.entries.lock().entry(scope.clone()).or_default());
        let found = self.look(scope, &entry, refused)?;
        match found {
            Found::Token(token) => Ok(token),
            Found::Flight(flight) => self.land(&entry, flight).await,
        }
    }

    /// The token in hand. Starts a request for the next one if it is time, or if there is none but `refused`.
    fn look(&self, scope: &Scope, shared: &Arc<Mutex<Entry>>, refused: Option<&Token>) -> Result<Found, Error> {
        let now = (self.now)();
        let mut entry = shared.lock();
        let is_refused = |held: &Held| refused.is_some_and(|refused| held.token.is(refused)) && now >= held.since + YOUNGEST;
        let good = entry.held.as_ref().filter(|held| held.is_good(now));
        let due = good.is_none_or(|held| now >= held.renew || is_refused(held));
        let serving = good.filter(|held| !is_refused(held)).map(|held| Found::Token(Arc::clone(&held.token)));
        let flight = entry.flight.clone().filter(|flight| flight.has_changed().is_ok());
        let waiting = entry.failed.as_ref().filter(|(_, next)| now < *next);
        match (flight, waiting, serving) {
            (_, _, Some(serving)) if !due => Ok(serving),
            (Some(flight), _, serving) => Ok(serving.unwrap_or(Found::Flight(flight))),
            (None, Some((error, _)), serving) => serving.ok_or_else(|| error.clone()),
            (None, None, serving) => {
                let flight = self.start(scope, shared);
                entry.flight = Some(flight.clone());
                Ok(serving.unwrap_or(Found::Flight(flight)))
            }
        }
    }

    fn start(&self, scope: &Scope, entry: &Arc<Mutex<Entry>>) -> watch::Receiver<()> {
        let (flying, flight) = watch::channel(());
        let (credential, now, scope, entry) = (Arc::clone(&self.credential), Arc::clone(&self.now), scope.clone(), Arc::clone(entry));
        tokio::spawn(async move {
            let fetched = tokio::time::timeout(PATIENCE, credential.fetch(&scope)).await;
            let fetched = fetched.unwrap_or_else(|_| Err(Error::transient(format!("{}: no token within {PATIENCE:?}", credential.name()))));
            entry.lock().settle(&scope, fetched, now(), fastrand::f64());
            drop(flying);
        });
        flight
    }

    /// Waits for the request that is under way.
    async fn land(&self, entry: &Mutex<Entry>, mut flight: watch::Receiver<()>) -> Result<Arc<Token>, Error> {
        // Ends with an error when the sender is dropped: that is the signal.
        while flight.changed().await.is_ok() {}
        let now = (self.now)();
        let entry = entry.lock();
        match (&entry.failed, &entry.held) {
            (Some((error, _)), _) => Err(error.clone()),
            (None, Some(held)) if held.is_good(now) => Ok(Arc::clone(&held.token)),
            _ => Err(Error::transient(format!("{} gave no token that is good for another {MARGIN:#}", self.credential.name()))),
        }
    }
}

impl Entry {
    fn settle(&mut self, scope: &Scope, fetched: Result<Token, Error>, now: Timestamp, random: f64) {
        match fetched {
            Ok(token) => {
                let renew = renewal(now, token.expires(), random);
                tracing::debug!(%scope, expires = %token.expires(), %renew, "a token was issued");
                self.held = Some(Held { token: Arc::new(token), since: now, renew });
                (self.failures, self.failed) = (0, None);
            }
            Err(error) => {
                let pause = pause(self.failures, random);
                self.failures = self.failures.saturating_add(1);
                let valid_until = self.held.as_ref().map(|held| held.token.expires());
                let in_use = valid_until.filter(|end| now < *end).map(|end| end.to_string());
                tracing::warn!(%scope, %error, failures = self.failures, %pause, token_in_use_until = in_use, "no token was issued");
                self.failed = Some((error, now + pause));
            }
        }
    }
}

/// When a token is renewed: after half of its life, or up to a tenth earlier so that processes that began together do not
/// ask together. For a token of ten minutes or more that is at least five minutes before its end.
fn renewal(now: Timestamp, expires: Timestamp, random: f64) -> Timestamp {
    let life = expires.duration_since(now);
    let part = life.as_secs_f64() * (0.5 - 0.05 * random);
    now + SignedDuration::from_millis((part * 1000.0) as i64).max(YOUNGEST)
}

/// The pause after a failure: half fixed, half random.
fn pause(failures_before: u32, random: f64) -> SignedDuration {
    let ceiling = (FIRST_PAUSE * 2i32.pow(failures_before.min(10))).min(LONGEST_PAUSE);
    SignedDuration::from_millis((ceiling.as_millis() as f64 * (0.5 + 0.5 * random)) as i64)
}

#[cfg(test)]
mod tests;
