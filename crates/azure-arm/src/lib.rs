//! Azure Resource Manager over REST, as far as making Kusto clusters needs it: providers, resource groups, and of
//! `Microsoft.Kusto` clusters, databases and principal assignments.
//!
//! [`Arm`] has a method for each request. A request is sent once, within a deadline; whether and when it is repeated is the
//! caller's to decide, by the [`Kind`] of the [`Error`] and what it says of `Retry-After`. What takes longer is an
//! [`Operation`], whose [`Progress`] is asked for. Nothing is ever deleted: there is no method for it.
//!
//! Versions: `Microsoft.Kusto` 2022-12-29, resources 2021-04-01. The description is public: `specification/azure-kusto` and
//! `specification/resources` of the repository azure-rest-api-specs.

mod client;
mod error;
mod groups;
mod kusto;
mod model;
mod operation;
mod transport;

pub use client::{Arm, PUBLIC_CLOUD};
pub use error::{Error, Kind};
pub use groups::Registration;
pub use kusto::{ClusterId, NameAnswer};
pub use model::{
    Autoscale, Cluster, ClusterProperties, ClusterWrite, Database, DatabaseProperties, DatabaseWrite, Empty, Identity, IdentityWrite,
    Principal, PrincipalAssignment, PropertiesWrite, Sku, State,
};
pub use operation::{Operation, Progress};
pub use transport::{Transport, TransportError};
