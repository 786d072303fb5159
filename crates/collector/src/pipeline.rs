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
use futures::future::BoxFuture;
use server::receive::{self, Received};
use server::{BodyLimits, Marks, Refused, Sink, WalSink};
use telemetry::{LogIntake, MetricIntake, RowSet, TraceIntake};

use crate::config::{Config, LogSource, MetricEndpoint, MetricProtocol, RuleScope, TraceSource};
use crate::metrics::{Metrics, OtlpRequest, PathCode, SourceSink, SourceStage, Table};

/// What the sources of a collector share.
pub(crate) struct Pipeline {
    pub(crate) store: wal::Store,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) draining: Arc<AtomicBool>,
    pub(crate) identity: BTreeMap<String, String>,
    pub(crate) body: BodyLimits,
}

impl Pipeline {
    /// The routes of all receivers.
    ///
    /// # Errors
    /// An expression that does not compile.
    pub(crate) fn router(&self, config: &Config) -> anyhow::Result<Router> {
        let mut router = Router::new();
        for endpoint in &config.metrics {
            router = router.route(&endpoint.path, self.metric_endpoint(endpoint, config)?);
        }
        if let Some(source) = &config.logs {
            router = router.route("/v1/logs", self.logs(source));
        }
        if let Some(source) = &config.traces {
            router = router.route(&source.path, self.traces(source));
        }
        Ok(router)
    }

    fn metric_endpoint(&self, endpoint: &MetricEndpoint, config: &Config) -> anyhow::Result<MethodRouter> {
        let rules = endpoint.rules.clone().with_labels(&self.identity);
        let intake = self.intake(&endpoint.database, &rules, config).with_context(|| format!("rules of {}", endpoint.path))?;
        let intake = intake.reference_labels(endpoint.reference_labels);
        let sink = self.sink(Kind::Metrics, Some(&endpoint.database), endpoint.discard);
        let routes = match endpoint.protocol {
            MetricProtocol::RemoteWrite => receive::remote_write(Arc::new(intake), sink, self.body),
            MetricProtocol::Otlp => receive::otlp_metrics(Arc::new(intake), sink, self.body),
        };
        let counted = match endpoint.protocol {
            MetricProtocol::RemoteWrite => Counted::RemoteWrite,
            MetricProtocol::Otlp => Counted::OtlpMetrics,
        };
        Ok(self.counted(receive::with_timeout(routes, endpoint.timeout), counted, &endpoint.path))
    }

    /// The intake of a source of metrics.
    ///
    /// # Errors
    /// An expression that does not compile.
    pub(crate) fn intake(&self, database: &str, rules: &RuleScope, config: &Config) -> anyhow::Result<MetricIntake> {
        let intake = MetricIntake::new(database, rules.compile()?, config.lift_labels.clone());
        Ok(match &self.metrics.dropped {
            Some(dropped) => intake.on_drop(dropped.counter()),
            None => intake,
        })
    }

    fn logs(&self, source: &LogSource) -> MethodRouter {
        let intake = Arc::new(LogIntake::new(source.options.clone()));
        let routes = receive::otlp_logs(intake, self.sink(Kind::Logs { source: "otlp-logs" }, None, false), self.body);
        self.counted(receive::with_timeout(routes, source.timeout), Counted::Logs, "/v1/logs")
    }

    fn traces(&self, source: &TraceSource) -> MethodRouter {
        let intake = Arc::new(TraceIntake::new(source.options.clone()));
        let routes = receive::otlp_traces(intake, self.sink(Kind::Traces, None, false), self.body);
        self.counted(receive::with_timeout(routes, source.timeout), Counted::Traces, &source.path)
    }

    /// The sink of a source.
    pub(crate) fn sink(&self, kind: Kind, database: Option<&str>, discard: bool) -> Arc<dyn Sink> {
        let inner = WalSink::new(self.store.clone());
        let inner = match database {
            Some(database) => inner.charging(database),
            None => inner,
        };
        let (metrics, draining) = (Arc::clone(&self.metrics), Arc::clone(&self.draining));
        Arc::new(MeteredSink { inner, kind, discard, metrics, draining })
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
        let mut code = response.status().as_u16();
        if self == Counted::OtlpMetrics {
            let endpoint = path.to_owned();
            // The protocol is spelt as in the reference.
            metrics.otlp_requests.get_or_create(&OtlpRequest { protocol: "oltp/http", code, endpoint }).inc();
        } else {
            if self == Counted::RemoteWrite && code == 202 && received.accepted == 0 && received.filtered > 0 {
                code = 204;
            }
            metrics.requests.get_or_create(&PathCode { path: path.to_owned(), code }).inc();
        }
        match self {
            Counted::RemoteWrite | Counted::OtlpMetrics => {
                metrics.samples_rejected.inc_by(received.rejected);
            }
            Counted::Logs if received.rejected > 0 => {
                metrics.invalid_logs.inc_by(received.rejected);
                let dropped = SourceStage { source: "otlp-logs", stage: "routing" };
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

/// The store's sink, with counts, with `disable-metrics-forwarding`, and closed while draining.
struct MeteredSink {
    inner: WalSink,
    kind: Kind,
    discard: bool,
    metrics: Arc<Metrics>,
    draining: Arc<AtomicBool>,
}

impl Sink for MeteredSink {
    fn commit_with_marks(&self, rows: RowSet, filtered: u64, marks: Marks) -> BoxFuture<'_, Result<(), Refused>> {
        if self.discard {
            return self.inner.commit_with_marks(RowSet::new(), filtered + rows.rows(), marks);
        }
        let count = rows.rows();
        let tables = if matches!(self.kind, Kind::Logs { .. }) { destinations(&rows) } else { Vec::new() };
        let committed = self.inner.commit_with_marks(rows, filtered, marks);
        Box::pin(async move {
            committed.await?;
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

impl MeteredSink {
    fn logs_stored(&self, source: &'static str, count: u64, tables: Vec<(Table, u64)>) {
        self.metrics.logs_sent.get_or_create(&SourceSink { source, sink: "StoreSink" }).inc_by(count);
        for (table, rows) in tables {
            self.metrics.logs_keys.get_or_create(&table).inc_by(rows);
        }
    }
}

fn destinations(rows: &RowSet) -> Vec<(Table, u64)> {
    let table = |t: &telemetry::TableRows| Table { database: t.database.to_string(), table: t.table.to_string() };
    rows.tables().iter().map(|t| (table(t), u64::from(t.rows))).collect()
}
