//! The exporter against the reference's vectors, a Kusto and OTLP receivers on the loopback interface.

#![allow(clippy::unwrap_used)]

mod export;
mod fake_kusto;
mod push;
mod receiver;
mod transform;
mod vectors;
