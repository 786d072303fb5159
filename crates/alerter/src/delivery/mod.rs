//! Delivery of what waits in the outbox. Each target has a courier of its own, and each destination a share of it, so that
//! a receiver, or one destination of it, that hangs or fails holds nothing else up.

pub mod alertmanager;
mod http;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::Url;
use rules::backoff::{Backoff, random_unit};
use rules::clock::Clock;
use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::channel::Sender;
use crate::metrics::Metrics;
use crate::state::{Claimed, Dropped, State, StateError, Target};
use http::Answer;
pub use http::{AddressError, route};

/// Requests to a target at the same time.
const MAX_IN_FLIGHT: usize = 8;
/// Of them, for one destination.
const MAX_PER_DESTINATION: usize = 2;
/// Pauses between tries of a notification.
const PAUSES: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(300) };
/// The pause after a 429 that names none.
const BUSY_PAUSE: Duration = Duration::from_secs(10);
/// Refusals of a notification in a row before it is given up: its body is at fault, and the same request fails again.
/// Failures and throttling, which say nothing about the body, begin the count anew.
const MAX_REFUSALS: u32 = 5;
/// A notification that is older than this and still not taken is given up.
pub(crate) const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);
/// How long requests may still take when the process stops.
const GRACE: Duration = Duration::from_secs(10);
/// The pause after a failure of our own state.
const STATE_PAUSE: Duration = Duration::from_secs(1);

/// What happened to a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// `namespace/name` of its rule.
    pub rule: String,
    /// Nothing if it was taken; otherwise why not.
    pub error: Option<String>,
    /// The title of one that is not sent again though it was not taken.
    pub given_up: Option<String>,
}

/// Brings the notifications of one target to it.
pub struct Courier {
    /// Who takes them.
    pub target: Target,
    /// Where.
    pub url: Url,
    /// How long it may take for one request.
    pub timeout: Duration,
    /// The outbox.
    pub state: State,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Counts.
    pub metrics: Metrics,
    /// Told when the outbox has something new.
    pub wake: Arc<Notify>,
    /// Whether this process is the one that sends.
    pub leading: watch::Receiver<bool>,
    /// Takes what happened.
    pub progress: Sender<Progress>,
}

/// The requests that run, and what is known of destinations.
#[derive(Default)]
struct Round {
    requests: JoinSet<Answer>,
    /// What they bring.
    claimed: HashMap<Id, Claimed>,
    /// Destinations that asked for a pause, and until when.
    paused: HashMap<String, Timestamp>,
    /// What became of notifications, by id, where the outbox could not take it down: until then nothing else is sent.
    unkept: Vec<(i64, Fate)>,
}

/// What becomes of a notification after a try.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It leaves the outbox.
    Gone,
    /// It is tried again; `refused` says whether its body was.
    Due { at: Timestamp, refused: bool },
}

impl Courier {
    /// Delivers until `shutdown`.
    ///
    /// # Errors
    /// Where no HTTP client can be made.
    pub async fn run(mut self, shutdown: CancellationToken) -> reqwest::Result<()> {
        let client = http::client(&self.url, self.timeout)?;
        let mut round = Round::default();
        while !shutdown.is_cancelled() {
            let leading = *self.leading.borrow_and_update();
            let next = match leading {
                true => self.start(&client, &mut round).await,
                false => Ok(Timestamp::MAX),
            };
            let next = next.unwrap_or_else(|error| {
                tracing::error!(%error, target = self.target.name(), "notifications cannot be read from the outbox");
                later(self.clock.now(), STATE_PAUSE)
            });
            tokio::select! {
                Some(done) = round.requests.join_next_with_id() => self.settle(&mut round, done).await,
                () = self.wake.notified() => {}
                () = self.clock.sleep_until(next) => {}
                Ok(()) = self.leading.changed() => {}
                () = shutdown.cancelled() => break,
            }
        }
        let drain = async {
            while let Some(done) = round.requests.join_next_with_id().await {
                self.settle(&mut round, done).await;
            }
        };
        // What is cut off here is sent again by the next process.
        let _ = tokio::time::timeout(GRACE, drain).await;
        Ok(())
    }

    /// Sends what is due and has room; returns when to look again.
    async fn start(&self, client: &reqwest::Client, round: &mut Round) -> Result<Timestamp, StateError> {
        let now = self.clock.now();
        round.paused.retain(|_, until| *until > now);
        while let Some((id, fate)) = round.unkept.last().copied() {
            self.keep(id, fate).await?;
            round.unkept.pop();
        }
        while round.requests.len() < MAX_IN_FLIGHT {
            let Some(claimed) = self.state.claim(self.target, now, 1, round.busy()).await?.pop() else {
                break;
            };
            let (client, url, body) = (client.clone(), self.url.clone(), self.body(&claimed, now));
            round.send(claimed, async move {
                match body {
                    Ok(body) => http::post(&client, url, body, now).await,
                    Err(error) => Answer::Refused(error.to_string()),
                }
            });
        }
        if round.requests.len() >= MAX_IN_FLIGHT {
            return Ok(Timestamp::MAX);
        }
        let due = self.state.next_due(self.target, round.busy()).await?.unwrap_or(Timestamp::MAX);
        let unpaused = round.paused.values().min().copied().unwrap_or(Timestamp::MAX);
        Ok(due.min(unpaused))
    }

    fn body(&self, claimed: &Claimed, now: Timestamp) -> serde_json::Result<Vec<u8>> {
        match self.target {
            Target::Receiver => Ok(claimed.body.clone()),
            Target::Alertmanager => serde_json::to_vec(&serde_json::from_slice::<alertmanager::Alert>(&claimed.body)?.request(now)),
        }
    }

    /// A request ended: its place is free, and its notification is gone or tried again.
    async fn settle(&self, round: &mut Round, done: Result<(Id, Answer), JoinError>) {
        let (id, answer) = match done {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "a delivery ended without an answer");
                (error.id(), Answer::Failed("the delivery ended in a panic, which is a mistake of the alerter".to_owned()))
            }
        };
        let Some(claimed) = round.claimed.remove(&id) else { return };
        let now = self.clock.now();
        let error = match &answer {
            Answer::Taken => None,
            Answer::Busy { .. } => Some("it is throttling (429)".to_owned()),
            Answer::Refused(why) | Answer::Failed(why) => Some(why.clone()),
        };
        let fate = match answer {
            Answer::Taken => {
                self.metrics.delivered(self.target, &claimed.rule);
                Fate::Gone
            }
            Answer::Refused(why) if claimed.refusals + 1 >= MAX_REFUSALS => self.give_up(&claimed, &why),
            _ if now.duration_since(claimed.created) > MAX_AGE => self.give_up(&claimed, error.as_deref().unwrap_or_default()),
            Answer::Busy { retry_after } => {
                let until = later(now, retry_after.unwrap_or(BUSY_PAUSE));
                round.paused.insert(claimed.destination.clone(), until);
                self.put_back(&claimed, until, false)
            }
            Answer::Refused(_) => self.put_back(&claimed, again(now, &claimed), true),
            Answer::Failed(_) => self.put_back(&claimed, again(now, &claimed), false),
        };
        if let Err(error) = self.keep(claimed.id, fate).await {
            tracing::error!(%error, rule = claimed.rule, title = claimed.title, "what became of a notification cannot be kept: it may be sent again");
            round.unkept.push((claimed.id, fate));
        }
        let given_up = (error.is_some() && matches!(fate, Fate::Gone)).then_some(claimed.title);
        self.progress.send(Progress { rule: claimed.rule, error, given_up }).await;
    }

    fn put_back(&self, claimed: &Claimed, at: Timestamp, refused: bool) -> Fate {
        self.metrics.undelivered(self.target, &claimed.rule);
        Fate::Due { at, refused }
    }

    fn give_up(&self, claimed: &Claimed, why: &str) -> Fate {
        self.metrics.undelivered(self.target, &claimed.rule);
        let Claimed { rule, correlation, title, .. } = claimed.clone();
        log_dropped(&self.metrics, &Dropped { target: self.target as i64, rule, correlation, title }, why);
        Fate::Gone
    }

    async fn keep(&self, id: i64, fate: Fate) -> Result<(), StateError> {
        match fate {
            Fate::Gone => self.state.delivered(id).await,
            Fate::Due { at, refused } => self.state.postpone(id, at, refused).await,
        }
    }
}

impl Round {
    fn send(&mut self, claimed: Claimed, request: impl Future<Output = Answer> + Send + 'static) {
        self.claimed.insert(self.requests.spawn(request).id(), claimed);
    }

    /// Destinations that take no more now.
    fn busy(&self) -> Vec<String> {
        let mut running: HashMap<&String, usize> = HashMap::new();
        self.claimed.values().for_each(|claimed| *running.entry(&claimed.destination).or_default() += 1);
        let full = running.into_iter().filter(|(_, running)| *running >= MAX_PER_DESTINATION).map(|(destination, _)| destination);
        full.chain(self.paused.keys()).cloned().collect()
    }
}

/// Counts and names a notification that nobody will get.
pub(crate) fn log_dropped(metrics: &Metrics, dropped: &Dropped, why: &str) {
    metrics.dropped();
    let Dropped { rule, correlation, title, .. } = dropped;
    tracing::error!(rule, correlation, title, why, "a notification is given up");
}

/// When a notification that was not taken is tried again.
fn again(now: Timestamp, claimed: &Claimed) -> Timestamp {
    later(now, PAUSES.pause(claimed.attempts, None, random_unit()))
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| now.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
