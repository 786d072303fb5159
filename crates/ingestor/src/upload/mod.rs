//! From sealed segments to rows in Kusto.
//!
//! - [`plan`]: which segments of a table go together, when, and what a failure means; no I/O.
//! - [`rows`]: segment images to CSV, in pieces that end with a record and are the same each time.
//! - [`kusto_service`]: one database: its tables, mappings and the way rows get in.
//! - [`passage`]: the way of one batch through queued ingestion: steps, records, answers; no I/O.
//! - `uploader`: one batch on its way; `azure_queue`: the queue of Azure Data Explorer.
//! - [`worker`]: the plan with a store, a clock and a destination around it.
//!
//! Each database has a worker of its own, so that a sick one does not stop the others.

mod azure_queue;
mod fake;
mod kusto_service;
pub mod passage;
pub mod plan;
mod queue;
pub mod rows;
mod uploader;
mod worker;

pub use kusto_service::{DatabaseOptions, Ingestion, KustoDatabase};
pub use uploader::Destination;
pub use worker::{Parts, Worker, WorkerStatus};
