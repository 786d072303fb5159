//! kustd over its REST protocol, in process, on a folder and a clock of its own.

#![allow(clippy::unwrap_used)]

mod commands;
mod corpus;
mod harness;
mod ingestion;
mod program;
mod protocol;
mod shredding;
mod storage;
