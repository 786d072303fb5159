//! Scraped pages in parts, in protobuf, and what ends between two of them.

use std::collections::BTreeSet;

use proptest::prelude::*;
use prost::Message;
use telemetry::export::{ExportExemplar, ExportSample, ExportSeries, SeriesKind};
use telemetry::rules::{MetricRules, MetricRulesConfig};
use telemetry::{ExpositionFormat, MetricIntake, Outcome, PageProgress, Reading, RowSet, STALE, ScrapedPage, SeriesSet, is_stale};

use crate::support::{Row, rows};

const NOW_MS: i64 = 1_700_000_000_000;

/// The messages of `io/prometheus/client/metrics.proto`, for an encoder that is not ours.
#[allow(unreachable_pub)]
mod client {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct LabelPair {
        #[prost(string, optional, tag = "1")]
        pub name: Option<String>,
        #[prost(string, optional, tag = "2")]
        pub value: Option<String>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Number {
        #[prost(double, optional, tag = "1")]
        pub value: Option<f64>,
        #[prost(message, optional, tag = "2")]
        pub exemplar: Option<Exemplar>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Exemplar {
        #[prost(message, repeated, tag = "1")]
        pub label: Vec<LabelPair>,
        #[prost(double, optional, tag = "2")]
        pub value: Option<f64>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Quantile {
        #[prost(double, optional, tag = "1")]
        pub quantile: Option<f64>,
        #[prost(double, optional, tag = "2")]
        pub value: Option<f64>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Summary {
        #[prost(uint64, optional, tag = "1")]
        pub sample_count: Option<u64>,
        #[prost(double, optional, tag = "2")]
        pub sample_sum: Option<f64>,
        #[prost(message, repeated, tag = "3")]
        pub quantile: Vec<Quantile>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Bucket {
        #[prost(uint64, optional, tag = "1")]
        pub cumulative_count: Option<u64>,
        #[prost(double, optional, tag = "4")]
        pub cumulative_count_float: Option<f64>,
        #[prost(double, optional, tag = "2")]
        pub upper_bound: Option<f64>,
        #[prost(message, optional, tag = "3")]
        pub exemplar: Option<Exemplar>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct BucketSpan {
        #[prost(sint32, optional, tag = "1")]
        pub offset: Option<i32>,
        #[prost(uint32, optional, tag = "2")]
        pub length: Option<u32>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Histogram {
        #[prost(uint64, optional, tag = "1")]
        pub sample_count: Option<u64>,
        #[prost(double, optional, tag = "4")]
        pub sample_count_float: Option<f64>,
        #[prost(double, optional, tag = "2")]
        pub sample_sum: Option<f64>,
        #[prost(message, repeated, tag = "3")]
        pub bucket: Vec<Bucket>,
        #[prost(sint32, optional, tag = "5")]
        pub schema: Option<i32>,
        #[prost(double, optional, tag = "6")]
        pub zero_threshold: Option<f64>,
        #[prost(uint64, optional, tag = "7")]
        pub zero_count: Option<u64>,
        #[prost(double, optional, tag = "8")]
        pub zero_count_float: Option<f64>,
        #[prost(message, repeated, tag = "9")]
        pub negative_span: Vec<BucketSpan>,
        #[prost(sint64, repeated, packed = "false", tag = "10")]
        pub negative_delta: Vec<i64>,
        #[prost(double, repeated, packed = "false", tag = "11")]
        pub negative_count: Vec<f64>,
        #[prost(message, repeated, tag = "12")]
        pub positive_span: Vec<BucketSpan>,
        #[prost(sint64, repeated, packed = "false", tag = "13")]
        pub positive_delta: Vec<i64>,
        #[prost(double, repeated, packed = "false", tag = "14")]
        pub positive_count: Vec<f64>,
        #[prost(message, repeated, tag = "16")]
        pub exemplars: Vec<Exemplar>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Metric {
        #[prost(message, repeated, tag = "1")]
        pub label: Vec<LabelPair>,
        #[prost(message, optional, tag = "2")]
        pub gauge: Option<Number>,
        #[prost(message, optional, tag = "3")]
        pub counter: Option<Number>,
        #[prost(message, optional, tag = "4")]
        pub summary: Option<Summary>,
        #[prost(message, optional, tag = "5")]
        pub untyped: Option<Number>,
        #[prost(message, optional, tag = "7")]
        pub histogram: Option<Histogram>,
        #[prost(int64, optional, tag = "6")]
        pub timestamp_ms: Option<i64>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MetricFamily {
        #[prost(string, optional, tag = "1")]
        pub name: Option<String>,
        #[prost(string, optional, tag = "2")]
        pub help: Option<String>,
        #[prost(int32, optional, tag = "3")]
        pub r#type: Option<i32>,
        #[prost(message, repeated, tag = "4")]
        pub metric: Vec<Metric>,
    }
}

use client::{Bucket, BucketSpan, Exemplar, Histogram, LabelPair, Metric, MetricFamily, Number, Quantile, Summary};

fn label(name: &str, value: &str) -> LabelPair {
    LabelPair { name: Some(name.to_owned()), value: Some(value.to_owned()) }
}

fn number(value: f64) -> Option<Number> {
    Some(Number { value: Some(value), exemplar: None })
}

fn family(name: &str, kind: i32, metric: Vec<Metric>) -> MetricFamily {
    MetricFamily { name: Some(name.to_owned()), help: Some("help".to_owned()), r#type: Some(kind), metric }
}

fn encoded(families: &[MetricFamily]) -> Vec<u8> {
    families.iter().flat_map(MetricFamily::encode_length_delimited_to_vec).collect()
}

fn intake() -> MetricIntake {
    MetricIntake::new("M", MetricRules::default(), Vec::new())
}

fn page(body: &[u8], format: ExpositionFormat) -> ScrapedPage<'_> {
    ScrapedPage { body, format, target_labels: &[], honor_labels: false, now_ms: NOW_MS }
}

fn scrape(body: &[u8], format: ExpositionFormat) -> (Outcome, Vec<Row>) {
    let mut set = RowSet::new();
    let outcome = intake().scrape(&page(body, format), &mut set);
    (outcome, rows(&set))
}

/// Table, time, labels and value of each row.
fn facts(rows: &[Row]) -> BTreeSet<String> {
    rows.iter().map(|row| format!("{} {} {} {}", row.table, row.get("Timestamp"), row.json("Labels"), row.get("Value"))).collect()
}

/// The same metrics in both formats.
#[test]
fn protobuf_and_text_say_the_same() {
    let text = "\
# TYPE requests_total counter
requests_total{code=\"200\",path=\"/a\"} 17
requests_total{code=\"500\",path=\"/\\\"b\"} 3 1000
# TYPE temperature gauge
temperature -1.5
# TYPE odd untyped
odd NaN
# TYPE rpc_seconds summary
rpc_seconds{quantile=\"0.5\"} 0.25
rpc_seconds{quantile=\"0.99\"} NaN
rpc_seconds_sum 1e+06
rpc_seconds_count 4
# TYPE size_bytes histogram
size_bytes_bucket{le=\"0.005\"} 1
size_bytes_bucket{le=\"1e+06\"} 3
size_bytes_bucket{le=\"+Inf\"} 4
size_bytes_sum 12.5
size_bytes_count 4
";
    let exemplar = || Some(Exemplar { label: vec![label("trace_id", "t")], value: Some(1.0) });
    let bucket =
        |bound, count| Bucket { upper_bound: Some(bound), cumulative_count: Some(count), exemplar: exemplar(), ..Bucket::default() };
    let quantile = |quantile, value| Quantile { quantile: Some(quantile), value: Some(value) };
    let families = [
        family(
            "requests_total",
            0,
            vec![
                Metric {
                    label: vec![label("code", "200"), label("path", "/a")],
                    counter: Some(Number { value: Some(17.0), exemplar: exemplar() }),
                    ..Metric::default()
                },
                Metric {
                    label: vec![label("code", "500"), label("path", "/\"b")],
                    counter: number(3.0),
                    timestamp_ms: Some(1000),
                    ..Metric::default()
                },
            ],
        ),
        family("temperature", 1, vec![Metric { gauge: number(-1.5), ..Metric::default() }]),
        family("odd", 3, vec![Metric { untyped: number(f64::NAN), ..Metric::default() }]),
        family(
            "rpc_seconds",
            2,
            vec![Metric {
                summary: Some(Summary {
                    sample_count: Some(4),
                    sample_sum: Some(1e6),
                    quantile: vec![quantile(0.5, 0.25), quantile(0.99, f64::NAN)],
                }),
                ..Metric::default()
            }],
        ),
        family(
            "size_bytes",
            4,
            vec![Metric {
                histogram: Some(Histogram {
                    sample_count: Some(4),
                    sample_sum: Some(12.5),
                    bucket: vec![bucket(0.005, 1), bucket(1e6, 3)],
                    // Beside classic buckets the native ones are not used: one histogram, one set of bounds.
                    schema: Some(0),
                    positive_span: vec![BucketSpan { offset: Some(0), length: Some(1) }],
                    positive_delta: vec![4],
                    ..Histogram::default()
                }),
                ..Metric::default()
            }],
        ),
    ];
    let body = encoded(&families);
    let (outcome, ours) = scrape(&body, ExpositionFormat::Protobuf);
    assert_eq!((outcome.accepted, outcome.rejected), (13, 0), "{:?}", outcome.first_error);
    let (_, expected) = scrape(text.as_bytes(), ExpositionFormat::PrometheusText);
    assert_eq!(facts(&ours), facts(&expected));

    let mut progress = PageProgress::default();
    let protobuf = page(&body, ExpositionFormat::Protobuf);
    intake().scrape_part(&protobuf, &mut progress, Reading::Samples, u64::MAX, &mut RowSet::new());
    assert!(progress.is_done());
}

/// Schema 0: bucket i of Prometheus is (2^(i-1), 2^i]. Deltas 1, +1, -1 are the counts 1, 2, 1.
#[test]
fn a_native_histogram_becomes_cumulative_buckets() {
    let deltas = Histogram {
        sample_count: Some(6),
        sample_sum: Some(18.5),
        schema: Some(0),
        zero_threshold: Some(0.125),
        zero_count: Some(1),
        negative_span: vec![BucketSpan { offset: Some(1), length: Some(1) }],
        negative_delta: vec![1],
        positive_span: vec![BucketSpan { offset: Some(1), length: Some(2) }, BucketSpan { offset: Some(1), length: Some(1) }],
        positive_delta: vec![1, 1, -1],
        exemplars: vec![Exemplar::default()],
        ..Histogram::default()
    };
    let floats = Histogram {
        sample_count: None,
        sample_count_float: Some(6.0),
        zero_count: None,
        zero_count_float: Some(1.0),
        negative_delta: vec![],
        negative_count: vec![1.0],
        positive_delta: vec![],
        positive_count: vec![1.0, 2.0, 1.0],
        ..deltas.clone()
    };
    let expected = "\
h_bucket{le=\"-1\"} 1
h_bucket{le=\"0.125\"} 2
h_bucket{le=\"2\"} 3
h_bucket{le=\"4\"} 5
h_bucket{le=\"8\"} 5
h_bucket{le=\"16\"} 6
h_bucket{le=\"+Inf\"} 6
h_sum 18.5
h_count 6
";
    let (_, expected) = scrape(expected.as_bytes(), ExpositionFormat::PrometheusText);
    for histogram in [deltas, floats] {
        let body = encoded(&[family("h", 4, vec![Metric { histogram: Some(histogram), ..Metric::default() }])]);
        let (outcome, ours) = scrape(&body, ExpositionFormat::Protobuf);
        assert_eq!(outcome.rejected, 0, "{:?}", outcome.first_error);
        assert_eq!(facts(&ours), facts(&expected));
    }
}

#[test]
fn what_cannot_be_read_costs_itself() {
    let good = |name: &str| family(name, 1, vec![Metric { gauge: number(1.0), ..Metric::default() }]);
    let no_value = family("none", 1, vec![Metric { counter: number(1.0), ..Metric::default() }]);
    let no_type = family("what", 9, vec![Metric { gauge: number(1.0), ..Metric::default() }]);
    let unknown = Histogram { schema: Some(77), zero_threshold: Some(1.0), ..Histogram::default() };
    let unknown = family("schema", 4, vec![Metric { histogram: Some(unknown), ..Metric::default() }]);
    let mut body = encoded(&[good("a"), no_value, no_type, unknown, good("b")]);
    let (outcome, stored) = scrape(&body, ExpositionFormat::Protobuf);
    assert_eq!((outcome.accepted, outcome.rejected), (2, 3));
    assert_eq!(stored.iter().map(|row| row.table.as_str()).collect::<Vec<_>>(), ["A", "B"]);

    let check = |body: &[u8]| ExpositionFormat::Protobuf.check_complete(body);
    assert_eq!(check(&body), Ok(()));
    body.pop();
    assert_eq!(check(&body), Err("it ends within a message"));
    let (outcome, stored) = scrape(&body, ExpositionFormat::Protobuf);
    assert_eq!((outcome.rejected, stored.len()), (4, 1), "the last message is lost, those before it are not");

    // A message whose length is right and whose inside is not.
    let mut body = vec![2, 0x0a, 0x7f];
    body.extend(encoded(&[good("a")]));
    let (outcome, stored) = scrape(&body, ExpositionFormat::Protobuf);
    assert_eq!((outcome.rejected, stored.len()), (1, 1));
}

const PAGE: &str = "# TYPE a counter\na{x=\"1\"} 1\na{x=\"2\"} 2\nbad{\n# TYPE g gauge\ng 3 5\nh_bucket{le=\"1\"} 4 # {t=\"u\"} 1\n";

fn bodies() -> Vec<(Vec<u8>, ExpositionFormat)> {
    let gauge = |value: f64| Metric { label: vec![label("x", &value.to_string())], gauge: number(value), ..Metric::default() };
    let many =
        encoded(&[family("a", 1, vec![gauge(1.0), gauge(2.0), gauge(3.0)]), family("b", 1, vec![]), family("c", 1, vec![gauge(4.0)])]);
    vec![
        (PAGE.as_bytes().to_vec(), ExpositionFormat::PrometheusText),
        (format!("{PAGE}# EOF\n").into_bytes(), ExpositionFormat::OpenMetrics),
        (many, ExpositionFormat::Protobuf),
    ]
}

#[test]
fn a_page_in_parts_is_the_page() {
    for (body, format) in bodies() {
        let page = page(&body, format);
        let mut set = RowSet::new();
        let whole = intake().scrape(&page, &mut set);
        let expected = facts(&rows(&set));
        for max in 1..5 {
            let (mut progress, mut parts, mut sum) = (PageProgress::default(), BTreeSet::new(), Outcome::default());
            while !progress.is_done() {
                let mut set = RowSet::new();
                let outcome = intake().scrape_part(&page, &mut progress, Reading::Samples, max, &mut set);
                assert!(outcome.total() <= max, "{format:?}: {outcome:?}");
                parts.extend(facts(&rows(&set)));
                sum.accepted += outcome.accepted;
                sum.rejected += outcome.rejected;
                sum.first_error = sum.first_error.or(outcome.first_error);
            }
            assert_eq!((sum, &parts), (whole.clone(), &expected), "{format:?} by {max}");
        }
    }
}

/// An intake that an exporter listens to, and what it is told.
fn tapped() -> MetricIntake {
    intake().tap(MetricRules::compile(&MetricRulesConfig::default()).unwrap())
}

fn told(set: &mut RowSet) -> Vec<(ExportSeries, i64, f64)> {
    let exports = set.take_exports();
    let lines = exports.iter().flat_map(|export| export.bytes.split_inclusive(|byte| *byte == b'\n'));
    let read = |line| {
        let sample = ExportSample::read(line).unwrap();
        (ExportSeries::read(sample.series).unwrap(), sample.timestamp_ms, sample.value.unwrap())
    };
    lines.map(read).collect()
}

/// Exemplars of a counter, of classic buckets and of native ones.
#[test]
fn exemplars_of_the_protobuf_format_are_told_to_exporters() {
    let exemplar = |value| Exemplar { label: vec![label("trace_id", "t")], value: Some(value) };
    let counter = Metric { counter: Some(Number { value: Some(17.0), exemplar: Some(exemplar(1.0)) }), ..Metric::default() };
    let bucket = |bound, count, value| Bucket {
        upper_bound: Some(bound),
        cumulative_count: Some(count),
        exemplar: Some(exemplar(value)),
        ..Bucket::default()
    };
    let classic = Histogram { sample_count: Some(5), bucket: vec![bucket(1.0, 2, 0.5), bucket(4.0, 5, 3.0)], ..Histogram::default() };
    // Schema 0: buckets up to 1 and 2.
    let native = Histogram {
        sample_count: Some(2),
        schema: Some(0),
        positive_span: vec![BucketSpan { offset: Some(0), length: Some(2) }],
        positive_delta: vec![1, 0],
        exemplars: vec![exemplar(1.5), exemplar(0.75)],
        ..Histogram::default()
    };
    let histogram = |histogram| vec![Metric { histogram: Some(histogram), ..Metric::default() }];
    let body = encoded(&[family("c", 0, vec![counter]), family("h", 4, histogram(classic)), family("n", 4, histogram(native))]);
    let mut set = RowSet::new();
    tapped().scrape(&page(&body, ExpositionFormat::Protobuf), &mut set);
    let exports = set.take_exports();
    let lines = exports.iter().flat_map(|export| export.bytes.split_inclusive(|byte| *byte == b'\n'));
    let mut with = Vec::new();
    for line in lines {
        let sample = ExportSample::read(line).unwrap();
        let series = ExportSeries::read(sample.series).unwrap();
        let le = series.labels.iter().find(|(name, _)| name == "le").map_or("", |(_, le)| le);
        with.extend(ExportExemplar::read_all(sample.exemplars).iter().map(|exemplar| format!("{} {le} {}", series.metric, exemplar.value)));
    }
    assert_eq!(with, ["c  1", "h_bucket 1 0.5", "h_bucket 4 3", "n_bucket 1 0.75", "n_bucket 2 1.5"]);
}

#[test]
fn kinds_of_a_page_are_told_to_exporters() {
    let page_of = "# TYPE a counter\na_total 1\na_created 2\n# TYPE b counter\nb 3\nb_total 4\n# TYPE \"c.d\" gauge\n{\"c.d\"} 5\n# TYPE h histogram\nh_count 6\n# EOF\n";
    let mut set = RowSet::new();
    tapped().scrape(&page(page_of.as_bytes(), ExpositionFormat::OpenMetrics), &mut set);
    let kinds: Vec<_> = told(&mut set).into_iter().map(|(series, _, _)| (series.metric, series.kind)).collect();
    use SeriesKind::{Counter, Gauge, Unknown};
    let expected =
        [("a_total", Counter), ("a_created", Unknown), ("b", Counter), ("b_total", Counter), ("c.d", Gauge), ("h_count", Unknown)];
    assert_eq!(kinds, expected.map(|(name, kind)| (name.to_owned(), kind)));
}

fn series_of(body: &[u8], format: ExpositionFormat) -> SeriesSet {
    let mut set = SeriesSet::default();
    intake().scrape_part(&page(body, format), &mut PageProgress::default(), Reading::Noting(&mut set), u64::MAX, &mut RowSet::new());
    set.finish();
    set
}

/// What ended between two pages: name, labels; each a stale marker at the time of the later page.
fn ended(before: &[u8], format: ExpositionFormat, alive: &SeriesSet) -> Vec<(String, Vec<(String, String)>)> {
    let mut set = RowSet::new();
    let reading = Reading::Ended(alive);
    let outcome = tapped().scrape_part(&page(before, format), &mut PageProgress::default(), reading, u64::MAX, &mut set);
    assert_eq!((outcome.accepted, rows(&set).len()), (0, 0), "markers are no rows");
    let told = told(&mut set);
    assert_eq!(outcome.filtered, told.len() as u64);
    told.into_iter()
        .map(|(series, timestamp_ms, value)| {
            assert_eq!((timestamp_ms, value.to_bits()), (NOW_MS, 0x7ff0_0000_0000_0002), "{series:?}");
            (series.metric, series.labels)
        })
        .collect()
}

#[test]
fn series_that_end_get_stale_markers() {
    let before = "a{x=\"1\",y=\"2\"} 1\na{x=\"2\"} 1\ntimed 1 1000\nb 1\n";
    // Other order of labels, another value, and without a{x="2"}, timed and b.
    let after = "new 1\na{y=\"2\",x=\"1\"} 7\n";
    let text = ExpositionFormat::PrometheusText;
    let (was, is) = (series_of(before.as_bytes(), text), series_of(after.as_bytes(), text));
    assert_eq!((was.len(), is.len()), (3, 2), "a sample with a time of its own is not followed");
    assert!(was.lost_any(&is) && is.lost_any(&was) && !was.lost_any(&was));
    let x = |value: &str| vec![("x".to_owned(), value.to_owned())];
    assert_eq!(ended(before.as_bytes(), text, &is), [("a".to_owned(), x("2")), ("b".to_owned(), vec![])]);
    assert_eq!(ended(before.as_bytes(), text, &was), []);
    assert_eq!(ended(before.as_bytes(), text, &SeriesSet::default()).len(), 3, "the target is gone");

    let quantile = Quantile { quantile: Some(0.5), value: Some(1.0) };
    let summary = Summary { sample_count: Some(1), sample_sum: Some(1.0), quantile: vec![quantile] };
    let body = encoded(&[family("s", 2, vec![Metric { summary: Some(summary), ..Metric::default() }])]);
    let protobuf = ExpositionFormat::Protobuf;
    let names: Vec<_> = ended(&body, protobuf, &SeriesSet::default()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["s", "s_sum", "s_count"]);
    assert_eq!(ended(&body, protobuf, &series_of(b"s{quantile=\"0.5\"} 1\ns_sum 1\ns_count 1\n", text)), []);
}

#[test]
fn stale_markers_become_rows_on_request_only() {
    assert!(is_stale(STALE) && !is_stale(f64::NAN));
    let series = telemetry::client::Series {
        labels: vec![("__name__".to_owned(), "m".to_owned())],
        samples: vec![(1, 1.0), (2, STALE), (3, f64::NAN)],
    };
    let body = telemetry::client::remote_write_body(&[series]);
    for (store, expected) in [(false, &["1", "NaN"][..]), (true, &["1", "NaN", "NaN"])] {
        let intake = intake().store_stale_markers(store);
        assert_eq!(intake.wants_stale_markers(), store);
        let mut set = RowSet::new();
        let outcome = intake.remote_write(&body, &mut set).unwrap();
        assert_eq!((outcome.accepted, outcome.filtered), (expected.len() as u64, u64::from(!store)));
        let rows = rows(&set);
        assert_eq!(rows.iter().map(|row| row.get("Value")).collect::<Vec<_>>(), expected);
    }
    assert!(tapped().wants_stale_markers());
}

proptest! {
    /// Whatever pages follow each other: what ended is what a set of texts says.
    #[test]
    fn what_ended_is_the_difference(before in prop::collection::btree_set("[a-c]\\{x=\"[0-3]\"\\}", 0..12),
                                    after in prop::collection::btree_set("[a-c]\\{x=\"[0-3]\"\\}", 0..12)) {
        let page = |series: &BTreeSet<String>| series.iter().map(|series| format!("{series} 1\n")).collect::<String>().into_bytes();
        let text = ExpositionFormat::PrometheusText;
        let (was, is) = (series_of(&page(&before), text), series_of(&page(&after), text));
        let ended = ended(&page(&before), text, &is);
        prop_assert_eq!(was.lost_any(&is), !ended.is_empty());
        let ended: BTreeSet<String> = ended.into_iter().map(|(name, labels)| format!("{name}{{x=\"{}\"}}", labels[0].1)).collect();
        prop_assert_eq!(ended, before.difference(&after).cloned().collect::<BTreeSet<_>>());
    }
}

/// What changes while an intake runs is on the next page; what the source itself adds wins.
#[test]
fn added_labels_may_change() {
    let own = MetricRulesConfig { add_labels: [("zone".to_owned(), "own".to_owned())].into(), ..MetricRulesConfig::default() };
    let intake = MetricIntake::new("M", MetricRules::compile(&own).unwrap(), Vec::new());
    let labels = || {
        let mut set = RowSet::new();
        intake.scrape(&page(b"m{rack=\"scraped\"} 1\n", ExpositionFormat::PrometheusText), &mut set);
        rows(&set)[0].json("Labels")
    };
    assert_eq!(labels(), serde_json::json!({"rack": "scraped", "zone": "own"}));
    let node = |rack: &str| [("rack", rack), ("zone", "a")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    intake.added().set(node("7"));
    assert_eq!(labels(), serde_json::json!({"rack": "7", "zone": "own"}));
    intake.added().set(node(""));
    assert_eq!(labels(), serde_json::json!({"rack": "", "zone": "own"}));
}
