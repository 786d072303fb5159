//! Looking at a storage directory without touching it: no lock, no write, no recovery.
//!
//! [`Snapshot::of`] reads the journal as recovery would and says what is where: sealed and open segments, rows that are
//! in the journal alone, dead letters, quarantine. It works while the owner of the directory runs, and on directories of
//! the reference, which have segment files and no journal. One journal file and one block are in memory at a time; only a
//! segment file with a damaged block is read whole.

mod blocks;
mod fold;
mod verify;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use self::fold::Fold;
use crate::OpenError;
use crate::disk::{Disk, Entry, Open};
use crate::error::During;
use crate::journal::frame::read_head;
use crate::journal::scan::{self, Files, Loaded};
use crate::segment::{self, FileName};
use crate::store::frames::{self, DataHead, SealedRecord};
use crate::store::recover;
use crate::store::stage::unpack;
use crate::store::tables::{disk_name, open_name};
use crate::store::takeover::{id_of, key_of};
use crate::types::{BatchRecord, Ledger, SegmentId, TableKey};

pub use self::blocks::Checked;
pub use self::verify::{Finding, Verification};

/// How often a journal is read anew when files of it went meanwhile.
const ATTEMPTS: usize = 5;

/// Where rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A segment that waits for its destination.
    Sealed,
    /// A segment that grows; as of the last checkpoint.
    Open,
    /// Frames of the journal, in no segment yet.
    Journal,
    /// A segment that was refused for ever.
    Dead,
    /// Bytes that could not be read.
    Quarantined,
    /// A segment file of which no journal speaks: the reference's.
    File,
}

impl Place {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Place::Sealed => "sealed",
            Place::Open => "open",
            Place::Journal => "journal",
            Place::Dead => "dead",
            Place::Quarantined => "quarantined",
            Place::File => "file",
        }
    }
}

/// Rows of one table in one place.
#[derive(Debug, Clone)]
pub struct Item {
    /// Where they are.
    pub place: Place,
    /// Their table, when it is known.
    pub table: Option<TableKey>,
    /// CSV records; `None` where nobody can tell.
    pub rows: Option<u64>,
    /// Length of the file that counts; in the journal: of the rows before compression.
    pub bytes: u64,
    /// When the first row came, milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Identity of the segment.
    pub id: Option<SegmentId>,
    /// Number per (sender, database) of a sealed segment.
    pub number: Option<u64>,
    /// Digest that the journal has of it.
    pub digest: Option<u64>,
    /// The file.
    pub path: PathBuf,
    /// The documented name, for `POST /transfer?filename=`; empty for rows of the journal.
    pub file_name: String,
    /// Why it is a dead letter.
    pub reason: Option<String>,
    /// The file is not whole and would be made again from the journal: so many bytes of it count.
    pub rebuilt_from: Option<u64>,
}

impl Item {
    /// Whether each block begins with a header line.
    pub fn is_headed(&self) -> bool {
        self.table.as_ref().is_some_and(|table| !table.schema.is_empty())
    }
}

/// Rows of a table that are in the journal alone.
#[derive(Debug, Clone, Copy, Default)]
struct JournalRows {
    rows: u64,
    bytes: u64,
    since_ms: Option<u64>,
}

/// What a journal knows.
#[derive(Debug, Clone, Default)]
pub struct JournalFacts {
    /// Files of it.
    pub files: usize,
    /// Their length, as preallocated.
    pub bytes: u64,
    /// LSN of the newest readable checkpoint; `None` when there is none and totals would start again.
    pub checkpoint_lsn: Option<u64>,
    /// Frames behind the checkpoint.
    pub frames: u64,
    /// The highest LSN.
    pub last_lsn: u64,
    /// Everything up to it was durable for certain.
    pub durable_lsn: u64,
    /// Identity of this directory as a sender.
    pub sender: [u8; 16],
    /// Rows by table and place, since the directory was made.
    pub ledger: Ledger,
    /// Cursors.
    pub marks: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Upload batches with unsettled segments.
    pub batches: Vec<BatchRecord>,
    /// Next number and lowest unsettled number of segments, by database.
    pub numbers: BTreeMap<String, (u64, u64)>,
    /// What is remembered of senders: identity, database, floor, numbers, last heard of (milliseconds since 1970).
    pub senders: Vec<([u8; 16], String, u64, usize, u64)>,
}

/// A directory at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// The directory.
    pub dir: PathBuf,
    /// What its journal knows; `None` for one of the reference.
    pub journal: Option<JournalFacts>,
    /// What is in it, by table.
    pub items: Vec<Item>,
    /// Files that are nobody's.
    pub foreign: Vec<String>,
    loaded: Loaded,
    fold: Fold,
}

/// Whether a directory has a journal.
pub fn has_journal(disk: &dyn Disk, dir: &Path) -> bool {
    disk.list(&dir.join("journal")).is_ok()
}

impl Snapshot {
    /// Looks at a directory.
    ///
    /// # Errors
    /// It cannot be read, or was written by a newer version.
    pub fn of(disk: &dyn Disk, dir: &Path) -> Result<Snapshot, OpenError> {
        let entries = disk.list(dir).during("listing", dir)?;
        let mut snapshot = Snapshot {
            dir: dir.to_owned(),
            journal: None,
            items: Vec::new(),
            foreign: Vec::new(),
            loaded: Loaded::default(),
            fold: Fold::default(),
        };
        if has_journal(disk, dir) {
            (snapshot.loaded, snapshot.fold) = read_journal(disk, &dir.join("journal"))?;
            snapshot.facts();
            snapshot.known_segments(disk)?;
            snapshot.journal_rows();
        }
        snapshot.other_files(disk, &entries)?;
        snapshot.folder(disk, "dead", Place::Dead)?;
        snapshot.folder(disk, "quarantine", Place::Quarantined)?;
        snapshot.items.sort_by(|a, b| (&a.table, a.since_ms, a.place, &a.path).cmp(&(&b.table, b.since_ms, b.place, &b.path)));
        Ok(snapshot)
    }

    fn facts(&mut self) {
        let state = &self.fold.state;
        let senders = state
            .senders
            .iter()
            .map(|((id, database), sender)| (*id, database.to_string(), sender.floor, sender.digests.len(), sender.seen_ms));
        let numbers = state.databases.iter().map(|(name, known)| (name.to_string(), (known.next_number, state.floor(name))));
        self.journal = Some(JournalFacts {
            files: self.loaded.files.len(),
            bytes: self.loaded.files.iter().map(|file| file.len).sum(),
            checkpoint_lsn: self.fold.has_checkpoint.then_some(self.fold.as_of),
            frames: self.fold.frames,
            last_lsn: self.loaded.next_lsn() - 1,
            durable_lsn: self.loaded.durable_lsn,
            sender: state.sender,
            ledger: state.ledger(),
            marks: state.marks.clone(),
            batches: state.batches.values().cloned().collect(),
            numbers: numbers.collect(),
            senders: senders.collect(),
        });
    }

    fn known_segments(&mut self, disk: &dyn Disk) -> Result<(), OpenError> {
        let later: Vec<SegmentId> = self.fold.later.values().flat_map(|later| later.values().map(|(id, _)| *id)).collect();
        for record in self.fold.state.sealed.values() {
            let mut item = self.segment(disk, record, Place::Sealed);
            if later.contains(&record.id) && !is_whole(disk, &item).during("reading", &item.path)? {
                item.rebuilt_from = Some(self.fold.begun.get(&record.id).copied().unwrap_or(0));
            }
            self.items.push(item);
        }
        for letter in self.fold.state.dead.values() {
            let mut item = self.segment(disk, &letter.segment, Place::Dead);
            item.reason = Some(letter.reason.clone());
            self.items.push(item);
        }
        for open in &self.fold.open {
            self.items.push(Item {
                place: Place::Open,
                table: Some(open.table.clone()),
                rows: Some(open.rows),
                bytes: open.bytes,
                since_ms: Some(open.created_ms),
                id: Some(open.id),
                number: None,
                digest: Some(open.digest),
                path: self.dir.join(open_name(open.id)),
                file_name: crate::store::tables::file_name(&open.table, open.id),
                reason: None,
                rebuilt_from: None,
            });
        }
        Ok(())
    }

    fn segment(&self, disk: &dyn Disk, record: &SealedRecord, place: Place) -> Item {
        let name = disk_name(&record.table, record.id);
        // A name follows its frame, so a file may still have the one before.
        let places = [self.dir.join(&name), self.dir.join("dead").join(&name), self.dir.join(open_name(record.id))];
        let path = places.iter().find(|path| disk.open(path, Open::Read).is_ok()).unwrap_or(&places[0]);
        Item {
            place,
            table: Some(record.table.clone()),
            rows: Some(record.rows),
            bytes: record.bytes,
            since_ms: Some(record.created_ms),
            id: Some(record.id),
            number: Some(record.number),
            digest: Some(record.digest),
            path: path.clone(),
            file_name: crate::store::tables::file_name(&record.table, record.id),
            reason: None,
            rebuilt_from: None,
        }
    }

    fn journal_rows(&mut self) {
        for (table, rows) in self.fold.rows.iter().filter(|(_, rows)| rows.rows > 0) {
            self.items.push(Item {
                place: Place::Journal,
                table: Some(table.clone()),
                rows: Some(rows.rows),
                bytes: rows.bytes,
                since_ms: rows.since_ms,
                id: None,
                number: None,
                digest: None,
                path: self.dir.join("journal"),
                file_name: String::new(),
                reason: None,
                rebuilt_from: None,
            });
        }
    }

    /// Segment files that no journal speaks of, and what is no segment at all.
    fn other_files(&mut self, disk: &dyn Disk, entries: &[Entry]) -> Result<(), OpenError> {
        let mut known: Vec<PathBuf> = self.items.iter().map(|item| item.path.clone()).collect();
        known.sort();
        let state = &self.fold.state;
        let lost_frames = self.loaded.skipped.iter().any(|skipped| !skipped.torn);
        // One of ours whose Sealed frame is lost: its rows are in the journal.
        let ours = |id: SegmentId| id.0 > state.last_id && (lost_frames || id.0 >> 13 & 0x3FF == u64::from(recover::host()));
        // A settled one goes when its settlement is durable.
        let gone = |id: SegmentId| self.journal.is_some() && (ours(id) || state.doomed.contains_key(&id));
        let mut files = Vec::new();
        for entry in entries.iter().filter(|entry| !entry.is_dir && entry.name != "lock" && !entry.name.ends_with(".tmp")) {
            let path = self.dir.join(&entry.name);
            let id = id_of(&entry.name);
            if known.binary_search(&path).is_ok() || id.is_some_and(gone) {
                continue;
            }
            match entry.name.ends_with(".wal") && FileName::parse(&entry.name).is_ok() {
                true => files.push(path),
                false => self.foreign.push(entry.name.clone()),
            }
        }
        for path in files {
            match file(disk, &path) {
                // It was sent and removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                read => self.items.push(read.during("reading", &path)?.0),
            }
        }
        self.foreign.sort();
        Ok(())
    }

    /// Files of a folder that nothing is known of.
    fn folder(&mut self, disk: &dyn Disk, name: &str, place: Place) -> Result<(), OpenError> {
        let dir = self.dir.join(name);
        let entries = match disk.list(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            listed => listed.during("listing", &dir)?,
        };
        for entry in entries.into_iter().filter(|entry| !entry.is_dir) {
            let path = dir.join(&entry.name);
            if self.items.iter().any(|item| item.path == path) {
                continue;
            }
            // Bytes of a segment are kept under its name and their position.
            let stem = entry.name.find(".wal-").map_or(entry.name.as_str(), |at| &entry.name[..at + 4]);
            let parsed = FileName::parse(stem).ok();
            self.items.push(Item {
                place,
                table: parsed.as_ref().map(key_of),
                rows: None,
                bytes: entry.len,
                since_ms: parsed.as_ref().and_then(|name| segment::created_ms(&name.epoch)),
                id: None,
                number: None,
                digest: None,
                path,
                file_name: entry.name,
                reason: None,
                rebuilt_from: None,
            });
        }
        Ok(())
    }

    /// Hands the values (header line, where there is one, and rows) of an item's readable blocks to `visit`. Items of
    /// the journal have none: [`Snapshot::read_journal_rows`] reads those of all tables at once.
    ///
    /// # Errors
    /// The file cannot be read; `NotFound` when it is gone meanwhile.
    pub fn read(&self, disk: &dyn Disk, item: &Item, visit: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<Checked> {
        read_item(disk, item, visit)
    }

    /// Hands the rows that are in no whole segment to `visit`, in the order they came: table, header line, rows.
    ///
    /// # Errors
    /// A file of the journal cannot be read.
    pub fn read_journal_rows(
        &self,
        disk: &dyn Disk,
        wanted: &dyn Fn(&TableKey) -> bool,
        visit: &mut impl FnMut(&TableKey, &[u8], &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut files = Files::new(disk, &self.loaded);
        let whole = |id: SegmentId| !self.items.iter().any(|item| item.id == Some(id) && item.rebuilt_from.is_some());
        for frame in self.loaded.frames.iter().filter(|frame| frame.kind == frames::DATA && frame.place.lsn > self.fold.as_of) {
            let raw = files.frame(frame).map_err(io::Error::other)?;
            let Ok(head) = read_head(raw) else { continue };
            let Ok(data) = DataHead::decode(head.directory) else { continue };
            let mine = |table: &TableKey| wanted(table) && !self.fold.segment_of(table, frame.place.lsn).is_some_and(whole);
            if !data.sections.iter().any(|section| mine(&section.table)) {
                continue;
            }
            let lens: Vec<u32> = head.parts.iter().map(|part| part.raw).collect();
            let Some((contents, _)) = unpack(&data, &head.raw_parts(raw), &lens) else { continue };
            for (section, content) in data.sections.iter().zip(contents).filter(|(section, _)| mine(&section.table)) {
                if section.blocks {
                    rows_of_blocks(&content, !section.header.is_empty(), &mut |header, rows| visit(&section.table, header, rows))?;
                } else if !content.is_empty() {
                    visit(&section.table, &section.header, &content)?;
                }
            }
        }
        Ok(())
    }
}

/// A single segment file, whoever's it is, and what is readable in it.
///
/// # Errors
/// It cannot be read.
pub fn file(disk: &dyn Disk, path: &Path) -> io::Result<(Item, Checked)> {
    let opened = disk.open(path, Open::Read)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let parsed = FileName::parse(&name).ok();
    let mut item = Item {
        place: Place::File,
        table: parsed.as_ref().map(key_of),
        rows: None,
        bytes: opened.len()?,
        since_ms: parsed.as_ref().and_then(|name| segment::created_ms(&name.epoch)),
        id: None,
        number: None,
        digest: None,
        path: path.to_owned(),
        file_name: name,
        reason: None,
        rebuilt_from: None,
    };
    let checked = blocks::read(&*opened, u64::MAX, item.is_headed(), &mut |_| Ok(()))?;
    item.rows = Some(checked.rows);
    Ok((item, checked))
}

/// As [`Snapshot::read`], for an item of [`file`].
///
/// # Errors
/// The file cannot be read.
pub fn read_item(disk: &dyn Disk, item: &Item, visit: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<Checked> {
    if item.place == Place::Journal || item.rebuilt_from == Some(0) {
        return Ok(Checked::default());
    }
    let opened = disk.open(&item.path, Open::Read)?;
    let end = match item.place {
        Place::Sealed | Place::Open => item.rebuilt_from.unwrap_or(item.bytes),
        _ => u64::MAX,
    };
    blocks::read(&*opened, end, item.is_headed(), visit)
}

/// The journal, at a moment when none of its files went.
fn read_journal(disk: &dyn Disk, dir: &Path) -> Result<(Loaded, Fold), OpenError> {
    let mut read = None;
    for _ in 0..ATTEMPTS {
        let attempt = scan::load(disk, dir).and_then(|loaded| Fold::of(disk, &loaded).map(|fold| (loaded, fold)));
        let now = disk.list(dir).during("listing", dir)?;
        let stays =
            |loaded: &Loaded| loaded.files.iter().all(|file| now.iter().any(|entry| Some(entry.name.as_ref()) == file.path.file_name()));
        match attempt {
            Ok((loaded, fold)) if stays(&loaded) => return Ok((loaded, fold)),
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => read = Some(other?),
        }
    }
    read.ok_or_else(|| OpenError::Io {
        action: "reading",
        path: dir.to_owned(),
        source: io::Error::other("its files go faster than they can be read"),
    })
}

/// Whether the file of a segment that no checkpoint covers is what was sealed.
fn is_whole(disk: &dyn Disk, item: &Item) -> io::Result<bool> {
    match disk.open(&item.path, Open::Read) {
        Ok(file) if file.len()? >= item.bytes => {
            let checked = blocks::read(&*file, item.bytes, item.is_headed(), &mut |_| Ok(()))?;
            Ok(checked.damaged.is_empty() && Some(checked.digest) == item.digest)
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(false),
    }
}

/// Header line and rows of each readable block.
fn rows_of_blocks(area: &[u8], headed: bool, visit: &mut impl FnMut(&[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut value = Vec::new();
    for range in segment::verify_blocks(area, headed).good {
        for block in segment::blocks_at(&area[..range.end], range.start).flatten() {
            if block.decode(&mut value).is_ok() {
                let (header, rows) = split_header(&value, headed);
                visit(header, rows)?;
            }
        }
    }
    Ok(())
}

/// The header line, with its newline, and the rows of a block's value.
pub fn split_header(value: &[u8], headed: bool) -> (&[u8], &[u8]) {
    match memchr::memchr(b'\n', value) {
        Some(newline) if headed => value.split_at(newline + 1),
        None if headed => (value, &[]),
        _ => (&[], value),
    }
}
