//! Files that are written, rotated, truncated, compressed and lost while they are followed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod follow;
mod model;
mod rotation;
mod support;
mod trouble;
