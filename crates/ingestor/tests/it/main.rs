//! The ingestor against fakes of Kusto on the loopback interface, and its statements against the
//! vectors.

#![allow(clippy::unwrap_used)]

mod admin;
mod admission;
mod cluster;
mod corpus;
mod failures;
mod fake_kusto;
mod fake_storage;
mod lying;
mod peers;
mod pods;
mod process;
mod queued;
mod receiving;
mod secure;
mod simulation;
mod support;
mod uploads;
mod vectors;
