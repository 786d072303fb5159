//! What happens behind the acknowledgements: names, removal of settled files, checkpoints, lagging syncs.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::checkpoint::Checkpoint;
use super::engine::{Engine, Job};
use super::frames::{CHECKPOINT, SealedRecord};
use super::shared::{digest_of, sync_dirs};
use super::state::Doom;
use super::tables::{disk_name, open_name};
use crate::Refusal;
use crate::disk::{self, Disk, Open};
use crate::journal::frame::Body;
use crate::journal::writer::LaggingSync;
use crate::types::{Durability, Outcome, SegmentId, Settlement, TableKey, Usage};

/// A checkpoint runs this long after the last one when there is anything to write down.
const CHECKPOINT_MS: u64 = 120_000;

/// The end of the last checkpoint.
#[derive(Debug, Default)]
pub(crate) struct LastCheckpoint {
    pub(crate) lsn: u64,
    pub(crate) at_ms: u64,
    pub(crate) written: u64,
}

/// A checkpoint whose files are being synced.
pub(crate) struct CheckpointRun {
    as_of: u64,
    encoded: Vec<u8>,
    open: HashSet<SegmentId>,
    sealed: HashSet<SegmentId>,
}

/// Files to sync for a checkpoint.
pub(crate) struct SyncJob {
    dirs: Vec<PathBuf>,
    /// A segment and the names it may have.
    files: Vec<(SegmentId, [PathBuf; 2])>,
    failed: Vec<SegmentId>,
    dirs_failed: bool,
}

impl SyncJob {
    /// Syncs all, files first, so that a name never becomes durable before its content.
    pub(crate) fn run(&mut self, disk: &dyn Disk) {
        for (id, names) in &self.files {
            if let Err(error) = sync_either(disk, names) {
                tracing::error!(%error, segment = %id, "syncing a segment failed");
                self.failed.push(*id);
            }
        }
        for dir in &self.dirs {
            if let Err(error) = disk.sync_dir(dir) {
                tracing::error!(%error, dir = %dir.display(), "syncing a folder failed");
                self.dirs_failed = true;
                // A dead letter must not leave the next folder durably before it is durably in this one.
                return;
            }
        }
    }
}

/// Syncs whichever name exists. A segment that is settled meanwhile has none, and needs no sync.
fn sync_either(disk: &dyn Disk, names: &[PathBuf; 2]) -> io::Result<()> {
    for name in [&names[0], &names[1], &names[0]] {
        match disk.open(name, Open::Write) {
            Ok(file) => return file.sync(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Engine {
    /// A sealed segment gets its documented name once its frame is durable, so that a file of that name
    /// is always known to the journal.
    pub(super) fn name(&mut self, lsn: u64, record: &SealedRecord) {
        self.renames.push_back((lsn, record.id, record.table.clone()));
    }

    /// Renames what is durable by now.
    pub(super) fn rename_durable(&mut self) {
        let durable = self.writer.durable_lsn();
        while let Some((_, id, table)) = self.renames.pop_front_if(|(lsn, ..)| *lsn <= durable) {
            let (from, to) = (self.dir.join(open_name(id)), self.dir.join(disk_name(&table, id)));
            // Readers find the old name too, so a failure is only a blemish.
            if let Err(error) = self.disk.rename(&from, &to)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, file = %to.display(), "naming a segment failed");
            }
            self.tables.forget_file(id);
        }
    }

    /// Removes the files of segments whose settlement is durable, or moves them to `dead/`.
    pub(super) fn remove_settled(&mut self) {
        let durable = self.writer.durable_lsn();
        let doomed: Vec<_> = {
            let state = self.shared.state.lock();
            let due = |id: &SegmentId| self.settled.get(id).is_none_or(|lsn| *lsn <= durable);
            let doomed = state.doomed.iter().filter(|(id, _)| due(id));
            doomed.map(|(id, (table, doom))| (*id, table.clone(), *doom)).collect()
        };
        let mut gone = Vec::with_capacity(doomed.len());
        for (id, table, doom) in doomed {
            match self.remove_file(id, &table, doom) {
                Ok(()) => gone.push(id),
                Err(error) => tracing::warn!(%error, segment = %id, "removing a settled segment failed"),
            }
        }
        if !gone.is_empty() {
            let mut state = self.shared.state.lock();
            gone.iter().for_each(|id| drop(state.doomed.remove(id)));
            drop(state);
            self.renames.retain(|(_, id, _)| !gone.contains(id));
            for id in gone {
                self.unsynced.remove(&id);
                self.settled.remove(&id);
            }
        }
    }

    /// A dead letter leaves the journal with its settlement, so its file must last before that.
    pub(super) fn sync_dead_letters(&mut self, items: &[Settlement]) -> io::Result<()> {
        let dead = items.iter().filter(|item| item.outcome == Outcome::DeadLettered);
        let dead: Vec<SealedRecord> = {
            let state = self.shared.state.lock();
            dead.filter_map(|item| state.sealed.get(&item.segment).cloned()).collect()
        };
        if dead.is_empty() {
            return Ok(());
        }
        for record in dead {
            let names = [self.dir.join(open_name(record.id)), self.dir.join(disk_name(&record.table, record.id))];
            // A second sync of a file whose sync failed would lie.
            let result = match self.suspects.contains(&record.id) {
                true => self.rescue(record.id),
                false => sync_either(&*self.disk, &names),
            };
            match result {
                Ok(()) => drop(self.suspects.remove(&record.id)),
                Err(error) => {
                    self.suspects.insert(record.id);
                    self.mark_suspects();
                    return Err(error);
                }
            }
        }
        sync_dirs(&*self.disk, &self.dir)
    }

    fn remove_file(&self, id: SegmentId, table: &TableKey, doom: Doom) -> io::Result<()> {
        let name = disk_name(table, id);
        let buried = self.shared.dead_dir().join(&name);
        let mut places = vec![self.dir.join(&name), self.dir.join(open_name(id))];
        if doom == Doom::Discard {
            places.push(buried.clone());
        }
        for from in places {
            let result = match doom {
                Doom::Bury => self.disk.rename(&from, &buried),
                Doom::Remove | Doom::Discard => self.disk.remove(&from),
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // After a crash a dead letter may be in both folders.
                Ok(()) if doom == Doom::Discard => {}
                other => return other,
            }
        }
        Ok(())
    }

    /// Runs with every tick.
    pub(super) fn maintain(&mut self) {
        self.refresh_now();
        self.retry_stuck();
        self.admission.unsealed.clear();
        for (key, table) in &self.tables.map {
            let bytes = table.buffered as u64 + table.open.as_ref().map_or(0, |open| open.bytes);
            *self.admission.unsealed.entry(key.database.clone()).or_default() += bytes;
        }
        if !self.writer.ensure_spare() && self.stuck.is_none() {
            self.stuck = Some(Refusal::DiskFull);
        }
        if !self.lagging
            && let Some(sync) = self.writer.lagging_sync()
        {
            self.lagging = true;
            self.jobs.push(Job::Lagging(sync));
        }
        if self.checkpoint.is_none() && self.checkpoint_due() {
            self.begin_checkpoint();
        }
    }

    /// Tries again what failed for lack of space; on success requests are taken again.
    fn retry_stuck(&mut self) {
        if self.stuck.take().is_none() {
            return;
        }
        for table in self.tables.by_size() {
            if !self.freeze(&table, true) {
                return;
            }
        }
        self.relieve();
    }

    fn checkpoint_due(&self) -> bool {
        let last = &self.last_checkpoint;
        let written = self.writer.written_bytes() - last.written;
        self.writer.next_lsn() - 1 > last.lsn
            && (written > self.options.journal_budget_bytes
                || self.writer.sync_failed()
                || self.now_ms.saturating_sub(last.at_ms) >= CHECKPOINT_MS)
    }

    /// First half: everything buffered goes to segments, the fold is written down, and another thread
    /// syncs what the fold stands on. Commits go on meanwhile, in a new journal file.
    pub(super) fn begin_checkpoint(&mut self) {
        for table in self.tables.by_size() {
            if !self.freeze(&table, false) {
                return;
            }
        }
        if !self.rescue_suspects() {
            return;
        }
        self.writer.roll_next();
        let as_of = self.writer.next_lsn() - 1;
        let mut state = self.shared.state.lock();
        state.expire_senders(self.now_ms);
        state.last_id = state.last_id.max(self.shared.ids.lock().last());
        let encoded = Checkpoint::encode(as_of, &state, &self.tables.open_records());
        let sealed: HashSet<_> = self.unsynced.drain().filter(|id| state.sealed.contains_key(id)).collect();
        let open: HashSet<_> = self.tables.dirty.drain().collect();
        let name = |id: &SegmentId| match state.sealed.get(id) {
            Some(record) => disk_name(&record.table, *id),
            None => open_name(*id),
        };
        // An open segment may be sealed, and so renamed, while the job runs: then its other name is known
        // from its table.
        let tables: std::collections::HashMap<SegmentId, String> =
            self.tables.map.iter().filter_map(|(key, table)| table.open.as_ref().map(|open| (open.id, disk_name(key, open.id)))).collect();
        let mut files: Vec<_> = sealed
            .iter()
            .chain(&open)
            .map(|id| {
                let last = tables.get(id).cloned().unwrap_or_else(|| name(id));
                (*id, [self.dir.join(open_name(*id)), self.dir.join(last)])
            })
            .collect();
        files.sort();
        drop(state);
        self.checkpoint = Some(CheckpointRun { as_of, encoded, open, sealed });
        let job = SyncJob { dirs: vec![self.shared.dead_dir(), self.dir.clone()], files, failed: Vec::new(), dirs_failed: false };
        self.jobs.push(Job::Sync(job));
    }

    /// Second half: the frame is written, and older journal files go.
    pub(super) fn checkpoint_synced(&mut self, job: SyncJob) {
        let Some(run) = self.checkpoint.take() else { return };
        let body = Body::from_bytes(CHECKPOINT, &run.encoded);
        let ready = job.failed.is_empty() && !job.dirs_failed;
        self.suspects.extend(job.failed);
        self.mark_suspects();
        // Twice: one damaged byte must not cost the totals.
        let written =
            ready && self.writer.write(&[&body, &body], true).is_ok() && (self.options.durability == Durability::Disk || self.sync_now());
        if !written {
            tracing::warn!("the checkpoint failed; the journal keeps everything until the next one");
            self.give_up(run);
            return;
        }
        self.writer.trim(run.as_of + 1);
        self.last_checkpoint = LastCheckpoint { lsn: self.writer.next_lsn() - 1, at_ms: self.now_ms, written: self.writer.written_bytes() };
    }

    /// A start after a kill has to know them too. Segments that were written anew are not suspect any more.
    fn mark_suspects(&mut self) {
        self.writer.suspects.set_segments(self.suspects.iter().map(|id| open_name(*id)));
    }

    /// The files of a checkpoint that did not succeed are as unsynced as before.
    fn give_up(&mut self, run: CheckpointRun) {
        for id in run.open {
            self.unsynced_again(id);
        }
        self.unsynced.extend(run.sealed);
    }

    /// The end: everything is in segments and a checkpoint, so that the next start is quick.
    pub(crate) fn finish(&mut self) {
        // A checkpoint that is with the other thread is done again, which costs little.
        if let Some(run) = self.checkpoint.take() {
            self.give_up(run);
        }
        self.jobs.clear();
        if self.stuck.is_none() && self.writer.next_lsn() - 1 > self.last_checkpoint.lsn {
            self.checkpoint_now();
        }
    }

    fn unsynced_again(&mut self, id: SegmentId) {
        if self.shared.state.lock().sealed.contains_key(&id) {
            self.unsynced.insert(id);
        } else if self.tables.map.values().any(|table| table.open.as_ref().is_some_and(|open| open.id == id)) {
            self.tables.dirty.insert(id);
        }
    }

    pub(super) fn sync_now(&mut self) -> bool {
        let Some(sync) = self.writer.lagging_sync() else { return true };
        let result = sync.run();
        self.writer.lagging_done(&sync, &result);
        result.is_ok()
    }

    pub(super) fn lagged(&mut self, sync: &LaggingSync, result: &io::Result<()>) {
        self.lagging = false;
        self.writer.lagging_done(sync, result);
        self.rename_durable();
    }

    /// Writes segments anew whose sync failed: what the kernel still has is checked against the digest. The
    /// rows are in the journal until a checkpoint succeeds, so a restart makes lost ones again.
    fn rescue_suspects(&mut self) -> bool {
        for id in std::mem::take(&mut self.suspects) {
            if let Err(error) = self.rescue(id) {
                tracing::error!(%error, segment = %id, "a segment whose sync failed could not be written anew");
                self.suspects.insert(id);
                self.stuck = Some(Refusal::Poisoned);
            }
        }
        self.suspects.is_empty()
    }

    fn rescue(&mut self, id: SegmentId) -> io::Result<()> {
        let sealed = self.shared.state.lock().sealed.get(&id).cloned();
        let (name, bytes, digest) = match sealed {
            Some(record) => (disk_name(&record.table, id), record.bytes, record.digest),
            None => {
                let mut open = self.tables.map.values().filter_map(|table| table.open.as_ref());
                let Some(open) = open.find(|open| open.id == id) else { return Ok(()) };
                (open_name(id), open.bytes, open.digest)
            }
        };
        // It is replaced where it is: its renaming may have failed, and two files of one segment would be one too many.
        let is_named = self.disk.open(&self.dir.join(&name), Open::Read).is_ok();
        let name = if is_named { name } else { open_name(id) };
        let mut image = disk::read_all(&*self.disk, &self.dir.join(&name))?;
        image.truncate(bytes as usize);
        if image.len() as u64 != bytes || digest_of(&image) != Some(digest) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its content is lost: restart to read it from the journal"));
        }
        let temporary = self.dir.join(format!("rescue-{:016x}.tmp", id.0));
        let _ = self.disk.remove(&temporary);
        let file = self.disk.open(&temporary, Open::Create)?;
        file.write_at(&image, 0)?;
        file.sync()?;
        self.disk.rename(&temporary, &self.dir.join(name))?;
        self.tables.forget_file(id);
        self.unsynced_again(id);
        Ok(())
    }

    /// Bytes of everything the engine made, and of what waits to be made from buffers.
    pub(super) fn total_bytes(&self) -> u64 {
        let shared = &self.shared;
        self.writer.bytes()
            + self.segment_bytes()
            + self.tables.open_bytes
            + shared.adopting.load(Ordering::Relaxed)
            + shared.stray_bytes.load(Ordering::Relaxed)
            + shared.quarantine_bytes.load(Ordering::Relaxed)
    }

    fn segment_bytes(&self) -> u64 {
        let state = self.shared.state.lock();
        state.sealed_bytes() + state.dead_bytes()
    }

    pub(super) fn gauges(&self) -> Usage {
        let total_bytes = self.total_bytes();
        let full = self.admission.is_full(total_bytes);
        self.shared.full.store(full, Ordering::Relaxed);
        Usage {
            total_bytes,
            journal_bytes: self.writer.bytes(),
            databases: self.admission.unsealed.clone(),
            memtable_bytes: self.tables.held() as u64,
            refusing: self.stuck.clone().or(full.then_some(Refusal::DiskFull)),
            written_bytes: self.writer.written_bytes() + self.tables.written_bytes,
            ..Usage::default()
        }
    }

    /// Runs a whole checkpoint here and now: at the start and at the end.
    pub(crate) fn checkpoint_now(&mut self) -> bool {
        let before = self.last_checkpoint.lsn;
        if self.checkpoint.is_none() {
            self.begin_checkpoint();
        }
        let disk = Arc::clone(&self.disk);
        for job in std::mem::take(&mut self.jobs) {
            match job {
                Job::Sync(mut job) => {
                    job.run(&*disk);
                    self.checkpoint_synced(job);
                }
                Job::Lagging(sync) => {
                    let result = sync.run();
                    self.lagged(&sync, &result);
                }
            }
        }
        self.last_checkpoint.lsn > before
    }
}
