//! Integration tests of the storage engine.
#![allow(clippy::unwrap_used)]

mod basics;
mod damage;
mod dead_letters;
mod inspect;
mod journal;
mod quota;
mod support;
mod takeover;
mod vectors;
