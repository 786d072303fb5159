//! Follows log files and yields their lines with positions that can be committed.
//!
//! A [`Target`] names files by path or pattern. Each path that is found becomes a *stream*: the file at the path and the
//! rotated ones before it, read in order, to their ends. Lines come as [`Chunk`]s; [`Chunk::position`] is where to go on
//! after a line, and whoever stores it in the same transaction as the line gets every line once, however the process ends.
//!
//! What is one file is told by device and inode and by content: hashes of the first bytes and of those before the position
//! ([`Cursor`]). So a rotation is followed whether it renames, copies and truncates, compresses, or deletes and makes anew,
//! also when it happens twice between two looks or while nobody looks. Two contents that are equal in these bytes cannot be
//! told apart.
//!
//! Folders are watched with inotify, and looked at where that is not possible. [`Tailer`] is the whole of it without a
//! thread or a clock; [`Follower`] waits by itself. Memory is bounded: by [`Budget`]s for what is in flight, by a limit for
//! long lines; of a file at rest nothing is held but its cursor. Nothing here knows formats of logs or where lines go.

mod budget;
mod chunk;
mod content;
mod discovery;
mod follow;
mod lines;
mod rotation;
mod siblings;
mod source;
mod stats;
mod stream;
mod tailer;
mod target;
mod watch;

pub use budget::{Budget, Budgets};
pub use chunk::{Chunk, Event, Line, StreamId};
pub use content::{Cursor, FileId, Position};
pub use follow::{Follower, Pulse};
pub use stats::Stats;
pub use tailer::{Options, Resume, Tailer};
pub use target::{BadPattern, Target, folder};
