//! The client against a small service on the loopback interface.

#![allow(clippy::unwrap_used)]

mod calls;
mod credentials;
mod fake;
mod management;
mod queued;
mod rows;
mod sink;
