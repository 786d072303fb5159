//! Who runs a rule: the ingestor or adxexporter, by the annotation `adx-mon.azure.com/owner`.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::SummaryRule;
use jiff::Timestamp;

use crate::summary::state::State;
use crate::window::{Schedule, after};

/// Annotation that says who runs a rule: `ingestor` (also without it) or `adx-exporter`.
pub const OWNER: &str = "adx-mon.azure.com/owner";
/// Annotation that says who shall run it.
pub const DESIRED_OWNER: &str = "adx-mon.azure.com/desired-owner";
/// How long a rule may be overdue before adxexporter takes it for abandoned by the ingestor.
const ABANDONED: Duration = Duration::from_secs(600);

/// A component that runs rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The ingestor.
    Ingestor,
    /// adxexporter.
    Exporter,
}

impl Owner {
    /// Its name in annotations.
    pub fn as_str(self) -> &'static str {
        match self {
            Owner::Ingestor => "ingestor",
            Owner::Exporter => "adx-exporter",
        }
    }

    /// The owner of a rule; nothing if its annotation names somebody else.
    pub fn of(rule: &SummaryRule) -> Option<Owner> {
        match annotation(rule, OWNER) {
            "" | "ingestor" => Some(Owner::Ingestor),
            "adx-exporter" => Some(Owner::Exporter),
            _ => None,
        }
    }

    /// Reason and message of the owner condition while all is well, as the reference has them.
    pub(crate) fn success(self) -> (&'static str, &'static str) {
        match self {
            Owner::Ingestor => ("Created", ""),
            Owner::Exporter => ("Updated", "Rule submitted successfully"),
        }
    }
}

/// Why nobody runs a rule: it has an owner that there is not, and none is asked to take it over.
pub(crate) fn unknown(rule: &SummaryRule) -> Option<String> {
    let (named, desired) = (annotation(rule, OWNER), annotation(rule, DESIRED_OWNER));
    let nobody = Owner::of(rule).is_none() && desired != Owner::Exporter.as_str();
    let [ingestor, exporter] = [Owner::Ingestor, Owner::Exporter].map(Owner::as_str);
    nobody.then(|| {
        format!("nobody runs this rule: the annotation {OWNER} is {named:?}; it can be {ingestor:?}, as without it, or {exporter:?}")
    })
}

fn annotation<'a>(rule: &'a SummaryRule, name: &str) -> &'a str {
    rule.metadata.annotations.as_ref().and_then(|a| a.get(name)).map_or("", String::as_str)
}

/// When adxexporter may take over a rule that it does not own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Never: it is somebody else's.
    Never,
    /// At that time, unless something changes before.
    At(Timestamp),
}

/// When adxexporter may take over a rule.
///
/// It takes what the ingestor owns, and whatever names it as the desired owner, while nothing is going on: no window is on
/// its way or due. A rule that has been due for ten minutes has no ingestor that would run it, and is taken as it is:
/// what is on its way is in the status.
pub fn claim(rule: &SummaryRule, state: &State, now: Timestamp) -> Claim {
    let desired = annotation(rule, DESIRED_OWNER) == Owner::Exporter.as_str();
    if Owner::of(rule) == Some(Owner::Exporter) || !(desired || Owner::of(rule) == Some(Owner::Ingestor)) {
        return Claim::Never;
    }
    let (Ok(interval), Ok(delay)) = (rule.spec.interval(), rule.spec.ingestion_delay()) else { return Claim::At(now) };
    let Ok(schedule) = Schedule::new(interval, delay) else { return Claim::At(now) };
    let due = match state.cursor.and_then(|cursor| schedule.next_free(cursor, state.taken())) {
        Some(next) => schedule.due_at(&next),
        None => rule.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0),
    };
    let idle = state.operations.0.is_empty() && now < due;
    Claim::At(if idle { now } else { after(due, ABANDONED) })
}

/// Makes adxexporter the owner.
pub fn take_over(rule: &mut SummaryRule) {
    let annotations: &mut BTreeMap<String, String> = rule.metadata.annotations.get_or_insert_default();
    annotations.insert(OWNER.to_owned(), Owner::Exporter.as_str().to_owned());
    annotations.remove(DESIRED_OWNER);
}
