//! Receivers of metrics, logs and traces.

use std::time::Duration;

use telemetry::{LogOptions, TraceOptions};

use super::{TRACES_PATH, lifts, node_labels, positive, text, transforms};
use crate::config::file::{File, MetricSource, NodeLabels};
use crate::config::rules::RuleScope;

/// How metrics arrive at an endpoint's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricProtocol {
    /// Prometheus remote write 1.0.
    RemoteWrite,
    /// OTLP over HTTP; its port speaks gRPC.
    Otlp,
}

/// A path, a port, or both, that receive metrics.
#[derive(Debug, Clone)]
pub struct MetricEndpoint {
    /// What is spoken at the path.
    pub protocol: MetricProtocol,
    /// The path, starting with `/`.
    pub path: Option<String>,
    /// The port of OTLP over gRPC.
    pub grpc_port: Option<u16>,
    /// Where the rows go.
    pub database: String,
    /// Filters and label rules, global ones included.
    pub rules: RuleScope,
    /// Longest time of a request.
    pub timeout: Duration,
    /// `disable-metrics-forwarding`: received, counted, not stored.
    pub discard: bool,
    /// Whether OTLP points keep only their own attributes as labels.
    pub reference_labels: bool,
    /// Labels and annotations of the Node to add.
    pub node_labels: NodeLabels,
    /// Names of the exporters that get its samples too.
    pub exporters: Vec<String>,
}

impl MetricEndpoint {
    /// Its path, or its port where it has no path.
    #[must_use]
    pub fn name(&self) -> String {
        match (&self.path, self.grpc_port) {
            (Some(path), _) => path.clone(),
            (None, port) => format!(":{}", port.unwrap_or_default()),
        }
    }
}

/// The receiver of OTLP logs.
#[derive(Debug, Clone)]
pub struct LogSource {
    /// Destination and attributes.
    pub options: LogOptions,
    /// Labels and annotations of the Node to add.
    pub node_labels: NodeLabels,
    /// Names of the exporters that get its records too.
    pub exporters: Vec<String>,
    /// What is done to records before they are stored.
    pub transforms: logs::Transforms,
    /// Longest time of a request.
    pub timeout: Duration,
}

/// The receiver of OTLP traces.
#[derive(Debug, Clone)]
pub struct TraceSource {
    /// The path, starting with `/`.
    pub path: String,
    /// Destination.
    pub options: TraceOptions,
    /// Labels and annotations of the Node to add.
    pub node_labels: NodeLabels,
    /// Longest time of a request.
    pub timeout: Duration,
}

fn request_timeout(seconds: i64) -> Duration {
    Duration::from_secs(positive(seconds).unwrap_or(15))
}

pub(super) fn metric_endpoints(file: &File, global: &RuleScope) -> Vec<MetricEndpoint> {
    let endpoint = |protocol, path: &str, source: &MetricSource, seconds, reference_labels| MetricEndpoint {
        protocol,
        path: (!path.is_empty()).then(|| path.to_owned()),
        grpc_port: None,
        database: source.database.clone(),
        rules: source_rules(global, source),
        timeout: request_timeout(seconds),
        discard: file.disable_metrics_forwarding || source.disable_metrics_forwarding,
        reference_labels,
        node_labels: node_labels(file, source.add_metadata_labels.as_ref()),
        exporters: source.exporters.clone(),
    };
    let remote_write = file
        .prometheus_remote_write
        .iter()
        .map(|s| endpoint(MetricProtocol::RemoteWrite, &s.path, &s.source(), s.request_timeout_seconds, false));
    let otlp = file.otel_metric.iter().map(|s| MetricEndpoint {
        grpc_port: u16::try_from(s.grpc_port).ok().filter(|port| *port != 0),
        ..endpoint(MetricProtocol::Otlp, &s.path, &s.source(), s.request_timeout_seconds, s.reference_labels)
    });
    remote_write.chain(otlp).collect()
}

pub(super) fn source_rules(global: &RuleScope, source: &MetricSource) -> RuleScope {
    global.clone().with(source.filters.clone().into())
}

pub(super) fn log_source(file: &File) -> Result<Option<LogSource>, String> {
    let Some(log) = &file.otel_log else { return Ok(None) };
    let mut add_attributes = file.add_attributes.clone();
    add_attributes.extend(log.add_attributes.clone());
    let message = |errors: Vec<logs::TransformError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Ok(Some(LogSource {
        node_labels: node_labels(file, log.add_metadata_labels.as_ref()),
        options: LogOptions {
            default_database: text(&log.default_database),
            default_table: text(&log.default_table),
            add_attributes,
            lift_resources: lifts(&file.lift_resources),
        },
        exporters: log.exporters.clone(),
        transforms: transforms(&log.transforms).map_err(message)?,
        timeout: request_timeout(log.request_timeout_seconds),
    }))
}

pub(super) fn trace_source(file: &File) -> Option<TraceSource> {
    let trace = file.otel_trace.as_ref()?;
    let mut add_attributes = file.add_attributes.clone();
    add_attributes.extend(trace.add_attributes.clone());
    Some(TraceSource {
        node_labels: node_labels(file, None),
        path: text(&trace.path).unwrap_or_else(|| TRACES_PATH.to_owned()),
        options: TraceOptions {
            default_database: text(&trace.database),
            default_table: text(&trace.table).or_else(|| Some(TraceOptions::DEFAULT_TABLE.to_owned())),
            add_attributes,
        },
        timeout: request_timeout(trace.request_timeout_seconds),
    })
}
