//! `[exporters]`

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Map, with_filters};

/// `[exporters]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Exporters {
    /// Metrics to an OTLP receiver.
    pub otlp_metric_export: Vec<OtlpMetricExport>,
    /// Metrics to a receiver of Prometheus remote write 1.0.
    pub remote_write_metric_export: Vec<RemoteWriteMetricExport>,
    /// Logs over the fluent forward protocol.
    pub fluent_forward_log_export: Vec<FluentForwardLogExport>,
}

/// A table with the keys that all exporters of metrics have, and its own.
macro_rules! metric_export {
    ($(#[$attribute:meta])* pub struct $name:ident { $($own:tt)* }) => {
        with_filters! {
            $(#[$attribute])*
            #[schemars(extend("required" = ["name", "destination"]))]
            pub struct $name {
                $($own)*
                /// Headers (gRPC metadata) of every request.
                #[schemars(example = Map::from([("X-Scope-OrgID".to_owned(), "tenant".to_owned())]))]
                pub headers: Map,
                /// A file whose content is sent as bearer token, read for every request.
                #[schemars(example = &"/etc/adx-mon/receiver-token")]
                pub bearer_token_file: String,
                /// Certificates (PEM) that the receiver's must be signed by; the system's without it. Read again when they
                /// change, as those of the client.
                #[schemars(example = &"/etc/adx-mon/receiver-ca.crt")]
                pub ca_file: String,
                /// A client certificate (PEM) that shows the receiver who this is, with a key or not at all.
                #[schemars(example = &"/etc/adx-mon/collector.crt")]
                pub client_cert_file: String,
                /// Key (PEM) of the client certificate.
                #[schemars(example = &"/etc/adx-mon/collector.key")]
                pub client_key_file: String,
                /// Accept any certificate of the receiver; not over gRPC.
                pub insecure_skip_verify: bool,
                /// Longest time of a try, in seconds.
                #[schemars(extend("default" = 10))]
                pub request_timeout_seconds: i64,
                /// Bytes that may wait for the receiver, compressed on disk; beyond it the oldest are dropped and counted.
                #[schemars(extend("default" = 268_435_456))]
                pub max_buffer_size: i64,
                /// Seconds that something may wait for the receiver; then it is dropped and counted.
                #[schemars(extend("default" = 86_400))]
                pub max_buffer_age_seconds: i64,
            }
        }
    };
}

metric_export! {
    /// `[[exporters.otlp-metric-export]]`
    pub struct OtlpMetricExport {
        /// What sources call it.
        #[schemars(example = &"otel")]
        pub name: String,
        /// The receiver's URL; over gRPC its path does not count.
        #[schemars(example = &"http://otel-collector:4318/v1/metrics")]
        pub destination: String,
        /// What is spoken to it.
        #[schemars(extend("default" = "http/protobuf", "enum" = ["http/protobuf", "grpc"]))]
        pub protocol: String,
        /// How requests are compressed.
        #[schemars(extend("default" = "gzip", "enum" = ["gzip", "none"]))]
        pub compression: String,
        /// Totals become sums where the source says that they are; otherwise everything is a gauge.
        pub metric_types: bool,
        /// Attributes of the resource.
        #[schemars(example = super::example_labels())]
        pub add_resource_attributes: Map,
        /// Samples of a request.
        #[schemars(extend("default" = 8192))]
        pub max_batch_size: i64,
        /// Bytes of a request, before compression.
        #[schemars(extend("default" = 2_097_152))]
        pub max_batch_bytes: i64,
    }
}

metric_export! {
    /// `[[exporters.remote-write-metric-export]]`
    pub struct RemoteWriteMetricExport {
        /// What sources call it.
        #[schemars(example = &"prometheus")]
        pub name: String,
        /// The receiver's URL.
        #[schemars(example = &"http://prometheus:9090/api/v1/write")]
        pub destination: String,
        /// Samples of a request.
        #[schemars(extend("default" = 2000))]
        pub max_batch_size: i64,
        /// Bytes of a request, before compression.
        #[schemars(extend("default" = 1_048_576))]
        pub max_batch_bytes: i64,
    }
}

/// `[[exporters.fluent-forward-log-export]]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
#[schemars(extend("required" = ["name", "destination", "tag-attribute"]))]
pub struct FluentForwardLogExport {
    /// What sources call it.
    #[schemars(example = &"fluent")]
    pub name: String,
    /// The receiver: 'tcp://host:port', 'tls://host:port' or 'unix:///path'.
    #[schemars(example = &"unix:///var/run/fluent.sock")]
    pub destination: String,
    /// The attribute that is the tag; records without it are skipped and counted. adxmon_destination_database and
    /// adxmon_destination_table are where a record goes.
    #[schemars(example = &"fluent-tag")]
    pub tag_attribute: String,
    /// Wait until the receiver acknowledges each message; without, one that dies or refuses the certificate loses some.
    pub require_ack: bool,
    /// A file with the key that the receiver shares with its senders.
    #[schemars(example = &"/etc/adx-mon/fluent.key")]
    pub shared_key_file: String,
    /// Certificates (PEM) that the receiver's must be signed by; the system's without it. Read again when they
    /// change, as those of the client.
    #[schemars(example = &"/etc/adx-mon/receiver-ca.crt")]
    pub ca_file: String,
    /// A client certificate (PEM) that shows the receiver who this is, with a key or not at all.
    #[schemars(example = &"/etc/adx-mon/collector.crt")]
    pub client_cert_file: String,
    /// Key (PEM) of the client certificate.
    #[schemars(example = &"/etc/adx-mon/collector.key")]
    pub client_key_file: String,
    /// Records of a message.
    #[schemars(extend("default" = 5000))]
    pub max_batch_size: i64,
    /// Bytes of a message.
    #[schemars(extend("default" = 1_048_576))]
    pub max_batch_bytes: i64,
    /// Longest time of a try, in seconds.
    #[schemars(extend("default" = 10))]
    pub request_timeout_seconds: i64,
    /// Bytes that may wait for the receiver, compressed on disk; beyond it the oldest are dropped and counted.
    #[schemars(extend("default" = 268_435_456))]
    pub max_buffer_size: i64,
    /// Seconds that something may wait for the receiver; then it is dropped and counted.
    #[schemars(extend("default" = 86_400))]
    pub max_buffer_age_seconds: i64,
}
