//! kustd over its REST protocol, in process, on a folder and a clock of its own.

#![allow(clippy::unwrap_used)]

mod commands;
mod corpus;
mod federation;
mod harness;
mod ingestion;
mod kills;
mod operations;
mod program;
mod protocol;
mod queued;
mod rollups;
mod scripts;
mod shredding;
mod storage;
mod update_policies;
