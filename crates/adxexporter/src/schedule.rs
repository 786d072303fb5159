//! When which exporter runs: one window at a time for each, in order, from the end of the last that was
//! exported.
//!
//! The loop looks at all exporters whenever objects change, a run ends or a window becomes due. What is
//! due follows from the end of the last window and the clock alone, so that our own writes of a status,
//! which come back as changes, start nothing.

mod exporter;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crds::MetricsExporter;
use jiff::Timestamp;
use kusto::Client;
use rules::clock::Clock;
use rules::lease::Leader;
use rules::store::{Event, Key, Objects, Severity, Store};
use rules::target::misses_the_database;
use rules::unserved::NOT_FOUND;
use rules::window::Window;
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::export::{Counts, ExportError, Job, export};
use crate::metrics::{Metrics, Outcome};
use crate::push::Pusher;
use crate::status;
use exporter::{Exported, Exporter, Next, Ready, Unfit};

/// How long runs under way may take once the process is told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Bounds of what the schedule does.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How far back windows are caught up with; older ones are left out, and the status says so.
    pub catch_up: Duration,
    /// Queries of a cluster at a time.
    pub queries: usize,
    /// Deadline of a query.
    pub query_timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { catch_up: Duration::from_secs(24 * 3600), queries: 8, query_timeout: Duration::from_secs(300) }
    }
}

/// What every exporter shares.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store<MetricsExporter>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: fn() -> f64,
    /// Databases by name.
    pub(crate) databases: BTreeMap<String, Database>,
    /// Labels of this cluster, for criteria.
    pub(crate) labels: crds::criteria::Labels,
    /// The same as `let` statements.
    pub(crate) lets: rules::prelude::Labels,
    /// Put before every metric's name.
    pub(crate) prefix: String,
    pub(crate) pusher: Pusher,
    pub(crate) metrics: Metrics,
    pub(crate) bounds: Bounds,
}

/// A database, and the slots for queries of its cluster: one that hangs takes none from the others.
#[derive(Clone)]
pub(crate) struct Database {
    client: Client,
    queries: Arc<Semaphore>,
}

impl Database {
    /// The databases of these clients, with so many queries of each cluster at a time.
    pub(crate) fn all(clients: BTreeMap<String, Client>, queries: usize) -> BTreeMap<String, Database> {
        let mut clusters: BTreeMap<String, Arc<Semaphore>> = BTreeMap::new();
        let database = |(name, client): (String, Client)| {
            let slots = clusters.entry(client.endpoint().to_string()).or_insert_with(|| Arc::new(Semaphore::new(queries.max(1))));
            let queries = Arc::clone(slots);
            (name, Database { client, queries })
        };
        clients.into_iter().map(database).collect()
    }
}

/// A piece of work for one exporter that is done.
struct Done {
    key: Key,
    /// Nothing for a report of what keeps an exporter from running.
    run: Option<Result<Window, Failure>>,
}

/// A run that did not work.
#[derive(Default)]
struct Failure {
    /// The pause that the service asked for.
    retry_after: Option<Duration>,
}

/// The schedule of all exporters.
pub(crate) struct Scheduler {
    shared: Arc<Shared>,
    objects: Objects<MetricsExporter>,
    exporters: BTreeMap<Key, Exporter>,
    tasks: JoinSet<Done>,
}

impl Scheduler {
    pub(crate) fn new(shared: Arc<Shared>) -> Scheduler {
        let objects = shared.store.objects();
        Scheduler { shared, objects, exporters: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Runs until `stop`, while `leader` says so. A window that is not done then is exported again by
    /// whoever runs next.
    pub(crate) async fn run(mut self, mut leader: Leader, stop: CancellationToken) {
        let terms = async {
            self.objects.ready().await;
            loop {
                leader.elected().await;
                let lost = async {
                    while leader.is_leader() {
                        leader.changed().await;
                    }
                };
                tokio::select! {
                    // First: nothing starts once leadership is lost.
                    biased;
                    () = lost => {}
                    () = self.lead() => {}
                }
                self.resign().await;
            }
        };
        stop.run_until_cancelled(terms).await;
        // What is almost done need not be done again.
        let finish = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GRACE, finish).await;
        self.resign().await;
    }

    /// Ends what is under way.
    async fn resign(&mut self) {
        self.tasks.shutdown().await;
        for (key, exporter) in &mut self.exporters {
            self.shared.metrics.stopped(key);
            exporter.rest();
        }
    }

    async fn lead(&mut self) {
        loop {
            let wake = self.start_due();
            let clock = self.shared.clock.clone();
            tokio::select! {
                () = self.objects.changed() => {}
                Some(done) = self.tasks.join_next_with_id() => self.finished(done),
                () = clock.sleep_until(wake) => {}
            }
        }
    }

    /// Starts what is due, and returns when something becomes due next.
    fn start_due(&mut self) -> Timestamp {
        let snapshot = self.objects.snapshot();
        self.forget_deleted(&snapshot);
        let now = self.shared.clock.now();
        let mut wake = Timestamp::MAX;
        for (key, object) in snapshot.iter() {
            if object.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let exporter = self.exporters.entry(key.clone()).or_default();
            let edited = exporter.observe(object, &self.shared);
            if exporter.running.is_some() {
                continue;
            }
            match exporter.next(object, now, self.shared.bounds.catch_up) {
                Next::Report(unfit) => {
                    self.shared.metrics.stopped(key);
                    let task = report(self.shared.clone(), key.clone(), object.clone(), unfit);
                    exporter.running = Some(self.tasks.spawn(task).id());
                }
                Next::Run { ready, window, skipped } => {
                    let exported = exporter.exported.clone();
                    let task = run(self.shared.clone(), key.clone(), object.clone(), ready, window, skipped, exported);
                    exporter.running = Some(self.tasks.spawn(task).id());
                }
                Next::Wait(until) => wake = wake.min(until),
                Next::Nothing => {}
            }
            if let (true, Some((schedule, cursor))) = (edited || exporter.moved, exporter.progress(object, now)) {
                exporter.moved = false;
                self.shared.metrics.reached(key, schedule, cursor);
            }
        }
        wake
    }

    fn forget_deleted(&mut self, snapshot: &rules::store::ObjectMap<MetricsExporter>) {
        let metrics = &self.shared.metrics;
        self.exporters.retain(|key, _| {
            let stays = snapshot.get(key).is_some_and(|object| object.metadata.deletion_timestamp.is_none());
            if !stays {
                metrics.forget(key);
            }
            stays
        });
    }

    fn finished(&mut self, done: Result<(Id, Done), JoinError>) {
        let now = self.shared.clock.now();
        let (id, run) = match done {
            // What was deleted meanwhile may have left series of this run behind.
            Ok((_, done)) if !self.exporters.contains_key(&done.key) => return self.shared.metrics.forget(&done.key),
            Ok((id, done)) => (id, done.run),
            Err(error) => {
                tracing::error!(%error, "a run ended without a result; its window is run again");
                (error.id(), Some(Err(Failure::default())))
            }
        };
        // Otherwise the object was made anew meanwhile, and this is none of its business.
        let Some(exporter) = self.exporters.values_mut().find(|exporter| exporter.running == Some(id)) else { return };
        exporter.running = None;
        match run {
            Some(Ok(window)) => exporter.succeeded(window, now),
            Some(Err(failure)) => exporter.failed(now, failure.retry_after, (self.shared.random)()),
            None => {}
        }
    }
}

/// Writes what keeps an exporter from running.
async fn report(shared: Arc<Shared>, key: Key, object: Arc<MetricsExporter>, unfit: Unfit) -> Done {
    let (now, generation) = (shared.clock.now(), object.metadata.generation);
    let change = |object: &mut MetricsExporter| match &unfit {
        Unfit::Criteria(outcome) => status::criteria(object, generation, outcome, now),
        Unfit::Spec(message) => status::failed(object, generation, status::EXECUTION_FAILED, message, now),
        Unfit::Database => {}
    };
    write(&shared, &key, &change).await;
    let mistake = match &unfit {
        Unfit::Spec(message) => Some(("InvalidRule", message)),
        Unfit::Criteria(decision) if decision.reason == "CriteriaExpressionError" => Some((decision.reason, &decision.message)),
        Unfit::Criteria(_) | Unfit::Database => None,
    };
    if let Some((reason, message)) = mistake {
        tracing::warn!(exporter = %key, reason = message, "an exporter does not run");
        tell(&shared, &object, reason, message.clone()).await;
    }
    Done { key, run: None }
}

/// Exports a window and writes how it went.
async fn run(
    shared: Arc<Shared>,
    key: Key,
    object: Arc<MetricsExporter>,
    ready: Arc<Ready>,
    window: Window,
    skipped: Option<Window>,
    exported: Exported,
) -> Done {
    // Closed only when everything ends.
    let Ok(_permit) = ready.database.queries.acquire().await else { return Done { key, run: Some(Err(Failure::default())) } };
    let mut counts = Counts::default();
    let start = tokio::time::Instant::now();
    let rendered = rules::prelude::render(&window, &shared.lets, &object.spec.body);
    let job = Job {
        database: object.spec.database.clone(),
        query: rendered.text,
        lines_before_body: rendered.lines_before_body,
        transform: ready.transform.clone(),
        default_time: window.end,
        timeout: shared.bounds.query_timeout,
    };
    let result = export(&ready.database.client, &shared.pusher, &job, &mut counts).await;
    if result.is_ok() {
        exported.note(&window);
    }
    let outcome = match &result {
        Ok(()) => Outcome::Success,
        Err(ExportError::Query { .. }) => Outcome::QueryError,
        Err(ExportError::Plan(_)) => Outcome::TransformError,
        Err(ExportError::Push(_)) => Outcome::PushError,
    };
    shared.metrics.ran(&key, outcome, &counts, start.elapsed());
    if let Some(skipped) = &skipped {
        tracing::warn!(exporter = %key, window = %skipped, "windows are too old to be caught up with and are left out");
        if result.is_ok() {
            shared.metrics.skipped_windows(&key, ready.schedule.backlog(skipped.start, skipped.end));
            // The next window's status says nothing of it.
            let note = format!("{skipped} was left out: it lies further back than is caught up with");
            tell(&shared, &object, "WindowsSkipped", note).await;
        }
    }
    let note = status::note(&counts, skipped.as_ref());
    let (now, generation) = (shared.clock.now(), object.metadata.generation);
    let failure = result.as_ref().err().map(ToString::to_string);
    let reason = match &result {
        Err(ExportError::Query { error, .. }) if misses_the_database(error) => NOT_FOUND,
        _ => status::EXECUTION_FAILED,
    };
    let change = |object: &mut MetricsExporter| {
        status::criteria(object, generation, &ready.criteria, now);
        match &failure {
            None => status::succeeded(object, generation, &window, &counts, &note, now),
            Some(message) => {
                status::tried(object, &window);
                status::failed(object, generation, reason, message, now);
            }
        }
    };
    write(&shared, &key, &change).await;
    match &failure {
        None => tracing::debug!(exporter = %key, %window, rows = counts.rows, points = counts.points, "exported"),
        Some(message) => {
            tracing::warn!(exporter = %key, %window, error = message, "a window was not exported and is tried again");
            if status::is_new_failure(&object, message) {
                tell(&shared, &object, reason, format!("window {window}: {message}")).await;
            }
        }
    }
    let retry_after = match &result {
        Err(ExportError::Query { error, .. }) => error.retry_after,
        _ => None,
    };
    Done { key, run: Some(result.map(|()| window).map_err(|_| Failure { retry_after })) }
}

async fn tell(shared: &Shared, object: &MetricsExporter, reason: &str, note: String) {
    let (action, reason) = ("Export".to_owned(), reason.to_owned());
    shared.store.event(object, Event { severity: Severity::Warning, action, reason, note }).await;
}

async fn write(shared: &Shared, key: &Key, change: &(dyn Fn(&mut MetricsExporter) + Send + Sync)) {
    if let Err(error) = shared.store.update_status(key, change).await {
        // The cursor is in memory; the next window's status brings it.
        tracing::warn!(exporter = %key, %error, "the status of an exporter could not be written");
    }
}
