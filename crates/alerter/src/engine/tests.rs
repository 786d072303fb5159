#![allow(clippy::unwrap_used)]

use prometheus_client::registry::Registry;
use rules::clock::ManualClock;
use rules::store::memory::MemoryStore;

use super::*;
use crate::channel::channel;
use crate::state::{Outgoing, Target};

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

fn parts(state: State, store: Arc<MemoryStore<AlertRule>>, clock: &ManualClock, metrics: &Metrics, progress: Sender<Progress>) -> Parts {
    let second = Duration::from_secs(1);
    let settings = Settings {
        databases: BTreeMap::new(),
        region: String::new(),
        max_notifications: 1,
        query_deadline: second,
        quick: second,
        targets: Vec::new(),
    };
    Parts {
        store,
        state,
        clock: Arc::new(clock.clone()),
        metrics: metrics.clone(),
        labels: Labels::default(),
        settings: Arc::new(settings),
        slots: 8,
        leading: watch::channel(true).1,
        wake: Vec::new(),
        progress,
    }
}

/// What an outage of the receiver costs beyond the bound of the outbox is told of, once for each rule.
#[tokio::test]
async fn notifications_that_find_no_room_are_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::register(&mut Registry::default(), "r");
    let clock = ManualClock::new(Timestamp::from_second(1_767_225_600).unwrap());
    let (progress, mut news) = channel(4, "deliveries", &metrics);
    let state = State::with_limits(folder.path(), 2, 1 << 20).unwrap();
    let parts = parts(state, Arc::new(MemoryStore::new([])), &clock, &metrics, progress);
    let now = parts.clock.now();
    let window = Window { start: now - SignedDuration::from_secs(60), end: now };
    for (rule, titles) in [("first", ["1", "2"]), ("second", ["3", "4"])] {
        let outgoing = |title: &str| Outgoing {
            target: Target::Receiver,
            destination: "team".into(),
            correlation: title.into(),
            title: title.into(),
            body: Vec::new(),
        };
        let evaluation = Evaluation { outgoing: titles.map(outgoing).into(), ..Evaluation::broken(window, &"test") };
        let running = Running { key: Key::new("n", rule), token: 0, slot: Slot { place: None, slow: false }, window, began: now };
        keep(parts.clone(), running, evaluation).await;
    }
    let told = Progress { rule: "n/first".into(), error: Some("too many notifications wait".into()), given_up: Some("2".into()) };
    assert_eq!(news.try_recv().unwrap(), told);
    assert!(news.try_recv().is_err());
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
    let (progress, news) = channel(1, "deliveries", &metrics);
    let parts = parts(State::open(folder.path()).unwrap(), store.clone(), &clock, &metrics, progress);
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
