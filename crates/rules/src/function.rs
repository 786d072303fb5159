//! Keeps Functions in place: in each database that they name, at their generation.
//!
//! Throttling, failures of the service or the network, and tables or databases that are not there yet are tried again with
//! growing pauses; what Kusto refuses for good waits for a change of the spec. Functions are created before those that use
//! them. What was created where is in the status, so that it can be dropped: see [`removal`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use crds::conditions::{self, Desired, Truth};
use crds::criteria::{Criteria, Labels};
use crds::{Function, FunctionSpec, FunctionStatus, State, TargetStatus, Time};
use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::lease::Leader;
use crate::runner::Executor;
use crate::store::{Event, Key, Objects, Severity, Store};
use crate::target::{self, Metrics, Retries, Target};

mod removal;
mod script;

/// Held while something is in Kusto.
pub const FINALIZER: &str = "function.adx-mon.azure.com/finalizer";
const CRITERIA: &str = "function.adx-mon.azure.com/CriteriaMatch";
pub(crate) const RECONCILED: &str = "function.adx-mon.azure.com/Reconciled";
/// Pauses between attempts.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));

/// Applies Functions.
pub struct Functions {
    store: Arc<dyn Store<Function>>,
    objects: Objects<Function>,
    targets: Vec<Target>,
    labels: Labels,
    metrics: Metrics,
    retries: Retries,
}

impl Functions {
    /// Applies the functions of `store` to `targets`.
    pub fn new(store: Arc<dyn Store<Function>>, targets: Vec<Target>, labels: Labels, metrics: Metrics) -> Self {
        let objects = store.objects();
        Self { store, objects, targets, labels, metrics, retries: Retries::new(PAUSES.0, PAUSES.1) }
    }

    /// Applies, cleans up after or drops one. Returns when to try again.
    async fn reconcile(&mut self, key: &Key, function: &Function, now: Timestamp) -> Option<Timestamp> {
        if function.metadata.deletion_timestamp.is_some() {
            return self.delete(key, function, now).await;
        }
        if function.spec.suspend {
            return None;
        }
        let generation = function.metadata.generation.unwrap_or_default();
        let known = function.status.clone().unwrap_or_default();
        if known.status == State::PermanentFailure && known.observed_generation == generation {
            return None;
        }
        if let Err(message) = validate(&function.spec) {
            self.write(key, |status| {
                status.status = State::PermanentFailure;
                status.observed_generation = generation;
                status.error.clone_from(&message);
                reconciled(status, generation, Truth::False, "ValidationFailed", &message, now);
            })
            .await;
            return None;
        }
        let targets: Vec<Target> = self.targets.iter().filter(|target| is_for(&function.spec, target)).cloned().collect();
        if targets.iter().all(|target| is_applied(function, &known, target, generation)) {
            return self.drop_leftovers(key, function, now).await;
        }
        if !self.criteria(key, function, generation, now).await {
            return None;
        }
        let mut again = None;
        let mut applied = false;
        for target in targets.iter().filter(|target| !is_applied(function, &known, target, generation)) {
            let place = &target.database;
            if let Some(until) = self.retries.wait(key, place, generation, now) {
                again = earliest(again, Some(until));
                continue;
            }
            if !function.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
                self.hold(key).await;
            }
            let command = format!(".execute database script with (ThrowOnErrors=true) <| {}", function.spec.body);
            let result = match target.client.run(place, &command).await {
                Ok(()) => {
                    self.retries.succeeded(key, place);
                    Ok(())
                }
                Err(error) if may_get_better(&error) => {
                    let until = self.retries.failed(key, place, generation, now, error.retry_after);
                    again = earliest(again, Some(until));
                    Err((State::Failed, target::describe(&error)))
                }
                Err(error) => Err((State::PermanentFailure, target::describe(&error))),
            };
            self.metrics.count("Function", result.as_ref().map_or_else(|(state, _)| *state, |()| State::Success));
            if let Err((State::PermanentFailure, note)) = &result {
                self.tell(function, "KustoExecutionFailed", note).await;
            }
            applied |= result.is_ok();
            let mut entry = target::outcome(place, &target.endpoint, generation, &result, now);
            entry.functions = functions_there(function, &known, target, result.is_ok());
            if !self.record(key, entry, targets.len(), now).await {
                again = earliest(again, now.checked_add(PAUSES.0).ok());
            }
        }
        if applied {
            self.remember_endpoint(key, function, &targets[0].endpoint, generation).await;
        }
        again
    }

    /// Whether the function is meant for this cluster; the conditions say so.
    async fn criteria(&self, key: &Key, function: &Function, generation: i64, now: Timestamp) -> bool {
        let expression = function.spec.criteria_expression.trim();
        let labels = match self.labels.to_string() {
            text if text.is_empty() => "(none)".to_owned(),
            text => text,
        };
        let outcome = Criteria::new(&BTreeMap::new(), expression).evaluate(&self.labels);
        let (truth, reason, message) = match &outcome {
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
        self.write(key, |status| {
            let desired = Desired { type_: CRITERIA, status: truth, reason, message: &message, observed_generation: Some(generation) };
            conditions::set(&mut status.conditions, &desired, now);
            // The API server takes no status without it.
            status.last_time_reconciled.get_or_insert(Time(now));
            match &outcome {
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
        })
        .await;
        outcome.is_ok_and(|outcome| outcome.proceeds())
    }

    /// Writes the outcome in one of `of` databases; says whether that worked.
    async fn record(&self, key: &Key, entry: TargetStatus, of: usize, now: Timestamp) -> bool {
        let generation = entry.observed_generation;
        self.write(key, |status| {
            target::set(&mut status.databases, entry.clone());
            status.databases.retain(|entry| entry.observed_generation == generation || holds_something(entry));
            let current: Vec<_> = status.databases.iter().filter(|entry| entry.observed_generation == generation).collect();
            let worst = current.iter().find(|entry| entry.status == State::Failed);
            let worst = worst.or_else(|| current.iter().find(|entry| entry.status == State::PermanentFailure)).copied().cloned();
            let all = current.len() >= of;
            status.message.clear();
            status.reason.clear();
            match worst {
                Some(failed) => {
                    status.status = failed.status;
                    status.error.clone_from(&failed.message);
                    let permanent = failed.status == State::PermanentFailure;
                    let reason = if permanent { "KustoExecutionFailed" } else { "KustoExecutionRetrying" };
                    if permanent && all {
                        status.observed_generation = generation;
                    }
                    reconciled(status, generation, Truth::False, reason, &failed.message, now);
                }
                None if all => {
                    status.status = State::Success;
                    status.error.clear();
                    status.observed_generation = generation;
                    let message = format!("Function created at {}", entry.endpoint);
                    reconciled(status, generation, Truth::True, "KustoExecutionSucceeded", &message, now);
                }
                // Others are still to come.
                None => {}
            }
        })
        .await
    }

    /// Notes the endpoint in the spec, as older versions do. The API server counts that as a generation, which is ours and
    /// no reason to apply the function again.
    async fn remember_endpoint(&self, key: &Key, function: &Function, endpoint: &str, generation: i64) {
        if function.spec.applied_endpoint == endpoint {
            return;
        }
        let noted = self.store.update(key, &|function: &mut Function| endpoint.clone_into(&mut function.spec.applied_endpoint)).await;
        if let Err(error) = noted {
            tracing::warn!(%error, "the endpoint is not noted");
            return;
        }
        let Some(fresh) = self.objects.get(key) else { return };
        let same = FunctionSpec { applied_endpoint: function.spec.applied_endpoint.clone(), ..fresh.spec.clone() } == function.spec;
        let Some(now_at) = fresh.metadata.generation.filter(|_| same) else { return };
        self.write(key, |status| {
            for entry in status.databases.iter_mut().filter(|entry| entry.observed_generation == generation) {
                entry.observed_generation = now_at;
            }
            for condition in status.conditions.iter_mut().filter(|condition| condition.observed_generation == Some(generation)) {
                condition.observed_generation = Some(now_at);
            }
            if status.observed_generation == generation {
                status.observed_generation = now_at;
            }
        })
        .await;
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
        let snapshot = self.objects.snapshot();
        self.retries.retain(|key| snapshot.contains_key(key));
        let mut again = None;
        for key in script::in_order(snapshot.iter().map(|(key, function)| (key, function.spec.body.as_str()))) {
            if !leader.is_leader() {
                break;
            }
            let Some(function) = snapshot.get(&key) else { continue };
            again = earliest(again, self.reconcile(&key, function, now).await);
        }
        again
    }

    async fn changed(&mut self) {
        self.objects.changed().await;
    }
}

fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn is_for(spec: &FunctionSpec, target: &Target) -> bool {
    spec.is_for_all() || spec.database.to_lowercase() == target.database.to_lowercase()
}

/// Whether the database has, or may have, something because of the object.
fn holds_something(entry: &TargetStatus) -> bool {
    entry.status == State::Success || !entry.functions.is_empty()
}

/// The functions that the database has because of the object, once it was tried.
fn functions_there(function: &Function, known: &FunctionStatus, target: &Target, applied: bool) -> Vec<String> {
    let before = known.databases.iter().find(|entry| entry.target == target.database && entry.endpoint == target.endpoint);
    let mut there = before.map(|entry| entry.functions.clone()).unwrap_or_default();
    if applied {
        there.extend(script::declared(&function.spec.body));
    }
    there.sort();
    there.dedup();
    there
}

/// Whether trying again may help. Throttling counts as transient whatever else the answer says.
fn may_get_better(error: &kusto::Error) -> bool {
    let is_throttled = matches!(error.status, Some(429 | 500..=599));
    error.is_transient() || is_throttled || target::misses_a_table(error) || target::misses_the_database(error)
}

fn is_applied(function: &Function, known: &FunctionStatus, target: &Target, generation: i64) -> bool {
    if let Some(entry) = known.databases.iter().find(|entry| entry.target == target.database) {
        return entry.observed_generation == generation
            && (entry.status == State::PermanentFailure || entry.status == State::Success && entry.endpoint == target.endpoint);
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

pub(crate) fn reconciled(status: &mut FunctionStatus, generation: i64, truth: Truth, reason: &str, message: &str, now: Timestamp) {
    let desired = Desired { type_: RECONCILED, status: truth, reason, message, observed_generation: Some(generation) };
    if conditions::set(&mut status.conditions, &desired, now) {
        status.last_time_reconciled = Some(Time(now));
    }
}
