//! The outcome in each database or cluster of what is applied to several: Function and ManagementCommand.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What became of applying an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// Applied at this generation.
    Success,
    /// Not applied; tried again.
    #[default]
    Failed,
    /// Not applied, and trying again cannot help until the spec is changed.
    PermanentFailure,
}

/// What became of applying an object in one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["target", "status", "observedGeneration"]))]
pub struct TargetStatus {
    /// Database, or endpoint of the cluster, that this is about.
    pub target: String,
    /// URL of the cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// Deployment that looks after it: namespace and name of its Lease.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub deployment: String,
    /// The outcome.
    #[serde(default, deserialize_with = "crate::lenient::or_default")]
    pub status: State,
    /// Generation of the object that was applied.
    #[serde(default)]
    pub observed_generation: i64,
    /// When a run was begun whose outcome is not on record yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// Functions that are there, or may be, because of this object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<String>,
    /// When it was last tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_tried: Option<Time>,
    /// What went wrong, with the position in the KQL where Kusto tells it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
