//! kill -9 of programs, at random moments. Those that run rules, while their Kusto and receivers delay, refuse and lose
//! answers: afterwards every window was run once, none was left out, and every alert has arrived. And everything on the way
//! from collectors into kustd: afterwards every acknowledged row is there once.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod alerters;
mod beginnings;
mod federation;
mod files;
mod kusto;
mod leader;
mod pipeline;
mod program;
mod random;
mod receivers;
mod windows;
