//! What Kusto says of operations, and what follows for their windows.

use std::time::Duration;

use jiff::Timestamp;

use super::{DAY, FIRST_POLL, HOUR, Lane, MAX_ATTEMPTS, MINUTE, MISSES, Machine, Outcome, Poll, doubled, whole_second};
use crate::backfill;
use crate::summary::operations::{Answers, Progress, Refusal, Verdict, judge};
use crate::summary::state::{Failed, Operation};
use crate::window::{Window, after};

impl Machine {
    /// The operations to ask for now.
    pub(super) fn due_polls(&mut self, now: Timestamp) -> Vec<String> {
        let scheduled = self.state.operations.0.iter().map(|o| &o.id);
        let backfilled = self.state.backfill.iter().flat_map(|b| b.active_operations.iter().map(|o| &o.operation_id));
        let ids: Vec<String> = scheduled.chain(backfilled).filter(|id| !id.is_empty()).cloned().collect();
        self.memory.polls.retain(|id, _| ids.contains(id));
        ids.into_iter().filter(|id| self.memory.polls.get(id).is_none_or(|poll| poll.at <= now || poll.at > after(now, HOUR))).collect()
    }

    pub(super) fn answered(&mut self, result: Result<Answers, Refusal>, now: Timestamp) {
        let answers = result.ok();
        for id in std::mem::take(&mut self.asked) {
            let poll = self.memory.polls.entry(id.clone()).or_insert(Poll { at: now, pause: FIRST_POLL, misses: 0 });
            poll.pause = (poll.pause * 2).min(MINUTE);
            poll.at = after(now, poll.pause);
            let Some(answers) = &answers else { continue };
            let misses = if answers.contains_key(&id) { 0 } else { poll.misses + 1 };
            poll.misses = misses;
            self.operation_answered(&id, answers.get(&id), misses, now);
        }
    }

    fn operation_answered(&mut self, id: &str, progress: Option<&Progress>, misses: u32, now: Timestamp) {
        let operation = self.state.operations.0.iter().find(|o| o.id == id).cloned();
        let tagged = operation.as_ref().is_none_or(|o| o.attempt > 0);
        let (verdict, known) = match progress {
            Some(progress) => (judge(progress, tagged), true),
            None if misses < MISSES => return,
            None if tagged => (Verdict::Retry("Kusto no longer knows it".to_owned()), true),
            None => (Verdict::Fail("Kusto no longer knows it; if its rows are missing, run a backfill for it".to_owned()), false),
        };
        match operation {
            Some(operation) => self.window_answered(operation, verdict, known, now),
            None => self.backfill_answered(id, verdict, now),
        }
    }

    fn window_answered(&mut self, operation: Operation, verdict: Verdict, known: bool, now: Timestamp) {
        let Operation { id, window, attempt } = operation;
        match verdict {
            Verdict::Keep => {}
            Verdict::Done => {
                self.state.operations.remove(&id);
                self.state.failed.retain(|f| f.window != window);
                self.state.last_window = self.state.last_window.filter(|w| w.end > window.end).or(Some(window));
                self.outcomes.push(Outcome::Completed(window));
            }
            Verdict::Retry(_) if attempt < MAX_ATTEMPTS => {
                let attempt = attempt.max(1) + 1;
                // The first retry comes at once.
                let pause = if attempt == 2 { Duration::ZERO } else { doubled(MINUTE, attempt - 3, HOUR) };
                self.memory.not_before.insert((Lane::Schedule, window), after(now, pause));
                if let Some(present) = self.state.operations.0.iter_mut().find(|o| o.id == id) {
                    *present = Operation { id: String::new(), window, attempt };
                }
                self.outcomes.push(Outcome::Retried);
            }
            Verdict::Retry(why) | Verdict::Fail(why) => {
                self.state.operations.remove(&id);
                let message =
                    if why.is_empty() { format!("async operation {id} failed") } else { format!("async operation {id} failed: {why}") };
                self.window_failed(window, message, known, now);
            }
        }
    }

    fn window_failed(&mut self, window: Window, message: String, known: bool, now: Timestamp) {
        let present = self.state.failed.iter().position(|f| f.window == window);
        let attempts = present.map_or(0, |at| self.state.failed[at].attempts) + 1;
        let pause = doubled(10 * MINUTE, attempts - 1, DAY);
        let retry_at = known.then(|| whole_second(after(now, pause)));
        let failed = Failed { window, message: message.clone(), attempts, retry_at };
        match present {
            Some(at) => self.state.failed[at] = failed,
            None => {
                self.state.failed.push(failed);
                self.state.failed_total += 1;
            }
        }
        self.outcomes.push(Outcome::Failed(window, message));
    }

    fn backfill_answered(&mut self, id: &str, verdict: Verdict, now: Timestamp) {
        let Some(status) = &mut self.state.backfill else { return };
        if let Verdict::Retry(_) = verdict {
            // The request says how many may run; this says how fast one that fails comes back.
            let retried = u32::try_from(status.retried_windows).unwrap_or(u32::MAX);
            let pause = if retried == 0 { Duration::ZERO } else { doubled(MINUTE, retried - 1, HOUR) };
            let operation = status.active_operations.iter().find(|o| o.operation_id == id);
            if let Some(window) = operation.and_then(backfill::window) {
                self.memory.not_before.insert((Lane::Backfill, window), after(now, pause));
            }
            self.outcomes.push(Outcome::Retried);
        }
        backfill::answered(status, id, verdict);
    }
}
