//! Records against the vectors, the straight path of OTLP logs, and what logs of the field look like.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod encoder;
mod lines;
mod multi_line;
mod parsers;
mod properties;
mod support;
mod transforms;
