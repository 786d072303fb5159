//! Rules that act: KQL declared as custom resources and run on a schedule.
//!
//! - [`store`] is where rules live: a Kubernetes API server, a folder of YAML files, or memory.
//! - [`function`] and [`management_command`] apply those to [`target`] databases; [`runner`] runs such executors.
//! - [`unserved`] tells of rules that nobody runs.
//! - [`lease`] is who of several replicas runs them.
//! - [`window`] cuts time into windows and says when they are due.
//! - [`prelude`] puts the window and this cluster's labels before a rule's KQL.
//! - [`summary`] runs summary rules, [`backfill`] their ranges of the past.
//! - [`backoff`] is when what failed is tried again.
//! - [`clock`] is the time that schedules go by, injected so that tests need not wait.

pub mod backfill;
pub mod backoff;
pub mod clock;
pub mod function;
pub mod management_command;
pub mod prelude;
pub mod runner;
pub mod store;
pub mod summary;
pub mod target;
mod turns;
pub mod unserved;
pub mod window;

pub use lease;

#[cfg(test)]
mod testing;
