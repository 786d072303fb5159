//! Who runs the rules when their alerter is gone, with or without its disk.

use std::sync::Arc;

use alerter::checkpoint::{Checkpoint, Cursors};
use alerter::state::Cursor;
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;

use crate::fake::{Answer, Reply};
use crate::support::assert_touching;
use crate::world::{TICK, World, condition, rule};

/// A checkpoint that two alerters share.
#[derive(Default)]
pub(crate) struct Shared(Mutex<Cursors>);

#[async_trait]
impl Checkpoint for Shared {
    async fn load(&self) -> anyhow::Result<Cursors> {
        Ok(self.0.lock().clone())
    }

    async fn save(&self, cursors: &Cursors) -> anyhow::Result<()> {
        *self.0.lock() = cursors.clone();
        Ok(())
    }
}

#[tokio::test]
async fn only_who_holds_the_lease_runs_rules_and_the_other_goes_on_from_there() {
    let checkpoint = Arc::new(Shared::default());
    let (first_holds, holds) = watch::channel(true);
    let mut first = World::new().await;
    first.cluster = Some((holds, checkpoint.clone()));
    let (second_holds, holds) = watch::channel(false);
    let mut second = World::new().await;
    second.cluster = Some((holds, checkpoint.clone()));
    // one cluster: the same rules, Kusto and receiver
    (second.store, second.kusto, second.receiver) = (first.store.clone(), first.kusto.clone(), first.receiver.clone());
    second.config.kusto_endpoints = first.config.kusto_endpoints.clone();
    first.store.apply(rule("hot", "Hot"));
    first.start().await;
    second.start().await;
    first.kusto.wait_for("Hot", 1).await;
    first.until(|world| world.status("hot").status == "Success").await;
    let (earliest, latest) = (first.now() + SignedDuration::from_secs(25), first.now() + SignedDuration::from_secs(32));
    let save = first.advance_to_deadline_within(earliest, latest).await;
    first.clock.set(save);
    first.until(|_| !checkpoint.0.lock().is_empty()).await;
    first_holds.send_replace(false);
    first.advance(600);
    second.clock.set(first.now());
    assert_eq!(first.kusto.asked("Hot").len(), 1);
    second_holds.send_replace(true);
    let asked = second.kusto.wait_for("Hot", 2).await;
    assert_touching(&asked, &[]);
    second.stop().await;
    first.stop().await;
    assert_eq!(first.kusto.asked("Hot").len(), 2);
}

/// Two alerters of one cluster, with the same rules, Kusto, receiver and checkpoint, each with a disk of its own. The first
/// one leads.
struct Pair {
    checkpoint: Arc<Shared>,
    first: World,
    second: World,
    first_holds: watch::Sender<bool>,
    second_holds: watch::Sender<bool>,
}

impl Pair {
    async fn new() -> Pair {
        let checkpoint = Arc::new(Shared::default());
        let ((first_holds, ours), (second_holds, theirs)) = (watch::channel(true), watch::channel(false));
        let (mut first, mut second) = (World::new().await, World::new().await);
        first.cluster = Some((ours, checkpoint.clone()));
        second.cluster = Some((theirs, checkpoint.clone()));
        (second.store, second.kusto, second.receiver) = (first.store.clone(), first.kusto.clone(), first.receiver.clone());
        second.config.kusto_endpoints = first.config.kusto_endpoints.clone();
        second.config.alerter_address = first.config.alerter_address.clone();
        Pair { checkpoint, first, second, first_holds, second_holds }
    }

    /// The first one and its disk are gone, without another word; a while later the second one leads.
    async fn lose_the_first(&mut self) {
        self.first_holds.send_replace(false);
        self.first.stop().await;
        self.second.clock.set(self.first.now() + SignedDuration::from_secs(15));
        self.second_holds.send_replace(true);
        self.second.start().await;
    }

    /// Waits until the checkpoint says this of the rule `hot`.
    async fn saved(&self, saved: impl Fn(Cursor) -> bool) {
        while !self.checkpoint.0.lock().get("ns/hot").copied().is_some_and(&saved) {
            self.first.advance(10);
            // Lets what is due run.
            self.first.get("/healthz").await;
        }
    }
}

/// Before the first checkpoint there is only the status to go by.
#[tokio::test]
async fn a_leader_that_is_lost_with_its_disk_in_its_first_seconds_costs_no_alert() {
    let mut pair = Pair::new().await;
    pair.first.receiver.reply("", Reply::Status(500, Vec::new()));
    pair.first.kusto.alert("Hot", "a");
    pair.first.store.apply(rule("hot", "Hot"));
    pair.first.start().await;
    pair.first.receiver.came(1).await;
    pair.first.until(|world| world.status("hot").status == "Success").await;
    let (start, _) = pair.first.kusto.asked("Hot")[0].window.unwrap();
    assert_eq!(pair.first.status("hot").last_window_end.map(|end| end.0), Some(start), "what it found is not delivered");
    pair.lose_the_first().await;
    assert!(pair.checkpoint.0.lock().is_empty(), "it was lost before it saved anything");
    pair.first.receiver.reply("", Reply::Status(201, Vec::new()));
    let asked = pair.second.kusto.wait_for("Hot", 2).await;
    assert_eq!(asked[1].window, Some((start, pair.second.now() - TICK)));
    assert_eq!(pair.second.receiver.taken(1).await[0].body["CorrelationID"], json!("ns/hot://a"));
    pair.second.stop().await;
}

/// Without a status either: of a rule that was just made nothing is known but when.
#[tokio::test]
async fn a_new_rule_begins_an_interval_before_it_was_made() {
    for (age, expected) in [(40, 340), (3300, 3600), (3301, 300)] {
        let mut world = World::new().await;
        let mut made = rule("hot", "Hot");
        made.metadata.creation_timestamp = Some(crds::Time(world.now() - SignedDuration::from_secs(age)));
        world.store.apply(made);
        world.start().await;
        let asked = world.kusto.wait_for("Hot", 1).await;
        let start = asked[0].window.unwrap().0;
        assert_eq!(world.now().duration_since(start).as_secs(), expected, "made {age} s ago");
        assert!(world.store.events().is_empty());
        world.stop().await;
    }
}

/// The receiver refuses for four hours, and then the leader is lost with all that it kept for it. The next one has an empty
/// disk and looks at all that time again, an hour at a time.
#[tokio::test]
async fn a_receiver_that_refuses_for_hours_and_a_lost_disk_cost_no_alert() {
    let mut pair = Pair::new().await;
    pair.first.receiver.reply("", Reply::Status(500, Vec::new()));
    pair.first.kusto.alert("Hot", "a");
    pair.first.store.apply(rule("hot", "Hot"));
    pair.first.start().await;
    pair.first.receiver.came(1).await;
    let (start, _) = pair.first.kusto.asked("Hot")[0].window.unwrap();
    // Nothing else is found.
    pair.first.kusto.answer("Hot", Answer::Rows(vec![("Title", "string"), ("Severity", "int")], Vec::new()));
    for round in 2..=9 {
        pair.first.advance(1800);
        pair.first.kusto.wait_for("Hot", round).await;
    }
    let latest = pair.first.kusto.asked("Hot").last().unwrap().window.unwrap().1 + TICK;
    pair.saved(|cursor| cursor.end == start && cursor.reached >= latest).await;
    pair.lose_the_first().await;
    let before = pair.first.kusto.asked("Hot").len();
    pair.first.kusto.alert("Hot", "a");
    pair.first.receiver.reply("", Reply::Status(201, Vec::new()));
    // Four hours and what has passed since: all but the last window are an hour long.
    let asked = pair.second.kusto.wait_for("Hot", before + 4).await;
    let now = pair.second.now();
    pair.second.until(|world| world.kusto.asked("Hot").last().unwrap().window.unwrap().1 + TICK >= now).await;
    let again = &pair.second.kusto.asked("Hot")[before..];
    assert_eq!(asked[before].window.unwrap(), (start, start + SignedDuration::from_hours(1) - TICK));
    assert_touching(again, &[]);
    let longest = again.iter().map(|asked| asked.window.unwrap()).map(|(start, end)| end.duration_since(start)).max().unwrap();
    assert!(longest <= SignedDuration::from_hours(1), "{longest}");
    assert_eq!(pair.second.receiver.taken(1).await[0].body["CorrelationID"], json!("ns/hot://a"));
    assert!(pair.second.store.events().is_empty(), "nothing was skipped");
    // Once all is delivered there is nothing to repeat any more, for whoever comes next.
    let done = |cursor: Cursor| cursor.end == cursor.reached && cursor.end >= now;
    while !pair.checkpoint.0.lock().get("ns/hot").copied().is_some_and(done) {
        pair.second.advance(10);
        pair.second.get("/healthz").await;
    }
    pair.second.stop().await;
}

/// A notification is given up after a day, by whoever keeps it: what lies further back is named and not repeated.
#[tokio::test]
async fn what_waited_for_more_than_a_day_is_named_as_skipped() {
    let mut world = World::new().await;
    let ago = |world: &World, hours: i64| world.now() - SignedDuration::from_hours(hours);
    let checkpoint = Arc::new(Shared::default());
    let (end, reached) = (ago(&world, 30), ago(&world, 20));
    checkpoint.0.lock().insert("ns/hot".to_owned(), Cursor { end, reached });
    let (_hold, holds) = watch::channel(true);
    world.cluster = Some((holds, checkpoint));
    world.store.apply(rule("hot", "Hot"));
    world.start().await;
    // Four hours of what was run before. Of the time after it, in which nobody ran the rule, the last hour is caught up with.
    let asked = world.kusto.wait_for("Hot", 5).await;
    let windows: Vec<_> = asked.iter().map(|asked| asked.window.unwrap()).map(|(start, end)| (start, end + TICK)).collect();
    let hour = |from: Timestamp| (from, from + SignedDuration::from_hours(1));
    let begin = windows[0].0;
    assert!(begin.duration_since(ago(&world, 24)).as_secs().abs() <= 1, "{begin}");
    let expected: Vec<_> = (0..3).map(|at| hour(begin + SignedDuration::from_hours(at))).collect();
    assert_eq!(windows[..3], expected);
    assert_eq!(windows[3], (begin + SignedDuration::from_hours(3), reached));
    assert_eq!(windows[4].1.duration_since(windows[4].0), SignedDuration::from_hours(1));
    world.until(|world| world.store.events().len() >= 2).await;
    let notes: Vec<String> = world.store.events().into_iter().map(|(_, event)| event.note).collect();
    for (note, (from, to)) in notes.iter().zip([(end, begin), (reached, windows[4].0)]) {
        assert!(note.contains(&format!("[{from}, {to})")), "{notes:?}");
    }
    assert!(world.get("/metrics").await.contains("adxmon_alerter_windows_skipped_total 2"));
    world.until(|world| condition(world, "hot", "Skipped").is_some()).await;
    let skipped = world.status("hot").conditions.into_iter().find(|c| c.type_ == "Skipped").unwrap();
    assert!(skipped.message.contains(&windows[4].0.to_string()), "the status names the last: {}", skipped.message);
    world.stop().await;
}
