//! `[exporters]`: the tables as they may be written, and what they mean.

use std::path::PathBuf;
use std::time::Duration;

use exporters::HttpOptions;
use exporters::fluent::{Destination, FluentConfig};
use exporters::otlp::{Bounds, Protocol, PushConfig};
use exporters::remote_write::RemoteWriteConfig;
use serde::Deserialize;

use super::file::{LabelMatcher, Map, MetricSource};
use super::rules::RuleScope;
use super::settings::positive;

/// `[exporters]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[allow(missing_docs)] // The keys are documented in the generated file, their single source.
pub struct Exporters {
    pub otlp_metric_export: Vec<OtlpMetricExport>,
    pub remote_write_metric_export: Vec<RemoteWriteMetricExport>,
    pub fluent_forward_log_export: Vec<FluentForwardLogExport>,
}

/// A table with the keys that all exporters of metrics have, and its own.
macro_rules! metric_export {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(rename_all = "kebab-case", default)]
        #[allow(missing_docs)]
        pub struct $name {
            pub name: String,
            pub destination: String,
            pub default_drop_metrics: Option<bool>,
            pub add_labels: Map,
            pub drop_labels: Map,
            pub drop_metrics: Vec<String>,
            pub keep_metrics: Vec<String>,
            pub keep_metrics_with_label_value: Vec<LabelMatcher>,
            pub headers: Map,
            pub bearer_token_file: String,
            pub ca_file: String,
            pub insecure_skip_verify: bool,
            pub request_timeout_seconds: i64,
            pub max_batch_size: i64,
            pub max_batch_bytes: i64,
            pub max_buffer_size: i64,
            pub max_buffer_age_seconds: i64,
            $(pub $field: $kind,)*
        }

        impl $name {
            /// Its filters and label rules.
            #[must_use]
            pub fn rules(&self) -> RuleScope {
                RuleScope::source(&MetricSource {
                    default_drop_metrics: self.default_drop_metrics,
                    add_labels: self.add_labels.clone(),
                    drop_labels: self.drop_labels.clone(),
                    drop_metrics: self.drop_metrics.clone(),
                    keep_metrics: self.keep_metrics.clone(),
                    keep_metrics_with_label_value: self.keep_metrics_with_label_value.clone(),
                    ..MetricSource::default()
                })
            }

            /// Numbers that must not be negative, by key.
            pub(super) fn numbers(&self) -> [(&'static str, i64); 5] {
                [
                    ("request-timeout-seconds", self.request_timeout_seconds),
                    ("max-batch-size", self.max_batch_size),
                    ("max-batch-bytes", self.max_batch_bytes),
                    ("max-buffer-size", self.max_buffer_size),
                    ("max-buffer-age-seconds", self.max_buffer_age_seconds),
                ]
            }

            fn http(&self) -> HttpOptions {
                HttpOptions {
                    headers: self.headers.clone(),
                    bearer_token_file: path(&self.bearer_token_file),
                    ca_file: path(&self.ca_file),
                    insecure_skip_verify: self.insecure_skip_verify,
                }
            }

            fn settings(&self, client: ExporterClient) -> ExporterSettings {
                let limits = (self.max_buffer_size, self.max_buffer_age_seconds, self.request_timeout_seconds);
                ExporterSettings { rules: self.rules(), ..ExporterSettings::new(&self.name, client, limits) }
            }
        }
    };
}

metric_export! {
    /// `[[exporters.otlp-metric-export]]`
    OtlpMetricExport {
        add_resource_attributes: Map,
        protocol: String,
        compression: String,
        metric_types: bool,
    }
}

metric_export! {
    /// `[[exporters.remote-write-metric-export]]`
    RemoteWriteMetricExport {}
}

/// `[[exporters.fluent-forward-log-export]]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[allow(missing_docs)]
pub struct FluentForwardLogExport {
    pub name: String,
    pub destination: String,
    pub tag_attribute: String,
    pub require_ack: bool,
    pub shared_key_file: String,
    pub ca_file: String,
    pub request_timeout_seconds: i64,
    pub max_batch_size: i64,
    pub max_batch_bytes: i64,
    pub max_buffer_size: i64,
    pub max_buffer_age_seconds: i64,
}

impl FluentForwardLogExport {
    /// Numbers that must not be negative, by key.
    pub(super) fn numbers(&self) -> [(&'static str, i64); 5] {
        [
            ("request-timeout-seconds", self.request_timeout_seconds),
            ("max-batch-size", self.max_batch_size),
            ("max-batch-bytes", self.max_batch_bytes),
            ("max-buffer-size", self.max_buffer_size),
            ("max-buffer-age-seconds", self.max_buffer_age_seconds),
        ]
    }
}

/// An exporter.
#[derive(Debug, Clone)]
pub struct ExporterSettings {
    /// Its name, by which sources refer to it.
    pub name: String,
    /// What it speaks and to whom.
    pub client: ExporterClient,
    /// Filters and label rules on top of the source's; of metrics only.
    pub rules: RuleScope,
    /// Bytes that may wait for the receiver.
    pub max_buffer_bytes: u64,
    /// How long they may.
    pub max_buffer_age: Duration,
    /// Longest time of a try.
    pub timeout: Duration,
}

/// What an exporter speaks and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExporterClient {
    /// OTLP metrics; whether totals are sums rather than gauges.
    Otlp(PushConfig, bool),
    /// Prometheus remote write.
    RemoteWrite(RemoteWriteConfig),
    /// Fluent forward.
    Fluent(FluentConfig),
}

impl ExporterSettings {
    fn new(name: &str, client: ExporterClient, (bytes, age, timeout): (i64, i64, i64)) -> Self {
        ExporterSettings {
            name: name.to_owned(),
            client,
            rules: RuleScope::default(),
            max_buffer_bytes: positive(bytes).unwrap_or(256 << 20),
            max_buffer_age: Duration::from_secs(positive(age).unwrap_or(86_400)),
            timeout: try_timeout(timeout),
        }
    }
}

impl Exporters {
    /// The exporters of a checked file.
    pub(super) fn settings(&self) -> Result<Vec<ExporterSettings>, String> {
        let otlp = self.otlp_metric_export.iter().map(otlp);
        let remote_write = self.remote_write_metric_export.iter().map(|export| Ok(remote_write(export)));
        otlp.chain(remote_write).chain(self.fluent_forward_log_export.iter().map(fluent)).collect()
    }
}

fn otlp(export: &OtlpMetricExport) -> Result<ExporterSettings, String> {
    let defaults = Bounds::default();
    let config = PushConfig {
        protocol: otlp_protocol(export)?,
        gzip: otlp_gzip(export)?,
        resource: export.add_resource_attributes.clone(),
        http: export.http(),
        bounds: Bounds { points: size(export.max_batch_size, defaults.points), bytes: size(export.max_batch_bytes, defaults.bytes) },
        timeout: try_timeout(export.request_timeout_seconds),
        ..PushConfig::new(&export.destination)
    };
    Ok(export.settings(ExporterClient::Otlp(config, export.metric_types)))
}

pub(super) fn otlp_protocol(export: &OtlpMetricExport) -> Result<Protocol, String> {
    if export.protocol.is_empty() { Ok(Protocol::default()) } else { export.protocol.parse() }
}

pub(super) fn otlp_gzip(export: &OtlpMetricExport) -> Result<bool, String> {
    match export.compression.as_str() {
        "" | "gzip" => Ok(true),
        "none" => Ok(false),
        _ => Err("use gzip or none".to_owned()),
    }
}

fn remote_write(export: &RemoteWriteMetricExport) -> ExporterSettings {
    let defaults = RemoteWriteConfig::new(&export.destination);
    let config = RemoteWriteConfig {
        http: export.http(),
        max_samples: size(export.max_batch_size, defaults.max_samples),
        max_bytes: size(export.max_batch_bytes, defaults.max_bytes),
        ..defaults
    };
    export.settings(ExporterClient::RemoteWrite(config))
}

fn fluent(export: &FluentForwardLogExport) -> Result<ExporterSettings, String> {
    let timeout = try_timeout(export.request_timeout_seconds);
    let defaults = FluentConfig::new(Destination::parse(&export.destination)?, &export.tag_attribute);
    let config = FluentConfig {
        acknowledge: export.require_ack.then_some(timeout),
        shared_key_file: path(&export.shared_key_file),
        ca_file: path(&export.ca_file),
        max_records: size(export.max_batch_size, defaults.max_records),
        max_bytes: size(export.max_batch_bytes, defaults.max_bytes),
        ..defaults
    };
    let limits = (export.max_buffer_size, export.max_buffer_age_seconds, export.request_timeout_seconds);
    Ok(ExporterSettings::new(&export.name, ExporterClient::Fluent(config), limits))
}

/// The reference waits for 10 s.
fn try_timeout(seconds: i64) -> Duration {
    Duration::from_secs(positive(seconds).unwrap_or(10))
}

fn size(value: i64, default: usize) -> usize {
    positive(value).and_then(|value| usize::try_from(value).ok()).unwrap_or(default)
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}
