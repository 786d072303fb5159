//! From the configuration to receivers: one intake and one sink per source, joined in a router.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::MethodRouter;
use exporters::Buffer;
use futures::future::BoxFuture;
use server::receive::grpc::{self, CallStatus};
use server::receive::{self, LogDecoder, Received};
use server::{BodyLimits, Marks, Refused, Sink, WalSink};
use telemetry::export::ExportRows;
use telemetry::{Added, LogIntake, MetricIntake, RowSet, TableRows, TraceIntake};
use tokio::time::Instant;

use crate::config::{Config, LogSource, MetricEndpoint, MetricProtocol, RuleScope, TraceSource};
use crate::limits::{Applied, Limits};
use crate::metrics::{Metrics, OtlpRequest, PathCode, SourceSink, SourceStage, Table};
use crate::node_labels::NodeLabeling;
use crate::otlp_logs::{OTLP_LOGS, TransformedLogs};

/// What the sources of a collector share.
pub(crate) struct Pipeline {
    pub(crate) store: wal::Store,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) draining: Arc<AtomicBool>,
    pub(crate) identity: BTreeMap<String, String>,
    pub(crate) body: BodyLimits,
    pub(crate) node: NodeLabeling,
    /// By name of the exporter.
    pub(crate) exporters: BTreeMap<String, Buffer>,
    /// Of the tables of the store, over all sources.
    pub(crate) limits: Arc<Limits>,
}

/// What listens where.
pub(crate) struct Receivers {
    /// The paths.
    pub(crate) http: Router,
    /// OTLP over gRPC for all signals.
    pub(crate) otlp_grpc: Router,
    /// Sources of metrics with a port of their own.
    pub(crate) grpc_ports: Vec<(u16, Router)>,
}

/// A source of metrics, ready to receive.
struct Metric<'a> {
    endpoint: &'a MetricEndpoint,
    intake: Arc<MetricIntake>,
    sink: Arc<dyn Sink>,
}

impl Pipeline {
    /// All receivers.
    ///
    /// # Errors
    /// An expression that does not compile.
    pub(crate) fn receivers(&self, config: &Config) -> anyhow::Result<Receivers> {
        let metrics = config.metrics.iter().map(|endpoint| self.metric(endpoint, config)).collect::<anyhow::Result<Vec<_>>>()?;
        let (mut http, mut otlp_grpc, mut grpc_ports) = (Router::new(), grpc_router(), Vec::new());
        for metric in &metrics {
            if let Some(path) = &metric.endpoint.path {
                http = http.route(path, self.metric_path(metric, path));
            }
            if let Some(port) = metric.endpoint.grpc_port {
                grpc_ports.push((port, grpc_router().route(grpc::METRICS_PATH, self.metric_service(metric, &format!(":{port}")))));
            }
        }
        if let Some(metric) = preferred(&metrics) {
            let name = config.otlp_grpc_listen_addr.as_deref().and_then(|addr| addr.rsplit_once(':')).map_or("", |(_, port)| port);
            otlp_grpc = otlp_grpc.route(grpc::METRICS_PATH, self.metric_service(metric, &format!(":{name}")));
        }
        if let Some(source) = &config.logs {
            let (path, service) = self.logs(source);
            http = http.route("/v1/logs", path);
            otlp_grpc = otlp_grpc.route(grpc::LOGS_PATH, service);
        }
        if let Some(source) = &config.traces {
            let (path, service) = self.traces(source);
            http = http.route(&source.path, path);
            otlp_grpc = otlp_grpc.route(grpc::TRACES_PATH, service);
        }
        Ok(Receivers { http, otlp_grpc, grpc_ports })
    }

    fn metric<'a>(&self, endpoint: &'a MetricEndpoint, config: &Config) -> anyhow::Result<Metric<'a>> {
        let rules = endpoint.rules.clone().with_labels(&self.identity);
        let intake = self
            .intake(&endpoint.database, &rules, config, &endpoint.exporters)
            .with_context(|| format!("rules of {}", endpoint.name()))?;
        let intake = Arc::new(intake.reference_labels(endpoint.reference_labels));
        self.node.follow(&endpoint.node_labels, intake.added());
        let sink = self.sink(Kind::Metrics, Some(&endpoint.database), endpoint.discard, &endpoint.exporters);
        Ok(Metric { endpoint, intake, sink })
    }

    fn metric_path(&self, metric: &Metric<'_>, path: &str) -> MethodRouter {
        let (intake, sink) = (Arc::clone(&metric.intake), Arc::clone(&metric.sink));
        let (routes, counted) = match metric.endpoint.protocol {
            MetricProtocol::RemoteWrite => (receive::remote_write(intake, sink, self.body), Counted::RemoteWrite),
            MetricProtocol::Otlp => (receive::otlp_metrics(intake, sink, self.body), Counted::OtlpMetrics),
        };
        self.counted(receive::with_timeout(routes, metric.endpoint.timeout), counted, path)
    }

    fn metric_service(&self, metric: &Metric<'_>, name: &str) -> MethodRouter {
        let (intake, sink) = (Arc::clone(&metric.intake), Arc::clone(&metric.sink));
        self.counted(grpc::metrics(intake, sink, self.body, metric.endpoint.timeout), Counted::OtlpMetrics, name)
    }

    /// The intake of a source of metrics; `exporters` as its sink has them.
    ///
    /// # Errors
    /// An expression that does not compile.
    pub(crate) fn intake(&self, database: &str, rules: &RuleScope, config: &Config, exporters: &[String]) -> anyhow::Result<MetricIntake> {
        let mut intake = MetricIntake::new(database, rules.compile()?, config.lift_labels.clone());
        for exporter in exporters.iter().filter_map(|name| config.exporters.iter().find(|exporter| exporter.name == *name)) {
            intake = intake.tap(exporter.rules.compile()?);
        }
        let exemplars = self.metrics.exemplars_dropped.clone();
        let intake = intake.on_exemplars_lost(move |lost| {
            exemplars.inc_by(lost);
        });
        Ok(match &self.metrics.dropped {
            Some(dropped) => intake.on_drop(dropped.counter()),
            None => intake,
        })
    }

    /// Path and gRPC service of OTLP logs.
    fn logs(&self, source: &LogSource) -> (MethodRouter, MethodRouter) {
        // Without transforms, requests become rows without a record in between.
        if source.transforms.is_empty() {
            let intake = LogIntake::new(source.options.clone());
            self.node.follow(&source.node_labels, intake.added());
            return self.log_receivers(source, Arc::new(intake));
        }
        let added = Added::new(source.options.add_attributes.clone());
        self.node.follow(&source.node_labels, &added);
        self.log_receivers(source, Arc::new(TransformedLogs::new(source, added, Arc::clone(&self.metrics))))
    }

    fn log_receivers(&self, source: &LogSource, intake: Arc<impl LogDecoder>) -> (MethodRouter, MethodRouter) {
        let sink = self.sink(Kind::Logs { source: OTLP_LOGS }, None, false, &source.exporters);
        let path = receive::with_timeout(receive::otlp_logs(Arc::clone(&intake), Arc::clone(&sink), self.body), source.timeout);
        let service = grpc::logs(intake, sink, self.body, source.timeout);
        (self.counted(path, Counted::Logs, "/v1/logs"), self.counted(service, Counted::Logs, grpc::LOGS_PATH))
    }

    /// Path and gRPC service of OTLP traces.
    fn traces(&self, source: &TraceSource) -> (MethodRouter, MethodRouter) {
        let intake = Arc::new(TraceIntake::new(source.options.clone()));
        self.node.follow(&source.node_labels, intake.added());
        let sink = self.sink(Kind::Traces, None, false, &[]);
        let path = receive::with_timeout(receive::otlp_traces(Arc::clone(&intake), Arc::clone(&sink), self.body), source.timeout);
        let service = grpc::traces(intake, sink, self.body, source.timeout);
        (self.counted(path, Counted::Traces, &source.path), self.counted(service, Counted::Traces, grpc::TRACES_PATH))
    }

    /// The sink of a source, which gives what was stored to `exporters` too.
    pub(crate) fn sink(&self, kind: Kind, database: Option<&str>, discard: bool, exporters: &[String]) -> Arc<dyn Sink> {
        let inner = WalSink::new(self.store.clone());
        let inner = match database {
            Some(database) => inner.charging(database),
            None => inner,
        };
        let (metrics, draining) = (Arc::clone(&self.metrics), Arc::clone(&self.draining));
        let exporters = exporters.iter().filter_map(|name| self.exporters.get(name).cloned()).collect();
        let limits = Arc::clone(&self.limits);
        Arc::new(MeteredSink { inner, kind, discard, exporters, limits, metrics, draining })
    }

    /// `routes`, with their answers counted.
    fn counted(&self, routes: MethodRouter, counted: Counted, path: &str) -> MethodRouter {
        let (metrics, path) = (Arc::clone(&self.metrics), Arc::<str>::from(path));
        routes.layer(middleware::from_fn(move |request: Request, next: Next| {
            let (metrics, path) = (Arc::clone(&metrics), Arc::clone(&path));
            async move {
                let response = next.run(request).await;
                counted.count(&metrics, &path, &response);
                response
            }
        }))
    }
}

/// A router of services, which names what it does not have.
pub(crate) fn grpc_router() -> Router {
    Router::new().fallback(grpc::not_found)
}

/// The source that takes the metrics of OTLP's own port.
fn preferred<'a, 'b>(metrics: &'a [Metric<'b>]) -> Option<&'a Metric<'b>> {
    let mut otlp = metrics.iter().filter(|metric| metric.endpoint.protocol == MetricProtocol::Otlp);
    otlp.clone().find(|metric| metric.endpoint.path.as_deref() == Some("/v1/metrics")).or_else(|| otlp.next())
}

/// Which counters an endpoint moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    RemoteWrite,
    OtlpMetrics,
    Logs,
    Traces,
}

impl Counted {
    fn count(self, metrics: &Metrics, path: &str, response: &Response) {
        let received = response.extensions().get::<Received>().copied().unwrap_or_default();
        let call = response.extensions().get::<CallStatus>();
        let mut code = call.map_or_else(|| response.status().as_str().to_owned(), |call| call.0.to_owned());
        if self == Counted::OtlpMetrics {
            let endpoint = path.to_owned();
            // The protocol is spelt as in the reference.
            let protocol = if path.starts_with(':') { "oltp/grpc" } else { "oltp/http" };
            metrics.otlp_requests.get_or_create(&OtlpRequest { protocol, code, endpoint }).inc();
        } else {
            // As the reference counts: 204 when all series were filtered. The answer to version 2.0 is always 204.
            if self == Counted::RemoteWrite && response.status().is_success() {
                let all_filtered = received.accepted == 0 && received.filtered > 0;
                code = if all_filtered { "204" } else { "202" }.to_owned();
            }
            metrics.requests.get_or_create(&PathCode { path: path.to_owned(), code }).inc();
        }
        match self {
            Counted::RemoteWrite | Counted::OtlpMetrics => {
                metrics.samples_rejected.inc_by(received.rejected);
            }
            Counted::Logs if received.rejected > 0 => {
                metrics.invalid_logs.inc_by(received.rejected);
                let dropped = SourceStage { source: OTLP_LOGS, stage: "routing" };
                metrics.logs_dropped.get_or_create(&dropped).inc_by(received.rejected);
            }
            Counted::Logs | Counted::Traces => {}
        }
    }
}

/// What the rows of a sink are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Samples.
    Metrics,
    /// Log records of a source, by the name that it has in metrics.
    Logs { source: &'static str },
    /// Spans.
    Traces,
}

/// The store's sink, with counts, with `disable-metrics-forwarding`, and closed while draining. Exporters get what the store
/// has, before the sender hears of it: so a request that is repeated because it was refused is exported once.
struct MeteredSink {
    inner: WalSink,
    kind: Kind,
    discard: bool,
    exporters: Vec<Buffer>,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    draining: Arc<AtomicBool>,
}

impl Sink for MeteredSink {
    fn commit_with_marks(&self, mut rows: RowSet, filtered: u64, marks: Marks) -> BoxFuture<'_, Result<(), Refused>> {
        let exported = self.exported(&mut rows);
        let limited = self.limits.apply(&mut rows, Instant::now());
        let filtered = filtered + limited.iter().map(Applied::dropped).sum::<u64>();
        if self.discard {
            let committed = self.inner.commit_with_marks(RowSet::new(), filtered + rows.rows(), marks);
            return Box::pin(async move {
                committed.await?;
                self.export(exported).await;
                Ok(())
            });
        }
        let count = rows.rows();
        let tables = if matches!(self.kind, Kind::Logs { .. }) { destinations(&rows) } else { Vec::new() };
        let committed = self.inner.commit_with_marks(rows, filtered, marks);
        Box::pin(async move {
            if let Err(refused) = committed.await {
                self.limits.refused(limited);
                return Err(refused);
            }
            self.limits.stored(limited);
            self.export(exported).await;
            match self.kind {
                Kind::Metrics => {
                    self.metrics.samples_stored.inc_by(count);
                }
                Kind::Traces => {
                    self.metrics.spans_stored.inc_by(count);
                }
                Kind::Logs { source } => self.logs_stored(source, count, tables),
            }
            Ok(())
        })
    }

    fn ready(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("the collector is shutting down".to_owned());
        }
        self.inner.ready()
    }
}

/// What the exporters of a source get of one request.
enum Exported {
    Nothing,
    /// By exporter.
    Samples(Vec<ExportRows>),
    Tables(Vec<TableRows>),
}

impl MeteredSink {
    fn exported(&self, rows: &mut RowSet) -> Exported {
        match self.kind {
            _ if self.exporters.is_empty() => Exported::Nothing,
            Kind::Metrics => Exported::Samples(rows.take_exports()),
            Kind::Logs { .. } => Exported::Tables(rows.by_table()),
            Kind::Traces => Exported::Nothing,
        }
    }

    /// Failures are counted there, and are no concern of the sender.
    async fn export(&self, exported: Exported) {
        match exported {
            Exported::Nothing => {}
            Exported::Samples(rows) => {
                for (exporter, rows) in self.exporters.iter().zip(rows) {
                    exporter.keep_samples(rows).await;
                }
            }
            Exported::Tables(tables) => {
                for exporter in &self.exporters {
                    exporter.keep_tables(tables.clone()).await;
                }
            }
        }
    }

    fn logs_stored(&self, source: &'static str, count: u64, tables: Vec<(Table, u64)>) {
        self.metrics.logs_sent.get_or_create(&SourceSink { source, sink: "StoreSink" }).inc_by(count);
        for (table, rows) in tables {
            self.metrics.logs_keys.get_or_create(&table).inc_by(rows);
        }
    }
}

fn destinations(rows: &RowSet) -> Vec<(Table, u64)> {
    let table = |t: &telemetry::Table| Table { database: t.database.to_string(), table: t.table.to_string() };
    rows.tables().iter().map(|t| (table(t), u64::from(t.rows))).collect()
}
