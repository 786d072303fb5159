//! The uploads of one database with a store, a clock and a destination around them.
//!
//! One task owns the machine; work runs in tasks of its own and reports back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use wal::Store;

use super::machine::{Done, Settings, Uploads};
use super::passage::QueueOptions;
use super::plan::{BatchId, Limits};
use super::uploader::{Destination, Uploader};
use crate::metrics::UploadMetrics;
use crate::peers::Sealed;
use crate::time::Time;

/// A clock that jumps back must not make anything sleep for ever.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);

/// What a worker is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Segments that wait or are on their way.
    pub pending: usize,
    /// Uploads on their way.
    pub flying: usize,
    /// Batches in the service's queue.
    pub followed: usize,
}

/// What a worker needs besides its database.
pub struct Parts {
    /// Where the segments are.
    pub store: Store,
    /// Where they go.
    pub destination: Destination,
    /// How many at a time.
    pub limits: Limits,
    /// Tables that never wait to become more.
    pub urgent: Vec<String>,
    /// Details of queueing.
    pub queue: QueueOptions,
    /// What is to be uploaded from here.
    pub sealed: Sealed,
    /// Metrics of uploads.
    pub metrics: Arc<UploadMetrics>,
    /// The clock that pauses go by.
    pub time: Time,
    /// From then on nothing waits to become more.
    pub hurry: CancellationToken,
    /// The end.
    pub shutdown: CancellationToken,
}

/// Uploads the segments of one database until it is told to stop.
pub struct Worker {
    /// The database.
    pub database: String,
    /// What it is doing now.
    pub status: watch::Receiver<WorkerStatus>,
    task: tokio::task::JoinHandle<()>,
}

impl Worker {
    /// Starts uploading.
    pub fn start(database: &str, parts: Parts) -> Worker {
        let (status, watched) = watch::channel(WorkerStatus::default());
        let Parts { store, destination, limits, urgent, queue, sealed, metrics, time, hurry, shutdown } = parts;
        let settings = Settings { limits, urgent, queue, outcome: destination.outcome() };
        let mine: Vec<_> = store.sealed().into_iter().filter(|segment| *segment.table.database == *database).collect();
        let actor = Actor {
            database: database.into(),
            uploads: Uploads::resume(settings, store.batches(), mine).with_metrics(metrics.clone()),
            uploader: Arc::new(Uploader { store, destination, sealed, metrics, time: time.clone() }),
            work: JoinSet::new(),
            time,
            status,
            shutdown,
        };
        let task = tokio::spawn(actor.run(hurry));
        Worker { database: database.to_owned(), status: watched, task }
    }

    /// Waits until the worker has stopped; uploads on their way are given up and sent again, under
    /// the same identity, after the next start.
    pub async fn finished(self) {
        let _ = self.task.await;
    }
}

struct Actor {
    database: Arc<str>,
    uploads: Uploads,
    uploader: Arc<Uploader>,
    /// Work on its way; with the actor it is given up.
    work: JoinSet<Option<(BatchId, Done)>>,
    time: Time,
    status: watch::Sender<WorkerStatus>,
    shutdown: CancellationToken,
}

impl Actor {
    async fn run(mut self, hurry: CancellationToken) {
        let (shutdown, time, mut hurried) = (self.shutdown.clone(), self.time.clone(), false);
        let mut sealed = self.uploader.sealed.clone();
        self.offer();
        loop {
            let now = time.now_ms();
            self.begin(now);
            let wake_at = self.uploads.wake_at(now).map_or(u64::MAX, |at| at.max(now + 1));
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(ended) = self.work.join_next() => {
                    self.back(ended);
                    while let Some(ended) = self.work.try_join_next() {
                        self.back(ended);
                    }
                }
                changed = sealed.changed() => match changed {
                    Ok(()) => self.offer(),
                    Err(_) => return,
                },
                () = hurry.cancelled(), if !hurried => {
                    hurried = true;
                    self.uploads.hurry();
                }
                () = time.sleep_until(wake_at) => {}
                () = tokio::time::sleep(LONGEST_SLEEP) => {}
            }
        }
    }

    fn offer(&mut self) {
        self.uploads.offer(self.uploader.sealed.of(&self.database));
    }

    fn begin(&mut self, now: u64) {
        for work in self.uploads.next(now, || uuid::Uuid::new_v4().into_bytes()) {
            let uploader = self.uploader.clone();
            self.work.spawn(async move { uploader.carry_out(&work).await.map(|done| (work.batch.id, done)) });
        }
        let Actor { uploads, uploader, .. } = self;
        let status = WorkerStatus { pending: uploads.pending(), flying: uploads.flying(), followed: uploads.followed() };
        uploader.metrics.queue(&self.database, &status);
        self.status.send_replace(status);
    }

    fn back(&mut self, ended: Result<Option<(BatchId, Done)>, JoinError>) {
        match ended {
            Ok(Some((id, done))) => self.uploads.done(&id, done, self.time.now_ms()),
            Ok(None) => {}
            // The batch stays where it is until the next start.
            Err(error) => tracing::error!(%error, database = %self.database, "a task of uploads failed"),
        }
    }
}
