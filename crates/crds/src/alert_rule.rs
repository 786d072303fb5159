//! AlertRule: what to query, how often, and what became of it.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec_error::present;
use crate::{CriteriaMap, GoDuration, SpecError};

/// A KQL query that runs on schedule; each row it returns becomes a notification.
///
/// The query sees `_startTime`, `_endTime` and `_region`, and returns at least `Title` and `Severity`.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "adx-mon.azure.com",
    version = "v1",
    kind = "AlertRule",
    plural = "alertrules",
    namespaced,
    status = "AlertRuleStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "ar",
    category = "adx-mon",
    category = "adx-mon-rules",
    doc = "A KQL query that runs on schedule; each row it returns becomes a notification.",
    printcolumn(name = "Database", type_ = "string", json_path = ".spec.database"),
    printcolumn(name = "Interval", type_ = "string", json_path = ".spec.interval"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.status"),
    printcolumn(name = "Last Query", type_ = "date", json_path = ".status.lastQueryTime"),
    printcolumn(name = "Last Alert", type_ = "date", json_path = ".status.lastAlertTime"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct AlertRuleSpec {
    /// Database that the query runs in, by its name in `--kusto-endpoint`. Case matters.
    #[serde(default, deserialize_with = "crate::lenient::text", skip_serializing_if = "String::is_empty")]
    pub database: String,

    /// How often the query runs, and how much time one run covers: a Go duration above zero, such as 5m or 1h30m.
    #[serde(default, skip_serializing_if = "GoDuration::is_unset")]
    #[x_kube(validation = Rule::new("self == '' || duration(self) > duration('0s')").message("interval must be a duration above zero, such as 5m"))]
    pub interval: GoDuration,

    /// The KQL. Use `where Timestamp between (_startTime .. _endTime)`: each instant is then covered once. A query that
    /// begins with a dot is a management command and gets no parameters.
    ///
    /// Columns: Title (1 to 512 bytes) and Severity (a whole number) are required; Summary, Description and
    /// CorrelationId are optional; every other column is passed on as a custom field.
    #[serde(default, deserialize_with = "crate::lenient::text", skip_serializing_if = "String::is_empty")]
    pub query: String,

    /// How long the receiver waits without a further notification of the same CorrelationId before it takes the problem
    /// for solved: a Go duration, such as 30m. Empty: never.
    #[serde(default, skip_serializing_if = "GoDuration::is_unset")]
    #[x_kube(validation = Rule::new("self == '' || duration(self) >= duration('0s')").message("autoMitigateAfter must be a duration, such as 30m, and not below zero"))]
    pub auto_mitigate_after: GoDuration,

    /// Where the receiver sends the notification, in the receiver's words. Empty: the query's Recipient column says it.
    #[serde(default, deserialize_with = "crate::lenient::text", skip_serializing_if = "String::is_empty")]
    pub destination: String,

    /// Labels of the alerter (`--tag`, `region`, `cloud`) for which this rule runs: any key with any of its values is
    /// enough, whatever the case. Empty: everywhere.
    #[serde(default, deserialize_with = "crate::lenient::criteria", skip_serializing_if = "CriteriaMap::is_empty")]
    pub criteria: CriteriaMap,

    /// A CEL expression over the same labels, each a variable of type string: `region in ['eastus', 'westus']`. The rule
    /// runs if it is true, and `criteria` matches too.
    #[serde(default, deserialize_with = "crate::lenient::text", skip_serializing_if = "String::is_empty")]
    pub criteria_expression: String,
}

impl AlertRuleSpec {
    /// How often to run: above zero.
    pub fn interval(&self) -> Result<Duration, SpecError> {
        self.interval.positive("spec.interval")
    }

    /// After how long a receiver may take the problem for solved; zero means never.
    pub fn auto_mitigate_after(&self) -> Result<Duration, SpecError> {
        self.auto_mitigate_after.non_negative("spec.autoMitigateAfter")
    }

    /// The first thing that keeps this rule from running. A missing destination does not: the Recipient column may say it.
    pub fn validate(&self) -> Result<(), SpecError> {
        present("spec.database", &self.database)?;
        present("spec.query", &self.query)?;
        self.interval()?;
        self.auto_mitigate_after().map(drop)
    }

    /// Whether the query is a management command: its first character that is not white space is a dot.
    pub fn is_management_command(&self) -> bool {
        self.query.trim_start().starts_with('.')
    }
}

/// What the last run of an AlertRule did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertRuleStatus {
    /// Outcome of the last run: Success, Error or Throttled.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// What went wrong; empty after a success.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When the last run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_query_time: Option<Time>,
    /// Exclusive end of the last window that was queried with success and whose notifications were all taken: whoever knows no
    /// more than this goes on from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_window_end: Option<Time>,
    /// When the query last returned a row that became a notification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_alert_time: Option<Time>,
    /// How long the last run took, in milliseconds.
    #[serde(default)]
    pub last_evaluation_duration_milliseconds: i64,
    /// Rows that the last run returned; 0 after an error.
    #[serde(default)]
    pub last_rows_returned: i64,
    /// Notifications that the last run made.
    #[serde(default)]
    pub last_alerts_generated: i64,
    /// State of this object: Criteria says whether it is meant for this cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}
