//! The commit thread of a stand-alone journal: takes what waits as one group.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::frame::Body;
use super::writer::Writer;
use crate::{Done, Refusal};

/// Largest group in stored bytes.
pub(crate) const GROUP_BYTES: usize = 16 << 20;
/// What may wait before appends are refused, in stored bytes.
pub(crate) const QUEUE_BYTES: usize = 128 << 20;
/// How far syncs lag behind in [`crate::Durability::Process`].
const LAG: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Body, Done)>,
    waiting_bytes: usize,
    trim_below: Option<u64>,
    closed: bool,
}

/// What the handles and the thread share.
pub(super) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    bytes: std::sync::atomic::AtomicU64,
}

impl Shared {
    pub(super) fn new(bytes: u64) -> Arc<Shared> {
        Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new(), bytes: bytes.into() })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(super) fn push(&self, body: Body, done: Done) {
        let mut queue = self.queue.lock();
        let refusal = if queue.closed {
            Refusal::Closed
        } else if queue.waiting_bytes > QUEUE_BYTES {
            Refusal::Busy
        } else {
            queue.waiting_bytes += body.frame_len();
            queue.waiting.push_back((body, done));
            self.wake.notify_one();
            return;
        };
        drop(queue);
        done(Err(refusal));
    }

    pub(super) fn trim(&self, below: u64) {
        let mut queue = self.queue.lock();
        queue.trim_below = queue.trim_below.max(Some(below));
        self.wake.notify_one();
    }

    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.wake.notify_one();
    }

    /// Runs until closed and empty.
    pub(super) fn run(&self, mut writer: Writer) {
        let mut synced = Instant::now();
        loop {
            let (group, trim, closed) = self.next_group();
            if let Some(below) = trim {
                writer.trim(below);
            }
            let idle = group.is_empty();
            commit(&mut writer, group);
            self.bytes.store(writer.bytes(), std::sync::atomic::Ordering::Relaxed);
            if (idle || synced.elapsed() >= LAG)
                && let Some(sync) = writer.lagging_sync()
            {
                synced = Instant::now();
                let result = sync.run();
                writer.lagging_done(&sync, &result);
            }
            if closed && idle {
                return;
            }
        }
    }

    /// What waits, at most one group; empty after [`LAG`] without work, on a trim, and when closed.
    fn next_group(&self) -> (Vec<(Body, Done)>, Option<u64>, bool) {
        let mut queue = self.queue.lock();
        if queue.waiting.is_empty() && queue.trim_below.is_none() && !queue.closed {
            self.wake.wait_for(&mut queue, LAG);
        }
        let mut group = Vec::new();
        let mut size = 0;
        while let Some((body, done)) = queue.waiting.pop_front() {
            size += body.frame_len();
            queue.waiting_bytes -= body.frame_len();
            group.push((body, done));
            if size >= GROUP_BYTES {
                break;
            }
        }
        (group, queue.trim_below.take(), queue.closed)
    }
}

fn commit(writer: &mut Writer, group: Vec<(Body, Done)>) {
    if group.is_empty() {
        return;
    }
    let bodies: Vec<&Body> = group.iter().map(|(body, _)| body).collect();
    match writer.write(&bodies, false) {
        Ok(first) => group.into_iter().zip(first..).for_each(|((_, done), lsn)| done(Ok(lsn))),
        Err(refusal) => group.into_iter().for_each(|(_, done)| done(Err(refusal.clone()))),
    }
}
