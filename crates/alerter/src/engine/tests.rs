#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use prometheus_client::registry::Registry;
use rules::clock::ManualClock;
use rules::store::memory::MemoryStore;

use super::*;
use crate::channel::channel;

fn rule(at: usize) -> AlertRule {
    let spec = crds::AlertRuleSpec {
        database: "nobody knows it".into(),
        interval: "1h".into(),
        query: "T".into(),
        destination: "team".into(),
        ..crds::AlertRuleSpec::default()
    };
    let mut rule = AlertRule::new(&format!("r{at}"), spec);
    rule.metadata.namespace = Some("n".to_owned());
    rule
}

/// The writer of statuses stands still at first: the engine holds no more than the channel's bound, waits, and goes on where
/// it was.
#[tokio::test]
async fn a_writer_that_is_behind_holds_the_engine_up_and_no_report_is_lost() {
    const RULES: usize = REPORTS + 100;
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::register(&mut Registry::default(), "r");
    let store = Arc::new(MemoryStore::new((0..RULES).map(rule)));
    let clock = ManualClock::new(Timestamp::from_second(1_767_225_600).unwrap());
    let second = Duration::from_secs(1);
    let settings = Settings {
        databases: BTreeMap::new(),
        region: String::new(),
        max_notifications: 1,
        query_deadline: second,
        quick: second,
        targets: Vec::new(),
    };
    let parts = Parts {
        store: store.clone(),
        state: State::open(folder.path()).unwrap(),
        clock: Arc::new(clock.clone()),
        metrics: metrics.clone(),
        labels: Labels::default(),
        settings: Arc::new(settings),
        slots: 8,
        leading: watch::channel(true).1,
        wake: Vec::new(),
    };
    let (_progress, news) = channel(1, "deliveries", &metrics);
    let (engine, writer) = Engine::new(parts, news);
    let (table, shutdown) = (engine.table(), CancellationToken::new());
    let running = tokio::spawn(engine.run(shutdown.clone()));
    while metrics.times_full("reports") == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((table.lock().rules.len(), store.status_writes()), (REPORTS, 0));
    let writing = tokio::spawn(writer.run(shutdown.clone()));
    // Each rule was seen, and its run failed.
    let status = |at: usize| store.objects().get(&Key::new("n", format!("r{at}"))).unwrap().status.clone().unwrap_or_default();
    let is_written = |at: usize| status(at).status == "Error" && !status(at).conditions.is_empty();
    let mut written = 0;
    while written < RULES {
        if is_written(written) {
            written += 1;
            continue;
        }
        let (now, next) = (clock.now(), clock.next_deadline().await);
        if next > now && next <= now + SignedDuration::from_secs(1) {
            clock.set(next);
        }
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    running.await.unwrap().unwrap();
    writing.await.unwrap();
}
