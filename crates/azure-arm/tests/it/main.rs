//! The client on a Resource Manager that is built from the public description.

#![allow(clippy::unwrap_used)]

mod answers;
mod requests;
mod way;
