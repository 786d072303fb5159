//! Function: KQL functions and views to keep in place.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec_error::present;
use crate::{SpecError, State, TargetStatus};

/// A KQL function or view that is kept in place in one or all databases.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "adx-mon.azure.com",
    version = "v1",
    kind = "Function",
    plural = "functions",
    namespaced,
    status = "FunctionStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "kfn",
    category = "adx-mon",
    category = "adx-mon-rules",
    doc = "A KQL function or view that is kept in place in one or all databases.",
    printcolumn(name = "Database", type_ = "string", json_path = ".spec.database"),
    printcolumn(name = "All", type_ = "boolean", json_path = ".spec.allDatabases"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.status"),
    printcolumn(name = "Reconciled", type_ = "date", json_path = ".status.lastTimeReconciled"),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspend", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new(
    "has(self.allDatabases) && self.allDatabases ? !has(self.database) || self.database in ['', '*'] : has(self.database) && self.database != ''"
).message("set either database or allDatabases: true"))]
#[serde(rename_all = "camelCase")]
pub struct FunctionSpec {
    /// Database that gets the function, whatever the case. `*` means all, but write `allDatabases: true` instead.
    #[serde(default, deserialize_with = "crate::lenient::null", skip_serializing_if = "String::is_empty")]
    pub database: String,

    /// True: every database gets the function, and database stays empty.
    #[serde(default, deserialize_with = "crate::lenient::null", skip_serializing_if = "crate::is_false")]
    pub all_databases: bool,

    /// The KQL, as a script: `.create-or-alter function with (view=true) Name() { ... }`.
    pub body: String,

    /// True: nothing is done for this object before it is deleted; then what it has created is dropped all the same.
    #[serde(default, deserialize_with = "crate::lenient::null", skip_serializing_if = "crate::is_false")]
    pub suspend: bool,

    /// A CEL expression over the cluster labels, each a variable of type string: `region in ['eastus', 'westus']`. The
    /// function is put in place if it is true, and dropped again once it is false.
    #[serde(default, deserialize_with = "crate::lenient::text", skip_serializing_if = "String::is_empty")]
    pub criteria_expression: String,

    /// Written by ADX-Mon: the endpoint that has the function.
    #[serde(default, deserialize_with = "crate::lenient::null", skip_serializing_if = "String::is_empty")]
    pub applied_endpoint: String,
}

impl FunctionSpec {
    /// Whether all databases get it.
    pub fn is_for_all(&self) -> bool {
        self.all_databases || self.database == "*"
    }

    /// The first thing that keeps this function from being put in place.
    pub fn validate(&self) -> Result<(), SpecError> {
        if self.all_databases && !["", "*"].contains(&self.database.as_str()) {
            return Err(SpecError::new("spec.database", format!("is {:?} although allDatabases is true; set one of them", self.database)));
        }
        if !self.all_databases {
            present("spec.database", &self.database)?;
        }
        present("spec.body", &self.body)
    }
}

/// What became of a Function.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["observedGeneration", "lastTimeReconciled", "status"]))]
pub struct FunctionStatus {
    /// Generation that this is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// When it was last tried.
    #[serde(default)]
    pub last_time_reconciled: Option<Time>,
    /// The outcome: the worst of all databases.
    #[serde(default, deserialize_with = "crate::lenient::or_default")]
    pub status: State,
    /// What happened, in one sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Why, in one word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Kusto's error, with the position in the KQL where Kusto tells it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// The outcome in each database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<TargetStatus>,
    /// State of this object: whether it is meant for this cluster, whether it is in place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}
