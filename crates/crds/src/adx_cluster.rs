//! ADXCluster: Kusto clusters, how to make them, and federations of them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pods::{PodOptions, Storage};

/// A Kusto cluster: one that exists, or one that the operator makes; alone, or as part of a federation.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "adx-mon.azure.com",
    version = "v1",
    kind = "ADXCluster",
    root = "AdxCluster",
    plural = "adxclusters",
    namespaced,
    status = "AdxClusterStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "adx",
    category = "adx-mon",
    doc = "A Kusto cluster: one that exists, or one that the operator makes; alone, or as part of a federation.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterName"),
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"adxcluster.adx-mon.azure.com\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"adxcluster.adx-mon.azure.com\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct AdxClusterSpec {
    /// Name of the cluster in Azure.
    #[schemars(length(max = 100), regex(pattern = "^[a-zA-Z0-9-]+$"))]
    pub cluster_name: String,
    /// URL of a cluster that exists.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(extend("format" = "uri"))]
    pub endpoint: String,
    /// Databases of the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<Database>,
    /// A CEL expression over the cluster labels, each a variable of type string. The operator cares for the cluster if it
    /// is true.
    #[serde(default, deserialize_with = "crate::lenient::text", skip_serializing_if = "String::is_empty")]
    pub criteria_expression: String,
    /// How to make the cluster in Azure. Without it, endpoint names one that exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provision: Option<Provision>,
    /// Runs kustd, the embedded Kusto, in this namespace instead of a cluster in Azure: `local: {}`. It is one pod, and nobody has
    /// to sign in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<Local>,
    /// Part in a federation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<ClusterRole>,
    /// The other parts of the federation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federation: Option<Federation>,
}

/// An embedded Kusto instead of a cluster in Azure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Local {
    /// Container image of kustd. Empty: the one that belongs to the operator.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Where the data are. Absent: a volume of 20Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// Options of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodOptions>,
}

/// Part in a federation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClusterRole {
    /// Holds data, and tells the federated clusters about it.
    Partition,
    /// Holds no data, and asks the partitions.
    Federated,
}

/// A database of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// Its name.
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[a-zA-Z0-9_]+$"))]
    pub database_name: String,
    /// How many days data is kept.
    #[serde(default = "thirty")]
    pub retention_in_days: i64,
    /// Retention policy, as Kusto's JSON.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub retention_policy: String,
    /// What it holds.
    pub telemetry_type: TelemetryType,
}

fn thirty() -> i64 {
    30
}

/// What a database holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TelemetryType {
    /// Metrics.
    Metrics,
    /// Logs.
    Logs,
    /// Traces.
    Traces,
}

/// How to make a cluster in Azure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Provision {
    /// Azure subscription.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subscription_id: String,
    /// Azure resource group; made if missing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_group: String,
    /// Azure region.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub location: String,
    /// Size of the machines, such as Standard_L8as_v3.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sku_name: String,
    /// Tier of the cluster: Standard or Basic.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tier: String,
    /// Resource ids of the managed identities of the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_assigned_identities: Vec<String>,
    /// Whether the number of machines follows the load.
    #[serde(default, skip_serializing_if = "crate::is_false")]
    pub auto_scale: bool,
    /// Most machines.
    #[serde(default = "ten")]
    pub auto_scale_max: i64,
    /// Fewest machines.
    #[serde(default = "two")]
    pub auto_scale_min: i64,
    /// How many machines, where autoScale does not decide. Absent: as Azure likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub capacity: Option<i64>,
    /// Who may use the cluster or one of its databases, such as the identities of the components. What is taken out of the list
    /// stays in Azure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<ClusterPrincipal>,
}

/// A role for somebody, on a cluster or on one of its databases.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPrincipal {
    /// Application or object id of an application or managed identity, e-mail address of a user, name of a group.
    #[schemars(length(min = 1))]
    pub principal_id: String,
    /// What it is.
    pub principal_type: PrincipalType,
    /// The role: AllDatabasesAdmin or AllDatabasesViewer on the cluster; Admin, Ingestor, Monitor, User, UnrestrictedViewer or Viewer
    /// on a database.
    pub role: PrincipalRole,
    /// The database. Absent: the cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub database_name: String,
    /// Tenant of the principal. Absent: that of the cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant_id: String,
}

/// What a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PrincipalType {
    /// An application or a managed identity.
    App,
    /// A group.
    Group,
    /// A user.
    User,
}

/// A role, as Azure names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PrincipalRole {
    /// Of a cluster.
    AllDatabasesAdmin,
    /// Of a cluster.
    AllDatabasesViewer,
    /// Of a database.
    Admin,
    /// Of a database.
    Ingestor,
    /// Of a database.
    Monitor,
    /// Of a database.
    User,
    /// Of a database.
    UnrestrictedViewer,
    /// Of a database.
    Viewer,
}

fn ten() -> i64 {
    10
}

fn two() -> i64 {
    2
}

/// The other parts of a federation, as a partition or a federated cluster sees them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Federation {
    /// Of a partition: the clusters that it tells about its data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub federated_targets: Vec<FederatedTarget>,
    /// Of a partition: what sets it apart, such as its region.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub partitioning: BTreeMap<String, String>,
    /// Of a federated cluster: the database that heartbeats arrive in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(regex(pattern = "^[a-zA-Z0-9_]+$"))]
    pub heartbeat_database: String,
    /// Of a federated cluster: the table that heartbeats arrive in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(regex(pattern = "^[a-zA-Z0-9_]+$"))]
    pub heartbeat_table: String,
    /// Of a federated cluster: how long a partition counts after its last heartbeat.
    #[serde(default = "one_hour", rename = "heartbeatTTL")]
    #[schemars(regex(pattern = r"^(\d+h)?(\d+m)?(\d+s)?$"))]
    pub heartbeat_ttl: String,
}

fn one_hour() -> String {
    "1h".to_owned()
}

/// A cluster that a partition tells about its data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FederatedTarget {
    /// URL of the cluster.
    pub endpoint: String,
    /// Database that takes heartbeats.
    #[schemars(regex(pattern = "^[a-zA-Z0-9_]+$"))]
    pub heartbeat_database: String,
    /// Table that takes heartbeats.
    #[schemars(regex(pattern = "^[a-zA-Z0-9_]+$"))]
    pub heartbeat_table: String,
    /// Client id of the managed identity to write with.
    pub managed_identity_client_id: String,
}

/// State of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdxClusterStatus {
    /// Generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many pods there should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// How many of them are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// URL of the cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// What the operator has last applied; settings changed by hand in Azure are told from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_provision_state: Option<AppliedProvisionState>,
    /// State of this object: the cluster, the federation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// What the operator has last applied in Azure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedProvisionState {
    /// Size of the machines.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sku_name: String,
    /// Tier of the cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tier: String,
    /// Resource ids of the managed identities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_assigned_identities: Vec<String>,
    /// How many machines, where the spec says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<i64>,
    /// Whether the number of machines follows the load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_scale: Option<AppliedAutoScale>,
    /// How long each database keeps its data, as ISO 8601 durations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub retention: BTreeMap<String, String>,
}

/// What the operator has last applied of the automatic scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedAutoScale {
    /// Whether it is on.
    pub enabled: bool,
    /// Fewest machines.
    pub minimum: i64,
    /// Most machines.
    pub maximum: i64,
}
