//! Stores, clocks and executors.

#![allow(clippy::unwrap_used)]

mod api_away;
mod api_server;
mod clock;
mod deployments;
mod fake_api;
mod fake_kusto;
mod files;
mod functions;
mod kubernetes;
mod management_commands;
mod memory;
mod summary;
mod support;
mod unserved;
