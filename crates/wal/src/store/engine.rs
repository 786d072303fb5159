//! The commit thread's state machine: takes what waits, writes it as one group, applies it, and keeps
//! memory, files and journal in their bounds. Without threads of its own, so that tests can drive it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::frames::{self, AdoptedRecord, DataHead, SealedRecord};
use super::maintain::{CheckpointRun, LastCheckpoint, SyncJob};
use super::quota::Admission;
use super::shared::Shared;
use super::stage::{Contents, Staged};
use super::tables::Tables;
use crate::Refusal;
use crate::disk::Disk;
use crate::journal::frame::Body;
use crate::journal::writer::{LaggingSync, Writer};
use crate::types::{BatchRecord, Done, Options, SegmentId, Settlement, TableKey, TableSet};

/// Segments that are sealed with one group, unless all are asked for: bounds how long a group takes.
const SEALS_PER_GROUP: usize = 32;

/// Tables that are frozen with one group, unless memory runs out.
const FREEZES_PER_GROUP: usize = 32;

/// What the engine is asked to do.
pub(crate) enum Msg {
    Commit(Box<Staged>, Done),
    Settle(Vec<Settlement>, Done),
    Batch(BatchRecord, Done),
    Revive(Vec<SegmentId>, Done),
    Discard(Vec<SegmentId>, Done),
    Adopt(Box<AdoptedRecord>, Done),
    Damaged(SegmentId, u64),
    SealAll(Done),
    Tick(u64),
    /// A [`Job`] is through.
    Synced(SyncJob),
    Lagged(LaggingSync, std::io::Result<()>),
}

/// Work for another thread, so that acknowledgements do not wait for it.
pub(crate) enum Job {
    Sync(SyncJob),
    Lagging(LaggingSync),
}

impl Job {
    /// Does it, and says what the engine has to be told.
    pub(crate) fn run(self, disk: &dyn Disk) -> Msg {
        match self {
            Job::Sync(mut job) => {
                job.run(disk);
                Msg::Synced(job)
            }
            Job::Lagging(sync) => {
                let result = sync.run();
                Msg::Lagged(sync, result)
            }
        }
    }
}

/// See the module.
pub(crate) struct Engine {
    pub(super) options: Options,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) writer: Writer,
    pub(super) tables: Tables,
    pub(super) shared: Arc<Shared>,
    pub(super) now_ms: u64,
    pub(super) admission: Admission,
    /// Why requests are refused as a whole, until rows can be written to segments again.
    pub(super) stuck: Option<Refusal>,
    /// Tables to seal, oldest first.
    due: VecDeque<TableKey>,
    due_set: TableSet,
    /// Tables to freeze until memory is within its bounds.
    freeze_next: VecDeque<TableKey>,
    /// Sealed segments whose files are not synced.
    pub(super) unsynced: HashSet<SegmentId>,
    /// Segments whose sync failed: their files are written anew before the next checkpoint.
    pub(super) suspects: HashSet<SegmentId>,
    /// Sealed segments that wait for their final name, with the LSN that must be durable before.
    pub(super) renames: VecDeque<(u64, SegmentId, TableKey)>,
    /// Files of adoptions that failed, with the LSN that must be durable before they go: until then a crash
    /// may bring the frame back that speaks of them.
    orphans: Vec<(u64, SegmentId)>,
    /// LSN of settlements that may not be durable yet, by segment.
    pub(super) settled: HashMap<SegmentId, u64>,
    pub(super) checkpoint: Option<CheckpointRun>,
    pub(super) last_checkpoint: LastCheckpoint,
    pub(super) lagging: bool,
    pub(super) jobs: Vec<Job>,
}

/// A frame of the group, and what it means once written.
struct Entry {
    body: Body,
    apply: Apply,
    done: Option<Done>,
}

enum Apply {
    Data(DataHead, Contents),
    Seal(SealedRecord),
    Adopt(Box<AdoptedRecord>),
    /// With the time.
    Settle(Vec<Settlement>, u64),
    Batch(BatchRecord),
    Revive(Vec<(SegmentId, u64)>),
    Discard(Vec<SegmentId>),
    Damaged(SegmentId, u64),
}

#[derive(Default)]
struct Group {
    /// Frames that free space later; they may use the reserve.
    urgent: Vec<Entry>,
    data: Vec<Entry>,
    seal_all: Vec<Done>,
    ticked: bool,
}

impl Engine {
    pub(crate) fn new(options: Options, disk: Arc<dyn Disk>, writer: Writer, tables: Tables, shared: Arc<Shared>, now_ms: u64) -> Engine {
        Engine {
            dir: options.dir.clone(),
            admission: Admission::new(&options),
            options,
            disk,
            writer,
            tables,
            shared,
            now_ms,
            stuck: None,
            due: VecDeque::new(),
            due_set: TableSet::default(),
            freeze_next: VecDeque::new(),
            unsynced: HashSet::new(),
            suspects: HashSet::new(),
            renames: VecDeque::new(),
            orphans: Vec::new(),
            settled: HashMap::new(),
            checkpoint: None,
            last_checkpoint: LastCheckpoint::default(),
            lagging: false,
            jobs: Vec::new(),
        }
    }

    /// Publishes what the start found, before the first group.
    pub(crate) fn start(&mut self) {
        self.refresh_now();
        self.shared.publish(self.gauges());
    }

    /// Handles all that waits. Returns work for another thread.
    pub(crate) fn step(&mut self, messages: Vec<Msg>) -> Vec<Job> {
        let mut group = self.gather(messages);
        self.seal(&mut group);
        let answers = std::mem::take(&mut group.seal_all);
        let ticked = group.ticked;
        let sealed = self.commit(group);
        if sealed {
            self.shared.wake();
        }
        for done in answers {
            done(self.seal_all_answer());
        }
        self.remove_settled();
        self.remove_orphans();
        self.relieve();
        if ticked {
            self.shared.spare.trim();
            self.maintain();
        }
        self.shared.publish(self.gauges());
        std::mem::take(&mut self.jobs)
    }

    /// Whether a step without messages would do something.
    pub(crate) fn has_work(&self) -> bool {
        self.stuck.is_none() && (!self.due.is_empty() || !self.tables.full.is_empty() || !self.freeze_next.is_empty())
    }

    fn gather(&mut self, messages: Vec<Msg>) -> Group {
        let mut group = Group::default();
        self.admission.begin_group(self.total_bytes());
        for message in messages {
            match message {
                Msg::Commit(staged, done) => self.admit(*staged, done, &mut group),
                Msg::Settle(items, done) => {
                    if let Err(error) = self.sync_dead_letters(&items) {
                        tracing::error!(%error, "dead letters could not be made durable");
                        done(Err(Refusal::from_io(&error)));
                        continue;
                    }
                    let body = Body::small(frames::SETTLED, frames::encode_settled(&items, self.now_ms));
                    group.urgent.push(Entry { body, apply: Apply::Settle(items, self.now_ms), done: Some(done) });
                }
                Msg::Batch(record, done) => {
                    let mut directory = Vec::new();
                    frames::put_batch(&mut directory, &record);
                    let body = Body::small(frames::BATCH, directory);
                    group.urgent.push(Entry { body, apply: Apply::Batch(record), done: Some(done) });
                }
                Msg::Revive(ids, done) => {
                    let items = self.revival(&ids);
                    let body = Body::small(frames::REVIVED, frames::encode_revived(&items));
                    group.urgent.push(Entry { body, apply: Apply::Revive(items), done: Some(done) });
                }
                Msg::Discard(ids, done) => {
                    let body = Body::small(frames::DISCARDED, frames::encode_discarded(&ids));
                    group.urgent.push(Entry { body, apply: Apply::Discard(ids), done: Some(done) });
                }
                Msg::Adopt(record, done) => self.admit_adoption(record, done, &mut group),
                Msg::Damaged(id, left) => {
                    let body = Body::small(frames::DAMAGED, frames::encode_damaged(id, left));
                    group.urgent.push(Entry { body, apply: Apply::Damaged(id, left), done: None });
                }
                Msg::SealAll(done) => group.seal_all.push(done),
                Msg::Tick(now_ms) => {
                    self.now_ms = self.now_ms.max(now_ms);
                    group.ticked = true;
                }
                Msg::Synced(job) => self.checkpoint_synced(job),
                Msg::Lagged(sync, result) => self.lagged(&sync, &result),
            }
        }
        group
    }

    fn admit(&mut self, staged: Staged, done: Done, group: &mut Group) {
        let verdict = match &self.stuck {
            Some(refusal) if !staged.head.is_note() => Err(refusal.clone()),
            _ => self.admission.admit(&staged, &self.shared.state.lock()),
        };
        match verdict {
            Err(refusal) => done(Err(refusal)),
            Ok(false) => done(Ok(self.writer.next_lsn() - 1)),
            Ok(true) => {
                let Staged { head, body, contents } = staged;
                group.data.push(Entry { body, apply: Apply::Data(head, contents), done: Some(done) });
            }
        }
    }

    /// New numbers, since receivers may take the old ones for settled.
    fn revival(&mut self, ids: &[SegmentId]) -> Vec<(SegmentId, u64)> {
        let state = self.shared.state.lock();
        let dead = ids.iter().filter_map(|id| state.dead.get(id));
        dead.map(|letter| (letter.segment.id, self.admission.number(&letter.segment.table.database, &state))).collect()
    }

    /// The number is given here: numbers increase in the order of frames.
    fn admit_adoption(&mut self, mut record: Box<AdoptedRecord>, done: Done, group: &mut Group) {
        let verdict = self.admission.admit_adoption(&record, &self.shared.state.lock());
        if !matches!(verdict, Ok(true)) {
            // Refused, or known already: the file is not needed.
            self.remove_adopted(record.segment.id);
            return done(verdict.map(|_| self.writer.next_lsn() - 1));
        }
        let database = &record.segment.table.database;
        record.segment.number = self.admission.number(database, &self.shared.state.lock());
        let body = Body::small(frames::ADOPTED, record.encode());
        group.data.push(Entry { body, apply: Apply::Adopt(record), done: Some(done) });
    }

    /// Adds Sealed frames for tables that are full, aged or asked for.
    fn seal(&mut self, group: &mut Group) {
        let all = !group.seal_all.is_empty();
        let mut found = std::mem::take(&mut self.tables.full);
        if all {
            found.extend(self.tables.map.keys().cloned());
        } else if group.ticked {
            let aged = self.tables.aged(self.now_ms, self.options.segment_max_age_ms);
            let (state, most) = (self.shared.state.lock(), self.options.sealed_by_age_below);
            found.extend(aged.into_iter().filter(|table| state.waiting(&table.database) < most));
        }
        // In an order that does not depend on hashing, so that a history can be repeated.
        found.sort();
        for table in found {
            if self.due_set.insert(table.clone()) {
                self.due.push_back(table);
            }
        }
        let n = if all { self.due.len() } else { self.due.len().min(SEALS_PER_GROUP) };
        let last_lsn = self.writer.next_lsn() - 1;
        for _ in 0..n {
            let Some(table) = self.due.pop_front() else { break };
            self.due_set.remove(&table);
            if !self.freeze(&table, false) {
                continue;
            }
            let number = self.admission.number(&table.database, &self.shared.state.lock());
            if let Some(record) = self.tables.sealing(&table, last_lsn, number) {
                let body = Body::small(frames::SEALED, record.encode());
                group.urgent.push(Entry { body, apply: Apply::Seal(record), done: None });
            }
        }
    }

    /// Freezes a table; on an error requests are refused until it works again.
    pub(super) fn freeze(&mut self, table: &TableKey, whole_blocks: bool) -> bool {
        let (shared, now) = (Arc::clone(&self.shared), self.now_ms);
        let mut new_id = || shared.new_id(now);
        match self.tables.freeze(table, whole_blocks, &mut new_id) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, %table, "writing a segment failed");
                self.stuck = Some(Refusal::from_io(&error));
                false
            }
        }
    }

    /// Writes the group, applies it, answers. Whether segments became visible.
    fn commit(&mut self, group: Group) -> bool {
        let Group { mut urgent, mut data, .. } = group;
        if urgent.is_empty() && data.is_empty() {
            return false;
        }
        let bodies: Vec<&Body> = urgent.iter().chain(&data).map(|entry| &entry.body).collect();
        let mut result = self.writer.write(&bodies, data.is_empty());
        if let (Err(refusal), false) = (&result, data.is_empty()) {
            // Without room for requests there is still the reserve, which is for settlements and for notes.
            let (notes, rows): (Vec<Entry>, _) = data.into_iter().partition(Entry::is_note);
            self.refuse(rows, refusal);
            data = Vec::new();
            urgent.extend(notes);
            if urgent.is_empty() {
                return false;
            }
            let bodies: Vec<&Body> = urgent.iter().map(|entry| &entry.body).collect();
            result = self.writer.write(&bodies, true);
        }
        urgent.append(&mut data);
        match result {
            Ok(first) => self.apply(urgent, first),
            Err(refusal) => {
                self.refuse(urgent, &refusal);
                false
            }
        }
    }

    fn refuse(&mut self, entries: Vec<Entry>, refusal: &Refusal) {
        let lsn = self.writer.next_lsn();
        for entry in entries {
            if let Apply::Adopt(record) = &entry.apply {
                self.orphans.push((lsn, record.segment.id));
            }
            if let Some(done) = entry.done {
                done(Err(refusal.clone()));
            }
        }
    }

    /// Removes the files of failed adoptions once other frames have taken the place of theirs.
    fn remove_orphans(&mut self) {
        let durable = self.writer.durable_lsn();
        for (_, id) in self.orphans.extract_if(.., |(lsn, _)| *lsn <= durable).collect::<Vec<_>>() {
            self.remove_adopted(id);
        }
    }

    fn remove_adopted(&self, id: SegmentId) {
        let path = self.dir.join(super::tables::open_name(id));
        if let Err(error) = self.disk.remove(&path) {
            tracing::warn!(%error, file = %path.display(), "removing a transfer that was not taken failed");
        }
    }

    fn apply(&mut self, entries: Vec<Entry>, first: u64) -> bool {
        let mut sealed = false;
        for (entry, lsn) in entries.iter().zip(first..) {
            match &entry.apply {
                Apply::Seal(record) => self.name(lsn, record),
                Apply::Adopt(record) => self.name(lsn, &record.segment),
                Apply::Settle(items, _) => self.settled.extend(items.iter().map(|item| (item.segment, lsn))),
                Apply::Discard(ids) => self.settled.extend(ids.iter().map(|id| (*id, lsn))),
                _ => {}
            }
        }
        self.rename_durable();
        let mut answers = Vec::with_capacity(entries.len());
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        for (entry, lsn) in entries.into_iter().zip(first..) {
            match entry.apply {
                Apply::Data(head, contents) => {
                    state.data(&head, &[]);
                    self.tables.push(&head, contents, lsn, self.now_ms);
                }
                Apply::Seal(record) => {
                    state.seal(&record);
                    self.tables.sealed(&record.table, record.id, self.now_ms);
                    self.unsynced.insert(record.id);
                    sealed = true;
                }
                Apply::Adopt(record) => {
                    state.adopt(&record);
                    sealed = true;
                }
                Apply::Settle(items, time_ms) => state.settle(&items, Some(time_ms)),
                Apply::Batch(record) => state.batch(&record),
                Apply::Revive(items) => {
                    state.revive(&items);
                    for (id, _) in &items {
                        self.settled.remove(id);
                    }
                    sealed = true;
                }
                Apply::Discard(ids) => state.discard(&ids),
                Apply::Damaged(id, left) => state.damaged(id, left),
            }
            answers.extend(entry.done.map(|done| (done, lsn)));
        }
        drop(state);
        answers.into_iter().for_each(|(done, lsn)| done(Ok(lsn)));
        sealed
    }

    fn seal_all_answer(&self) -> Result<u64, Refusal> {
        match &self.stuck {
            Some(refusal) => Err(refusal.clone()),
            None if self.tables.map.values().all(|table| table.open.is_none() && table.buffered == 0) => Ok(self.writer.next_lsn() - 1),
            None => Err(Refusal::Poisoned),
        }
    }

    /// Keeps rows inside their memory: whole blocks go at once, then the largest tables, some with each group so that
    /// acknowledgements do not wait for all of them.
    pub(super) fn relieve(&mut self) {
        if self.stuck.is_some() {
            return;
        }
        for table in std::mem::take(&mut self.tables.grown) {
            if !self.freeze(&table, true) {
                return;
            }
        }
        let most = self.options.memtable_bytes;
        if self.freeze_next.is_empty() {
            if self.tables.held() <= most {
                return;
            }
            self.freeze_next = self.tables.by_size().into();
        }
        // So far down that what is left can be moved together without doing so all the time.
        let left = most / 4;
        let mut frozen = 0;
        while self.tables.buffered > left
            && let Some(table) = self.freeze_next.pop_front()
        {
            if !self.freeze(&table, false) {
                return;
            }
            frozen += 1;
            if frozen == FREEZES_PER_GROUP && self.tables.held() <= most + most / 4 {
                return;
            }
        }
        self.freeze_next.clear();
        self.tables.compact();
    }

    pub(super) fn refresh_now(&mut self) {
        self.shared.now_ms.store(self.now_ms, Ordering::Relaxed);
    }
}

impl Entry {
    fn is_note(&self) -> bool {
        matches!(&self.apply, Apply::Data(head, _) if head.is_note())
    }
}
