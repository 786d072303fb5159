//! Reading a journal back: which frames count, which ranges are damaged, where the torn tail begins.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::frame::{self, MAGIC, Place};
use super::suspects::Suspects;
use super::writer::{Start, file_name, parse_file_name};
use crate::OpenError;
use crate::disk::{self, Disk};
use crate::error::During;

/// A frame whose head is readable.
#[derive(Debug, Clone)]
pub(crate) struct FrameAt {
    /// Index into [`Loaded::files`].
    pub(crate) file: usize,
    pub(crate) range: Range<usize>,
    pub(crate) kind: u8,
    pub(crate) place: Place,
    /// Some part of the body is damaged.
    pub(crate) damaged: bool,
}

/// A file of the journal.
#[derive(Debug, Clone)]
pub(crate) struct JournalFile {
    pub(crate) sequence: u64,
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
    /// Where the zeros of a file that was not filled begin; 0 in a file without a frame.
    used: u64,
}

/// Bytes that are skipped, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skipped {
    pub(crate) file: usize,
    pub(crate) range: Range<usize>,
    /// Never acknowledged: not damage.
    pub(crate) torn: bool,
    /// LSN of the next readable frame.
    pub(crate) before: Option<u64>,
}

/// All that a journal holds.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) files: Vec<JournalFile>,
    /// Frames that count, by LSN. Damaged ones may have lost parts of their body.
    pub(crate) frames: Vec<FrameAt>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) durable_lsn: u64,
    pub(crate) next_file: u64,
}

impl Loaded {
    /// The LSN behind the last frame that counts.
    pub(crate) fn next_lsn(&self) -> u64 {
        self.frames.last().map_or(1, |frame| frame.place.lsn + 1)
    }

    /// Makes what was read durable: after a kill it may only be in memory of the kernel. Room that was allocated ahead
    /// is given back, since writing goes on in another file: else every kill would leave a whole file to be read.
    pub(crate) fn sync(&mut self, suspects: &mut Suspects, dir: &Path) -> Result<(), OpenError> {
        let disk = suspects.disk();
        for file in &mut self.files {
            let handle = disk.open(&file.path, disk::Open::Write).during("opening", &file.path)?;
            if file.used > 0 && file.used < file.len {
                handle.set_len(file.used).during("cutting", &file.path)?;
                file.len = file.used;
            }
            if let Err(error) = handle.sync() {
                suspects.add(file_name(file.sequence));
                return Err(error).during("syncing", &file.path);
            }
        }
        disk.sync_dir(dir).during("syncing", dir)?;
        self.durable_lsn = self.next_lsn() - 1;
        Ok(())
    }

    /// Where a writer goes on. Files without a frame are left out; [`Loaded::empty_files`] lists them.
    pub(crate) fn start(&self) -> Start {
        let files = self.files.iter().enumerate().filter_map(|(i, file)| {
            let first = self.frames.iter().find(|frame| frame.file == i)?;
            Some((file.sequence, first.place.base_lsn, file.len))
        });
        Start { next_file: self.next_file, next_lsn: self.next_lsn(), durable_lsn: self.durable_lsn, files: files.collect() }
    }

    /// The last file, when it has no content: reserved, and never used.
    pub(crate) fn unused_file(&self) -> Option<&JournalFile> {
        let last = self.files.len().checked_sub(1)?;
        let used = self.frames.iter().any(|frame| frame.file == last) || self.skipped.iter().any(|skipped| skipped.file == last);
        self.files.last().filter(|_| !used)
    }

    /// Files that hold no frame that counts.
    pub(crate) fn empty_files(&self) -> impl Iterator<Item = &JournalFile> {
        self.files.iter().enumerate().filter(|(i, _)| !self.frames.iter().any(|frame| frame.file == *i)).map(|(_, f)| f)
    }
}

/// Reads journal files one at a time.
pub(crate) struct Files<'a> {
    disk: &'a dyn Disk,
    loaded: &'a Loaded,
    current: Option<(usize, Vec<u8>)>,
}

impl<'a> Files<'a> {
    pub(crate) fn new(disk: &'a dyn Disk, loaded: &'a Loaded) -> Self {
        Files { disk, loaded, current: None }
    }

    pub(crate) fn frame(&mut self, frame: &FrameAt) -> Result<&[u8], OpenError> {
        if self.current.as_ref().is_none_or(|(file, _)| *file != frame.file) {
            let path = &self.loaded.files[frame.file].path;
            self.current = Some((frame.file, disk::read_all(self.disk, path).during("reading", path)?));
        }
        Ok(self.current.as_ref().and_then(|(_, bytes)| bytes.get(frame.range.clone())).unwrap_or_default())
    }
}

/// Scans all files of `dir`.
pub(crate) fn load(disk: &dyn Disk, dir: &Path) -> Result<Loaded, OpenError> {
    let mut loaded = Loaded { next_file: 1, ..Loaded::default() };
    for entry in disk.list(dir).during("listing", dir)? {
        if let Some(sequence) = parse_file_name(&entry.name).filter(|_| !entry.is_dir) {
            loaded.files.push(JournalFile { sequence, path: dir.join(entry.name), len: entry.len, used: 0 });
            loaded.next_file = loaded.next_file.max(sequence.saturating_add(1));
        }
    }
    loaded.files.sort_by_key(|file| file.sequence);
    let mut scans = Vec::with_capacity(loaded.files.len());
    for (index, file) in loaded.files.iter_mut().enumerate() {
        let bytes = read_file(disk, &file.path)?;
        let scan = scan_file(&bytes, index, file.sequence, &file.path)?;
        file.used = scan.used() as u64;
        scans.push(scan);
    }
    judge(&mut loaded, scans);
    Ok(loaded)
}

/// A file that another reader removed meanwhile reads as empty; other errors are errors.
fn read_file(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, OpenError> {
    match disk::read_all(disk, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.during("reading", path),
    }
}

#[derive(Debug, Default)]
struct FileScan {
    frames: Vec<FrameAt>,
    /// Ranges between frames, and behind the last one where bytes are not all zero.
    gaps: Vec<Range<usize>>,
}

impl FileScan {
    /// Where the last frame, or what is unreadable behind it, ends; 0 without a frame.
    fn used(&self) -> usize {
        let end = |range: Option<&Range<usize>>| range.map_or(0, |range| range.end);
        let frames = end(self.frames.last().map(|frame| &frame.range));
        if frames == 0 { 0 } else { frames.max(end(self.gaps.last())) }
    }
}

fn scan_file(bytes: &[u8], file: usize, sequence: u64, path: &Path) -> Result<FileScan, OpenError> {
    let finder = memchr::memmem::Finder::new(&MAGIC);
    let mut scan = FileScan::default();
    let mut at = 0;
    let mut gap_from = None;
    let mut last_lsn = 0;
    while at < bytes.len() {
        match frame_at(&bytes[at..], sequence, last_lsn) {
            Some(found) if found.version > frame::VERSION => {
                return Err(OpenError::NewerVersion { path: path.to_owned(), version: found.version });
            }
            Some(mut found) => {
                scan.gaps.extend(gap_from.take().map(|from| from..at));
                found.frame.file = file;
                found.frame.range = at..at + found.frame.range.end;
                last_lsn = found.frame.place.lsn;
                at = found.frame.range.end;
                scan.frames.push(found.frame);
            }
            None => {
                gap_from.get_or_insert(at);
                match finder.find(&bytes[at + 1..]) {
                    Some(next) => at += 1 + next,
                    None => break,
                }
            }
        }
    }
    if let Some(from) = gap_from {
        let used = bytes[from..].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if used > 0 {
            scan.gaps.push(from..from + used);
        }
    }
    Ok(scan)
}

struct Found {
    version: u8,
    frame: FrameAt,
}

fn frame_at(bytes: &[u8], sequence: u64, last_lsn: u64) -> Option<Found> {
    let head = frame::read_head(bytes).ok()?;
    if head.place.file != sequence || head.place.lsn <= last_lsn {
        return None;
    }
    let damaged = !head.stored_parts(bytes).all(|(part, stored)| part.is_intact(stored));
    let end = (head.head_len + head.body_len).min(bytes.len());
    let frame = FrameAt { file: 0, range: 0..end, kind: head.kind, place: head.place, damaged };
    Some(Found { version: head.version, frame })
}

/// Decides which frames count and what the gaps between them were.
fn judge(loaded: &mut Loaded, mut scans: Vec<FileScan>) {
    // A file's base makes void what older files hold at or above it: groups whose sync failed.
    let mut limit = u64::MAX;
    for scan in scans.iter_mut().rev() {
        let base = scan.frames.first().map(|frame| frame.place.base_lsn);
        scan.frames.retain(|frame| frame.place.lsn < limit);
        limit = base.map_or(limit, |base| base.min(limit));
    }
    let durable = scans.iter().flat_map(|scan| &scan.frames).map(|frame| frame.place.durable_lsn).max().unwrap_or(0);
    loaded.durable_lsn = durable;
    let mut expected = None;
    let mut open_gaps: Vec<(usize, Range<usize>)> = Vec::new();
    for (file, scan) in scans.into_iter().enumerate() {
        let mut gaps = scan.gaps.into_iter().peekable();
        for frame in scan.frames {
            while let Some(gap) = gaps.next_if(|gap| gap.start < frame.range.start) {
                open_gaps.push((file, gap));
            }
            let lsn = frame.place.lsn;
            close_gaps(loaded, &mut open_gaps, expected.unwrap_or(frame.place.base_lsn), lsn, durable);
            if frame.damaged && lsn > durable {
                // Not acknowledged, or the very last group: whole or not at all.
                loaded.skipped.push(Skipped { file, range: frame.range, torn: true, before: Some(lsn) });
                // Its LSN counts as seen, so that the gap it leaves is not taken for damage.
                expected = Some(lsn + 1);
                continue;
            }
            expected = Some(lsn + 1);
            loaded.frames.push(frame);
        }
        open_gaps.extend(gaps.map(|gap| (file, gap)));
    }
    for (file, range) in open_gaps {
        loaded.skipped.push(Skipped { file, range, torn: true, before: None });
    }
}

/// Classifies the gaps before the frame `lsn`: damage when an LSN that was durable is missing.
fn close_gaps(loaded: &mut Loaded, gaps: &mut Vec<(usize, Range<usize>)>, expected: u64, lsn: u64, durable: u64) {
    let missing = expected..lsn;
    for (file, range) in gaps.drain(..) {
        if !missing.is_empty() {
            loaded.skipped.push(Skipped { file, range, torn: missing.start > durable, before: Some(lsn) });
        }
    }
}
