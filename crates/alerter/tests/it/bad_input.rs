//! Bad input: each costs the rule that has it, whose status says so; other rules run on time.
//!
//! Elsewhere: bad queries, an interval of zero, unknown databases and rows without the required columns in
//! `end_to_end::rules_that_cannot_run_say_why_and_others_run_on_time`; an API server that goes away and comes back with its
//! watches gone, and status writes that conflict, in the tests of the stores (`crates/rules/tests/it/kubernetes.rs`).

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;

use crate::fake::{Answer, Kusto, Reply};
use crate::support::text;
use crate::world::{TICK, World, condition, rule};

/// What a query may take in these tests; the client adds five seconds in which the service may say so itself.
const DEADLINE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_rule_of_a_megabyte_runs_and_its_alert_arrives() {
    let mut world = World::new().await;
    world.kusto.alert("Large", "a");
    let mut large = rule("large", "Large");
    large.spec.query.push_str(&format!(" // {}", "x".repeat(1 << 20)));
    world.store.apply(large);
    world.start().await;
    let taken = world.receiver.taken(1).await;
    assert_eq!(taken[0].body["CorrelationID"], "ns/large://a");
    // Receivers and browsers have their bounds too: the query is shown as far as anybody would read.
    let summary = text(&taken[0].body["Summary"]);
    assert!(summary.contains("Large | where") && summary.len() < 64 << 10, "{}", summary.len());
    world.until(|world| world.status("large").status == "Success").await;
    world.stop().await;
}

/// Kusto may show the whole query in its error.
#[tokio::test]
async fn an_error_of_a_megabyte_is_cut_in_the_status() {
    let mut world = World::new().await;
    let error = json!({"error": {"code": "General_BadRequest", "@message": "y".repeat(1 << 18), "@permanent": true}});
    world.kusto.answer("Large", Answer::Status(400, error.to_string()));
    world.store.apply(rule("large", "Large"));
    world.start().await;
    world.until(|world| world.status("large").status == "Error").await;
    let message = world.status("large").message;
    assert!(message.starts_with("Query failed with user error: ") && message.chars().count() <= 4096, "{}", message.len());
    assert_eq!(world.receiver.taken(1).await[0].body["Source"], "ns/large");
    world.stop().await;
}

/// Two databases at an endpoint that hangs, one at another: however many rules hang, those of the other run on time.
#[tokio::test]
async fn an_endpoint_that_hangs_holds_up_no_rule_of_another() {
    let (mut world, other) = (World::new().await, Kusto::start().await);
    (world.config.concurrency, world.config.deadlines.query) = (4, DEADLINE);
    let hangs = world.kusto.url.clone();
    world.config.kusto_endpoints =
        BTreeMap::from([("DB".to_owned(), hangs.clone()), ("Second".to_owned(), hangs), ("Other".to_owned(), other.url.clone())]);
    world.kusto.answer("Stuck", Answer::Hang);
    for at in 0..8 {
        let mut stuck = rule(&format!("a-stuck-{at}"), "Stuck");
        stuck.spec.database = ["DB", "Second"][at % 2].into();
        world.store.apply(stuck);
    }
    world.start().await;
    world.until(|world| world.kusto.asked("Stuck").len() == 3).await;
    other.alert("Calm", "a");
    let mut calm = rule("calm", "Calm");
    calm.spec.database = "Other".into();
    world.store.apply(calm);
    for round in 1..=3 {
        world.until(|_| other.asked("Calm").len() >= round).await;
        let (_, end) = other.asked("Calm")[round - 1].window.unwrap();
        assert!(world.now().duration_since(end).as_secs() <= 1, "round {round} is late");
        world.advance(300);
    }
    world.receiver.taken(1).await;
    assert_eq!(world.kusto.asked("Stuck").len(), 3);
    // Once their time is up, others have a turn.
    let failed = |world: &World| (0..8).filter(|at| world.status(&format!("a-stuck-{at}")).message.contains("DEADLINE")).count();
    world.until(|world| failed(world) == 3 && world.kusto.asked("Stuck").len() >= 6).await;
    world.stop().await;
}

/// More rules of one endpoint hang than there are slots: each is cut off once, and then they share half of the slots, so that
/// the others run on time.
#[tokio::test]
async fn rules_of_an_endpoint_run_on_time_while_more_of_them_hang_than_there_are_slots() {
    let mut world = World::new().await;
    (world.config.concurrency, world.config.deadlines.quick) = (4, Duration::from_secs(2));
    world.kusto.answer("Stuck", Answer::Hang);
    for at in 0..8 {
        world.store.apply(rule(&format!("a-stuck-{at}"), "Stuck"));
    }
    world.store.apply(rule("calm", "Calm"));
    world.start().await;
    for round in 1..=3 {
        world.until(|world| world.kusto.asked("Calm").len() >= round).await;
        let (_, end) = world.kusto.asked("Calm")[round - 1].window.unwrap();
        assert!(world.now().duration_since(end).as_secs() <= 1, "round {round} is late");
        world.until(|world| world.kusto.asked("Stuck").len() >= 10).await;
        world.advance(300);
    }
    world.until(|world| world.kusto.asked("Calm").len() >= 4).await;
    assert_eq!(world.kusto.asked("Stuck").len(), 10, "two of them have all the time that there is");
    assert!(world.get("/metrics").await.contains("adxmon_alerter_queries_cut_off_total 8"));
    let debug: serde_json::Value = serde_json::from_str(&world.get("/debug/rules").await).unwrap();
    assert_eq!((&debug["ns/a-stuck-0"]["slow"], &debug["ns/calm"]["slow"]), (&json!(true), &json!(false)));
    world.stop().await;
}

/// A query that takes long is not wrong: cut off once, it succeeds with the same window's beginning, and nobody is told of it.
#[tokio::test]
async fn a_query_that_takes_long_gets_its_time() {
    let mut world = World::new().await;
    world.config.deadlines.quick = Duration::from_millis(100);
    let (release, released) = tokio::sync::watch::channel(false);
    world.kusto.answer("Long", Answer::Later(released));
    world.store.apply(rule("long", "Long"));
    // What may change something is not cut off: nobody knows whether it was done.
    world.kusto.answer(".set", Answer::Hang);
    let mut command = rule("command", "x");
    command.spec.query = ".set T <| print 1".into();
    world.store.apply(command);
    world.start().await;
    world.until(|world| world.kusto.asked("Long").len() == 2 && world.kusto.asked(".set").len() == 1).await;
    let asked = world.kusto.asked("Long");
    assert_eq!(asked[0].window.unwrap().0, asked[1].window.unwrap().0);
    release.send_replace(true);
    world.until(|world| world.status("long").status == "Success").await;
    let metrics = world.get("/metrics").await;
    assert!(metrics.contains("evaluations_total{outcome=\"service_error\"} 0") && metrics.contains("queries_cut_off_total 1"), "{metrics}");
    assert_eq!((world.kusto.asked("Long").len(), world.kusto.asked(".set").len()), (2, 1));
    world.stop().await;
}

/// What Kusto took while it hung is waited for once. From then on the rule is on time, and one of the quick ones.
#[tokio::test]
async fn a_rule_whose_query_hung_is_back_on_schedule_and_has_missed_nothing() {
    let mut world = World::new().await;
    // Far more than an answer takes on a busy machine.
    let seconds = Duration::from_secs;
    (world.config.deadlines.query, world.config.deadlines.quick) = (seconds(5), seconds(4));
    world.kusto.answer("Stuck", Answer::Hang);
    world.store.apply(rule("stuck", "Stuck"));
    world.start().await;
    world.until(|world| world.kusto.asked("Stuck").len() == 2).await;
    world.kusto.alert("Stuck", "a");
    world.until(|world| world.status("stuck").message.contains("DEADLINE")).await;
    let failed = world.now();
    let retry = world.advance_to_deadline_within(failed + TICK, failed + SignedDuration::from_secs(3)).await;
    world.clock.set(retry);
    world.until(|world| world.status("stuck").status == "Success").await;
    for round in 3..6 {
        world.until(|world| world.kusto.asked("Stuck").len() == round).await;
        let (start, end) = world.kusto.asked("Stuck")[round - 1].window.unwrap();
        let (before, begun) = (&world.kusto.asked("Stuck")[round - 2], world.kusto.asked("Stuck")[0].window.unwrap().0);
        assert_eq!(start, if round == 3 { begun } else { before.window.unwrap().1 + TICK }, "round {round}");
        assert!(round == 3 || world.now().duration_since(end).as_secs() <= 1, "round {round} is late");
        world.advance(300);
    }
    let debug: serde_json::Value = serde_json::from_str(&world.get("/debug/rules").await).unwrap();
    assert_eq!(debug["ns/stuck"]["slow"], false);
    assert!(world.get("/metrics").await.contains("queries_cut_off_total 1"));
    world.stop().await;
}

#[tokio::test]
async fn queries_that_hang_hold_up_no_other_while_there_are_slots() {
    let mut world = World::new().await;
    world.config.concurrency = 3;
    world.kusto.answer("Stuck", Answer::Hang);
    world.store.apply(rule("a-stuck", "Stuck"));
    world.store.apply(rule("b-stuck", "Stuck"));
    world.store.apply(rule("calm", "Calm"));
    world.start().await;
    for round in 1..=3 {
        world.until(|world| world.kusto.asked("Calm").len() >= round).await;
        world.advance(300);
    }
    assert_eq!(world.kusto.asked("Stuck").len(), 2);
    world.stop().await;
}

/// Whatever is no fault of the rule: the status says what it was, nobody is told, health goes to 0.
#[tokio::test]
async fn failures_of_kusto_are_errors_of_the_service() {
    let mut world = World::new().await;
    // A port that nobody listens on.
    world.config.deadlines.query = DEADLINE;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    world.config.kusto_endpoints.insert("Gone".into(), format!("http://{gone}"));
    let cases = [
        ("busy", Answer::Busy(60), "HTTP_429: "),
        ("failing", Answer::Status(500, "internal".into()), "HTTP_500: "),
        ("gateway", Answer::Status(502, String::new()), "HTTP_502: "),
        ("away", Answer::Status(503, String::new()), "HTTP_503: "),
        ("hanging", Answer::Hang, "DEADLINE: querying database DB: no answer within 300ms"),
        ("stalled", Answer::Stall, "DEADLINE: querying database DB: no answer within 300ms"),
    ];
    for (name, answer, _) in &cases {
        world.kusto.answer(name, answer.clone());
        world.store.apply(rule(name, name));
    }
    let mut refused = rule("refused", "x");
    refused.spec.database = "Gone".into();
    world.store.apply(refused);
    world.start().await;
    world.until(|world| cases.iter().all(|(name, ..)| !world.kusto.asked(name).is_empty())).await;
    let names = || cases.iter().map(|(name, _, message)| (*name, *message)).chain([("refused", "CONNECT: ")]);
    world.until(|world| names().all(|(name, _)| world.status(name).status == "Error")).await;
    let metrics = world.get("/metrics").await;
    for (name, message) in names() {
        let status = world.status(name);
        assert!(status.message.starts_with(&format!("Query execution failed: {message}")), "{name}: {}", status.message);
        assert_eq!((status.last_rows_returned, status.last_alerts_generated, status.last_window_end), (0, 0, None), "{name}");
        assert!(status.last_query_time.is_some() && status.last_alert_time.is_none(), "{name}");
        assert!(metrics.contains(&format!("adxmon_alerter_query_health{{namespace=\"ns\",name=\"{name}\"}} 0")), "{name}\n{metrics}");
    }
    let count = |outcome: &str| {
        let line = format!("adxmon_alerter_alert_rule_evaluations_total{{outcome=\"{outcome}\"}} ");
        metrics.lines().find_map(|text| text.strip_prefix(&line)).unwrap().parse::<usize>().unwrap()
    };
    assert!(count("service_error") > cases.len());
    assert_eq!((count("success"), count("user_error"), count("setup_error"), count("notification_throttled")), (0, 0, 0, 0));
    assert_eq!(world.receiver.received().len(), 0);
    world.stop().await;
}

/// How often the receiver was sent what it does not take.
fn tries(world: &World) -> usize {
    world.receiver.received().iter().filter(|r| r.body["Destination"] == "team").count()
}

/// Ten seconds, and time for what they bring.
async fn step(world: &World) {
    world.advance(10);
    world.get("/healthz").await;
}

/// An hour in which the destination `team` takes nothing, in rounds of five minutes: rules run, others get their alerts, and
/// the alert waits.
async fn an_hour_without(reply: Reply) {
    let mut world = World::new().await;
    world.config.deadlines.delivery = Duration::from_millis(300);
    world.receiver.reply("team", reply);
    world.kusto.alert("Once", "a");
    let mut once = rule("once", "Once");
    once.spec.interval = "24h".into();
    world.store.apply(once);
    world.kusto.alert("Calm", "b");
    let mut calm = rule("calm", "Calm");
    calm.spec.destination = "others".into();
    world.store.apply(calm);
    world.start().await;
    let taken = |world: &World, destination: &str| {
        world.receiver.received().iter().filter(|r| r.taken && r.body["Destination"] == destination).count()
    };
    for round in 1..=12 {
        world.until(|world| taken(world, "others") >= round).await;
        for _ in 0..30 {
            step(&world).await;
        }
    }
    while condition(&world, "once", "Delivered") != Some(("False".into(), "TargetFails".into())) {
        step(&world).await;
    }
    assert_eq!(world.status("once").status, "Success", "the query itself was fine");
    // Pauses grow to five minutes.
    assert!((1..=40).contains(&tries(&world)), "{} tries", tries(&world));
    world.receiver.reply("team", Reply::Status(201, Vec::new()));
    while condition(&world, "once", "Delivered") != Some(("True".into(), "AllTaken".into())) {
        step(&world).await;
    }
    assert_eq!(taken(&world, "team"), 1);
    assert_eq!(world.kusto.asked("Once").len(), 1, "its window is done");
    world.stop().await;
}

#[tokio::test]
async fn a_receiver_that_answers_500_for_an_hour_costs_no_alert() {
    an_hour_without(Reply::Status(500, Vec::new())).await;
}

#[tokio::test]
async fn a_receiver_that_hangs_for_an_hour_costs_no_alert() {
    an_hour_without(Reply::Hang).await;
}
