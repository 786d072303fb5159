//! `[exporters]`: what its tables mean.

use std::path::PathBuf;
use std::time::Duration;

use exporters::HttpOptions;
use exporters::fluent::{Destination, FluentConfig};
use exporters::otlp::{Bounds, Protocol, PushConfig};
use exporters::remote_write::RemoteWriteConfig;

use super::file::{Exporters, FluentForwardLogExport, OtlpMetricExport, RemoteWriteMetricExport};
use super::rules::RuleScope;
use super::settings::positive;

/// Numbers of an exporter, by key.
type Numbers = [(&'static str, i64); 5];

macro_rules! numbers {
    ($export:expr) => {
        [
            ("request-timeout-seconds", $export.request_timeout_seconds),
            ("max-batch-size", $export.max_batch_size),
            ("max-batch-bytes", $export.max_batch_bytes),
            ("max-buffer-size", $export.max_buffer_size),
            ("max-buffer-age-seconds", $export.max_buffer_age_seconds),
        ]
    };
}

/// The parts of a setting that all exporters of metrics have.
macro_rules! metric_export {
    ($name:ident) => {
        impl $name {
            /// Numbers that must not be negative, by key.
            pub(super) fn numbers(&self) -> Numbers {
                numbers!(self)
            }

            fn http(&self) -> HttpOptions {
                HttpOptions {
                    headers: self.headers.clone(),
                    bearer_token_file: path(&self.bearer_token_file),
                    ca_file: path(&self.ca_file),
                    client_certificate: path(&self.client_cert_file).zip(path(&self.client_key_file)),
                    insecure_skip_verify: self.insecure_skip_verify,
                }
            }

            fn settings(&self, client: ExporterClient) -> ExporterSettings {
                let limits = (self.max_buffer_size, self.max_buffer_age_seconds, self.request_timeout_seconds);
                ExporterSettings { rules: self.filters().into(), ..ExporterSettings::new(&self.name, client, limits) }
            }
        }
    };
}

metric_export!(OtlpMetricExport);
metric_export!(RemoteWriteMetricExport);

impl FluentForwardLogExport {
    /// Numbers that must not be negative, by key.
    pub(super) fn numbers(&self) -> Numbers {
        numbers!(self)
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
        client_certificate: path(&export.client_cert_file).zip(path(&export.client_key_file)),
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
