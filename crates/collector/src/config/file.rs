//! The shape of the configuration file, key for key.
//!
//! These types say what may be written and nothing more: rules are in [`super::validate`], and what
//! a setting does is said where it is used. Integers are `i64` so that a negative number is a
//! message of ours rather than a parse error. Empty strings count as absent, as in the reference.

use std::collections::BTreeMap;

use serde::Deserialize;

pub use super::exporters::Exporters;

/// String to string, in the order of keys.
pub type Map = BTreeMap<String, String>;

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[allow(missing_docs)] // The keys are documented in the generated file, their single source.
pub struct File {
    pub endpoint: OneOrMany,
    pub kube_config: String,
    pub kubelet_discovery: Option<KubeletDiscovery>,
    pub insecure_skip_verify: bool,
    pub listen_addr: Option<String>,
    pub otlp_listen_addr: Option<String>,
    pub otlp_grpc_listen_addr: Option<String>,
    pub region: String,
    pub tls_key_file: String,
    pub tls_cert_file: String,
    pub tls_client_ca_file: String,
    pub authentication: Option<Authentication>,
    pub transfer_token_file: String,
    pub transfer_client_cert_file: String,
    pub transfer_client_key_file: String,
    pub transfer_ca_file: String,
    pub storage_backend: Option<String>,
    pub max_connections: i64,
    pub max_batch_size: i64,
    pub max_segment_age_seconds: i64,
    pub max_segment_size: i64,
    pub max_disk_usage: i64,
    pub max_database_disk_usage: i64,
    pub max_tables_per_database: i64,
    pub wal_flush_interval_ms: i64,
    pub max_transfer_concurrency: i64,
    pub storage_dir: String,
    pub durability: Option<String>,
    pub enable_pprof: bool,
    pub default_drop_metrics: Option<bool>,
    pub add_labels: Map,
    pub drop_labels: Map,
    pub drop_metrics: Vec<String>,
    pub keep_metrics: Vec<String>,
    pub keep_metrics_with_label_value: Vec<LabelMatcher>,
    pub lift_labels: Vec<Lift>,
    pub disable_metrics_forwarding: bool,
    pub disable_gzip: bool,
    pub add_attributes: Map,
    pub lift_attributes: Vec<String>,
    pub lift_resources: Vec<Lift>,
    pub prometheus_scrape: Option<Scrape>,
    pub prometheus_remote_write: Vec<RemoteWrite>,
    pub otel_metric: Vec<OtelMetric>,
    pub otel_log: Option<OtelLog>,
    pub otel_trace: Option<OtelTrace>,
    pub host_log: Vec<HostLog>,
    pub syslog: Vec<Syslog>,
    pub kubernetes_events: Option<KubernetesEvents>,
    pub table_limit: Vec<TableLimit>,
    pub exporters: Exporters,
    pub metadata_watch: Option<MetadataWatch>,
    pub add_metadata_labels: Option<MetadataLabels>,
}

/// One text, or an array of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a string or an array of strings")]
pub enum OneOrMany {
    /// Commas separate several.
    One(String),
    /// One each.
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        OneOrMany::One(String::new())
    }
}

impl OneOrMany {
    /// Each of them; empty ones do not count.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let (one, many) = match self {
            OneOrMany::One(one) => (Some(one.split(',')), None),
            OneOrMany::Many(many) => (None, Some(many.iter())),
        };
        one.into_iter().flatten().chain(many.into_iter().flatten().map(String::as_str)).map(str::trim).filter(|text| !text.is_empty())
    }
}

/// `[authentication]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[allow(missing_docs)]
pub struct Authentication {
    pub token_file: String,
    pub token_review: bool,
    pub audiences: Vec<String>,
    pub service_accounts: Vec<String>,
    pub open_paths: Option<Vec<String>>,
}

/// A pair of expressions for a label's name and value.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[allow(missing_docs)]
pub struct LabelMatcher {
    pub label_regex: String,
    pub value_regex: String,
}

/// A label or resource key that gets a column of its own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Lift {
    pub name: String,
    pub column: String,
}

/// Polling of the kubelet instead of watching the API server.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[allow(missing_docs)]
pub struct KubeletDiscovery {
    pub host: String,
    pub port: i64,
    pub poll_interval: i64,
    pub request_timeout: i64,
    pub token_path: String,
    pub ca_path: String,
}

/// What every source of metrics has.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct MetricSource {
    pub database: String,
    pub disable_metrics_forwarding: bool,
    pub default_drop_metrics: Option<bool>,
    pub add_labels: Map,
    pub drop_labels: Map,
    pub drop_metrics: Vec<String>,
    pub keep_metrics: Vec<String>,
    pub keep_metrics_with_label_value: Vec<LabelMatcher>,
    pub add_metadata_labels: Option<MetadataLabels>,
    pub exporters: Vec<String>,
}

/// A table with the keys of [`MetricSource`] and its own. (`serde(flatten)` would hide unknown keys
/// and lose the position of wrong types.)
macro_rules! metric_source {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(rename_all = "kebab-case", default)]
        #[allow(missing_docs)]
        pub struct $name {
            pub database: String,
            pub disable_metrics_forwarding: bool,
            pub default_drop_metrics: Option<bool>,
            pub add_labels: Map,
            pub drop_labels: Map,
            pub drop_metrics: Vec<String>,
            pub keep_metrics: Vec<String>,
            pub keep_metrics_with_label_value: Vec<LabelMatcher>,
            pub add_metadata_labels: Option<MetadataLabels>,
            pub exporters: Vec<String>,
            $(pub $field: $kind,)*
        }

        impl $name {
            /// The keys that all sources of metrics share.
            #[must_use]
            pub fn source(&self) -> MetricSource {
                MetricSource {
                    database: self.database.clone(),
                    disable_metrics_forwarding: self.disable_metrics_forwarding,
                    default_drop_metrics: self.default_drop_metrics,
                    add_labels: self.add_labels.clone(),
                    drop_labels: self.drop_labels.clone(),
                    drop_metrics: self.drop_metrics.clone(),
                    keep_metrics: self.keep_metrics.clone(),
                    keep_metrics_with_label_value: self.keep_metrics_with_label_value.clone(),
                    add_metadata_labels: self.add_metadata_labels.clone(),
                    exporters: self.exporters.clone(),
                }
            }
        }
    };
}

metric_source! {
    /// `[prometheus-scrape]`
    Scrape {
        scrape_interval: i64,
        scrape_timeout: i64,
        disable_discovery: bool,
        discover_services: Option<bool>,
        protobuf: bool,
        body_size_limit: i64,
        sample_limit: i64,
        store_stale_markers: bool,
        static_scrape_target: Vec<StaticScrapeTarget>,
    }
}

metric_source! {
    /// `[[prometheus-remote-write]]`
    RemoteWrite {
        path: String,
        request_timeout_seconds: i64,
    }
}

metric_source! {
    /// `[[otel-metric]]`
    OtelMetric {
        path: String,
        grpc_port: i64,
        reference_labels: bool,
        request_timeout_seconds: i64,
    }
}

/// `[[prometheus-scrape.static-scrape-target]]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[allow(missing_docs)]
pub struct StaticScrapeTarget {
    pub host_regex: String,
    pub url: String,
    pub namespace: String,
    pub pod: String,
    pub container: String,
    pub scrape_interval: i64,
    pub service_account_token: bool,
    pub ca_file: String,
    pub insecure_skip_verify: bool,
}

/// `[otel-log]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[allow(missing_docs)]
pub struct OtelLog {
    pub default_database: String,
    pub default_table: String,
    pub request_timeout_seconds: i64,
    pub add_attributes: Map,
    pub lift_attributes: Vec<String>,
    pub transforms: Vec<Transform>,
    pub exporters: Vec<String>,
    pub add_metadata_labels: Option<MetadataLabels>,
}

/// `[otel-trace]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[allow(missing_docs)]
pub struct OtelTrace {
    pub database: String,
    pub table: String,
    pub path: String,
    pub request_timeout_seconds: i64,
    pub add_attributes: Map,
}

/// A transform and its own, free-form settings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Transform {
    pub name: String,
    pub config: toml::Value,
}

impl Default for Transform {
    fn default() -> Self {
        Transform { name: String::new(), config: toml::Value::Table(toml::Table::new()) }
    }
}

/// `[[host-log]]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[allow(missing_docs)]
pub struct HostLog {
    pub disable_kube_discovery: bool,
    pub add_attributes: Map,
    pub file_target: Vec<FileTarget>,
    pub static_pod_target: Vec<StaticPodTarget>,
    pub journal_target: Vec<JournalTarget>,
    pub kernel_target: Vec<KernelTarget>,
    pub transforms: Vec<Transform>,
    pub exporters: Vec<String>,
    pub add_metadata_labels: Option<MetadataLabels>,
}

/// `[[host-log.file-target]]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[allow(missing_docs)]
pub struct FileTarget {
    pub file_path: String,
    pub exclude: Vec<String>,
    pub log_type: String,
    pub database: String,
    pub table: String,
    pub parsers: Vec<String>,
    pub multi_line: Option<logs::MultiLineSettings>,
    pub max_line_bytes: i64,
}

/// `[[host-log.static-pod-target]]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[allow(missing_docs)]
pub struct StaticPodTarget {
    pub namespace: String,
    pub name: String,
    pub label_targets: Map,
    pub destination: String,
    pub parsers: Vec<String>,
}

/// `[[host-log.journal-target]]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[allow(missing_docs)]
pub struct JournalTarget {
    pub matches: Vec<String>,
    pub database: String,
    pub table: String,
    pub parsers: Vec<String>,
    pub journal_fields: Vec<String>,
    pub journal_path: String,
}

/// `[[host-log.kernel-target]]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct KernelTarget {
    pub database: String,
    pub table: String,
    pub priority: String,
}

/// `[[table-limit]]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[allow(missing_docs)]
pub struct TableLimit {
    pub database: String,
    pub table: String,
    pub max_series: i64,
    pub max_rows_per_second: i64,
}

/// `[[syslog]]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[allow(missing_docs)]
pub struct Syslog {
    pub listen_addr: String,
    pub protocol: String,
    pub tls_cert_file: String,
    pub tls_key_file: String,
    pub tls_client_ca_file: String,
    pub database: String,
    pub table: String,
    pub parsers: Vec<String>,
    pub add_attributes: Map,
    pub transforms: Vec<Transform>,
    pub exporters: Vec<String>,
    pub max_message_bytes: i64,
    pub max_connections: i64,
}

/// `[kubernetes-events]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[allow(missing_docs)]
pub struct KubernetesEvents {
    pub database: String,
    pub table: String,
    pub namespaces: Vec<String>,
    pub add_attributes: Map,
    pub exporters: Vec<String>,
}

/// `[metadata-watch]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[allow(missing_docs)]
pub struct MetadataWatch {
    pub kubernetes_node: Option<Empty>,
}

/// A table without keys: its presence is the setting.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Empty {}

/// `add-metadata-labels`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[allow(missing_docs)]
pub struct MetadataLabels {
    pub kubernetes_node: Option<NodeLabels>,
}

/// `add-metadata-labels.kubernetes-node`: source key to destination key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct NodeLabels {
    pub labels: Map,
    pub annotations: Map,
}
