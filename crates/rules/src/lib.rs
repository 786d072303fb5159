//! Rules that act: KQL declared as custom resources and run on a schedule.
//!
//! - [`store`] is where rules live: a Kubernetes API server, a folder of YAML files, or memory.
//! - [`lease`] is who of several replicas runs them.
//! - [`clock`] is the time that schedules go by, injected so that tests need not wait.

pub mod clock;
pub mod lease;
pub mod store;
