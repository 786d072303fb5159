#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn outgoing(correlation: &str, title: &str) -> Outgoing {
    Outgoing {
        target: Target::Receiver,
        destination: "team".into(),
        correlation: correlation.into(),
        title: title.into(),
        body: title.as_bytes().to_vec(),
    }
}

fn record(rule: &str, window: (i64, i64), notifications: Vec<Outgoing>) -> Record {
    Record { rule: rule.into(), window: (at(window.0), at(window.1)), done: true, notifications }
}

async fn titles(state: &State, now: i64) -> Vec<String> {
    state.claim(Target::Receiver, at(now), 100, Vec::new()).await.unwrap().into_iter().map(|claimed| claimed.title).collect()
}

#[tokio::test]
async fn a_newer_notification_replaces_those_of_earlier_windows_that_wait() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path()).unwrap();
    // two rows of one run with the same key, and one without a key: all are kept
    let first = vec![outgoing("k", "a1"), outgoing("k", "a2"), outgoing("", "free 1")];
    state.record(record("n/r", (0, 60), first), at(60)).await.unwrap();
    state.record(record("n/r", (60, 120), vec![outgoing("k", "b"), outgoing("", "free 2")]), at(120)).await.unwrap();
    assert_eq!(titles(&state, 200).await, ["free 1", "b", "free 2"]);
    // the same key for somebody else is another notification
    let other = Outgoing { destination: "others".into(), ..outgoing("k", "c") };
    state.record(record("n/r", (120, 180), vec![other]), at(180)).await.unwrap();
    assert_eq!(state.waiting_of("n/r".into()).await.unwrap(), 4);
}

#[tokio::test]
async fn what_is_claimed_comes_back_after_a_restart_and_postponed_ones_in_their_time() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path()).unwrap();
    state.record(record("n/r", (0, 60), vec![outgoing("a", "a"), outgoing("b", "b")]), at(60)).await.unwrap();
    let claimed = state.claim(Target::Receiver, at(60), 1, Vec::new()).await.unwrap();
    assert_eq!((claimed[0].title.as_str(), claimed[0].attempts, claimed[0].created), ("a", 0, at(60)));
    state.postpone(claimed[0].id, at(90), false).await.unwrap();
    assert_eq!(titles(&state, 60).await, ["b"]);
    assert_eq!(state.next_due(Target::Receiver, Vec::new()).await.unwrap(), Some(at(90)));
    assert_eq!(state.next_due(Target::Receiver, vec!["team".into()]).await.unwrap(), None);
    drop(state);
    let state = reopened(folder.path()).await;
    assert_eq!(titles(&state, 61).await, ["b"]);
    assert_eq!(titles(&state, 90).await, ["a"]);
    assert_eq!(state.cursors().await.unwrap(), BTreeMap::from([("n/r".to_owned(), Cursor::at(at(60)))]));
}

/// The thread of the last state may still hold the file.
async fn reopened(folder: &std::path::Path) -> State {
    loop {
        match State::open(folder) {
            Err(StateError::InUse { .. }) => tokio::task::yield_now().await,
            other => return other.unwrap(),
        }
    }
}

#[tokio::test]
async fn past_the_bound_the_oldest_go_and_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::with_limits(folder.path(), 3, 1000).unwrap();
    for n in 0..3 {
        assert_eq!(state.record(record("n/r", (n, n + 1), vec![outgoing("", &n.to_string())]), at(n)).await.unwrap(), []);
    }
    let dropped = state.record(record("n/s", (9, 10), vec![outgoing("k", "3")]), at(10)).await.unwrap();
    assert_eq!(dropped, [Dropped { target: 0, rule: "n/r".into(), correlation: String::new(), title: "0".into() }]);
    let large = Outgoing { body: vec![0; 999], ..outgoing("k", "4") };
    let dropped = state.record(record("n/s", (10, 11), vec![large]), at(11)).await.unwrap();
    assert_eq!(dropped.into_iter().map(|d| d.title).collect::<Vec<_>>(), ["1"]);
    assert_eq!(titles(&state, 20).await, ["2", "4"]);
}

#[tokio::test]
async fn another_process_may_not_pass_a_window_whose_notifications_wait() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path()).unwrap();
    state.record(record("n/r", (0, 60), vec![outgoing("a", "a")]), at(60)).await.unwrap();
    state.record(record("n/r", (60, 120), Vec::new()), at(120)).await.unwrap();
    state.record(record("n/quiet", (60, 121), Vec::new()), at(121)).await.unwrap();
    let cursors = |end, reached, quiet| {
        let cursor = Cursor { end: at(end), reached: at(reached) };
        BTreeMap::from([("n/r".to_owned(), cursor), ("n/quiet".to_owned(), Cursor::at(at(quiet)))])
    };
    assert_eq!(state.settled_cursors().await.unwrap(), cursors(0, 120, 121));
    assert_eq!(state.waits_since("n/r".into()).await.unwrap(), Some(at(0)));
    let claimed = state.claim(Target::Receiver, at(130), 1, Vec::new()).await.unwrap();
    assert_eq!(state.settled_cursors().await.unwrap(), cursors(0, 120, 121));
    state.delivered(claimed[0].id).await.unwrap();
    assert_eq!(state.settled_cursors().await.unwrap(), cursors(120, 120, 121));
    assert_eq!(state.waits_since("n/r".into()).await.unwrap(), None);
    // cursors of others count where they are later
    state.adopt_cursors(cursors(90, 200, 500)).await.unwrap();
    assert_eq!(state.cursors().await.unwrap(), cursors(120, 200, 500));
    assert_eq!(state.settled_cursors().await.unwrap(), cursors(120, 200, 500), "what is to be repeated stays known");
    state.record(record("n/r", (120, 260), Vec::new()), at(260)).await.unwrap();
    assert_eq!(state.cursors().await.unwrap(), cursors(260, 260, 500));
    state.forget("n/r".into()).await.unwrap();
    assert_eq!(state.cursors().await.unwrap().len(), 1);
}

#[tokio::test]
async fn two_processes_cannot_share_a_folder_and_a_damaged_file_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path()).unwrap();
    assert!(matches!(State::open(folder.path()), Err(StateError::InUse { .. })));
    drop(state);
    drop(reopened(folder.path()).await);
    let damaged = tempfile::tempdir().unwrap();
    std::fs::write(damaged.path().join("alerter.sqlite"), "this is no database, but it is longer than its header".repeat(9)).unwrap();
    let state = State::open(damaged.path()).unwrap();
    assert!(state.cursors().await.unwrap().is_empty());
    assert_eq!(
        std::fs::read_dir(damaged.path())
            .unwrap()
            .filter(|f| f.as_ref().unwrap().file_name().to_string_lossy().contains("damaged"))
            .count(),
        1
    );
}

/// Files of the layouts before this one: what waits there is delivered, and rules go on where they were.
#[tokio::test]
async fn earlier_layouts_are_read() {
    const BACK_TO_2: &str = "ALTER TABLE cursors DROP COLUMN reached; PRAGMA user_version = 2;";
    const BACK_TO_1: &str = "ALTER TABLE notifications DROP COLUMN refusals; PRAGMA user_version = 1;";
    for layout in [BACK_TO_2.to_owned(), format!("{BACK_TO_2}{BACK_TO_1}")] {
        a_layout_is_read(&layout).await;
    }
}

async fn a_layout_is_read(layout: &str) {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path()).unwrap();
    state.record(record("n/r", (0, 60), vec![outgoing("a", "a")]), at(60)).await.unwrap();
    drop(state);
    drop(reopened(folder.path()).await);
    let path = folder.path().join("alerter.sqlite");
    let back = || -> rusqlite::Result<()> { rusqlite::Connection::open(&path)?.execute_batch(layout) };
    // The thread of the last state may still hold the file.
    while back().is_err() {
        tokio::task::yield_now().await;
    }
    let state = reopened(folder.path()).await;
    assert_eq!(state.cursors().await.unwrap()["n/r"], Cursor::at(at(60)));
    let claimed = state.claim(Target::Receiver, at(60), 9, Vec::new()).await.unwrap();
    assert_eq!(claimed.iter().map(|c| (c.title.as_str(), c.refusals)).collect::<Vec<_>>(), [("a", 0)]);
    state.postpone(claimed[0].id, at(61), true).await.unwrap();
    assert_eq!(state.claim(Target::Receiver, at(61), 9, Vec::new()).await.unwrap()[0].refusals, 1);
}

#[derive(Debug, Clone)]
enum Step {
    Record { key: u8, destination: u8 },
    Claim { busy: bool },
    Deliver,
    Postpone { by: i64 },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..4, 0u8..2).prop_map(|(key, destination)| Step::Record { key, destination }),
        3 => any::<bool>().prop_map(|busy| Step::Claim { busy }),
        2 => Just(Step::Deliver),
        2 => (0i64..5).prop_map(|by| Step::Postpone { by }),
        1 => Just(Step::Restart),
    ]
}

/// What a list in memory would do.
#[derive(Debug, Default)]
struct Model {
    waiting: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    title: String,
    key: u8,
    destination: u8,
    due: i64,
    claimed: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_outbox_loses_nothing_but_what_is_delivered_replaced_or_dropped(steps in prop::collection::vec(step(), 1..40)) {
        const LIMIT: usize = 6;
        runtime().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let mut state = State::with_limits(folder.path(), LIMIT, 1 << 20).unwrap();
            let mut model = Model::default();
            let mut held: Vec<Claimed> = Vec::new();
            let mut now = 0;
            for step in steps {
                now += 1;
                match step {
                    Step::Record { key, destination } => {
                        let title = format!("t{now}");
                        let correlation = if key == 0 { String::new() } else { format!("k{key}") };
                        let new = Outgoing { destination: destination.to_string(), ..outgoing(&correlation, &title) };
                        let dropped = state.record(record("n/r", (now - 1, now), vec![new]), at(now)).await.unwrap();
                        model.waiting.retain(|e| key == 0 || e.key != key || e.destination != destination);
                        model.waiting.push(Entry { title, key, destination, due: now, claimed: false });
                        let over = model.waiting.len().saturating_sub(LIMIT);
                        let lost: Vec<String> = model.waiting.drain(..over).map(|e| e.title).collect();
                        prop_assert_eq!(dropped.into_iter().map(|d| d.title).collect::<Vec<_>>(), lost);
                    }
                    Step::Claim { busy } => {
                        let destinations = if busy { vec!["1".to_owned()] } else { Vec::new() };
                        let claimed = state.claim(Target::Receiver, at(now), 1, destinations).await.unwrap();
                        let free = model.waiting.iter_mut().filter(|e| !e.claimed && e.due <= now && !(busy && e.destination == 1));
                        let expected = free.min_by_key(|e| e.due).map(|e| { e.claimed = true; e.title.clone() });
                        prop_assert_eq!(claimed.first().map(|c| c.title.clone()), expected);
                        held.extend(claimed);
                    }
                    Step::Deliver => if let Some(claimed) = held.pop() {
                        state.delivered(claimed.id).await.unwrap();
                        model.waiting.retain(|e| e.title != claimed.title);
                    },
                    Step::Postpone { by } => if let Some(claimed) = held.pop() {
                        state.postpone(claimed.id, at(now + by), false).await.unwrap();
                        for e in model.waiting.iter_mut().filter(|e| e.title == claimed.title) {
                            (e.due, e.claimed) = (now + by, false);
                        }
                    },
                    Step::Restart => {
                        held.clear();
                        drop(state);
                        state = loop {
                            match State::with_limits(folder.path(), LIMIT, 1 << 20) {
                                Err(StateError::InUse { .. }) => tokio::task::yield_now().await,
                                other => break other.unwrap(),
                            }
                        };
                        model.waiting.iter_mut().for_each(|e| e.claimed = false);
                    }
                }
                prop_assert_eq!(state.waiting(Target::Receiver).await.unwrap().notifications, model.waiting.len() as u64);
            }
            Ok(())
        })?;
    }
}
