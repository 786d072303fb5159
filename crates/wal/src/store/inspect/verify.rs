//! Every block and every frame of a directory, checked.

use std::io;
use std::path::{Path, PathBuf};

use super::{Checked, Item, Place, Snapshot, file, read_item};
use crate::OpenError;
use crate::disk::Disk;
use crate::error::During;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// First byte of it.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What is wrong.
    pub kind: String,
    /// Rows lost with them; `None` where nobody can tell.
    pub rows: Option<u64>,
}

/// What was checked, and what was found.
#[derive(Debug, Clone, Default)]
pub struct Verification {
    /// Segment files read.
    pub files: usize,
    /// Readable blocks in them.
    pub blocks: usize,
    /// Rows in readable blocks.
    pub rows: u64,
    /// Frames of the journal.
    pub frames: usize,
    /// Bytes at the end of the journal that were never acknowledged: no damage.
    pub torn_bytes: u64,
    /// Segments that recovery makes again from the journal: no damage either.
    pub rebuilt: usize,
    /// Damage.
    pub findings: Vec<Finding>,
}

impl Verification {
    /// Checks a directory. While its owner runs, what is found is looked at again before it is told.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of_directory(disk: &dyn Disk, dir: &Path) -> Result<Verification, OpenError> {
        let mut first = Verification::once(disk, dir)?;
        if !first.findings.is_empty() {
            let second = Verification::once(disk, dir)?;
            first.findings.retain(|finding| second.findings.contains(finding));
        }
        Ok(first)
    }

    /// Checks a single segment file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of_file(disk: &dyn Disk, path: &Path) -> io::Result<Verification> {
        let (item, checked) = file(disk, path)?;
        let mut all = Verification::default();
        all.segment(&item, &checked);
        Ok(all)
    }

    /// Adds what was found elsewhere.
    pub fn merge(&mut self, other: Verification) {
        self.files += other.files;
        self.blocks += other.blocks;
        self.rows += other.rows;
        self.frames += other.frames;
        self.torn_bytes += other.torn_bytes;
        self.rebuilt += other.rebuilt;
        self.findings.extend(other.findings);
    }

    fn once(disk: &dyn Disk, dir: &Path) -> Result<Verification, OpenError> {
        let snapshot = Snapshot::of(disk, dir)?;
        let mut all = Verification { frames: snapshot.loaded.frames.len(), ..Verification::default() };
        all.journal(&snapshot);
        for item in snapshot.items.iter().filter(|item| !matches!(item.place, Place::Journal | Place::Quarantined)) {
            all.rebuilt += usize::from(item.rebuilt_from.is_some());
            match read_item(disk, item, &mut |_| Ok(())) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => all.missing(item),
                checked => all.segment(item, &checked.during("reading", &item.path)?),
            }
        }
        Ok(all)
    }

    fn journal(&mut self, snapshot: &Snapshot) {
        let path = |file: usize| snapshot.loaded.files[file].path.clone();
        // What lies before the checkpoint is folded into it, whatever it looks like.
        let counts = |before: Option<u64>| before.is_none_or(|lsn| lsn > snapshot.fold.as_of);
        for skipped in snapshot.loaded.skipped.iter().filter(|skipped| counts(skipped.before)) {
            let (offset, bytes) = (skipped.range.start as u64, skipped.range.len() as u64);
            if skipped.torn {
                self.torn_bytes += bytes;
            } else {
                let kind = "frames of the journal cannot be read".to_owned();
                self.findings.push(Finding { path: path(skipped.file), offset, bytes, kind, rows: None });
            }
        }
        for broken in &snapshot.fold.broken {
            let (offset, bytes, rows) = (broken.offset, broken.bytes, broken.rows);
            let kind = match rows {
                Some(_) => "parts of a journal frame cannot be read",
                None => "a journal frame makes no sense",
            };
            self.findings.push(Finding { path: path(broken.file), offset, bytes, kind: kind.to_owned(), rows });
        }
        let Some(facts) = &snapshot.journal else { return };
        let journal = || snapshot.dir.join("journal");
        if facts.checkpoint_lsn.is_none() && !snapshot.loaded.files.is_empty() {
            let kind = "no checkpoint is readable: totals would start again".to_owned();
            self.findings.push(Finding { path: journal(), offset: 0, bytes: 0, kind, rows: None });
        }
        // With damage in the journal the totals wait for recovery to correct them.
        if let (true, Err(error)) = (self.findings.is_empty(), facts.ledger.check()) {
            self.findings.push(Finding { path: journal(), offset: 0, bytes: 0, kind: error.to_string(), rows: None });
        }
    }

    fn missing(&mut self, item: &Item) {
        // What is in the journal yet is no loss.
        if item.rebuilt_from.is_none() {
            let kind = "the file is missing".to_owned();
            self.findings.push(Finding { path: item.path.clone(), offset: 0, bytes: item.bytes, kind, rows: item.rows });
        }
    }

    fn segment(&mut self, item: &Item, checked: &Checked) {
        self.files += 1;
        self.blocks += checked.blocks;
        self.rows += checked.rows;
        if item.rebuilt_from.is_some() {
            return;
        }
        let before = self.findings.len();
        // One damaged range loses what the record has more than the blocks; of several nobody knows the shares.
        let lost = item.digest.and(item.rows).map(|rows| rows.saturating_sub(checked.rows));
        let rows = lost.filter(|_| checked.damaged.len() == 1);
        for (range, kind) in &checked.damaged {
            let (offset, bytes) = (range.start, range.end - range.start);
            self.findings.push(Finding { path: item.path.clone(), offset, bytes, kind: kind.to_string(), rows });
        }
        let end = checked.good.last().map_or(segment_header(item), |range| range.end);
        let end = checked.damaged.last().map_or(end, |(range, _)| range.end.max(end));
        if item.digest.is_some() && end < item.bytes {
            let kind = "the file is shorter than its record".to_owned();
            self.findings.push(Finding { path: item.path.clone(), offset: end, bytes: item.bytes - end, kind, rows: lost });
        }
        if self.findings.len() == before && item.digest.is_some_and(|digest| digest != checked.digest) {
            let kind = "the blocks are not those that were sealed".to_owned();
            self.findings.push(Finding { path: item.path.clone(), offset: 0, bytes: item.bytes, kind, rows: None });
        }
    }
}

/// Where the blocks of a file that is there begin.
fn segment_header(item: &Item) -> u64 {
    item.bytes.min(crate::segment::HEADER.len() as u64)
}
