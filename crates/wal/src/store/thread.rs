//! The threads of a store: one that commits, one that does its slow syncs.

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
    /// Stored bytes of the requests among them.
    bytes: usize,
    closed: bool,
}

struct Queue {
    inbox: Mutex<Inbox>,
    wake: Condvar,
}

/// Owns the threads; dropping it closes the store.
pub(super) struct Handle {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    commit_thread: ThreadId,
    _lock: Box<dyn std::any::Any + Send + Sync>,
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
        Ok(Handle { queue, shared, threads: Mutex::new(vec![commit, sync]), commit_thread, _lock: lock })
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Queues a request, unless too much waits already.
    pub(super) fn send_commit(&self, staged: Staged, done: Done) {
        let mut inbox = self.queue.inbox.lock();
        let refusal = if inbox.closed {
            Refusal::Closed
        } else if inbox.bytes > QUEUE_BYTES {
            Refusal::Busy
        } else {
            inbox.bytes += staged.body.frame_len();
            inbox.waiting.push(Msg::Commit(Box::new(staged), done));
            drop(inbox);
            self.queue.wake.notify_one();
            return;
        };
        drop(inbox);
        done(Err(refusal));
    }

    pub(super) fn send(&self, message: Msg) {
        let mut inbox = self.queue.inbox.lock();
        if inbox.closed {
            drop(inbox);
            return refuse(message);
        }
        inbox.waiting.push(message);
        drop(inbox);
        self.queue.wake.notify_one();
    }

    /// Commits what waits, writes a checkpoint and ends the threads.
    pub(super) fn close(&self) {
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
        Msg::Commit(_, done) | Msg::Settle(_, done) | Msg::Batch(_, done) | Msg::Adopt(_, done) | Msg::SealAll(done) => {
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
        let stored = |message: &Msg| match message {
            Msg::Commit(staged, _) => staged.body.frame_len(),
            _ => 0,
        };
        let n = inbox
            .waiting
            .iter()
            .take_while(|message| {
                let fits = size < GROUP_BYTES;
                size += stored(message);
                fits
            })
            .count();
        let rest = inbox.waiting.split_off(n);
        let group = std::mem::replace(&mut inbox.waiting, rest);
        inbox.bytes -= group.iter().map(stored).sum::<usize>();
        (group, inbox.closed)
    }
}
