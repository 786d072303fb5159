//! Numbers and bytes of the journal without any I/O: what a group of frames looks like, where it goes, and
//! what is true after it was written or failed.

use super::frame::{Body, Place};

/// State of the journal's end.
#[derive(Debug)]
pub(crate) struct Core {
    file: u64,
    base_lsn: u64,
    next_lsn: u64,
    durable_lsn: u64,
    offset: u64,
    staged: Vec<u8>,
    staged_frames: u64,
}

impl Core {
    /// A journal that goes on behind file `file` with `next_lsn`.
    pub(crate) fn new(file: u64, next_lsn: u64, durable_lsn: u64) -> Core {
        Core { file, base_lsn: next_lsn, next_lsn, durable_lsn, offset: 0, staged: Vec::new(), staged_frames: 0 }
    }

    /// Goes on in a new file. Frames of older files that were not committed never count from then on,
    /// because their LSNs are at or above this file's base.
    pub(crate) fn begin_file(&mut self, file: u64) {
        debug_assert_eq!(self.staged_frames, 0, "a file begins between groups");
        self.file = file;
        self.base_lsn = self.next_lsn;
        self.offset = 0;
    }

    pub(crate) fn file(&self) -> u64 {
        self.file
    }

    pub(crate) fn base_lsn(&self) -> u64 {
        self.base_lsn
    }

    pub(crate) fn next_lsn(&self) -> u64 {
        self.next_lsn
    }

    /// Everything up to this LSN is durable.
    pub(crate) fn durable_lsn(&self) -> u64 {
        self.durable_lsn
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Encodes a group; its frames have the LSNs from [`Core::next_lsn`].
    pub(crate) fn stage(&mut self, bodies: &[&Body]) {
        self.staged.clear();
        for (i, body) in bodies.iter().enumerate() {
            let place = Place { file: self.file, lsn: self.next_lsn + i as u64, base_lsn: self.base_lsn, durable_lsn: self.durable_lsn };
            body.encode(place, &mut self.staged);
        }
        self.staged_frames = bodies.len() as u64;
    }

    /// What has to be written, and where.
    pub(crate) fn next_write(&self) -> (u64, &[u8]) {
        (self.offset, &self.staged)
    }

    /// The staged group is in the file.
    pub(crate) fn written(&mut self) {
        self.next_lsn += self.staged_frames;
        self.offset += self.staged.len() as u64;
        self.clear();
    }

    /// The staged group failed: it never counted, and its LSNs go to the next group, in another file.
    pub(crate) fn failed(&mut self) {
        self.clear();
    }

    /// Everything up to `lsn` is durable.
    pub(crate) fn durable(&mut self, lsn: u64) {
        self.durable_lsn = self.durable_lsn.max(lsn);
    }

    fn clear(&mut self) {
        self.staged_frames = 0;
        // A rare large group must not hold its memory for ever.
        if self.staged.capacity() > 1 << 20 {
            self.staged = Vec::new();
        }
        self.staged.clear();
    }
}
