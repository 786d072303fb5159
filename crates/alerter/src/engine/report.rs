//! The status of rules: what a user wants to know, written when it changes and not whenever a rule has run.
//!
//! What a user acts on (outcome, message, whether it alerts, criteria, deliveries) is written within a second; counts and
//! times alone at most every five minutes, and where nothing changes at all, times once an hour.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crds::conditions::{self, Desired, Truth};
use crds::criteria::Decision;
use crds::{AlertRule, Condition, Time};
use jiff::{SignedDuration, Timestamp};
use rules::clock::Clock;
use rules::store::{Event, Key, Severity, Store, StoreError};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::delivery::Progress;
use crate::metrics::Metrics;
use crate::schedule::Schedule;
use crate::state::State;

/// Lets what belongs together be written together.
const SETTLE: SignedDuration = SignedDuration::from_secs(1);
/// Between writes of counts and times of a rule that alerts.
const COUNTS: SignedDuration = SignedDuration::from_mins(5);
/// Between writes of times of a rule about which there is nothing new.
const TIMES: SignedDuration = SignedDuration::from_hours(1);
/// Until a write that failed is tried again.
const RETRY: SignedDuration = SignedDuration::from_secs(10);
/// How long a write may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// Events about one rule that wait for a write.
const MAX_EVENTS: usize = 8;
/// Writes at the same time: a store of files commits them together.
const MAX_WRITES: usize = 16;

/// News of a rule.
#[derive(Debug, Clone)]
pub(crate) enum Report {
    /// It was looked at: new, or changed.
    Seen {
        /// Which.
        key: Key,
        /// Its generation: what is found for it says so.
        generation: Option<i64>,
        /// Whether it is meant for this alerter; nothing where it cannot run anyway.
        gate: Decision,
        /// Why it cannot run, if it cannot.
        invalid: Option<String>,
    },
    /// It has run.
    Ran(Key, Ran),
    /// A span of time that no run will look at.
    Skipped(Key, rules::window::Window),
    /// It is gone.
    Gone(Key),
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ran {
    /// `Success`, `Error` or `Throttled`.
    pub(crate) status: &'static str,
    pub(crate) message: String,
    pub(crate) began: Timestamp,
    /// End of the last window that is done.
    pub(crate) window_end: Option<Timestamp>,
    pub(crate) took: Duration,
    pub(crate) rows: usize,
    pub(crate) alerts: usize,
}

/// What is known of a rule, and what was last written of it.
#[derive(Debug, Default)]
struct Line {
    now: Facts,
    counts: Counts,
    written: Facts,
    written_counts: Counts,
    written_at: Option<Timestamp>,
    events: Vec<Event>,
    /// Whether a notification was given up and none was taken since.
    gave_up: bool,
    writing: bool,
}

/// What a user acts on.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Facts {
    generation: Option<i64>,
    status: String,
    message: String,
    alerts: bool,
    gate: Option<Decision>,
    /// Nothing where no delivery ever failed.
    delivery: Option<Delivery>,
    /// The last window that no query will look at.
    skipped: Option<String>,
}

/// How deliveries do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Delivery {
    /// They work again.
    AllTaken,
    /// They fail, and are made again.
    Fails(String),
    /// The last that failed is not made again.
    GivenUp(String),
}

impl Delivery {
    /// What the condition of a status says.
    fn of(condition: &Condition) -> Delivery {
        match (condition.status.as_str(), condition.reason.as_str()) {
            ("True", _) => Delivery::AllTaken,
            (_, GIVEN_UP) => Delivery::GivenUp(condition.message.clone()),
            _ => Delivery::Fails(condition.message.clone()),
        }
    }

    /// Status, reason and message of the condition.
    fn said(&self) -> (Truth, &'static str, &str) {
        match self {
            Delivery::AllTaken => (Truth::True, ALL_TAKEN, "all notifications were taken"),
            Delivery::Fails(why) => (Truth::False, "TargetFails", why),
            Delivery::GivenUp(what) => (Truth::False, GIVEN_UP, what),
        }
    }
}

/// What changes from run to run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Counts {
    ran: Option<Ran>,
    last_alert: Option<Timestamp>,
}

/// Writes statuses.
pub(crate) struct Reporter {
    pub(crate) store: Arc<dyn Store<AlertRule>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) state: State,
    pub(crate) metrics: Metrics,
    pub(crate) leading: watch::Receiver<bool>,
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) progress: mpsc::Receiver<Progress>,
}

#[derive(Default)]
struct Book {
    lines: HashMap<Key, Line>,
    due: Schedule<Key>,
    writes: JoinSet<Write>,
    /// Whose status each of them writes.
    writing: HashMap<Id, Key>,
}

/// What was written, and how that went.
type Write = (Key, Facts, Counts, Result<(), StoreError>);

impl Reporter {
    /// Writes until `shutdown`, and then what is still to be written.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut book = Book::default();
        loop {
            let leading = *self.leading.borrow_and_update();
            let now = self.clock.now();
            if leading {
                self.start_writes(&mut book, now);
            } else {
                // Whoever leads writes now: what we know of statuses is out of date once we lead again.
                book.forget();
            }
            let next = if leading && book.writes.len() < MAX_WRITES { book.due.next() } else { None };
            tokio::select! {
                Some(report) = self.reports.recv() => self.note(&mut book, report),
                Some(progress) = self.progress.recv() => self.delivered(&mut book, progress).await,
                Some(done) = book.writes.join_next_with_id() => self.ended(&mut book, done),
                () = self.clock.sleep_until(next.unwrap_or(Timestamp::MAX)) => {}
                Ok(()) = self.leading.changed() => {}
                () = shutdown.cancelled() => break,
            }
        }
        self.finish(book).await;
    }

    /// The last writes: what was not due yet is, once.
    async fn finish(&mut self, mut book: Book) {
        // Nobody waits for a writer that takes no more.
        self.reports.close();
        self.progress.close();
        if !*self.leading.borrow() {
            return;
        }
        while let Ok(report) = self.reports.try_recv() {
            self.note(&mut book, report);
        }
        book.due = Schedule::default();
        let waiting: Vec<Key> = book.lines.iter().filter(|(_, line)| line.now != line.written).map(|(key, _)| key.clone()).collect();
        waiting.into_iter().for_each(|key| book.due.set(key, Timestamp::MIN));
        let write = async {
            while book.due.next().is_some() || !book.writes.is_empty() {
                self.start_writes(&mut book, Timestamp::MIN);
                // Not tried again: the process ends.
                let _ = book.writes.join_next().await;
            }
        };
        let _ = tokio::time::timeout(WRITE_DEADLINE, write).await;
    }

    fn note(&self, book: &mut Book, report: Report) {
        if !*self.leading.borrow() {
            return;
        }
        let now = self.clock.now();
        match report {
            Report::Gone(key) => {
                book.lines.remove(&key);
                book.due.remove(&key);
            }
            Report::Seen { key, generation, gate, invalid } => {
                let line = self.line(book, &key);
                if gate.reason == "CriteriaExpressionError" {
                    let (reason, note) = (gate.reason.to_owned(), gate.message.clone());
                    line.tell(Event { severity: Severity::Warning, action: "Validate".into(), reason, note });
                }
                (line.now.generation, line.now.gate) = (generation, Some(gate));
                if let Some(message) = invalid {
                    (line.now.status, line.now.message, line.now.alerts) = ("Error".into(), message, false);
                    warn(line, "Validate", "InvalidRule");
                }
                book.plan(&key, now);
            }
            Report::Ran(key, ran) => {
                let line = self.line(book, &key);
                let failing = ran.status == "Error" && (line.now.status != "Error" || line.now.message != ran.message);
                (line.now.status, line.now.message, line.now.alerts) = (ran.status.into(), ran.message.clone(), ran.alerts > 0);
                if ran.alerts > 0 {
                    line.counts.last_alert = Some(now);
                }
                line.counts.ran = Some(ran);
                if failing {
                    warn(line, "Query", "QueryFailed");
                }
                book.plan(&key, now);
            }
            Report::Skipped(key, window) => {
                let note = format!("no query will look at {window}: it lies further back than is caught up with");
                let line = self.line(book, &key);
                line.now.skipped = Some(note.clone());
                line.tell(Event { severity: Severity::Warning, action: "CatchUp".into(), reason: "WindowSkipped".into(), note });
                book.plan(&key, now);
            }
        }
    }

    /// A delivery succeeded or failed. Only the first failure, the end of the trouble and what is given up are news.
    async fn delivered(&self, book: &mut Book, progress: Progress) {
        let Some((namespace, name)) = progress.rule.split_once('/') else { return };
        let key = Key::new(namespace, name);
        // Notifications of rules that are gone are delivered too.
        let Some(line) = book.lines.get_mut(&key) else { return };
        let failing = !matches!(line.now.delivery, None | Some(Delivery::AllTaken));
        match (progress.error, progress.given_up) {
            (Some(why), Some(title)) => {
                let note = format!("nobody was told of {title:?}, which is not sent again: {why}");
                (line.now.delivery, line.gave_up) = (Some(Delivery::GivenUp(note.clone())), true);
                line.tell(Event { severity: Severity::Warning, action: "Deliver".into(), reason: GIVEN_UP.into(), note });
            }
            (Some(why), None) => {
                let why = format!("notifications wait and are sent again until they are taken: {why}");
                line.now.delivery = Some(Delivery::Fails(why));
            }
            (None, _) if failing && self.state.waiting_of(progress.rule).await.is_ok_and(|waiting| waiting == 0) => {
                line.now.delivery = Some(Delivery::AllTaken);
                if std::mem::take(&mut line.gave_up) {
                    let note = "notifications are taken again, and none waits".to_owned();
                    line.tell(Event { severity: Severity::Normal, action: "Deliver".into(), reason: ALL_TAKEN.into(), note });
                }
            }
            (None, _) => return,
        }
        book.plan(&key, self.clock.now());
    }

    /// The line of a rule; a new one begins with what the object's status says.
    fn line<'a>(&self, book: &'a mut Book, key: &Key) -> &'a mut Line {
        book.lines.entry(key.clone()).or_insert_with(|| {
            let object = self.store.objects().get(key);
            let status = object.and_then(|object| object.status.clone()).unwrap_or_default();
            let facts = Facts {
                generation: None,
                alerts: status.last_alerts_generated > 0,
                gate: None,
                skipped: None,
                delivery: conditions::get(&status.conditions, DELIVERED).map(Delivery::of),
                status: status.status,
                message: status.message,
            };
            let counts = Counts { ran: None, last_alert: status.last_alert_time.map(|time| time.0) };
            Line {
                gave_up: matches!(facts.delivery, Some(Delivery::GivenUp(_))),
                now: facts.clone(),
                written: facts,
                counts: counts.clone(),
                written_counts: counts,
                written_at: status.last_query_time.map(|time| time.0),
                ..Line::default()
            }
        })
    }

    fn start_writes(&self, book: &mut Book, now: Timestamp) {
        while book.writes.len() < MAX_WRITES
            && let Some((_, key)) = book.due.pop_due(now)
        {
            let Some(line) = book.lines.get_mut(&key) else { continue };
            if line.writing {
                continue;
            }
            line.writing = true;
            let events = std::mem::take(&mut line.events);
            let (facts, counts) = (line.now.clone(), line.counts.clone());
            let (store, clock, state) = (Arc::clone(&self.store), Arc::clone(&self.clock), self.state.clone());
            let written = key.clone();
            let task = book.writes.spawn(async move {
                let now = clock.now();
                let settled = settled(&state, &key, &counts).await;
                let change = |object: &mut AlertRule| apply(object, &facts, &counts, settled, now);
                let write = tokio::time::timeout(WRITE_DEADLINE, store.update_status(&key, &change));
                let result = match write.await {
                    Ok(result) => result,
                    Err(elapsed) => {
                        Err(StoreError { what: "the status", kind: "AlertRule".into(), key: key.clone(), source: Box::new(elapsed) })
                    }
                };
                if let Some(object) = store.objects().get(&key) {
                    for event in events {
                        store.event(&object, event).await;
                    }
                }
                (key, facts, counts, result)
            });
            book.writing.insert(task.id(), written);
        }
    }

    fn ended(&self, book: &mut Book, done: Result<(Id, Write), JoinError>) {
        match done {
            Ok((id, write)) => {
                book.writing.remove(&id);
                self.written(book, write);
            }
            Err(error) => {
                tracing::error!(%error, "writing a status ended in a panic; it will be written again");
                let Some(key) = book.writing.remove(&error.id()) else { return };
                let Some(line) = book.lines.get_mut(&key) else { return };
                line.writing = false;
                book.due.set(key, self.clock.now() + RETRY);
            }
        }
    }

    fn written(&self, book: &mut Book, (key, facts, counts, result): Write) {
        let now = self.clock.now();
        let Some(line) = book.lines.get_mut(&key) else { return };
        line.writing = false;
        match result {
            Ok(()) => {
                self.metrics.status_written();
                (line.written, line.written_counts, line.written_at) = (facts, counts, Some(now));
                book.plan(&key, now);
            }
            Err(error) => {
                tracing::warn!(%error, "a status will be written again");
                book.due.set(key, now + RETRY);
            }
        }
    }
}

impl Line {
    /// Keeps an event for the next write. Past the bound the oldest goes: the newest say what is wrong now.
    fn tell(&mut self, event: Event) {
        if self.events.len() >= MAX_EVENTS {
            let Event { action, reason, note, .. } = self.events.remove(0);
            tracing::warn!(action, reason, note, "an event about a rule is left out: too many wait for its status to be written");
        }
        self.events.push(event);
    }
}

impl Book {
    /// Forgets what is known. Writes that run are finished.
    fn forget(&mut self) {
        self.lines.clear();
        self.due = Schedule::default();
    }

    /// Sets when the rule's status is to be written, if at all.
    fn plan(&mut self, key: &Key, now: Timestamp) {
        let Some(line) = self.lines.get(key).filter(|line| !line.writing) else { return };
        let since = |pause: SignedDuration| line.written_at.map_or(now, |at| (at + pause).max(now));
        let at = if line.now != line.written || !line.events.is_empty() {
            now + SETTLE
        } else if line.counts == line.written_counts {
            return;
        } else if line.counts.last_alert != line.written_counts.last_alert {
            since(COUNTS)
        } else {
            since(TIMES)
        };
        self.due.set_earlier(key.clone(), at);
    }
}

const DELIVERED: &str = "Delivered";
const ALL_TAKEN: &str = "AllTaken";
const GIVEN_UP: &str = "NotificationGivenUp";
const SKIPPED: &str = "Skipped";

fn warn(line: &mut Line, action: &str, reason: &str) {
    let note = line.now.message.clone();
    line.tell(Event { severity: Severity::Warning, action: action.into(), reason: reason.into(), note });
}

/// Until where all windows are done and all that they found was taken: an alerter that knows no more than the status goes on
/// from there.
async fn settled(state: &State, key: &Key, counts: &Counts) -> Option<Timestamp> {
    let end = counts.ran.as_ref()?.window_end?;
    match state.waits_since(key.to_string()).await {
        Ok(waits_since) => Some(waits_since.map_or(end, |since| since.min(end))),
        Err(error) => {
            tracing::warn!(%error, rule = %key, "a status is written without the end of the last window");
            None
        }
    }
}

/// Puts what is known into the object's status.
fn apply(object: &mut AlertRule, facts: &Facts, counts: &Counts, settled: Option<Timestamp>, now: Timestamp) {
    let generation = facts.generation.or(object.metadata.generation);
    let status = object.status.get_or_insert_default();
    status.status.clone_from(&facts.status);
    status.message.clone_from(&facts.message);
    if let Some(ran) = &counts.ran {
        status.last_query_time = Some(Time(ran.began));
        if let Some(settled) = settled {
            status.last_window_end = Some(Time(settled));
        }
        status.last_evaluation_duration_milliseconds = i64::try_from(ran.took.as_millis()).unwrap_or(i64::MAX);
        status.last_rows_returned = i64::try_from(ran.rows).unwrap_or(i64::MAX);
        status.last_alerts_generated = i64::try_from(ran.alerts).unwrap_or(i64::MAX);
    }
    if let Some(alert) = counts.last_alert {
        status.last_alert_time = Some(Time(alert));
    }
    if let Some(gate) = &facts.gate {
        let (status_, reason, message) = (gate.status(), gate.reason, gate.message.as_str());
        let desired = Desired { type_: "Criteria", status: status_, reason, message, observed_generation: generation };
        conditions::set(&mut status.conditions, &desired, now);
    }
    if let Some(message) = &facts.skipped {
        let desired = Desired { type_: SKIPPED, status: Truth::True, reason: "WindowSkipped", message, observed_generation: generation };
        conditions::set(&mut status.conditions, &desired, now);
    }
    if let Some(delivery) = &facts.delivery {
        let (status_, reason, message) = delivery.said();
        let desired = Desired { type_: DELIVERED, status: status_, reason, message, observed_generation: generation };
        conditions::set(&mut status.conditions, &desired, now);
    }
}

#[cfg(test)]
mod tests;
