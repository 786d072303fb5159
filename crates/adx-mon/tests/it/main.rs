//! The whole of ADX-Mon as its users run it: the real program, real servers and clients, answers through KQL.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod crds;
mod durability;
mod functions;
mod grafana;
mod host;
mod open_telemetry;
mod prometheus;
mod rules;
mod sdk;
mod support;
mod traces;
mod wal;
