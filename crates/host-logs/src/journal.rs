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
use sdjournal::{EntryRef, Journal, JournalConfig, SdJournalError};
use serde::{Deserialize, Serialize};

use crate::Priority;

mod matches;

pub use matches::{MatchError, Matches};

/// Where systemd keeps journals: those that last, and those of this boot.
pub const SYSTEM_DIRS: [&str; 2] = ["/var/log/journal", "/run/log/journal"];

/// journald's longest line is 48 KiB unless set otherwise; longer ones come in parts.
const MAX_MESSAGE: usize = 1 << 20;

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
    /// Bytes that were cut from messages above a mebibyte.
    pub truncated_bytes: u64,
    /// Messages from which bytes were cut.
    pub truncated: u64,
    /// Messages with bytes that are not UTF-8, replaced by U+FFFD.
    pub invalid_utf8: u64,
    /// Files that were found not to be readable since the last read; the others are read.
    pub unreadable: u64,
}

/// Follows a journal. Its calls read files, so they belong on a thread that may block.
pub struct Reader {
    target: Target,
    position: Position,
    /// The files as they were when all of them had been read.
    read_to_end: Option<Vec<FileStamp>>,
    /// Files that cannot be read, and why.
    unreadable: BTreeMap<PathBuf, String>,
}

/// A file: its id, and what changes when entries are added.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct FileStamp {
    id: String,
    length: u64,
    modified: Option<SystemTime>,
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
        }
    }

    /// The next records, of at most `max` entries; none when nothing was added since. `now_ns` is the present time in
    /// nanoseconds since 1970.
    ///
    /// # Errors
    /// When the journal cannot be read. The position stays: a later call begins where this one did.
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
        &self,
        stamps: &[FileStamp],
        max: usize,
        position: &mut Position,
        batch: &mut Batch,
        now_ns: u64,
    ) -> Result<(), SdJournalError> {
        let dirs: Vec<PathBuf> = self.target.dirs.iter().filter(|dir| dir.is_dir()).cloned().collect();
        let journal = Journal::open_dirs_with_config(&dirs, JournalConfig::default())?;
        let mut query = journal.query();
        self.target.matches.narrow(&mut query);
        let new_file = stamps.iter().any(|stamp| !position.files.contains_key(&stamp.id));
        let clock_is_behind = now_ns / 1000 < position.realtime;
        if let Some((realtime, _)) = position.after {
            query.since_realtime(realtime);
        } else if !new_file && !clock_is_behind {
            query.since_realtime(position.realtime);
        }
        for entry in query.iter()? {
            if batch.entries == max {
                batch.more = true;
                return Ok(());
            }
            take(&self.target, &entry?, position, batch, now_ns)?;
        }
        // Files without entries for this target are no longer new.
        for stamp in stamps {
            position.files.entry(stamp.id.clone()).or_default();
        }
        position.after = None;
        Ok(())
    }

    fn dirs(&self) -> String {
        self.target.dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
    }
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
/// is left out.
fn stamps(dirs: &[PathBuf]) -> (Vec<FileStamp>, BTreeMap<PathBuf, String>) {
    let (mut stamps, mut unreadable) = (Vec::new(), BTreeMap::new());
    for dir in dirs {
        let below = list(dir).into_iter().filter(|path| path.is_dir());
        for folder in below.chain([dir.clone()]) {
            let files = list(&folder).into_iter().filter(|path| path.extension().is_some_and(|e| e == "journal"));
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

/// The id stands behind signature, flags of what may be ignored and of what may not, and state in the header of a file.
fn stamp(path: &Path) -> std::io::Result<FileStamp> {
    let mut file = std::fs::File::open(path)?;
    let mut header = [0; 40];
    file.read_exact(&mut header)?;
    if !header.starts_with(b"LPKSHHRH") {
        return Err(Error::new(ErrorKind::InvalidData, "it is no journal"));
    }
    let features = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
    if features & !KNOWN_FEATURES != 0 {
        return Err(Error::new(ErrorKind::InvalidData, format!("it has features that are not known: {:#x}", features & !KNOWN_FEATURES)));
    }
    let meta = file.metadata()?;
    Ok(FileStamp { id: hex(&header[24..40]), length: meta.len(), modified: meta.modified().ok() })
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
fn take(target: &Target, entry: &EntryRef, position: &mut Position, batch: &mut Batch, now_ns: u64) -> Result<(), SdJournalError> {
    let last = position.files.entry(file_id(entry)?).or_default();
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
    let mut message = text("MESSAGE").unwrap_or_default();
    batch.invalid_utf8 += u64::from(entry.get("MESSAGE").is_some_and(|bytes| std::str::from_utf8(bytes).is_err()));
    if let Some(stream) = text("_STREAM_ID") {
        let start = position.partial.remove(&stream).unwrap_or_default();
        let before = batch.truncated_bytes;
        message = joined(start, &message, &mut batch.truncated_bytes);
        batch.truncated += u64::from(batch.truncated_bytes > before);
        let has_more = entry.get("_LINE_BREAK") == Some(b"line-max");
        if has_more && position.partial.len() < MAX_PARTIAL {
            position.partial.insert(stream, message);
            return Ok(());
        }
    }
    batch.records.push(record(target, entry, message, now_ns));
    Ok(())
}

/// The two texts, up to the longest message.
fn joined(mut start: String, end: &str, truncated: &mut u64) -> String {
    let room = end.floor_char_boundary(MAX_MESSAGE.saturating_sub(start.len()));
    start.push_str(&end[..room]);
    *truncated += (end.len() - room) as u64;
    start
}

fn record(target: &Target, entry: &EntryRef, message: String, now_ns: u64) -> Record {
    let mut resource = logs::Map::new();
    for field in &target.fields {
        if let Some(value) = entry.get(field) {
            resource.insert(field.clone(), Value::String(String::from_utf8_lossy(value).into_owned()));
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
    record
}

/// All values of a field: an entry may have it more than once.
fn values<'a>(entry: &'a EntryRef, field: &str) -> Vec<&'a [u8]> {
    entry.iter_fields().filter(|(name, _)| *name == field).map(|(_, value)| value).collect()
}

#[cfg(test)]
mod tests;
