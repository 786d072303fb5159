//! The ingestor: takes segments from collectors and telemetry from clients, keeps them durable,
//! batches them per table and uploads them to Kusto.
//!
//! - [`Flags`] and [`Config`]: the command line and what it means.
//! - [`Command`]: what is in a storage directory: ledger and dead letters.
//! - [`start`]: listeners, store and uploads in one process; ends with a drain.
//! - [`Cluster`]: the Kubernetes cluster whose SummaryRules, Functions and ManagementCommands the leader runs.
//! - [`kql`]: the statements sent to Kusto, and the functions that metrics databases get.
//! - [`peers`]: the other ingestors, which table each owns, and what is passed on to them.
//! - [`upload`]: which segments go together, when, and what a failure means.

mod admin;
mod cluster;
mod config;
mod control;
mod drain;
mod flags;
pub mod fuzzing;
pub mod kql;
mod leader;
mod ledger;
mod metrics;
pub mod peers;
mod run;
mod sink;
mod status;
mod time;
pub mod upload;

pub use admin::{Command, Dlq, Storage, Which};
pub use cluster::Cluster;
pub use config::{Config, ConfigError, Endpoint};
pub use control::Letter;
pub use flags::{Flags, parse_go_duration};
pub use ledger::{Filtered, LedgerReport, Rows, TableRows};
pub use run::{Running, start};
pub use time::Time;
