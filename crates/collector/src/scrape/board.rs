//! What is known of the targets at present, for people and for tools: see [`super::page`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};

use super::targets::Dropped;
use crate::config::ScrapeTarget;

/// All targets.
#[derive(Debug, Default)]
pub(crate) struct Board {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    active: BTreeMap<ScrapeTarget, Arc<Status>>,
    dropped: Vec<Dropped>,
}

impl Board {
    /// Shows a target, which is unknown as yet.
    pub(super) fn add(&self, target: &ScrapeTarget, next: SystemTime) -> Arc<Status> {
        let status = Arc::new(Status::default());
        status.0.lock().next = Some(next);
        self.state.write().active.insert(target.clone(), Arc::clone(&status));
        status
    }

    pub(super) fn remove(&self, target: &ScrapeTarget) {
        self.state.write().active.remove(target);
    }

    /// Replaces what is not scraped.
    pub(super) fn drop_these(&self, dropped: Vec<Dropped>) {
        self.state.write().dropped = dropped;
    }

    /// Targets and how they are.
    pub(super) fn active(&self) -> Vec<(ScrapeTarget, Last)> {
        self.state.read().active.iter().map(|(target, status)| (target.clone(), status.get())).collect()
    }

    pub(super) fn dropped(&self) -> Vec<Dropped> {
        self.state.read().dropped.clone()
    }
}

/// How a target is.
#[derive(Debug, Default)]
pub(super) struct Status(Mutex<Last>);

impl Status {
    pub(super) fn get(&self) -> Last {
        self.0.lock().clone()
    }

    pub(super) fn update<T>(&self, change: impl FnOnce(&mut Last) -> T) -> T {
        change(&mut self.0.lock())
    }
}

/// The last scrape of a target.
#[derive(Debug, Clone, Default)]
pub(super) struct Last {
    pub(super) health: Health,
    /// Why it is down, or was skipped.
    pub(super) error: Option<String>,
    pub(super) at: Option<SystemTime>,
    pub(super) duration: Duration,
    pub(super) samples: u64,
    /// Lines of the last page that could not be used, and why the first of them.
    pub(super) bad_lines: u64,
    pub(super) bad_line: Option<String>,
    pub(super) next: Option<SystemTime>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Health {
    /// Not scraped yet.
    #[default]
    Unknown,
    Up,
    Down,
}

impl Health {
    pub(super) fn name(self) -> &'static str {
        match self {
            Health::Unknown => "unknown",
            Health::Up => "up",
            Health::Down => "down",
        }
    }
}
