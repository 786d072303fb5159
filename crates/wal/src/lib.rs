//! The storage engine under collector, ingestor and kustd.
//!
//! A request becomes one *Data frame* in a journal; a single commit thread writes and syncs whatever
//! waits as one group and only then acknowledges. Rows then gather in per-table buffers, are frozen
//! into 64 KiB blocks of the documented `ADXWAL` format, and become immutable *segments* that a sender
//! or uploader ships. A *settlement* frame is the only thing that lets a file go.
//!
//! Nothing in here is asynchronous and nothing reads a clock: callers pass the time to
//! [`Store::open`] and [`Store::tick`]. All file access goes through [`disk::Disk`], which has a real
//! implementation and a simulated one that can lose, tear and reorder unsynced writes.

mod codec;
pub mod csv;
pub mod disk;
mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod journal;
pub mod repair;
pub mod segment;
mod squeeze;
mod store;
mod types;

pub use disk::{Disk, real::RealDisk};
pub use error::{OpenError, Refusal};
pub use store::{Adoption, SegmentReader, Store, inspect};
pub use types::{
    BatchRecord, BatchState, Counts, Damage, DeadLetter, Done, Durability, Filtered, Known, Ledger, LedgerError, OpenReport, Options,
    Outcome, Pieces, Receipt, Request, Section, SectionBody, SegmentId, SegmentInfo, Settlement, TableKey, Usage,
};
