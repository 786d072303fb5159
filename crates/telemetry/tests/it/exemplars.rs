//! Exemplars, from every format that has them to the lines of exporters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;
use serde_json::{Value, json};
use telemetry::export::{ExportExemplar, ExportSample, ExportSeries};
use telemetry::rules::{MetricRules, MetricRulesConfig};
use telemetry::{Encoding, ExpositionFormat, MetricIntake, RowSet, ScrapedPage};

/// An intake, and how many exemplars it said to have gone nowhere.
fn counting(rules: MetricRules) -> (MetricIntake, Arc<AtomicU64>) {
    let lost = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&lost);
    let told = move |number| {
        counted.fetch_add(number, Ordering::Relaxed);
    };
    (MetricIntake::new("M", rules, Vec::new()).on_exemplars_lost(told), lost)
}

fn tapped() -> (MetricIntake, Arc<AtomicU64>) {
    let (intake, lost) = counting(MetricRules::default());
    (intake.tap(MetricRules::default()), lost)
}

/// What an exporter is told: metric and `le`, value if there is a sample, and exemplars.
fn told(set: &mut RowSet) -> Vec<(String, Option<f64>, Vec<ExportExemplar>)> {
    let exports = set.take_exports();
    let lines = exports.iter().flat_map(|export| export.bytes.split_inclusive(|byte| *byte == b'\n'));
    lines
        .map(|line| {
            let sample = ExportSample::read(line).unwrap();
            let series = ExportSeries::read(sample.series).unwrap();
            let le = series.labels.iter().find(|(name, _)| name == "le").map(|(_, le)| format!(" {le}"));
            (series.metric + &le.unwrap_or_default(), sample.value, ExportExemplar::read_all(sample.exemplars))
        })
        .collect()
}

fn exemplar(timestamp_ms: Option<i64>, value: f64, labels: &[(&str, &str)]) -> ExportExemplar {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ExportExemplar { timestamp_ms, value, labels }
}

fn scrape(intake: &MetricIntake, page: &str) -> RowSet {
    let mut set = RowSet::new();
    let page =
        ScrapedPage { body: page.as_bytes(), format: ExpositionFormat::OpenMetrics, target_labels: &[], honor_labels: false, now_ms: 5 };
    let outcome = intake.scrape(&page, &mut set);
    assert_eq!(outcome.rejected, 0, "{:?}", outcome.first_error);
    set
}

/// The example of the OpenMetrics specification, "Exemplars".
const OPEN_METRICS: &str = "\
# TYPE foo histogram
foo_bucket{le=\"0.01\"} 0
foo_bucket{le=\"0.1\"} 8 # {} 0.054
foo_bucket{le=\"1\"} 11 # {trace_id=\"KOO5S4vxi0o\"} 0.67
foo_bucket{le=\"10\"} 17 # {trace_id=\"oHg5SJYRHA0\"} 9.8 1520879607.789
foo_bucket{le=\"+Inf\"} 17
foo_count 17
foo_sum 324789.3
foo_created  1520430000.123
# EOF
";

#[test]
fn the_example_of_open_metrics_reaches_exporters() {
    let (intake, lost) = tapped();
    let told = told(&mut scrape(&intake, OPEN_METRICS));
    let with: Vec<_> = told.iter().filter(|(_, _, exemplars)| !exemplars.is_empty()).cloned().collect();
    let expected = [
        ("foo_bucket 0.1", 8.0, exemplar(None, 0.054, &[])),
        ("foo_bucket 1", 11.0, exemplar(None, 0.67, &[("trace_id", "KOO5S4vxi0o")])),
        ("foo_bucket 10", 17.0, exemplar(Some(1_520_879_607_789), 9.8, &[("trace_id", "oHg5SJYRHA0")])),
    ];
    assert_eq!(with, expected.map(|(name, value, exemplar)| (name.to_owned(), Some(value), vec![exemplar])));
    assert_eq!((told.len(), lost.load(Ordering::Relaxed)), (8, 0));
}

#[test]
fn what_nobody_takes_or_can_read_is_counted() {
    let (intake, lost) = counting(MetricRules::default());
    assert_eq!(scrape(&intake, OPEN_METRICS).rows(), 8);
    assert_eq!(lost.load(Ordering::Relaxed), 3);

    // Of samples that a filter of the source drops, and of those that no filter of an exporter leaves.
    let drop = |pattern: &str| {
        let config = MetricRulesConfig { drop_metrics: vec![pattern.to_owned()], ..MetricRulesConfig::default() };
        MetricRules::compile(&config).unwrap()
    };
    for (source, tap) in [("^foo", "^none"), ("^none", "^foo")] {
        let (intake, lost) = counting(drop(source));
        scrape(&intake.tap(drop(tap)), OPEN_METRICS);
        assert_eq!(lost.load(Ordering::Relaxed), 3, "{source} {tap}");
    }

    let (intake, lost) = tapped();
    let long = "x".repeat(2000);
    let page = format!(
        "a_total 1 # trace 1\nb_total 1 # {{l=\"v\"}}\nc_total 1 # {{l=\"v\"}} 1 2 3\nd_total 1 # {{l=\"{long}\"}} 1\ne_total 1 # {{l=\"v\"}} 2 x\n\
         f_total 1 # {{\"l\"}} 2\ng_total 7\n# EOF\n"
    );
    let told = told(&mut scrape(&intake, &page));
    assert_eq!((told.len(), lost.load(Ordering::Relaxed)), (7, 6));
    assert!(told.iter().all(|(_, value, exemplars)| value.is_some() && exemplars.is_empty()), "{told:?}");
}

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    exemplars: Vec<Exemplar>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

/// Prometheus writes exemplars as series of their own, without a sample.
#[test]
fn remote_write_has_them_with_samples_or_alone() {
    let label = |name: &str, value: &str| Label { name: name.to_owned(), value: value.to_owned() };
    let sent = Exemplar { labels: vec![label("trace_id", "t")], value: 0.5, timestamp: 7 };
    let (first, second) = (Sample { value: 1.0, timestamp: 1 }, Sample { value: 2.0, timestamp: 2 });
    let series = |samples: Vec<Sample>, exemplars: Vec<Exemplar>| TimeSeries { labels: vec![label("__name__", "up")], samples, exemplars };
    let request = WriteRequest {
        timeseries: vec![series(vec![first, second], vec![sent.clone()]), series(vec![], vec![sent]), series(vec![], vec![])],
    };
    let (intake, lost) = tapped();
    let mut set = RowSet::new();
    let outcome = intake.remote_write(&request.encode_to_vec(), &mut set).unwrap();
    assert_eq!((outcome.accepted, outcome.rejected, set.rows()), (2, 0, 2));
    let read = exemplar(Some(7), 0.5, &[("trace_id", "t")]);
    let up = || "up".to_owned();
    assert_eq!(told(&mut set), [(up(), Some(1.0), vec![]), (up(), Some(2.0), vec![read.clone()]), (up(), None, vec![read])]);
    assert_eq!(lost.load(Ordering::Relaxed), 0);

    let (intake, lost) = counting(MetricRules::default());
    intake.remote_write(&request.encode_to_vec(), &mut RowSet::new()).unwrap();
    assert_eq!(lost.load(Ordering::Relaxed), 2);
}

/// A native histogram of a schema that is none, with an exemplar: the next series does not get it.
#[test]
fn those_of_what_is_rejected_go_nowhere_else() {
    let name = |name: &[u8]| [&[0x0a, 12 + name.len() as u8, 0x0a, 8][..], b"__name__", &[0x12, name.len() as u8], name].concat();
    let value = [&[0x11][..], &0.5f64.to_le_bytes()].concat();
    let exemplar = [&[0x1a, value.len() as u8][..], &value].concat();
    let histogram = [0x22, 2, 4 << 3, 40];
    let sample = [&[0x12, 9, 0x09][..], &1.0f64.to_le_bytes()].concat();
    let series = |parts: &[&[u8]]| {
        let all = parts.concat();
        [&[0x0a, all.len() as u8][..], &all].concat()
    };
    let body = [series(&[&name(b"h"), &exemplar, &histogram]), series(&[&name(b"up"), &sample])].concat();
    let (intake, lost) = tapped();
    let mut set = RowSet::new();
    let outcome = intake.remote_write(&body, &mut set).unwrap();
    assert_eq!((outcome.accepted, outcome.rejected, lost.load(Ordering::Relaxed)), (1, 1, 1), "{:?}", outcome.first_error);
    assert_eq!(told(&mut set), [("up".to_owned(), Some(1.0), vec![])]);
}

fn otlp(metric: Value) -> Value {
    json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]})
}

/// What exporters get of a metric is the same whether it comes as protobuf or as JSON.
fn exported(metric: Value) -> Vec<(String, Option<f64>, Vec<ExportExemplar>)> {
    let body = otlp(metric);
    let protobuf = serde_json::from_value::<ExportMetricsServiceRequest>(body.clone()).unwrap().encode_to_vec();
    let [from_json, from_protobuf] =
        [(body.to_string().into_bytes(), Encoding::Json), (protobuf, Encoding::Protobuf)].map(|(body, encoding)| {
            let (intake, lost) = tapped();
            let mut set = RowSet::new();
            let outcome = intake.otlp(&body, encoding, &mut set).unwrap();
            assert_eq!((outcome.rejected, lost.load(Ordering::Relaxed)), (0, 0), "{:?}", outcome.first_error);
            sorted(told(&mut set))
        });
    assert_eq!(from_json, from_protobuf);
    from_json
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn sent(value: f64) -> Value {
    let attribute = json!({"key": "tries", "value": {"intValue": "3"}});
    json!({"timeUnixNano": "7000000", "asDouble": value, "traceId": TRACE, "spanId": SPAN, "filteredAttributes": [attribute]})
}

fn read(value: f64) -> Vec<ExportExemplar> {
    let mut read = exemplar(Some(7), value, &[("span_id", SPAN), ("trace_id", TRACE), ("tries", "3")]);
    read.labels.sort();
    vec![read]
}

fn sorted(mut told: Vec<(String, Option<f64>, Vec<ExportExemplar>)>) -> Vec<(String, Option<f64>, Vec<ExportExemplar>)> {
    told.iter_mut().flat_map(|(_, _, exemplars)| exemplars).for_each(|exemplar| exemplar.labels.sort());
    told
}

#[test]
fn points_of_otlp_keep_theirs() {
    let point = json!({"timeUnixNano": "1000000", "asDouble": 1.0, "exemplars": [sent(2.5)]});
    let told = exported(json!({"name": "c", "sum": {"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [point]}}));
    assert_eq!(told, [("c".to_owned(), Some(1.0), read(2.5))]);
}

#[test]
fn those_of_a_histogram_belong_to_the_bucket_of_their_value() {
    let point = json!({"timeUnixNano": "1000000", "count": "4", "sum": 9.0, "bucketCounts": ["1", "2", "1"], "explicitBounds": [1.0, 2.0],
        "exemplars": [sent(2.0), sent(5.0), sent(0.5)]});
    let told = exported(json!({"name": "h", "histogram": {"aggregationTemporality": 2, "dataPoints": [point]}}));
    let by_bucket: Vec<_> = told.into_iter().filter(|(name, ..)| name.starts_with("h_bucket")).map(|(_, _, exemplars)| exemplars).collect();
    // A bound belongs to the bucket below it.
    assert_eq!(by_bucket, [read(0.5), read(2.0), read(5.0)]);

    // Scale 0: the buckets end at 2 and 4.
    let point = json!({"timeUnixNano": "1000000", "count": "2", "sum": 5.0, "scale": 0, "positive": {"offset": 0, "bucketCounts": ["1", "1"]},
        "exemplars": [sent(1.5), sent(4.0)]});
    let told = exported(json!({"name": "e", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [point]}}));
    let by_bucket: Vec<_> = told.into_iter().filter(|(name, ..)| name.starts_with("e_bucket")).map(|(_, _, exemplars)| exemplars).collect();
    assert_eq!(by_bucket, [read(1.5), read(4.0), vec![]]);
}
