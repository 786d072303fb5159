//! The store: a handle over the commit thread and what it shares with readers.

mod adopt;
mod checkpoint;
mod dead;
mod engine;
mod frames;
pub mod inspect;
mod maintain;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod model;
mod pool;
mod quota;
mod reader;
mod recover;
mod shared;
mod stage;
mod state;
mod tables;
mod takeover;
mod thread;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use self::adopt::Adoption;
use self::engine::Msg;
pub use self::reader::SegmentReader;
use self::shared::Shared;
use self::thread::Handle;
use crate::disk::Disk;
use crate::error::During;
use crate::types::{
    BatchRecord, DeadLetter, Done, Known, Ledger, OpenReport, Options, Request, SegmentId, SegmentInfo, Settlement, TableKey, Usage,
};
use crate::{OpenError, Refusal};
use crate::{journal, segment};

/// A handle to an open store; clones share it. The store closes when the last one goes.
#[derive(Clone)]
pub struct Store {
    handle: Arc<Handle>,
    block_bytes: usize,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("dir", &self.shared().dir).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens a directory, reads back what is in it and starts the commit thread.
    pub fn open(options: Options, disk: Arc<dyn Disk>, now_ms: u64) -> Result<(Store, OpenReport), OpenError> {
        let dir = options.dir.clone();
        disk.create_dir_all(&dir).during("creating", &dir)?;
        let lock = journal::lock(&*disk, &dir)?;
        let (mut engine, report) = recover::open(options, disk, now_ms)?;
        let block_bytes = engine.options.block_bytes;
        engine.start();
        let handle = Handle::start(engine, lock).during("starting the commit thread for", &dir)?;
        Ok((Store { handle: Arc::new(handle), block_bytes }, report))
    }

    /// As [`Store::open`], without threads: every call does its work before it returns, so that a simulation on
    /// a [`crate::disk::sim::SimDisk`] can be repeated. Answers must not call back into the store.
    pub fn open_inline(options: Options, disk: Arc<dyn Disk>, now_ms: u64) -> Result<(Store, OpenReport), OpenError> {
        let dir = options.dir.clone();
        disk.create_dir_all(&dir).during("creating", &dir)?;
        let lock = journal::lock(&*disk, &dir)?;
        let (mut engine, report) = recover::open(options, disk, now_ms)?;
        let block_bytes = engine.options.block_bytes;
        engine.start();
        Ok((Store { handle: Arc::new(Handle::inline(engine, lock)), block_bytes }, report))
    }

    fn shared(&self) -> &Shared {
        self.handle.shared()
    }

    /// Commits a request: encodes it here, then queues it. `done` is called from the commit thread when the
    /// request is as durable as the options promise, or at once when it is refused.
    ///
    /// Returns the buffer of [`Request::rows`], which were copied: whoever commits many finds its memory warm.
    pub fn commit(&self, mut request: Request, done: Done) -> Vec<u8> {
        let (shared, rows) = (self.shared(), std::mem::take(&mut request.rows));
        match stage::stage(request, &rows, self.block_bytes, shared.now_ms.load(Ordering::Relaxed), &shared.spare) {
            Err(refusal) => done(Err(refusal)),
            Ok(staged) => self.handle.send_commit(staged, done),
        }
        rows.bytes
    }

    /// Commits a request and waits.
    pub fn commit_wait(&self, request: Request) -> Result<u64, Refusal> {
        wait(|done| drop(self.commit(request, done)))
    }

    /// Tells the time, milliseconds since 1970. The owner calls it about every 250 ms: segments are sealed by
    /// age, checkpoints run, and what failed is tried again.
    pub fn tick(&self, now_ms: u64) {
        self.handle.send(Msg::Tick(now_ms));
    }

    /// Makes sealed segments of everything committed before the call.
    pub fn seal_all(&self) -> Result<(), Refusal> {
        wait(|done| self.handle.send(Msg::SealAll(done))).map(drop)
    }

    /// Sealed segments that are not settled, oldest first.
    pub fn sealed(&self) -> Vec<SegmentInfo> {
        self.shared().sealed()
    }

    /// The same, of each database those alone whose number is above `last` of its name, by database and number. Numbers
    /// increase in the order in which segments become visible, so that who asks again with the highest it has seen gets what
    /// is new.
    pub fn sealed_after(&self, last: impl Fn(&str) -> u64) -> Vec<SegmentInfo> {
        self.shared().sealed_after(last)
    }

    /// A sealed segment by its number; nothing when it is settled.
    pub fn sealed_segment(&self, database: &str, number: u64) -> Option<SegmentInfo> {
        self.shared().sealed_segment(database, number)
    }

    /// How many sealed segments are not settled.
    pub fn waiting_segments(&self) -> usize {
        self.shared().state.lock().sealed.len()
    }

    /// Calls `wake` from the commit thread whenever segments became visible.
    pub fn on_sealed(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.shared().on_sealed(wake);
    }

    /// The file image of a sealed segment: header and blocks. Blocks that cannot be read are left out, copied
    /// to quarantine and counted.
    pub fn read_segment(&self, id: SegmentId) -> io::Result<Vec<u8>> {
        let (image, left) = self.shared().read_segment(id)?;
        if let Some(left) = left {
            self.handle.send(Msg::Damaged(id, left));
        }
        Ok(image)
    }

    /// The blocks of a sealed segment, one at a time. As with [`Store::read_segment`], those that cannot be read are
    /// left out, copied to quarantine and counted.
    ///
    /// # Errors
    /// `NotFound` when it is settled; what the disk says otherwise.
    pub fn open_segment(&self, id: SegmentId) -> io::Result<SegmentReader> {
        if let Some(reader) = self.shared().open_segment(id)? {
            return Ok(reader);
        }
        self.read_segment(id).map(SegmentReader::from_image)
    }

    /// Keeps bytes of others that cannot be read, in a file of the quarantine folder with this name. Durable
    /// when it returns; `StorageFull` at the limit of the store.
    pub fn set_aside(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if !segment::FileName::valid_part(&name.replace('_', "-")) || name.len() > 255 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} cannot be the name of a file")));
        }
        if self.shared().full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.shared().set_aside(name, bytes)
    }

    /// Ends segments. Their files go only when that is durable. Unknown ones are ignored.
    pub fn settle(&self, items: Vec<Settlement>, done: Done) {
        self.handle.send(Msg::Settle(items, done));
    }

    /// Ends segments and waits.
    pub fn settle_wait(&self, items: Vec<Settlement>) -> Result<u64, Refusal> {
        wait(|done| self.settle(items, done))
    }

    /// Segments that were refused for ever.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.shared().dead_letters()
    }

    /// The file image of a dead letter.
    ///
    /// # Errors
    /// `NotFound` for what is none.
    pub fn read_dead_letter(&self, id: SegmentId) -> io::Result<Vec<u8>> {
        self.shared().read_dead_letter(id)
    }

    /// Makes dead letters sealed segments again, under new numbers: they wait for their destination as all others do.
    /// Those that are none any more are ignored, so that nothing is revived twice.
    pub fn retry_dead_letters(&self, ids: Vec<SegmentId>, done: Done) {
        self.handle.send(Msg::Revive(ids, done));
    }

    /// Gives dead letters up; their files go when that is durable.
    pub fn drop_dead_letters(&self, ids: Vec<SegmentId>, done: Done) {
        self.handle.send(Msg::Discard(ids, done));
    }

    /// What is remembered of a sender's segment.
    pub fn known(&self, sender: &[u8; 16], database: &str, number: u64, digest: u64) -> Known {
        self.shared().state.lock().known(sender, database, number, digest)
    }

    /// The identity of this directory as a sender.
    pub fn sender_id(&self) -> [u8; 16] {
        self.shared().state.lock().sender
    }

    /// Lowest unsettled segment number of ours in `database`.
    pub fn floor(&self, database: &str) -> u64 {
        self.shared().state.lock().floor(database)
    }

    /// Records a batch, or how far it got. It is forgotten when all its segments are settled.
    pub fn record_batch(&self, record: BatchRecord, done: Done) {
        self.handle.send(Msg::Batch(record, done));
    }

    /// Batches with unsettled segments.
    pub fn batches(&self) -> Vec<BatchRecord> {
        self.shared().state.lock().batches.values().cloned().collect()
    }

    /// The value of a mark.
    pub fn mark(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.shared().state.lock().marks.get(key).cloned()
    }

    /// All marks whose key begins with `prefix`, in order.
    pub fn marks_with_prefix(&self, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let state = self.shared().state.lock();
        let marks = state.marks.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        marks.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// What the store holds, as of the last group or tick.
    pub fn usage(&self) -> Usage {
        let shared = self.shared();
        let mut usage = shared.usage();
        let state = shared.state.lock();
        for (name, database) in &state.databases {
            *usage.databases.entry(name.clone()).or_default() += database.bytes + database.dead_bytes;
        }
        usage.segments = state.sealed.len();
        usage.oldest_ms = state.sealed.values().map(|record| record.created_ms).min();
        usage.dead_bytes = state.dead_bytes() + shared.stray_bytes.load(Ordering::Relaxed);
        usage.quarantine_bytes = shared.quarantine_bytes.load(Ordering::Relaxed);
        usage
    }

    /// Rows by table and place.
    pub fn ledger(&self) -> Ledger {
        self.shared().state.lock().ledger()
    }

    /// Begins a segment of its own for a large transfer to `table`.
    pub fn adopt(&self, table: TableKey) -> io::Result<Adoption> {
        Adoption::begin(Arc::clone(&self.handle), table)
    }

    /// Writes what waits, a checkpoint, and ends the threads. Other handles are refused from then on.
    pub fn close(self) {
        self.handle.close();
    }
}

/// Runs something that answers through a `Done`, and waits for the answer.
fn wait(start: impl FnOnce(Done)) -> Result<u64, Refusal> {
    let (done, answer) = journal::waiting();
    start(done);
    answer.recv().unwrap_or(Err(Refusal::Closed))
}
