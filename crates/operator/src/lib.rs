//! The operator: installs what custom resources describe, and keeps it as described.
//!
//! [`render`] makes the objects of a resource, without I/O; [`manifest`] is the same for files. [`reconcile`] decides what is
//! to be done about a resource and does it, through [`apply`], and says so in its [`status`]. [`start`] runs it all while
//! this operator leads. A cluster in Azure is made by whoever implements [`reconcile::Provisioner`]: [`azure`] does.

pub mod apply;
pub mod azure;
pub mod diff;
pub mod federation;
mod flags;
mod limits;
pub mod manifest;
mod metrics;
pub mod object;
pub mod reconcile;
pub mod render;
mod run;
pub mod status;

pub use flags::{Command, CommonFlags, DiffFlags, Flags, RenderFlags, RunFlags};
pub use run::{Config, Running, start};
