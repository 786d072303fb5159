//! What a rule has to remember, and its place in the status.
//!
//! The reference keeps its state in conditions, and so do we, so that either can take over from the other:
//!
//! | condition | content |
//! |---|---|
//! | `summaryrule.adx-mon.azure.com` | how the rule does; its observed generation is the last that was seen |
//! | `…/LastSuccessfulExecution` | the cursor: exclusive end of the last window on record |
//! | `…/OperationId` | windows on their way, as JSON: `[{operationId, startTime, endTime}]`, the end one tick earlier |
//!
//! Failed windows are in `status.failedWindows`, which the reference does not know, as is `attempt` in the JSON: how many
//! times the window was submitted with a tag. An entry without it is the reference's.

use std::fmt;

use crds::conditions::{self, Desired, Truth};
use crds::{BackfillPhase, BackfillStatus, Condition, FailedWindow, SummaryRule, Time};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::summary::Owner;
use crate::unserved;
use crate::window::Window;

/// Type of the condition on how a rule does.
pub const HEALTH: &str = "summaryrule.adx-mon.azure.com";
/// Type of the condition that holds the cursor.
pub const LAST_EXECUTION: &str = "summaryrule.adx-mon.azure.com/LastSuccessfulExecution";
/// Type of the condition that holds the windows on their way.
pub const OPERATIONS: &str = "summaryrule.adx-mon.azure.com/OperationId";
/// Type of the condition that mirrors the backfill.
pub const BACKFILL: &str = "Backfill";

/// A window on its way into the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Kusto's id; empty while it waits to be submitted.
    pub id: String,
    /// The window.
    pub window: Window,
    /// How many times it was submitted with a tag, the present one included; 0 if the reference did it.
    pub attempt: u32,
}

/// The windows on their way, in the order in which they were put on record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operations(pub Vec<Operation>);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    operation_id: String,
    start_time: Timestamp,
    end_time: Timestamp,
    #[serde(default, skip_serializing_if = "is_zero")]
    attempt: u32,
}

fn is_zero(attempt: &u32) -> bool {
    *attempt == 0
}

impl Operations {
    /// Puts an operation on record: in place of the one with its id, or of the one that waits with its window, or at the
    /// end.
    pub fn record(&mut self, operation: Operation) {
        let same_id = |o: &Operation| !operation.id.is_empty() && o.id == operation.id;
        let waits = |o: &Operation| o.id.is_empty() && o.window == operation.window;
        match self.0.iter().position(same_id).or_else(|| self.0.iter().position(waits)) {
            Some(at) => self.0[at] = operation,
            None => self.0.push(operation),
        }
    }

    /// Takes the first operation with that id off the record.
    pub fn remove(&mut self, id: &str) -> Option<Operation> {
        let at = self.0.iter().position(|o| o.id == id)?;
        Some(self.0.remove(at))
    }

    /// Reads the JSON of the condition.
    ///
    /// # Errors
    /// If it is something else.
    pub fn from_json(json: &str) -> Result<Operations, serde_json::Error> {
        let entries: Option<Vec<Entry>> = serde_json::from_str(json)?;
        let operation =
            |e: Entry| Operation { id: e.operation_id, window: Window::from_last_tick(e.start_time, e.end_time), attempt: e.attempt };
        Ok(Operations(entries.unwrap_or_default().into_iter().map(operation).collect()))
    }

    /// The JSON of the condition.
    pub fn to_json(&self) -> String {
        let entry = |o: &Operation| Entry {
            operation_id: o.id.clone(),
            start_time: o.window.start,
            end_time: o.window.last_tick(),
            attempt: o.attempt,
        };
        let entries: Vec<Entry> = self.0.iter().map(entry).collect();
        serde_json::to_string(&entries).unwrap_or_else(|_| "[]".to_owned())
    }
}

/// A window that Kusto has refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The window.
    pub window: Window,
    /// Why.
    pub message: String,
    /// How many times it was tried.
    pub attempts: u32,
    /// When it is tried again; never if it is not known whether its rows are there.
    pub retry_at: Option<Timestamp>,
}

/// How a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is wrong; nothing if all is well.
    pub problem: Option<String>,
    /// The generation that was seen last.
    pub observed_generation: i64,
}

/// All that outlives the process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// End of the last window on record.
    pub cursor: Option<Timestamp>,
    /// Windows on their way.
    pub operations: Operations,
    /// Windows that failed and are not in the table.
    pub failed: Vec<Failed>,
    /// How many windows have failed since the rule was made.
    pub failed_total: i64,
    /// The latest window whose rows are in the table.
    pub last_window: Option<Window>,
    /// Windows that are due and not in the table.
    pub backlog: i64,
    /// How the rule does; nothing before its first window.
    pub health: Option<Health>,
    /// The backfill that the spec asks for.
    pub backfill: Option<BackfillStatus>,
}

/// A status that cannot be read. Guessing would lose windows or run them twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    condition: &'static str,
    why: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "the rule waits, because the message of its condition {} cannot be read ({}): put it right, or remove the condition",
            self.condition, self.why
        )
    }
}

impl State {
    /// Reads the status of a rule.
    ///
    /// # Errors
    /// If a condition that holds state is something else.
    pub fn read(rule: &SummaryRule) -> Result<State, Unreadable> {
        let Some(status) = &rule.status else { return Ok(State::default()) };
        let message = |type_| conditions::get(&status.conditions, type_).map(|c| c.message.as_str()).filter(|m| !m.is_empty());
        let unreadable = |condition, why: &dyn fmt::Display| Unreadable { condition, why: why.to_string() };
        let cursor = match message(LAST_EXECUTION) {
            Some(text) => Some(text.parse().map_err(|e: jiff::Error| unreadable(LAST_EXECUTION, &e))?),
            None => None,
        };
        let operations = match message(OPERATIONS) {
            Some(json) => Operations::from_json(json).map_err(|e| unreadable(OPERATIONS, &e))?,
            None => Operations::default(),
        };
        // That nobody served it says nothing of how it does.
        let health = conditions::get(&status.conditions, HEALTH).filter(|c| !is_unserved(c)).map(|c| Health {
            problem: (c.status == "False").then(|| c.message.clone()),
            observed_generation: c.observed_generation.unwrap_or(0),
        });
        let last_window = match (&status.last_window_start, &status.last_window_end) {
            (Some(start), Some(end)) => Some(Window { start: start.0, end: end.0 }),
            _ => None,
        };
        Ok(State {
            cursor,
            operations,
            failed: status.failed_windows.iter().map(read_failed).collect(),
            failed_total: status.failed_windows_total,
            last_window,
            backlog: status.backlog,
            health,
            backfill: status.backfill.clone(),
        })
    }

    /// Writes itself into the status of a rule.
    pub fn write(&self, rule: &mut SummaryRule, owner: Owner, now: Timestamp) {
        let observed = self.health.as_ref().map(|h| h.observed_generation).or(rule.metadata.generation);
        let status = rule.status.get_or_insert_default();
        let mut set = |type_: &str, truth: Truth, reason: &str, message: &str| {
            let desired = Desired { type_, status: truth, reason, message, observed_generation: observed };
            conditions::set(&mut status.conditions, &desired, now);
        };
        if !self.operations.0.is_empty() {
            set(OPERATIONS, Truth::Unknown, "InProgress", &self.operations.to_json());
        } else if self.cursor.is_some() {
            set(OPERATIONS, Truth::True, "Complete", "[]");
        }
        if let Some(cursor) = self.cursor {
            set(LAST_EXECUTION, Truth::True, "ExecutionCompleted", &cursor.to_string());
        }
        match self.health.as_ref().map(|h| &h.problem) {
            None => {}
            Some(None) => {
                let (reason, message) = owner.success();
                set(HEALTH, Truth::True, reason, message);
                set("Completed", Truth::True, "ExecutionSuccessful", "Most recent submission succeeded");
                set("Failed", Truth::False, "ExecutionSuccessful", "Most recent submission succeeded");
            }
            Some(Some(problem)) => {
                set(HEALTH, Truth::False, "Failed", problem);
                set("Completed", Truth::False, "ExecutionFailed", problem);
                set("Failed", Truth::True, "ExecutionFailed", problem);
            }
        }
        match &self.backfill {
            Some(backfill) => {
                let (truth, phase) = match backfill.phase {
                    Some(BackfillPhase::Completed) => (Truth::True, "Completed"),
                    Some(BackfillPhase::Failed) => (Truth::False, "Failed"),
                    Some(BackfillPhase::Running) => (Truth::Unknown, "Running"),
                    Some(BackfillPhase::Pending) | None => (Truth::Unknown, "Pending"),
                };
                let message = if backfill.message.is_empty() { format!("Backfill {phase}") } else { backfill.message.clone() };
                set(BACKFILL, truth, phase, &message);
            }
            None => {
                conditions::remove(&mut status.conditions, BACKFILL);
            }
        }
        status.last_window_start = self.last_window.map(|w| Time(w.start));
        status.last_window_end = self.last_window.map(|w| Time(w.end));
        status.backlog = self.backlog;
        status.failed_windows_total = self.failed_total;
        status.failed_windows = self.failed.iter().map(write_failed).collect();
        status.backfill.clone_from(&self.backfill);
    }

    /// The windows on record: on their way or failed.
    pub(crate) fn taken(&self) -> impl Iterator<Item = Window> + Clone + '_ {
        self.operations.0.iter().map(|o| o.window).chain(self.failed.iter().map(|f| f.window))
    }

    /// Up to where all rows are in the table.
    pub fn complete_until(&self) -> Option<Timestamp> {
        self.taken().map(|w| w.start).chain(self.cursor).min()
    }
}

/// Whether the condition on how a rule does says that nobody served its database.
pub(crate) fn is_unserved(health: &Condition) -> bool {
    unserved::REASONS.contains(&health.reason.as_str())
}

fn read_failed(failed: &FailedWindow) -> Failed {
    Failed {
        window: Window { start: failed.start_time.0, end: failed.end_time.0 },
        message: failed.message.clone(),
        attempts: failed.attempts.and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
        retry_at: failed.retry_at.as_ref().map(|t| t.0),
    }
}

fn write_failed(failed: &Failed) -> FailedWindow {
    FailedWindow {
        start_time: Time(failed.window.start),
        end_time: Time(failed.window.end),
        message: failed.message.clone(),
        attempts: Some(failed.attempts.into()),
        retry_at: failed.retry_at.map(Time),
    }
}
