//! Delivery of what waits in the outbox. Each target has a courier of its own, and each destination a share of it, so that
//! a receiver, or one destination of it, that hangs or fails holds nothing else up.

pub mod alertmanager;
mod http;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::Url;
use rules::clock::Clock;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::state::{Claimed, Dropped, State, StateError, Target};
use http::Answer;
pub use http::{AddressError, route};

/// Requests to a target at the same time.
const MAX_IN_FLIGHT: usize = 8;
/// Of them, for one destination.
const MAX_PER_DESTINATION: usize = 2;
/// The first pause after a failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// The pause after a 429 that names none.
const BUSY_PAUSE: Duration = Duration::from_secs(10);
/// Tries before a notification is given up whose body the target refuses.
const MAX_REFUSALS: u32 = 5;
/// A notification older than this is given up.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);
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
}

/// Brings the notifications of one target to it.
pub struct Courier {
    /// Who takes them.
    pub target: Target,
    /// Where.
    pub url: Url,
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
    pub progress: mpsc::UnboundedSender<Progress>,
}

/// The requests that run, and what is known of destinations.
struct Round {
    requests: JoinSet<(Claimed, Answer)>,
    running: HashMap<String, usize>,
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
    /// It is tried again.
    Due(Timestamp),
}

impl Courier {
    /// Delivers until `shutdown`.
    ///
    /// # Errors
    /// Where no HTTP client can be made.
    pub async fn run(mut self, shutdown: CancellationToken) -> reqwest::Result<()> {
        let client = http::client(&self.url)?;
        let mut round = Round { requests: JoinSet::new(), running: HashMap::new(), paused: HashMap::new(), unkept: Vec::new() };
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
                Some(done) = round.requests.join_next() => self.settle(&mut round, done).await,
                () = self.wake.notified() => {}
                () = self.clock.sleep_until(next) => {}
                Ok(()) = self.leading.changed() => {}
                () = shutdown.cancelled() => break,
            }
        }
        let drain = async {
            while let Some(done) = round.requests.join_next().await {
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
            *round.running.entry(claimed.destination.clone()).or_default() += 1;
            let (client, url, body) = (client.clone(), self.url.clone(), self.body(&claimed, now));
            round.requests.spawn(async move {
                let answer = match body {
                    Ok(body) => http::post(&client, url, body, now).await,
                    Err(error) => Answer::Refused(error.to_string()),
                };
                (claimed, answer)
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

    async fn settle(&self, round: &mut Round, done: Result<(Claimed, Answer), tokio::task::JoinError>) {
        let (claimed, answer) = match done {
            Ok(done) => done,
            // Its notification stays claimed until the next process.
            Err(error) => return tracing::error!(%error, "a delivery ended without an answer"),
        };
        if let Some(running) = round.running.get_mut(&claimed.destination) {
            *running -= 1;
            if *running == 0 {
                round.running.remove(&claimed.destination);
            }
        }
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
            Answer::Refused(why) if claimed.attempts + 1 >= MAX_REFUSALS => self.give_up(&claimed, &why),
            Answer::Failed(why) if now.duration_since(claimed.created) > MAX_AGE => self.give_up(&claimed, &why),
            Answer::Busy { retry_after } => {
                let until = later(now, retry_after.unwrap_or(BUSY_PAUSE));
                round.paused.insert(claimed.destination.clone(), until);
                self.put_back(&claimed, until)
            }
            Answer::Refused(_) | Answer::Failed(_) => self.put_back(&claimed, later(now, pause(claimed.attempts, random_unit()))),
        };
        if let Err(error) = self.keep(claimed.id, fate).await {
            tracing::error!(%error, rule = claimed.rule, title = claimed.title, "what became of a notification cannot be kept: it may be sent again");
            round.unkept.push((claimed.id, fate));
        }
        // Nobody may be listening any more.
        let _ = self.progress.send(Progress { rule: claimed.rule, error });
    }

    fn put_back(&self, claimed: &Claimed, due: Timestamp) -> Fate {
        self.metrics.undelivered(self.target, &claimed.rule);
        Fate::Due(due)
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
            Fate::Due(due) => self.state.postpone(id, due).await,
        }
    }
}

impl Round {
    /// Destinations that take no more now.
    fn busy(&self) -> Vec<String> {
        let full = self.running.iter().filter(|(_, running)| **running >= MAX_PER_DESTINATION).map(|(destination, _)| destination);
        full.chain(self.paused.keys()).cloned().collect()
    }
}

/// Counts and names a notification that nobody will get.
pub(crate) fn log_dropped(metrics: &Metrics, dropped: &Dropped, why: &str) {
    metrics.dropped();
    let Dropped { rule, correlation, title, .. } = dropped;
    tracing::error!(rule, correlation, title, why, "a notification is given up");
}

/// The pause after `attempts` earlier tries: doubling, half of it random, so that many do not come back at once.
fn pause(attempts: u32, random: f64) -> Duration {
    let ceiling = FIRST_PAUSE.saturating_mul(1 << attempts.min(16)).min(LONGEST_PAUSE);
    ceiling.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
}

/// A uniform number in 0..1.
fn random_unit() -> f64 {
    // The first 48 bits of a version 4 UUID are random.
    (uuid::Uuid::new_v4().as_u128() >> 80) as f64 / (1u64 << 48) as f64
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| now.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::post;
    use prometheus_client::registry::Registry;
    use rules::clock::ManualClock;

    use super::*;
    use crate::state::{Outgoing, Record};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + second).unwrap()
    }

    /// A full disk while a receiver refuses: the notification is sent again once there is room, not only by the next process.
    #[tokio::test]
    async fn what_could_not_be_kept_is_kept_later() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let notification = Outgoing {
            target: Target::Receiver,
            destination: "d".into(),
            correlation: String::new(),
            title: "t".into(),
            body: b"{}".to_vec(),
        };
        let record = Record { rule: "n/r".into(), window: (at(-60), at(0)), done: true, notifications: vec![notification] };
        state.record(record, at(0)).await.unwrap();
        let (disk, first) = (state.clone(), Arc::new(AtomicBool::new(true)));
        let receive = move || async move {
            if !first.swap(false, Ordering::Relaxed) {
                return StatusCode::OK;
            }
            disk.refuse_writes(true).await.unwrap();
            StatusCode::SERVICE_UNAVAILABLE
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = route("--alerter-address", &format!("http://{}", listener.local_addr().unwrap()), &["alerts"]).unwrap();
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/alerts", post(receive))).await });
        let clock = ManualClock::new(at(0));
        let (progress, mut news) = mpsc::unbounded_channel();
        let courier = Courier {
            target: Target::Receiver,
            url,
            state: state.clone(),
            clock: Arc::new(clock.clone()),
            metrics: Metrics::register(&mut Registry::default(), "r"),
            wake: Arc::default(),
            leading: watch::channel(true).1,
            progress,
        };
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(courier.run(shutdown.clone()));
        assert!(news.recv().await.unwrap().error.is_some());
        while clock.next_deadline().await != later(at(0), STATE_PAUSE) {
            tokio::task::yield_now().await;
        }
        state.refuse_writes(false).await.unwrap();
        clock.set(later(at(0), STATE_PAUSE));
        assert_eq!(news.recv().await.unwrap(), Progress { rule: "n/r".into(), error: None });
        assert_eq!(state.waiting(Target::Receiver).await.unwrap().notifications, 0);
        shutdown.cancel();
        running.await.unwrap().unwrap();
    }

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let at = |attempts| pause(attempts, 1.0).as_secs();
        assert_eq!([at(0), at(1), at(4), at(9), at(60)], [1, 2, 16, 300, 300]);
        assert_eq!(pause(1, 0.0), Duration::from_secs(1));
    }
}
