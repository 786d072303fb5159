//! Credentials against servers and programs that stand in for Azure's, on the loopback interface.

#![allow(clippy::unwrap_used)]

mod chain;
mod directory;
mod fake;
mod machine;
mod program;
