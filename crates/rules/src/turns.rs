//! Objects that are attended to one after another: one that hangs holds up those after it for a moment only.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::lease::Leader;
use crate::store::{Key, Objects};
use crate::target::later;

/// What takes longer holds up nothing else.
pub(crate) const SLOW: Duration = Duration::from_secs(10);
/// Objects that are attended to at a time: with so many that hang, the others wait.
const MOST: usize = 32;
/// Between two rounds that are not due to a change.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// Attends to each object in its turn, as `order` says, while `leader` leads. One that takes longer than [`SLOW`] goes on beside
/// the others; while there are such, there is another round for each change and for whatever is to be tried again. `attend`
/// says when to come back to an object. Returns that for all of them when none is attended to any more.
pub(crate) async fn in_turn<K, A: Future<Output = Option<Timestamp>>>(
    objects: &Objects<K>,
    leader: &Leader,
    now: Timestamp,
    order: impl Fn() -> Vec<Key>,
    attend: impl Fn(Key, Timestamp) -> A,
) -> Option<Timestamp> {
    let since = Instant::now();
    let (mut objects, mut leader) = (objects.clone(), leader.clone());
    let (mut slow, mut busy) = (FuturesUnordered::new(), BTreeSet::new());
    loop {
        let (mut again, mut ended) = (None, false);
        for key in order() {
            if busy.contains(&key) {
                continue;
            }
            while busy.len() >= MOST
                && let Some(done) = slow.next().await
            {
                ended |= busy.remove(&done);
            }
            if !leader.is_leader() {
                break;
            }
            let mut turn = Box::pin(attend(key.clone(), later(now, since)));
            let mut patience = pin!(tokio::time::sleep(SLOW));
            loop {
                tokio::select! {
                    next = &mut turn => {
                        again = earliest(again, next);
                        break;
                    }
                    Some(done) = slow.next() => ended |= busy.remove(&done),
                    () = &mut patience => {
                        busy.insert(key.clone());
                        slow.push(async move {
                            turn.await;
                            key
                        });
                        break;
                    }
                }
            }
        }
        // One that has ended may have changed meanwhile, and may be due again.
        if ended {
            continue;
        }
        if slow.is_empty() {
            return again;
        }
        let due = async {
            match again {
                Some(again) => tokio::time::sleep(left(later(now, since), again)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(done) = slow.next() => drop(busy.remove(&done)),
            () = objects.changed() => {}
            () = leader.changed() => {}
            () = due => {}
        }
    }
}

fn left(now: Timestamp, until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(now)).unwrap_or_default().max(SHORTEST_PAUSE)
}

/// The earlier of two times, of which there may be none.
pub(crate) fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    [one, other].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::at;
    use parking_lot::Mutex;
    use tokio::sync::watch;

    use crate::store::Publisher;

    /// Objects of which those that are told to get no answer do not, until they may.
    struct Bench {
        publisher: Publisher<()>,
        names: Vec<String>,
        hanging: fn(&str) -> bool,
        open: watch::Sender<bool>,
        /// Who was attended to, in order.
        attended: Mutex<Vec<String>>,
    }

    impl Bench {
        fn new(names: Vec<String>, hanging: fn(&str) -> bool) -> Bench {
            Bench { publisher: Publisher::new(), names, hanging, open: watch::Sender::new(false), attended: Mutex::default() }
        }

        async fn run(&self, leader: &Leader) -> Option<Timestamp> {
            let order = || self.names.iter().map(|name| Key::new("ns", name)).collect();
            let attend = |key: Key, _| async move {
                self.attended.lock().push(key.name.clone());
                if (self.hanging)(&key.name) {
                    self.open.subscribe().wait_for(|open| *open).await.unwrap();
                }
                None
            };
            in_turn(&self.publisher.objects(), leader, at("2025-01-01T00:00:00Z"), order, attend).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_hangs_holds_up_others_for_a_moment_and_only_so_many_hang_at_a_time() {
        let names: Vec<String> = (0..40).map(|n| format!("{n:02}")).collect();
        let bench = Bench::new(names.clone(), |_| true);
        let began = Instant::now();
        let look = async {
            tokio::time::sleep(SLOW * 60).await;
            assert_eq!(*bench.attended.lock(), names[..MOST]);
            bench.open.send_replace(true);
        };
        let leader = Leader::always();
        let (next, ()) = tokio::join!(bench.run(&leader), look);
        assert_eq!(next, None);
        assert!(began.elapsed() < SLOW * 61);
        let attended = bench.attended.lock();
        assert!(names.iter().all(|name| attended.contains(name)), "{attended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_no_longer_leads_begins_nothing_and_waits_for_what_has_begun() {
        let bench = Bench::new(["a", "b"].map(str::to_owned).to_vec(), |name| name == "a");
        let (baton, leader) = Leader::told();
        baton.pass(true);
        let mut run = pin!(bench.run(&leader));
        assert!(tokio::time::timeout(SLOW / 2, &mut run).await.is_err());
        baton.pass(false);
        assert!(tokio::time::timeout(SLOW * 10, &mut run).await.is_err());
        assert_eq!(*bench.attended.lock(), ["a"]);
        bench.open.send_replace(true);
        assert_eq!(run.await, None);
        assert_eq!(*bench.attended.lock(), ["a"]);
    }
}
