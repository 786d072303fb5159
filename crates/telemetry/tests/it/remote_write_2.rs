//! Remote write 2.0. Nothing that sends it is packaged where these tests run, so the cases are made from its published
//! specification (2.0-rc.4): messages as `types.proto` has them, encoded by prost, and compared with what the same data
//! become by remote write 1.0.

use crate::support::rows;
use proptest::prelude::*;
use prost::Message;
use telemetry::client::{Series, remote_write_body};
use telemetry::export::{ExportExemplar, ExportSample};
use telemetry::rules::{MetricRules, MetricRulesConfig};
use telemetry::{MetricIntake, RowSet, Written};

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    histograms: Vec<Histogram>,
    #[prost(message, repeated, tag = "4")]
    exemplars: Vec<Exemplar>,
    #[prost(message, optional, tag = "5")]
    metadata: Option<Metadata>,
    /// Of drafts of the specification; reserved since.
    #[prost(int64, tag = "6")]
    created_timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
    #[prost(int64, tag = "3")]
    start_timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint32, tag = "3")]
    help_ref: u32,
    #[prost(uint32, tag = "4")]
    unit_ref: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "3")]
    sum: f64,
    #[prost(sint32, tag = "4")]
    schema: i32,
    #[prost(double, tag = "5")]
    zero_threshold: f64,
    #[prost(uint64, tag = "6")]
    zero_count: u64,
    #[prost(message, repeated, tag = "11")]
    positive_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "12")]
    positive_deltas: Vec<i64>,
    #[prost(int64, tag = "15")]
    timestamp: i64,
    #[prost(double, repeated, tag = "16")]
    custom_values: Vec<f64>,
    #[prost(int64, tag = "17")]
    start_timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

const TIME: i64 = 1_700_000_000_000;

fn decode(request: &Request) -> (Written, RowSet) {
    decode_with(&MetricIntake::new("Metrics", MetricRules::default(), Vec::new()), &request.encode_to_vec())
}

fn decode_with(intake: &MetricIntake, body: &[u8]) -> (Written, RowSet) {
    let mut set = RowSet::new();
    let written = intake.remote_write_2(body, &mut set).unwrap();
    (written, set)
}

fn sample(value: f64) -> Sample {
    Sample { value, timestamp: TIME, start_timestamp: TIME - 1000 }
}

/// `__name__ = up, host = a`, as 1, 2 and 3, 4.
fn symbols() -> Vec<String> {
    ["", "__name__", "up", "host", "a"].map(str::to_owned).to_vec()
}

fn with(labels_refs: &[u32], samples: Vec<Sample>) -> TimeSeries {
    TimeSeries { labels_refs: labels_refs.to_vec(), samples, ..TimeSeries::default() }
}

/// Symbols in the order in which they are met.
fn as_version_2(series: &[Series]) -> Request {
    let mut symbols = vec![String::new()];
    let mut reference = |text: &String| {
        let index = symbols.iter().position(|known| known == text).unwrap_or_else(|| {
            symbols.push(text.clone());
            symbols.len() - 1
        });
        index as u32
    };
    let timeseries = series.iter().map(|one| TimeSeries {
        labels_refs: one.labels.iter().flat_map(|(name, value)| [reference(name), reference(value)]).collect(),
        samples: one.samples.iter().map(|&(timestamp, value)| Sample { value, timestamp, start_timestamp: 0 }).collect(),
        metadata: Some(Metadata { kind: 1, help_ref: 0, unit_ref: 0 }),
        ..TimeSeries::default()
    });
    let timeseries = timeseries.collect();
    Request { symbols, timeseries }
}

fn series_strategy() -> impl Strategy<Value = Series> {
    let labels = prop::collection::btree_map("[a-zA-Z_][a-z]{0,8}|\\PC{1,4}", "\\PC{1,12}", 0..8);
    let samples = prop::collection::vec((-4_000_000_000_000i64..4_000_000_000_000, any::<f64>()), 1..4);
    ("[a-z][a-z_]{0,12}", labels, samples).prop_map(|(name, mut labels, samples)| {
        labels.insert("__name__".into(), name);
        Series { labels: labels.into_iter().collect(), samples }
    })
}

proptest! {
    #[test]
    fn rows_are_those_of_version_1(series in prop::collection::vec(series_strategy(), 0..6)) {
        let intake = MetricIntake::new("Metrics", MetricRules::default(), Vec::new());
        let mut one = RowSet::new();
        let outcome = intake.remote_write(&remote_write_body(&series), &mut one).unwrap();
        // prost leaves out a value of -0.0 as if it were 0.0.
        let request = as_version_2(&series);
        prop_assume!(series.iter().all(|s| s.samples.iter().all(|(_, value)| value.to_bits() != (-0.0f64).to_bits())));
        let (written, two) = decode(&request);
        prop_assert_eq!(written.samples, outcome.accepted);
        prop_assert_eq!(written.histograms, 0);
        prop_assert_eq!(&written.outcome, &outcome);
        let text = |set: &RowSet| set.by_table().iter().map(|t| (t.table.to_string(), t.bytes.clone())).collect::<Vec<_>>();
        prop_assert_eq!(text(&two), text(&one));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let intake = MetricIntake::new("Metrics", MetricRules::default(), Vec::new());
        let _ = intake.remote_write_2(&bytes, &mut RowSet::new());
    }
}

#[test]
fn symbols_may_stand_behind_the_series_and_references_need_not_be_packed() {
    let series = with(&[1, 2, 3, 4], vec![sample(1.5)]).encode_to_vec();
    let mut unpacked = Vec::new();
    for reference in [1u8, 2, 3, 4] {
        unpacked.extend_from_slice(&[1 << 3, reference]);
    }
    unpacked.extend_from_slice(&TimeSeries { samples: vec![sample(2.5)], ..TimeSeries::default() }.encode_to_vec());
    let mut body = Vec::new();
    for series in [series, unpacked] {
        body.extend_from_slice(&[5 << 3 | 2, u8::try_from(series.len()).unwrap()]);
        body.extend_from_slice(&series);
    }
    body.extend_from_slice(&Request { symbols: symbols(), timeseries: Vec::new() }.encode_to_vec());
    let (written, set) = decode_with(&MetricIntake::new("Metrics", MetricRules::default(), Vec::new()), &body);
    assert_eq!((written.samples, written.outcome.rejected), (2, 0));
    let rows = rows(&set);
    assert_eq!(rows.iter().map(|row| row.real("Value")).collect::<Vec<_>>(), [1.5, 2.5]);
    assert!(rows.iter().all(|row| row.json("Labels") == serde_json::json!({ "host": "a" })));
}

/// "MUST", "MUST NOT" of the specification: a series that breaks one is rejected, its neighbours are written.
#[test]
fn series_that_break_a_rule_are_rejected_alone() {
    let histogram = Histogram { count: 1, sum: 1.0, timestamp: TIME, ..Histogram::default() };
    let mixed = TimeSeries { histograms: vec![histogram], ..with(&[1, 2], vec![sample(1.0)]) };
    for (series, rejected, word) in [
        (with(&[1, 2, 3], vec![sample(1.0)]), 1, "odd"),
        (with(&[1, 2, 3, 5], vec![sample(1.0), sample(2.0)]), 2, "symbol 5, but there are 5"),
        (with(&[1, u32::MAX], vec![sample(1.0)]), 1, "symbol 4294967295"),
        (with(&[1, 2, 3, 0], vec![sample(1.0)]), 1, "empty"),
        (with(&[0, 2, 1, 2], vec![sample(1.0)]), 1, "empty"),
        (with(&[1, 2, 3, 4, 3, 2], vec![sample(1.0)]), 1, "more than once"),
        (with(&[3, 4, 1, 2, 3, 4], vec![sample(1.0)]), 1, "more than once"),
        (with(&[3, 4], vec![sample(1.0)]), 1, "name"),
        (with(&[], vec![sample(1.0)]), 1, "name"),
        (with(&[1, 2], Vec::new()), 1, "without samples"),
        (mixed, 2, "both"),
    ] {
        let good = with(&[1, 2, 3, 4], vec![sample(1.0)]);
        let (written, set) = decode(&Request { symbols: symbols(), timeseries: vec![good.clone(), series, good] });
        let error = written.outcome.first_error.clone().unwrap_or_default();
        assert_eq!((written.samples, written.histograms, written.outcome.rejected), (2, 0, rejected), "{error}");
        assert!(error.contains(word), "{error}");
        assert_eq!(rows(&set).len(), 2);
    }
}

#[test]
fn labels_out_of_order_are_taken_and_sorted() {
    let sorted = decode(&Request { symbols: symbols(), timeseries: vec![with(&[1, 2, 3, 4], vec![sample(1.0)])] }).1;
    let other = decode(&Request { symbols: symbols(), timeseries: vec![with(&[3, 4, 1, 2], vec![sample(1.0)])] }).1;
    assert_eq!(sorted.by_table()[0].bytes, other.by_table()[0].bytes);
}

/// Buckets of schema 0 end at powers of two: 2 observations up to 1, 3 up to 2, and one at zero.
#[test]
fn native_histograms_become_cumulative_buckets_and_are_counted_apart() {
    let histogram = Histogram {
        count: 6,
        sum: 8.0,
        schema: 0,
        zero_threshold: 0.001,
        zero_count: 1,
        positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
        positive_deltas: vec![2, 1],
        timestamp: TIME,
        start_timestamp: TIME - 1,
        ..Histogram::default()
    };
    let series = TimeSeries { labels_refs: vec![1, 2, 3, 4], histograms: vec![histogram.clone(), histogram], ..TimeSeries::default() };
    let (written, set) = decode(&Request { symbols: symbols(), timeseries: vec![series] });
    assert_eq!((written.samples, written.histograms, written.outcome.rejected), (0, 2, 0));
    let rows = rows(&set);
    let bucket = |le: &str| {
        let found = rows.iter().find(|row| row.json("Labels")["le"] == le).unwrap_or_else(|| panic!("no bucket {le}"));
        found.real("Value")
    };
    assert_eq!((bucket("1.000000"), bucket("2.000000"), bucket("+Inf")), (3.0, 6.0, 6.0));
}

/// The metric, `le` and value of each row.
fn values(set: &RowSet) -> Vec<(String, String, f64)> {
    let le = |row: &crate::support::Row| row.json("Labels")["le"].as_str().unwrap_or_default().to_owned();
    rows(set).iter().map(|row| (row.table.clone(), le(row), row.real("Value"))).collect()
}

fn one_histogram(histogram: Histogram) -> (Written, RowSet) {
    let series = TimeSeries { labels_refs: vec![1, 2], histograms: vec![histogram], ..TimeSeries::default() };
    decode(&Request { symbols: symbols(), timeseries: vec![series] })
}

/// Schema -53 of `types.proto`: `custom_values` are upper bounds, inclusive, and the last bucket's is `+Inf` without being sent;
/// a span's offset counts buckets from the first. A classic histogram with these bounds has these series.
#[test]
fn histograms_with_custom_buckets_are_what_a_classic_one_is() {
    let custom = Histogram {
        count: 7,
        sum: 20.5,
        schema: -53,
        positive_spans: vec![BucketSpan { offset: 1, length: 1 }, BucketSpan { offset: 1, length: 1 }],
        positive_deltas: vec![4, -1],
        custom_values: vec![0.25, 0.5, 1.0],
        timestamp: TIME,
        ..Histogram::default()
    };
    let (written, set) = one_histogram(custom.clone());
    assert_eq!((written.histograms, written.outcome.rejected), (1, 0), "{:?}", written.outcome.first_error);
    let buckets = [("0.250000", 0.0), ("0.500000", 4.0), ("1.000000", 4.0), ("+Inf", 7.0)];
    let mut expected: Vec<_> = buckets.map(|(le, count)| ("UpBucket".to_owned(), le.to_owned(), count)).to_vec();
    expected.extend([("UpCount".to_owned(), String::new(), 7.0), ("UpSum".to_owned(), String::new(), 20.5)]);
    let mut read = values(&set);
    read.sort_by_key(|row| expected.iter().position(|wanted| wanted == row));
    assert_eq!(read, expected);

    // What cannot be: bounds that do not ascend, more buckets than bounds, negative ones.
    let spans = |offset, length| vec![BucketSpan { offset, length }];
    for (what, broken) in [
        ("order", Histogram { custom_values: vec![0.5, 0.25, 1.0], ..custom.clone() }),
        ("not a number", Histogram { custom_values: vec![f64::NAN, 0.25, 1.0], ..custom.clone() }),
        ("too many", Histogram { positive_spans: spans(3, 2), ..custom.clone() }),
        ("before the first", Histogram { positive_spans: spans(-1, 1), ..custom.clone() }),
        ("no counts", Histogram { positive_spans: spans(0, 3), ..custom }),
    ] {
        let (written, set) = one_histogram(broken);
        assert_eq!((written.histograms, written.outcome.rejected, set.rows()), (0, 1, 0), "{what}");
    }
}

/// Prometheus' sign for a native histogram that has ended is its sum; a count of zero would be wrong.
#[test]
fn the_end_of_a_native_histogram_is_no_count_of_zero() {
    let ended = Histogram { sum: f64::from_bits(0x7ff0_0000_0000_0002), timestamp: TIME, ..Histogram::default() };
    let (written, set) = one_histogram(ended);
    assert_eq!((written.outcome.rejected, set.rows()), (0, 0));
}

#[test]
fn exemplars_go_to_exporters_and_metadata_are_left_out_without_a_word() {
    let intake = MetricIntake::new("Metrics", MetricRules::default(), Vec::new()).tap(MetricRules::default());
    let exemplar = Exemplar { labels_refs: vec![3, 4], value: 0.5, timestamp: TIME };
    let broken = [vec![3], vec![3, 99]].map(|labels_refs| Exemplar { labels_refs, ..exemplar.clone() });
    let series = TimeSeries { exemplars: [&[exemplar], &broken[..]].concat(), ..with(&[1, 2], vec![sample(1.0)]) };
    let (_, mut set) = decode_with(&intake, &Request { symbols: symbols(), timeseries: vec![series] }.encode_to_vec());
    let exports = set.take_exports();
    let line = ExportSample::read(&exports[0].bytes).unwrap();
    let read = ExportExemplar { timestamp_ms: Some(TIME), value: 0.5, labels: vec![("host".to_owned(), "a".to_owned())] };
    assert_eq!((line.value, ExportExemplar::read_all(line.exemplars)), (Some(1.0), vec![read]));

    let exemplar = Exemplar { labels_refs: vec![99, 100], value: 1.0, timestamp: TIME };
    let only = TimeSeries { labels_refs: vec![1, 2], exemplars: vec![exemplar.clone()], ..TimeSeries::default() };
    let both = TimeSeries { exemplars: vec![exemplar], created_timestamp: 5, ..with(&[1, 2], vec![sample(1.0)]) };
    let (written, _) = decode(&Request { symbols: symbols(), timeseries: vec![only, both] });
    assert_eq!((written.samples, written.histograms, written.outcome.rejected), (1, 0, 0));
}

/// "Written" is what the receiver took rather than refused.
#[test]
fn what_filters_remove_counts_as_written() {
    let config = MetricRulesConfig { drop_metrics: vec!["^up$".to_owned()], ..MetricRulesConfig::default() };
    let intake = MetricIntake::new("Metrics", MetricRules::compile(&config).unwrap(), Vec::new());
    let request = Request { symbols: symbols(), timeseries: vec![with(&[1, 2], vec![sample(1.0), sample(2.0)])] };
    let (written, set) = decode_with(&intake, &request.encode_to_vec());
    assert_eq!((written.samples, written.outcome.filtered, written.outcome.accepted), (2, 2, 0));
    assert!(set.tables().is_empty());
}

#[test]
fn an_empty_request_is_fine_and_a_broken_one_names_the_byte() {
    assert_eq!(decode(&Request::default()).0, Written::default());
    let intake = MetricIntake::new("Metrics", MetricRules::default(), Vec::new());
    let error = intake.remote_write_2(&[4 << 3 | 2, 9, 1], &mut RowSet::new()).unwrap_err();
    assert!(error.to_string().contains("byte"), "{error}");
}

/// The fields of a message of version 1 have other numbers, so that it is an empty request here.
#[test]
fn a_message_of_version_1_is_an_empty_request() {
    let series = Series { labels: vec![("__name__".to_owned(), "up".to_owned())], samples: vec![(TIME, 1.0)] };
    let intake = MetricIntake::new("Metrics", MetricRules::default(), Vec::new());
    assert_eq!(decode_with(&intake, &remote_write_body(&[series])).0, Written::default());
}
