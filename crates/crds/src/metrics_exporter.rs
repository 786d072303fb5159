//! MetricsExporter: what to query, how rows become metrics, and how far it is.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec_error::present;
use crate::{CriteriaMap, GoDuration, SpecError};

/// A KQL query that runs on schedule and whose rows are pushed as OTLP metrics.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "adx-mon.azure.com",
    version = "v1",
    kind = "MetricsExporter",
    plural = "metricsexporters",
    namespaced,
    status = "MetricsExporterStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "mex",
    category = "adx-mon",
    category = "adx-mon-rules",
    doc = "A KQL query that runs on schedule and whose rows are pushed as OTLP metrics.",
    printcolumn(name = "Database", type_ = "string", json_path = ".spec.database"),
    printcolumn(name = "Interval", type_ = "string", json_path = ".spec.interval"),
    printcolumn(
        name = "Lag",
        type_ = "date",
        json_path = ".status.lastWindowEnd",
        description = "Time since the end of the last window that was exported"
    ),
    printcolumn(name = "OK", type_ = "string", json_path = ".status.conditions[?(@.type==\"metricsexporter.adx-mon.azure.com\")].status"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"metricsexporter.adx-mon.azure.com\")].message",
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct MetricsExporterSpec {
    /// Database that the query runs in, by its name in `--kusto-endpoints`. Case matters.
    pub database: String,

    /// The KQL. It sees `_startTime` and `_endTime`, both inclusive, so that
    /// `where Timestamp between (_startTime .. _endTime)` covers each instant once, and one variable for each cluster
    /// label, with an underscore before its name.
    pub body: String,

    /// Length of a window, and how often one is exported: a Go duration above zero, such as 5m.
    #[x_kube(validation = Rule::new("duration(self) > duration('0s')").message("interval must be a duration above zero, such as 5m"))]
    pub interval: GoDuration,

    /// How rows become metrics.
    pub transform: Transform,

    /// Cluster labels for which this exporter runs: any key with any of its values is enough, whatever the case. Empty:
    /// everywhere.
    #[serde(default, deserialize_with = "crate::lenient::criteria", skip_serializing_if = "CriteriaMap::is_empty")]
    pub criteria: CriteriaMap,

    /// A CEL expression over the cluster labels, each a variable of type string: `region in ['eastus', 'westus']`. The
    /// exporter runs if it is true, and `criteria` matches too.
    #[serde(default, deserialize_with = "crate::lenient::text", skip_serializing_if = "String::is_empty")]
    pub criteria_expression: String,
}

impl MetricsExporterSpec {
    /// Length of a window: above zero.
    pub fn interval(&self) -> Result<Duration, SpecError> {
        self.interval.positive("spec.interval")
    }

    /// The first thing that keeps this exporter from running.
    pub fn validate(&self) -> Result<(), SpecError> {
        present("spec.database", &self.database)?;
        present("spec.body", &self.body)?;
        self.interval()?;
        if self.transform.value_columns.is_empty() {
            return Err(SpecError::new("spec.transform.valueColumns", "is empty; name the columns that hold values"));
        }
        let Transform { metric_name_column, default_metric_name, .. } = &self.transform;
        if metric_name_column.is_empty() && default_metric_name.is_empty() {
            return Err(SpecError::new("spec.transform", "has no name for the metric; set metricNameColumn or defaultMetricName"));
        }
        Ok(())
    }
}

/// How rows become metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["timestampColumn", "valueColumns"]))]
pub struct Transform {
    /// Columns that hold values: each becomes one metric for each row.
    #[serde(default, deserialize_with = "crate::lenient::null")]
    #[schemars(length(min = 1))]
    pub value_columns: Vec<String>,
    /// Column that holds the time: a datetime, or text in RFC 3339. Empty: the time of the run.
    #[serde(default, deserialize_with = "crate::lenient::null")]
    pub timestamp_column: String,
    /// Column that holds the name of the metric. Wins over defaultMetricName.
    #[serde(default, deserialize_with = "crate::lenient::null", skip_serializing_if = "String::is_empty")]
    pub metric_name_column: String,
    /// Put before the name, with an underscore between.
    #[serde(default, deserialize_with = "crate::lenient::null", skip_serializing_if = "String::is_empty")]
    pub metric_name_prefix: String,
    /// Name of the metric when no column holds it.
    #[serde(default, deserialize_with = "crate::lenient::null", skip_serializing_if = "String::is_empty")]
    pub default_metric_name: String,
    /// Columns that become labels, of type string.
    #[serde(default, deserialize_with = "crate::lenient::null", skip_serializing_if = "Vec::is_empty")]
    pub label_columns: Vec<String>,
}

/// How far a MetricsExporter is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricsExporterStatus {
    /// Exclusive end of the last window that was exported, where the next one begins. Until one was exported, where the first
    /// one begins that was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_window_end: Option<Time>,
    /// Samples of that window.
    #[serde(default)]
    pub last_samples: i64,
    /// Rows of that window that were left out because they could not become metrics.
    #[serde(default)]
    pub last_skipped_rows: i64,
    /// State of this object: the last execution, its failure, whether it is meant for this cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}
