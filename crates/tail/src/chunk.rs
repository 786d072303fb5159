//! Lines on their way to a consumer.

use std::path::Path;
use std::sync::Arc;

use memchr::memchr;

use crate::budget::Taken;
use crate::content::{Cursor, Position};
use crate::lines::Lines;
use crate::target::Target;

/// Number of a followed path, unique in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// Whole lines of one followed path, in order. While it is alive its bytes count as being in flight.
#[derive(Debug)]
pub struct Chunk {
    /// The followed path, by number.
    pub stream: StreamId,
    /// The followed path.
    pub path: Arc<Path>,
    /// What it is followed for.
    pub target: Arc<Target>,
    pub(crate) lines: Lines,
    /// Where the stream stood before these lines, and which of its files they are of.
    pub(crate) before: Arc<[Cursor]>,
    pub(crate) index: usize,
    pub(crate) _taken: Taken,
}

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its bytes, without the `\n`.
    pub text: &'a [u8],
    /// Bytes that are left out at its end because they are over the limit.
    pub cut: u64,
    /// Where it ends in the chunk, for [`Chunk::position`].
    pub end: usize,
}

impl Chunk {
    /// Bytes of its lines.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lines.data.len()
    }

    /// The lines.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let (data, limit, cut) = (&self.lines.data[..], self.target.max_line_bytes, self.lines.cut);
        let mut start = 0;
        // Of a line that found no room only the count is left.
        let mut empty = data.is_empty() && cut > 0;
        std::iter::from_fn(move || {
            if std::mem::take(&mut empty) {
                return Some(Line { text: b"", cut, end: 0 });
            }
            let rest = data.get(start..).filter(|rest| !rest.is_empty())?;
            let (text, end) = memchr(b'\n', rest).map_or((rest, data.len()), |i| (&rest[..i], start + i + 1));
            start = end;
            let kept = &text[..text.len().min(limit)];
            Some(Line { text: kept, cut: cut + (text.len() - kept.len()) as u64, end })
        })
    }

    /// Where the path stands after the line that ends at `end`.
    #[must_use]
    pub fn position(&self, end: usize) -> Position {
        self.at(self.lines.cursor(end))
    }

    /// Where the path stands before the first line.
    #[must_use]
    pub fn start(&self) -> Position {
        self.at(self.lines.start)
    }

    fn at(&self, cursor: Cursor) -> Position {
        let mut files = self.before.to_vec();
        files[self.index] = cursor;
        Position { files }
    }
}

/// What happens to followed paths.
#[derive(Debug)]
pub enum Event {
    /// A path is followed from a position on, which is worth keeping even if it never has a line.
    Started {
        /// Its number.
        stream: StreamId,
        /// The path.
        path: Arc<Path>,
        /// What it is followed for.
        target: Arc<Target>,
        /// Where it begins.
        position: Position,
    },
    /// Lines.
    Lines(Box<Chunk>),
    /// The path is gone, and read to its end: its position may be forgotten.
    Gone {
        /// Its number.
        stream: StreamId,
        /// The path.
        path: Arc<Path>,
        /// What it was followed for.
        target: Arc<Target>,
    },
}
