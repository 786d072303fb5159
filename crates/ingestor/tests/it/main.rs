//! The ingestor against fakes of Kusto on the loopback interface, and its statements against the
//! vectors.

#![allow(clippy::unwrap_used)]

mod fake_kusto;
mod uploads;
mod vectors;
