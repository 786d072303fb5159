//! Exports the results of KQL queries as metrics over OTLP, on schedule, and runs the summary rules that
//! it owns.
//!
//! [`transform`] makes points of rows, [`push`] takes them to an OTLP receiver, [`export`] does both for
//! one window while the rows arrive, and the schedule says which exporter runs when. [`start`] wires
//! them to a store of rules, [`Flags`] is the command line.

pub mod export;
mod flags;
mod metrics;
mod run;
mod schedule;
mod sources;
mod status;
pub mod transform;

pub use exporters::otlp as push;
pub use flags::Flags;
pub use run::{Config, Running, start};
pub use schedule::Bounds;
pub use sources::Rules;
