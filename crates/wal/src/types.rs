//! The nouns of the engine: tables, requests, segments, settlements, and the reports about them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::Refusal;

/// What an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Synced to the disk: survives a power cut.
    #[default]
    Disk,
    /// Written to the kernel: survives the end of the process; synced about a second later.
    Process,
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "disk" => Ok(Durability::Disk),
            "process" => Ok(Durability::Process),
            other => Err(format!("unknown durability {other:?}: use \"disk\" or \"process\"")),
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Disk => "disk",
            Durability::Process => "process",
        })
    }
}

/// Destination of rows. Rows of one key share a segment, and so a header line.
#[derive(Debug, Clone, Eq, PartialOrd, Ord)]
pub struct TableKey {
    /// Database name.
    pub database: Arc<str>,
    /// Table name.
    pub table: Arc<str>,
    /// Schema hash in lower-case base 36; empty where the default mapping applies.
    pub schema: Arc<str>,
}

impl PartialEq for TableKey {
    fn eq(&self, other: &TableKey) -> bool {
        // Mostly the very same names: then their text need not be fetched.
        let same = |a: &Arc<str>, b: &Arc<str>| Arc::ptr_eq(a, b) || a == b;
        same(&self.table, &other.table) && same(&self.database, &other.database) && same(&self.schema, &other.schema)
    }
}

impl Hash for TableKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Few tables of one name differ in the rest.
        self.table.hash(state);
    }
}

/// By table. Every section of every request is looked up in several of these.
pub(crate) type TableMap<V> = HashMap<TableKey, V, foldhash::fast::RandomState>;

/// A set of tables.
pub(crate) type TableSet = HashSet<TableKey, foldhash::fast::RandomState>;

impl TableKey {
    /// A key from its three parts.
    pub fn new(database: impl Into<Arc<str>>, table: impl Into<Arc<str>>, schema: impl Into<Arc<str>>) -> Self {
        TableKey { database: database.into(), table: table.into(), schema: schema.into() }
    }
}

impl fmt::Display for TableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.table)?;
        if self.schema.is_empty() { Ok(()) } else { write!(f, " ({})", self.schema) }
    }
}

/// How a store behaves. [`Options::new`] has the defaults of a collector.
#[derive(Debug, Clone)]
pub struct Options {
    /// The storage directory; created when missing. May be one of the reference's: it is taken over.
    pub dir: PathBuf,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// Size of one journal file, preallocated.
    pub journal_file_bytes: u64,
    /// A checkpoint runs when the journal has grown past this.
    pub journal_budget_bytes: u64,
    /// Rows held in memory, over all tables, before they are frozen into segments.
    pub memtable_bytes: usize,
    /// Uncompressed size of a block.
    pub block_bytes: usize,
    /// A segment is sealed when it has grown past this.
    pub segment_max_bytes: u64,
    /// A segment is sealed when its first row is this old,
    pub segment_max_age_ms: u64,
    /// unless so many segments of its database wait already: they leave one after the other, and more of them would only be
    /// smaller. Each costs memory, a file, and time at the next start.
    pub sealed_by_age_below: usize,
    /// Limit of all files together; 0 is no limit.
    pub max_disk_bytes: u64,
    /// Limit of the bytes that wait for one database.
    pub database_quota_bytes: Option<u64>,
    /// Tables that one database may have.
    pub max_tables_per_database: usize,
}

impl Options {
    /// Defaults of a collector in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Options {
            dir: dir.into(),
            durability: Durability::Disk,
            journal_file_bytes: 16 << 20,
            journal_budget_bytes: 512 << 20,
            memtable_bytes: 8 << 20,
            block_bytes: 64 << 10,
            segment_max_bytes: 1 << 20,
            segment_max_age_ms: 30_000,
            sealed_by_age_below: 10_000,
            max_disk_bytes: 10 << 30,
            database_quota_bytes: None,
            max_tables_per_database: 10_000,
        }
    }
}

/// What becomes durable together: all of it or nothing.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Rows by table.
    pub sections: Vec<Section>,
    /// The rows of the sections with [`SectionBody::Pieces`].
    pub rows: Pieces,
    /// Rows that filters removed before they came here, for the ledger.
    pub filtered: Vec<Filtered>,
    /// Numbers of the sender's segments whose rows these are.
    pub receipts: Vec<Receipt>,
    /// Opaque keys and values that move with the rows (cursors). An empty value deletes the key.
    pub marks: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Rows of one table in a request.
#[derive(Debug, Clone)]
pub struct Section {
    /// Where the rows go.
    pub table: TableKey,
    /// CSV header line with its newline; empty where blocks carry none.
    pub header: Arc<[u8]>,
    /// Sample type of the blocks: 0 unknown, 1 metric, 2 trace, 3 log.
    pub sample_type: u8,
    /// Number of CSV records.
    pub rows: u32,
    /// The rows.
    pub body: SectionBody,
}

/// Rows of many tables as they came, in one buffer: a request with a few rows for each of hundreds of tables fills it from
/// front to back, and they are copied once, to where they are compressed.
#[derive(Debug, Clone, Default)]
pub struct Pieces {
    /// The rows.
    pub bytes: Vec<u8>,
    /// Parts of `bytes`; which are whose, sections say.
    pub places: Vec<Range<u32>>,
}

impl Pieces {
    /// The bytes of those places, one by one.
    ///
    /// # Panics
    /// If there are no such places, or they are not in the buffer.
    pub(crate) fn of(&self, places: &Range<usize>) -> impl Iterator<Item = &[u8]> {
        self.places[places.clone()].iter().map(|place| &self.bytes[place.start as usize..place.end as usize])
    }

    /// The length of those places together.
    pub(crate) fn len(&self, places: &Range<usize>) -> usize {
        self.places[places.clone()].iter().map(|place| place.len()).sum()
    }
}

/// The form in which rows arrive.
#[derive(Debug, Clone)]
pub enum SectionBody {
    /// CSV records without the header line.
    Rows(Vec<u8>),
    /// The same, as these of the request's [`Pieces`], one after the other.
    Pieces(Range<usize>),
    /// Ready `ADXWAL` blocks without the file header, verified by the caller with [`crate::segment::verify`].
    Blocks(Vec<u8>),
}

/// Rows removed before the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filtered {
    /// The database they would have gone to.
    pub database: Arc<str>,
    /// Which filter.
    pub reason: &'static str,
    /// How many.
    pub rows: u64,
}

/// A sender's segment inside a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Identity of the sender's storage directory.
    pub sender: [u8; 16],
    /// Database of the segment; numbers count per sender and database.
    pub database: Arc<str>,
    /// The segment's number.
    pub number: u64,
    /// The segment's digest.
    pub digest: u64,
    /// The sender's lowest unsettled number in that database.
    pub floor: u64,
}

/// What is remembered of a sender's segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Never seen.
    Unknown,
    /// Durable already.
    Same,
    /// The number was seen with another digest, or is one the sender had settled: its directory was restored.
    Different,
}

/// Called once with the log sequence number, or with the refusal. Runs on the commit thread: keep it short.
pub type Done = Box<dyn FnOnce(Result<u64, Refusal>) + Send>;

/// Identity of a segment in a store: the flake id of its file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub u64);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A sealed segment that waits for settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Identity in this store.
    pub id: SegmentId,
    /// Table of its rows.
    pub table: TableKey,
    /// Number per (this sender, database), increasing.
    pub number: u64,
    /// Digest of its blocks.
    pub digest: u64,
    /// Length of the file.
    pub bytes: u64,
    /// CSV records.
    pub rows: u64,
    /// When its first row came, milliseconds since 1970.
    pub created_ms: u64,
    /// The file.
    pub path: PathBuf,
    /// The name in the documented form, for `POST /transfer?filename=`.
    pub file_name: String,
}

/// The end of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// Which one.
    pub segment: SegmentId,
    /// What became of its rows.
    pub outcome: Outcome,
    /// Why, for the record.
    pub reason: String,
    /// The rows may also be stored elsewhere.
    pub maybe_duplicate: bool,
}

/// What became of a segment's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The next process has them durably.
    Forwarded,
    /// Kusto has ingested them.
    Landed,
    /// Refused for ever; the file is kept in `dead/`.
    DeadLettered,
    /// Given up on purpose.
    Dropped,
}

/// A segment that was refused for ever. Its file is kept, and counts for the quota of its database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The segment.
    pub segment: SegmentInfo,
    /// Why it was refused.
    pub reason: String,
    /// Its rows, or some of them, may also be stored elsewhere.
    pub maybe_duplicate: bool,
    /// When it was refused, milliseconds since 1970; not known of those that an older version wrote down.
    pub died_ms: Option<u64>,
}

/// An upload batch and how far it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRecord {
    /// Identity of the batch.
    pub id: [u8; 16],
    /// How far it got.
    pub state: BatchState,
    /// Its members. Settled ones leave, and those of a batch that is recorded later; an empty batch is forgotten.
    pub segments: Vec<SegmentId>,
    /// Opaque to the engine (blob name, queue message, times).
    pub detail: Vec<u8>,
}

/// Progress of an upload batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchState {
    /// Members are fixed; no byte has left.
    Batched,
    /// The blob is complete.
    Uploaded,
    /// Kusto was told.
    Queued,
    /// A transient failure; it will be sent again.
    Retry,
}

/// Rows of one table, by where they are now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Rows committed.
    pub accepted: u64,
    /// Rows the next process has.
    pub forwarded: u64,
    /// Rows Kusto has.
    pub landed: u64,
    /// Rows in `dead/`.
    pub dead_lettered: u64,
    /// Rows in damaged bytes, copied to `quarantine/`.
    pub quarantined: u64,
    /// Rows given up on purpose.
    pub dropped: u64,
    /// Rows that are here and wait.
    pub on_disk: u64,
    /// Rows settled that may also be stored elsewhere; also counted by their outcome.
    pub maybe_duplicate: u64,
}

impl Counts {
    /// Whether `accepted` equals the sum of the places.
    pub fn balanced(&self) -> bool {
        self.accepted == self.forwarded + self.landed + self.dead_lettered + self.quarantined + self.dropped + self.on_disk
    }
}

/// All rows ever accepted, by table, and where they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    /// Counts per table.
    pub tables: BTreeMap<TableKey, Counts>,
    /// Rows removed before the commit, by database and reason.
    pub filtered: BTreeMap<(Arc<str>, Arc<str>), u64>,
    /// Sender segments stored although their number was known with another digest.
    pub conflicts: u64,
    /// How often the totals had to start again because no checkpoint was readable.
    pub resets: u64,
}

/// A table whose counts do not add up.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the ledger of {table} does not add up: {counts:?}")]
pub struct LedgerError {
    /// The table.
    pub table: TableKey,
    /// Its counts.
    pub counts: Counts,
}

impl Ledger {
    /// Checks `accepted = forwarded + landed + dead_lettered + quarantined + dropped + on_disk` for every table.
    pub fn check(&self) -> Result<(), Box<LedgerError>> {
        match self.tables.iter().find(|(_, counts)| !counts.balanced()) {
            None => Ok(()),
            Some((table, counts)) => Err(Box::new(LedgerError { table: table.clone(), counts: *counts })),
        }
    }

    /// The sum over all tables.
    pub fn total(&self) -> Counts {
        self.tables.values().fold(Counts::default(), |mut sum, c| {
            sum.accepted += c.accepted;
            sum.forwarded += c.forwarded;
            sum.landed += c.landed;
            sum.dead_lettered += c.dead_lettered;
            sum.quarantined += c.quarantined;
            sum.dropped += c.dropped;
            sum.on_disk += c.on_disk;
            sum.maybe_duplicate += c.maybe_duplicate;
            sum
        })
    }
}

/// What the store holds at this moment.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// All files of the directory that the engine made.
    pub total_bytes: u64,
    /// Journal files, as preallocated.
    pub journal_bytes: u64,
    /// Bytes per database: segments, buffered rows and dead letters.
    pub databases: BTreeMap<Arc<str>, u64>,
    /// Memory of rows that are in no segment.
    pub memtable_bytes: u64,
    /// Files in `dead/`.
    pub dead_bytes: u64,
    /// Files in `quarantine/`.
    pub quarantine_bytes: u64,
    /// Sealed segments that wait.
    pub segments: usize,
    /// When the first row of the oldest waiting segment came, milliseconds since 1970.
    pub oldest_ms: Option<u64>,
    /// Set while requests are refused as a whole.
    pub refusing: Option<Refusal>,
    /// Bytes written to the journal and to segments since the store was opened.
    pub written_bytes: u64,
}

/// Bytes that could not be read. They are copied to `quarantine/` before they are skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// First unreadable byte.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// Rows known to be lost with them.
    pub rows: u64,
}

/// What opening a store found.
#[derive(Debug, Clone, Default)]
pub struct OpenReport {
    /// Frames folded after the checkpoint.
    pub frames: u64,
    /// Rows read back into memory from the journal.
    pub replayed_rows: u64,
    /// Unacknowledged bytes at the end of the journal that were dropped.
    pub torn_bytes: u64,
    /// Unreadable ranges.
    pub damage: Vec<Damage>,
    /// Segments whose file was made again from the journal.
    pub rebuilt: u64,
    /// Segment files of the reference that were taken over.
    pub adopted: Vec<String>,
    /// Files that are not ours and were left alone.
    pub foreign: Vec<String>,
    /// No checkpoint was readable: totals start again.
    pub ledger_reset: bool,
}
