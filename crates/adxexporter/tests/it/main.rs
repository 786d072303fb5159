//! The exporter against the reference's vectors, a Kusto and OTLP receivers on the loopback interface.

#![allow(clippy::unwrap_used)]

mod api_away;
mod cluster;
mod export;
mod fake_kusto;
mod flags;
mod push;
mod receiver;
mod schedule;
mod transform;
mod vectors;
