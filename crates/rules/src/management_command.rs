//! Runs ManagementCommands: once for each generation in each database that they name, or once on each cluster.
//!
//! A command that fails is run again with growing pauses, at the longest every ten minutes: what Kusto refuses today, such as
//! a policy of a table that is not there yet, it may take tomorrow.
//!
//! That a run begins is in the status before it does, and its outcome is kept here until it is in the status too. So a status
//! that cannot be written delays a command and never repeats it. Where a process is killed between the two, nobody knows
//! whether Kusto has run the command: the status says so, and it is run again when its spec is changed.
//!
//! Each endpoint is served on its own, one command after another, so that one that hangs holds up no other: after ten seconds
//! without an answer those after it are not kept waiting any longer. The condition names the places whose outcome is still waited for, and is `True` only once the command has run in all.
//!
//! A place is a database at an endpoint, or a cluster: a deployment that is given another endpoint runs the command there too,
//! and so does each of several deployments. The condition speaks of all that have tried.
//!
//! An object that an older version has run, whose status has no targets, counts as done everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use crds::conditions::{self, Desired, Truth};
use crds::criteria::{Criteria, CriteriaError, Labels, Outcome};
use crds::{ManagementCommand, ManagementCommandSpec, ManagementCommandStatus, Scope, State, TargetStatus, Time};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::lease::Leader;
use crate::runner::Executor;
use crate::store::{Change, Event, Key, Objects, Severity, Store};
use crate::target::{self, Deployment, Metrics, Retries, Target, later};
use crate::turns;
use crate::window::after;

pub(crate) const OWNER: &str = "managementcommand.adx-mon.azure.com";
const CRITERIA: &str = "managementcommand.adx-mon.azure.com/CriteriaMatch";
const OUTCOME_UNKNOWN: &str = "OutcomeUnknown";
const PENDING: &str = "Pending";
const PAUSES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// A run that began so long ago is over: the client waits for ten minutes.
const LONGEST_RUN: SignedDuration = SignedDuration::from_mins(11);

/// Runs ManagementCommands on one endpoint.
pub struct ManagementCommands {
    store: Arc<dyn Store<ManagementCommand>>,
    objects: Objects<ManagementCommand>,
    endpoint: String,
    /// Those of all endpoints, for the status.
    deployment: Deployment,
    labels: Labels,
    metrics: Metrics,
    retries: Retries,
    /// Runs of this process that have begun and whose outcome is not on record, by command and place.
    runs: Mutex<BTreeMap<(Key, String), Run>>,
}

#[derive(Clone)]
struct Run {
    generation: i64,
    uid: Option<String>,
    /// What the status says of it while it runs.
    mark: String,
    outcome: Option<TargetStatus>,
}

/// One command in one place.
struct Task<'a> {
    key: &'a Key,
    command: &'a ManagementCommand,
    generation: i64,
    place: &'a Place,
    /// All places of the command.
    places: &'a [Place],
    statement: &'a str,
}

impl Task<'_> {
    fn id(&self) -> (Key, String) {
        (self.key.clone(), self.place.name.clone())
    }
}

/// Where a command is run: what the status calls it, and through which database.
struct Place {
    name: String,
    target: Target,
}

impl Place {
    fn entry<'a>(&self, entries: &'a [TargetStatus]) -> Option<&'a TargetStatus> {
        target::entry(entries, &self.name, &self.target.endpoint)
    }
}

impl ManagementCommands {
    /// Those who run the commands of `store` on the databases of a deployment: one for each endpoint.
    pub fn of_each_endpoint(
        store: Arc<dyn Store<ManagementCommand>>,
        deployment: &Deployment,
        labels: &Labels,
        metrics: &Metrics,
    ) -> Vec<Box<dyn Executor>> {
        let one = |targets: Vec<Target>| {
            let (store, objects, deployment, runs) = (store.clone(), store.objects(), deployment.clone(), Mutex::default());
            let (labels, metrics, retries) = (labels.clone(), metrics.clone(), Retries::new(PAUSES.0, PAUSES.1));
            let endpoint = targets[0].endpoint.clone();
            Box::new(Self { store, objects, endpoint, deployment, labels, metrics, retries, runs }) as Box<dyn Executor>
        };
        deployment.by_endpoint().into_iter().map(one).collect()
    }

    async fn reconcile(&self, key: &Key, command: &ManagementCommand, now: Timestamp) -> Option<Timestamp> {
        let generation = command.metadata.generation.unwrap_or_default();
        let known = command.status.clone().unwrap_or_default();
        let done = conditions::get(&known.conditions, OWNER)
            .is_some_and(|condition| condition.status == "True" && condition.observed_generation == Some(generation));
        if command.metadata.deletion_timestamp.is_some() || done && known.targets.is_empty() {
            return None;
        }
        let scope = match scope(&command.spec) {
            Ok(scope) => scope,
            Err(message) => {
                let written = self.say_mistake(key, command, &message, now).await;
                return (!written).then(|| after(now, PAUSES.0));
            }
        };
        let places = self.places(scope, &command.spec);
        if !places.iter().any(|place| self.is_ours(place)) {
            return None;
        }
        let matched = self.evaluate(command);
        let said = self.say_criteria(key, command, &matched, now).await;
        if !matched.is_ok_and(|outcome| outcome.proceeds()) {
            return (!said).then(|| after(now, PAUSES.0));
        }
        let kind = if scope == Scope::Cluster { "cluster" } else { "database" };
        let statement = format!(".execute {kind} script with (ThrowOnErrors = true) <|{}", command.spec.body);
        let mut again: Option<Timestamp> = None;
        let since = Instant::now();
        for place in &places {
            let known = place.entry(&known.targets).filter(|entry| entry.observed_generation == generation);
            if !self.is_ours(place) || known.is_some_and(|entry| entry.status == State::Success) {
                continue;
            }
            let task = Task { key, command, generation, place, places: &places, statement: &statement };
            let next = self.attend(&task, known, later(now, since)).await;
            again = [again, next].into_iter().flatten().min();
        }
        again
    }

    /// Does the next step for one place: notes that a run begins, runs, notes the outcome. Returns when to come back.
    async fn attend(&self, task: &Task<'_>, known: Option<&TargetStatus>, now: Timestamp) -> Option<Timestamp> {
        let run = self.run_of(task);
        if let Some(outcome) = run.as_ref().and_then(|run| run.outcome.clone()) {
            return self.settle(task, outcome, now).await;
        }
        if let Some(entry) = known.filter(|entry| entry.started.is_some() && run.is_none_or(|run| run.mark != entry.message)) {
            return self.lost(task, entry, now).await;
        }
        if let Some(until) = self.retries.wait(task.key, &task.place.name, task.generation, now) {
            return Some(until);
        }
        if !self.begin(task, now).await {
            return now.checked_add(PAUSES.0).ok();
        }
        let outcome = self.run(task, now).await;
        self.settle(task, outcome, now).await
    }

    fn is_ours(&self, place: &Place) -> bool {
        place.target.endpoint == self.endpoint
    }

    fn run_of(&self, task: &Task<'_>) -> Option<Run> {
        let run = self.runs.lock().get(&task.id()).cloned()?;
        (run.generation == task.generation && run.uid == task.command.metadata.uid).then_some(run)
    }

    /// Puts on record that a run begins; says whether this is so. Without the record nothing is run: whoever comes after a
    /// crash could not know of it.
    async fn begin(&self, task: &Task<'_>, now: Timestamp) -> bool {
        let (generation, uid) = (task.generation, task.command.metadata.uid.clone());
        let earlier = self.run_of(task).map(|run| run.mark);
        let mark = earlier.unwrap_or_else(|| format!("run {} has begun; its outcome is not known yet", Uuid::new_v4()));
        self.runs.lock().insert(task.id(), Run { generation, uid: uid.clone(), mark: mark.clone(), outcome: None });
        // The change may be made more than once; the last time counts.
        let begun = AtomicBool::new(false);
        let change = |command: &mut ManagementCommand| {
            let same = command.metadata.uid == uid && command.metadata.generation.unwrap_or_default() == generation;
            let targets = &mut command.status.get_or_insert_default().targets;
            let others = |entry: &TargetStatus| {
                let begun = entry.started.is_some() && entry.message != mark;
                entry.observed_generation == generation && (begun || entry.status == State::Success)
            };
            let free = same && !task.place.entry(targets).is_some_and(others);
            begun.store(free, Ordering::Relaxed);
            if free {
                let result = Err((State::Failed, mark.clone()));
                let entry = self.deployment.outcome(&task.place.name, &task.place.target.endpoint, generation, &result, now);
                target::set(targets, TargetStatus { started: Some(Time(now)), ..entry });
                targets.retain(|entry| entry.observed_generation == generation || !self.deployment.has_left(entry));
                // A failure is told of until more is known.
                if !is_told_of(command) {
                    self.summarize(command, task.places, now);
                }
            }
        };
        match self.store.update_status(task.key, &change).await {
            Ok(()) => begun.into_inner(),
            Err(error) => {
                tracing::warn!(%error, "a management command is not run before its status can be written");
                false
            }
        }
    }

    async fn run(&self, task: &Task<'_>, now: Timestamp) -> TargetStatus {
        let Place { name, target } = task.place;
        let since = Instant::now();
        let answer = target.client.run(&target.database, task.statement).await;
        let now = later(now, since);
        let result = match answer {
            Ok(()) => {
                self.retries.succeeded(task.key, name);
                Ok(())
            }
            Err(error) => {
                self.retries.failed(task.key, name, task.generation, now, error.retry_after);
                Err((State::Failed, target::describe(&error)))
            }
        };
        self.metrics.count("ManagementCommand", result.as_ref().map_or_else(|(state, _)| *state, |()| State::Success));
        if let Err((_, note)) = &result {
            self.tell(task.command, "Failed", format!("{name}: {note}")).await;
        }
        let outcome = self.deployment.outcome(name, &target.endpoint, task.generation, &result, now);
        if let Some(run) = self.runs.lock().get_mut(&task.id()) {
            run.outcome = Some(outcome.clone());
        }
        outcome
    }

    /// Puts the outcome of a run on record. Until that works it is kept here, and the command is not run again.
    async fn settle(&self, task: &Task<'_>, outcome: TargetStatus, now: Timestamp) -> Option<Timestamp> {
        let change = |command: &mut ManagementCommand| {
            target::set(&mut command.status.get_or_insert_default().targets, outcome.clone());
            // Of an object that was edited meanwhile, whoever runs it says the rest.
            if command.metadata.generation.unwrap_or_default() == task.generation {
                self.summarize(command, task.places, now);
            }
        };
        let written = self.write(task.key, &change).await;
        if !written {
            return now.checked_add(PAUSES.0).ok();
        }
        self.runs.lock().remove(&task.id());
        self.retries.wait(task.key, &task.place.name, task.generation, now)
    }

    /// A run that another process has begun. Nobody knows whether Kusto has done it, so it is not repeated.
    async fn lost(&self, task: &Task<'_>, known: &TargetStatus, now: Timestamp) -> Option<Timestamp> {
        if is_lost(known) {
            return None;
        }
        let begun = known.started.as_ref().map_or(now, |begun| begun.0);
        let over = begun.checked_add(LONGEST_RUN).unwrap_or(now);
        if now < over {
            return Some(over);
        }
        let message = format!(
            "{}: begun at {begun} by a process that ended before it knew the outcome, and not run again; see whether it has run, \
             and change spec.body, by a comment if by nothing else, to run it again",
            task.place.name
        );
        tracing::warn!(command = %task.key, "{message}");
        let change = |command: &mut ManagementCommand| {
            let targets = &mut command.status.get_or_insert_default().targets;
            if let Some(entry) = targets.iter_mut().find(|entry| *entry == known) {
                entry.status = State::PermanentFailure;
                entry.message.clone_from(&message);
                self.summarize(command, task.places, now);
            }
        };
        if !self.write(task.key, &change).await {
            return now.checked_add(PAUSES.0).ok();
        }
        self.tell(task.command, OUTCOME_UNKNOWN, message).await;
        None
    }

    /// Says of the whole command what its places say.
    fn summarize(&self, command: &mut ManagementCommand, places: &[Place], now: Timestamp) {
        let generation = command.metadata.generation.unwrap_or_default();
        let status = command.status.get_or_insert_default();
        let outcome =
            |place: &Place| place.entry(&status.targets).filter(|entry| entry.observed_generation == generation && is_decided(entry));
        // Also those of other deployments.
        let counts =
            |entry: &&TargetStatus| entry.observed_generation == generation && is_decided(entry) && !self.deployment.has_left(entry);
        let decided: Vec<&TargetStatus> = status.targets.iter().filter(counts).collect();
        let open = places.iter().filter(|place| outcome(place).is_none());
        let open: Vec<(&str, &str)> = open.map(|place| (&*place.name, &*place.target.endpoint)).collect();
        let waits = (!open.is_empty()).then(|| format!("waiting for {}", target::names(open)));
        let worst = decided.iter().find(|entry| is_lost(entry)).or_else(|| decided.iter().find(|entry| entry.status != State::Success));
        let (truth, reason, message) = match worst {
            Some(entry) => {
                let reason = if is_lost(entry) { OUTCOME_UNKNOWN } else { "Failed" };
                let message = [Some(entry.message.clone()), waits].into_iter().flatten().collect::<Vec<_>>().join("; ");
                (Truth::False, reason, message)
            }
            None if waits.is_some() => (Truth::Unknown, PENDING, waits.unwrap_or_default()),
            None => (Truth::True, "Created", String::new()),
        };
        owner(status, generation, truth, reason, &message, now);
    }

    async fn tell(&self, command: &ManagementCommand, reason: &str, note: String) {
        let (action, reason) = ("Execute".to_owned(), reason.to_owned());
        self.store.event(command, Event { severity: Severity::Warning, action, reason, note }).await;
    }

    fn places(&self, scope: Scope, spec: &ManagementCommandSpec) -> Vec<Place> {
        let database = |target: &Target| Place { name: target.database.clone(), target: target.clone() };
        match scope {
            Scope::Database => self.deployment.targets.iter().filter(|target| target.database == spec.database).map(database).collect(),
            Scope::AllDatabases => self.deployment.targets.iter().map(database).collect(),
            Scope::Cluster => {
                let mut seen = BTreeSet::new();
                let first = self.deployment.targets.iter().filter(|target| seen.insert(target.endpoint.clone()));
                first.map(|target| Place { name: target.endpoint.clone(), target: target.clone() }).collect()
            }
        }
    }

    fn evaluate(&self, command: &ManagementCommand) -> Matched {
        Criteria::new(&BTreeMap::new(), command.spec.criteria_expression.trim()).evaluate(&self.labels)
    }

    /// Says that the spec is none that could be run; returns whether that worked. It is told by whoever is first to say it.
    async fn say_mistake(&self, key: &Key, command: &ManagementCommand, message: &str, now: Timestamp) -> bool {
        let generation = command.metadata.generation.unwrap_or_default();
        let is_news = AtomicBool::new(false);
        let change = |command: &mut ManagementCommand| {
            let status = command.status.get_or_insert_default();
            is_news.store(owner(status, generation, Truth::False, "Failed", message, now), Ordering::Relaxed);
        };
        let written = self.write(key, &change).await;
        if written && is_news.load(Ordering::Relaxed) {
            self.tell(command, "ValidationFailed", message.to_owned()).await;
        }
        written
    }

    /// Says whether the command is meant for this cluster, and tells of an expression with a mistake. Returns whether that
    /// worked.
    async fn say_criteria(&self, key: &Key, command: &ManagementCommand, outcome: &Matched, now: Timestamp) -> bool {
        let (expression, generation) = (command.spec.criteria_expression.trim(), command.metadata.generation.unwrap_or_default());
        let proceeds = outcome.as_ref().is_ok_and(Outcome::proceeds);
        let said = command.status.as_ref().and_then(|status| conditions::get(&status.conditions, CRITERIA));
        if expression.is_empty() || !target::is_news(said, generation, proceeds, false) {
            return true;
        }
        let labels = self.labels.to_string();
        let (truth, reason, message) = match outcome {
            Ok(_) if proceeds => (Truth::True, "CriteriaMatched", format!("{expression:?} is true for {labels}")),
            Ok(_) => (Truth::False, "CriteriaNotMatched", format!("{expression:?} is false for {labels}; not run on this cluster")),
            Err(error) => (Truth::False, "CriteriaExpressionError", format!("criteriaExpression evaluation failed: {error}")),
        };
        let is_news = AtomicBool::new(false);
        let change = |command: &mut ManagementCommand| {
            let status = command.status.get_or_insert_default();
            let desired = Desired { type_: CRITERIA, status: truth, reason, message: &message, observed_generation: Some(generation) };
            is_news.store(conditions::set(&mut status.conditions, &desired, now), Ordering::Relaxed);
            if outcome.is_err() {
                owner(status, generation, Truth::False, "Failed", &message, now);
            }
        };
        let written = self.write(key, &change).await;
        if written && outcome.is_err() && is_news.load(Ordering::Relaxed) {
            self.tell(command, reason, message.clone()).await;
        }
        written
    }

    /// Writes the status; says whether that worked.
    async fn write(&self, key: &Key, change: Change<'_, ManagementCommand>) -> bool {
        let written = self.store.update_status(key, change).await;
        written.inspect_err(|error| tracing::error!(%error, "the status of a management command is not written")).is_ok()
    }
}

#[async_trait]
impl Executor for ManagementCommands {
    fn name(&self) -> &'static str {
        "management commands"
    }

    async fn pass(&mut self, now: Timestamp, leader: &Leader) -> Option<Timestamp> {
        let this = &*self;
        let order = || {
            let snapshot = this.objects.snapshot();
            this.retries.retain(|key| snapshot.contains_key(key));
            this.runs.lock().retain(|(key, _), _| snapshot.contains_key(key));
            snapshot.keys().cloned().collect()
        };
        let attend = |key: Key, now| async move {
            // As it is now: the one before may have taken a while.
            let command = this.objects.get(&key)?;
            this.reconcile(&key, &command, now).await
        };
        turns::in_turn(&this.objects, leader, now, order, attend).await
    }

    async fn changed(&mut self) {
        self.objects.changed().await;
    }
}

type Matched = Result<Outcome, CriteriaError>;

/// In the words of older versions.
fn scope(spec: &ManagementCommandSpec) -> Result<Scope, String> {
    match (spec.database.as_str(), spec.scope.as_str()) {
        ("", "Database") => Err("scope is \"Database\" but database field is empty; database is required for this scope".to_owned()),
        ("", other) if !["", "AllDatabases", "Cluster"].contains(&other) => Err(format!("unknown scope value: {other:?}")),
        _ => spec.scope().map_err(|error| error.to_string()),
    }
}

/// Whether the condition is about the present generation.
fn is_told_of(command: &ManagementCommand) -> bool {
    let owner = command.status.as_ref().and_then(|status| conditions::get(&status.conditions, OWNER));
    owner.is_some_and(|owner| owner.observed_generation == command.metadata.generation)
}

/// Whether more is known of a run than that it has begun.
fn is_decided(entry: &TargetStatus) -> bool {
    entry.started.is_none() || is_lost(entry)
}

/// Whether nobody will ever know what became of a run.
fn is_lost(entry: &TargetStatus) -> bool {
    entry.started.is_some() && entry.status == State::PermanentFailure
}

/// Says how the command does, and whether that is new.
pub(crate) fn owner(
    status: &mut ManagementCommandStatus,
    generation: i64,
    truth: Truth,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let desired = Desired { type_: OWNER, status: truth, reason, message, observed_generation: Some(generation) };
    conditions::set(&mut status.conditions, &desired, now)
}
