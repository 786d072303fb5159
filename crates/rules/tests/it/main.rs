//! Integration tests of the crate.

mod clock;
mod memory;
mod support;
