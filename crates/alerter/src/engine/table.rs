//! What the engine knows of each rule.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crds::criteria::Decision;
use crds::{AlertRule, SpecError};
use jiff::{SignedDuration, Timestamp};
use rules::store::{Key, ObjectMap};
use rules::window::{Window, look_back};
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use super::after;
use super::evaluate::{Evaluation, Settings};
use super::rule::{Rule, same_spec};
use crate::delivery::MAX_AGE;
use crate::metrics::Outcome;
use crate::state::Cursor;

/// A rule, and where its runs stand.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) object: Arc<AlertRule>,
    pub(crate) rule: Result<Arc<Rule>, SpecError>,
    pub(crate) gate: Decision,
    /// Changes with every version of the rule: the answer of an older one does not count.
    pub(crate) token: u64,
    /// End of the last window that is done.
    pub(crate) cursor: Option<Timestamp>,
    /// Until where another process ran windows of which it may not have delivered all that it found.
    pub(crate) reached: Option<Timestamp>,
    /// Where the first window of a new rule begins; one interval ago without it.
    pub(crate) begins: Option<Timestamp>,
    /// Whether its query took longer than quick ones get.
    pub(crate) slow: bool,
    /// Until where windows were reported as skipped.
    pub(crate) skipped_until: Option<Timestamp>,
    /// When it is or was due.
    pub(crate) due: Option<Timestamp>,
    /// Runs in a row that failed through no fault of the rule.
    pub(crate) failures: u32,
    /// The window of the last of them.
    pub(crate) failed: Option<Window>,
    /// The query that runs.
    pub(crate) task: Option<AbortHandle>,
    pub(crate) last: Option<Last>,
}

/// The last run.
#[derive(Debug, Clone)]
pub(crate) struct Last {
    pub(crate) began: Timestamp,
    pub(crate) late: Duration,
    pub(crate) outcome: Outcome,
    pub(crate) message: String,
    pub(crate) rows: usize,
    pub(crate) alerts: usize,
    pub(crate) took: Duration,
}

impl Entry {
    /// A rule that is new or has changed.
    pub(crate) fn new(key: &Key, object: Arc<AlertRule>, gate: Decision, token: u64, cursor: Option<Cursor>, now: Timestamp) -> Entry {
        let rule = Rule::new(key, &object).map(Arc::new);
        let reached = cursor.map(|cursor| cursor.reached);
        let cursor = cursor.map(|cursor| cursor.end).or_else(|| cursor_in_status(&object));
        let begins = rule.as_ref().ok().and_then(|rule| beginning(&object, rule.interval, now));
        Entry {
            object,
            rule,
            gate,
            token,
            cursor,
            reached,
            begins,
            slow: false,
            skipped_until: None,
            due: None,
            failures: 0,
            failed: None,
            task: None,
            last: None,
        }
    }

    /// When it is to run first; nothing if it does not run here.
    pub(crate) fn first_due(&self, now: Timestamp) -> Option<Timestamp> {
        let rule = self.rule.as_ref().ok().filter(|_| self.gate.proceed)?;
        let Some(cursor) = self.cursor else { return Some(now) };
        let interval = SignedDuration::try_from(rule.interval).unwrap_or(SignedDuration::MAX);
        // A cursor ahead of the clock was written under another time.
        Some(cursor.checked_add(interval).ok().filter(|_| cursor <= now).unwrap_or(now))
    }

    /// The window that failed, if it is to run again as it is: the next one is not due yet.
    pub(crate) fn again(&self, interval: Duration, now: Timestamp) -> Option<Window> {
        self.failed.filter(|window| window.end <= now && now < after(window.end, interval))
    }

    /// The next window, and what is skipped before it, where another process ran windows of which it may not have delivered
    /// all that it found, and the latest window alone does not cover them. As far back as that process would have tried.
    pub(crate) fn repeat(&self, interval: Duration, now: Timestamp) -> Option<(Window, Option<Window>)> {
        let (cursor, reached) = (self.cursor?, self.reached?.min(now));
        let longest = look_back(interval);
        if after(cursor, longest) >= now {
            return None;
        }
        let start = cursor.max(now.checked_sub(MAX_AGE).unwrap_or(Timestamp::MIN));
        let skipped = (start > cursor).then_some(Window { start: cursor, end: start });
        (start < reached).then(|| (Window { start, end: after(start, longest).min(reached) }, skipped))
    }

    /// Whether it runs among the slow ones. What may not run twice is never cut off.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow || self.rule.as_ref().is_ok_and(|rule| !rule.repeatable)
    }

    /// Remembers whether a query took long. One that is near the bound stays where it is.
    pub(crate) fn keep_pace(&mut self, settings: &Settings, took: Duration) {
        let quick = settings.quick.min(settings.query_deadline);
        if took >= quick {
            self.slow = true;
        } else if took < quick / 2 {
            self.slow = false;
        }
    }

    fn json(&self, now: Timestamp) -> Value {
        let lag = self.cursor.map(|cursor| now.duration_since(cursor).as_millis() as f64 / 1000.0);
        let last = self.last.as_ref().map(|last| {
            json!({
                "began": last.began, "lateSeconds": last.late.as_secs_f64(), "outcome": last.outcome, "message": last.message,
                "rows": last.rows, "alerts": last.alerts, "seconds": last.took.as_secs_f64(),
            })
        });
        let (state, reason) = match (&self.rule, &self.gate) {
            (Err(error), _) => ("invalid", Some(error.to_string())),
            (_, gate) if !gate.proceed => ("not for this alerter", Some(gate.message.clone())),
            _ if self.task.is_some() => ("running", None),
            _ => ("scheduled", None),
        };
        json!({
            "state": state, "reason": reason, "database": self.object.spec.database, "interval": self.object.spec.interval.as_str(),
            "slow": self.is_slow(), "nextRun": self.due, "failuresInARow": self.failures, "doneUntil": self.cursor, "lagSeconds": lag, "last": last,
        })
    }
}

/// The first window of a rule that was made a short while ago begins an interval before that: whoever ran it before us may
/// have been lost with all that it knew.
fn beginning(object: &AlertRule, interval: Duration, now: Timestamp) -> Option<Timestamp> {
    let made = object.metadata.creation_timestamp.as_ref()?.0;
    let start = made.checked_sub(SignedDuration::try_from(interval).ok()?).ok()?;
    (after(start, look_back(interval)) >= now).then_some(start)
}

/// Where another alerter, or the reference, left off.
fn cursor_in_status(object: &AlertRule) -> Option<Timestamp> {
    let status = object.status.as_ref()?;
    let end = status.last_window_end.as_ref().or_else(|| {
        // The reference's windows end when the query begins, and it keeps no end of its own.
        status.last_query_time.as_ref().filter(|_| status.status != "Error")
    });
    end.map(|time| time.0)
}

/// All rules.
#[derive(Debug, Default)]
pub struct Table {
    pub(crate) rules: BTreeMap<Key, Entry>,
}

impl Table {
    /// What is known, as JSON: by rule the next run, the last outcome and the lag.
    #[must_use]
    pub fn json(&self, now: Timestamp) -> Value {
        self.rules.iter().map(|(key, entry)| (key.to_string(), entry.json(now))).collect::<serde_json::Map<_, _>>().into()
    }

    /// Rules that are no longer there.
    pub(crate) fn gone(&self, objects: &ObjectMap<AlertRule>) -> Vec<Key> {
        self.rules.keys().filter(|key| !objects.contains_key(*key)).cloned().collect()
    }

    /// Rules that are new or ask for something else than before. For the others the object is replaced: its status moved.
    pub(crate) fn changed(&mut self, objects: &ObjectMap<AlertRule>) -> Vec<(Key, Arc<AlertRule>)> {
        let mut changed = Vec::new();
        for (key, object) in objects {
            match self.rules.get_mut(key) {
                Some(entry) if Arc::ptr_eq(&entry.object, object) => {}
                Some(entry) if same_spec(&entry.object, object) => entry.object = Arc::clone(object),
                _ => changed.push((key.clone(), Arc::clone(object))),
            }
        }
        changed
    }

    /// The database of a rule that can run, and whether it runs among the slow ones.
    pub(crate) fn database_and_pace(&self, key: &Key) -> Option<(&str, bool)> {
        let entry = self.rules.get(key)?;
        entry.rule.as_ref().ok().map(|rule| (rule.spec.database.as_str(), entry.is_slow()))
    }

    /// A run ended and what it found is kept.
    pub(crate) fn ran(&mut self, key: &Key, token: u64, began: Timestamp, evaluation: &Evaluation) -> Option<&mut Entry> {
        let entry = self.rules.get_mut(key).filter(|entry| entry.token == token)?;
        if evaluation.is_done() {
            entry.cursor = Some(evaluation.window.end);
        }
        (entry.failed, entry.failures) = match evaluation.again {
            Some(_) => (Some(evaluation.window), entry.failures.saturating_add(1)),
            None => (None, 0),
        };
        let late = entry.due.and_then(|due| Duration::try_from(began.duration_since(due)).ok()).unwrap_or_default();
        let Evaluation { outcome, ref message, rows, alerts, took, .. } = *evaluation;
        entry.last = Some(Last { began, late, outcome, message: message.clone(), rows, alerts, took });
        Some(entry)
    }
}
