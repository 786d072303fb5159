//! ManagementCommand: commands to run once, and where.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec_error::present;
use crate::{SpecError, TargetStatus};

/// A management command that is run once, for each generation of the object, in a database, in all, or on the cluster.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "adx-mon.azure.com",
    version = "v1",
    kind = "ManagementCommand",
    plural = "managementcommands",
    namespaced,
    status = "ManagementCommandStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "mc",
    category = "adx-mon",
    category = "adx-mon-rules",
    doc = "A management command that is run once for each generation: in a database, in all, or on the cluster.",
    printcolumn(name = "Scope", type_ = "string", json_path = ".spec.scope"),
    printcolumn(name = "Database", type_ = "string", json_path = ".spec.database"),
    printcolumn(
        name = "OK",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"managementcommand.adx-mon.azure.com\")].status"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"managementcommand.adx-mon.azure.com\")].message",
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("!has(self.scope) || self.scope != 'Database' || has(self.database) && self.database != ''")
    .message("scope Database needs a database"))]
#[serde(rename_all = "camelCase")]
pub struct ManagementCommandSpec {
    /// The command, as a script: `.alter-merge table Logs policy retention softdelete = 30d`.
    pub body: String,

    /// Database that the command is run in. Case matters. If set, it decides, whatever the scope says.
    #[serde(default, deserialize_with = "crate::lenient::null", skip_serializing_if = "String::is_empty")]
    pub database: String,

    /// Where the command is run. Empty means what database says, and without one the cluster; better say it.
    #[serde(default, deserialize_with = "crate::lenient::text", skip_serializing_if = "String::is_empty")]
    #[schemars(extend("enum" = ["Database", "AllDatabases", "Cluster"]))]
    pub scope: String,

    /// A CEL expression over the cluster labels, each a variable of type string: `region in ['eastus', 'westus']`. The
    /// command is run if it is true.
    #[serde(default, deserialize_with = "crate::lenient::text", skip_serializing_if = "String::is_empty")]
    pub criteria_expression: String,
}

/// Where a management command is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In `spec.database`.
    Database,
    /// In every database.
    AllDatabases,
    /// On the cluster, once.
    Cluster,
}

impl ManagementCommandSpec {
    /// Where it is run: a database decides, no scope means the cluster.
    pub fn scope(&self) -> Result<Scope, SpecError> {
        match (self.database.as_str(), self.scope.as_str()) {
            ("", "" | "Cluster") => Ok(Scope::Cluster),
            ("", "AllDatabases") => Ok(Scope::AllDatabases),
            ("", "Database") => Err(SpecError::new("spec.database", "is missing; scope Database needs it")),
            ("", other) => Err(SpecError::new("spec.scope", format!("is {other:?}; it can be Database, AllDatabases or Cluster"))),
            _ => Ok(Scope::Database),
        }
    }

    /// The first thing that keeps this command from being run.
    pub fn validate(&self) -> Result<(), SpecError> {
        present("spec.body", &self.body)?;
        self.scope().map(drop)
    }
}

/// What became of a ManagementCommand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagementCommandStatus {
    /// The outcome in each database, or on the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetStatus>,
    /// State of this object: whether it is meant for this cluster, whether the command was run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}
