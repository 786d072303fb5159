//! The custom resources of `adx-mon.azure.com/v1`: types, CRDs, status conditions and criteria.
//!
//! - Each kind has a type ([`AlertRule`] ...), whose schema is what the API server checks; [`yaml`] prints the CRDs.
//!   Objects written for the reference decode unchanged. Where it was lenient, decoding is lenient too, and what is
//!   wrong is said by the methods of the specs (`AlertRuleSpec::interval`), so that one bad object never hides others.
//! - [`conditions`] keeps the standard list of conditions.
//! - [`criteria`] decides whether an object is meant for this cluster.
//! - [`duration`] reads and writes durations as Go does (`1h30m`).
//!
//! Field names, defaults and validation: control-plane specification, section 7.

#![allow(unreachable_pub, reason = "kube's derive repeats each public spec inside a function")]
#![allow(clippy::duplicated_attributes, reason = "each printer column names its type")]

mod adx_cluster;
mod alert_rule;
mod components;
pub mod conditions;
pub mod criteria;
pub mod duration;
mod function;
mod lenient;
mod management_command;
mod metrics_exporter;
mod pods;
mod schema;
mod spec_error;
mod summary_rule;
mod target;

pub use adx_cluster::{
    AdxCluster, AdxClusterSpec, AdxClusterStatus, AppliedAutoScale, AppliedProvisionState, ClusterPrincipal, ClusterRole, Database,
    FederatedTarget, Federation, Local, PrincipalRole, PrincipalType, Provision, TelemetryType,
};
pub use alert_rule::{AlertRule, AlertRuleSpec, AlertRuleStatus};
pub use components::{
    Alerter, AlerterSpec, AlerterStatus, Collector, CollectorSpec, CollectorStatus, Ingestor, IngestorSpec, IngestorStatus,
    KubernetesEvents, MetricsExport,
};
pub use duration::GoDuration;
pub use function::{Function, FunctionSpec, FunctionStatus};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, ObjectMeta, Time};
pub use management_command::{ManagementCommand, ManagementCommandSpec, ManagementCommandStatus, Scope};
pub use metrics_exporter::{MetricsExporter, MetricsExporterSpec, MetricsExporterStatus, Transform};
pub use pods::{PodOptions, Resources, Storage, Toleration};
pub use schema::{all, of_kind, yaml};
pub use spec_error::SpecError;
pub use summary_rule::{
    BackfillOperation, BackfillPhase, BackfillSpec, BackfillStatus, FailedWindow, SummaryRule, SummaryRuleSpec, SummaryRuleStatus,
};
pub use target::{State, TargetStatus};

use std::collections::BTreeMap;

/// API group of all kinds.
pub const GROUP: &str = "adx-mon.azure.com";
/// API version of all kinds.
pub const VERSION: &str = "v1";

/// `criteria`: label name to the values that match.
pub type CriteriaMap = BTreeMap<String, Vec<String>>;

/// `suspend: false` and the like are not written.
fn is_false(value: &bool) -> bool {
    !*value
}
