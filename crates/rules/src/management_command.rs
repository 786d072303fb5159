//! Runs ManagementCommands: once for each generation in each database that they name, or once on each cluster.
//!
//! A command that fails is run again with growing pauses, at the longest every ten minutes: what Kusto refuses today, such as
//! a policy of a table that is not there yet, it may take tomorrow. A process that is killed between the command and the
//! status that records it runs the command once more.
//!
//! An object that an older version has run, whose status has no targets, counts as done everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use crds::conditions::{self, Desired, Truth};
use crds::criteria::{Criteria, Labels};
use crds::{ManagementCommand, ManagementCommandSpec, ManagementCommandStatus, Scope, State};
use jiff::Timestamp;

use crate::lease::Leader;
use crate::runner::Executor;
use crate::store::{Event, Key, Objects, Severity, Store};
use crate::target::{self, Metrics, Retries, Target};

const OWNER: &str = "managementcommand.adx-mon.azure.com";
const CRITERIA: &str = "managementcommand.adx-mon.azure.com/CriteriaMatch";
const PAUSES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

/// Runs ManagementCommands.
pub struct ManagementCommands {
    store: Arc<dyn Store<ManagementCommand>>,
    objects: Objects<ManagementCommand>,
    targets: Vec<Target>,
    labels: Labels,
    metrics: Metrics,
    retries: Retries,
}

/// Where a command is run: what the status calls it, and through which database.
struct Place {
    name: String,
    target: Target,
}

impl ManagementCommands {
    /// Runs the commands of `store` on `targets`.
    pub fn new(store: Arc<dyn Store<ManagementCommand>>, targets: Vec<Target>, labels: Labels, metrics: Metrics) -> Self {
        let objects = store.objects();
        Self { store, objects, targets, labels, metrics, retries: Retries::new(PAUSES.0, PAUSES.1) }
    }

    async fn reconcile(&mut self, key: &Key, command: &ManagementCommand, now: Timestamp) -> Option<Timestamp> {
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
                self.say(key, generation, Truth::False, "Failed", &message, now).await;
                return None;
            }
        };
        let places = self.places(scope, &command.spec);
        if places.is_empty() || !self.criteria(key, command, generation, now).await {
            return None;
        }
        let kind = if scope == Scope::Cluster { "cluster" } else { "database" };
        let statement = format!(".execute {kind} script with (ThrowOnErrors = true) <|{}", command.spec.body);
        let is_open = |place: &&Place| {
            !known
                .targets
                .iter()
                .any(|entry| entry.target == place.name && entry.observed_generation == generation && entry.status == State::Success)
        };
        let mut again: Option<Timestamp> = None;
        let mut come_back = |at: Timestamp| again = Some(again.map_or(at, |other| other.min(at)));
        for place in places.iter().filter(is_open) {
            if let Some(until) = self.retries.wait(key, &place.name, generation, now) {
                come_back(until);
                continue;
            }
            let result = match place.target.client.run(&place.target.database, &statement).await {
                Ok(()) => {
                    self.retries.succeeded(key, &place.name);
                    Ok(())
                }
                Err(error) => {
                    come_back(self.retries.failed(key, &place.name, generation, now, error.retry_after));
                    Err((State::Failed, target::describe(&error)))
                }
            };
            self.metrics.count("ManagementCommand", result.as_ref().map_or_else(|(state, _)| *state, |()| State::Success));
            if let Err((_, note)) = &result {
                let (action, reason, note) = ("Execute".to_owned(), "Failed".to_owned(), format!("{}: {note}", place.name));
                self.store.event(command, Event { severity: Severity::Warning, action, reason, note }).await;
            }
            let entry = target::outcome(&place.name, &place.target.endpoint, generation, &result, now);
            let wanted: Vec<&str> = places.iter().map(|place| place.name.as_str()).collect();
            self.write(key, |status| {
                target::set(&mut status.targets, entry.clone());
                let current = status.targets.iter().filter(|entry| entry.observed_generation == generation);
                let current: Vec<_> = current.filter(|entry| wanted.contains(&entry.target.as_str())).collect();
                let failed = current.iter().find(|entry| entry.status != State::Success).map(|entry| entry.message.clone());
                match failed {
                    Some(message) => owner(status, generation, Truth::False, "Failed", &message, now),
                    None if current.len() == wanted.len() => owner(status, generation, Truth::True, "Created", "", now),
                    // Others are still to come.
                    None => {}
                }
            })
            .await;
        }
        again
    }

    fn places(&self, scope: Scope, spec: &ManagementCommandSpec) -> Vec<Place> {
        let database = |target: &Target| Place { name: target.database.clone(), target: target.clone() };
        match scope {
            Scope::Database => self.targets.iter().filter(|target| target.database == spec.database).map(database).collect(),
            Scope::AllDatabases => self.targets.iter().map(database).collect(),
            Scope::Cluster => {
                let mut seen = BTreeSet::new();
                let first = self.targets.iter().filter(|target| seen.insert(target.endpoint.clone()));
                first.map(|target| Place { name: target.endpoint.clone(), target: target.clone() }).collect()
            }
        }
    }

    async fn criteria(&self, key: &Key, command: &ManagementCommand, generation: i64, now: Timestamp) -> bool {
        let expression = command.spec.criteria_expression.trim();
        if expression.is_empty() {
            return true;
        }
        let outcome = Criteria::new(&BTreeMap::new(), expression).evaluate(&self.labels);
        let labels = self.labels.to_string();
        let (truth, reason, message) = match &outcome {
            Ok(outcome) if outcome.proceeds() => (Truth::True, "CriteriaMatched", format!("{expression:?} is true for {labels}")),
            Ok(_) => (Truth::False, "CriteriaNotMatched", format!("{expression:?} is false for {labels}; not run on this cluster")),
            Err(error) => (Truth::False, "CriteriaExpressionError", format!("criteriaExpression evaluation failed: {error}")),
        };
        self.write(key, |status| {
            let desired = Desired { type_: CRITERIA, status: truth, reason, message: &message, observed_generation: Some(generation) };
            conditions::set(&mut status.conditions, &desired, now);
            if outcome.is_err() {
                owner(status, generation, Truth::False, "Failed", &message, now);
            }
        })
        .await;
        outcome.is_ok_and(|outcome| outcome.proceeds())
    }

    async fn say(&self, key: &Key, generation: i64, truth: Truth, reason: &str, message: &str, now: Timestamp) {
        self.write(key, |status| owner(status, generation, truth, reason, message, now)).await;
    }

    async fn write(&self, key: &Key, change: impl Fn(&mut ManagementCommandStatus) + Send + Sync) {
        let change = |command: &mut ManagementCommand| change(command.status.get_or_insert_default());
        if let Err(error) = self.store.update_status(key, &change).await {
            tracing::error!(%error, "the status of a management command is not written");
        }
    }
}

#[async_trait]
impl Executor for ManagementCommands {
    fn name(&self) -> &'static str {
        "management commands"
    }

    async fn pass(&mut self, now: Timestamp, leader: &Leader) -> Option<Timestamp> {
        let snapshot = self.objects.snapshot();
        self.retries.retain(|key| snapshot.contains_key(key));
        let mut again = None;
        for (key, command) in snapshot.iter() {
            if !leader.is_leader() {
                break;
            }
            let next = self.reconcile(key, command, now).await;
            again = [again, next].into_iter().flatten().min();
        }
        again
    }

    async fn changed(&mut self) {
        self.objects.changed().await;
    }
}

/// In the words of older versions.
fn scope(spec: &ManagementCommandSpec) -> Result<Scope, String> {
    match (spec.database.as_str(), spec.scope.as_str()) {
        ("", "Database") => Err("scope is \"Database\" but database field is empty; database is required for this scope".to_owned()),
        ("", other) if !["", "AllDatabases", "Cluster"].contains(&other) => Err(format!("unknown scope value: {other:?}")),
        _ => spec.scope().map_err(|error| error.to_string()),
    }
}

fn owner(status: &mut ManagementCommandStatus, generation: i64, truth: Truth, reason: &str, message: &str, now: Timestamp) {
    let desired = Desired { type_: OWNER, status: truth, reason, message, observed_generation: Some(generation) };
    conditions::set(&mut status.conditions, &desired, now);
}
