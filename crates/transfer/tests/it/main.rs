//! Sender and receiver over real stores and HTTP on the loopback interface.

#![allow(clippy::unwrap_used)]

mod courier;
mod outage;
mod receiving;
mod sending;
mod setup;
mod simulation;
