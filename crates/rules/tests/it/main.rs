//! Stores, clocks and who runs what.

#![allow(clippy::unwrap_used)]

mod clock;
mod files;
mod memory;
mod support;
