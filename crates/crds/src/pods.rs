//! What the components have in common: options of their pods, and where they keep data.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of the pods of a component.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodOptions {
    /// CPU and memory; what is not named has the operator's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Labels of the nodes that they may run on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that they tolerate, instead of the operator's default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Name of a PriorityClass.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub priority_class_name: String,
    /// Names of Secrets with credentials of the registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<String>,
    /// Further labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Further annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Client id of the identity in Azure: of a workload identity, or of a managed identity of the nodes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub identity_client_id: String,
    /// How much they log: ERROR, WARN, INFO, DEBUG or TRACE. Empty: INFO.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_level: String,
}

/// CPU and memory of a container, as Kubernetes writes quantities: "500m", "2Gi".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What is set aside for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, String>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, String>,
}

/// A taint that is tolerated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Key of the taint. Empty: all, with the operator Exists.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// Exists, or Equal, which is the default.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operator: String,
    /// Value of the taint.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// NoSchedule, PreferNoSchedule or NoExecute. Empty: all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub effect: String,
    /// How long a NoExecute taint is tolerated; for ever without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// Where a component keeps data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Size of the volume of each pod, such as 20Gi. Empty: the operator's default.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub size: String,
    /// StorageClass of the volumes. Empty: the cluster's default.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub storage_class_name: String,
    /// A folder of the node instead of a volume; the pod must be allowed to write to it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host_path: String,
}
