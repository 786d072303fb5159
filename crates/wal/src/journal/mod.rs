//! The journal: the only thing that decides what is durable.
use std::path::PathBuf;
use std::sync::Arc;

use crate::{Damage, Disk, Done, Durability, OpenError, Refusal};

/// Where and how a journal is kept.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// Folder of the journal alone; created when missing.
    pub dir: PathBuf,
    /// Size of one file, preallocated.
    pub file_bytes: u64,
    /// What an acknowledgement promises.
    pub durability: Durability,
}

/// A frame read back from the journal.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Log sequence number.
    pub lsn: u64,
    /// The caller's kind.
    pub kind: u8,
    /// The caller's bytes.
    pub body: &'a [u8],
}

/// What opening found.
#[derive(Debug, Clone, Default)]
pub struct JournalReport {
    /// Frames replayed.
    pub frames: u64,
    /// The number the next frame gets.
    pub next_lsn: u64,
    /// Unacknowledged bytes at the end that were dropped.
    pub torn_bytes: u64,
    /// Unreadable ranges, copied to `quarantine/` in the folder.
    pub damage: Vec<Damage>,
}

/// A journal with its own folder and commit thread.
#[derive(Debug)]
pub struct Journal {}

impl Journal {
    /// Opens the journal and hands every readable frame, in order, to `replay`.
    pub fn open(
        _options: JournalOptions,
        _disk: Arc<dyn Disk>,
        _replay: &mut dyn FnMut(Frame<'_>),
    ) -> Result<(Journal, JournalReport), OpenError> {
        unimplemented!()
    }
    /// Appends a frame.
    pub fn append(&self, _kind: u8, _body: Vec<u8>, _done: Done) {
        unimplemented!()
    }
    /// Appends a frame and waits until it is durable.
    pub fn append_wait(&self, _kind: u8, _body: Vec<u8>) -> Result<u64, Refusal> {
        unimplemented!()
    }
    /// Lets files go that hold only frames below `below_lsn`.
    pub fn trim(&self, _below_lsn: u64) {
        unimplemented!()
    }
    /// Size of all files.
    pub fn bytes(&self) -> u64 {
        unimplemented!()
    }
    /// Writes what waits and ends the thread.
    pub fn close(self) {}
}
