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
mod monitoring;
mod roles;
mod samples;
mod vectors;
