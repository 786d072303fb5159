//! What the kinds of rules say about their database and their owner.

use std::time::Duration;

use crds::conditions::{self, Desired, Truth};
use crds::criteria::{Criteria, Labels};
use crds::{Condition, Function, ManagementCommand, MetricsExporter, Scope, State, SummaryRule, Time};
use jiff::Timestamp;

use crate::store::Object;
use crate::summary::{Owner, owner};
use crate::{function, management_command, summary};

/// Intervals for which the status of a rule that runs on schedule may stand still.
const INTERVALS: u32 = 3;

/// A rule that names a database.
pub trait Named: Object {
    /// Type of the condition that says how the rule does.
    const CONDITION: &'static str;

    /// The database it needs. None if it needs none, does not run at present, or is not for this component.
    fn database(&self, component: &str) -> Option<&str>;

    /// Whether a database that is served is the one that is named.
    fn is_same(served: &str, named: &str) -> bool {
        served == named
    }

    /// Why nobody runs it, whatever its database, if that is for this component to say.
    fn unknown_owner(&self, component: &str) -> Option<String> {
        let _ = component;
        None
    }

    /// Whether it is meant for a cluster with these labels.
    fn is_meant_for(&self, labels: &Labels) -> bool;

    /// How long whoever runs it may leave its status as it is. None: for ever.
    fn silence(&self) -> Option<Duration> {
        None
    }

    /// The conditions of its status.
    fn conditions(&self) -> &[Condition];

    /// Says in the status that it does not run.
    fn tell(&mut self, reason: &str, message: &str, now: Timestamp);
}

fn matches(expression: &str, labels: &Labels) -> bool {
    Criteria::new(&Default::default(), expression).evaluate(labels).is_ok_and(|outcome| outcome.proceeds())
}

impl Named for SummaryRule {
    const CONDITION: &'static str = summary::state::HEALTH;

    fn database(&self, component: &str) -> Option<&str> {
        let ours = match Owner::of(self)? {
            Owner::Ingestor => component != "adxexporter",
            Owner::Exporter => component == "adxexporter",
        };
        (ours && !self.spec.suspend).then_some(self.spec.database.as_str())
    }

    fn is_meant_for(&self, labels: &Labels) -> bool {
        Criteria::new(&self.spec.criteria, &self.spec.criteria_expression).evaluate(labels).is_ok_and(|outcome| outcome.proceeds())
    }

    fn unknown_owner(&self, component: &str) -> Option<String> {
        (component != "adxexporter" && !self.spec.suspend).then(|| owner::unknown(self)).flatten()
    }

    fn silence(&self) -> Option<Duration> {
        let interval = self.spec.interval().unwrap_or_default();
        Some(interval.saturating_mul(INTERVALS).saturating_add(self.spec.ingestion_delay().unwrap_or_default()))
    }

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    fn tell(&mut self, reason: &str, message: &str, now: Timestamp) {
        let observed_generation = self.metadata.generation;
        let desired = Desired { type_: Self::CONDITION, status: Truth::False, reason, message, observed_generation };
        conditions::set(&mut self.status.get_or_insert_default().conditions, &desired, now);
    }
}

impl Named for MetricsExporter {
    const CONDITION: &'static str = "metricsexporter.adx-mon.azure.com";

    fn silence(&self) -> Option<Duration> {
        // Each success is written; a failure that is like the one before changes nothing.
        let works = conditions::get(self.conditions(), Self::CONDITION).is_some_and(|condition| condition.status == "True");
        works.then(|| self.spec.interval().unwrap_or_default().saturating_mul(INTERVALS))
    }

    fn database(&self, _: &str) -> Option<&str> {
        self.spec.validate().is_ok().then_some(self.spec.database.as_str())
    }

    fn is_meant_for(&self, labels: &Labels) -> bool {
        Criteria::new(&self.spec.criteria, &self.spec.criteria_expression).evaluate(labels).is_ok_and(|outcome| outcome.proceeds())
    }

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    fn tell(&mut self, reason: &str, message: &str, now: Timestamp) {
        let observed_generation = self.metadata.generation;
        let conditions = &mut self.status.get_or_insert_default().conditions;
        for (type_, status) in [(Self::CONDITION, Truth::False), ("Completed", Truth::False), ("Failed", Truth::True)] {
            conditions::set(conditions, &Desired { type_, status, reason, message, observed_generation }, now);
        }
    }
}

impl Named for Function {
    const CONDITION: &'static str = function::RECONCILED;

    fn database(&self, _: &str) -> Option<&str> {
        let runs = !self.spec.suspend && !self.spec.is_for_all() && self.spec.validate().is_ok();
        runs.then_some(self.spec.database.as_str())
    }

    fn is_same(served: &str, named: &str) -> bool {
        served.to_lowercase() == named.to_lowercase()
    }

    fn is_meant_for(&self, labels: &Labels) -> bool {
        matches(self.spec.criteria_expression.trim(), labels)
    }

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    fn tell(&mut self, reason: &str, message: &str, now: Timestamp) {
        let generation = self.metadata.generation.unwrap_or_default();
        let status = self.status.get_or_insert_default();
        status.status = State::Failed;
        status.error = message.to_owned();
        // The API server takes no status without it.
        status.last_time_reconciled = Some(Time(now));
        function::reconciled(status, generation, Truth::False, reason, message, now);
    }
}

impl Named for ManagementCommand {
    const CONDITION: &'static str = management_command::OWNER;

    fn database(&self, _: &str) -> Option<&str> {
        (self.spec.scope() == Ok(Scope::Database)).then_some(self.spec.database.as_str())
    }

    fn is_meant_for(&self, labels: &Labels) -> bool {
        matches(self.spec.criteria_expression.trim(), labels)
    }

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    fn tell(&mut self, reason: &str, message: &str, now: Timestamp) {
        let generation = self.metadata.generation.unwrap_or_default();
        management_command::owner(self.status.get_or_insert_default(), generation, Truth::False, reason, message, now);
    }
}
