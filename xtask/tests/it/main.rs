//! Rules of the workspace, checked against what cargo says of it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod architecture;
mod readme;
