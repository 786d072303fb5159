//! Stores, clocks and who runs what.

#![allow(clippy::unwrap_used)]

mod api_server;
mod clock;
mod fake_api;
mod files;
mod kubernetes;
mod lease;
mod memory;
mod summary;
mod support;
