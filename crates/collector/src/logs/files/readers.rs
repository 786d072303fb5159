//! The threads that read files.
//!
//! A file system that hangs, as NFS does while its server is away, holds whoever reads from it, and nothing ends that wait.
//! So files are read by several threads: one for each folder that the configuration names, one for each mount of a remote file
//! system that a pattern finds below such a folder at the start, and one for the logs of pods.
//! What hangs holds up the files of its own thread; they are read on when it comes back. A thread that hangs is told of, and
//! neither a reload nor the end waits for it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use tail::{Budget, Budgets, Follower, Options, Pulse, Target};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Workers;
use super::marks::Marks;
use crate::metrics::{Folder, Metrics};

/// Threads for the folders of the configuration and mounts below them; further ones share them.
const MAX_NAMED: usize = 8;

/// Bytes that one worker may have in flight.
const IN_FLIGHT: usize = 4 << 20;

/// A thread that has been busy with one step for so long hangs.
const HANGS_AFTER: Duration = Duration::from_secs(10);

/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A thread that hangs is waited for this long at the end.
const END: Duration = Duration::from_secs(5);

/// All readers; the first one is that of the pods.
pub(super) struct Readers {
    readers: Vec<Reader>,
    by_folder: HashMap<PathBuf, ReaderId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ReaderId(usize);

/// What reads the logs of pods.
pub(super) const PODS: ReaderId = ReaderId(0);

/// A thread to be.
struct Reader {
    /// What it reads, for people.
    name: String,
    budgets: Budgets,
    shares: HashMap<(usize, Arc<str>), Arc<Budget>>,
    sender: mpsc::UnboundedSender<Vec<Target>>,
    /// Taken by the thread.
    targets: Option<mpsc::UnboundedReceiver<Vec<Target>>>,
}

impl Reader {
    fn new(name: String) -> Reader {
        let (sender, targets) = mpsc::unbounded_channel();
        Reader { name, budgets: Budgets::default(), shares: HashMap::new(), sender, targets: Some(targets) }
    }
}

impl Readers {
    /// The one of the pods only runs if `pods`.
    pub(super) fn new(pods: bool) -> Readers {
        let mut reader = Reader::new("pods".to_owned());
        reader.targets = reader.targets.filter(|_| pods);
        Readers { readers: vec![reader], by_folder: HashMap::new() }
    }

    /// The reader of the files in `folder`.
    pub(super) fn of(&mut self, folder: &Path) -> ReaderId {
        if let Some(id) = self.by_folder.get(folder) {
            return *id;
        }
        let id = 1 + self.by_folder.len() % MAX_NAMED;
        match self.readers.get_mut(id) {
            None => self.readers.push(Reader::new(folder.display().to_string())),
            Some(reader) => reader.name = format!("{}, {}", reader.name, folder.display()),
        }
        self.by_folder.insert(folder.to_owned(), ReaderId(id));
        ReaderId(id)
    }

    /// What the files of a reader for one database of a `[[host-log]]` may have in flight.
    pub(super) fn budget(&mut self, id: ReaderId, group: usize, database: &Arc<str>) -> Arc<Budget> {
        let Reader { budgets, shares, .. } = &mut self.readers[id.0];
        Arc::clone(shares.entry((group, Arc::clone(database))).or_insert_with(|| budgets.budget(IN_FLIGHT)))
    }

    /// Tells a reader what to follow from now on.
    pub(super) fn follow(&self, id: ReaderId, targets: Vec<Target>) {
        let _ = self.readers[id.0].sender.send(targets);
    }

    /// Starts the threads. What they read goes to workers that `workers` makes, one set for each.
    ///
    /// # Errors
    /// The system's, when notifications cannot be awaited or there can be no more threads.
    pub(super) fn start(
        &mut self,
        metrics: &Arc<Metrics>,
        marks: &Arc<Marks>,
        workers: impl Fn() -> Workers,
        stop: &CancellationToken,
        sources: &mut JoinSet<()>,
    ) -> anyhow::Result<()> {
        for reader in &mut self.readers {
            let Some(targets) = reader.targets.take() else { continue };
            let follower = Follower::new(Options::default(), reader.budgets.clone(), Arc::clone(&metrics.tail), marks.resume(), targets)
                .context("following log files")?;
            let workers = Arc::new(Mutex::new(workers()));
            let (ended, end) = oneshot::channel();
            let watched = Watched { name: reader.name.clone(), pulse: follower.pulse(), metrics: Arc::clone(metrics), hangs: false };
            let reading = read(follower, Arc::clone(&workers), stop.clone());
            let handle = Handle::current();
            let thread = move || {
                handle.block_on(reading);
                let _ = ended.send(());
            };
            std::thread::Builder::new().name("tail".to_owned()).spawn(thread).context("starting a thread that reads log files")?;
            sources.spawn(watched.run(end, workers, stop.clone()));
        }
        Ok(())
    }
}

/// Reads until `stop`.
async fn read(mut follower: Follower, workers: Arc<Mutex<Workers>>, stop: CancellationToken) {
    while let Some(Some(event)) = stop.run_until_cancelled(follower.next()).await {
        workers.lock().give(event);
    }
}

/// A thread that is watched.
struct Watched {
    name: String,
    pulse: Pulse,
    metrics: Arc<Metrics>,
    hangs: bool,
}

impl Watched {
    /// Watches until the thread has ended, or does not end though it should; then ends its workers.
    async fn run(mut self, mut end: oneshot::Receiver<()>, workers: Arc<Mutex<Workers>>, stop: CancellationToken) {
        let ended = loop {
            tokio::select! {
                ended = &mut end => break ended.is_ok(),
                () = stop.cancelled() => break tokio::time::timeout(END, &mut end).await.is_ok_and(|ended| ended.is_ok()),
                () = tokio::time::sleep(LOOK) => self.look(),
            }
        };
        if !ended {
            tracing::error!(
                files = self.name,
                "a thread that reads log files failed or hangs and is left behind; what it has not read is read after the next start"
            );
        }
        self.metrics.tail_hanging.remove(&Folder { folder: self.name });
        let running = workers.lock().close();
        for task in running {
            if let Err(error) = task.await {
                tracing::error!(%error, "a worker for log files failed");
            }
        }
    }

    fn look(&mut self) {
        let busy = self.pulse.busy();
        let hangs = busy >= HANGS_AFTER;
        if hangs == std::mem::replace(&mut self.hangs, hangs) {
            return;
        }
        self.metrics.tail_hanging.get_or_create(&Folder { folder: self.name.clone() }).set(hangs.into());
        if hangs {
            tracing::warn!(files = self.name, ?busy, "a file system does not answer: its log files wait, others are read on");
        } else {
            tracing::info!(files = self.name, "the file system answers again");
        }
    }
}
