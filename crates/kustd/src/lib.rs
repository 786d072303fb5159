//! kustd: an embedded engine that answers KQL over Kusto's REST protocol from one folder on one machine.
//!
//! A request enters through [`rest`], is bound by the `kql` crate against a [`snapshot`], and runs in [`engine`].
//! Rows come in through [`ingest`] and live in [`storage`]: journal, hot batches, Parquet extents. The [`catalog`]
//! knows databases, tables, functions, mappings, policies and extents; [`commands`] change it.

pub mod catalog;
pub mod engine;
mod text;
