//! Collectors, ingestors and kustd with Azurite, each a process: rows come in by remote write and OTLP, go to the owners of
//! their tables, and from there by queued ingestion, those of one table by streaming ingestion.

mod check;
mod kills;
mod plain;
mod scaling;
mod secure;
mod senders;
mod world;

pub(crate) use world::{free_ports, page_ready};
