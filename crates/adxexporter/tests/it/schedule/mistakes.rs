//! Rules, rows and settings with mistakes.

use std::collections::BTreeMap;
use std::sync::Arc;

use adxexporter::push::PushConfig;
use adxexporter::{Config, Rules, start};
use crds::MetricsExporter;
use rules::clock::ManualClock;
use rules::lease::Leader;
use rules::store::memory::MemoryStore;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{OWNER, World, condition, exported_until, exporter, has, time};
use crate::fake_kusto::{Answer, FakeKusto};
use crate::receiver::{Receiver, Reply};

#[tokio::test]
async fn what_cannot_run_says_so_and_stops_no_other() {
    let mut elsewhere = exporter("elsewhere", "5m");
    elsewhere.spec.criteria = BTreeMap::from([("region".to_owned(), vec!["westus".to_owned()])]);
    let mut expression = exporter("expression", "5m");
    expression.spec.criteria_expression = "region ==".into();
    let mut values = exporter("values", "5m");
    values.spec.transform.value_columns.clear();
    let objects =
        [elsewhere, expression, values, exporter("zero", "0s"), exporter("days", "1d"), exporter("short", "500ms"), exporter("good", "5m")];
    let world = World::start("2024-01-01T10:17:00Z", objects).await;
    world.until_exported("good", "2024-01-01T10:15:00Z").await;

    let object = world.until("elsewhere", |object| has(object, "Criteria", "False")).await;
    assert_eq!(condition(&object, "Criteria").unwrap().1, "CriteriaNotMatched");
    // The reference logs this one and leaves the status as it was.
    let object = world.until("expression", |object| has(object, "Criteria", "False")).await;
    assert!(condition(&object, "Criteria").unwrap().2.starts_with("criteria expression error: cel parse:"), "{object:?}");
    for (name, part) in
        [("values", "spec.transform.valueColumns"), ("zero", "spec.interval"), ("days", "unknown unit \"d\""), ("short", "spec.interval")]
    {
        let object = world.until(name, |object| has(object, OWNER, "False")).await;
        let (_, reason, message) = condition(&object, OWNER).unwrap();
        assert_eq!(reason, "ExecutionFailed", "{name}");
        assert!(message.contains(part), "{name}: {message}");
        assert!(has(&object, "Failed", "True"), "{name}");
    }
    world.until_asleep("2024-01-01T10:20:00Z").await;
    assert_eq!((world.kusto.asked().len(), world.store.status_writes()), (1, 7));
    let mut events: Vec<(String, String)> = world.store.events().into_iter().map(|(key, event)| (key.name, event.reason)).collect();
    events.sort();
    let mistakes = [
        ("days", "InvalidRule"),
        ("expression", "CriteriaExpressionError"),
        ("short", "InvalidRule"),
        ("values", "InvalidRule"),
        ("zero", "InvalidRule"),
    ];
    assert_eq!(events, mistakes.map(|(name, reason)| (name.to_owned(), reason.to_owned())));

    // An edit is looked at at once.
    let mut fixed = MetricsExporter::clone(&world.get("zero"));
    fixed.spec.interval = "5m".into();
    world.store.apply(fixed);
    let object = world.until_exported("zero", "2024-01-01T10:15:00Z").await;
    assert!(has(&object, OWNER, "True"));
}

/// The reference does nothing at all for an unknown database.
#[tokio::test]
async fn a_database_that_nobody_serves_is_told() {
    let mut stray = exporter("stray", "5m");
    stray.spec.database = "Logs".into();
    let world = World::start("2024-01-01T10:17:00Z", [stray]).await;
    // Others may serve it, and have a minute to say so.
    world.until_asleep("2024-01-01T10:18:00Z").await;
    assert!(world.get("stray").status.is_none());
    world.clock.set(time("2024-01-01T10:18:00Z"));
    let object = world.until("stray", |object| has(object, OWNER, "False")).await;
    let (_, reason, message) = condition(&object, OWNER).unwrap();
    assert_eq!(reason, "DatabaseNotFound");
    assert!(message.starts_with("there is no database \"Logs\" on http://127.0.0.1:"), "{message}");
    assert!(message.ends_with("; this adxexporter serves Metrics"), "{message}");
    assert!(has(&object, "Failed", "True") && has(&object, "Completed", "False"));
    assert!(world.kusto.asked().is_empty());
}

#[tokio::test]
async fn a_database_that_another_process_exports_is_not_complained_about() {
    let mut other = exported_until(exporter("other", "5m"), "2024-01-01T10:15:00Z");
    other.spec.database = "Logs".into();
    other.metadata.generation = Some(3);
    let owner = json!([{"type": OWNER, "status": "True", "reason": "ExecutionSuccessful", "message": "", "observedGeneration": 3,
        "lastTransitionTime": "2024-01-01T10:15:05Z"}]);
    other.status.as_mut().unwrap().conditions = serde_json::from_value(owner).unwrap();
    let world = World::start("2024-01-01T10:17:00Z", [other, exporter("mine", "5m")]).await;
    world.until_exported("mine", "2024-01-01T10:15:00Z").await;
    world.until_asleep("2024-01-01T10:20:00Z").await;
    assert_eq!(world.store.status_writes(), 1);
}

#[tokio::test]
async fn rows_and_points_that_are_lost_stand_in_the_status() {
    let kusto = FakeKusto::start(|_| Answer::rows(&[("n", "long")], vec![json!([null]), json!([1]), json!([2])])).await;
    let receiver = Receiver::start([Reply::Partial(1, "too old")]).await;
    let clock = ManualClock::new(time("2024-01-01T10:17:00Z"));
    let world = World::around(clock, Arc::new(MemoryStore::new([exporter("a", "5m")])), kusto, receiver).await;
    let object = world.until_exported("a", "2024-01-01T10:15:00Z").await;
    let (status, _, message) = condition(&object, OWNER).unwrap();
    assert_eq!(status, "True");
    assert!(message.contains("; 1 of 3 rows were left out, the first: row 1, column \"n\": the value is null"), "{message}");
    assert!(message.contains("; the receiver rejected 1 points; the receiver said: too old"), "{message}");
    let status = object.status.as_ref().unwrap();
    assert_eq!((status.last_samples, status.last_skipped_rows), (1, 1));
    let metrics = world.metrics().await;
    for line in [
        "rows_total{namespace=\"ns\",name=\"a\"} 3\n",
        "skipped_rows_total{namespace=\"ns\",name=\"a\"} 1\n",
        "rejected_points_total{namespace=\"ns\",name=\"a\"} 1\n",
    ] {
        assert!(metrics.contains(&format!("adxmon_exporter_{line}")), "{metrics}");
    }
    let endpoint = world.receiver.http_url();
    for (name, count) in [("sent", 1), ("failed", 1)] {
        let line = format!("adxmon_collector_exporter_{name}_total{{exporter=\"PromToOtlp\",endpoint=\"{endpoint}\"}} {count}\n");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_said_at_the_start() {
    let store = Arc::new(MemoryStore::new([]));
    let start_with = |push: PushConfig, listen: &str| {
        let rules = Rules::Stores { exporters: store.clone(), summary_rules: None, leader: Leader::always() };
        let config = Config { listen: Some(listen.parse().unwrap()), ..Config::new(BTreeMap::new(), push, rules) };
        start(config, CancellationToken::new())
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = start_with(PushConfig::new("collector"), "127.0.0.1:0").await.unwrap_err();
    assert!(format!("{error:#}").contains("give a full URL"), "{error:#}");
    let error = start_with(PushConfig::new("http://localhost:1"), &taken.local_addr().unwrap().to_string()).await.unwrap_err();
    assert!(format!("{error:#}").contains("--health-probe-port"), "{error:#}");
}

#[tokio::test]
async fn a_body_of_a_megabyte_is_asked() {
    let mut big = exporter("big", "5m");
    big.spec.body.push_str(&format!("\n// {}", "x".repeat(1 << 20)));
    let world = World::start("2024-01-01T10:17:00Z", [big, exporter("small", "5m")]).await;
    world.until_exported("big", "2024-01-01T10:15:00Z").await;
    world.until_exported("small", "2024-01-01T10:15:00Z").await;
    assert!(world.kusto.asked().iter().any(|asked| asked.query.len() > 1 << 20));
}

#[tokio::test]
async fn rows_without_the_columns_are_told_with_what_there_is() {
    let world = World::start("2024-01-01T10:17:00Z", []).await;
    world.kusto.answer_with(|_| Answer::rows(&[("other", "long")], vec![json!([1])]));
    world.store.apply(exporter("a", "5m"));
    let object = world.until("a", |object| has(object, OWNER, "False")).await;
    let (_, _, message) = condition(&object, OWNER).unwrap();
    assert_eq!(message, "value column \"n\" is not in the query's result, which has other");
    let metrics = world.metrics().await;
    assert!(metrics.contains("runs_total{namespace=\"ns\",name=\"a\",outcome=\"transform_error\"} 1\n"), "{metrics}");
}
