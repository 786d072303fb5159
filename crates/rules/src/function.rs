//! Keeps Functions in place: in each database that they name, at their generation.
//!
//! Throttling, failures of the service or the network, and tables, functions or databases that are not there yet are tried
//! again with growing pauses; what Kusto refuses for good waits for a change of the spec. Functions are created before those that use
//! them. What was created where is in the status, so that it can be dropped: see [`removal`].
//!
//! Each endpoint is served on its own, one function after another, so that one that hangs holds up no other: after ten seconds
//! without an answer those after it are not kept waiting any longer. The status has the outcome of each database as soon as it is known, and names the databases that are still waited for; it speaks of the
//! present generation only once all are decided.
//!
//! An entry of the status is about a database at an endpoint, and written by the deployment that looks after it: several
//! may share an object. A deployment that is given another endpoint applies the function there; what it created before stays
//! on record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use crds::conditions::{self, Desired, Truth};
use crds::criteria::{Criteria, CriteriaError, Labels, Outcome};
use crds::{Function, FunctionSpec, FunctionStatus, State, TargetStatus, Time};
use jiff::Timestamp;
use kube::ResourceExt as _;
use kusto::Delivery;
use tokio::time::Instant;

use crate::lease::Leader;
use crate::runner::Executor;
use crate::store::{Event, Key, Objects, Severity, Store};
use crate::target::{self, Deployment, Metrics, Retries, Target, later};
use crate::turns::{self, SLOW, earliest};
use crate::window::after;

mod removal;
mod script;

/// Held while something is in Kusto.
pub const FINALIZER: &str = "function.adx-mon.azure.com/finalizer";
const CRITERIA: &str = "function.adx-mon.azure.com/CriteriaMatch";
pub(crate) const RECONCILED: &str = "function.adx-mon.azure.com/Reconciled";
/// Pauses between attempts.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));
const PENDING: &str = "KustoExecutionPending";

/// Applies Functions to the databases of one endpoint.
pub struct Functions {
    store: Arc<dyn Store<Function>>,
    objects: Objects<Function>,
    /// Those of its endpoint.
    targets: Vec<Target>,
    /// Those of all endpoints, for the status.
    deployment: Deployment,
    labels: Labels,
    metrics: Metrics,
    retries: Retries,
}

impl Functions {
    /// Those who apply the functions of `store` to the databases of a deployment: one for each endpoint.
    pub fn of_each_endpoint(
        store: Arc<dyn Store<Function>>,
        deployment: &Deployment,
        labels: &Labels,
        metrics: &Metrics,
    ) -> Vec<Box<dyn Executor>> {
        let one = |targets: Vec<Target>| {
            let (store, objects, deployment) = (store.clone(), store.objects(), deployment.clone());
            let (labels, metrics, retries) = (labels.clone(), metrics.clone(), Retries::new(PAUSES.0, PAUSES.1));
            Box::new(Self { store, objects, targets, deployment, labels, metrics, retries }) as Box<dyn Executor>
        };
        deployment.by_endpoint().into_iter().map(one).collect()
    }

    /// Applies, cleans up after or drops one. Returns when to try again.
    async fn reconcile(&self, key: &Key, function: &Function, now: Timestamp) -> Option<Timestamp> {
        if function.metadata.deletion_timestamp.is_some() {
            return self.delete(key, function, now).await;
        }
        if function.spec.suspend {
            return None;
        }
        let generation = function.metadata.generation.unwrap_or_default();
        let known = function.status.clone().unwrap_or_default();
        let failed = known.status == State::PermanentFailure && known.observed_generation == generation;
        let mistake = validate(&function.spec).err();
        // What failed for good in one database, maybe another deployment's, says nothing of others.
        if failed && (mistake.is_some() || known.databases.is_empty()) {
            return None;
        }
        if let Some(message) = mistake {
            let written = self.say_mistake(key, function, &message, now).await;
            return (!written).then(|| after(now, PAUSES.0));
        }
        let wanted: Vec<&Target> = self.targets.iter().filter(|target| is_for(&function.spec, target)).collect();
        if wanted.is_empty() && !known.databases.iter().any(|entry| self.target_of(entry).is_some()) {
            return None;
        }
        let matched = self.evaluate(function);
        if !matched.as_ref().is_ok_and(Outcome::proceeds) {
            let again = (!self.say_criteria(key, function, &matched, now).await).then(|| after(now, PAUSES.0));
            // An expression with a mistake says nothing about what is there.
            let dropping = if matched.is_ok() { self.drop_leftovers(key, function, false, now).await } else { None };
            return earliest(again, dropping);
        }
        let is_open = |target: &&Target| !is_decided(function, &known, target, generation);
        let open: Vec<Target> = wanted.into_iter().filter(is_open).cloned().collect();
        if !open.is_empty() {
            self.say_criteria(key, function, &matched, now).await;
            return self.apply(key, function, &open, now).await;
        }
        // What is in the way of others stays until they have what comes in its place.
        let failed = |target: &Target| {
            let entry = target::entry(&known.databases, &target.database, &target.endpoint);
            entry.is_some_and(|entry| entry.status != State::Success)
        };
        let waits = |target: &&Target| is_for(&function.spec, target) && (is_open(target) || failed(target));
        if self.deployment.targets.iter().any(|target| waits(&target)) { None } else { self.drop_leftovers(key, function, true, now).await }
    }

    /// Applies one to databases that do not have it. Returns when to try again.
    async fn apply(&self, key: &Key, function: &Function, open: &[Target], now: Timestamp) -> Option<Timestamp> {
        let generation = function.metadata.generation.unwrap_or_default();
        let mut again = None;
        let mut applied = false;
        let since = Instant::now();
        for target in open {
            let now = later(now, since);
            if let Some(until) = self.retries.wait(key, &target.database, generation, now) {
                again = earliest(again, Some(until));
                continue;
            }
            if !self.is_current(key, function) {
                // Which has woken this executor again.
                break;
            }
            if !function.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
                self.hold(key).await;
            }
            let (worked, next) = self.apply_to(key, function, target, now).await;
            applied |= worked;
            again = earliest(again, next);
        }
        let first = self.deployment.targets.iter().find(|target| is_for(&function.spec, target));
        if let Some(first) = first.filter(|first| applied && first.endpoint == open[0].endpoint) {
            self.remember_endpoint(key, function, &first.endpoint).await;
        }
        again
    }

    /// Applies one to a database and writes what became of it. Returns whether it worked, and when to try again.
    async fn apply_to(&self, key: &Key, function: &Function, target: &Target, now: Timestamp) -> (bool, Option<Timestamp>) {
        let (place, generation) = (&target.database, function.metadata.generation.unwrap_or_default());
        let since = Instant::now();
        let answer = self.execute(key, function, target, now).await;
        let now = later(now, since);
        let mut again = None;
        let may_be_there = answer.as_ref().err().is_none_or(|error| error.delivery == Delivery::Unknown);
        let result = match answer {
            Ok(()) => {
                self.retries.succeeded(key, place);
                Ok(())
            }
            Err(error) if may_get_better(&error) => {
                again = Some(self.retries.failed(key, place, generation, now, error.retry_after));
                Err((State::Failed, target::describe(&error)))
            }
            Err(error) => Err((State::PermanentFailure, target::describe(&error))),
        };
        self.metrics.count("Function", result.as_ref().map_or_else(|(state, _)| *state, |()| State::Success));
        if let Err((State::PermanentFailure, note)) = &result {
            self.tell(function, "KustoExecutionFailed", note).await;
        }
        let mut entry = self.deployment.outcome(place, &target.endpoint, generation, &result, now);
        entry.functions = functions_there(function, target, may_be_there);
        if !self.record(key, function, entry, now).await {
            again = earliest(again, Some(after(now, PAUSES.0)));
        }
        (result.is_ok(), again)
    }

    /// Runs the script. Where there is no answer for long, the status says so.
    async fn execute(&self, key: &Key, function: &Function, target: &Target, now: Timestamp) -> Result<(), kusto::Error> {
        let command = format!(".execute database script with (ThrowOnErrors=true) <| {}", function.spec.body);
        let mut run = target.client.run(&target.database, &command);
        if let Ok(answer) = tokio::time::timeout(SLOW, &mut run).await {
            return answer;
        }
        let message = format!("no answer from {} since {now}", target.endpoint);
        tracing::warn!(function = %key, database = target.database, "{message}");
        let generation = function.metadata.generation.unwrap_or_default();
        let entry = self.deployment.outcome(&target.database, &target.endpoint, generation, &Err((State::Failed, message)), now);
        let entry = TargetStatus { started: Some(Time(now)), functions: functions_there(function, target, true), ..entry };
        self.record(key, function, entry, now).await;
        run.await
    }

    /// Whether the object is still as it is here: neither edited nor deleted while something else was waited for.
    fn is_current(&self, key: &Key, function: &Function) -> bool {
        self.objects.get(key).is_some_and(|fresh| {
            let version = |function: &Function| (function.metadata.uid.clone(), function.metadata.generation);
            version(&fresh) == version(function) && fresh.metadata.deletion_timestamp.is_none()
        })
    }

    fn evaluate(&self, function: &Function) -> Matched {
        Criteria::new(&BTreeMap::new(), function.spec.criteria_expression.trim()).evaluate(&self.labels)
    }

    /// Says that the spec is none that could be applied; returns whether that worked. It is told by whoever is first to say it.
    async fn say_mistake(&self, key: &Key, function: &Function, message: &str, now: Timestamp) -> bool {
        const REASON: &str = "ValidationFailed";
        let generation = function.metadata.generation.unwrap_or_default();
        let is_news = AtomicBool::new(false);
        let written = self.write(key, |status| {
            status.status = State::PermanentFailure;
            status.observed_generation = generation;
            message.clone_into(&mut status.error);
            is_news.store(reconciled(status, generation, Truth::False, REASON, message, now), Ordering::Relaxed);
        });
        let written = written.await;
        if written && is_news.into_inner() {
            self.tell(function, REASON, message).await;
        }
        written
    }

    /// Says whether the function is meant for this cluster, and tells of an expression with a mistake. Returns whether that
    /// worked.
    async fn say_criteria(&self, key: &Key, function: &Function, outcome: &Matched, now: Timestamp) -> bool {
        let generation = function.metadata.generation.unwrap_or_default();
        let known = function.status.clone().unwrap_or_default();
        let (said, proceeds) = (conditions::get(&known.conditions, CRITERIA), outcome.as_ref().is_ok_and(Outcome::proceeds));
        let was_meant = known.databases.iter().any(|entry| self.target_of(entry).is_some());
        if !target::is_news(said, generation, proceeds, was_meant) {
            return true;
        }
        let expression = function.spec.criteria_expression.trim();
        let labels = match self.labels.to_string() {
            text if text.is_empty() => "(none)".to_owned(),
            text => text,
        };
        let (truth, reason, message) = match outcome {
            Ok(_) if expression.is_empty() => {
                (Truth::True, "CriteriaMatched", "No criteria expression configured; defaulting to match".to_owned())
            }
            Ok(outcome) if outcome.proceeds() => {
                (Truth::True, "CriteriaMatched", format!("Criteria expression \"{expression}\" matched cluster labels: {labels}"))
            }
            Ok(_) => {
                let message = format!("Criteria expression \"{expression}\" evaluated to false for cluster labels: {labels}");
                (Truth::False, "CriteriaNotMatched", message)
            }
            Err(error) => {
                let message = format!(
                    "Criteria expression \"{expression}\" failed: criteriaExpression evaluation failed: {error} (cluster labels: {labels})"
                );
                (Truth::False, "CriteriaExpressionError", message)
            }
        };
        let is_news = AtomicBool::new(false);
        let written = self.write(key, |status| {
            let desired = Desired { type_: CRITERIA, status: truth, reason, message: &message, observed_generation: Some(generation) };
            is_news.store(conditions::set(&mut status.conditions, &desired, now), Ordering::Relaxed);
            // The API server takes no status without it.
            status.last_time_reconciled.get_or_insert(Time(now));
            match outcome {
                Ok(outcome) if outcome.proceeds() => {}
                Ok(_) => {
                    let message = format!("Function skipped because criteria expression evaluated to false for cluster labels: {labels}");
                    status.status = State::Failed;
                    status.reason = "CriteriaNotMatched".to_owned();
                    status.message.clone_from(&message);
                    status.error.clear();
                    reconciled(status, generation, Truth::False, "CriteriaNotMatched", &message, now);
                }
                Err(error) => {
                    let message = format!("criteriaExpression evaluation failed: {error}");
                    status.status = State::Failed;
                    status.error.clone_from(&message);
                    reconciled(status, generation, Truth::False, "CriteriaEvaluationFailed", &message, now);
                }
            }
        });
        let written = written.await;
        if written && outcome.is_err() && is_news.into_inner() {
            self.tell(function, reason, &message).await;
        }
        written
    }

    /// Writes the outcome in one database; says whether that worked.
    async fn record(&self, key: &Key, function: &Function, entry: TargetStatus, now: Timestamp) -> bool {
        let wanted: Vec<&Target> = self.deployment.targets.iter().filter(|target| is_for(&function.spec, target)).collect();
        let change = |fresh: &mut Function| {
            let mut entry = entry.clone();
            let generation = fresh.metadata.generation.unwrap_or_default();
            let same = is_same_but_for_the_endpoint(fresh, function);
            let status = fresh.status.get_or_insert_default();
            if same {
                carry_over(status, entry.observed_generation, generation);
                entry.observed_generation = generation;
            }
            target::set(&mut status.databases, entry);
            status.databases.retain(|entry| holds_something(entry) || !self.deployment.has_left(entry));
            // Of an object that was edited meanwhile, whoever applies it says the rest.
            if same {
                status.databases.retain(|entry| entry.observed_generation == generation || holds_something(entry));
                summarize(status, &wanted, &self.deployment, generation, now);
            }
        };
        let written = self.store.update_status(key, &change).await;
        written.inspect_err(|error| tracing::error!(%error, "the status of a function is not written")).is_ok()
    }

    /// Notes the endpoint in the spec, as older versions do. The API server counts that as a generation, which is ours and
    /// no reason to apply the function again. Where it has the endpoint of another deployment, that stays.
    async fn remember_endpoint(&self, key: &Key, function: &Function, endpoint: &str) {
        if function.spec.applied_endpoint == endpoint {
            return;
        }
        let note = |fresh: &mut Function| {
            let noted = &fresh.spec.applied_endpoint;
            let others = |entry: &TargetStatus| entry.endpoint == *noted && !["", &self.deployment.name].contains(&&*entry.deployment);
            if !fresh.status.iter().flat_map(|status| &status.databases).any(others) {
                endpoint.clone_into(&mut fresh.spec.applied_endpoint);
            }
        };
        let noted = self.store.update(key, &note).await;
        if let Err(error) = noted {
            tracing::warn!(%error, "the endpoint is not noted");
            return;
        }
        let change = |fresh: &mut Function| {
            if is_same_but_for_the_endpoint(fresh, function) {
                let (from, to) = (function.metadata.generation.unwrap_or_default(), fresh.metadata.generation.unwrap_or_default());
                carry_over(fresh.status.get_or_insert_default(), from, to);
            }
        };
        if let Err(error) = self.store.update_status(key, &change).await {
            tracing::error!(%error, "the status of a function is not written");
        }
    }

    async fn hold(&self, key: &Key) {
        let held = self
            .store
            .update(key, &|function: &mut Function| {
                let finalizers = function.metadata.finalizers.get_or_insert_default();
                if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
                    finalizers.push(FINALIZER.to_owned());
                }
            })
            .await;
        if let Err(error) = held {
            tracing::warn!(%error, "a function is created without a finalizer: deleting it will not drop it");
        }
    }

    /// Writes the status; says whether that worked.
    async fn write(&self, key: &Key, change: impl Fn(&mut FunctionStatus) + Send + Sync) -> bool {
        let written = self.store.update_status(key, &|function: &mut Function| change(function.status.get_or_insert_default())).await;
        written.inspect_err(|error| tracing::error!(%error, "the status of a function is not written")).is_ok()
    }

    async fn tell(&self, function: &Function, reason: &str, note: &str) {
        let (action, reason, note) = ("Reconcile".to_owned(), reason.to_owned(), note.to_owned());
        self.store.event(function, Event { severity: Severity::Warning, action, reason, note }).await;
    }
}

#[async_trait]
impl Executor for Functions {
    fn name(&self) -> &'static str {
        "functions"
    }

    async fn pass(&mut self, now: Timestamp, leader: &Leader) -> Option<Timestamp> {
        let this = &*self;
        let order = || {
            let snapshot = this.objects.snapshot();
            this.retries.retain(|key| snapshot.contains_key(key));
            script::in_order(snapshot.iter().map(|(key, function)| (key, function.spec.body.as_str())))
        };
        let attend = |key: Key, now| async move {
            // As it is now: the one before may have taken a while.
            let function = this.objects.get(&key)?;
            this.reconcile(&key, &function, now).await
        };
        turns::in_turn(&this.objects, leader, now, order, attend).await
    }

    async fn changed(&mut self) {
        self.objects.changed().await;
    }
}

type Matched = Result<Outcome, CriteriaError>;

fn is_for(spec: &FunctionSpec, target: &Target) -> bool {
    spec.is_for_all() || spec.database.to_lowercase() == target.database.to_lowercase()
}

/// Whether the database has, or may have, something because of the object.
fn holds_something(entry: &TargetStatus) -> bool {
    entry.status == State::Success || !entry.functions.is_empty()
}

/// The functions that the database has because of the object, once it was tried.
fn functions_there(function: &Function, target: &Target, may_be_there: bool) -> Vec<String> {
    let entries = function.status.as_ref().map_or(&[][..], |status| &status.databases);
    let before = entries.iter().find(|entry| entry.target == target.database && entry.endpoint == target.endpoint);
    let mut there = before.map(|entry| entry.functions.clone()).unwrap_or_default();
    if may_be_there {
        there.extend(script::declared(&function.spec.body));
    }
    there.sort();
    there.dedup();
    there
}

/// Says of the whole function what its databases say.
fn summarize(status: &mut FunctionStatus, wanted: &[&Target], deployment: &Deployment, generation: i64, now: Timestamp) {
    let counts = |entry: &&TargetStatus| entry.observed_generation == generation && entry.started.is_none() && !deployment.has_left(entry);
    let decided: Vec<&TargetStatus> = status.databases.iter().filter(counts).collect();
    let is_open = |target: &&&Target| !decided.iter().any(|entry| entry.target == target.database && entry.endpoint == target.endpoint);
    let open: Vec<(&str, &str)> = wanted.iter().filter(is_open).map(|target| (&*target.database, &*target.endpoint)).collect();
    let waits = (!open.is_empty()).then(|| format!("waiting for {}", target::names(open)));
    let worst = [State::Failed, State::PermanentFailure].iter().find_map(|state| decided.iter().find(|entry| entry.status == *state));
    let worst = worst.map(|entry| (entry.status, entry.message.clone()));
    status.reason.clear();
    status.message = waits.clone().unwrap_or_default();
    match (worst, waits) {
        (Some((state, error)), waits) => {
            let permanent = state == State::PermanentFailure;
            let reason = if permanent { "KustoExecutionFailed" } else { "KustoExecutionRetrying" };
            if permanent && waits.is_none() {
                status.observed_generation = generation;
            }
            status.status = state;
            let message = [Some(error.clone()), waits].into_iter().flatten().collect::<Vec<_>>().join("; ");
            status.error = error;
            reconciled(status, generation, Truth::False, reason, &message, now);
        }
        (None, Some(waits)) => {
            status.error.clear();
            reconciled(status, generation, Truth::Unknown, PENDING, &waits, now);
        }
        (None, None) => {
            let endpoints = decided.iter().map(|entry| entry.endpoint.clone()).collect();
            status.status = State::Success;
            status.error.clear();
            status.observed_generation = generation;
            let message = format!("Function created at {}", target::listed(&endpoints));
            reconciled(status, generation, Truth::True, "KustoExecutionSucceeded", &message, now);
        }
    }
}

/// What was found at one generation holds for a later one that differs in nothing that matters.
fn carry_over(status: &mut FunctionStatus, from: i64, to: i64) {
    for entry in status.databases.iter_mut().filter(|entry| entry.observed_generation == from) {
        entry.observed_generation = to;
    }
    for condition in status.conditions.iter_mut().filter(|condition| condition.observed_generation == Some(from)) {
        condition.observed_generation = Some(to);
    }
    if status.observed_generation == from {
        status.observed_generation = to;
    }
}

fn is_same_but_for_the_endpoint(fresh: &Function, function: &Function) -> bool {
    let spec = FunctionSpec { applied_endpoint: function.spec.applied_endpoint.clone(), ..fresh.spec.clone() };
    fresh.metadata.uid == function.metadata.uid && spec == function.spec
}

/// Whether trying again may help. Throttling counts as transient whatever else the answer says.
fn may_get_better(error: &kusto::Error) -> bool {
    let is_throttled = matches!(error.status, Some(429 | 500..=599));
    error.is_transient() || is_throttled || target::misses_what_may_come(error) || target::misses_the_database(error)
}

/// Whether it is applied, or cannot be, at this generation.
fn is_decided(function: &Function, known: &FunctionStatus, target: &Target, generation: i64) -> bool {
    if let Some(entry) = target::entry(&known.databases, &target.database, &target.endpoint) {
        return entry.observed_generation == generation && entry.status != State::Failed;
    }
    // Older versions keep one status for all databases, so it says nothing of each of several.
    known.databases.is_empty()
        && !function.spec.is_for_all()
        && known.status == State::Success
        && known.observed_generation == generation
        && function.spec.applied_endpoint == target.endpoint
}

/// In the words of older versions.
fn validate(spec: &FunctionSpec) -> Result<(), String> {
    if spec.all_databases && !["", "*"].contains(&spec.database.as_str()) {
        let database = &spec.database;
        return Err(format!(
            "invalid Function spec: allDatabases is true but database {database:?} is also specified; these fields are mutually exclusive"
        ));
    }
    if !spec.all_databases && spec.database.is_empty() {
        return Err("invalid Function spec: neither database nor allDatabases is set; one must be specified".to_owned());
    }
    spec.validate().map_err(|error| format!("invalid Function spec: {error}"))
}

/// Says how the function does, and whether that is new.
pub(crate) fn reconciled(status: &mut FunctionStatus, generation: i64, truth: Truth, reason: &str, message: &str, now: Timestamp) -> bool {
    let desired = Desired { type_: RECONCILED, status: truth, reason, message, observed_generation: Some(generation) };
    let is_new = conditions::set(&mut status.conditions, &desired, now);
    if is_new {
        status.last_time_reconciled = Some(Time(now));
    }
    is_new
}
