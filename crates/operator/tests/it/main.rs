//! Tests of the operator.

#![allow(clippy::unwrap_used)]

mod accepted;
mod azure;
mod chart;
mod cluster;
mod decisions;
mod federation;
mod files;
mod images;
mod kills;
mod monitoring;
mod process;
mod roles;
mod samples;
mod scale;
mod vectors;
