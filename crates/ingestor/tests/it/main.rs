//! The ingestor against fakes of Kusto on the loopback interface, and its statements against the
//! vectors.

#![allow(clippy::unwrap_used)]

mod admission;
mod cluster;
mod failures;
mod fake_kusto;
mod peers;
mod process;
mod receiving;
mod secure;
mod support;
mod uploads;
mod vectors;
