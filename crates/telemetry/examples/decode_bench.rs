//! CPU time per item of each decoder: `cargo run --release -p telemetry --example decode_bench [seconds]`.
//!
//! The shapes follow real senders: 2 000 series of 10 labels over 500 metrics, log records of about 300 bytes.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use std::hint::black_box;
use std::time::{Duration, Instant};
use telemetry::client::{Series, remote_write_body};
use telemetry::rules::MetricRules;
use telemetry::{Encoding, ExpositionFormat, LogIntake, LogOptions, MetricIntake, RowSet, ScrapedPage};

const SERIES: usize = 2000;
const METRICS: usize = 500;
const NOW_MS: i64 = 1_700_000_000_000;

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let budget = Duration::from_secs_f64(seconds);
    let series: Vec<Series> = (0..SERIES).map(one_series).collect();
    let intake = MetricIntake::new("Metrics", MetricRules::default(), Vec::new());
    let logs = LogIntake::new(LogOptions::default());

    let body = remote_write_body(&series);
    measure("remote write, sample", 2 * SERIES, budget, |rows| {
        intake.remote_write(black_box(&body), rows).expect("a readable body").accepted
    });
    let page = page(&series);
    measure("scrape, sample", SERIES, budget, |rows| {
        let body = black_box(&page);
        intake
            .scrape(
                &ScrapedPage { body, format: ExpositionFormat::PrometheusText, target_labels: &[], honor_labels: false, now_ms: NOW_MS },
                rows,
            )
            .accepted
    });
    let body = otlp_metrics(&series);
    measure("OTLP metrics, point", SERIES, budget, |rows| {
        intake.otlp(black_box(&body), Encoding::Protobuf, rows).expect("a readable body").accepted
    });
    let body = otlp_logs(SERIES);
    measure("OTLP logs, record", SERIES, budget, |rows| {
        logs.otlp(black_box(&body), Encoding::Protobuf, rows).expect("a readable body").accepted
    });
}

/// Runs `decode` for about `budget` with a fresh row set each time, as a server does.
fn measure(what: &str, items: usize, budget: Duration, decode: impl Fn(&mut RowSet) -> u64) {
    let mut runs = 0u32;
    let mut bytes = 0;
    let mut best = f64::MAX;
    let started = Instant::now();
    let cpu = cpu_seconds();
    while started.elapsed() < budget {
        let run = cpu_seconds();
        let mut rows = RowSet::new();
        assert_eq!(decode(&mut rows), items as u64, "{what}: every item becomes a row");
        bytes = rows.by_table().iter().map(|table| table.bytes.len()).sum::<usize>();
        best = best.min(cpu_seconds() - run);
        runs += 1;
    }
    let mean = (cpu_seconds() - cpu) / f64::from(runs);
    println!(
        "{what:<22} best {:>7.1} ns, mean {:>7.1} ns, row {:>4} bytes",
        best / items as f64 * 1e9,
        mean / items as f64 * 1e9,
        bytes / items
    );
}

/// CPU time of this thread, which other load on the machine disturbs less than the clock.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux scheduler statistics");
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse::<f64>().ok()).expect("a number");
    nanoseconds / 1e9
}

fn one_series(number: usize) -> Series {
    let (metric, k) = (number % METRICS, number / METRICS);
    let label = |name: &str, value: String| (name.to_owned(), value);
    Series {
        labels: vec![
            label("__name__", format!("node_subsystem{}_component_seconds_total_{metric}", metric % 17)),
            label("cluster", "prod-westeurope-03".to_owned()),
            label("container", format!("app-{k}")),
            label("device", format!("eth{k}")),
            label("instance", format!("10.0.17.{}:9100", 4 + k)),
            label("job", "kube-state-metrics".to_owned()),
            label("namespace", ["kube-system", "monitoring", "payments"][metric % 3].to_owned()),
            label("node", format!("aks-nodepool1-10431{metric:03}-vmss00000a")),
            label("pod", format!("workload-{}-5d8f7c9b6-{k:05x}", metric % 37)),
            label("region", "westeurope".to_owned()),
        ],
        samples: vec![(NOW_MS, number as f64 * 1.37), (NOW_MS, number as f64)],
    }
}

fn page(series: &[Series]) -> Vec<u8> {
    let mut page = String::new();
    for one in series {
        let labels: Vec<_> = one.labels[1..].iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        page.push_str(&format!("{}{{{}}} {}\n", one.labels[0].1, labels.join(","), one.samples[0].1));
    }
    page.into_bytes()
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn otlp_metrics(series: &[Series]) -> Vec<u8> {
    let metrics = series.iter().map(|one| Metric {
        name: one.labels[0].1.clone(),
        data: Some(metric::Data::Gauge(Gauge {
            data_points: vec![NumberDataPoint {
                attributes: one.labels[1..].iter().map(|(name, value)| attribute(name, value)).collect(),
                time_unix_nano: NOW_MS as u64 * 1_000_000,
                value: Some(number_data_point::Value::AsDouble(one.samples[0].1)),
                ..NumberDataPoint::default()
            }],
        })),
        ..Metric::default()
    });
    let scope = ScopeMetrics { metrics: metrics.collect(), ..ScopeMetrics::default() };
    let resource = Resource { attributes: vec![attribute("service.name", "bench")], ..Resource::default() };
    let resource = ResourceMetrics { resource: Some(resource), scope_metrics: vec![scope], ..Default::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource] }.encode_to_vec()
}

fn otlp_logs(records: usize) -> Vec<u8> {
    let text = "level=info traceID=4bf92f3577b34da6a3ce929d0e0e4736 request completed for user with status=200 \
                upstream cache miss retrying in backoff timeout shard leader elected replica lag commit offset \
                partition flush checkpoint gc pause latency connection reset by peer while reading ";
    let record = |number: usize| LogRecord {
        time_unix_nano: NOW_MS as u64 * 1_000_000 + number as u64,
        observed_time_unix_nano: NOW_MS as u64 * 1_000_000 + number as u64,
        severity_number: 9,
        severity_text: "INFO".to_owned(),
        body: Some(AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) }),
        attributes: vec![
            attribute("kusto.database", "Logs"),
            attribute("kusto.table", &format!("AppLogs{}", number % 20)),
            attribute("http.route", "/api/v1/orders"),
            attribute("http.status_code", "200"),
        ],
        ..LogRecord::default()
    };
    let scope = ScopeLogs { log_records: (0..records).map(record).collect(), ..ScopeLogs::default() };
    let resource = Resource {
        attributes: vec![
            attribute("service.name", "checkout"),
            attribute("k8s.cluster.name", "prod-westeurope-03"),
            attribute("k8s.namespace.name", "payments"),
            attribute("host.name", "aks-nodepool1-10431000-vmss00000a"),
        ],
        ..Resource::default()
    };
    let resource = ResourceLogs { resource: Some(resource), scope_logs: vec![scope], ..Default::default() };
    ExportLogsServiceRequest { resource_logs: vec![resource] }.encode_to_vec()
}
