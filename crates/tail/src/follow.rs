//! A [`Tailer`] that waits by itself.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::budget::{Budgets, Freed};
use crate::chunk::Event;
use crate::stats::Stats;
use crate::tailer::{Options, Resume, Tailer};
use crate::target::Target;

/// How long notifications are gathered, so that lines written one by one are read together.
const GATHER: Duration = Duration::from_millis(20);

/// Follows files on the thread that awaits it, which reading blocks: give it one of its own.
#[derive(Debug)]
pub struct Follower {
    tailer: Tailer,
    freed: Arc<Freed>,
    targets: mpsc::UnboundedReceiver<Vec<Target>>,
    notifications: Option<AsyncFd<OwnedFd>>,
    pulse: Pulse,
    closed: bool,
}

/// Whether a [`Follower`] gets on: a file system that does not answer holds it within a step.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<Mutex<Option<Instant>>>);

impl Pulse {
    /// How long the present step has taken so far; zero between two steps.
    #[must_use]
    pub fn busy(&self) -> Duration {
        self.0.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Follower {
    /// Follows the targets that come in, the latest of them.
    ///
    /// # Errors
    /// The system's, when notifications cannot be awaited.
    pub fn new(
        options: Options,
        budgets: Budgets,
        stats: Arc<Stats>,
        resume: Resume,
        targets: mpsc::UnboundedReceiver<Vec<Target>>,
    ) -> io::Result<Follower> {
        let freed = Arc::clone(&budgets.0);
        let tailer = Tailer::new(options, budgets, stats, resume);
        // Deprecated for descriptors that may be closed meanwhile; an owned one is not, and the successor is `unsafe`.
        #[allow(deprecated)]
        let notifications = tailer.notifications().map(AsyncFd::new).transpose()?;
        Ok(Follower { tailer, freed, targets, notifications, pulse: Pulse::default(), closed: false })
    }

    /// What tells others whether it gets on.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    fn step(&mut self) -> Option<Event> {
        let now = Instant::now();
        *self.pulse.0.lock() = Some(now);
        let event = self.tailer.step(now);
        *self.pulse.0.lock() = None;
        event
    }

    /// The next event; `None` once nobody sends targets any more.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Ok(targets) = self.targets.try_recv() {
                self.tailer.set_targets(targets, Instant::now());
            }
            if self.closed {
                return None;
            }
            if let Some(event) = self.step() {
                return Some(event);
            }
            let wake = self.tailer.next_wake(Instant::now());
            tokio::select! {
                targets = self.targets.recv() => match targets {
                    Some(targets) => self.tailer.set_targets(targets, Instant::now()),
                    None => self.closed = true,
                },
                () = happened(self.notifications.as_ref()) => tokio::time::sleep(GATHER).await,
                () = self.freed.notify.notified() => {}
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }
}

async fn happened(notifications: Option<&AsyncFd<OwnedFd>>) {
    match notifications {
        Some(fd) => match fd.readable().await {
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
