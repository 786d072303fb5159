//! Runs rules on schedule: one task that knows when each is due, and as many queries at a time as there are slots.
//!
//! A rule's window begins where its last successful one ended, so late runs, failures and restarts leave no gap; it is
//! never longer than [`CATCH_UP`] or three intervals, and what lies before is reported as skipped. The slot of a rule is free again when its
//! query is answered: keeping the result, delivery and status do not hold up other rules.

mod evaluate;
mod report;
mod rule;
mod table;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crds::criteria::{Criteria, Labels, Wording};
use crds::{AlertRule, SpecError};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use rules::clock::Clock;
use rules::store::{Key, Objects, Store};
use rules::window::{QueryWindow, Window, query_window};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::delivery::{Progress, log_dropped};
use crate::metrics::{Metrics, Outcome};
use crate::schedule::Schedule;
use crate::state::{Record, State, StateError};
pub use evaluate::Settings;
use evaluate::{Evaluation, evaluate};
use report::{Ran, Report, Reporter};
use rule::Rule;
use table::Entry;
pub use table::Table;

/// The longest window, unless three intervals are longer: downtime beyond it is not caught up with.
pub const CATCH_UP: Duration = Duration::from_secs(3600);
/// How often the engine says that it is alive and looks at its times, in case the clock was set.
const ALIVE: SignedDuration = SignedDuration::from_secs(60);
/// Rules that are due together after a start begin this far apart,
const SPREAD_STEP: SignedDuration = SignedDuration::from_millis(20);
/// but all of them within this time.
const SPREAD: SignedDuration = SignedDuration::from_secs(8);

/// What the engine works with.
#[derive(Clone)]
pub struct Parts {
    /// Where the rules live.
    pub store: Arc<dyn Store<AlertRule>>,
    /// Cursors and outbox.
    pub state: State,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Counts.
    pub metrics: Metrics,
    /// What criteria see.
    pub labels: Labels,
    /// What runs share.
    pub settings: Arc<Settings>,
    /// Queries at a time.
    pub slots: usize,
    /// Whether this process is the one that runs rules.
    pub leading: watch::Receiver<bool>,
    /// Told when the outbox has something new.
    pub wake: Vec<Arc<Notify>>,
}

/// The scheduler.
pub struct Engine {
    parts: Parts,
    objects: Objects<AlertRule>,
    table: Arc<Mutex<Table>>,
    due: Schedule<Key>,
    /// Rules whose time has come and that wait for a slot.
    ready: VecDeque<Key>,
    queries: JoinSet<Evaluation>,
    running: HashMap<Id, Running>,
    records: JoinSet<(Running, Evaluation)>,
    reports: mpsc::UnboundedSender<Report>,
    next_token: u64,
    led: bool,
}

/// A query that runs.
#[derive(Debug, Clone)]
struct Running {
    key: Key,
    token: u64,
    database: String,
    began: Timestamp,
}

/// Writes statuses while the engine runs.
pub struct StatusWriter(Reporter);

impl StatusWriter {
    /// Writes until `shutdown`, and then what is still to be written.
    pub async fn run(self, shutdown: CancellationToken) {
        self.0.run(shutdown).await;
    }
}

impl Engine {
    /// An engine and the writer of statuses, not yet running. `progress` brings what became of deliveries.
    #[must_use]
    pub fn new(parts: Parts, progress: mpsc::UnboundedReceiver<Progress>) -> (Engine, StatusWriter) {
        let (reports, receiver) = mpsc::unbounded_channel();
        let writer = Reporter {
            store: Arc::clone(&parts.store),
            clock: Arc::clone(&parts.clock),
            state: parts.state.clone(),
            metrics: parts.metrics.clone(),
            leading: parts.leading.clone(),
            reports: receiver,
            progress,
        };
        let engine = Engine {
            objects: parts.store.objects(),
            parts,
            table: Arc::default(),
            due: Schedule::default(),
            ready: VecDeque::new(),
            queries: JoinSet::new(),
            running: HashMap::new(),
            records: JoinSet::new(),
            reports,
            next_token: 0,
            led: false,
        };
        (engine, StatusWriter(writer))
    }

    /// What is known of each rule, for people.
    #[must_use]
    pub fn table(&self) -> Arc<Mutex<Table>> {
        Arc::clone(&self.table)
    }

    /// Runs rules until `shutdown`.
    ///
    /// # Errors
    /// Where the cursors cannot be read or written.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), StateError> {
        let mut alive = self.parts.clock.now();
        while !shutdown.is_cancelled() {
            self.follow_leadership().await?;
            let now = self.parts.clock.now();
            if now >= alive {
                self.parts.metrics.alive(self.table.lock().rules.len(), self.queries.len());
                self.look_at_times(now);
                alive = now + ALIVE;
            }
            self.start_queries(now);
            let next = self.due.next().unwrap_or(Timestamp::MAX).min(alive);
            tokio::select! {
                () = self.objects.changed() => self.reconcile().await?,
                Some(done) = self.queries.join_next_with_id() => self.answered(done),
                Some(done) = self.records.join_next() => self.recorded(done),
                () = self.parts.clock.sleep_until(next) => {}
                // Who has no cluster always leads: nobody changes that.
                Ok(()) = self.parts.leading.changed() => {}
                () = shutdown.cancelled() => break,
            }
        }
        self.queries.abort_all();
        // What was answered is kept.
        while let Some(done) = self.records.join_next().await {
            self.recorded(done);
        }
        Ok(())
    }

    /// Begins with the cursors of whoever ran before, and stops when another process runs.
    async fn follow_leadership(&mut self) -> Result<(), StateError> {
        let leading = *self.parts.leading.borrow_and_update();
        if leading == self.led {
            return Ok(());
        }
        self.led = leading;
        if leading {
            return self.reconcile().await;
        }
        tracing::info!("another alerter runs the rules now");
        self.queries.abort_all();
        self.ready.clear();
        self.due = Schedule::default();
        self.table.lock().rules.clear();
        Ok(())
    }

    /// Brings the table in line with the objects.
    async fn reconcile(&mut self) -> Result<(), StateError> {
        if !self.led || !self.objects.is_ready() {
            return Ok(());
        }
        let snapshot = self.objects.snapshot();
        let (gone, changed) = {
            let mut table = self.table.lock();
            (table.gone(&snapshot), table.changed(&snapshot))
        };
        drop(snapshot);
        for key in gone {
            self.forget(&key).await?;
        }
        if changed.is_empty() {
            return Ok(());
        }
        let cursors = self.parts.state.cursors().await?;
        let now = self.parts.clock.now();
        let mut overdue = Vec::new();
        for (key, object) in changed {
            let cursor = cursors.get(&key.to_string()).copied();
            match self.adopt(&key, object, cursor, now).await? {
                Some(at) if at <= now => overdue.push(key),
                Some(at) => self.schedule(&key, at),
                None => {}
            }
        }
        // Of rules that went away while no alerter ran.
        let orphans: Vec<String> = {
            let table = self.table.lock();
            let known: HashSet<String> = table.rules.keys().map(ToString::to_string).collect();
            cursors.into_keys().filter(|rule| !known.contains(rule)).collect()
        };
        for rule in orphans {
            self.parts.state.forget(rule).await?;
        }
        let step = SPREAD_STEP.min(SPREAD / i32::try_from(overdue.len().max(1)).unwrap_or(i32::MAX));
        let mut at = now;
        for key in overdue {
            self.schedule(&key, at);
            at += step;
        }
        Ok(())
    }

    /// Takes up a rule that is new or has changed; returns when it is due, if it runs here.
    async fn adopt(
        &mut self,
        key: &Key,
        object: Arc<AlertRule>,
        cursor: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StateError> {
        self.drop_runs(key);
        self.next_token += 1;
        let gate = Criteria::new(&object.spec.criteria, &object.spec.criteria_expression).decide(&self.parts.labels, Wording::Alerter);
        let entry = Entry::new(key, object, gate, self.next_token, cursor);
        let invalid = entry.rule.as_ref().err().map(|error| format!("Invalid rule: {error}"));
        if invalid.is_some() {
            self.parts.metrics.evaluated(&key.to_string(), Outcome::SetupError, Duration::ZERO);
        }
        self.report(Report::Seen { key: key.clone(), gate: entry.gate.clone(), invalid });
        let due = entry.first_due(now);
        let closed = !entry.gate.proceed;
        self.table.lock().rules.insert(key.clone(), entry);
        if closed && cursor.is_some() {
            // Once it is meant for us again it begins anew.
            self.parts.state.forget(key.to_string()).await?;
        }
        Ok(due)
    }

    async fn forget(&mut self, key: &Key) -> Result<(), StateError> {
        self.drop_runs(key);
        self.table.lock().rules.remove(key);
        let source = key.to_string();
        self.parts.metrics.forget(&source);
        self.report(Report::Gone(key.clone()));
        self.parts.state.forget(source).await
    }

    /// Takes a rule off the schedule and stops its query.
    fn drop_runs(&mut self, key: &Key) {
        self.due.remove(key);
        self.ready.retain(|ready| ready != key);
        if let Some(task) = self.table.lock().rules.get_mut(key).and_then(|entry| entry.task.take()) {
            task.abort();
        }
    }

    fn schedule(&mut self, key: &Key, at: Timestamp) {
        self.due.set(key.clone(), at);
        if let Some(entry) = self.table.lock().rules.get_mut(key) {
            entry.due = Some(at);
        }
    }

    /// After the clock was set back, no rule waits for a time that is an age away.
    fn look_at_times(&mut self, now: Timestamp) {
        let mut late = Vec::new();
        for (key, entry) in &self.table.lock().rules {
            let Ok(rule) = &entry.rule else { continue };
            let limit = after(now + ALIVE, rule.interval);
            if self.due.get(key).is_some_and(|at| at > limit) {
                late.push(key.clone());
            }
        }
        late.iter().for_each(|key| self.schedule(key, now));
    }

    /// Starts the queries that are due, as far as there are slots. Where there are several databases, one that hangs
    /// leaves a slot to the others.
    fn start_queries(&mut self, now: Timestamp) {
        while let Some((_, key)) = self.due.pop_due(now) {
            self.ready.push_back(key);
        }
        let several = self.parts.settings.databases.len() > 1;
        let of_one = if several { self.parts.slots.saturating_sub(1).max(1) } else { self.parts.slots };
        while self.queries.len() < self.parts.slots {
            let mut busy: HashMap<&str, usize> = HashMap::new();
            self.running.values().for_each(|running| *busy.entry(&running.database).or_default() += 1);
            let next = {
                let table = self.table.lock();
                let full = |key: &Key| table.database(key).and_then(|database| busy.get(database)).is_some_and(|n| *n >= of_one);
                self.ready.iter().position(|key| !full(key))
            };
            let Some(key) = next.and_then(|at| self.ready.remove(at)) else { return };
            self.start(key, now);
        }
    }

    fn start(&mut self, key: Key, now: Timestamp) {
        let table = Arc::clone(&self.table);
        let mut table = table.lock();
        let Some(entry) = table.rules.get_mut(&key) else { return };
        let Ok(rule) = entry.rule.clone() else { return };
        let (window, skipped) = match query_window(entry.cursor, rule.interval, CATCH_UP, now) {
            QueryWindow::Run { window, skipped } => (window, skipped),
            QueryWindow::Wait(at) => {
                entry.due = Some(at);
                return self.due.set(key, at);
            }
        };
        if let Some(skipped) = skipped.filter(|skipped| entry.skipped_until.is_none_or(|until| until < skipped.start)) {
            self.parts.metrics.skipped();
            tracing::warn!(rule = rule.source, window = %skipped, "a window lies too far back and is skipped");
            self.report(Report::Skipped(key.clone(), skipped));
        }
        if let Some(skipped) = skipped {
            entry.skipped_until = Some(skipped.end);
        }
        let (settings, database) = (Arc::clone(&self.parts.settings), rule.spec.database.clone());
        let task = self.queries.spawn(async move { evaluate(&rule, window, &settings).await });
        self.running.insert(task.id(), Running { key, token: entry.token, database, began: now });
        entry.task = Some(task);
    }

    /// A query ended: its slot is free. What it found is kept on a task of its own.
    fn answered(&mut self, done: Result<(Id, Evaluation), JoinError>) {
        let (id, evaluation) = match done {
            Ok((id, evaluation)) => (id, Some(evaluation)),
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(%error, "a query ended in a panic");
                }
                (error.id(), None)
            }
        };
        let Some(running) = self.running.remove(&id) else { return };
        let current = {
            let mut table = self.table.lock();
            let entry = table.rules.get_mut(&running.key).filter(|entry| entry.token == running.token);
            entry.map(|entry| (entry.task = None, entry.rule.clone())).and_then(|((), rule)| rule.ok())
        };
        let Some(rule) = current else { return };
        match evaluation {
            Some(evaluation) => drop(self.records.spawn(keep(self.parts.clone(), running, evaluation))),
            None => self.schedule(&running.key, after(running.began, rule.interval)),
        }
    }

    /// A run is kept: its rule is due again one interval after it began.
    fn recorded(&mut self, done: Result<(Running, Evaluation), JoinError>) {
        let (running, evaluation) = match done {
            Ok(done) => done,
            Err(error) => return tracing::error!(%error, "keeping a run ended in a panic"),
        };
        let Running { key, token, began, .. } = running;
        let source = key.to_string();
        let (interval, cursor) = {
            let mut table = self.table.lock();
            let Some(entry) = table.ran(&key, token, began, &evaluation) else { return };
            (entry.rule.as_ref().map_or(Duration::MAX, |rule| rule.interval), entry.cursor)
        };
        self.parts.metrics.evaluated(&source, evaluation.outcome, evaluation.took);
        if evaluation.is_done() {
            self.parts.metrics.covered(&source, evaluation.window.end);
        }
        let status = match evaluation.outcome {
            Outcome::Success => "Success",
            Outcome::NotificationThrottled => "Throttled",
            Outcome::SetupError | Outcome::UserError | Outcome::ServiceError => "Error",
        };
        let Evaluation { message, took, rows, alerts, .. } = evaluation;
        self.report(Report::Ran(key.clone(), Ran { status, message, began, window_end: cursor, took, rows, alerts }));
        self.schedule(&key, after(began, interval));
    }

    fn report(&self, report: Report) {
        // The writer ends only with the process.
        let _ = self.reports.send(report);
    }
}

/// A rule that was tried out.
#[derive(Debug, Clone)]
pub struct Tried {
    /// How it ended.
    pub outcome: Outcome,
    /// What went wrong.
    pub message: String,
    /// Titles of the notifications that would have been made.
    pub titles: Vec<String>,
}

/// Runs a rule once and sends nothing.
///
/// # Errors
/// Where the rule cannot run as it stands.
pub async fn try_rule(key: &Key, object: &AlertRule, window: Window, settings: &Settings) -> Result<Tried, SpecError> {
    let rule = Rule::new(key, object)?;
    let Evaluation { outcome, message, titles, .. } = evaluate(&rule, window, settings).await;
    Ok(Tried { outcome, message, titles })
}

/// Keeps what a run found, and its end, at once.
async fn keep(parts: Parts, running: Running, mut evaluation: Evaluation) -> (Running, Evaluation) {
    let notifications = std::mem::take(&mut evaluation.outgoing);
    let window = (evaluation.window.start, evaluation.window.end);
    let news = !notifications.is_empty();
    let record = Record { rule: running.key.to_string(), window, done: evaluation.is_done(), notifications };
    if !record.done && !news {
        return (running, evaluation);
    }
    match parts.state.record(record, parts.clock.now()).await {
        Ok(dropped) => dropped.iter().for_each(|dropped| log_dropped(&parts.metrics, dropped, "too many notifications wait")),
        Err(error) => {
            tracing::error!(%error, rule = %running.key, "what a rule found cannot be kept: it runs again");
            evaluation.lost(&error);
        }
    }
    if news {
        parts.wake.iter().for_each(|wake| wake.notify_one());
    }
    (running, evaluation)
}

fn after(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| at.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}
