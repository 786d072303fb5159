//! From a custom resource to the objects that install it: pure functions, no I/O.
//!
//! What differs from the reference's templates, on purpose (control-plane specification, section 6.3):
//! - objects are named as their resource, carry its labels in their selectors, and cluster-wide ones also its namespace, so
//!   that two resources of a kind do not meet;
//! - no rights are written, only bound: the ClusterRoles are fixed and shipped (`deploy/rbac/operator-roles.yaml`), so that
//!   the operator needs no right to make roles, which would be as good as all rights;
//! - no Namespace: the resource is in it;
//! - volumes instead of folders of nodes for the ingestors, replicas as asked for, a PodDisruptionBudget;
//! - `name=url` for the alerter, with region, cloud and labels; traces go where logs go.

pub mod alerter;
pub mod collector;
mod collector_config;
mod common;
pub mod exporter;
pub mod ingestor;
pub mod kustd;
mod pod;
mod settings;

use std::collections::BTreeMap;

use crds::{AdxCluster, Database, TelemetryType};
use thiserror::Error;

pub use collector_config::{CollectorConfig, Role, collector_config};
pub use common::{INSTANCE, MANAGED_BY, MANAGER, OWNER_KIND, OWNER_NAME, OWNER_NAMESPACE, Owner};
pub use settings::{Images, Settings};

use crate::object::{Object, Reference};

/// What a resource asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rendered {
    /// What there shall be, in the order in which it is applied.
    pub objects: Vec<Object>,
    /// What there shall not be: objects that other settings of the resource ask for.
    pub absent: Vec<Reference>,
}

impl Rendered {
    /// The objects whose pods are the component.
    pub fn workloads(&self) -> impl Iterator<Item = &Object> {
        let is_workload = |kind: &str| matches!(kind, "StatefulSet" | "DaemonSet" | "Deployment");
        self.objects.iter().filter(move |object| is_workload(&object.reference.kind.resource.kind))
    }
}

/// Why a resource cannot be installed as it stands.
#[derive(Debug, Error)]
pub enum RenderError {
    /// Something in the spec.
    #[error("{field}: {problem}")]
    Spec {
        /// Path of the field.
        field: &'static str,
        /// What is wrong, and the way out.
        problem: String,
    },
    /// Our mistake, or a text of the spec where Kubernetes wants something else.
    #[error("the rendered {kind} is not valid: {problem}")]
    Shape {
        /// Kind of the object.
        kind: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// A Kusto cluster that components write to or query.
#[derive(Clone, Debug, PartialEq)]
pub struct Kusto {
    /// Name of its ADXCluster.
    pub name: String,
    /// Its URL.
    pub endpoint: String,
    /// Its databases.
    pub databases: Vec<Database>,
}

impl Kusto {
    /// The cluster of a resource, once its URL is known: from the status, the spec, or since it is kustd.
    pub fn of(cluster: &AdxCluster) -> Option<Self> {
        let name = cluster.metadata.name.clone()?;
        let status = cluster.status.as_ref().map(|status| status.endpoint.as_str()).unwrap_or_default();
        let endpoint = match &cluster.spec.local {
            Some(_) => kustd::endpoint(&name, cluster.metadata.namespace.as_deref().unwrap_or("default")),
            None => [status, &cluster.spec.endpoint].into_iter().find(|url| !url.is_empty())?.to_owned(),
        };
        Some(Self { name, endpoint, databases: cluster.spec.databases.clone() })
    }
}

/// `database=url` of the databases of some types. `only` empty: of all.
pub(crate) fn endpoints(clusters: &[Kusto], only: &[TelemetryType]) -> Result<Vec<String>, RenderError> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    let mut endpoints = Vec::new();
    for cluster in clusters {
        for database in &cluster.databases {
            let name = database.database_name.as_str();
            if let Some(other) = seen.insert(name, &cluster.name) {
                let problem = format!(
                    "database {name} is in the ADXClusters {other} and {}; select one of them, or give the databases different names",
                    cluster.name
                );
                return Err(RenderError::Spec { field: "spec.adxClusterSelector", problem });
            }
            if only.is_empty() || only.contains(&database.telemetry_type) {
                endpoints.push(format!("{name}={}", cluster.endpoint));
            }
        }
    }
    if seen.is_empty() {
        let names: Vec<&str> = clusters.iter().map(|cluster| cluster.name.as_str()).collect();
        let problem = format!("the selected ADXClusters ({}) have no databases; name them in their spec.databases", names.join(", "));
        return Err(RenderError::Spec { field: "spec.adxClusterSelector", problem });
    }
    Ok(endpoints)
}
