//! Dropping what a Function has created: when it is deleted, suspended or not; when it is no longer meant for this cluster;
//! or when it has moved to another database or changed the names that it declares. What another Function of this cluster
//! declares in the same database stays. So does what is not on record, except on deletion, when the spec says what may be
//! there.
//!
//! A drop that Kusto refuses for good, or that does not get through within ten minutes of the deletion, is given up with a
//! warning event: an object must not stay for ever because a cluster is gone. What it created then stays in Kusto.
//!
//! Several endpoints, and several processes with databases of their own, may share an object. For each, what is in its
//! databases is dropped and taken off the status; whoever finds nothing left there lets the object go. What is on record
//! for a deployment that is no more, or for an endpoint that its deployment no longer has, is given up in the same way.

use std::sync::atomic::{AtomicBool, Ordering};

use crds::{Function, State, TargetStatus};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use tokio::time::Instant;

use super::{FINALIZER, Functions, PAUSES, holds_something, is_for, may_get_better, script};
use crate::store::Key;
use crate::target::{self, Target, later};
use crate::turns::earliest;
use crate::window::after;

/// How long a drop is tried after a deletion.
const DROP_WITHIN: SignedDuration = SignedDuration::from_mins(10);
/// In place of a generation, in which drops are no attempts.
const DROPS: i64 = -1;

impl Functions {
    /// Drops what the object has created and should not be there: all of it unless it is `meant` for this cluster, otherwise
    /// what the present generation, which is in place, does not declare.
    pub(super) async fn drop_leftovers(&self, key: &Key, function: &Function, meant: bool, now: Timestamp) -> Option<Timestamp> {
        let declared = script::declared(&function.spec.body);
        let mut again = None;
        for entry in function.status.iter().flat_map(|status| &status.databases) {
            let Some(target) = self.target_of(entry) else { continue };
            let stays = meant && is_for(&function.spec, &target);
            let (kept, left): (Vec<String>, Vec<String>) =
                entry.functions.iter().cloned().partition(|name| stays && declared.contains(name));
            if left.is_empty() && stays {
                continue;
            }
            if let Some(until) = self.drop_in(key, function, &target, &left, true, now).await {
                again = earliest(again, Some(until));
                continue;
            }
            let written = self
                .write(key, |status| {
                    let here = |present: &TargetStatus| present.target == entry.target && present.endpoint == entry.endpoint;
                    status.databases.retain(|present| stays || !here(present));
                    for present in status.databases.iter_mut().filter(|present| here(present)) {
                        present.functions.clone_from(&kept);
                    }
                })
                .await;
            if !written {
                again = earliest(again, Some(after(now, PAUSES.0)));
            }
        }
        let holds = |function: &Function| function.status.iter().flat_map(|status| &status.databases).any(holds_something);
        // Where nothing of this deployment was, another may be about to create something.
        let ours = function.status.iter().flat_map(|status| &status.databases).any(|entry| self.target_of(entry).is_some());
        if !meant && ours && again.is_none() && self.objects.get(key).is_some_and(|fresh| !holds(&fresh)) {
            return self.let_go(key, now).await;
        }
        again
    }

    /// Drops what an object that is being deleted has created, and lets it go.
    pub(super) async fn delete(&self, key: &Key, function: &Function, now: Timestamp) -> Option<Timestamp> {
        if !function.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
            return None;
        }
        if let Some(recorded) = self.note_unrecorded(key, function, now).await {
            return Some(if recorded { now } else { after(now, PAUSES.0) });
        }
        let since = function.metadata.deletion_timestamp.as_ref().map_or(now, |since| since.0);
        let patient = now.duration_since(since) < DROP_WITHIN;
        let (ours, others) = self.on_record(function);
        let mut again = None;
        for (target, names) in &ours {
            again = earliest(again, self.drop_in(key, function, target, names, patient, now).await);
        }
        if again.is_some() {
            return again;
        }
        if !others.is_empty() && patient {
            let holds = AtomicBool::new(true);
            let is_ours = |entry: &TargetStatus| ours.iter().any(|(target, _)| is_of(entry, target));
            let written = self
                .write(key, |status| {
                    status.databases.retain(|entry| !is_ours(entry));
                    holds.store(status.databases.iter().any(holds_something), Ordering::Relaxed);
                })
                .await;
            // Unless the others have done the same meanwhile, they see to the rest.
            if ours.is_empty() || !written || holds.into_inner() {
                return since.checked_add(DROP_WITHIN).ok();
            }
            return self.let_go(key, now).await;
        }
        for place in others {
            let note = format!("what it created stays in {place}: it could not be dropped there within ten minutes");
            self.tell(function, "DropFailed", &note).await;
        }
        self.let_go(key, now).await
    }

    /// Older versions keep no record of what is where, nor does a process that was killed. What may be in the databases of
    /// this process is put on record before it is dropped. Says whether that worked; nothing if there is no such thing.
    async fn note_unrecorded(&self, key: &Key, function: &Function, now: Timestamp) -> Option<bool> {
        let wanted: Vec<&Target> = self.deployment.targets.iter().filter(|target| is_for(&function.spec, target)).collect();
        let is_recorded = function.status.as_ref().is_some_and(|status| !status.databases.is_empty());
        if is_recorded || wanted.is_empty() || !self.is_meant_for_here(function) {
            return None;
        }
        let declared = script::declared(&function.spec.body);
        let written = self.write(key, |status| {
            if status.databases.is_empty() {
                let generation = status.observed_generation;
                let may_be_there = |target: &&Target| {
                    let entry = self.deployment.outcome(&target.database, &target.endpoint, generation, &Ok(()), now);
                    TargetStatus { functions: declared.clone(), ..entry }
                };
                status.databases.extend(wanted.iter().map(may_be_there));
            }
        });
        Some(written.await)
    }

    /// Where the object has created something: here, with the names, and elsewhere.
    fn on_record(&self, function: &Function) -> (Vec<(Target, Vec<String>)>, Vec<String>) {
        let status = function.status.clone().unwrap_or_default();
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for entry in status.databases.iter().filter(|entry| holds_something(entry)) {
            let names = || if entry.functions.is_empty() { script::declared(&function.spec.body) } else { entry.functions.clone() };
            match self.target_of(entry) {
                Some(target) => ours.push((target, names())),
                None => others.push(format!("{} of {}", entry.target, entry.endpoint)),
            }
        }
        if status.databases.is_empty() && status.status == State::Success {
            others.push(format!("{} of {}", function.spec.database, function.spec.applied_endpoint));
        }
        (ours, others)
    }

    pub(super) fn target_of(&self, entry: &TargetStatus) -> Option<Target> {
        self.targets.iter().find(|target| is_of(entry, target)).cloned()
    }

    /// Drops functions in a database. Returns when to try again; if that cannot help, or is not wanted, it is told.
    async fn drop_in(
        &self,
        key: &Key,
        function: &Function,
        target: &Target,
        names: &[String],
        patient: bool,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let place = &target.database;
        if let Some(until) = self.retries.wait(key, place, DROPS, now).filter(|_| patient) {
            return Some(until);
        }
        let mut again = None;
        let since = Instant::now();
        for name in names.iter().filter(|name| !self.is_declared_elsewhere(key, name, target)) {
            let command = format!(".drop function {} ifexists", kusto::text::quote_name(name));
            let Err(error) = target.client.run(place, &command).await else { continue };
            if may_get_better(&error) && patient {
                again = Some(error.retry_after);
                break;
            }
            let note = format!("{name} stays in {place} of {}: {}", target.endpoint, target::describe(&error));
            self.tell(function, "DropFailed", &note).await;
        }
        match again {
            Some(asked) => Some(self.retries.failed(key, place, DROPS, later(now, since), asked)),
            None => {
                self.retries.succeeded(key, place);
                None
            }
        }
    }

    /// Whether another function that is here to stay, and meant for this cluster, declares the name in the same database.
    fn is_declared_elsewhere(&self, key: &Key, name: &str, target: &Target) -> bool {
        self.objects.snapshot().iter().any(|(other, function)| {
            other != key
                && function.metadata.deletion_timestamp.is_none()
                && is_for(&function.spec, target)
                && script::declared(&function.spec.body).iter().any(|declared| declared == name)
                && self.is_meant_for_here(function)
        })
    }

    fn is_meant_for_here(&self, function: &Function) -> bool {
        self.evaluate(function).is_ok_and(|outcome| outcome.proceeds())
    }

    async fn let_go(&self, key: &Key, now: Timestamp) -> Option<Timestamp> {
        let freed = self
            .store
            .update(key, &|function: &mut Function| {
                if let Some(finalizers) = &mut function.metadata.finalizers {
                    finalizers.retain(|finalizer| finalizer != FINALIZER);
                }
            })
            .await;
        let error = freed.err()?;
        tracing::warn!(%error, "the finalizer stays");
        Some(after(now, PAUSES.0))
    }
}

fn is_of(entry: &TargetStatus, target: &Target) -> bool {
    entry.target == target.database && entry.endpoint == target.endpoint
}
