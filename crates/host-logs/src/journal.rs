//! systemd's journal, read from its files.
//!
//! A [`Reader`] looks at the journal's folders and gives the entries behind its position, in the journal's order. It
//! keeps nothing open between two reads, so that journals that are rotated, vacuumed or moved away are no special case.
//!
//! A position has the last sequence number of each file, since entries of one file are numbered upwards whatever the clock
//! does. Times are used to find the place quickly, and not while the clock stands before what the journal has already.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use logs::{Destination, Record, Value};
use sdjournal::{EntryRef, Journal, SdJournalError};
use serde::{Deserialize, Serialize};

use crate::Priority;
use troubles::{Answer, Troubles};

mod matches;
mod troubles;

pub use matches::{MatchError, Matches};

/// Where systemd keeps journals: those that last, and those of this boot.
pub const SYSTEM_DIRS: [&str; 2] = ["/var/log/journal", "/run/log/journal"];

/// journald's longest line is 48 KiB unless set otherwise; longer ones come in parts. What a program hands over whole has no
/// such limit.
const MAX_MESSAGE: usize = 1 << 20;

/// Text of one batch.
const MAX_BATCH_BYTES: usize = 8 << 20;

/// How far an entry's sequence number may be ahead of the header, which a machine that went down may not have written. One
/// that is further ahead is damaged, and would hide what comes behind it.
const MAX_AHEAD: u64 = 100_000;

/// Streams whose lines come in parts at one time.
const MAX_PARTIAL: usize = 256;

/// Features of a file that change its format, and that are understood: compression by XZ, LZ4 and Zstandard, keyed hashes, and
/// the compact form.
const KNOWN_FEATURES: u32 = 0x1f;

/// What a reader reads, and where its records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The journal's folders; those that are not there are left out.
    pub dirs: Vec<PathBuf>,
    /// Which entries.
    pub matches: Matches,
    /// Fields that are copied to the record's resource.
    pub fields: Vec<String>,
    /// Where the records go.
    pub destination: Destination,
}

/// Where a reader is, and what it holds of lines that are not whole yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    version: u8,
    /// By file id, the sequence number of the last entry.
    files: BTreeMap<String, u64>,
    /// The latest time of an entry, in microseconds since 1970.
    realtime: u64,
    /// Time and sequence number of an entry that another program read last; those up to it are not read.
    after: Option<(u64, u64)>,
    /// Starts of lines by stream.
    partial: BTreeMap<String, String>,
}

const POSITION_VERSION: u8 = 1;

/// Why a journal could not be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The files could not be read.
    #[error("reading the journal in {dirs}: {reason}")]
    Read {
        /// The folders.
        dirs: String,
        /// What the reader of its files says.
        reason: SdJournalError,
    },
    /// Not a position of this version.
    #[error("the position in the journal is not readable: {0}")]
    Position(String),
}

/// Records, and the reader's position behind them.
#[derive(Debug, Default)]
pub struct Batch {
    /// In the journal's order.
    pub records: Vec<Record>,
    /// To be stored with the records, and given to the next reader.
    pub position: Vec<u8>,
    /// Whether more can be read at once.
    pub more: bool,
    /// Entries that were looked at.
    pub entries: usize,
    /// Bytes that were cut from messages and fields above a mebibyte.
    pub truncated_bytes: u64,
    /// Messages and fields from which bytes were cut.
    pub truncated: u64,
    /// Messages with bytes that are not UTF-8, replaced by U+FFFD.
    pub invalid_utf8: u64,
    /// Files that were found not to be readable since the last read; the others are read.
    pub unreadable: u64,
    /// Entries that cannot be read, and were left out; of a file whose index is damaged, one for all that it hides.
    pub skipped: u64,
    /// Text of the records.
    bytes: usize,
}

/// Follows a journal. Its calls read files, so they belong on a thread that may block.
pub struct Reader {
    target: Target,
    position: Position,
    /// The files as they were when all of them had been read.
    read_to_end: Option<Vec<FileStamp>>,
    /// Files that cannot be read, and why.
    unreadable: BTreeMap<PathBuf, String>,
    troubles: Troubles,
    /// Whether the next read looks at all entries, because a damaged one is in the way of finding the place by time.
    search_all: bool,
}

/// A file: its id, and what changes when entries are added.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct FileStamp {
    id: String,
    path: PathBuf,
    length: u64,
    modified: Option<SystemTime>,
    /// Sequence number of the last entry.
    last: u64,
    /// Time of the first entry.
    first_realtime: u64,
}

impl Reader {
    /// A reader that goes on behind `position`; without one, at the journal's start.
    ///
    /// # Errors
    /// When the position is not one of a reader.
    pub fn new(target: Target, position: Option<&[u8]>) -> Result<Self, JournalError> {
        let mut reader = Reader::from_start(target);
        if let Some(bytes) = position {
            reader.position = read_position(bytes)?;
        }
        Ok(reader)
    }

    /// A reader of everything that the journal has.
    #[must_use]
    pub fn from_start(target: Target) -> Self {
        Reader {
            target,
            position: Position { version: POSITION_VERSION, ..Position::default() },
            read_to_end: None,
            unreadable: BTreeMap::new(),
            troubles: Troubles::default(),
            search_all: false,
        }
    }

    /// The next records, of at most `max` entries; none when nothing was added since. `now_ns` is the present time in
    /// nanoseconds since 1970. An entry that cannot be read when it is tried again is left out.
    ///
    /// # Errors
    /// When the journal, or for the first few times an entry, cannot be read from its disk. The position stays: a later call
    /// begins where this one did.
    pub fn read(&mut self, max: usize, now_ns: u64) -> Result<Batch, JournalError> {
        let (stamps, unreadable) = stamps(&self.target.dirs);
        let mut batch = Batch { unreadable: self.tell(unreadable), ..Batch::default() };
        if stamps.is_empty() || self.read_to_end.as_ref() == Some(&stamps) {
            return Ok(batch);
        }
        let mut position = self.position.clone();
        position.files.retain(|id, _| stamps.iter().any(|stamp| stamp.id == *id));
        let read = self.entries(&stamps, max, &mut position, &mut batch, now_ns);
        read.map_err(|reason| JournalError::Read { dirs: self.dirs(), reason })?;
        batch.position = serde_json::to_vec(&position).map_err(|error| JournalError::Position(error.to_string()))?;
        self.position = position;
        self.read_to_end = (!batch.more).then_some(stamps);
        Ok(batch)
    }

    /// Says which files cannot be read; how many of them it had not said.
    fn tell(&mut self, unreadable: BTreeMap<PathBuf, String>) -> u64 {
        let known = std::mem::replace(&mut self.unreadable, unreadable);
        let news = self.unreadable.iter().filter(|(path, _)| !known.contains_key(*path));
        news.inspect(|(path, why)| tracing::warn!(path = %path.display(), why, "a file of the journal cannot be read; the others are"))
            .count() as u64
    }

    /// Takes up to `max` entries behind the position.
    fn entries(
        &mut self,
        stamps: &[FileStamp],
        max: usize,
        position: &mut Position,
        batch: &mut Batch,
        now_ns: u64,
    ) -> Result<(), SdJournalError> {
        let dirs: Vec<PathBuf> = self.target.dirs.iter().filter(|dir| dir.is_dir()).cloned().collect();
        let journal = Journal::open_dirs_with_config(&dirs, self.troubles.limits())?;
        let mut query = journal.query();
        self.target.matches.narrow(&mut query);
        let since = (!std::mem::take(&mut self.search_all)).then(|| since(position, stamps, now_ns)).flatten();
        if let Some(since) = since {
            query.since_realtime(since);
        }
        self.troubles.begin();
        for entry in query.iter()? {
            if batch.entries == max || batch.bytes >= MAX_BATCH_BYTES || self.troubles.is_done() {
                batch.more = true;
                return Ok(());
            }
            let taken = entry.and_then(|entry| {
                self.troubles.passed(&entry);
                take(&self.target, &entry, stamps, position, batch, now_ns)
            });
            let Err(error) = taken else { continue };
            match self.troubles.answer(&error, batch.entries == 0) {
                Answer::Fail => return Err(error),
                Answer::Again => {
                    // The next pass sees the same entries in the same order.
                    self.search_all = since.is_none();
                    batch.more = true;
                    return Ok(());
                }
                Answer::Skip => batch.skipped += 1,
                Answer::Known => {}
            }
        }
        if self.troubles.end() {
            batch.more = true;
            return Ok(());
        }
        let unread = |stamp: &FileStamp| position.files.get(&stamp.id).is_none_or(|last| *last < stamp.last);
        if since.is_some() && stamps.iter().any(|stamp| self.troubles.in_file(&stamp.path) && unread(stamp)) {
            (self.search_all, batch.more) = (true, true);
            return Ok(());
        }
        // What a file has besides is not for this target, or cannot be read.
        for stamp in stamps {
            let last = position.files.entry(stamp.id.clone()).or_default();
            *last = stamp.last.max(*last);
        }
        position.after = None;
        Ok(())
    }

    fn dirs(&self) -> String {
        self.target.dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
    }
}

/// The time from which on entries can be new, if not all can.
fn since(position: &Position, stamps: &[FileStamp], now_ns: u64) -> Option<u64> {
    if let Some((realtime, _)) = position.after {
        return Some(realtime);
    }
    let earlier = |stamp: &FileStamp| stamp.first_realtime < position.realtime && !position.files.contains_key(&stamp.id);
    let clock_is_behind = now_ns / 1000 < position.realtime;
    (!clock_is_behind && !position.files.is_empty() && !stamps.iter().any(earlier)).then_some(position.realtime)
}

fn read_position(bytes: &[u8]) -> Result<Position, JournalError> {
    let position: Position = serde_json::from_slice(bytes).map_err(|error| JournalError::Position(error.to_string()))?;
    if position.version != POSITION_VERSION {
        return Err(JournalError::Position(format!("it is of version {}, this program knows {POSITION_VERSION}", position.version)));
    }
    Ok(position)
}

/// The position of a cursor file of the reference, for a journal target as the configuration has it.
#[must_use]
pub fn reference_position(dir: &Path, database: &str, table: &str, matches: &[String]) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct File {
        cursor: String,
    }
    let text = std::fs::read(dir.join(reference_cursor_name(database, table, matches))).ok()?;
    let File { cursor } = serde_json::from_slice(&text).ok()?;
    // systemd.journal-fields(7) calls cursors opaque; these two parts of it have not changed since there are cursors.
    let part = |name: &str| cursor.split(';').find_map(|part| u64::from_str_radix(part.strip_prefix(name)?, 16).ok());
    let after = Some((part("t=")?, part("i=")?));
    serde_json::to_vec(&Position { version: POSITION_VERSION, after, ..Position::default() }).ok()
}

/// `journal_<database>_<table>_<xxh64 of the matches, one behind the other>.cursor`
fn reference_cursor_name(database: &str, table: &str, matches: &[String]) -> String {
    let hash = xxhash_rust::xxh64::xxh64(matches.concat().as_bytes(), 0);
    format!("journal_{}_{}_{hash:x}.cursor", database.replace('/', "_"), table.replace('/', "_"))
}

/// The journal's files, one folder deep as systemd lays them out, and those that cannot be read. One that is only being made
/// is left out. Those that journald found unclean at its start it has named `journal~`.
fn stamps(dirs: &[PathBuf]) -> (Vec<FileStamp>, BTreeMap<PathBuf, String>) {
    let (mut stamps, mut unreadable) = (Vec::new(), BTreeMap::new());
    for dir in dirs {
        let below = list(dir).into_iter().filter(|path| path.is_dir());
        for folder in below.chain([dir.clone()]) {
            let files = list(&folder).into_iter().filter(|path| path.extension().is_some_and(|e| e == "journal" || e == "journal~"));
            for path in files {
                match stamp(&path) {
                    Ok(stamp) => stamps.push(stamp),
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => {}
                    Err(error) => drop(unreadable.insert(path, error.to_string())),
                }
            }
        }
    }
    stamps.sort();
    (stamps, unreadable)
}

/// What the header of a file says, whose places systemd's JOURNAL_FILE_FORMAT gives.
fn stamp(path: &Path) -> std::io::Result<FileStamp> {
    let invalid = |why: &str| Error::new(ErrorKind::InvalidData, why);
    // Opening a named pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(invalid("it is no file"));
    }
    let mut file = std::fs::File::open(path)?;
    let mut header = [0; 192];
    file.read_exact(&mut header)?;
    if !header.starts_with(b"LPKSHHRH") {
        return Err(invalid("it is no journal"));
    }
    let number = |at: usize| header[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let features = (number(8) >> 32) as u32;
    if features & !KNOWN_FEATURES != 0 {
        return Err(invalid(&format!("it has features that are not known: {:#x}", features & !KNOWN_FEATURES)));
    }
    if header[16] > 2 {
        return Err(invalid("it is in a state that is not known"));
    }
    let meta = file.metadata()?;
    if number(88).saturating_add(number(96)) > meta.len() {
        return Err(invalid("its end is missing"));
    }
    Ok(FileStamp {
        id: hex(&header[24..40]),
        path: path.to_owned(),
        length: meta.len(),
        modified: meta.modified().ok(),
        last: number(160),
        first_realtime: number(184),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The id of the file of an entry, which its cursor (`SJ1:`, a byte for the kind, the id) has.
fn file_id(entry: &EntryRef) -> Result<String, SdJournalError> {
    let cursor = entry.cursor()?.to_string();
    let id = cursor.strip_prefix("SJ1:").and_then(|digits| digits.get(2..34));
    id.map(str::to_ascii_lowercase).ok_or_else(|| SdJournalError::InvalidQuery { reason: format!("cursor {cursor} has no file id") })
}

fn list(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Takes an entry into the batch.
fn take(
    target: &Target,
    entry: &EntryRef,
    stamps: &[FileStamp],
    position: &mut Position,
    batch: &mut Batch,
    now_ns: u64,
) -> Result<(), SdJournalError> {
    let id = file_id(entry)?;
    let file = stamps.iter().find(|stamp| stamp.id == id);
    if let Some(file) = file.filter(|file| entry.seqnum() > file.last.saturating_add(MAX_AHEAD)) {
        let reason = format!("an entry has the sequence number {}, the last one {}", entry.seqnum(), file.last);
        return Err(SdJournalError::Corrupt { path: Some(file.path.clone()), offset: None, reason });
    }
    let last = position.files.entry(id).or_default();
    let known = position.after.is_some_and(|after| (entry.realtime_usec(), entry.seqnum()) <= after);
    if entry.seqnum() <= *last || known {
        return Ok(());
    }
    *last = entry.seqnum();
    batch.entries += 1;
    position.realtime = position.realtime.max(entry.realtime_usec());
    if !target.matches.accept(|field| values(entry, field)) {
        return Ok(());
    }
    let text = |field: &str| entry.get(field).map(|value| String::from_utf8_lossy(value).into_owned());
    batch.invalid_utf8 += u64::from(entry.get("MESSAGE").is_some_and(|bytes| std::str::from_utf8(bytes).is_err()));
    let stream = text("_STREAM_ID");
    let start = stream.as_ref().and_then(|stream| position.partial.remove(stream)).unwrap_or_default();
    let message = batch.joined(start, &text("MESSAGE").unwrap_or_default());
    if let Some(stream) = stream {
        let has_more = entry.get("_LINE_BREAK") == Some(b"line-max");
        if has_more && position.partial.len() < MAX_PARTIAL {
            position.partial.insert(stream, message);
            return Ok(());
        }
    }
    batch.record(target, entry, message, now_ns);
    Ok(())
}

impl Batch {
    /// The two texts, up to the longest message.
    fn joined(&mut self, mut start: String, end: &str) -> String {
        let room = end.floor_char_boundary(MAX_MESSAGE.saturating_sub(start.len()));
        start.push_str(&end[..room]);
        self.truncated_bytes += (end.len() - room) as u64;
        self.truncated += u64::from(room < end.len());
        start
    }

    fn record(&mut self, target: &Target, entry: &EntryRef, message: String, now_ns: u64) {
        self.bytes += message.len();
        let mut resource = logs::Map::new();
        for field in &target.fields {
            if let Some(value) = entry.get(field) {
                let value = self.joined(String::new(), &String::from_utf8_lossy(value));
                self.bytes += value.len();
                resource.insert(field.clone(), Value::String(value));
            }
        }
        let mut record = Record {
            timestamp: entry.realtime_usec().saturating_mul(1000),
            observed: now_ns,
            body: Record::message(message),
            resource: resource.into(),
            destination: Some(target.destination.clone()),
            ..Record::default()
        };
        let priority = entry.get("PRIORITY").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        if let Some(priority) = priority.filter(|priority: &u32| *priority < 8) {
            Priority::of_pri(priority).apply(&mut record);
        }
        self.records.push(record);
    }
}

/// All values of a field: an entry may have it more than once.
fn values<'a>(entry: &'a EntryRef, field: &str) -> Vec<&'a [u8]> {
    entry.iter_fields().filter(|(name, _)| *name == field).map(|(_, value)| value).collect()
}

#[cfg(test)]
mod tests;
