//! Tests of the intakes from outside: bytes in, rows out.
#![allow(clippy::unwrap_used)]

mod exemplars;
mod export;
mod limits;
mod logs;
mod metrics;
mod remote_write;
mod remote_write_2;
mod scrape;
mod support;
mod traces;
mod vector_files;
mod vectors;
