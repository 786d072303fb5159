//! One summary rule as a state machine: events in, one action out, no I/O. [`Machine::step`] is called with what happened
//! and answers with what to do next, until that is to wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crds::{BackfillPhase, SummaryRule, conditions};
use jiff::Timestamp;

use crate::backfill;
use crate::prelude::{self, Labels};
use crate::store::Key;
use crate::summary::operations::{Answers, Refusal, cut};
use crate::summary::state::{self, HEALTH, Health, Operation, State, Unreadable};
use crate::summary::statement::{self, Statement};
use crate::window::{Window, after};

mod answers;
mod facts;
mod plan;

use facts::Facts;

/// Most windows of the schedule on their way at a time.
pub const MAX_IN_FLIGHT: usize = 8;
/// Most failed windows: with so many, no new window is begun until some of them succeed.
pub const MAX_FAILED: usize = 100;
/// Most windows that are submitted in a minute, unless the interval is so short that it takes more to keep up.
pub const WINDOWS_PER_MINUTE: usize = 8;
/// Submissions of a window that Kusto says may be repeated, before it counts as failed.
const MAX_ATTEMPTS: u32 = 10;
/// Queries in which an operation has to be missing before Kusto counts as having forgotten it.
const MISSES: u32 = 3;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// The first pause before operations are asked for; it doubles up to a minute.
const FIRST_POLL: Duration = Duration::from_secs(5);
/// The longest pause after a service was in trouble, so that it is noticed when it is back.
const LONGEST_TROUBLE: Duration = Duration::from_secs(300);

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// It is time to look, or the rule has changed.
    Wake,
    /// The state of [`Action::Save`] is in the rule's status.
    Saved,
    /// The answer to [`Action::Submit`].
    Submitted(Result<String, Refusal>),
    /// The answer to [`Action::Poll`].
    Answered(Result<Answers, Refusal>),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask for these operations.
    Poll(Vec<String>),
    /// Write [`Machine::state`] into the rule's status.
    Save,
    /// Hand over a command.
    Submit(Submission),
    /// Nothing before that time, unless the rule changes.
    Wait(Timestamp),
}

/// A window that is handed to Kusto.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The window.
    pub window: Window,
    /// The command.
    pub statement: Statement,
}

/// What is worth counting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Kusto took a window.
    Submitted,
    /// Kusto did not take a window.
    Refused,
    /// The rows of a window are in the table.
    Completed(Window),
    /// A window is submitted again.
    Retried,
    /// A window has failed, for that reason.
    Failed(Window, String),
}

/// Which record a window is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Schedule,
    Backfill,
}

/// What is forgotten with the process, without harm.
#[derive(Debug, Default)]
struct Memory {
    polls: BTreeMap<String, Poll>,
    /// When windows of the schedule were submitted, within the last minute.
    submitted: VecDeque<Timestamp>,
    /// Since a refusal: no submission before that time.
    pause_until: Option<Timestamp>,
    refusals: u32,
    /// Retries do not come before that time.
    not_before: BTreeMap<(Lane, Window), Timestamp>,
    /// The latest refusal, until a submission succeeds.
    problem: Option<String>,
    /// A rule that was seen before and has no window yet does not begin before that time.
    first_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy)]
struct Poll {
    at: Timestamp,
    pause: Duration,
    misses: u32,
}

/// One rule.
#[derive(Debug)]
pub struct Machine {
    labels: Arc<Labels>,
    facts: Facts,
    state: State,
    /// What the status says.
    saved: State,
    /// What the status has said lately: a copy of the rule that says so is old, and not somebody else's change.
    recent: VecDeque<State>,
    memory: Memory,
    /// Whether operations were asked for since the last [`Event::Wake`].
    polled: bool,
    asked: Vec<String>,
    submitting: Option<(Lane, Window)>,
    outcomes: Vec<Outcome>,
}

impl Machine {
    /// A machine that goes on where the rule's status is.
    ///
    /// # Errors
    /// If the status cannot be read.
    pub fn new(rule: &SummaryRule, labels: Arc<Labels>) -> Result<Machine, Unreadable> {
        let saved = State::read(rule)?;
        let facts = Facts::of(rule);
        let memory = Memory { problem: remembered(&saved), first_at: first_at(rule, &saved, &facts), ..Memory::default() };
        let mut state = saved.clone();
        if is_unserved(rule) {
            // No longer, and the status shall say so.
            state.health = Some(Health { problem: None, observed_generation: facts.generation });
        }
        Ok(Machine {
            labels,
            facts,
            saved,
            state,
            recent: VecDeque::new(),
            memory,
            polled: false,
            asked: Vec::new(),
            submitting: None,
            outcomes: Vec::new(),
        })
    }

    /// Takes in a new version of the rule.
    ///
    /// # Errors
    /// If somebody has put something into the status that cannot be read.
    pub fn observe(&mut self, rule: &SummaryRule, now: Timestamp) -> Result<(), Unreadable> {
        let seen = State::read(rule)?;
        let facts = Facts::of(rule);
        if seen == self.state {
            self.saved = seen;
        } else if seen != self.saved && !self.recent.contains(&seen) {
            // Somebody else has written the status.
            self.memory = Memory { problem: remembered(&seen), ..Memory::default() };
            self.saved = seen.clone();
            self.state = seen;
        }
        if facts.generation != self.facts.generation {
            self.memory.pause_until = None;
            self.memory.refusals = 0;
            self.memory.first_at = None;
            self.memory.not_before.clear();
            for failed in self.state.failed.iter_mut().filter(|f| f.retry_at.is_some()) {
                failed.retry_at = Some(whole_second(now));
            }
        }
        self.facts = facts;
        Ok(())
    }

    /// What is to be written into the status.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Database that commands go to.
    pub fn database(&self) -> &str {
        &self.facts.database
    }

    /// What is wrong with the spec, if it cannot be run as it is.
    pub fn mistake(&self) -> Option<&str> {
        self.facts.schedule.as_ref().err().map(String::as_str)
    }

    /// How far behind the table is, not counting what is not due yet.
    pub fn lag(&self, now: Timestamp) -> Duration {
        match (&self.facts.schedule, self.state.complete_until()) {
            (Ok(schedule), Some(until)) => schedule.lag(until, now),
            _ => Duration::ZERO,
        }
    }

    /// What happened since the last call.
    pub fn take_outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// Takes in what happened, and says what to do next.
    pub fn step(&mut self, event: Event, now: Timestamp) -> Action {
        match event {
            Event::Wake => {
                self.polled = false;
                self.submitting = None;
            }
            Event::Saved => self.saved = self.state.clone(),
            Event::Submitted(result) => self.submitted(result, now),
            Event::Answered(result) => self.answered(result, now),
        }
        if !self.polled {
            self.polled = true;
            self.asked = self.due_polls(now);
            if !self.asked.is_empty() {
                return Action::Poll(self.asked.clone());
            }
        }
        self.plan(now);
        self.assess(now);
        if let Some((lane, window)) = self.next_submission(now) {
            if !self.is_on_record(lane, &window) {
                return self.save();
            }
            self.submitting = Some((lane, window));
            return Action::Submit(Submission { window, statement: self.statement(lane, &window) });
        }
        if self.state != self.saved {
            return self.save();
        }
        Action::Wait(self.wake_at(now))
    }

    fn save(&mut self) -> Action {
        // Should the answer get lost, the status may say either.
        self.recent.push_back(self.saved.clone());
        self.recent.push_back(self.state.clone());
        while self.recent.len() > 8 {
            self.recent.pop_front();
        }
        Action::Save
    }

    /// Brings up to date what the status says about how the rule does.
    fn assess(&mut self, now: Timestamp) {
        let State { failed, operations, cursor, .. } = &self.state;
        let problem = match (&self.facts.schedule, failed.first()) {
            (Err(problem), _) => Some(problem.clone()),
            (Ok(_), Some(first)) => {
                let plural = if failed.len() == 1 { "window has" } else { "windows have" };
                Some(format!("{} {plural} failed: {}: {}", failed.len(), first.window, first.message))
            }
            (Ok(_), None) => self.memory.problem.clone(),
        };
        let known = problem.is_some() || self.state.health.is_some() || operations.0.iter().any(|o| !o.id.is_empty());
        let pending = match (&self.facts.schedule, cursor) {
            (Ok(schedule), Some(cursor)) => schedule.backlog(*cursor, now),
            _ => 0,
        };
        let retried = failed.iter().filter(|f| operations.0.iter().any(|o| o.window == f.window)).count();
        let on_record = operations.0.len() + failed.len() - retried;
        self.state.backlog = i64::try_from(pending).unwrap_or(i64::MAX).saturating_add(on_record as i64);
        self.state.health = known.then_some(Health { problem, observed_generation: self.facts.generation });
    }

    fn statement(&self, lane: Lane, window: &Window) -> Statement {
        let Facts { uid, table, body, .. } = &self.facts;
        let request = self.state.backfill.as_ref().map_or("", |b| &b.request_id);
        let tag = match lane {
            Lane::Schedule => statement::tag(uid, window),
            Lane::Backfill => statement::backfill_tag(uid, request, window),
        };
        statement::submission(table, body, window, &self.labels, &tag)
    }

    fn submitted(&mut self, result: Result<String, Refusal>, now: Timestamp) {
        let Some((lane, window)) = self.submitting.take() else { return };
        if lane == Lane::Schedule {
            // A refusal counts: Kusto may have taken the window all the same.
            self.memory.submitted.retain(|at| *at <= now && after(*at, MINUTE) > now);
            self.memory.submitted.push_back(now);
        }
        match result {
            Ok(id) => {
                self.memory.polls.insert(id.clone(), Poll { at: after(now, FIRST_POLL), pause: FIRST_POLL, misses: 0 });
                self.memory.not_before.remove(&(lane, window));
                self.memory.pause_until = None;
                self.memory.refusals = 0;
                self.memory.problem = None;
                self.outcomes.push(Outcome::Submitted);
                match (lane, &mut self.state.backfill) {
                    (Lane::Schedule, _) => {
                        let waits = self.state.operations.0.iter().find(|o| o.id.is_empty() && o.window == window);
                        let attempt = waits.map_or(1, |o| o.attempt.max(1));
                        self.state.operations.record(Operation { id, window, attempt });
                    }
                    (Lane::Backfill, Some(status)) => backfill::submitted(status, &window, id),
                    (Lane::Backfill, None) => {}
                }
            }
            Err(refusal) => {
                self.memory.refusals += 1;
                let longest = if refusal.transient { LONGEST_TROUBLE } else { HOUR };
                let pause = doubled(MINUTE, self.memory.refusals - 1, longest);
                self.memory.pause_until = Some(after(now, pause.max(refusal.retry_after.unwrap_or_default())));
                self.memory.problem = Some(self.describe(lane, &window, &refusal));
                self.outcomes.push(Outcome::Refused);
            }
        }
    }

    /// What people read about a refusal: with the place in the body as it is in the spec.
    fn describe(&self, lane: Lane, window: &Window, refusal: &Refusal) -> String {
        let place = match refusal.position {
            _ if refusal.transient => None,
            position => prelude::syntax_error(&self.facts.body).or_else(|| {
                let (line, column) = position?;
                let line = line.checked_sub(self.statement(lane, window).lines_before_body).filter(|line| *line > 0)?;
                let skipped = self.facts.body.len() - self.facts.body.trim_start().len();
                let line = line + self.facts.body[..skipped].matches('\n').count();
                Some(format!("at line {line}, column {column} of the body"))
            }),
        };
        let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
        let Key { name, .. } = &self.facts.key;
        let text = format!("failed to submit window {window} of {}.{name}: {}{place}", self.facts.database, refusal.message);
        cut(&text, 700).to_owned()
    }

    fn is_paused(&self, now: Timestamp) -> bool {
        // A pause that long was made under another time.
        self.memory.pause_until.is_some_and(|until| now < until && until <= after(now, 2 * HOUR))
    }

    /// When there is something to do.
    fn wake_at(&self, now: Timestamp) -> Timestamp {
        let mut times: Vec<Timestamp> = self.memory.polls.values().map(|poll| poll.at).collect();
        let waits = self.state.operations.0.iter().any(|o| o.id.is_empty());
        let backfills = self.state.backfill.as_ref().is_some_and(|b| b.phase == Some(BackfillPhase::Running));
        if self.facts.halted || self.facts.schedule.is_err() {
            // Only operations are followed.
        } else if self.is_paused(now) {
            times.extend(self.memory.pause_until);
        } else {
            times.extend(self.memory.not_before.values());
            if waits {
                times.extend(self.memory.submitted.front().map(|first| after(*first, MINUTE)));
            }
            if self.state.operations.0.len() < MAX_IN_FLIGHT {
                times.extend(self.state.failed.iter().filter_map(|f| f.retry_at));
            }
            times.extend(self.next_window(now).and_then(|w| self.due_at(&w)));
        }
        // A clock may be set; so nobody sleeps for long.
        let longest = if backfills { MINUTE } else { HOUR };
        let soonest = after(now, Duration::from_secs(1));
        times.into_iter().filter(|at| *at > now).min().unwrap_or(Timestamp::MAX).clamp(soonest, after(now, longest))
    }
}

/// The problem of the last run, if it is one that goes away with a submission.
fn remembered(state: &State) -> Option<String> {
    state.health.as_ref().and_then(|h| h.problem.clone()).filter(|_| state.failed.is_empty())
}

/// A rule that is known and has no window yet waits an interval since it became known, as in the reference.
fn first_at(rule: &SummaryRule, state: &State, facts: &Facts) -> Option<Timestamp> {
    let known = conditions::get(&rule.status.as_ref()?.conditions, HEALTH).filter(|known| !state::is_unserved(known))?;
    let schedule = facts.schedule.as_ref().ok()?;
    let seen = state.health.as_ref().is_some_and(|h| h.observed_generation == facts.generation);
    let since = Window { start: known.last_transition_time.0, end: after(known.last_transition_time.0, schedule.interval()) };
    (seen && state.cursor.is_none()).then(|| schedule.due_at(&since))
}

fn is_unserved(rule: &SummaryRule) -> bool {
    let health = rule.status.as_ref().and_then(|status| conditions::get(&status.conditions, HEALTH));
    health.is_some_and(state::is_unserved)
}

/// `first` doubled so many times, but no longer than `longest`.
fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(20)).min(longest)
}

fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
