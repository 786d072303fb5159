//! Integration tests of the `kql` crate: the recorded cases, and properties over arbitrary text.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod corpus;
mod document;
mod order;
mod properties;
mod stored;
mod traces;
