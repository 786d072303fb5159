//! What an exporter's status says: the conditions of the reference, and how far it is.

use crds::conditions::{self, Desired, Truth};
use crds::criteria::Decision;
use crds::{MetricsExporter, Time};
use jiff::Timestamp;
use rules::window::Window;

use crate::export::Counts;

/// Condition of the owner: the outcome of the last attempt.
pub(crate) const OWNER: &str = "metricsexporter.adx-mon.azure.com";
/// Its message is the exclusive end of the last window that was exported.
pub(crate) const LAST_SUCCESS: &str = "metricsexporter.adx-mon.azure.com/LastSuccessfulExecution";
const COMPLETED: &str = "Completed";
const FAILED: &str = "Failed";
const CRITERIA: &str = "Criteria";

const SUCCESSFUL: &str = "ExecutionSuccessful";
pub(crate) const EXECUTION_FAILED: &str = "ExecutionFailed";
/// Longest message of a failure, in bytes.
const LONGEST_MESSAGE: usize = 256;

/// The exclusive end of the last window that was exported, or where the first one begins that was tried: our own field, or what
/// the reference wrote.
pub(crate) fn last_end(object: &MetricsExporter) -> Option<Timestamp> {
    let status = object.status.as_ref()?;
    let reference = || conditions::get(&status.conditions, LAST_SUCCESS)?.message.parse().ok();
    status.last_window_end.as_ref().map(|time| time.0).or_else(reference)
}

/// A window was tried: whoever runs the exporter next, after a restart or an edit, goes on there and not later.
pub(crate) fn tried(object: &mut MetricsExporter, window: &Window) {
    if last_end(object).is_none() {
        object.status.get_or_insert_default().last_window_end = Some(Time(window.start));
    }
}

/// A window was exported.
pub(crate) fn succeeded(
    object: &mut MetricsExporter,
    generation: Option<i64>,
    window: &Window,
    counts: &Counts,
    note: &str,
    now: Timestamp,
) {
    let status = object.status.get_or_insert_default();
    status.last_window_end = Some(Time(window.end));
    status.last_samples = i64::try_from(counts.points).unwrap_or(i64::MAX);
    status.last_skipped_rows = i64::try_from(counts.skipped).unwrap_or(i64::MAX);
    let message = cut(&format!("Query executed successfully{note}"));
    let mut set = |type_, status: bool, message: &str| {
        let desired = Desired { type_, status: Truth::from(status), reason: SUCCESSFUL, message, observed_generation: generation };
        conditions::set(&mut object.status.get_or_insert_default().conditions, &desired, now);
    };
    set(OWNER, true, &message);
    set(COMPLETED, true, "Most recent execution succeeded");
    set(FAILED, false, "Most recent execution succeeded");
    set(LAST_SUCCESS, true, &window.end.to_string());
}

/// What a success has to say besides: rows and points that are missing, and windows that were left out.
pub(crate) fn note(counts: &Counts, skipped: Option<&Window>) -> String {
    let mut note = String::new();
    if let Some(window) = skipped {
        note.push_str(&format!("; {window} was left out: too long ago to catch up with"));
    }
    if counts.skipped > 0 {
        let first = counts.first_skipped.as_deref().unwrap_or_default();
        note.push_str(&format!("; {} of {} rows were left out, the first: {first}", counts.skipped, counts.rows));
    }
    if counts.rejected > 0 {
        note.push_str(&format!("; the receiver rejected {} points", counts.rejected));
    }
    if let Some(said) = &counts.receiver_said {
        note.push_str(&format!("; the receiver said: {said}"));
    }
    if !counts.missing_labels.is_empty() {
        note.push_str(&format!("; the result has no label column {}", counts.missing_labels.join(", ")));
    }
    note
}

/// An attempt failed, or none can be made.
pub(crate) fn failed(object: &mut MetricsExporter, generation: Option<i64>, reason: &str, message: &str, now: Timestamp) {
    let message = cut(message);
    let mut set = |type_, status: bool| {
        let desired = Desired { type_, status: Truth::from(status), reason, message: &message, observed_generation: generation };
        conditions::set(&mut object.status.get_or_insert_default().conditions, &desired, now);
    };
    set(OWNER, false);
    set(COMPLETED, false);
    set(FAILED, true);
}

/// Whether this cluster is meant.
pub(crate) fn criteria(object: &mut MetricsExporter, generation: Option<i64>, decision: &Decision, now: Timestamp) {
    let desired = Desired {
        type_: CRITERIA,
        status: decision.status(),
        reason: decision.reason,
        message: &decision.message,
        observed_generation: generation,
    };
    conditions::set(&mut object.status.get_or_insert_default().conditions, &desired, now);
}

/// Whether the status does not tell of this failure yet.
pub(crate) fn is_new_failure(object: &MetricsExporter, message: &str) -> bool {
    let owner = object.status.as_ref().and_then(|status| conditions::get(&status.conditions, OWNER));
    owner.is_none_or(|owner| owner.status != "False" || owner.message != cut(message))
}

fn cut(message: &str) -> String {
    match message.len() {
        0..=LONGEST_MESSAGE => message.to_owned(),
        _ => format!("{}…", &message[..message.floor_char_boundary(LONGEST_MESSAGE - '…'.len_utf8())]),
    }
}
