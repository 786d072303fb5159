//! Integration tests of the storage engine.
#![allow(clippy::unwrap_used)]

mod basics;
mod support;
mod vectors;
