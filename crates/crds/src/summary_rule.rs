//! SummaryRule: what to append to which table, how often, and how far it is; backfills.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec_error::present;
use crate::{CriteriaMap, GoDuration, SpecError};

/// A KQL query whose rows are appended to a table, once for each window of time.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "adx-mon.azure.com",
    version = "v1",
    kind = "SummaryRule",
    plural = "summaryrules",
    namespaced,
    status = "SummaryRuleStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "sr",
    category = "adx-mon",
    category = "adx-mon-rules",
    doc = "A KQL query whose rows are appended to a table, once for each window of time.",
    printcolumn(name = "Database", type_ = "string", json_path = ".spec.database"),
    printcolumn(name = "Table", type_ = "string", json_path = ".spec.table"),
    printcolumn(name = "Interval", type_ = "string", json_path = ".spec.interval"),
    printcolumn(name = "Last Window", type_ = "string", json_path = ".status.lastWindowStart"),
    printcolumn(
        name = "Lag",
        type_ = "date",
        json_path = ".status.lastWindowEnd",
        description = "Time since the end of the last window that is in the table"
    ),
    printcolumn(name = "Backlog", type_ = "integer", json_path = ".status.backlog"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failedWindowsTotal"),
    printcolumn(name = "OK", type_ = "string", json_path = ".status.conditions[?(@.type==\"summaryrule.adx-mon.azure.com\")].status"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"summaryrule.adx-mon.azure.com\")].message",
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct SummaryRuleSpec {
    /// Database that the query reads and the table is in. Case matters.
    pub database: String,

    /// No longer used: the object's name names the rule.
    #[serde(default, deserialize_with = "crate::lenient::null", skip_serializing_if = "String::is_empty")]
    pub name: String,

    /// The KQL. It sees `_startTime` and `_endTime`, both inclusive, so that
    /// `where Timestamp between (_startTime .. _endTime)` covers each instant once, and one variable for each cluster
    /// label, with an underscore before its name.
    pub body: String,

    /// Table that the rows are appended to; it is made, and gets new columns, as needed.
    pub table: String,

    /// Length of a window, and how often one is summarised: a Go duration above zero, such as 15m or 1h.
    #[x_kube(validation = Rule::new("duration(self) > duration('0s')").message("interval must be a duration above zero, such as 1h"))]
    pub interval: GoDuration,

    /// How long to wait after the end of a window for late data: a Go duration, such as 10m.
    #[serde(default, deserialize_with = "crate::lenient::null", skip_serializing_if = "GoDuration::is_unset")]
    #[x_kube(validation = Rule::new("self == '' || duration(self) >= duration('0s')").message("ingestionDelay must be a duration, such as 10m, and not below zero"))]
    pub ingestion_delay: GoDuration,

    /// True: no new window is begun. What is skipped meanwhile is made up for afterwards.
    #[serde(default, deserialize_with = "crate::lenient::null", skip_serializing_if = "crate::is_false")]
    pub suspend: bool,

    /// A range of the past to summarise in addition to what the schedule does.
    #[serde(default, deserialize_with = "crate::lenient::null", skip_serializing_if = "Option::is_none")]
    pub backfill: Option<BackfillSpec>,

    /// Cluster labels for which this rule runs: any key with any of its values is enough, whatever the case. Empty:
    /// everywhere.
    #[serde(default, deserialize_with = "crate::lenient::criteria", skip_serializing_if = "CriteriaMap::is_empty")]
    pub criteria: CriteriaMap,

    /// A CEL expression over the cluster labels, each a variable of type string: `region in ['eastus', 'westus']`. The
    /// rule runs if it is true, and `criteria` matches too.
    #[serde(default, deserialize_with = "crate::lenient::text", skip_serializing_if = "String::is_empty")]
    pub criteria_expression: String,
}

impl SummaryRuleSpec {
    /// Length of a window: above zero.
    pub fn interval(&self) -> Result<Duration, SpecError> {
        self.interval.positive("spec.interval")
    }

    /// How long to wait for late data.
    pub fn ingestion_delay(&self) -> Result<Duration, SpecError> {
        self.ingestion_delay.non_negative("spec.ingestionDelay")
    }

    /// The first thing that keeps this rule from running.
    pub fn validate(&self) -> Result<(), SpecError> {
        present("spec.database", &self.database)?;
        present("spec.table", &self.table)?;
        present("spec.body", &self.body)?;
        self.interval()?;
        self.ingestion_delay().map(drop)
    }
}

/// A range of the past to summarise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackfillSpec {
    /// Names the request. Another one begins anew.
    #[schemars(length(min = 1))]
    pub request_id: String,
    /// Inclusive start of the range.
    pub start_time: Time,
    /// Exclusive end of the range: whole intervals after the start.
    pub end_time: Time,
    /// How many windows may run at a time; 0 or missing is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 20))]
    pub max_in_flight: Option<i64>,
}

/// How far a SummaryRule is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SummaryRuleStatus {
    /// Inclusive start of the last window whose rows are in the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_window_start: Option<Time>,
    /// Exclusive end of the last window whose rows are in the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_window_end: Option<Time>,
    /// Windows that are due and not in the table yet.
    #[serde(default)]
    pub backlog: i64,
    /// Windows that have failed since the rule was made.
    #[serde(default)]
    pub failed_windows_total: i64,
    /// Windows that failed and are not in the table. They are tried again with growing pauses, and after each edit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_windows: Vec<FailedWindow>,
    /// State of the backfill that the spec asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backfill: Option<BackfillStatus>,
    /// State of this object: the last submission, the operations that run, the last window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A window that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedWindow {
    /// Inclusive start.
    pub start_time: Time,
    /// Exclusive end.
    pub end_time: Time,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// How many times it was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i64>,
    /// When it is tried again. Missing: never, because its rows may be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Time>,
}

/// State of a backfill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackfillStatus {
    /// The request that this is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// How far it is.
    #[serde(default, deserialize_with = "crate::lenient::or_default", skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackfillPhase>,
    /// Generation of the object when it began. Editing the spec ends a backfill.
    #[serde(default)]
    pub observed_generation: i64,
    /// Start of the next window to submit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_window_start: Option<Time>,
    /// Windows that Kusto has taken.
    #[serde(default)]
    pub submitted_windows: i64,
    /// Windows whose rows are in the table.
    #[serde(default)]
    pub completed_windows: i64,
    /// Submissions that were repeated because Kusto said so.
    #[serde(default)]
    pub retried_windows: i64,
    /// Windows on their way; one without operationId waits to be submitted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active_operations: Vec<BackfillOperation>,
    /// What happened.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// How far a backfill is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackfillPhase {
    /// Not begun.
    Pending,
    /// Submitting windows or waiting for them.
    Running,
    /// All windows are in the table.
    Completed,
    /// Given up.
    Failed,
}

/// A window of a backfill that is on its way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackfillOperation {
    /// Kusto's id of the operation; empty while it waits to be submitted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operation_id: String,
    /// Inclusive start of the window, RFC 3339.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub start_time: String,
    /// Inclusive end of the window, RFC 3339.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub end_time: String,
}
