//! What answers mean.

use std::collections::HashMap;

use super::{Answer, Item, Job, Key, Machine, Route, Settle, State};

impl Machine {
    /// A request ended. The settlements returned are to be made durable, then reported with
    /// [`Machine::settled`].
    pub fn answered(&mut self, ticket: u64, answer: Answer, now: u64) -> Vec<Settle> {
        let Some(job) = self.in_flight.remove(&ticket) else { return Vec::new() };
        self.note_endpoint(&job, &answer, now);
        match answer {
            Answer::Stored { refused } => self.stored(&job, refused),
            Answer::Unacceptable { reason } => self.unacceptable(&job, &reason),
            Answer::DatabaseBusy { retry_after_ms } => {
                let until = now + retry_after_ms.unwrap_or(10_000).clamp(100, 3_600_000);
                for key in &job.segments {
                    self.not_stored(key, 0);
                }
                if let Some(database) = job.segments.first().and_then(|k| self.databases.get_mut(&k.database)) {
                    database.busy_until.insert(job.endpoint, until);
                }
                Vec::new()
            }
            Answer::Unavailable { .. } => {
                self.requeue(&job, 0);
                Vec::new()
            }
            Answer::Misdirected { .. } => {
                // A bound segment tries again in a second, on another connection.
                self.requeue(&job, now + 1000);
                Vec::new()
            }
            Answer::Unknown => {
                self.unknown(&job, now);
                Vec::new()
            }
            Answer::Unreadable { segments } => self.unreadable(&job, segments),
        }
    }

    fn note_endpoint(&mut self, job: &Job, answer: &Answer, now: u64) {
        let unhealthy_ms = self.config.unhealthy_ms;
        let endpoint = &mut self.endpoints[job.endpoint];
        match answer {
            Answer::Unavailable { retry_after_ms } => endpoint.failed(now, *retry_after_ms, unhealthy_ms),
            Answer::Unknown => endpoint.failed(now, None, unhealthy_ms),
            Answer::Misdirected { actual } => endpoint.misdirected(job.receiver, *actual),
            Answer::Unreadable { .. } => {}
            _ => endpoint.succeeded(),
        }
    }

    fn item(&mut self, key: &Key) -> Option<&mut Item> {
        self.databases.get_mut(&key.database)?.items.get_mut(&key.number)
    }

    /// The end of a segment here: settled, or released when it is refused and somebody else can see to it.
    fn settle(&mut self, key: &Key, dead: Option<(&'static str, String)>) -> Option<Settle> {
        let item = self.item(key)?;
        if let Some((kind, _)) = &dead
            && item.route != Route::Any
        {
            // An earlier request whose answer was lost may still be on its way, and meet with another answer.
            item.maybe_duplicate |= item.at.take().is_some_and(|at| at.until.is_some());
            (item.state, item.route) = (State::Waiting, Route::Keep(kind));
            return None;
        }
        let dead = dead.map(|(_, reason)| reason);
        item.state = State::Settling;
        Some(Settle { key: key.clone(), dead, maybe_duplicate: item.maybe_duplicate })
    }

    fn stored(&mut self, job: &Job, refused: Vec<(usize, String)>) -> Vec<Settle> {
        let mut refused: HashMap<usize, String> = refused.into_iter().collect();
        let ends = job.segments.iter().enumerate();
        ends.filter_map(|(index, key)| self.settle(key, refused.remove(&index).map(|reason| ("refused", reason)))).collect()
    }

    fn unacceptable(&mut self, job: &Job, reason: &str) -> Vec<Settle> {
        if let [only] = job.segments.as_slice() {
            return self.settle(only, Some(("refused", reason.to_owned()))).into_iter().collect();
        }
        for key in &job.segments {
            self.not_stored(key, 0);
            if let Some(item) = self.item(key) {
                item.alone = true;
            }
        }
        Vec::new()
    }

    fn unreadable(&mut self, job: &Job, segments: Vec<(usize, String)>) -> Vec<Settle> {
        self.requeue(job, 0);
        let ends = segments.into_iter().filter_map(|(index, reason)| {
            let key = job.segments.get(index)?.clone();
            self.settle(&key, Some(("unreadable", reason)))
        });
        ends.collect()
    }

    fn requeue(&mut self, job: &Job, bound_not_before: u64) {
        for key in &job.segments {
            self.not_stored(key, bound_not_before);
        }
    }

    /// This request stored nothing. An earlier one may have: then the segment stays bound.
    fn not_stored(&mut self, key: &Key, bound_not_before: u64) {
        if let Some(item) = self.item(key) {
            item.state = State::Waiting;
            if item.at.as_ref().is_some_and(|at| at.until.is_none()) {
                item.at = None;
            } else {
                item.not_before = bound_not_before;
            }
        }
    }

    fn unknown(&mut self, job: &Job, now: u64) {
        let pinned = now + self.config.pin_ms;
        for key in &job.segments {
            let Some(item) = self.item(key) else { continue };
            item.state = State::Waiting;
            match &mut item.at {
                Some(at) if at.place.receiver.is_some() => {
                    at.until.get_or_insert(pinned);
                }
                _ => {
                    item.at = None;
                    item.maybe_duplicate = true;
                }
            }
        }
    }
}
