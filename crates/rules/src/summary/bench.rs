//! A rule run in a test: the process that runs it, the status it leaves behind, and a Kusto whose operations end as they
//! are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{SummaryRule, SummaryRuleSpec, Time};
use jiff::Timestamp;
use serde_json::Value;

use super::machine::{Action, Event, Machine, Submission};
use super::operations::{Answers, Progress, Refusal};
use super::{Owner, state::State};
use crate::prelude::Labels;
use crate::testing::at;
use crate::window::Window;

/// What Kusto does with a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mood {
    #[default]
    Takes,
    /// Refuses for a while.
    Away,
    /// Refuses for good.
    Refuses,
    /// Takes it, and the answer is lost.
    LosesAnswer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Completes,
    FailsForGood,
    Fails,
    Throttled,
    Forgotten,
    CompletesAndIsForgotten,
    Runs,
}

/// A command that was handed over.
#[derive(Debug, Clone)]
pub(crate) struct Submitted {
    pub(crate) at: Timestamp,
    pub(crate) statement: String,
    pub(crate) window: Window,
    /// Its id, or nothing if it was refused.
    pub(crate) id: Option<String>,
}

/// Kusto: operations by id, rows by tag.
#[derive(Debug, Default)]
pub(crate) struct FakeKusto {
    pub(crate) mood: Mood,
    pub(crate) submitted: Vec<Submitted>,
    pub(crate) operations: BTreeMap<String, (String, Window, Progress)>,
    /// Tags that the table has, and the windows of the rows that came with them.
    pub(crate) tags: BTreeSet<String>,
    pub(crate) rows: Vec<Window>,
    /// How many reasons there were to submit a window again.
    pub(crate) reasons: BTreeMap<Window, usize>,
    next_id: usize,
}

impl FakeKusto {
    pub(crate) fn submit(&mut self, submission: &Submission, now: Timestamp) -> Result<String, Refusal> {
        let statement = submission.statement.text.clone();
        let window = window_of(&statement);
        assert_eq!(window, submission.window);
        let taken = matches!(self.mood, Mood::Takes | Mood::LosesAnswer);
        let id = taken.then(|| {
            self.next_id += 1;
            format!("op-{}", self.next_id)
        });
        if let Some(id) = &id {
            let tag = between(&statement, "ingestIfNotExists='[\"", "\"]'").to_owned();
            assert!(statement.contains(&format!("tags='[\"ingest-by:{tag}\"]'")), "{statement}");
            let progress = Progress { state: "InProgress".to_owned(), ..Progress::default() };
            self.operations.insert(id.clone(), (tag, window, progress));
        }
        if self.mood != Mood::Takes {
            *self.reasons.entry(window).or_default() += 1;
        }
        self.submitted.push(Submitted { at: now, statement, window, id: id.clone() });
        let refusal = |message: &str, transient| Refusal { message: message.to_owned(), transient, retry_after: None, position: None };
        match self.mood {
            Mood::Takes => Ok(id.unwrap_or_default()),
            Mood::Away => Err(refusal("cluster offline", true)),
            Mood::LosesAnswer => Err(refusal("no answer", true)),
            Mood::Refuses => Err(refusal("Semantic error", false)),
        }
    }

    pub(crate) fn progress(&self, ids: &[String]) -> Answers {
        ids.iter().filter_map(|id| Some((id.clone(), self.operations.get(id)?.2.clone()))).collect()
    }

    /// Ends an operation. One that completes leaves rows behind, unless the table has its tag.
    pub(crate) fn end(&mut self, id: &str, end: End) {
        let Some((tag, window, progress)) = self.operations.get_mut(id) else { return };
        if !matches!(end, End::Completes | End::Runs) {
            *self.reasons.entry(*window).or_default() += 1;
        }
        let (state, should_retry) = match end {
            End::Completes => ("Completed", false),
            End::CompletesAndIsForgotten => {
                if self.tags.insert(tag.clone()) {
                    self.rows.push(*window);
                }
                self.operations.remove(id);
                return;
            }
            End::FailsForGood => ("Failed", false),
            End::Fails => ("Failed", true),
            End::Throttled => ("Throttled", true),
            End::Runs => ("InProgress", false),
            End::Forgotten => {
                self.operations.remove(id);
                return;
            }
        };
        progress.should_retry = should_retry;
        if end == End::Completes {
            if self.tags.insert(tag.clone()) {
                self.rows.push(*window);
                state.clone_into(&mut progress.state);
            } else {
                "Skipped".clone_into(&mut progress.state);
            }
        } else {
            state.clone_into(&mut progress.state);
        }
    }

    pub(crate) fn running(&self) -> Vec<String> {
        self.operations.iter().filter(|(_, (_, _, p))| p.state == "InProgress").map(|(id, _)| id.clone()).collect()
    }
}

pub(crate) fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}")).1;
    rest.split_once(after).unwrap_or_else(|| panic!("no {after} in {text}")).0
}

pub(crate) fn window_of(statement: &str) -> Window {
    let time = |name: &str| at(between(statement, &format!("let {name}=datetime("), ")"));
    Window::from_last_tick(time("_startTime"), time("_endTime"))
}

/// A rule, the process that runs it, and Kusto.
pub(crate) struct Bench {
    /// The rule as the API server has it.
    pub(crate) rule: SummaryRule,
    pub(crate) machine: Option<Machine>,
    pub(crate) owner: Owner,
    pub(crate) labels: Arc<Labels>,
    pub(crate) now: Timestamp,
    pub(crate) kusto: FakeKusto,
    pub(crate) saves: usize,
    /// What the process is shown of the rule at its next look, if it is not the present one.
    pub(crate) sees: Option<SummaryRule>,
    /// The process dies after so many more half-actions.
    pub(crate) dies_after: Option<usize>,
}

impl Bench {
    pub(crate) fn new(interval: &str, delay: &str, now: Timestamp) -> Bench {
        let spec = SummaryRuleSpec {
            database: "DB".to_owned(),
            table: "Dest".to_owned(),
            body: "Src | where Timestamp between (_startTime .. _endTime)".to_owned(),
            interval: interval.into(),
            ingestion_delay: delay.into(),
            ..SummaryRuleSpec::default()
        };
        let mut rule = SummaryRule::new("r", spec);
        rule.metadata.namespace = Some("ns".to_owned());
        rule.metadata.uid = Some("uid-1".to_owned());
        rule.metadata.generation = Some(1);
        rule.metadata.creation_timestamp = Some(Time(now));
        let labels = Labels::new(&BTreeMap::from([("region".to_owned(), "eastus".to_owned())]));
        Bench {
            rule,
            machine: None,
            owner: Owner::Ingestor,
            labels: Arc::new(labels),
            now,
            kusto: FakeKusto::default(),
            saves: 0,
            sees: None,
            dies_after: None,
        }
    }

    /// Lets the rule go on until it waits, and returns until when. Nothing if the process died.
    pub(crate) fn drive(&mut self) -> Option<Timestamp> {
        let seen = self.sees.take().unwrap_or_else(|| self.rule.clone());
        match &mut self.machine {
            Some(machine) => machine.observe(&seen, self.now).unwrap(),
            none => *none = Some(Machine::new(&self.rule, self.labels.clone()).unwrap()),
        }
        let mut event = Event::Wake;
        for _ in 0..1000 {
            let action = self.machine.as_mut().unwrap().step(event, self.now);
            let dies = self.dies();
            event = match action {
                Action::Wait(until) => return Some(until),
                // It may die before its action is done or after; this is before.
                _ if dies == Some(false) => {
                    self.machine = None;
                    return None;
                }
                Action::Poll(ids) => Event::Answered(Ok(self.kusto.progress(&ids))),
                Action::Submit(submission) => Event::Submitted(self.kusto.submit(&submission, self.now)),
                Action::Save => {
                    self.save();
                    Event::Saved
                }
            };
            if dies == Some(true) {
                self.machine = None;
                return None;
            }
        }
        panic!("the rule never waits");
    }

    fn dies(&mut self) -> Option<bool> {
        let left = self.dies_after.as_mut()?;
        if *left > 1 {
            *left -= 2;
            return None;
        }
        let after = *left == 1;
        self.dies_after = None;
        Some(after)
    }

    /// Writes the status through JSON, as an API server does.
    fn save(&mut self) {
        let Some(state) = self.machine.as_ref().map(|m| m.state().clone()) else { return };
        let before = self.rule.clone();
        state.write(&mut self.rule, self.owner, self.now);
        assert_ne!(before, self.rule, "a write that changes nothing");
        self.rule = serde_json::from_value(serde_json::to_value(&self.rule).unwrap()).unwrap();
        assert_eq!(State::read(&self.rule).as_ref(), Ok(&state), "what is read is what was written");
        self.saves += 1;
    }

    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut SummaryRuleSpec)) {
        change(&mut self.rule.spec);
        self.rule.metadata.generation = self.rule.metadata.generation.map(|g| g + 1);
    }

    pub(crate) fn state(&self) -> State {
        State::read(&self.rule).unwrap()
    }

    /// Type, status, reason and message of a condition.
    pub(crate) fn condition(&self, type_: &str) -> Option<(String, String, String)> {
        let status = self.rule.status.as_ref()?;
        let condition = crds::conditions::get(&status.conditions, type_)?;
        Some((condition.status.clone(), condition.reason.clone(), condition.message.clone()))
    }
}

/// The command as the reference writes it: without the tags, which it does not set.
pub(crate) fn untagged(statement: &str) -> String {
    let tags = between(statement, "extend_schema=true", ") <| ");
    statement.replacen(tags, "", 1)
}

/// The JSON of operations without our own field.
pub(crate) fn without_attempt(json: &str) -> Value {
    let mut value: Value = serde_json::from_str(json).unwrap();
    for operation in value.as_array_mut().into_iter().flatten() {
        operation.as_object_mut().unwrap().remove("attempt");
    }
    value
}

/// Puts a condition into the status of the rule.
pub(crate) fn with_condition(bench: &mut Bench, type_: &str, message: &str, generation: i64, since: &str) {
    let condition = serde_json::json!({
        "type": type_, "status": "True", "reason": "Created", "message": message,
        "observedGeneration": generation, "lastTransitionTime": since,
    });
    bench.rule.status.get_or_insert_default().conditions.push(serde_json::from_value(condition).unwrap());
}
