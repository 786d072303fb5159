//! Files of the journal: writes and syncs groups, rolls to preallocated files, survives failed syncs.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::core::Core;
use super::frame::Body;
use super::suspects::Suspects;
use crate::disk::{Disk, File, Open};
use crate::{Durability, Refusal};

/// Name of a journal file.
pub(crate) fn file_name(sequence: u64) -> String {
    format!("j-{sequence:016x}")
}

/// Sequence in a journal file's name.
pub(crate) fn parse_file_name(name: &str) -> Option<u64> {
    let hex = name.strip_prefix("j-")?;
    (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok())?
}

struct FileMeta {
    /// First LSN in the file, and so one above the last LSN of the file before.
    base_lsn: u64,
    bytes: u64,
}

/// The writing end.
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file_bytes: u64,
    durability: Durability,
    core: Core,
    current: Option<Arc<dyn File>>,
    current_len: u64,
    /// The next file, reserved so that urgent frames find room on a full disk.
    spare: Option<(u64, Arc<dyn File>)>,
    files: BTreeMap<u64, FileMeta>,
    next_file: u64,
    /// Files with written and unsynced frames ([`Durability::Process`]).
    unsynced: Vec<(u64, Arc<dyn File>)>,
    /// LSNs of lagging syncs that are not through.
    syncing: Vec<u64>,
    /// A lagging sync failed: what is up to this LSN lasts only once it is not needed any more.
    unsure: Option<u64>,
    /// What the next start must not trust.
    pub(crate) suspects: Suspects,
    written_bytes: u64,
}

/// Files to sync behind the acknowledgements, and what is durable then.
pub(crate) struct LaggingSync {
    files: Vec<(u64, Arc<dyn File>)>,
    lsn: u64,
}

impl LaggingSync {
    /// Syncs; may run on any thread. One failure does not keep the other files from being synced.
    pub(crate) fn run(&self) -> io::Result<()> {
        let results: Vec<io::Result<()>> = self.files.iter().map(|(_, file)| file.sync()).collect();
        results.into_iter().collect()
    }
}

/// Where a writer begins.
pub(crate) struct Start {
    pub(crate) next_file: u64,
    pub(crate) next_lsn: u64,
    pub(crate) durable_lsn: u64,
    /// Existing files: sequence, first LSN, length.
    pub(crate) files: Vec<(u64, u64, u64)>,
}

impl Writer {
    pub(crate) fn new(dir: &Path, file_bytes: u64, durability: Durability, start: Start, suspects: Suspects) -> Writer {
        Writer {
            disk: suspects.disk(),
            dir: dir.to_owned(),
            file_bytes: file_bytes.max(4096),
            durability,
            core: Core::new(0, start.next_lsn, start.durable_lsn),
            current: None,
            current_len: 0,
            spare: None,
            files: start.files.into_iter().map(|(file, base_lsn, bytes)| (file, FileMeta { base_lsn, bytes })).collect(),
            next_file: start.next_file,
            unsynced: Vec::new(),
            syncing: Vec::new(),
            unsure: None,
            suspects,
            written_bytes: 0,
        }
    }

    pub(crate) fn next_lsn(&self) -> u64 {
        self.core.next_lsn()
    }

    /// Everything up to this LSN is durable.
    pub(crate) fn durable_lsn(&self) -> u64 {
        self.core.durable_lsn()
    }

    /// Bytes of frames written since the start.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Size of all files.
    pub(crate) fn bytes(&self) -> u64 {
        let spare = if self.spare.is_some() { self.file_bytes } else { 0 };
        self.files.values().map(|file| file.bytes).sum::<u64>() + spare
    }

    /// Writes a group and makes it as durable as promised. Returns the LSN of its first frame. `urgent`
    /// frames free space later (settlements, checkpoints) and may use the reserved file.
    pub(crate) fn write(&mut self, bodies: &[&Body], urgent: bool) -> Result<u64, Refusal> {
        let size = bodies.iter().map(|body| body.frame_len() as u64).sum::<u64>();
        if self.current.is_none() || (self.core.offset() > 0 && self.core.offset() + size > self.current_len) {
            self.roll(size, urgent)?;
        }
        if self.try_write(bodies).is_ok() {
            return Ok(self.core.next_lsn() - bodies.len() as u64);
        }
        // What a failed write or sync left in the file is unknown, and a second sync of it would lie: the
        // same frames go to a new file, whose base makes the old ones void.
        self.abandon();
        self.roll(size, true)?;
        if let Err(error) = self.try_write(bodies) {
            tracing::error!(%error, "journal: the group failed in a new file too");
            self.abandon();
            return Err(match Refusal::from_io(&error) {
                Refusal::DiskFull => Refusal::DiskFull,
                _ => Refusal::Poisoned,
            });
        }
        Ok(self.core.next_lsn() - bodies.len() as u64)
    }

    fn try_write(&mut self, bodies: &[&Body]) -> io::Result<()> {
        let file = self.current.clone().ok_or_else(|| io::Error::other("no journal file"))?;
        self.core.stage(bodies);
        let (offset, bytes) = self.core.next_write();
        let len = bytes.len() as u64;
        let mut result = file.write_at(bytes, offset);
        if result.is_ok() && self.durability == Durability::Disk {
            result = file.sync();
            if result.is_err() {
                self.suspects.add(file_name(self.core.file()));
            }
        }
        if let Err(error) = result {
            tracing::error!(%error, "journal: writing or syncing failed");
            self.core.failed();
            return Err(error);
        }
        self.core.written();
        self.written_bytes += len;
        if self.core.offset() > self.current_len {
            self.current_len = self.core.offset();
            let len = self.current_len;
            self.files.entry(self.core.file()).and_modify(|file| file.bytes = len);
        }
        match self.durability {
            Durability::Disk => self.core.durable(self.core.next_lsn() - 1),
            Durability::Process => self.note_unsynced(file),
        }
        Ok(())
    }

    fn note_unsynced(&mut self, file: Arc<dyn File>) {
        if !self.unsynced.iter().any(|(_, known)| Arc::ptr_eq(known, &file)) {
            self.unsynced.push((self.core.file(), file));
        }
    }

    fn abandon(&mut self) {
        self.current = None;
    }

    /// Goes on in the reserved file; unless `urgent`, only when the one after it could be reserved too.
    fn roll(&mut self, size: u64, urgent: bool) -> Result<(), Refusal> {
        let (sequence, file) = match self.spare.take() {
            Some(spare) => spare,
            None => self.reserve().map_err(|e| Refusal::from_io(&e))?,
        };
        match self.reserve() {
            Ok(next) => self.spare = Some(next),
            Err(error) if !urgent => {
                self.spare = Some((sequence, file));
                return Err(Refusal::from_io(&error));
            }
            Err(error) => tracing::warn!(%error, "journal: no file could be reserved"),
        }
        if size > self.file_bytes
            && let Err(error) = file.allocate(size)
        {
            let _ = self.disk.remove(&self.path(sequence));
            return Err(Refusal::from_io(&error));
        }
        self.current_len = self.file_bytes.max(size);
        self.current = Some(file);
        self.core.begin_file(sequence);
        self.files.insert(sequence, FileMeta { base_lsn: self.core.base_lsn(), bytes: self.current_len });
        Ok(())
    }

    /// Takes a file as the reserved one that was reserved before the start and never written to: on a full disk
    /// no other could be made.
    pub(crate) fn reuse(&mut self, sequence: u64, len: u64) {
        if len == self.file_bytes
            && let Ok(file) = self.disk.open(&self.path(sequence), Open::Write)
        {
            self.spare = Some((sequence, file));
        }
    }

    /// Whether a file is in use or reserved.
    pub(crate) fn holds(&self, sequence: u64) -> bool {
        self.files.contains_key(&sequence) || self.spare.as_ref().is_some_and(|(spare, _)| *spare == sequence)
    }

    /// Makes sure the next file exists, so that settlements can be written on a full disk.
    pub(crate) fn ensure_spare(&mut self) -> bool {
        if self.spare.is_none() {
            self.spare = self.reserve().ok();
        }
        self.spare.is_some()
    }

    fn reserve(&mut self) -> io::Result<(u64, Arc<dyn File>)> {
        let sequence = self.next_file;
        let path = self.path(sequence);
        self.next_file += 1;
        let file = self.disk.open(&path, Open::Create)?;
        let ready = file.allocate(self.file_bytes).and_then(|()| file.sync()).and_then(|()| self.disk.sync_dir(&self.dir));
        if let Err(error) = ready {
            let _ = self.disk.remove(&path);
            return Err(error);
        }
        Ok((sequence, file))
    }

    fn path(&self, sequence: u64) -> PathBuf {
        self.dir.join(file_name(sequence))
    }

    /// The next group goes to a new file, so that the files before hold only LSNs below [`Writer::next_lsn`].
    pub(crate) fn roll_next(&mut self) {
        if self.core.offset() > 0 {
            self.current = None;
        }
    }

    /// Removes files that hold only LSNs below `lsn`: what they say is durable elsewhere.
    pub(crate) fn trim(&mut self, lsn: u64) {
        self.unsure = self.unsure.filter(|unsure| *unsure >= lsn);
        let sequences: Vec<u64> = self.files.keys().copied().collect();
        for pair in sequences.windows(2) {
            let current = self.current.is_some() && pair[0] == self.core.file();
            if current || self.files[&pair[1]].base_lsn > lsn {
                break;
            }
            match self.disk.remove(&self.path(pair[0])) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, file = %self.path(pair[0]).display(), "journal: removing failed");
                    break;
                }
                _ => {
                    self.files.remove(&pair[0]);
                    self.suspects.remove(&file_name(pair[0]));
                }
            }
        }
    }

    /// What a lagging sync has to do, if anything.
    pub(crate) fn lagging_sync(&mut self) -> Option<LaggingSync> {
        if self.unsynced.is_empty() {
            return None;
        }
        let lsn = self.core.next_lsn() - 1;
        self.syncing.push(lsn);
        Some(LaggingSync { files: std::mem::take(&mut self.unsynced), lsn })
    }

    /// Whether acknowledged frames lie in a file whose sync failed, until [`Writer::trim`] says that they are
    /// not needed.
    pub(crate) fn sync_failed(&self) -> bool {
        self.unsure.is_some()
    }

    /// The lagging sync is through. After a failure the file is never synced again.
    pub(crate) fn lagging_done(&mut self, sync: &LaggingSync, result: &io::Result<()>) {
        if let Some(at) = self.syncing.iter().position(|lsn| *lsn == sync.lsn) {
            self.syncing.swap_remove(at);
        }
        match result {
            Ok(()) if self.unsure.is_none() && self.syncing.iter().all(|lsn| *lsn > sync.lsn) => self.core.durable(sync.lsn),
            Ok(()) => {}
            Err(error) => {
                tracing::error!(%error, "journal: the lagging sync failed; going on in a new file");
                self.unsure = Some(self.core.next_lsn() - 1);
                sync.files.iter().for_each(|(file, _)| self.suspects.add(file_name(*file)));
                self.abandon();
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::disk::sim::{Fault, SimDisk};

    fn writer(disk: &SimDisk) -> Writer {
        let start = Start { next_file: 1, next_lsn: 1, durable_lsn: 0, files: Vec::new() };
        let suspects = Suspects::none(disk.disk(), Path::new("/j"));
        Writer::new(Path::new("/j"), 4096, Durability::Process, start, suspects)
    }

    #[test]
    fn a_failed_lagging_sync_leaves_the_other_files_synced_and_promises_nothing() {
        let disk = SimDisk::new(1);
        let mut writer = writer(&disk);
        let frame = Body::small(1, vec![7; 3000]);
        for _ in 0..2 {
            writer.write(&[&frame], false).unwrap();
        }
        // Each is in a file of its own: the sync of the first fails, that of the second does not.
        let sync = writer.lagging_sync().unwrap();
        disk.fail_at(disk.operations(), Fault::Error);
        let before = disk.operations();
        let result = sync.run();
        assert!(result.is_err());
        assert_eq!(disk.operations() - before, 2);
        writer.lagging_done(&sync, &result);
        assert!(writer.sync_failed());
        assert_eq!(writer.durable_lsn(), 0);

        // Later syncs say nothing about the lost ones, until they are not needed any more.
        writer.write(&[&frame], false).unwrap();
        let sync = writer.lagging_sync().unwrap();
        writer.lagging_done(&sync, &sync.run());
        assert_eq!(writer.durable_lsn(), 0);
        writer.trim(3);
        writer.write(&[&frame], false).unwrap();
        let sync = writer.lagging_sync().unwrap();
        writer.lagging_done(&sync, &sync.run());
        assert_eq!((writer.durable_lsn(), writer.sync_failed()), (4, false));
    }

    #[test]
    fn a_later_sync_does_not_vouch_for_an_earlier_one() {
        let disk = SimDisk::new(1);
        let mut writer = writer(&disk);
        let frame = Body::small(1, vec![7; 3000]);
        writer.write(&[&frame], false).unwrap();
        let first = writer.lagging_sync().unwrap();
        writer.write(&[&frame], false).unwrap();
        let second = writer.lagging_sync().unwrap();
        writer.lagging_done(&second, &second.run());
        assert_eq!(writer.durable_lsn(), 0);
        writer.lagging_done(&first, &first.run());
        assert_eq!(writer.durable_lsn(), 1);
    }
}
