//! Runs rules on schedule: one task that knows when each is due, and as many queries at a time as there are slots.
//!
//! A rule's window begins where its last successful one ended, so late runs, failures and restarts leave no gap; it is
//! never longer than an hour or three intervals, and what lies before is reported as skipped. What another alerter has
//! run but may not have delivered, and took with its disk, is no downtime: it runs again, window by window, as far back as
//! the other would have tried. A window whose run fails through no fault of the rule runs again after a pause that doubles,
//! well before the interval is over. The slot of a rule is free again when its query is answered: keeping the result,
//! delivery and status do not hold up other rules.

mod evaluate;
mod report;
mod rule;
mod slots;
mod table;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crds::criteria::{Criteria, Labels, Wording};
use crds::{AlertRule, SpecError};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use rules::backoff::{Backoff, random_unit};
use rules::clock::Clock;
use rules::store::{Key, Objects, Store};
use rules::window::{QueryWindow, Window, query_window};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::channel::Sender;
use crate::delivery::{Progress, log_dropped};
use crate::metrics::{Metrics, Outcome};
use crate::schedule::Schedule;
use crate::state::{Cursor, Dropped, Record, State, StateError};
pub use evaluate::Settings;
use evaluate::{Again, Evaluation, evaluate, evaluate_quickly};
use report::{Ran, Report, Reporter};
use rule::Rule;
use slots::{Held, Places, Slot};
use table::Entry;
pub use table::Table;

/// How often the engine says that it is alive and looks at its times, in case the clock was set.
const ALIVE: SignedDuration = SignedDuration::from_secs(60);
/// The first pause after a run that failed through no fault of the rule. It doubles
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// up to the interval, at most this long.
const LONGEST_RETRY: Duration = Duration::from_secs(300);
/// Longest pause that Kusto may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);
/// While so many results are not kept yet, no query starts.
const MAX_UNKEPT: usize = 256;
/// News that may wait for the writer of statuses before the engine does.
const REPORTS: usize = 1024;
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
    /// Told of notifications that found no room in the outbox, as of deliveries.
    pub progress: Sender<Progress>,
}

/// The scheduler.
pub struct Engine {
    parts: Parts,
    objects: Objects<AlertRule>,
    table: Arc<Mutex<Table>>,
    due: Schedule<Key>,
    /// Rules whose time has come and that wait for a slot.
    ready: VecDeque<Key>,
    /// Each brings nothing if it was cut off.
    queries: JoinSet<Option<Evaluation>>,
    running: HashMap<Id, Running>,
    records: JoinSet<Evaluation>,
    keeping: HashMap<Id, Running>,
    places: Places,
    reports: Sender<Report>,
    next_token: u64,
    led: bool,
}

/// A query that runs.
#[derive(Debug, Clone)]
struct Running {
    key: Key,
    token: u64,
    slot: Slot,
    window: Window,
    began: Timestamp,
}

/// What is to run now.
struct Run {
    rule: Arc<Rule>,
    token: u64,
    slow: bool,
    window: Window,
    /// What no run will look at.
    skipped: Option<Window>,
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
    pub fn new(parts: Parts, progress: mpsc::Receiver<Progress>) -> (Engine, StatusWriter) {
        let (reports, receiver) = crate::channel::channel(REPORTS, "reports", &parts.metrics);
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
            places: Places::new(&parts.settings),
            parts,
            table: Arc::default(),
            due: Schedule::default(),
            ready: VecDeque::new(),
            queries: JoinSet::new(),
            running: HashMap::new(),
            records: JoinSet::new(),
            keeping: HashMap::new(),
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
            self.start_queries(now).await;
            self.parts.metrics.unkept(self.records.len());
            let next = self.due.next().unwrap_or(Timestamp::MAX).min(alive);
            tokio::select! {
                () = self.objects.changed() => self.reconcile().await?,
                Some(done) = self.queries.join_next_with_id() => self.answered(done),
                Some(done) = self.records.join_next_with_id() => self.recorded(done).await,
                () = self.parts.clock.sleep_until(next) => {}
                // Who has no cluster always leads: nobody changes that.
                Ok(()) = self.parts.leading.changed() => {}
                () = shutdown.cancelled() => break,
            }
        }
        self.queries.abort_all();
        // What was answered is kept.
        while let Some(done) = self.records.join_next_with_id().await {
            self.recorded(done).await;
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
        tracing::info!("this alerter does not lead any more, and runs no rules: another one leads, or the API server refuses to let it");
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
        cursor: Option<Cursor>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StateError> {
        self.drop_runs(key);
        self.next_token += 1;
        let gate = Criteria::new(&object.spec.criteria, &object.spec.criteria_expression).decide(&self.parts.labels, Wording::Alerter);
        let entry = Entry::new(key, object, gate, self.next_token, cursor, now);
        let invalid = entry.rule.as_ref().err().map(|error| format!("Invalid rule: {error}"));
        if invalid.is_some() {
            self.parts.metrics.evaluated(&key.to_string(), Outcome::SetupError, Duration::ZERO);
        }
        let generation = entry.object.metadata.generation;
        self.report(Report::Seen { key: key.clone(), generation, gate: entry.gate.clone(), invalid }).await;
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
        self.report(Report::Gone(key.clone())).await;
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
            let longest = if entry.failures > 0 { rule.interval.max(LONGEST_ASKED) } else { rule.interval };
            let limit = after(now + ALIVE, longest);
            if self.due.get(key).is_some_and(|at| at > limit) {
                late.push(key.clone());
            }
        }
        late.iter().for_each(|key| self.schedule(key, now));
    }

    /// Starts the queries that are due, as far as there are slots.
    async fn start_queries(&mut self, now: Timestamp) {
        while let Some((_, key)) = self.due.pop_due(now) {
            self.ready.push_back(key);
        }
        while self.queries.len() < self.parts.slots && self.records.len() < MAX_UNKEPT {
            let Some(key) = self.next_ready() else { return };
            self.start(key, now).await;
        }
    }

    /// The first rule that may take a slot.
    fn next_ready(&mut self) -> Option<Key> {
        let held = Held::new(self.parts.slots, &self.places, self.running.values().map(|running| running.slot));
        let next = {
            let table = self.table.lock();
            self.ready.iter().position(|key| {
                let (database, slow) = table.database_and_pace(key).unzip();
                held.has_room_for(Slot { place: database.and_then(|name| self.places.of(name)), slow: slow.unwrap_or_default() })
            })
        };
        self.ready.remove(next?)
    }

    async fn start(&mut self, key: Key, now: Timestamp) {
        let Some(Run { rule, token, slow, window, skipped }) = self.next_run(&key, now) else { return };
        if let Some(skipped) = skipped {
            self.parts.metrics.skipped();
            tracing::warn!(rule = rule.source, window = %skipped, "a window lies too far back and is skipped");
            self.report(Report::Skipped(key.clone(), skipped)).await;
        }
        let settings = Arc::clone(&self.parts.settings);
        let slot = Slot { place: self.places.of(&rule.spec.database), slow };
        let task = self.queries.spawn(async move {
            match slow {
                true => Some(evaluate(&rule, window, &settings, settings.query_deadline).await),
                false => evaluate_quickly(&rule, window, &settings).await,
            }
        });
        if let Some(entry) = self.table.lock().rules.get_mut(&key) {
            entry.task = Some(task.clone());
        }
        self.running.insert(task.id(), Running { key, token, slot, window, began: now });
    }

    /// What a rule is to look at now; nothing if it is to wait.
    fn next_run(&mut self, key: &Key, now: Timestamp) -> Option<Run> {
        let mut table = self.table.lock();
        let entry = table.rules.get_mut(key)?;
        let rule = entry.rule.clone().ok()?;
        let (token, slow) = (entry.token, entry.is_slow());
        if let Some(window) = entry.again(rule.interval, now) {
            return Some(Run { rule, token, slow, window, skipped: None });
        }
        // Of a rule that never had a success, what failed first is not lost either.
        let cursor = entry.cursor.or(entry.failed.map(|window| window.start)).or(entry.begins);
        let next = match entry.repeat(rule.interval, now) {
            Some((window, skipped)) => QueryWindow::Run { window, skipped },
            None => query_window(cursor, rule.interval, now),
        };
        match next {
            QueryWindow::Run { window, skipped } => {
                let news = skipped.filter(|skipped| entry.skipped_until.is_none_or(|until| until < skipped.start));
                entry.skipped_until = skipped.map(|skipped| skipped.end).or(entry.skipped_until);
                Some(Run { rule, token, slow, window, skipped: news })
            }
            QueryWindow::Wait(at) => {
                entry.due = Some(at);
                self.due.set(key.clone(), at);
                None
            }
        }
    }

    /// A query ended: its slot is free. What it found is kept on a task of its own; one that was cut off waits for its turn
    /// among the slow ones.
    fn answered(&mut self, done: Result<(Id, Option<Evaluation>), JoinError>) {
        let (id, evaluation) = match done {
            Ok((id, evaluation)) => (id, Ok(evaluation)),
            Err(error) => (error.id(), Err(error)),
        };
        let Some(running) = self.running.remove(&id) else { return };
        {
            let mut table = self.table.lock();
            let current = table.rules.get_mut(&running.key).filter(|entry| entry.token == running.token);
            let Some(entry) = current else { return };
            entry.task = None;
            if let Ok(None) = evaluation {
                entry.slow = true;
                // Its first window begins there also if it has to wait.
                entry.begins = Some(running.window.start);
            }
        }
        let evaluation = match evaluation {
            Ok(Some(evaluation)) => evaluation,
            Ok(None) => {
                self.parts.metrics.cut_off();
                tracing::info!(rule = %running.key, after = ?self.parts.settings.quick, "a query takes long: it runs again among the slow ones");
                return self.ready.push_back(running.key);
            }
            Err(error) => {
                tracing::error!(%error, rule = %running.key, "an evaluation ended in a panic");
                Evaluation::broken(running.window, &"the evaluation ended in a panic, which is a mistake of the alerter")
            }
        };
        let task = self.records.spawn(keep(self.parts.clone(), running.clone(), evaluation));
        self.keeping.insert(task.id(), running);
    }

    /// A run is kept: its rule is due again one interval after its window, or sooner if it failed through no fault of the
    /// rule.
    async fn recorded(&mut self, done: Result<(Id, Evaluation), JoinError>) {
        let (id, evaluation) = match done {
            Ok((id, evaluation)) => (id, Some(evaluation)),
            Err(error) => {
                tracing::error!(%error, "keeping a run ended in a panic");
                (error.id(), None)
            }
        };
        let Some(Running { key, token, window, began, .. }) = self.keeping.remove(&id) else { return };
        let evaluation = evaluation.unwrap_or_else(|| Evaluation::broken(window, &"keeping its result ended in a panic"));
        let source = key.to_string();
        let now = self.parts.clock.now();
        let (interval, cursor, failures, repeats) = {
            let mut table = self.table.lock();
            let Some(entry) = table.ran(&key, token, began, &evaluation) else { return };
            entry.keep_pace(&self.parts.settings, evaluation.took);
            let interval = entry.rule.as_ref().map_or(Duration::MAX, |rule| rule.interval);
            (interval, entry.cursor, entry.failures, entry.repeat(interval, now).is_some())
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
        let done = evaluation.is_done();
        let Evaluation { message, took, rows, alerts, again, .. } = evaluation;
        let due = match again {
            Some(again) => after(now, retry_pause(failures, again, interval)),
            None if repeats && done => now,
            None => after(window.end, interval),
        };
        self.report(Report::Ran(key.clone(), Ran { status, message, began, window_end: cursor, took, rows, alerts })).await;
        self.schedule(&key, due);
    }

    /// Waits while the writer of statuses is behind.
    async fn report(&self, report: Report) {
        self.reports.send(report).await;
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
    let Evaluation { outcome, message, titles, .. } = evaluate(&rule, window, settings, settings.query_deadline).await;
    Ok(Tried { outcome, message, titles })
}

/// Keeps what a run found, and its end, at once.
async fn keep(parts: Parts, running: Running, mut evaluation: Evaluation) -> Evaluation {
    let notifications = std::mem::take(&mut evaluation.outgoing);
    let window = (evaluation.window.start, evaluation.window.end);
    let news = !notifications.is_empty();
    let record = Record { rule: running.key.to_string(), window, done: evaluation.is_done(), notifications };
    if !record.done && !news {
        return evaluation;
    }
    match parts.state.record(record, parts.clock.now()).await {
        Ok(dropped) => tell_of_dropped(&parts, dropped).await,
        Err(error) => {
            tracing::error!(%error, rule = %running.key, "what a rule found cannot be kept: it runs again");
            evaluation = Evaluation { took: evaluation.took, ..Evaluation::broken(evaluation.window, &error) };
        }
    }
    if news {
        parts.wake.iter().for_each(|wake| wake.notify_one());
    }
    evaluation
}

/// Notifications went because the outbox is full: each is logged, and the status of each rule names its last one.
async fn tell_of_dropped(parts: &Parts, dropped: Vec<Dropped>) {
    const WHY: &str = "too many notifications wait";
    dropped.iter().for_each(|dropped| log_dropped(&parts.metrics, dropped, WHY));
    let last_by_rule: BTreeMap<String, String> = dropped.into_iter().map(|dropped| (dropped.rule, dropped.title)).collect();
    for (rule, title) in last_by_rule {
        parts.progress.send(Progress { rule, error: Some(WHY.to_owned()), given_up: Some(title) }).await;
    }
}

/// The pause before the window runs again, after so many failures in a row.
fn retry_pause(failures: u32, again: Again, interval: Duration) -> Duration {
    let backoff = Backoff { first: FIRST_RETRY, longest: interval.min(LONGEST_RETRY) };
    backoff.pause(failures.saturating_sub(1), again.asked.map(|asked| asked.min(LONGEST_ASKED)), random_unit())
}

fn after(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| at.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
