//! The threads of a store: one that commits, one that does its slow syncs. Or none, in simulations.

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{JoinHandle, ThreadId};

use parking_lot::{Condvar, Mutex};

use super::engine::{Engine, Job, Msg};
use super::shared::Shared;
use super::stage::Staged;
use crate::Refusal;
use crate::journal::thread::{GROUP_BYTES, QUEUE_BYTES};
use crate::types::Done;

#[derive(Default)]
struct Inbox {
    waiting: Vec<Msg>,
    /// Memory of the requests among them.
    bytes: usize,
    closed: bool,
}

struct Queue {
    inbox: Mutex<Inbox>,
    wake: Condvar,
}

/// Owns what runs the engine; dropping it closes the store.
pub(super) struct Handle {
    runner: Runner,
    shared: Arc<Shared>,
    _lock: Box<dyn std::any::Any + Send + Sync>,
}

enum Runner {
    Threads(Threads),
    /// The engine itself, until it is closed: each message is handled on the caller's thread.
    Inline(Box<Mutex<Option<Engine>>>),
}

struct Threads {
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    commit_thread: ThreadId,
}

impl Handle {
    pub(super) fn start(engine: Engine, lock: Box<dyn std::any::Any + Send + Sync>) -> io::Result<Handle> {
        let queue = Arc::new(Queue { inbox: Mutex::default(), wake: Condvar::new() });
        let shared = Arc::clone(&engine.shared);
        let (jobs, work) = mpsc::channel::<Job>();
        let sync = std::thread::Builder::new().name("wal-sync".into()).spawn({
            let (queue, shared) = (Arc::clone(&queue), Arc::clone(&shared));
            move || work.into_iter().for_each(|job| queue.push(job.run(&*shared.disk)))
        })?;
        let commit = std::thread::Builder::new().name("wal-commit".into()).spawn({
            let queue = Arc::clone(&queue);
            move || queue.run(engine, &jobs)
        })?;
        let commit_thread = commit.thread().id();
        let threads = Threads { queue, threads: Mutex::new(vec![commit, sync]), commit_thread };
        Ok(Handle { runner: Runner::Threads(threads), shared, _lock: lock })
    }

    /// A handle without threads, whose every call does its work before it returns. Answers must not call back.
    pub(super) fn inline(engine: Engine, lock: Box<dyn std::any::Any + Send + Sync>) -> Handle {
        let shared = Arc::clone(&engine.shared);
        Handle { runner: Runner::Inline(Box::new(Mutex::new(Some(engine)))), shared, _lock: lock }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Queues a request, unless too much waits already.
    pub(super) fn send_commit(&self, staged: Staged, done: Done) {
        match &self.runner {
            Runner::Threads(threads) => threads.send_commit(staged, done),
            Runner::Inline(engine) => self.step(engine, Msg::Commit(Box::new(staged), done)),
        }
    }

    pub(super) fn send(&self, message: Msg) {
        match &self.runner {
            Runner::Threads(threads) => threads.send(message),
            Runner::Inline(engine) => self.step(engine, message),
        }
    }

    fn step(&self, engine: &Mutex<Option<Engine>>, message: Msg) {
        let mut engine = engine.lock();
        let Some(engine) = engine.as_mut() else { return refuse(message) };
        let mut jobs = engine.step(vec![message]);
        while let Some(job) = jobs.pop() {
            jobs.extend(engine.step(vec![job.run(&*self.shared.disk)]));
        }
        while engine.has_work() {
            engine.step(Vec::new());
        }
    }

    /// Commits what waits, writes a checkpoint and ends the threads.
    pub(super) fn close(&self) {
        match &self.runner {
            Runner::Threads(threads) => threads.close(),
            Runner::Inline(engine) => {
                if let Some(mut engine) = engine.lock().take() {
                    engine.finish();
                }
            }
        }
    }
}

impl Threads {
    fn send_commit(&self, staged: Staged, done: Done) {
        let mut inbox = self.queue.inbox.lock();
        let refusal = if inbox.closed {
            Refusal::Closed
        } else if inbox.bytes > QUEUE_BYTES {
            Refusal::Busy
        } else {
            inbox.bytes += staged.held();
            inbox.waiting.push(Msg::Commit(Box::new(staged), done));
            drop(inbox);
            self.queue.wake.notify_one();
            return;
        };
        drop(inbox);
        done(Err(refusal));
    }

    fn send(&self, message: Msg) {
        let mut inbox = self.queue.inbox.lock();
        if inbox.closed {
            drop(inbox);
            return refuse(message);
        }
        inbox.waiting.push(message);
        drop(inbox);
        self.queue.wake.notify_one();
    }

    fn close(&self) {
        self.queue.inbox.lock().closed = true;
        self.queue.wake.notify_one();
        if std::thread::current().id() == self.commit_thread {
            // The last handle went inside an answer: the threads end on their own.
            return;
        }
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

fn refuse(message: Msg) {
    match message {
        Msg::Commit(_, done)
        | Msg::Settle(_, done)
        | Msg::Batch(_, done)
        | Msg::Revive(_, done)
        | Msg::Discard(_, done)
        | Msg::Adopt(_, done)
        | Msg::SealAll(done) => {
            done(Err(Refusal::Closed));
        }
        Msg::Damaged(..) | Msg::Tick(_) | Msg::Synced(_) | Msg::Lagged(..) => {}
    }
}

impl Queue {
    fn push(&self, message: Msg) {
        self.inbox.lock().waiting.push(message);
        self.wake.notify_one();
    }

    fn run(&self, mut engine: Engine, jobs: &mpsc::Sender<Job>) {
        loop {
            let (messages, closed) = self.next(engine.has_work());
            let idle = messages.is_empty();
            for job in engine.step(messages) {
                let _ = jobs.send(job);
            }
            if closed && idle {
                engine.finish();
                return;
            }
        }
    }

    /// What waits, up to one group; waits for something unless `busy`.
    fn next(&self, busy: bool) -> (Vec<Msg>, bool) {
        let mut inbox = self.inbox.lock();
        while inbox.waiting.is_empty() && !busy && !inbox.closed {
            self.wake.wait(&mut inbox);
        }
        let mut size = 0;
        let staged = |message: &Msg, count: fn(&Staged) -> usize| match message {
            Msg::Commit(staged, _) => count(staged),
            _ => 0,
        };
        let n = inbox
            .waiting
            .iter()
            .take_while(|message| {
                let fits = size < GROUP_BYTES;
                size += staged(message, |staged| staged.body.frame_len());
                fits
            })
            .count();
        let rest = inbox.waiting.split_off(n);
        let group = std::mem::replace(&mut inbox.waiting, rest);
        inbox.bytes -= group.iter().map(|message| staged(message, Staged::held)).sum::<usize>();
        (group, inbox.closed)
    }
}
