//! Exporters from buffer to receiver.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod buffer;
mod corpus;
mod fluent;
mod otlp;
mod receivers;
mod remote_write;
mod support;
mod tls;
