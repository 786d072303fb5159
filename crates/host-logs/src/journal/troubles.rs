//! What becomes of an entry that cannot be read.
//!
//! A journal is written while it is read, so that an error may be gone a moment later: only what fails again at the same place
//! is left out. Errors of the disk are tried longer, since what is behind them may come back.
//!
//! What one entry takes in memory is bounded by two sets of limits, for entries of many fields and for entries of long ones.
//! What the first cannot read is read by a pass of its own with the second, which ends there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sdjournal::{EntryRef, JournalConfig, SdJournalError};
use xxhash_rust::xxh64::xxh64;

/// journald takes 1024 fields of a program, and adds its own.
const MANY_FIELDS: (usize, usize) = (1100, 256 << 10);

/// Fields, and bytes of each when it is not compressed.
const LONG_FIELDS: (usize, usize) = (64, 4 << 20);

/// Tries of an entry, and of one that the disk does not give.
const TRIES: u8 = 2;
const DISK_TRIES: u8 = 5;

/// Places that are remembered; when there are more, those known may be counted again.
const MAX_PLACES: usize = 10_000;

/// What to do about an error.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The read fails, and is tried later.
    Fail,
    /// The read ends here; the next one tries the place again.
    Again,
    /// The entry is left out for the first time.
    Skip,
    /// It was left out before.
    Known,
}

/// Places where entries could not be read.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// How often each was met.
    met: BTreeMap<u64, u8>,
    /// Errors that were told.
    told: BTreeSet<u64>,
    /// Entries and errors of this pass.
    items: u64,
    /// Number and time of the last entry that could be read, and errors since then.
    behind: (u64, u64),
    errors: u32,
    /// Files with errors in this pass.
    files: BTreeSet<PathBuf>,
    /// In a pass for long fields, the item that it is for.
    long: Option<u64>,
}

impl Troubles {
    /// For the next pass.
    pub(super) fn limits(&self) -> JournalConfig {
        let (max_fields_per_entry, max_decompressed_bytes) = if self.long.is_some() { LONG_FIELDS } else { MANY_FIELDS };
        JournalConfig { max_fields_per_entry, max_decompressed_bytes, include_journal_tilde: true, ..JournalConfig::default() }
    }

    /// A pass begins.
    pub(super) fn begin(&mut self) {
        (self.items, self.behind, self.errors) = (0, (0, 0), 0);
        self.files.clear();
    }

    /// Whether this pass has read what it is for.
    pub(super) fn is_done(&mut self) -> bool {
        self.long.take_if(|item| *item <= self.items).is_some()
    }

    /// The pass is at the journal's end; whether another has to follow.
    pub(super) fn end(&mut self) -> bool {
        self.long.take().is_some()
    }

    /// An entry could be read.
    pub(super) fn passed(&mut self, entry: &EntryRef) {
        self.items += 1;
        (self.behind, self.errors) = ((entry.seqnum(), entry.realtime_usec()), 0);
    }

    /// Whether there were errors in a file in this pass.
    pub(super) fn in_file(&self, path: &Path) -> bool {
        self.files.contains(path)
    }

    /// The next entry could not be read. `is_first` when the pass has found nothing new before.
    pub(super) fn answer(&mut self, error: &SdJournalError, is_first: bool) -> Answer {
        use SdJournalError::{Corrupt, Io, LimitExceeded, PermissionDenied, Transient};
        self.items += 1;
        self.errors += 1;
        let file = match error {
            Corrupt { path, .. } | Io { path, .. } | Transient { path, .. } => path.clone(),
            _ => None,
        };
        self.files.extend(file.clone());
        let of_disk = matches!(error, Io { .. } | PermissionDenied { .. });
        let of_limits = matches!(error, LimitExceeded { .. });
        if let Some(item) = self.long.filter(|_| !of_disk) {
            // In front of the item is what was read before.
            return self.left_out(self.items == item, error, file.is_some());
        }
        let tries = if of_disk { DISK_TRIES } else { TRIES };
        let place = self.place(error, file.as_deref());
        if self.met.len() >= MAX_PLACES {
            self.met.clear();
        }
        let met = self.met.entry(place).or_default();
        // The pass for long fields finds the item by its number, which has to be that of a pass from the same position.
        if of_limits && *met + 1 == tries && !is_first {
            return Answer::Again;
        }
        *met = met.saturating_add(1);
        let met = *met;
        if met < tries {
            return if of_disk { Answer::Fail } else { Answer::Again };
        }
        if of_limits && met == tries {
            self.long = Some(self.items);
            return Answer::Again;
        }
        self.left_out(met == tries, error, file.is_some())
    }

    /// An entry that is damaged itself is known by its place in the file; one with a damaged field, that it may share with
    /// others, by what is in front of it.
    fn place(&self, error: &SdJournalError, file: Option<&Path>) -> u64 {
        let (number, time) = self.behind;
        let place = match error {
            SdJournalError::Corrupt { offset: Some(_), reason, .. } if reason.contains("ENTRY") => error.to_string(),
            _ => format!("{file:?} {number} {time} {}", self.errors),
        };
        xxh64(place.as_bytes(), 0)
    }

    fn left_out(&mut self, is_new: bool, error: &SdJournalError, is_located: bool) -> Answer {
        if !is_new {
            return Answer::Known;
        }
        self.tell(error, is_located);
        Answer::Skip
    }

    /// Says what was left out; once, when many entries have the same damaged field.
    fn tell(&mut self, error: &SdJournalError, is_located: bool) {
        if self.told.len() >= MAX_PLACES {
            self.told.clear();
        }
        let (number, realtime) = self.behind;
        if !is_located || self.told.insert(xxh64(error.to_string().as_bytes(), 0)) {
            tracing::warn!(%error, behind.seqnum = number, behind.realtime_us = realtime, "an entry of the journal cannot be read, and is left out");
        }
    }
}
