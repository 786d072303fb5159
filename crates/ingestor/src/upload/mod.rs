//! From sealed segments to rows in Kusto.
//!
//! - [`plan`]: which segments of a table go together, when, and what a failure means; no I/O.
//! - [`rows`]: segment images to CSV, in pieces that end with a record and are the same each time.
//! - [`kusto_service`]: one database: its tables, mappings and the way rows get in.
//! - [`worker`]: the plan with a store, a clock and a destination around it.
//!
//! Each database has a worker of its own, so that a sick one does not stop the others.

mod fake;
mod kusto_service;
pub mod plan;
pub mod rows;
mod worker;

pub use kusto_service::KustoDatabase;
pub use worker::{Destination, Worker, WorkerStatus};
