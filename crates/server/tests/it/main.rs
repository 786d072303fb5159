//! The server over real sockets: receivers, limits, shutdown, operations.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod auth;
mod corpus;
mod grpc;
mod limits;
mod operations;
mod otlp;
mod remote_write;
mod sink;
mod support;
mod tls;
