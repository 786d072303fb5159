//! Which of several deployments runs a rule.
//!
//! A rule has one cursor, so two deployments that have a database of the same name on clusters of their own would each run a
//! part of its windows. So the first to write its status is on record there and runs it alone, whether or not it is alive: to
//! hand a rule over would leave windows of the one cluster to the other. A user may do it, by an annotation.
//!
//! A deployment is known by the namespace and name of its Lease: `adx-mon/ingestor`, `adx-mon/adxexporter`. Those of one
//! namespace serve the same clusters, and which of them runs a rule is for its [owner](super::owner) to say. So exporters
//! take over what the ingestors of their namespace run, and leave alone what those of another do.

use crds::conditions::{self, Desired, Truth};
use crds::{Condition, SummaryRule};
use jiff::Timestamp;

/// Annotation that says which deployment runs a rule, by the namespace and name of its Lease. Without it the first one does.
pub const DEPLOYMENT: &str = "adx-mon.azure.com/deployment";
/// Condition whose message is the deployment that runs the rule.
const RUN_BY: &str = "Deployment";
/// Condition that says that another deployment has left the rule to that one.
pub(super) const LEFT: &str = "DeploymentConflict";
pub(super) const RUN_BY_ANOTHER: &str = "RunByAnother";

/// The deployment that runs a rule, if there is one yet.
fn of(rule: &SummaryRule) -> Option<&str> {
    let annotated = rule.metadata.annotations.as_ref().and_then(|all| all.get(DEPLOYMENT)).map(String::as_str);
    let on_record = || Some(conditions::get(&rule.status.as_ref()?.conditions, RUN_BY)?.message.as_str());
    annotated.filter(|name| !name.is_empty()).or_else(on_record)
}

/// The deployment that runs a rule, unless it is of the same namespace as `own`.
pub(super) fn other<'a>(rule: &'a SummaryRule, own: &str) -> Option<&'a str> {
    of(rule).filter(|name| namespace(name) != namespace(own))
}

fn namespace(name: &str) -> &str {
    name.split_once('/').map_or(name, |(namespace, _)| namespace)
}

/// Puts on record who runs a rule.
pub(super) fn record(rule: &mut SummaryRule, own: &str, now: Timestamp) {
    let generation = rule.metadata.generation;
    let conditions = &mut rule.status.get_or_insert_default().conditions;
    let desired = Desired { type_: RUN_BY, status: Truth::True, reason: "RunBy", message: own, observed_generation: generation };
    conditions::set(conditions, &desired, now);
    // Of an edited rule, whoever leaves it too says so again.
    let holds = |left: &Condition| left.observed_generation == generation && left.message == message(own);
    if conditions::get(conditions, LEFT).is_some_and(|left| !holds(left)) {
        conditions::remove(conditions, LEFT);
    }
}

/// Says that a rule is left to another deployment, in words that are the same for all who do.
pub(super) fn leave(rule: &mut SummaryRule, message: &str, now: Timestamp) {
    let generation = rule.metadata.generation;
    let desired = Desired { type_: LEFT, status: Truth::True, reason: RUN_BY_ANOTHER, message, observed_generation: generation };
    conditions::set(&mut rule.status.get_or_insert_default().conditions, &desired, now);
}

/// What is said of a rule that is left to `other`.
pub(super) fn message(other: &str) -> String {
    format!(
        "{other} runs this rule, on its cluster only; another deployment has a database of this name too and leaves the rule alone. \
         For both clusters make a rule for each, with criteriaExpression; to hand it over, also where {other} is no more, set the \
         annotation {DEPLOYMENT} to the namespace and name of a deployment's Lease"
    )
}
