//! Which windows go on record, and which of those is submitted next: within the bounds on windows at a time, failed windows
//! and the rate of catching up.

use jiff::Timestamp;

use super::{HOUR, Lane, MAX_FAILED, MAX_IN_FLIGHT, MINUTE, Machine, WINDOWS_PER_MINUTE};
use crate::backfill;
use crate::summary::state::Operation;
use crate::window::{Schedule, Window, after};

impl Machine {
    /// Puts on record what shall be submitted next.
    pub(super) fn plan(&mut self, now: Timestamp) {
        let interval = self.facts.schedule.as_ref().map(Schedule::interval).map_err(Clone::clone);
        let spec = self.facts.backfill.as_ref();
        self.state.backfill = backfill::reconcile(spec, self.state.backfill.take(), self.facts.generation, interval.clone());
        if self.facts.halted || self.is_paused(now) {
            return;
        }
        if let (Some(status), Some(spec), Ok(interval)) = (&mut self.state.backfill, spec, interval) {
            backfill::plan(status, spec, interval);
        }
        self.plan_failed(now);
        self.plan_schedule(now);
    }

    fn plan_failed(&mut self, now: Timestamp) {
        for failed in &self.state.failed {
            let operations = &mut self.state.operations;
            let due = failed.retry_at.is_some_and(|at| at <= now);
            if due && operations.0.len() < MAX_IN_FLIGHT && !operations.0.iter().any(|o| o.window == failed.window) {
                operations.record(Operation { id: String::new(), window: failed.window, attempt: 1 });
            }
        }
    }

    fn plan_schedule(&mut self, now: Timestamp) {
        while let Some(window) = self.next_window(now)
            && self.due_at(&window).is_some_and(|due| due <= now)
        {
            self.state.cursor = Some(window.end);
            self.state.operations.record(Operation { id: String::new(), window, attempt: 1 });
        }
    }

    /// The next window of the schedule, if there is room for it.
    pub(super) fn next_window(&self, now: Timestamp) -> Option<Window> {
        let schedule = self.facts.schedule.as_ref().ok()?;
        if self.facts.halted || self.state.operations.0.len() >= MAX_IN_FLIGHT || self.state.failed.len() >= MAX_FAILED {
            return None;
        }
        match self.state.cursor {
            Some(cursor) => schedule.next_free(cursor, self.state.taken()),
            None => Some(schedule.first(self.facts.made, now)),
        }
    }

    pub(super) fn due_at(&self, window: &Window) -> Option<Timestamp> {
        let due = self.facts.schedule.as_ref().ok()?.due_at(window);
        let first_at = self.memory.first_at.filter(|_| self.state.cursor.is_none());
        Some(first_at.map_or(due, |first| first.max(due)))
    }

    /// What to hand over now: the oldest window that waits.
    pub(super) fn next_submission(&mut self, now: Timestamp) -> Option<(Lane, Window)> {
        if self.facts.halted || self.facts.schedule.is_err() || self.is_paused(now) {
            return None;
        }
        let ready = |lane: Lane, window: &Window| {
            let not_before = self.memory.not_before.get(&(lane, *window));
            not_before.is_none_or(|at| *at <= now || *at > after(now, HOUR))
        };
        let waiting = self.state.operations.0.iter().filter(|o| o.id.is_empty()).map(|o| o.window);
        let oldest = waiting.filter(|w| ready(Lane::Schedule, w)).min();
        let backfilled = || self.state.backfill.as_ref().and_then(|b| backfill::waiting(b).find(|w| ready(Lane::Backfill, w)));
        match oldest {
            Some(window) if self.has_room_this_minute(now) => Some((Lane::Schedule, window)),
            _ => backfilled().map(|window| (Lane::Backfill, window)),
        }
    }

    fn has_room_this_minute(&self, now: Timestamp) -> bool {
        let recent = self.memory.submitted.iter().filter(|at| **at <= now && after(**at, MINUTE) > now).count();
        recent < self.windows_per_minute()
    }

    /// The bound on the rate of catching up.
    pub fn windows_per_minute(&self) -> usize {
        let interval = self.facts.schedule.as_ref().map_or(MINUTE, Schedule::interval);
        let to_keep_up = MINUTE.as_secs().div_ceil(interval.as_secs().max(1)) as usize;
        WINDOWS_PER_MINUTE.max(2 * to_keep_up)
    }

    pub(super) fn is_on_record(&self, lane: Lane, window: &Window) -> bool {
        match lane {
            Lane::Schedule => self.saved.taken().any(|w| w == *window),
            Lane::Backfill => match (&self.saved.backfill, &self.state.backfill) {
                (Some(saved), Some(present)) => {
                    saved.request_id == present.request_id
                        && saved.active_operations.iter().filter_map(backfill::window).any(|w| w == *window)
                }
                _ => false,
            },
        }
    }
}
