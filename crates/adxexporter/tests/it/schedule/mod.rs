//! Exporters in a store, a clock that is moved by hand, a Kusto and a receiver: what runs when, and what
//! the status says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use adxexporter::push::{PushConfig, RetryPolicy};
use adxexporter::{Bounds, Config, Rules, Running, start};
use crds::{MetricsExporter, MetricsExporterSpec, MetricsExporterStatus, SummaryRule, Time, Transform};
use jiff::Timestamp;
use rules::clock::{Clock as _, ManualClock};
use rules::lease::{Baton, Leader};
use rules::store::memory::MemoryStore;
use rules::store::{Key, Store};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::fake_kusto::{Answer, Asked, FakeKusto};
use crate::receiver::{Receiver, gauge};

mod mistakes;
mod sick_services;

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
