//! The mark that a sync has failed.
//!
//! After a failed sync the kernel may show bytes that are not on the disk, and every later sync of that file succeeds. The
//! running process knows what it must not trust; one that starts after a kill does not, so the names of such files are kept in
//! a file of their own. At the next start those of the journal are written anew before anything of them counts; segments are
//! written anew before a checkpoint vouches for them. A power cut needs no mark: what is read after it is on the disk.
//!
//! The file, `journal/suspect`, is text: a line with the version, the names, and `end`. One that is torn or of another version
//! makes every file suspect.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::writer::parse_file_name;
use crate::OpenError;
use crate::disk::{self, Disk, Open};
use crate::error::During;

const NAME: &str = "suspect";
const VERSION_LINE: &str = "adx-mon suspect files, version 1";
const LAST_LINE: &str = "end";
/// The disk that has just failed may fail again.
const ATTEMPTS: usize = 3;

/// Files that must not be trusted after the end of this process.
pub(crate) struct Suspects {
    disk: Arc<dyn Disk>,
    /// Folder of the journal.
    dir: PathBuf,
    names: BTreeSet<String>,
    /// The mark was unreadable.
    all: bool,
}

impl Suspects {
    /// Nothing is marked.
    pub(crate) fn none(disk: Arc<dyn Disk>, dir: &Path) -> Suspects {
        Suspects { disk, dir: dir.to_owned(), names: BTreeSet::new(), all: false }
    }

    /// Reads the mark and writes the files of the journal that it names anew: what is read of them from then on is on the disk.
    pub(crate) fn renew(disk: Arc<dyn Disk>, dir: &Path) -> Result<Suspects, OpenError> {
        let mut suspects = Suspects::load(disk, dir)?;
        suspects.remove_temporary()?;
        if suspects.is_empty() {
            return Ok(suspects);
        }
        for entry in suspects.disk.list(dir).during("listing", dir)? {
            if parse_file_name(&entry.name).is_some() && suspects.contains(&entry.name) {
                let path = dir.join(&entry.name);
                tracing::warn!(file = %path.display(), "a sync of this file failed before the last end: writing it anew");
                write_anew(&*suspects.disk, &path).during("writing anew", &path)?;
            }
        }
        suspects.disk.sync_dir(dir).during("syncing", dir)?;
        let segments = suspects.names.iter().filter(|name| parse_file_name(name).is_none()).cloned().collect();
        suspects.replace(segments, suspects.all);
        Ok(suspects)
    }

    fn load(disk: Arc<dyn Disk>, dir: &Path) -> Result<Suspects, OpenError> {
        let mut suspects = Suspects::none(disk, dir);
        let path = dir.join(NAME);
        let bytes = match disk::read_all(&*suspects.disk, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(suspects),
            other => other.during("reading", &path)?,
        };
        match decode(&bytes) {
            Some(names) => suspects.names = names,
            None => {
                tracing::warn!(file = %path.display(), "the list of suspect files is unreadable: none is trusted");
                suspects.all = true;
            }
        }
        Ok(suspects)
    }

    /// What an interrupted start or mark left.
    fn remove_temporary(&self) -> Result<(), OpenError> {
        for entry in self.disk.list(&self.dir).during("listing", &self.dir)? {
            if entry.name.ends_with(".tmp") {
                let path = self.dir.join(entry.name);
                self.disk.remove(&path).during("removing", &path)?;
            }
        }
        Ok(())
    }

    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.all
    }

    /// Whether the file of this name must not be trusted.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }

    /// A sync of the file failed.
    pub(crate) fn add(&mut self, name: String) {
        let mut names = self.names.clone();
        names.insert(name);
        self.replace(names, self.all);
    }

    /// The file is gone.
    pub(crate) fn remove(&mut self, name: &str) {
        if self.names.contains(name) {
            let names = self.names.iter().filter(|known| *known != name).cloned().collect();
            self.replace(names, self.all);
        }
    }

    /// These files of segments are suspect, and no others.
    pub(crate) fn set_segments(&mut self, segments: impl Iterator<Item = String>) {
        let journal = self.names.iter().filter(|name| parse_file_name(name).is_some()).cloned();
        let names = journal.chain(segments).collect();
        self.replace(names, false);
    }

    fn replace(&mut self, names: BTreeSet<String>, all: bool) {
        if self.names == names && self.all == all {
            return;
        }
        (self.names, self.all) = (names, all);
        if all {
            // The unreadable file says it already.
            return;
        }
        let write = || if self.names.is_empty() { self.disk.remove(&self.dir.join(NAME)) } else { self.write() };
        let done = (1..ATTEMPTS).fold(write(), |done, _| done.or_else(|_| write()));
        match done {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let names = Vec::from_iter(&self.names);
                tracing::error!(%error, dir = %self.dir.display(), ?names, "files whose sync failed could not be marked: after a kill and then a power cut their rows may be lost");
            }
            _ => {}
        }
    }

    /// Nothing depends on the name lasting, and the sync of this folder does not belong here.
    fn write(&self) -> io::Result<()> {
        let temporary = self.dir.join(format!("{NAME}.tmp"));
        let _ = self.disk.remove(&temporary);
        let file = self.disk.open(&temporary, Open::Create)?;
        file.write_at(encode(&self.names).as_bytes(), 0)?;
        if let Err(error) = file.sync() {
            tracing::warn!(%error, "syncing the list of suspect files failed; it serves as long as the machine runs");
        }
        self.disk.rename(&temporary, &self.dir.join(NAME))
    }
}

fn encode(names: &BTreeSet<String>) -> String {
    let lines = std::iter::once(VERSION_LINE).chain(names.iter().map(String::as_str)).chain([LAST_LINE]);
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn decode(bytes: &[u8]) -> Option<BTreeSet<String>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let names = text.strip_prefix(VERSION_LINE)?.strip_prefix('\n')?.strip_suffix('\n')?.strip_suffix(LAST_LINE)?;
    Some(names.lines().map(str::to_owned).collect())
}

/// The bytes that are read go to a new file that takes the place of the old one. On a full disk they are written over
/// themselves: that makes them dirty, so that a sync says the truth again.
fn write_anew(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let bytes = disk::read_all(disk, path)?;
    if bytes.iter().all(|byte| *byte == 0) {
        // Reserved, and never written to.
        return Ok(());
    }
    let temporary = path.with_extension("tmp");
    let new = disk.open(&temporary, Open::Create).and_then(|file| file.write_at(&bytes, 0).and_then(|()| file.sync()));
    match new {
        Ok(()) => disk.rename(&temporary, path),
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            // Perhaps not even its name found room.
            let _ = disk.remove(&temporary);
            let file = disk.open(path, Open::Write)?;
            file.write_at(&bytes, 0)?;
            file.sync()
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::disk::sim::{Fault, SimDisk};

    const DIR: &str = "/j";
    const JOURNAL_FILE: &str = "j-0000000000000001";

    fn path(name: &str) -> PathBuf {
        Path::new(DIR).join(name)
    }

    fn content(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
        disk.files().into_iter().find(|(known, _)| *known == path(name)).map(|(_, bytes)| bytes)
    }

    /// Zeros at the end may be those of a frame.
    fn content_before() -> Vec<u8> {
        [vec![7; 5000], vec![0; 3]].concat()
    }

    /// A file whose first sync failed, so that a second one changes nothing.
    fn after_a_failed_sync(disk: &SimDisk) {
        let file = disk.disk().open(&path(JOURNAL_FILE), Open::Create).unwrap();
        disk.disk().sync_dir(Path::new(DIR)).unwrap();
        file.write_at(&content_before(), 0).unwrap();
        disk.fail_at(disk.operations(), Fault::Error);
        file.sync().unwrap_err();
        Suspects::none(disk.disk(), Path::new(DIR)).add(JOURNAL_FILE.to_owned());
        disk.kill();
    }

    #[test]
    fn a_marked_file_of_the_journal_lasts_once_it_is_written_anew() {
        let disk = SimDisk::new(5);
        after_a_failed_sync(&disk);
        let without = disk.fork();
        without.disk().open(&path(JOURNAL_FILE), Open::Write).unwrap().sync().unwrap();
        without.restart();
        assert_ne!(content(&without, JOURNAL_FILE).unwrap(), content_before(), "the disk tells what the failed sync lost");

        let suspects = Suspects::renew(disk.disk(), Path::new(DIR)).unwrap();
        assert!(suspects.is_empty());
        disk.restart();
        assert_eq!(content(&disk, JOURNAL_FILE).unwrap(), content_before());
    }

    #[test]
    fn a_full_disk_is_no_reason_to_trust_a_file() {
        let disk = SimDisk::new(5);
        after_a_failed_sync(&disk);
        let used: u64 = disk.files().iter().map(|(_, bytes)| bytes.len() as u64).sum();
        disk.set_capacity(Some(used + 100));
        Suspects::renew(disk.disk(), Path::new(DIR)).unwrap();
        disk.restart();
        assert_eq!(content(&disk, JOURNAL_FILE).unwrap(), content_before());
    }

    #[test]
    fn a_start_that_ends_half_way_is_done_again() {
        for operation in 0.. {
            let disk = SimDisk::new(operation + 40);
            after_a_failed_sync(&disk);
            disk.fail_at(disk.operations() + operation, Fault::Crash);
            let ended = Suspects::renew(disk.disk(), Path::new(DIR)).is_err();
            disk.kill();
            Suspects::renew(disk.disk(), Path::new(DIR)).unwrap();
            disk.restart();
            assert_eq!(content(&disk, JOURNAL_FILE).unwrap(), content_before(), "ended at operation {operation}");
            if !ended {
                assert!(operation >= 4, "writing anew has more steps");
                return;
            }
        }
    }

    #[test]
    fn the_mark_is_there_as_long_as_a_file_is_suspect() {
        let disk = SimDisk::new(1);
        let mut suspects = Suspects::none(disk.disk(), Path::new(DIR));
        suspects.add("segment-1".to_owned());
        suspects.add(JOURNAL_FILE.to_owned());
        let text = "adx-mon suspect files, version 1\nj-0000000000000001\nsegment-1\nend\n";
        assert_eq!(content(&disk, NAME).unwrap(), text.as_bytes());
        suspects.set_segments(["segment-2".to_owned()].into_iter());
        let again = Suspects::load(disk.disk(), Path::new(DIR)).unwrap();
        assert!(again.contains("segment-2") && again.contains(JOURNAL_FILE) && !again.contains("segment-1"));
        suspects.remove(JOURNAL_FILE);
        suspects.set_segments(std::iter::empty());
        assert_eq!((content(&disk, NAME), suspects.is_empty()), (None, true));
    }

    #[test]
    fn an_unreadable_mark_makes_all_suspect_until_segments_are_in_order() {
        let newer = "adx-mon suspect files, version 2\nend\n";
        for text in ["", "adx-mon suspect files, version 1\nj-00000000", newer, "\u{0}\u{0}\u{0}"] {
            let disk = SimDisk::new(5);
            after_a_failed_sync(&disk);
            disk.put(&path(NAME), text.as_bytes());
            let mut suspects = Suspects::renew(disk.disk(), Path::new(DIR)).unwrap();
            assert!(suspects.contains("any"), "{text:?}");
            suspects.set_segments(std::iter::empty());
            assert_eq!((content(&disk, NAME), suspects.contains("any")), (None, false));
            disk.restart();
            assert_eq!(content(&disk, JOURNAL_FILE).unwrap(), content_before());
        }
    }

    #[test]
    fn the_mark_is_written_again_when_that_fails() {
        for operation in 0..4 {
            let disk = SimDisk::new(1);
            disk.fail_at(operation, Fault::Error);
            Suspects::none(disk.disk(), Path::new(DIR)).add("a".to_owned());
            assert!(Suspects::load(disk.disk(), Path::new(DIR)).unwrap().contains("a"), "operation {operation}");
        }
    }
}
