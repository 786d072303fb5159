//! Summary rules: KQL whose rows are appended to a table, once for each window of time.
//!
//! - [`machine`] is one rule as a state machine without I/O: events in, actions out.
//! - [`state`] is what it has to remember, kept in the rule's status where the reference keeps it.
//! - [`backfill`](crate::backfill) is the part about ranges that a user asks for.
//! - [`statement`] makes the commands, [`operations`] talks to Kusto.
//! - [`owner`] decides who runs a rule, [`Runner`] runs all that are one's own.
//!
//! # Why every window runs exactly once
//!
//! 1. A window is written into the status, together with the cursor behind it, before it is submitted. So its bounds
//!    outlive a crash and an edit of the interval, and the cursor never passes a window that is not on record.
//! 2. A submission carries an `ingest-by:` tag made of the rule's uid and the window, and `ingestIfNotExists` of the same.
//!    Whatever is submitted again, because an answer was lost or a process died, adds no row twice.
//! 3. A window leaves the record when Kusto says that its operation is complete. If it failed and Kusto says that it may be
//!    repeated, it is; otherwise it is listed as failed, and tried again with growing pauses and after each edit.
//!
//! The record holds few windows at a time ([`machine::MAX_IN_FLIGHT`]) and a bounded number of failed ones
//! ([`machine::MAX_FAILED`]); what comes after them waits behind the cursor, however long an outage is.

mod deployment;
pub mod machine;
pub mod metrics;
pub mod operations;
pub mod owner;
mod runner;
pub mod state;
pub mod statement;

pub use deployment::DEPLOYMENT;
pub use owner::Owner;
pub use runner::Runner;

#[cfg(test)]
pub(crate) mod bench;
#[cfg(test)]
mod tests;
