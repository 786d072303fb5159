//! The alerter: runs the queries of AlertRules on schedule, makes notifications of their rows and delivers them.
//!
//! The way of an alert: [`engine`] knows when each rule is due and runs its query over the time since its last success,
//! [`notification`] makes notifications of the rows, [`state`] keeps them together with the end of the window in one
//! transaction, and [`delivery`] brings them to receivers until they are taken. [`lint`] checks rules without running them.

pub mod channel;
pub mod checkpoint;
mod counts;
pub mod delivery;
pub mod engine;
mod flags;
mod http;
pub mod lint;
pub mod metrics;
pub mod notification;
pub mod query;
mod run;
pub mod schedule;
pub mod state;
mod surroundings;

pub use flags::{Command, CommonFlags, Flags, LintFlags, RunFlags};
pub use run::{Cluster, Config, Deadlines, Running, Surroundings, start};
pub use surroundings::{in_cluster, surroundings};
