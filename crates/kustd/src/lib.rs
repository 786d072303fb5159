//! kustd: an embedded engine that answers KQL over Kusto's REST protocol from one folder on one machine.
//!
//! A request enters through `rest`, is bound by the `kql` crate against a `snapshot`, and runs in [`engine`].
//! Rows come in through `ingest`, streamed or out of blobs (`queued`), and live in `storage`: journal, hot batches, Parquet extents. The [`catalog`]
//! knows databases, tables, functions, mappings, policies and extents; `commands` change it.

pub mod catalog;
mod commands;
pub mod engine;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod ingest;
mod json;
mod operations;
mod query;
mod queued;
mod remote;
mod rest;
mod service;
mod snapshot;
mod storage;
mod text;
mod update;

use std::time::Duration;

pub use remote::RemoteSettings;
pub use service::{Config, DEFAULT_DATABASE, DatabaseSetting, Running, start, start_with};
pub use storage::{ExtentError, StorageError, StorageOptions};

/// Reads a positive period as KQL writes it (`7d`, `36h`, `1.12:00:00`).
pub fn parse_period(text: &str) -> Option<Duration> {
    let ticks = text::parse_timespan(text).filter(|ticks| *ticks > 0)?;
    Some(Duration::from_nanos(ticks.unsigned_abs().checked_mul(100)?))
}
