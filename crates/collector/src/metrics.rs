//! The collector's own metrics, under the reference's names so that its dashboards keep working.
//! What the store knows is read from it when metrics are asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use server::Connections;

use crate::pods::Source;

/// Counts of one request path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PathCode {
    pub(crate) path: String,
    /// An HTTP status, or the name of a gRPC status.
    pub(crate) code: String,
}

/// Counts of one OTLP metrics endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OtlpRequest {
    pub(crate) protocol: &'static str,
    /// See [`PathCode::code`].
    pub(crate) code: String,
    pub(crate) endpoint: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Table {
    pub(crate) database: String,
    pub(crate) table: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct SourceSink {
    pub(crate) source: &'static str,
    pub(crate) sink: &'static str,
}

/// Rows above a limit of a table: `series` or `rate`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LimitedRows {
    pub(crate) database: String,
    pub(crate) table: String,
    pub(crate) limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LogSource {
    pub(crate) source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct SourceStage {
    pub(crate) source: &'static str,
    pub(crate) stage: &'static str,
}

/// Lines with a problem: `format`, `time`, `empty`, `utf8`, `cut`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct SourceProblem {
    pub(crate) source: &'static str,
    pub(crate) problem: &'static str,
}

/// Why a connection of a syslog sender ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EndReason {
    pub(crate) reason: &'static str,
}

/// Folders of log files that one thread reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Folder {
    pub(crate) folder: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceTransform {
    source: &'static str,
    transform: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ScrapeResult {
    pub(crate) result: &'static str,
}

/// A target, while it is one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TargetUrl {
    pub(crate) url: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadResult {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Discovery {
    pub(crate) source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MetricName {
    metric: String,
}

/// Samples that filters drop, by metric.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dropped(Family<MetricName, Counter>, Arc<AtomicUsize>);

/// Names that are counted one by one; senders choose them.
const MAX_DROPPED_NAMES: usize = 10_000;

impl Dropped {
    /// What counts the drops of one source.
    pub(crate) fn counter(&self) -> impl Fn(&str, u64) + Send + Sync + use<> {
        let Dropped(family, names) = self.clone();
        move |metric, samples| {
            let name = MetricName { metric: metric.to_owned() };
            if let Some(counter) = family.get(&name) {
                counter.inc_by(samples);
                return;
            }
            let known = names.fetch_add(1, Ordering::Relaxed) < MAX_DROPPED_NAMES;
            let name = if known { name } else { MetricName { metric: "(others)".to_owned() } };
            family.get_or_create(&name).inc_by(samples);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Region {
    region: String,
}

/// A count whose name has no `_total`, as the reference exposes it.
type PlainCount = Gauge<u64, AtomicU64>;

/// Everything that is counted as it happens.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) requests: Family<PathCode, Counter>,
    pub(crate) otlp_requests: Family<OtlpRequest, Counter>,
    pub(crate) samples_stored: Counter,
    pub(crate) samples_rejected: Counter,
    pub(crate) invalid_logs: PlainCount,
    pub(crate) logs_keys: Family<Table, PlainCount>,
    pub(crate) logs_sent: Family<SourceSink, PlainCount>,
    pub(crate) logs_dropped: Family<SourceStage, PlainCount>,
    transform_failures: Family<SourceTransform, Counter>,
    pub(crate) limited_rows: Family<LimitedRows, Counter>,
    pub(crate) tail: Arc<tail::Stats>,
    pub(crate) tail_hanging: Family<Folder, Gauge>,
    pub(crate) logs_truncated_bytes: Family<LogSource, Counter>,
    pub(crate) log_lines: Family<LogSource, Counter>,
    pub(crate) log_messages: Family<LogSource, Counter>,
    pub(crate) log_line_problems: Family<SourceProblem, Counter>,
    pub(crate) log_source_failures: Family<LogSource, Counter>,
    pub(crate) log_annotations_unusable: Gauge,
    pub(crate) syslog_connections: Family<EndReason, Counter>,
    pub(crate) events_leading: Gauge,
    pub(crate) events_maybe_duplicate: Counter,
    pub(crate) spans_stored: Counter,
    pub(crate) scrapes: Family<ScrapeResult, Counter>,
    pub(crate) scrape_targets: Gauge,
    pub(crate) scrape_targets_dropped: Gauge,
    pub(crate) bad_lines: Family<TargetUrl, Counter>,
    pub(crate) exemplars_dropped: Counter,
    reloads: Family<ReloadResult, Counter>,
    last_reload_successful: Gauge,
    pub(crate) discovery_up: Family<Discovery, Gauge>,
    pub(crate) discovery_failures: Family<Discovery, Counter>,
    /// Only with `METRICS_DEBUG`.
    pub(crate) dropped: Option<Dropped>,
}

impl Metrics {
    /// Makes the metrics and registers them; with `debug`, dropped samples are counted by metric.
    pub(crate) fn register(registry: &mut Registry, region: &str, debug: bool) -> Arc<Metrics> {
        let m = Metrics { dropped: debug.then(Dropped::default), ..Metrics::default() };
        if let Some(Dropped(family, _)) = &m.dropped {
            registry.register("adxmon_ingestor_metrics_dropped", "Samples that filters dropped", family.clone());
        }
        let health = Family::<Region, Gauge>::default();
        health.get_or_create(&Region { region: region.to_owned() }).set(1);
        registry.register("adxmon_collector_health_check", "1 while the collector runs", health);
        registry.register(
            "adxmon_ingestor_requests_received",
            "Requests of remote write, OTLP logs and traces; code 204: all series were filtered",
            m.requests.clone(),
        );
        registry.register("adxmon_collector_metrics_requests_received", "Requests of OTLP metrics", m.otlp_requests.clone());
        registry.register("adxmon_collector_samples_stored", "Samples made durable", m.samples_stored.clone());
        registry.register("adxmon_collector_samples_rejected", "Samples that could not be used", m.samples_rejected.clone());
        registry.register("adxmon_ingestor_invalid_logs_dropped", "Log records without a destination", m.invalid_logs.clone());
        registry.register("adxmon_collector_logs_keys", "Log records received by destination", m.logs_keys.clone());
        registry.register("adxmon_collector_logs_sent", "Log records stored", m.logs_sent.clone());
        registry.register("adxmon_collector_logs_dropped", "Log records dropped", m.logs_dropped.clone());
        registry.register(
            "adxmon_collector_log_transform_failures",
            "Log records that a transform could not work on; they are stored as they were",
            m.transform_failures.clone(),
        );
        registry.register("adxmon_collector_limited_rows", "Rows left out above the limit of a table", m.limited_rows.clone());
        registry.register(
            "adxmon_collector_logs_truncated_bytes",
            "Bytes cut from the ends of messages above the limit of their source",
            m.logs_truncated_bytes.clone(),
        );
        m.register_lines(registry);
        registry.register("adxmon_collector_spans_stored", "Spans made durable", m.spans_stored.clone());
        registry.register("adxmon_collector_scrapes", "Scrapes by result", m.scrapes.clone());
        registry.register("adxmon_collector_scrape_targets", "Targets that are scraped", m.scrape_targets.clone());
        let help = "Targets that annotations ask for and that are not scraped; /targets says why";
        registry.register("adxmon_collector_scrape_targets_dropped", help, m.scrape_targets_dropped.clone());
        registry.register("adxmon_collector_scrape_bad_lines", "Scraped lines that could not be used", m.bad_lines.clone());
        let help = "Exemplars that no exporter of their source takes; tables have no column for them";
        registry.register("adxmon_collector_exemplars_dropped", help, m.exemplars_dropped.clone());
        registry.register("adxmon_collector_config_reloads", "Reloads of the configuration by result", m.reloads.clone());
        m.last_reload_successful.set(1);
        registry.register(
            "adxmon_collector_config_last_reload_successful",
            "1 if the collector runs with what the configuration file said last",
            m.last_reload_successful.clone(),
        );
        registry.register("adxmon_collector_discovery_up", "1 while what is discovered follows its source", m.discovery_up.clone());
        registry.register("adxmon_collector_discovery_failures", "Failed tries to discover", m.discovery_failures.clone());
        registry.register_collector(Box::new(TailCollector(Arc::clone(&m.tail))));
        Arc::new(m)
    }

    /// Metrics of lines and messages before they are records.
    fn register_lines(&self, registry: &mut Registry) {
        registry.register("adxmon_collector_log_lines", "Lines read", self.log_lines.clone());
        registry.register("adxmon_collector_log_messages", "Messages made of lines", self.log_messages.clone());
        registry.register(
            "adxmon_collector_log_line_problems",
            "Lines and messages that are not of their format (format), whose time cannot be read (time), without content (empty), \
             with bytes that are not UTF-8 (utf8), or cut (cut); all but empty ones are stored",
            self.log_line_problems.clone(),
        );
        registry.register("adxmon_collector_log_source_failures", "Failed tries to read", self.log_source_failures.clone());
        let help = "Annotations of pods about their logs that cannot be used, as it is now; the log says which";
        registry.register("adxmon_collector_log_annotations_unusable", help, self.log_annotations_unusable.clone());
        let help = "1 while this collector stores the events of Kubernetes; of several with the same table one does";
        registry.register("adxmon_collector_events_leading", help, self.events_leading.clone());
        registry.register(
            "adxmon_collector_events_maybe_duplicate",
            "Events stored after another collector ended suddenly, which it may have stored as well",
            self.events_maybe_duplicate.clone(),
        );
        registry.register(
            "adxmon_collector_tail_hanging",
            "1 while the file system of these log files does not answer",
            self.tail_hanging.clone(),
        );
        registry.register(
            "adxmon_collector_syslog_connections_ended",
            "Connections of syslog senders that ended, by reason",
            self.syslog_connections.clone(),
        );
    }

    /// Counts what the transforms of a source did.
    pub(crate) fn transformed(&self, source: &'static str, transforms: &mut logs::Transforms) {
        for logs::TransformCounts { name, dropped, failed } in transforms.take_counts() {
            if dropped > 0 {
                self.logs_dropped.get_or_create(&SourceStage { source, stage: name }).inc_by(dropped);
            }
            if failed > 0 {
                self.transform_failures.get_or_create(&SourceTransform { source, transform: name }).inc_by(failed);
            }
        }
    }

    /// Counts a reload.
    pub(crate) fn reloaded(&self, successful: bool) {
        let result = if successful { "successful" } else { "failed" };
        self.reloads.get_or_create(&ReloadResult { result }).inc();
        self.last_reload_successful.set(successful.into());
    }
}

/// Metrics of the log files that are followed.
#[derive(Debug)]
struct TailCollector(Arc<tail::Stats>);

impl Collector for TailCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &self.0;
        let gauges = [
            ("files", "Log files that are followed", &stats.files),
            ("open_files", "Log files that are open", &stats.open),
            ("polled_directories", "Folders of log files that cannot be watched and are looked at instead", &stats.polled),
        ];
        for (name, help, value) in gauges {
            let value = i64::try_from(value.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
            gauge(&mut encoder, &format!("adxmon_collector_tail_{name}"), help, value)?;
        }
        let counters = [
            ("read_bytes", "Bytes of lines read from log files", &stats.bytes),
            ("rotations", "Log files that took the place of another", &stats.rotations),
            ("truncations", "Log files that were truncated or written anew", &stats.truncations),
            ("continued_files", "Rotated log files that were found and read on", &stats.continued),
            ("lost_files", "Log files that were gone before it was sure that they were read to their ends", &stats.lost),
            ("errors", "Failed tries to read a log file", &stats.errors),
            ("overflows", "Times that notifications of log files were lost and all were looked at", &stats.overflows),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value.load(Ordering::Relaxed));
            let name = format!("adxmon_collector_tail_{name}");
            counter.encode(encoder.encode_descriptor(&name, &format!("{help}."), None, MetricType::Counter)?)?;
        }
        let lag = stats.lag();
        let lag = lag.iter().map(|(target, bytes)| ([("target", &**target)], i64::try_from(*bytes).unwrap_or(i64::MAX)));
        let help = "Bytes of log files that are not read yet, as of when each file was last looked at.";
        let metric = encoder.encode_descriptor("adxmon_collector_tail_lag_bytes", help, None, MetricType::Gauge)?;
        family(metric, lag, |value, encoder| ConstGauge::new(value).encode(encoder))
    }
}

/// Metrics read from the store and the listener.
pub(crate) struct StateCollector {
    pub(crate) store: wal::Store,
    pub(crate) connections: Arc<Connections>,
}

impl fmt::Debug for StateCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateCollector").finish_non_exhaustive()
    }
}

impl Collector for StateCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.listener(&mut encoder)?;
        usage(&mut encoder, &self.store.usage())?;
        ledger(&mut encoder, &self.store.ledger())
    }
}

impl StateCollector {
    fn listener(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let active = i64::try_from(self.connections.active()).unwrap_or(i64::MAX);
        gauge(encoder, "adxmon_ingestor_active_connections", "Open connections", active)?;
        let dropped = ConstCounter::new(self.connections.dropped());
        let name = "adxmon_ingestor_dropped_connections";
        dropped.encode(encoder.encode_descriptor(name, "Connections over the limit.", None, MetricType::Counter)?)
    }
}

fn usage(encoder: &mut DescriptorEncoder<'_>, usage: &wal::Usage) -> fmt::Result {
    let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let sealed = usage.segments as u64;
    let waiting: u64 = usage.databases.values().sum();
    gauge(encoder, "adxmon_collector_wal_segments_count", "Closed segments", int(sealed))?;
    gauge(encoder, "adxmon_collector_wal_segments_size_bytes", "Bytes that wait to be sent", int(waiting))?;
    let age = usage.oldest_ms.map_or(0, |oldest| now_ms().saturating_sub(oldest) / 1000);
    gauge(encoder, "adxmon_collector_wal_segments_max_age_seconds", "Age of the oldest closed segment", int(age))?;
    gauge(encoder, "adxmon_collector_storage_bytes", "Bytes of the storage directory", int(usage.total_bytes))?;
    gauge(encoder, "adxmon_collector_storage_refusing", "1 while requests are refused", i64::from(usage.refusing.is_some()))?;
    let metric = encoder.encode_descriptor("adxmon_ingestor_queue_size", "Segments that wait.", None, MetricType::Gauge)?;
    family(metric, [([("queue", "transfer")], int(sealed))], |value, encoder| ConstGauge::new(value).encode(encoder))
}

/// Rows per database (tables would be too many series) and state, and rows removed by rules.
fn ledger(encoder: &mut DescriptorEncoder<'_>, ledger: &wal::Ledger) -> fmt::Result {
    let mut databases: BTreeMap<&str, wal::Counts> = BTreeMap::new();
    for (table, counts) in &ledger.tables {
        add(databases.entry(&table.database).or_default(), counts);
    }
    let rows = databases.iter().flat_map(|(database, counts)| {
        states(counts).map(|(state, rows)| ([("database", *database), ("state", state)], i64::try_from(rows).unwrap_or(i64::MAX)))
    });
    let help = "Rows accepted, and where they are: accepted is the sum of the others (maybe_duplicate is counted apart).";
    let metric = encoder.encode_descriptor("adxmon_ledger_rows", help, None, MetricType::Gauge)?;
    family(metric, rows, |value, encoder| ConstGauge::new(value).encode(encoder))?;
    let filtered = ledger.filtered.iter().map(|((database, reason), rows)| ([("database", &**database), ("reason", &**reason)], *rows));
    let metric =
        encoder.encode_descriptor("adxmon_ledger_filtered_rows", "Rows removed before they were stored.", None, MetricType::Counter)?;
    family(metric, filtered, |value, encoder| ConstCounter::new(value).encode(encoder))
}

fn add(sum: &mut wal::Counts, counts: &wal::Counts) {
    sum.accepted += counts.accepted;
    sum.forwarded += counts.forwarded;
    sum.landed += counts.landed;
    sum.dead_lettered += counts.dead_lettered;
    sum.quarantined += counts.quarantined;
    sum.dropped += counts.dropped;
    sum.on_disk += counts.on_disk;
    sum.maybe_duplicate += counts.maybe_duplicate;
}

fn states(counts: &wal::Counts) -> [(&'static str, u64); 8] {
    [
        ("accepted", counts.accepted),
        ("forwarded", counts.forwarded),
        ("landed", counts.landed),
        ("dead_lettered", counts.dead_lettered),
        ("quarantined", counts.quarantined),
        ("dropped", counts.dropped),
        ("on_disk", counts.on_disk),
        ("maybe_duplicate", counts.maybe_duplicate),
    ]
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> fmt::Result {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, &format!("{help}."), None, MetricType::Gauge)?)
}

/// Encodes one metric with several label sets.
fn family<L: EncodeLabelSet, V>(
    mut metric: MetricEncoder<'_>,
    items: impl IntoIterator<Item = (L, V)>,
    encode: impl Fn(V, MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    for (labels, value) in items {
        encode(value, metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
