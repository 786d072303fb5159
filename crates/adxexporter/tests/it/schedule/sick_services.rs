//! A Kusto and an API server that fail or hang: the status tells it, no window is lost or repeated, others go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use adxexporter::Bounds;
use async_trait::async_trait;
use crds::MetricsExporter;
use rules::clock::ManualClock;
use rules::store::memory::MemoryStore;
use rules::store::{Change, Event, Key, Objects, Store, StoreError};

use super::{OWNER, World, condition, exporter, has, last_end, one_row, time, windows};
use crate::fake_kusto::{Answer, FakeKusto};
use crate::receiver::Receiver;

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
    assert!(
        has(&object, "Failed", "True") && has(&object, "Completed", "False") && last_end(&object) == Some(time("2024-01-01T10:10:00Z")),
        "{object:?}"
    );
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
