//! Cursors that another alerter takes over from: in objects of the cluster ([`shards`]), so that a rule goes on where it was
//! left off whichever replica runs it.
//!
//! The leader writes them at most twice a minute, and never past a window whose notifications still wait in its own outbox.
//! Beside each stands how far it has come: if the leader's disk is lost, another replica runs what lies between again, so that
//! every alert is delivered at least once.

pub mod shards;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use rules::clock::Clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::state::{Cursor, State, StateError};

/// Cursors by `namespace/name` of the rule.
pub type Cursors = BTreeMap<String, Cursor>;

/// Between two writes.
const PERIOD: SignedDuration = SignedDuration::from_secs(30);
/// After a failure.
const RETRY: SignedDuration = SignedDuration::from_secs(5);
/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Where cursors are kept for others.
#[async_trait]
pub trait Checkpoint: Send + Sync {
    /// What was saved last; empty if nothing was.
    async fn load(&self) -> anyhow::Result<Cursors>;

    /// Replaces what was saved.
    async fn save(&self, cursors: &Cursors) -> anyhow::Result<()>;
}

/// Leads with the cursors of whoever led before, and keeps ours for whoever leads next.
pub struct Leadership {
    /// Whether we hold the lease.
    pub holds: watch::Receiver<bool>,
    /// Whether rules run here: we hold the lease and have the cursors.
    pub leads: watch::Sender<bool>,
    /// Where cursors are kept for others.
    pub checkpoint: Arc<dyn Checkpoint>,
    /// Our own.
    pub state: State,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Leadership {
    /// Follows the lease until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut holds = self.holds.clone();
        let follow = async {
            while holds.wait_for(|holds| *holds).await.is_ok() {
                let mut saved = tokio::select! {
                    cursors = self.take_over() => cursors,
                    _ = holds.wait_for(|holds| !holds) => continue,
                };
                self.leads.send_replace(true);
                while *self.holds.borrow() {
                    let next = later(self.clock.now(), PERIOD);
                    let lost = tokio::select! {
                        () = self.clock.sleep_until(next) => false,
                        _ = holds.wait_for(|holds| !holds) => true,
                    };
                    if !lost {
                        tokio::select! {
                            () = self.save(&mut saved) => {}
                            // An API server that hangs does not keep us leading.
                            _ = holds.wait_for(|holds| !holds) => {}
                        }
                    }
                }
                self.leads.send_replace(false);
            }
        };
        shutdown.run_until_cancelled(follow).await;
        if *self.holds.borrow() && *self.leads.borrow() {
            self.save(&mut Cursors::new()).await;
        }
    }

    /// Adopts what the leader before us saved, as often as it takes.
    async fn take_over(&self) -> Cursors {
        loop {
            let loaded = match tokio::time::timeout(DEADLINE, self.checkpoint.load()).await {
                Ok(Ok(cursors)) => self.state.adopt_cursors(cursors.clone()).await.map(|()| cursors).map_err(anyhow::Error::from),
                Ok(Err(error)) => Err(error),
                Err(elapsed) => Err(elapsed.into()),
            };
            match loaded {
                Ok(cursors) => return cursors,
                Err(error) => tracing::warn!(error = format!("{error:#}"), "no rule runs before the cursors of the last alerter are known"),
            }
            self.clock.sleep_until(later(self.clock.now(), RETRY)).await;
        }
    }

    async fn save(&self, saved: &mut Cursors) {
        let result: Result<Option<Cursors>, anyhow::Error> = async {
            let cursors = self.state.settled_cursors().await.map_err(|error: StateError| anyhow::Error::from(error))?;
            if cursors == *saved {
                return Ok(None);
            }
            tokio::time::timeout(DEADLINE, self.checkpoint.save(&cursors)).await??;
            Ok(Some(cursors))
        }
        .await;
        match result {
            Ok(Some(cursors)) => *saved = cursors,
            Ok(None) => {}
            // The next period tries again.
            Err(error) => tracing::warn!(error = format!("{error:#}"), "cursors could not be kept for other alerters"),
        }
    }
}

fn later(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// The two texts of cursors in an object: their ends, and how far those have come that have come further. One line each, the
/// time first.
#[must_use]
pub fn to_texts(cursors: &Cursors) -> [String; 2] {
    let further = cursors.iter().filter(|(_, cursor)| cursor.reached > cursor.end);
    [
        cursors.iter().map(|(rule, cursor)| format!("{} {rule}\n", cursor.end)).collect(),
        further.map(|(rule, cursor)| format!("{} {rule}\n", cursor.reached)).collect(),
    ]
}

/// Reads [`to_texts`]; lines that cannot be read are left out: their rules begin anew.
#[must_use]
pub fn from_texts(ends: &str, reached: &str) -> Cursors {
    let reached: BTreeMap<&str, Timestamp> = times(reached).collect();
    let cursor = |(rule, end): (&str, Timestamp)| {
        let reached = reached.get(rule).map_or(end, |reached| end.max(*reached));
        (rule.to_owned(), Cursor { end, reached })
    };
    times(ends).map(cursor).collect()
}

fn times(text: &str) -> impl Iterator<Item = (&str, Timestamp)> {
    text.lines().filter_map(|line| {
        let (time, rule) = line.split_once(' ')?;
        Some((rule, time.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use parking_lot::Mutex;
    use rules::clock::ManualClock;

    #[derive(Default)]
    struct Kept {
        text: Mutex<String>,
        saves: Mutex<usize>,
        fails: Mutex<usize>,
        hangs: std::sync::atomic::AtomicBool,
    }

    #[async_trait]
    impl Checkpoint for Kept {
        async fn load(&self) -> anyhow::Result<Cursors> {
            let mut fails = self.fails.lock();
            anyhow::ensure!(*fails == 0, {
                *fails -= 1;
                "away"
            });
            Ok(from_texts(&self.text.lock(), ""))
        }

        async fn save(&self, cursors: &Cursors) -> anyhow::Result<()> {
            *self.saves.lock() += 1;
            if self.hangs.load(std::sync::atomic::Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            *self.text.lock() = to_texts(cursors)[0].clone();
            Ok(())
        }
    }

    /// Waits until somebody sleeps until then: who was woken stays on the list until it runs.
    async fn sleeps_until(clock: &ManualClock, deadline: Timestamp) {
        while clock.next_deadline().await != deadline {
            tokio::task::yield_now().await;
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + second).unwrap()
    }

    #[tokio::test]
    async fn a_leader_takes_over_and_writes_only_what_changed() {
        let kept = Arc::new(Kept::default());
        *kept.text.lock() = format!("{} n/r\nnonsense\nbad n/s\n", at(500));
        *kept.fails.lock() = 1;
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        state.adopt_cursors(Cursors::from([("n/r".into(), Cursor::at(at(100)))])).await.unwrap();
        let clock = ManualClock::new(at(1000));
        let (hold, holds) = watch::channel(false);
        let (leads, mut leading) = watch::channel(false);
        let leadership = Leadership { holds, leads, checkpoint: kept.clone(), state: state.clone(), clock: Arc::new(clock.clone()) };
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(leadership.run(shutdown.clone()));
        hold.send_replace(true);
        // the first load failed
        sleeps_until(&clock, at(1005)).await;
        assert!(!*leading.borrow());
        clock.set(at(1005));
        leading.wait_for(|leads| *leads).await.unwrap();
        assert_eq!(state.cursors().await.unwrap()["n/r"], Cursor::at(at(500)));
        for (now, saves) in [(1035, 0), (1065, 0)] {
            sleeps_until(&clock, at(now)).await;
            clock.set(at(now));
            assert_eq!(*kept.saves.lock(), saves, "nothing changed");
        }
        sleeps_until(&clock, at(1095)).await;
        state.adopt_cursors(Cursors::from([("n/r".into(), Cursor::at(at(600)))])).await.unwrap();
        clock.set(at(1095));
        sleeps_until(&clock, at(1125)).await;
        assert_eq!((kept.text.lock().clone(), *kept.saves.lock()), (format!("{} n/r\n", at(600)), 1));
        hold.send_replace(false);
        leading.wait_for(|leads| !*leads).await.unwrap();
        shutdown.cancel();
        running.await.unwrap();
        assert_eq!(*kept.saves.lock(), 1, "who does not lead does not write");
    }

    #[tokio::test]
    async fn a_save_that_hangs_does_not_keep_an_alerter_leading() {
        let kept = Arc::new(Kept::default());
        kept.hangs.store(true, std::sync::atomic::Ordering::Relaxed);
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let clock = ManualClock::new(at(1000));
        let (hold, holds) = watch::channel(true);
        let (leads, mut leading) = watch::channel(false);
        let leadership = Leadership { holds, leads, checkpoint: kept.clone(), state: state.clone(), clock: Arc::new(clock.clone()) };
        let running = tokio::spawn(leadership.run(CancellationToken::new()));
        leading.wait_for(|leads| *leads).await.unwrap();
        state.adopt_cursors(Cursors::from([("n/r".into(), Cursor::at(at(600)))])).await.unwrap();
        sleeps_until(&clock, at(1030)).await;
        clock.set(at(1030));
        while *kept.saves.lock() == 0 {
            tokio::task::yield_now().await;
        }
        hold.send_replace(false);
        let began = tokio::time::Instant::now();
        leading.wait_for(|leads| !*leads).await.unwrap();
        assert!(began.elapsed() < DEADLINE / 2);
        running.abort();
    }
}
