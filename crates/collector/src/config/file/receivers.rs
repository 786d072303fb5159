//! Receivers of remote write and OTLP.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Map, MetadataLabels, Transform, metric_source, with_filters};

metric_source! {
    /// `[[prometheus-remote-write]]`
    #[schemars(extend("required" = ["database", "path"]))]
    pub struct RemoteWrite {
        /// Path of the receiver.
        #[schemars(example = &"/remote_write")]
        pub path: String,
        /// Longest time of a request, in seconds, up to 300.
        #[schemars(extend("default" = 15))]
        pub request_timeout_seconds: i64,
    }
}

metric_source! {
    /// `[[otel-metric]]`
    #[schemars(extend("required" = ["database"]))]
    pub struct OtelMetric {
        /// Path of OTLP over HTTP; a source has a path, a grpc-port, or both.
        #[schemars(example = &"/v1/metrics")]
        pub path: String,
        /// Port of OTLP over gRPC for this source alone, at the host of listen-addr; 0 is none.
        #[schemars(example = 4319)]
        pub grpc_port: i64,
        /// Longest time of a request, in seconds, up to 300.
        #[schemars(extend("default" = 15))]
        pub request_timeout_seconds: i64,
        /// Only the attributes of the points become labels, not those of resource and scope: the labels, and so the
        /// SeriesIds, of earlier versions of the collector.
        pub reference_labels: bool,
    }
}

/// `[otel-log]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct OtelLog {
    /// Database of records that name none. Empty, as default-table: such records are refused.
    #[schemars(example = &"Logs")]
    pub default_database: String,
    /// Table of records that name none.
    #[schemars(example = &"OTelLogs")]
    pub default_table: String,
    /// Longest time of a request, in seconds, up to 300.
    #[schemars(extend("default" = 15))]
    pub request_timeout_seconds: i64,
    /// Set on the resource of every record.
    #[schemars(example = super::example_labels())]
    pub add_attributes: Map,
    /// Accepted for compatibility, without effect: attributes stay in the column Attributes; see lift-resources.
    pub lift_attributes: Vec<String>,
    /// Names of exporters that get the records too.
    #[schemars(example = ["fluent"])]
    pub exporters: Vec<String>,
    /// What is done to records before they are stored, in this order. docs/logs.md has examples.
    pub transforms: Vec<Transform>,
    /// Labels that the resource of every record gets from the cluster.
    pub add_metadata_labels: Option<MetadataLabels>,
}

/// `[otel-trace]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct OtelTrace {
    /// Database of spans that name none. Empty: such spans are refused.
    #[schemars(example = &"Traces")]
    pub database: String,
    /// Table of spans that name none.
    #[schemars(extend("default" = telemetry::TraceOptions::DEFAULT_TABLE))]
    pub table: String,
    /// Path of the receiver.
    #[schemars(extend("default" = crate::config::settings::TRACES_PATH))]
    pub path: String,
    /// Longest time of a request, in seconds, up to 300.
    #[schemars(extend("default" = 15))]
    pub request_timeout_seconds: i64,
    /// Set on the resource of every span.
    #[schemars(example = super::example_labels())]
    pub add_attributes: Map,
}
