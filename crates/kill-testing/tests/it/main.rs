//! kill -9 of the programs that run rules, at random moments, while their Kusto and receivers delay, refuse and lose
//! answers. Afterwards every window was run once, none was left out, and every alert has arrived.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod alerters;
mod files;
mod kusto;
mod leader;
mod program;
mod random;
mod receivers;
mod windows;
