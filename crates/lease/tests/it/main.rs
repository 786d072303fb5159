//! Elections: a model, and a real API server.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod election;
