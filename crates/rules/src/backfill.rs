//! Backfills: ranges of the past that a user asks a summary rule to run, beside what its schedule does.
//!
//! Pure functions over the status of the request. A request runs while its rule's spec stays as it was; it ends when all
//! windows are complete, or when one fails for good. However long the range and however long Kusto is away, the status
//! holds no more than `maxInFlight` windows; what comes after them is told by `nextWindowStart`.

use std::time::Duration;

use crds::{BackfillOperation, BackfillPhase, BackfillSpec, BackfillStatus, GoDuration, Time};
use jiff::Timestamp;

use crate::summary::operations::Verdict;
use crate::window::{Window, after};

/// Most windows that a request may have on their way.
const MAX_IN_FLIGHT: i64 = 20;

/// The status of what the spec asks for now: kept, begun anew, failed, or gone.
pub fn reconcile(
    spec: Option<&BackfillSpec>,
    status: Option<BackfillStatus>,
    generation: i64,
    interval: Result<Duration, String>,
) -> Option<BackfillStatus> {
    let Some(spec) = spec else { return status.filter(is_over) };
    let mut status = match status {
        Some(status) if status.request_id == spec.request_id && status.phase.is_some() => status,
        _ => begin(spec, generation),
    };
    if is_over(&status) {
        return Some(status);
    }
    let pinned = status.observed_generation;
    let problem = match interval {
        _ if pinned != generation => {
            Some(format!("SummaryRule spec changed during backfill (generation {pinned} → {generation}); submit a new requestId to retry"))
        }
        Err(problem) => Some(problem),
        Ok(interval) => validate(spec, interval).err(),
    };
    match problem {
        Some(problem) => fail(&mut status, problem),
        None => status.phase = Some(BackfillPhase::Running),
    }
    Some(status)
}

fn begin(spec: &BackfillSpec, generation: i64) -> BackfillStatus {
    BackfillStatus {
        request_id: spec.request_id.clone(),
        phase: Some(BackfillPhase::Pending),
        observed_generation: generation,
        // The status has no fractions of a second.
        next_window_start: Timestamp::from_second(spec.start_time.0.as_second()).ok().map(Time),
        ..BackfillStatus::default()
    }
}

/// Checks the range. The words are the reference's.
fn validate(spec: &BackfillSpec, interval: Duration) -> Result<(), String> {
    let (start, end) = (spec.start_time.0, spec.end_time.0);
    let step = interval.as_nanos();
    let range = u128::try_from(end.as_nanosecond() - start.as_nanosecond()).unwrap_or(0);
    let shown = GoDuration::from(interval);
    if spec.request_id.is_empty() {
        Err("RequestID must be set".to_owned())
    } else if range == 0 {
        Err("EndTime must be after StartTime".to_owned())
    } else if start.subsec_nanosecond() != 0 {
        Err("StartTime must be a whole second".to_owned())
    } else if range < step {
        Err(format!("Backfill range must cover at least one full interval of {shown}"))
    } else if range % step != 0 {
        Err(format!("Backfill range duration must be an exact multiple of interval {shown}"))
    } else {
        Ok(())
    }
}

/// Whether it is completed or failed.
pub fn is_over(status: &BackfillStatus) -> bool {
    matches!(status.phase, Some(BackfillPhase::Completed | BackfillPhase::Failed))
}

/// Puts windows on record as long as there is room, and ends a request that has nothing left to do.
pub fn plan(status: &mut BackfillStatus, spec: &BackfillSpec, interval: Duration) {
    if status.phase != Some(BackfillPhase::Running) {
        return;
    }
    let room = usize::try_from(spec.max_in_flight.unwrap_or(1).clamp(1, MAX_IN_FLIGHT)).unwrap_or(1);
    while status.active_operations.len() < room {
        let start = status.next_window_start.as_ref().map_or(spec.start_time.0, |t| t.0);
        if start >= spec.end_time.0 {
            break;
        }
        let window = Window { start, end: after(start, interval) };
        status.active_operations.push(operation(&window, String::new()));
        status.next_window_start = Some(Time(window.end));
    }
    if status.active_operations.is_empty() {
        status.phase = Some(BackfillPhase::Completed);
        status.message = format!(
            "Backfill completed: {} windows submitted, {} completed, {} retries",
            status.submitted_windows, status.completed_windows, status.retried_windows,
        );
    }
}

/// The windows that wait to be submitted.
pub fn waiting(status: &BackfillStatus) -> impl Iterator<Item = Window> + '_ {
    status.active_operations.iter().filter(|o| o.operation_id.is_empty()).filter_map(window)
}

/// Kusto took a window.
pub fn submitted(status: &mut BackfillStatus, taken: &Window, id: String) {
    let waits = |o: &&mut BackfillOperation| o.operation_id.is_empty() && window(o).as_ref() == Some(taken);
    if let Some(operation) = status.active_operations.iter_mut().find(waits) {
        operation.operation_id = id;
        status.submitted_windows += 1;
    }
}

/// Kusto said what has become of an operation.
pub fn answered(status: &mut BackfillStatus, id: &str, verdict: Verdict) {
    let Some(at) = status.active_operations.iter().position(|o| o.operation_id == id) else { return };
    match verdict {
        Verdict::Keep => {}
        Verdict::Done => {
            status.active_operations.remove(at);
            status.completed_windows += 1;
        }
        Verdict::Retry(_) => {
            status.active_operations[at].operation_id.clear();
            status.retried_windows += 1;
        }
        Verdict::Fail(why) => {
            let BackfillOperation { start_time, end_time, .. } = &status.active_operations[at];
            let why = if why.is_empty() { why } else { format!(": {why}") };
            let message = format!("Backfill window [{start_time}, {end_time}] failed and is not retryable (operation {id}){why}");
            fail(status, message);
        }
    }
}

fn fail(status: &mut BackfillStatus, message: String) {
    status.phase = Some(BackfillPhase::Failed);
    status.message = message;
    status.active_operations.clear();
}

fn operation(window: &Window, id: String) -> BackfillOperation {
    BackfillOperation { operation_id: id, start_time: window.start.to_string(), end_time: window.last_tick().to_string() }
}

pub(crate) fn window(operation: &BackfillOperation) -> Option<Window> {
    let time = |text: &str| text.parse::<Timestamp>().ok();
    Some(Window::from_last_tick(time(&operation.start_time)?, time(&operation.end_time)?))
}

#[cfg(test)]
mod tests;
