//! From rule to receiver.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::AlertRule;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::fake::{Answer, Reply};
use crate::support::{assert_touching, text};
use crate::takeover::Shared;
use crate::world::{TICK, World, condition, key, rule};

#[tokio::test]
async fn a_row_becomes_a_notification_and_the_status_says_so() {
    let mut world = World::new().await;
    world.kusto.alert("Hot", "a");
    world.store.apply(rule("hot", "Hot"));
    world.start().await;
    let taken = world.receiver.taken(1).await;
    assert_eq!((taken[0].path.as_str(), taken[0].headers["content-type"].to_str().unwrap()), ("/alerts", "application/json"));
    assert_eq!(taken[0].headers["user-agent"], "adx-mon-alerter");
    let keys: BTreeSet<&str> = taken[0].body.as_object().unwrap().keys().map(String::as_str).collect();
    let all = ["Destination", "Title", "Summary", "Description", "Severity", "Source", "CorrelationID", "CustomFields"];
    assert_eq!(keys, BTreeSet::from(all));
    assert_eq!(
        (&taken[0].body["CorrelationID"], &taken[0].body["Source"], &taken[0].body["Severity"]),
        (&json!("ns/hot://a"), &json!("ns/hot"), &json!(2))
    );
    world.until(|world| world.status("hot").status == "Success").await;
    let status = world.status("hot");
    assert_eq!((status.last_rows_returned, status.last_alerts_generated, status.message.as_str()), (1, 1, ""));
    assert!(status.last_query_time.is_some() && status.last_alert_time.is_some() && status.last_window_end.is_some());
    assert_eq!(condition(&world, "hot", "Criteria"), Some(("True".into(), "CriteriaMatched".into())));
    let asked = &world.kusto.asked("Hot")[0];
    assert!(asked.csl.starts_with("declare query_parameters(ParamRegion:string, _adxmonEndTime:datetime,"), "{}", asked.csl);
    assert_eq!(asked.database, "DB");
    while !world.get("/metrics").await.contains("adxmon_alerter_alerts_generated_total 1") {}
    let metrics = world.get("/metrics").await;
    for line in [
        "adxmon_alerter_health_check{location=\"eastus\"} 1",
        "adxmon_alerter_query_health{namespace=\"ns\",name=\"hot\"} 1",
        "adxmon_alerter_queries_run_total 1",
        "adxmon_alerter_notification_unhealthy{namespace=\"ns\",name=\"hot\"} 0",
        "adxmon_alerter_alert_rule_evaluations_total{outcome=\"success\"} 1",
        "adxmon_alerter_alert_rule_evaluations_total{outcome=\"notification_throttled\"} 0",
        "adxmon_alerter_alerts_generated_total 1",
        "adxmon_alerter_alert_rule_evaluation_duration_seconds_bucket{le=\"0.5\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let debug: Value = serde_json::from_str(&world.get("/debug/rules").await).unwrap();
    assert_eq!(debug["ns/hot"]["last"]["outcome"], "success");
    assert_eq!(debug["ns/hot"]["nextRun"], "2026-01-01T10:05:00Z");
    assert_eq!(world.get("/readyz").await, "ok");
    // of a rule that is gone no series stays
    world.store.delete(&key("hot"));
    while world.get("/metrics").await.contains("name=\"hot\"") {}
    world.stop().await;
}

#[tokio::test]
async fn windows_touch_each_other_through_failures_late_runs_and_restarts() {
    let mut world = World::new().await;
    world.store.apply(rule("hot", "Hot"));
    world.start().await;
    world.kusto.wait_for("Hot", 1).await;
    world.until(|world| world.status("hot").status == "Success").await;
    world.advance(300);
    world.kusto.wait_for("Hot", 2).await;
    // access denied: no fault of the rule, so nobody is told, but the status says it
    world.kusto.answer("Hot", Answer::Status(403, String::new()));
    world.advance(300);
    world.until(|world| world.status("hot").status == "Error").await;
    assert!(world.status("hot").message.starts_with("Query execution failed: HTTP_403"), "{}", world.status("hot").message);
    assert!(world.get("/metrics").await.contains("adxmon_alerter_query_health{namespace=\"ns\",name=\"hot\"} 0"));
    world.kusto.answer("Hot", Answer::Rows(vec![("Title", "string"), ("Severity", "int")], Vec::new()));
    world.advance(300);
    world.until(|world| world.status("hot").status == "Success").await;
    assert_eq!(world.kusto.asked("Hot").len(), 4);
    world.stop().await;
    world.advance(1800);
    world.start().await;
    let asked = world.kusto.wait_for("Hot", 5).await;
    assert_touching(&asked, &[2]);
    assert_eq!(world.receiver.received().len(), 0);
    world.stop().await;
}

#[tokio::test]
async fn an_outage_longer_than_what_is_caught_up_with_is_named() {
    let mut world = World::new().await;
    world.store.apply(rule("hot", "Hot"));
    world.start().await;
    world.until(|world| world.status("hot").status == "Success").await;
    let end = world.kusto.asked("Hot")[0].window.unwrap().1 + TICK;
    world.stop().await;
    world.advance(7200);
    world.start().await;
    let asked = world.kusto.wait_for("Hot", 2).await;
    let (start, _) = asked[1].window.unwrap();
    assert_eq!(start, world.now() - SignedDuration::from_hours(1));
    world.until(|world| !world.store.events().is_empty()).await;
    let (of, event) = world.store.events().remove(0);
    assert_eq!((of, event.reason.as_str()), (key("hot"), "WindowSkipped"));
    assert!(event.note.contains(&format!("[{end}, {start})")), "{}", event.note);
    world.until(|world| condition(world, "hot", "Skipped") == Some(("True".into(), "WindowSkipped".into()))).await;
    assert!(world.get("/metrics").await.contains("adxmon_alerter_windows_skipped_total 1"));
    world.stop().await;
}

#[tokio::test]
async fn what_the_receiver_does_not_take_waits_and_survives_a_restart() {
    let mut world = World::new().await;
    world.receiver.reply("", Reply::Status(500, Vec::new()));
    world.kusto.alert("Hot", "a");
    world.store.apply(rule("hot", "Hot"));
    world.start().await;
    world.receiver.came(1).await;
    world.until(|world| condition(world, "hot", "Delivered").is_some()).await;
    assert_eq!(condition(&world, "hot", "Delivered"), Some(("False".into(), "TargetFails".into())));
    // the query itself was fine
    assert_eq!(world.status("hot").status, "Success");
    assert!(world.get("/metrics").await.contains("adxmon_alerter_notification_unhealthy{namespace=\"ns\",name=\"hot\"} 1"));
    world.stop().await;
    world.start().await;
    let before = world.receiver.received().len();
    // any 2xx will do: the reference insists on 201, and loses what it does not get
    world.receiver.reply("", Reply::Status(200, Vec::new()));
    world.until(|world| world.receiver.received().len() > before).await;
    let taken = world.receiver.taken(1).await;
    assert_eq!((taken.len(), &taken[0].body["CorrelationID"]), (1, &json!("ns/hot://a")));
    world.until(|world| condition(world, "hot", "Delivered") == Some(("True".into(), "AllTaken".into()))).await;
    world.stop().await;
}

#[tokio::test]
async fn a_receiver_that_asks_for_a_pause_gets_it() {
    let mut world = World::new().await;
    world.receiver.reply("", Reply::Status(429, vec![("retry-after", "30")]));
    world.kusto.alert("Hot", "a");
    world.store.apply(rule("hot", "Hot"));
    world.start().await;
    world.receiver.came(1).await;
    world.receiver.reply("", Reply::Status(201, Vec::new()));
    let began = world.now();
    world.until(|world| condition(world, "hot", "Delivered").is_some()).await;
    let (earliest, latest) = (began + SignedDuration::from_secs(30), began + SignedDuration::from_secs(32));
    let again = world.advance_to_deadline_within(earliest, latest).await;
    assert_eq!(world.receiver.received().len(), 1, "nothing was sent before");
    world.clock.set(again);
    world.receiver.taken(1).await;
    world.stop().await;
}

#[tokio::test]
async fn a_destination_that_hangs_holds_nothing_else_up() {
    let mut world = World::new().await;
    world.receiver.reply("stuck", Reply::Hang);
    let rows = (0..12).map(|n| vec![json!(format!("t{n}")), json!(1)]).collect();
    world.kusto.answer("Stuck", Answer::Rows(vec![("Title", "string"), ("Severity", "int")], rows));
    world.kusto.alert("Hot", "a");
    let mut stuck = rule("a-stuck", "Stuck");
    stuck.spec.destination = "stuck".into();
    world.store.apply(stuck);
    world.start().await;
    world.receiver.came(2).await;
    world.store.apply(rule("hot", "Hot"));
    for round in 1..4 {
        world.until(|world| world.receiver.received().iter().filter(|r| r.taken).count() >= round).await;
        world.advance(300);
    }
    // and of the one that hangs no more than its share was asked
    assert_eq!(world.receiver.received().iter().filter(|r| !r.taken).count(), 2);
    assert!(world.kusto.asked("Stuck").len() >= 3);
}

#[tokio::test]
async fn too_many_rows_are_named_in_one_alert() {
    let mut world = World::new().await;
    world.config.max_notifications = 2;
    let rows = (1..=3).map(|n| vec![json!(format!("t{n}")), json!(n)]).collect();
    world.kusto.answer("Hot", Answer::Rows(vec![("Title", "string"), ("Severity", "int")], rows));
    world.store.apply(rule("hot", "Hot"));
    world.start().await;
    let taken = world.receiver.taken(3).await;
    let throttle = taken.iter().find(|r| r.body["Source"] == "notification-failure/ns/hot").unwrap();
    assert_eq!(throttle.body["Title"], "Alert ns/hot has too many notifications in eastus");
    assert!(text(&throttle.body["Summary"]).contains("Held back: 1<ul><li>severity 3: t3</li></ul>"), "{}", throttle.body["Summary"]);
    world.until(|world| world.status("hot").status == "Throttled").await;
    let status = world.status("hot");
    assert_eq!((status.message.as_str(), status.last_rows_returned, status.last_alerts_generated), ("Too many notifications sent", 0, 2));
    world.stop().await;
}

#[tokio::test]
async fn rules_that_cannot_run_say_why_and_others_run_on_time() {
    let mut world = World::new().await;
    // Defect: the reference takes a syntax error without certain words for a failure of the service, and tells nobody.
    let syntax = r#"{"error":{"code":"General_BadRequest","message":"Bad","@message":"Syntax error: SYN0002: <no> [line:position=6:3]","@permanent":true}}"#;
    world.kusto.answer("Wrong", Answer::Status(400, syntax.into()));
    world.kusto.answer("NoTitle", Answer::Rows(vec![("Severity", "int")], vec![vec![json!(1)]]));
    world.kusto.answer("NoSeverity", Answer::Rows(vec![("Title", "string")], vec![vec![json!("t")]]));
    let with = |name: &str, word: &str, change: &dyn Fn(&mut AlertRule)| {
        let mut rule = rule(name, word);
        change(&mut rule);
        world.store.apply(rule);
    };
    with("wrong", "Wrong", &|_| {});
    with("no-title", "NoTitle", &|_| {});
    with("no-severity", "NoSeverity", &|_| {});
    with("no-database", "Fine", &|rule| rule.spec.database = "db".into());
    with("zero", "Fine", &|rule| rule.spec.interval = "0s".into());
    with("bogus", "Fine", &|rule| rule.spec.interval = "1d".into());
    with("unset", "Fine", &|rule| rule.spec.query = String::new());
    with("criteria", "Fine", &|rule| rule.spec.criteria_expression = "region ==".into());
    with("large", "Fine", &|rule| rule.spec.query.push_str(&"// x\n".repeat(200_000)));
    with("fine", "Fine", &|_| {});
    world.start().await;
    let expected = [
        ("wrong", "Error", "Query failed with user error: "),
        ("no-title", "Error", "Query failed with user error: title must be between 1 and 512 chars"),
        ("no-severity", "Error", "Query failed with user error: severity must be specified"),
        ("no-database", "Error", "Query failed with user error: no client for database \"db\"; did you mean \"DB\"?"),
        ("zero", "Error", "Invalid rule: spec.interval"),
        ("bogus", "Error", "Invalid rule: spec.interval: time: unknown unit \"d\" in duration \"1d\""),
        ("unset", "Error", "Invalid rule: spec.query"),
        ("large", "Success", ""),
        ("fine", "Success", ""),
    ];
    world.until(|world| expected.iter().all(|(name, status, _)| world.status(name).status == *status)).await;
    for (name, _, message) in expected {
        assert!(world.status(name).message.starts_with(message), "{name}: {}", world.status(name).message);
    }
    assert!(world.status("wrong").message.contains("line 2, column 3 of the rule's query"), "{}", world.status("wrong").message);
    let gate = world.status("criteria").conditions.remove(0);
    assert_eq!((gate.status.as_str(), gate.reason.as_str()), ("False", "CriteriaExpressionError"));
    assert!(gate.message.starts_with("criteria expression error: "), "{}", gate.message);
    let mut told: Vec<String> = world.store.events().into_iter().map(|(key, event)| format!("{} {}", key.name, event.reason)).collect();
    told.sort();
    let queries = ["no-database", "no-severity", "no-title", "wrong"].map(|name| format!("{name} QueryFailed"));
    let specs = ["bogus", "unset", "zero"].map(|name| format!("{name} InvalidRule"));
    let mut expected: Vec<String> = queries.into_iter().chain(specs).chain(["criteria CriteriaExpressionError".to_owned()]).collect();
    expected.sort();
    assert_eq!(told, expected);
    // who is told: the four whose query is wrong
    let taken = world.receiver.taken(4).await;
    let ids: BTreeSet<&str> = taken.iter().map(|r| text(&r.body["CorrelationID"])).collect();
    let host = &world.kusto.url;
    let failures = ["wrong", "no-title", "no-severity"].map(|name| format!("alert-failure/{host}/ns/{name}"));
    let unknown = "alert-failure/unknown/ns/no-database".to_owned();
    assert_eq!(ids, failures.iter().chain([&unknown]).map(String::as_str).collect());
    let wrong = taken.iter().find(|r| r.body["Source"] == "ns/wrong").unwrap();
    assert!(text(&wrong.body["Summary"]).contains("&lt;no&gt;") && wrong.body["CustomFields"].is_null());
    let metrics = world.get("/metrics").await;
    assert!(
        metrics.contains("evaluations_total{outcome=\"user_error\"} 4") && metrics.contains("evaluations_total{outcome=\"setup_error\"} 3")
    );
    assert!(metrics.contains("adxmon_alerter_query_health{namespace=\"ns\",name=\"wrong\"} 1"));
    world.stop().await;
}

#[tokio::test]
async fn criteria_decide_anew_when_they_change() {
    let mut world = World::new().await;
    let mut elsewhere = rule("hot", "Hot");
    elsewhere.spec.criteria = BTreeMap::from([("region".to_owned(), vec!["mars".to_owned()])]);
    world.store.apply(elsewhere.clone());
    world.start().await;
    world.until(|world| condition(world, "hot", "Criteria") == Some(("False".into(), "CriteriaNotMatched".into()))).await;
    assert_eq!(world.kusto.asked("Hot").len(), 0);
    assert_eq!(world.status("hot").status, "");
    elsewhere.spec.criteria = BTreeMap::from([("Region".to_owned(), vec!["EastUS".to_owned()])]);
    world.store.apply(elsewhere);
    world.kusto.wait_for("Hot", 1).await;
    world.until(|world| condition(world, "hot", "Criteria") == Some(("True".into(), "CriteriaMatched".into()))).await;
    world.stop().await;
}

#[tokio::test]
async fn statuses_are_written_for_news_and_not_for_runs() {
    let mut world = World::new().await;
    for n in 0..5 {
        world.store.apply(rule(&format!("r{n}"), "Quiet"));
    }
    world.start().await;
    world.until(|world| (0..5).all(|n| world.status(&format!("r{n}")).status == "Success")).await;
    let first = world.store.status_writes();
    assert!(first <= 10, "{first}");
    // ten rounds within the hour
    for round in 2..=11 {
        world.advance(300);
        world.until(|world| world.kusto.asked("Quiet").len() >= 5 * round).await;
    }
    assert_eq!(world.store.status_writes(), first);
    // and once an hour the times
    world.advance(1000);
    world.until(|world| world.store.status_writes() > first).await;
    world.stop().await;
}

/// What another alerter wrote while it led is not what we wrote last.
#[tokio::test]
async fn who_leads_again_writes_statuses_anew() {
    let (hold, holds) = watch::channel(true);
    let mut world = World::new().await;
    world.cluster = Some((holds, Arc::new(Shared::default())));
    world.store.apply(rule("hot", "Hot"));
    world.start().await;
    world.until(|world| world.status("hot").status == "Success").await;
    hold.send_replace(false);
    while world.get("/debug/rules").await != "{}" {}
    let failed = |rule: &mut AlertRule| rule.status.get_or_insert_default().status = "Error".into();
    rules::store::Store::update_status(&*world.store, &key("hot"), &failed).await.unwrap();
    world.advance(600);
    hold.send_replace(true);
    world.until(|world| world.status("hot").status == "Success").await;
    world.stop().await;
}

#[tokio::test]
async fn many_rules_begin_apart_but_within_ten_seconds() {
    let mut world = World::new().await;
    for n in 0..300 {
        world.store.apply(rule(&format!("r{n}"), "Quiet"));
    }
    world.start().await;
    let begin = world.now();
    world.kusto.wait_for("Quiet", 1).await;
    let at_once = world.kusto.asked("Quiet").len();
    world.until(|world| world.kusto.asked("Quiet").len() >= 300).await;
    assert!(at_once < 50, "{at_once} began at once");
    assert!(world.now().duration_since(begin) <= SignedDuration::from_secs(10));
    world.stop().await;
}

#[tokio::test]
async fn alertmanager_is_told_too_and_auto_mitigation_is_sent_on() {
    let mut world = World::new().await;
    let manager = crate::fake::Receiver::start().await;
    manager.reply("", Reply::Status(200, Vec::new()));
    world.config.alertmanager_url = Some(format!("{}/prefix/", manager.url));
    world.kusto.alert("Hot", "a");
    let mut hot = rule("hot", "Hot");
    hot.spec.auto_mitigate_after = "1h".into();
    world.store.apply(hot);
    world.start().await;
    let taken = manager.taken(1).await;
    assert_eq!(taken[0].path, "/prefix/api/v2/alerts");
    let alert = &taken[0].body[0];
    assert_eq!((&alert["labels"]["alertname"], &alert["labels"]["correlation_id"]), (&json!("hot"), &json!("ns/hot://a")));
    assert_eq!((&alert["startsAt"], &alert["endsAt"]), (&json!("2026-01-01T09:55:00Z"), &json!("2026-01-01T11:00:00Z")));
    assert_eq!(world.receiver.taken(1).await[0].body["AutoMitigateAfter"], "1h");
    world.stop().await;
}

#[tokio::test]
async fn without_a_receiver_alerts_are_logged_by_our_own() {
    let mut world = World::new().await;
    world.config.alerter_address = String::new();
    world.kusto.alert("Hot", "a");
    world.store.apply(rule("hot", "Hot"));
    world.start().await;
    while !world.get("/metrics").await.contains("adxmon_alerter_alerts_generated_total 1") {}
    world.stop().await;
}

#[tokio::test]
async fn commands_are_sent_as_they_are() {
    let mut world = World::new().await;
    let mut command = rule("command", "x");
    command.spec.query = "\n// what there is\n.show tables".into();
    world.store.apply(command);
    world.start().await;
    let asked = world.kusto.wait_for(".show tables", 1).await;
    assert_eq!((asked[0].csl.as_str(), asked[0].window), (".show tables", None));
    world.stop().await;
}

#[tokio::test]
async fn profiles_are_taken_where_they_are_asked_for() {
    for (profiles, expected) in [(false, false), (true, true)] {
        let mut world = World::new().await;
        world.config.profiles = profiles;
        world.start().await;
        assert_eq!(world.get("/debug/pprof/").await.contains("profile?seconds=10"), expected);
        world.stop().await;
    }
}
