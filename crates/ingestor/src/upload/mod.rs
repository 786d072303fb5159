//! From sealed segments to rows in Kusto.
//!
//! - [`plan`]: which segments of a table go together, when, and what a failure means; no I/O.
//! - [`rows`]: segment images to CSV, in pieces that end with a record and are the same each time.
//! - [`kusto_service`]: one database: its tables, mappings and the way rows get in.
//! - [`passage`]: the way of one batch through queued ingestion: steps, records, answers; no I/O.
//! - [`machine`]: the plan and the passages of a database, with their effects as work; no I/O.
//! - `uploader`: carries work out; `azure_queue`: the queue of Azure Data Explorer.
//! - [`worker`]: the machine with a store, a clock and a destination around it.
//!
//! Each database has a worker of its own, so that a sick one does not stop the others.

mod azure_queue;
mod fake;
mod kusto_service;
pub mod machine;
pub mod passage;
pub mod plan;
mod progress;
mod queue;
pub mod rows;
mod uploader;
mod worker;

pub use kusto_service::{DatabaseOptions, Ingestion, KustoDatabase};
pub use uploader::Destination;
pub use worker::{Parts, Worker, WorkerStatus};
