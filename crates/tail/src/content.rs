//! What tells one content of a log file from another.
//!
//! An inode number alone does not: inodes are used again, and copying followed by truncation puts new content behind an
//! old one. So a [`Cursor`] also remembers the bytes at the start of the file and those before its offset, as hashes. Two
//! contents that are equal in both cannot be told apart.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes at the start of a file that its cursor remembers.
pub(crate) const HEAD: usize = 1024;

/// Bytes before the offset that a cursor remembers.
pub(crate) const BEFORE: usize = 1024;

/// Device and inode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileId {
    /// Device number; may change when the machine starts again.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

/// A run of bytes, remembered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Print(pub(crate) u16, pub(crate) u64);

impl Print {
    pub(crate) fn of(bytes: &[u8]) -> Print {
        if bytes.is_empty() {
            return Print::default();
        }
        Print(u16::try_from(bytes.len()).unwrap_or(u16::MAX), xxh3_64(bytes))
    }

    pub(crate) fn len(self) -> usize {
        self.0.into()
    }
}

/// How far a content was read, up to the end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The file that had the content when it was last seen.
    #[serde(flatten)]
    pub id: FileId,
    /// Bytes read; of a compressed file, bytes of what it holds.
    pub offset: u64,
    /// The first bytes, as many as were read.
    pub(crate) head: Print,
    /// The bytes before `offset`.
    pub(crate) before: Print,
    /// Time of the last change when it was last looked at, in nanoseconds since 1970.
    #[serde(default)]
    pub(crate) mtime: i64,
    /// Whether the content was taken from a compressed file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) gz: bool,
}

impl Cursor {
    /// Before the first byte of a file.
    #[must_use]
    pub fn start(id: FileId) -> Cursor {
        Cursor { id, offset: 0, head: Print::default(), before: Print::default(), mtime: 0, gz: false }
    }

    /// At an offset of a file whose bytes are not known.
    #[must_use]
    pub fn at(id: FileId, offset: u64) -> Cursor {
        Cursor { offset, ..Cursor::start(id) }
    }

    /// Before the first byte of what may be compressed.
    pub(crate) fn of(id: FileId, gz: bool, mtime: i64) -> Cursor {
        Cursor { gz, mtime, ..Cursor::start(id) }
    }

    /// After reading up to `offset`, where `window` is what stands before it: all of it, or at least [`BEFORE`] bytes.
    pub(crate) fn advanced(&self, offset: u64, window: &[u8]) -> Cursor {
        let mut next = Cursor { offset, before: Print::of(&window[window.len().saturating_sub(BEFORE)..]), ..*self };
        // The window begins at the first byte exactly when it is all there is before the offset.
        if self.head.len() < HEAD && window.len() as u64 == offset {
            next.head = Print::of(&window[..window.len().min(HEAD)]);
        }
        next
    }

    /// Where reading has to begin to see the bytes before the offset, too.
    pub(crate) fn check_from(&self) -> u64 {
        self.offset.saturating_sub(self.before.len() as u64)
    }
}

/// Where a followed path stands: the contents that it had, oldest first, the last one being that of the file at the path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The cursors.
    pub files: Vec<Cursor>,
}

impl Position {
    /// As text for a mark.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From the text of a mark.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Position> {
        serde_json::from_slice(bytes).ok()
    }

    /// From a cursor file of the reference: `{"fid":"<device>:<inode>","cursor":<offset>}`. An empty `fid` fits any file.
    /// Like the reference, text that is not one line of JSON is no cursor.
    #[must_use]
    pub fn from_reference(text: &str) -> Option<Position> {
        #[derive(Deserialize)]
        struct Reference {
            #[serde(default)]
            fid: String,
            #[serde(default)]
            cursor: u64,
        }
        let reference: Reference = serde_json::from_str(text).ok()?;
        let (dev, ino) = reference.fid.split_once([':', '-']).unwrap_or(("0", "0"));
        let id = FileId { dev: dev.parse().ok()?, ino: ino.parse().ok()? };
        Some(Position { files: vec![Cursor::at(id, reference.cursor)] })
    }
}
