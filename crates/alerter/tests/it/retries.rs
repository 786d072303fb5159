//! What fails through no fault of the rule runs again soon; what only a change of the rule puts right waits for it.

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::fake::Answer;
use crate::world::{TICK, World, rule};

async fn debug(world: &World, name: &str) -> Value {
    let all: Value = serde_json::from_str(&world.get("/debug/rules").await).unwrap();
    all[format!("ns/{name}")].clone()
}

#[tokio::test]
async fn the_window_stays_the_same_and_pauses_double() {
    let mut world = World::new().await;
    world.store.apply(rule("hot", "Hot"));
    world.start().await;
    let began = world.now();
    world.until(|world| world.status("hot").status == "Success").await;
    world.kusto.answer("Hot", Answer::Status(503, String::new()));
    let due = began + SignedDuration::from_secs(300);
    world.clock.set(due);
    for (failures, least, most) in [(1, 1, 2), (2, 2, 4), (3, 4, 8), (4, 8, 16)] {
        world.kusto.wait_for("Hot", 1 + failures).await;
        let now = world.now();
        // The status is written after exactly a second.
        let (earliest, latest) =
            (now + SignedDuration::from_secs(least) + SignedDuration::from_nanos(1), now + SignedDuration::from_secs(most));
        let again = world.advance_to_deadline_within(earliest, latest).await;
        assert_eq!(world.kusto.asked("Hot").len(), 1 + failures, "nothing was asked before");
        world.clock.set(again);
    }
    world.until(|world| world.status("hot").status == "Error").await;
    assert!(world.status("hot").message.starts_with("Query execution failed: HTTP_503"), "{}", world.status("hot").message);
    world.kusto.answer("Hot", Answer::Rows(vec![("Title", "string"), ("Severity", "int")], Vec::new()));
    world.until(|world| world.status("hot").status == "Success").await;
    let asked = world.kusto.asked("Hot");
    let window = (asked[0].window.unwrap().1 + TICK, due - TICK);
    assert!(asked.len() == 6 && asked[1..].iter().all(|asked| asked.window == Some(window)), "{asked:?}");
    assert!(world.get("/metrics").await.contains("evaluations_total{outcome=\"service_error\"} 4"));
    // The next one comes an interval after the window, not after the retry.
    let next = due + SignedDuration::from_secs(300);
    assert_eq!(debug(&world, "hot").await["nextRun"], json!(next));
    world.clock.set(next);
    assert_eq!(world.kusto.wait_for("Hot", 7).await[6].window, Some((due, next - TICK)));
    world.stop().await;
}

/// Kusto says when it can be asked again, also if that is after the interval: then the window reaches until that time.
#[tokio::test]
async fn the_pause_that_kusto_asks_for_is_kept() {
    let mut world = World::new().await;
    world.kusto.answer("Hot", Answer::Busy(1000));
    world.store.apply(rule("hot", "Hot"));
    world.start().await;
    let asked = world.kusto.wait_for("Hot", 1).await;
    let least = world.now() + SignedDuration::from_secs(1000);
    world.until(|world| world.status("hot").status == "Error").await;
    world.kusto.alert("Hot", "a");
    // The answer may have been seen a second later.
    let again = world.advance_to_deadline_within(least, least + SignedDuration::from_secs(2)).await;
    assert_eq!(world.kusto.asked("Hot").len(), 1);
    let status = world.status("hot");
    assert!(status.status == "Error" && status.message.starts_with("Query execution failed: HTTP_429"), "{}", status.message);
    world.clock.set(again);
    let (start, end) = world.kusto.wait_for("Hot", 2).await[1].window.unwrap();
    assert_eq!((start, end), (asked[0].window.unwrap().0, again - TICK));
    world.receiver.taken(1).await;
    world.stop().await;
}

#[tokio::test]
async fn the_rules_own_faults_and_refused_access_wait_for_the_interval_or_an_edit() {
    let mut world = World::new().await;
    world.kusto.answer("Wrong", Answer::Status(400, String::new()));
    world.kusto.answer("Closed", Answer::Status(403, String::new()));
    world.store.apply(rule("wrong", "Wrong"));
    world.store.apply(rule("closed", "Closed"));
    world.start().await;
    world.until(|world| ["wrong", "closed"].iter().all(|name| world.status(name).status == "Error")).await;
    for (name, word) in [("wrong", "Wrong"), ("closed", "Closed")] {
        let end = world.kusto.asked(word)[0].window.unwrap().1 + TICK;
        assert_eq!(debug(&world, name).await["nextRun"], json!(end + SignedDuration::from_secs(300)), "{name}");
    }
    let mut edited = rule("wrong", "Wrong");
    edited.spec.query.push_str(" | take 1");
    world.store.apply(edited);
    world.kusto.wait_for("take 1", 1).await;
    world.stop().await;
}

/// A command may change something: it is repeated only if it was not carried out, or only shows something.
#[tokio::test]
async fn commands_are_repeated_only_where_that_does_no_harm() {
    let mut world = World::new().await;
    for (name, command, status) in [("a", ".show A", 500), ("b", ".set B", 500), ("c", ".set C", 429)] {
        let mut rule = rule(name, "x");
        rule.spec.query = command.into();
        world.kusto.answer(command, Answer::Status(status, String::new()));
        world.store.apply(rule);
    }
    world.start().await;
    world.until(|world| ["a", "b", "c"].iter().all(|name| world.status(name).status == "Error")).await;
    let in_a_row = async |name| debug(&world, name).await["failuresInARow"].as_u64().unwrap();
    assert!(in_a_row("a").await > 0 && in_a_row("c").await > 0);
    assert_eq!(in_a_row("b").await, 0);
    world.stop().await;
}
