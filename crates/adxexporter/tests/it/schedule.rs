//! Exporters in a store, a clock that is moved by hand, a Kusto and a receiver: what runs when, and what
//! the status says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use adxexporter::push::{PushConfig, RetryPolicy};
use adxexporter::{Bounds, Config, Rules, Running, start};
use async_trait::async_trait;
use crds::{MetricsExporter, MetricsExporterSpec, MetricsExporterStatus, SummaryRule, Time, Transform};
use jiff::Timestamp;
use rules::clock::{Clock as _, ManualClock};
use rules::lease::{Baton, Leader};
use rules::store::memory::MemoryStore;
use rules::store::{Change, Event, Key, Objects, Store, StoreError};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::fake_kusto::{Answer, Asked, FakeKusto};
use crate::receiver::{Receiver, Reply, gauge};

const OWNER: &str = "metricsexporter.adx-mon.azure.com";

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn exporter(name: &str, interval: &str) -> MetricsExporter {
    let transform = Transform { default_metric_name: "m".into(), value_columns: vec!["n".into()], ..Transform::default() };
    let spec = MetricsExporterSpec {
        database: "Metrics".into(),
        body: format!("{name}\n| where at between (_startTime .. _endTime)"),
        interval: interval.into(),
        transform,
        ..MetricsExporterSpec::default()
    };
    let mut exporter = MetricsExporter::new(name, spec);
    exporter.metadata.namespace = Some("ns".into());
    exporter
}

fn exported_until(mut exporter: MetricsExporter, end: &str) -> MetricsExporter {
    exporter.status = Some(MetricsExporterStatus { last_window_end: Some(Time(time(end))), ..MetricsExporterStatus::default() });
    exporter
}

fn one_row(_: &Asked) -> Answer {
    Answer::rows(&[("n", "long")], vec![json!([1])])
}

struct World {
    clock: ManualClock,
    store: Arc<MemoryStore<MetricsExporter>>,
    kusto: FakeKusto,
    receiver: Receiver,
    baton: Baton,
    stop: CancellationToken,
    running: Running,
}

impl World {
    async fn start(now: &str, exporters: impl IntoIterator<Item = MetricsExporter>) -> World {
        let kusto = FakeKusto::start(one_row).await;
        World::around(ManualClock::new(time(now)), Arc::new(MemoryStore::new(exporters)), kusto, Receiver::start([]).await).await
    }

    async fn around(clock: ManualClock, store: Arc<MemoryStore<MetricsExporter>>, kusto: FakeKusto, receiver: Receiver) -> World {
        World::with_databases(clock, store, kusto, receiver, BTreeMap::new()).await
    }

    /// A world with further databases beside that of `kusto`.
    async fn with_databases(
        clock: ManualClock,
        store: Arc<MemoryStore<MetricsExporter>>,
        kusto: FakeKusto,
        receiver: Receiver,
        databases: BTreeMap<String, kusto::Client>,
    ) -> World {
        World::through(store.clone(), clock, store, kusto, receiver, databases).await
    }

    /// A world whose exporters are reached by another way than their store.
    async fn through(
        exporters: Arc<dyn Store<MetricsExporter>>,
        clock: ManualClock,
        store: Arc<MemoryStore<MetricsExporter>>,
        kusto: FakeKusto,
        receiver: Receiver,
        mut databases: BTreeMap<String, kusto::Client>,
    ) -> World {
        let stop = CancellationToken::new();
        let (baton, leader) = Leader::told();
        baton.pass(true);
        let ms = Duration::from_millis;
        let retry = RetryPolicy { first_pause: ms(1), longest_pause: ms(2), total: ms(20) };
        let push = PushConfig { retry, ..PushConfig::new(&receiver.http_url()) };
        databases.insert("Metrics".to_owned(), kusto.client());
        let config = Config {
            labels: BTreeMap::from([("region".to_owned(), "eastus".to_owned())]),
            prefix: "Adx".into(),
            listen: Some("127.0.0.1:0".parse().unwrap()),
            bounds: Bounds { catch_up: Duration::from_secs(3 * 3600), ..Bounds::default() },
            clock: Arc::new(clock.clone()),
            // The longest pauses.
            random: || 1.0,
            ..Config::new(databases, push, Rules::Stores { exporters, summary_rules: None, leader })
        };
        let running = start(config, stop.clone()).await.unwrap();
        World { clock, store, kusto, receiver, baton, stop, running }
    }

    fn get(&self, name: &str) -> Arc<MetricsExporter> {
        self.store.objects().get(&Key::new("ns", name)).unwrap()
    }

    /// Waits until an exporter looks like this.
    async fn until(&self, name: &str, is: impl Fn(&MetricsExporter) -> bool) -> Arc<MetricsExporter> {
        let mut objects = self.store.objects();
        let wait = async {
            loop {
                let object = objects.get(&Key::new("ns", name)).unwrap();
                if is(&object) {
                    return object;
                }
                objects.changed().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("{:?}", self.get(name).status))
    }

    async fn until_exported(&self, name: &str, end: &str) -> Arc<MetricsExporter> {
        self.until(name, |object| last_end(object) == Some(time(end))).await
    }

    /// Waits until nothing is left to do before that time.
    async fn until_asleep(&self, deadline: &str) {
        let wait = async {
            while self.clock.next_deadline().await != time(deadline) {
                tokio::task::yield_now().await;
            }
        };
        let deadline = tokio::time::timeout(Duration::from_secs(20), wait).await;
        assert!(deadline.is_ok(), "asleep until {}", self.clock.next_deadline().await);
    }

    async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.running.address.unwrap());
        reqwest::get(url).await.unwrap().text().await.unwrap()
    }

    async fn end(self) -> (ManualClock, Arc<MemoryStore<MetricsExporter>>, FakeKusto, Receiver) {
        self.stop.cancel();
        self.running.finished().await.unwrap();
        (self.clock, self.store, self.kusto, self.receiver)
    }
}

fn last_end(object: &MetricsExporter) -> Option<Timestamp> {
    Some(object.status.as_ref()?.last_window_end.as_ref()?.0)
}

/// Status, reason and message of a condition.
fn condition(object: &MetricsExporter, type_: &str) -> Option<(String, String, String)> {
    let condition = object.status.as_ref()?.conditions.iter().find(|c| c.type_ == type_)?;
    Some((condition.status.clone(), condition.reason.clone(), condition.message.clone()))
}

fn has(object: &MetricsExporter, type_: &str, status: &str) -> bool {
    condition(object, type_).is_some_and(|c| c.0 == status)
}

fn windows(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(start, end)| (format!("2024-01-01T{start}Z"), format!("2024-01-01T{end}.9999999Z"))).collect()
}

#[tokio::test]
async fn full_windows_follow_each_other_and_no_status_starts_a_run() {
    let world = World::start("2024-01-01T10:17:23Z", [exporter("a", "5m")]).await;
    world.until_exported("a", "2024-01-01T10:15:00Z").await;
    world.until_asleep("2024-01-01T10:20:00Z").await;
    world.clock.set(time("2024-01-01T10:19:59.9Z"));
    world.until_asleep("2024-01-01T10:20:00Z").await;
    assert_eq!((world.kusto.asked().len(), world.store.status_writes()), (1, 1));
    world.clock.set(time("2024-01-01T10:20:00Z"));
    let object = world.until_exported("a", "2024-01-01T10:20:00Z").await;
    world.until_asleep("2024-01-01T10:25:00Z").await;

    // The reference's windows have both ends in common with their neighbours.
    assert_eq!(world.kusto.windows(), windows(&[("10:10:00", "10:14:59"), ("10:15:00", "10:19:59")]));
    assert!(world.kusto.asked()[0].query.ends_with("let _region=\"eastus\";\na\n| where at between (_startTime .. _endTime)"));
    assert_eq!(world.store.status_writes(), 2);
    let text = |a: &str, b: &str, c: &str| Some((a.to_owned(), b.to_owned(), c.to_owned()));
    assert_eq!(condition(&object, OWNER), text("True", "ExecutionSuccessful", "Query executed successfully"));
    assert_eq!(condition(&object, "Completed"), text("True", "ExecutionSuccessful", "Most recent execution succeeded"));
    assert_eq!(condition(&object, "Failed"), text("False", "ExecutionSuccessful", "Most recent execution succeeded"));
    assert_eq!(condition(&object, "Criteria"), text("True", "CriteriaMatched", "no criteria specified (default allow)"));
    assert_eq!(condition(&object, &format!("{OWNER}/LastSuccessfulExecution")).unwrap().2, "2024-01-01T10:20:00Z");
    // Without a timestamp column the window's end is the time of its points, also when it is exported twice.
    let base = u64::try_from(time("2024-01-01T10:15:00Z").as_nanosecond()).unwrap();
    let gauges: Vec<_> = world.receiver.metrics().iter().map(gauge).collect();
    assert_eq!(gauges, [("adx_m_n".to_owned(), base, 1.0), ("adx_m_n".to_owned(), base + 300_000_000_000, 1.0)]);
}

#[tokio::test]
async fn a_new_process_goes_on_where_the_last_one_stopped() {
    let world = World::start("2024-01-01T10:17:23Z", [exporter("a", "5m")]).await;
    world.until_exported("a", "2024-01-01T10:15:00Z").await;
    let (clock, store, kusto, receiver) = world.end().await;
    let world = World::around(clock, store, kusto, receiver).await;
    world.until_asleep("2024-01-01T10:20:00Z").await;
    assert_eq!(world.kusto.asked().len(), 1);

    // What the reference wrote counts too.
    let (clock, _, kusto, receiver) = world.end().await;
    let mut old = exporter("old", "5m");
    let message = json!([{"type": format!("{OWNER}/LastSuccessfulExecution"), "status": "True", "reason": "ExecutionCompleted",
        "message": "2024-01-01T10:10:00Z", "lastTransitionTime": "2024-01-01T10:10:05Z"}]);
    old.status = Some(MetricsExporterStatus { conditions: serde_json::from_value(message).unwrap(), ..Default::default() });
    let world = World::around(clock, Arc::new(MemoryStore::new([old])), kusto, receiver).await;
    world.until_exported("old", "2024-01-01T10:15:00Z").await;
    assert_eq!(world.kusto.windows()[1..], windows(&[("10:10:00", "10:14:59")]));
}

#[tokio::test]
async fn an_outage_is_caught_up_with_window_by_window_as_far_back_as_the_bound() {
    let world = World::start("2024-01-01T10:17:00Z", [exported_until(exporter("a", "1h"), "2024-01-01T02:00:00Z")]).await;
    let object = world.until_exported("a", "2024-01-01T08:00:00Z").await;
    assert_eq!(
        condition(&object, OWNER).unwrap().2,
        "Query executed successfully; [2024-01-01T02:00:00Z, 2024-01-01T07:00:00Z) was left out: too long ago to catch up with"
    );
    // One window a second, not all at once.
    for (next, end) in [("10:17:01", "09:00:00"), ("10:17:02", "10:00:00")] {
        let next = format!("2024-01-01T{next}Z");
        world.until_asleep(&next).await;
        world.clock.set(time(&next));
        world.until_exported("a", &format!("2024-01-01T{end}Z")).await;
    }
    world.until_asleep("2024-01-01T11:00:00Z").await;
    assert_eq!(world.kusto.windows(), windows(&[("07:00:00", "07:59:59"), ("08:00:00", "08:59:59"), ("09:00:00", "09:59:59")]));
    let metrics = world.metrics().await;
    assert!(metrics.contains("adxmon_exporter_skipped_windows_total{namespace=\"ns\",name=\"a\"} 5\n"), "{metrics}");
    let events = world.store.events();
    assert!(events.len() == 1 && events[0].1.reason == "WindowsSkipped", "{events:?}");
    assert!(events[0].1.note.starts_with("[2024-01-01T02:00:00Z, 2024-01-01T07:00:00Z)"), "{events:?}");
}

#[tokio::test]
async fn a_window_that_fails_is_tried_again_and_the_status_says_why() {
    let world = World::start("2024-01-01T10:17:00Z", [exported_until(exporter("a", "5m"), "2024-01-01T10:10:00Z")]).await;
    world.until_exported("a", "2024-01-01T10:15:00Z").await;
    world.kusto.answer_with(|_| Answer::refusal(400, "SEM0100", "no such table [line:position=4:1]", true));
    world.until_asleep("2024-01-01T10:20:00Z").await;
    world.clock.set(time("2024-01-01T10:20:00Z"));
    let object = world.until("a", |object| has(object, OWNER, "False")).await;
    let message = "line 1, column 1 of the body: SEM0100: querying database Metrics: no such table [line:position=4:1]";
    for (type_, status) in [(OWNER, "False"), ("Completed", "False"), ("Failed", "True")] {
        assert_eq!(condition(&object, type_), Some((status.to_owned(), "ExecutionFailed".to_owned(), message.to_owned())));
    }
    assert_eq!(last_end(&object), Some(time("2024-01-01T10:15:00Z")));

    // The same failure again changes nothing, so that nothing is written.
    world.until_asleep("2024-01-01T10:20:15Z").await;
    let writes = world.store.status_writes();
    world.clock.set(time("2024-01-01T10:20:15Z"));
    world.until_asleep("2024-01-01T10:20:45Z").await;
    assert_eq!((world.kusto.asked().len(), world.store.status_writes()), (3, writes));
    assert_eq!(world.store.events().len(), 1);

    // Later windows wait for it, in order.
    world.clock.set(time("2024-01-01T10:26:00Z"));
    world.until_asleep("2024-01-01T10:27:00Z").await;
    world.kusto.answer_with(one_row);
    world.clock.set(time("2024-01-01T10:27:00Z"));
    world.until_exported("a", "2024-01-01T10:20:00Z").await;
    world.until_asleep("2024-01-01T10:27:01Z").await;
    world.clock.set(time("2024-01-01T10:27:01Z"));
    let object = world.until_exported("a", "2024-01-01T10:25:00Z").await;
    assert!(has(&object, OWNER, "True") && has(&object, "Failed", "False"));
    let failing = ("10:15:00", "10:19:59");
    assert_eq!(world.kusto.windows()[1..], windows(&[failing, failing, failing, failing, ("10:20:00", "10:24:59")]));
    let metrics = world.metrics().await;
    assert!(metrics.contains("runs_total{namespace=\"ns\",name=\"a\",outcome=\"query_error\"} 3\n"), "{metrics}");
    assert!(metrics.contains("runs_total{namespace=\"ns\",name=\"a\",outcome=\"success\"} 3\n"), "{metrics}");
}

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

/// The reference runs a clipped window at once after an edit and covers it again later.
#[tokio::test]
async fn an_edit_makes_neither_gap_nor_overlap() {
    let world = World::start("2024-01-01T10:17:00Z", [exporter("a", "5m")]).await;
    world.until_exported("a", "2024-01-01T10:15:00Z").await;
    world.until_asleep("2024-01-01T10:20:00Z").await;
    let mut edited = MetricsExporter::clone(&world.get("a"));
    edited.spec.interval = "1h".into();
    world.store.apply(edited);
    world.until_asleep("2024-01-01T11:00:00Z").await;
    world.clock.set(time("2024-01-01T11:00:00Z"));
    world.until_exported("a", "2024-01-01T11:00:00Z").await;
    assert_eq!(world.kusto.windows(), windows(&[("10:10:00", "10:14:59"), ("10:15:00", "10:59:59")]));
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
async fn a_query_that_hangs_holds_up_its_own_exporter_only() {
    let world = World::start("2024-01-01T10:17:00Z", []).await;
    world.kusto.answer_with(|asked| {
        let answer = one_row(asked);
        if asked.query.contains("\nslow\n") { answer.hanging_after(0) } else { answer }
    });
    world.store.apply(exporter("slow", "5m"));
    world.store.apply(exporter("fast", "5m"));
    world.until_exported("fast", "2024-01-01T10:15:00Z").await;
    world.until_asleep("2024-01-01T10:20:00Z").await;
    world.clock.set(time("2024-01-01T10:20:00Z"));
    world.until_exported("fast", "2024-01-01T10:20:00Z").await;
    // One window at a time: the slow one was asked once.
    assert_eq!(world.kusto.asked().iter().filter(|asked| asked.query.contains("\nslow\n")).count(), 1);
    assert!(world.get("slow").status.is_none());
}

/// However many exporters of one cluster hang, those of another run.
#[tokio::test]
async fn a_cluster_that_hangs_holds_up_no_exporter_of_another() {
    let (hangs, other) = (FakeKusto::start(|asked| one_row(asked).hanging_after(0)).await, FakeKusto::start(one_row).await);
    let (clock, store) = (ManualClock::new(time("2024-01-01T10:17:00Z")), Arc::new(MemoryStore::new([])));
    let others = BTreeMap::from([("Other".to_owned(), other.client())]);
    let world = World::with_databases(clock, store, hangs, Receiver::start([]).await, others).await;
    (0..20).for_each(|number| world.store.apply(exporter(&format!("stuck-{number}"), "5m")));
    let slots = Bounds::default().queries;
    let taken = async {
        while world.kusto.asked().len() < slots {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), taken).await.unwrap();
    let mut calm = exporter("calm", "5m");
    calm.spec.database = "Other".into();
    world.store.apply(calm);
    world.until_exported("calm", "2024-01-01T10:15:00Z").await;
    assert_eq!(world.kusto.asked().len(), slots);
}

#[tokio::test]
async fn lag_is_shown_and_series_go_with_their_exporter() {
    let world = World::start("2024-01-01T10:17:00Z", [exporter("a", "5m"), exporter("b", "5m")]).await;
    world.until_exported("a", "2024-01-01T10:15:00Z").await;
    world.until_exported("b", "2024-01-01T10:15:00Z").await;
    world.until_asleep("2024-01-01T10:20:00Z").await;
    world.kusto.answer_with(|_| Answer::refusal(503, "X", "away", false));
    world.clock.set(time("2024-01-01T10:31:00Z"));
    world.until("a", |object| has(object, OWNER, "False")).await;
    world.until("b", |object| has(object, OWNER, "False")).await;
    world.until_asleep("2024-01-01T10:31:15Z").await;
    let metrics = world.metrics().await;
    assert!(metrics.contains("adxmon_exporter_lag_seconds{namespace=\"ns\",name=\"a\"} 900.0\n"), "{metrics}");

    world.store.delete(&Key::new("ns", "a"));
    let gone = async {
        loop {
            let metrics = world.metrics().await;
            if !metrics.contains("name=\"a\"") {
                return metrics;
            }
        }
    };
    let metrics = tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
    assert!(metrics.contains("adxmon_exporter_lag_seconds{namespace=\"ns\",name=\"b\"} 900.0\n"), "{metrics}");
}

#[tokio::test]
async fn who_does_not_lead_exports_nothing() {
    let world = World::start("2024-01-01T10:17:00Z", [exporter("a", "5m")]).await;
    world.until_exported("a", "2024-01-01T10:15:00Z").await;
    world.until_asleep("2024-01-01T10:20:00Z").await;
    world.baton.pass(false);
    // Whoever leads now writes its progress.
    let exported = exported_until(MetricsExporter::clone(&world.get("a")), "2024-01-01T10:25:00Z");
    let key = Key::new("ns", "a");
    world.clock.set(time("2024-01-01T10:26:00Z"));
    world.store.update_status(&key, &|object| object.status = exported.status.clone()).await.unwrap();
    world.baton.pass(true);
    world.until_asleep("2024-01-01T10:30:00Z").await;
    world.clock.set(time("2024-01-01T10:30:00Z"));
    world.until_exported("a", "2024-01-01T10:30:00Z").await;
    assert_eq!(world.kusto.windows(), windows(&[("10:10:00", "10:14:59"), ("10:25:00", "10:29:59")]));
}

#[tokio::test]
async fn health_is_served() {
    let world = World::start("2024-01-01T10:17:00Z", []).await;
    for path in ["healthz", "readyz"] {
        let answer = reqwest::get(format!("http://{}/{path}", world.running.address.unwrap())).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, "ok"));
    }
    assert_eq!(world.clock.now(), time("2024-01-01T10:17:00Z"));
    world.end().await;
}

/// The runner itself is tested where it lives; here, that it runs what the exporter owns.
#[tokio::test]
async fn summary_rules_of_the_exporter_are_submitted() {
    let kusto = FakeKusto::start(one_row).await;
    let rule = |name: &str, owner: &str| {
        let object = json!({"apiVersion": "adx-mon.azure.com/v1", "kind": "SummaryRule",
            "metadata": {"name": name, "namespace": "ns", "annotations": {"adx-mon.azure.com/owner": owner}},
            "spec": {"database": "Metrics", "table": name, "interval": "1h", "body": "T | where at between (_startTime .. _endTime)"}});
        serde_json::from_value::<SummaryRule>(object).unwrap()
    };
    let store = Arc::new(MemoryStore::new([rule("Ours", "adx-exporter"), rule("Other", "somebody")]));
    let rules = Rules::Stores { exporters: Arc::new(MemoryStore::new([])), summary_rules: Some(store), leader: Leader::always() };
    let databases = BTreeMap::from([("Metrics".to_owned(), kusto.client())]);
    let config = Config {
        clock: Arc::new(ManualClock::new(time("2024-01-01T10:17:00Z"))),
        ..Config::new(databases, PushConfig::new("http://localhost:1/v1/metrics"), rules)
    };
    let stop = CancellationToken::new();
    let running = start(config, stop.clone()).await.unwrap();
    let command = kusto.until_commanded(".set-or-append").await;
    assert!(command.contains("Ours") && command.contains("let _startTime=datetime(2024-01-01T09:00:00Z);"), "{command}");
    stop.cancel();
    running.finished().await.unwrap();
    assert!(!kusto.commands().iter().any(|command| command.contains("Other")));
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

/// Each class of what a service can answer: the status tells it, the window comes back, others go on.
async fn a_sick_service(answer: impl Fn() -> Answer + Send + Sync + 'static, part: &str) -> World {
    a_service_that_fails(answer, "ExecutionFailed", part).await
}

async fn a_service_that_fails(answer: impl Fn() -> Answer + Send + Sync + 'static, why: &str, part: &str) -> World {
    let world = World::start("2024-01-01T10:17:00Z", [exporter("well", "5m")]).await;
    world.until_exported("well", "2024-01-01T10:15:00Z").await;
    world.kusto.answer_with(move |asked| if asked.query.contains("\nsick\n") { answer() } else { one_row(asked) });
    world.store.apply(exporter("sick", "5m"));
    let object = world.until("sick", |object| has(object, OWNER, "False")).await;
    let (_, reason, message) = condition(&object, OWNER).unwrap();
    assert_eq!(reason, why);
    assert!(message.contains(part), "{message}");
    assert!(has(&object, "Failed", "True") && has(&object, "Completed", "False") && last_end(&object).is_none(), "{object:?}");
    let metrics = world.metrics().await;
    assert!(metrics.contains("runs_total{namespace=\"ns\",name=\"sick\",outcome=\"query_error\"} 1\n"), "{metrics}");
    world
}

async fn it_gets_well(world: World, at: &str) {
    world.until_asleep(at).await;
    world.kusto.answer_with(one_row);
    world.clock.set(time(at));
    let object = world.until_exported("sick", "2024-01-01T10:15:00Z").await;
    assert!(has(&object, OWNER, "True") && has(&object, "Failed", "False"));
    let metrics = world.metrics().await;
    assert!(metrics.contains("runs_total{namespace=\"ns\",name=\"sick\",outcome=\"success\"} 1\n"), "{metrics}");
    assert!(metrics.contains("runs_total{namespace=\"ns\",name=\"well\",outcome=\"success\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn a_throttling_service_is_told_of_and_gets_the_pause_that_it_asks_for() {
    let answer = || Answer::refusal(429, "TooManyRequests", "slow down", false).asking_to_wait(120);
    let world = a_sick_service(answer, "TooManyRequests: querying database Metrics: slow down").await;
    it_gets_well(world, "2024-01-01T10:19:00Z").await;
}

#[tokio::test]
async fn a_service_that_answers_500_is_told_of_and_asked_again() {
    let world = a_sick_service(|| Answer::refusal(500, "InternalServiceError", "oops", false), "InternalServiceError: ").await;
    it_gets_well(world, "2024-01-01T10:17:15Z").await;
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_told_of_and_asked_again() {
    let world = World::start("2024-01-01T10:17:00Z", []).await;
    world.kusto.answer_with(|_| Answer::silence());
    world.store.apply(exporter("sick", "5m"));
    let asked = async {
        while world.kusto.asked().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap();
    tokio::time::pause();
    let mut objects = world.store.objects();
    while !objects.get(&Key::new("ns", "sick")).is_some_and(|object| has(&object, OWNER, "False")) {
        objects.changed().await;
    }
    tokio::time::resume();
    let (_, _, message) = condition(&world.get("sick"), OWNER).unwrap();
    assert!(message.contains("DEADLINE: querying database Metrics: no answer within 300s"), "{message}");
    world.until_asleep("2024-01-01T10:17:15Z").await;
    world.kusto.answer_with(one_row);
    world.clock.set(time("2024-01-01T10:17:15Z"));
    world.until_exported("sick", "2024-01-01T10:15:00Z").await;
}

#[tokio::test]
async fn a_database_that_the_service_does_not_have_is_told() {
    let answer = || Answer::refusal(400, "BadRequest_EntityNotFound", "Entity ID 'Metrics' of kind 'Database' was not found.", true);
    let world = a_service_that_fails(answer, "DatabaseNotFound", "Entity ID 'Metrics' of kind 'Database' was not found").await;
    assert_eq!(world.store.events().pop().unwrap().1.reason, "DatabaseNotFound");
    it_gets_well(world, "2024-01-01T10:17:15Z").await;
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

/// What becomes of a status that is written.
#[derive(Clone, Copy, PartialEq)]
enum Write {
    Works,
    /// The server answers 5xx until the writer gives up.
    Refused,
    /// Somebody else writes first, so that the change is made again to what there is then.
    Conflicts,
}

/// A store whose server takes a status as told.
struct ShakyStore {
    inner: Arc<MemoryStore<MetricsExporter>>,
    write: parking_lot::Mutex<Write>,
    /// How many writes were refused or conflicted.
    failed: tokio::sync::watch::Sender<usize>,
}

impl ShakyStore {
    async fn until_failed(&self, times: usize) {
        let mut failed = self.failed.subscribe();
        let wait = failed.wait_for(|failed| *failed >= times);
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap().unwrap();
    }
}

#[async_trait]
impl Store<MetricsExporter> for ShakyStore {
    fn objects(&self) -> Objects<MetricsExporter> {
        self.inner.objects()
    }

    async fn update_status(&self, key: &Key, change: Change<'_, MetricsExporter>) -> Result<(), StoreError> {
        let write = *self.write.lock();
        if write != Write::Works {
            self.failed.send_modify(|failed| *failed += 1);
        }
        match write {
            Write::Works => {}
            Write::Refused => {
                let (kind, key) = ("MetricsExporter".to_owned(), key.clone());
                return Err(StoreError { what: "the status", kind, key, source: "the API server answered 503".into() });
            }
            Write::Conflicts => {
                change(&mut MetricsExporter::clone(&self.inner.objects().get(key).unwrap()));
                let other = |object: &mut MetricsExporter| {
                    let conditions = &mut object.status.get_or_insert_default().conditions;
                    let (type_, status, reason, message) = ("Other", crds::conditions::Truth::True, "Noted", "by somebody else");
                    let desired = crds::conditions::Desired { type_, status, reason, message, observed_generation: None };
                    crds::conditions::set(conditions, &desired, time("2024-01-01T10:00:00Z"));
                };
                self.inner.update_status(key, &other).await?;
            }
        }
        self.inner.update_status(key, change).await
    }

    async fn update(&self, key: &Key, change: Change<'_, MetricsExporter>) -> Result<(), StoreError> {
        self.inner.update(key, change).await
    }

    async fn event(&self, object: &MetricsExporter, event: Event) {
        self.inner.event(object, event).await;
    }
}

/// Runs four windows of five minutes; the writes of the second and the third do not work.
async fn a_status_write_that_fails(how: Write) -> (World, Vec<(String, String)>) {
    let kusto = FakeKusto::start(one_row).await;
    let (clock, inner) = (ManualClock::new(time("2024-01-01T10:17:00Z")), Arc::new(MemoryStore::new([exporter("a", "5m")])));
    let store = Arc::new(ShakyStore { inner: inner.clone(), write: parking_lot::Mutex::new(Write::Works), failed: Default::default() });
    let world = World::through(store.clone(), clock, inner, kusto, Receiver::start([]).await, BTreeMap::new()).await;
    world.until_exported("a", "2024-01-01T10:15:00Z").await;
    *store.write.lock() = how;
    for (failed, (at, next)) in [("10:20:00", "10:25:00"), ("10:25:00", "10:30:00")].into_iter().enumerate() {
        world.until_asleep(&format!("2024-01-01T{at}Z")).await;
        world.clock.set(time(&format!("2024-01-01T{at}Z")));
        store.until_failed(failed + 1).await;
        // Nothing is done before the next window is due.
        world.until_asleep(&format!("2024-01-01T{next}Z")).await;
    }
    *store.write.lock() = Write::Works;
    world.clock.set(time("2024-01-01T10:30:00Z"));
    world.until_exported("a", "2024-01-01T10:30:00Z").await;
    let exported = windows(&[("10:10:00", "10:14:59"), ("10:15:00", "10:19:59"), ("10:20:00", "10:24:59"), ("10:25:00", "10:29:59")]);
    (world, exported)
}

#[tokio::test]
async fn a_status_that_the_server_does_not_take_repeats_and_loses_no_window() {
    let (world, exported) = a_status_write_that_fails(Write::Refused).await;
    assert_eq!(world.kusto.windows(), exported);
    assert_eq!(world.receiver.metrics().len(), 4);
    // The status is what a new process goes on from.
    let (clock, store, kusto, receiver) = world.end().await;
    let world = World::around(clock, store, kusto, receiver).await;
    world.until_asleep("2024-01-01T10:35:00Z").await;
    assert_eq!(world.kusto.windows(), exported);
}

#[tokio::test]
async fn a_status_that_somebody_else_writes_too_repeats_and_loses_no_window() {
    let (world, exported) = a_status_write_that_fails(Write::Conflicts).await;
    assert_eq!(world.kusto.windows(), exported);
    let object = world.get("a");
    assert_eq!(condition(&object, "Other").unwrap().2, "by somebody else");
    assert_eq!(condition(&object, &format!("{OWNER}/LastSuccessfulExecution")).unwrap().2, "2024-01-01T10:30:00Z");
}
