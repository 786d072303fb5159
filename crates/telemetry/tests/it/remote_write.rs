//! Remote write against an independent decoder (prost), and with damaged series.

use crate::support::{Row, rows};
use proptest::prelude::*;
use prost::Message;
use serde_json::{Map, Value};
use telemetry::client::{Series, remote_write_body};
use telemetry::rules::MetricRules;
use telemetry::{DecodeError, Lift, MetricIntake, RowSet, hash};

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
    #[prost(bytes = "vec", repeated, tag = "3")]
    exemplars: Vec<Vec<u8>>,
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

fn intake() -> MetricIntake {
    MetricIntake::new("Metrics", MetricRules::default(), Vec::new())
}

/// What one series should become, computed from prost's structs with none of our code but the hash.
fn expected_rows(series: &TimeSeries) -> Vec<(i64, Value, f64)> {
    let mut labels: Vec<_> = series.labels.iter().map(|l| (l.name.clone(), l.value.clone())).collect();
    labels.retain(|(name, _)| name != "adxmon_database");
    labels.push(("adxmon_database".into(), "Metrics".into()));
    labels.sort_by_key(|(name, _)| (name != "__name__", name.to_ascii_lowercase()));
    let id = hash::series_id(labels.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
    let shown = labels.iter().filter(|(name, _)| name != "__name__" && !name.starts_with("adxmon_"));
    let object: Map<String, Value> = shown.map(|(name, value)| (name.clone(), value.clone().into())).collect();
    series.samples.iter().map(|sample| (id, Value::Object(object.clone()), sample.value)).collect()
}

fn read_row(row: &Row) -> (i64, Value, f64) {
    (row.get("SeriesId").parse().unwrap(), row.json("Labels"), row.real("Value"))
}

fn series_strategy() -> impl Strategy<Value = TimeSeries> {
    let name = "[a-z][a-z_]{0,12}";
    let labels = prop::collection::btree_map("[A-Za-z_]{1,10}|adxmon_[a-z]{1,4}|\\PC{1,4}", "\\PC{0,12}", 0..8);
    let samples = prop::collection::vec((any::<f64>(), -4_000_000_000_000i64..4_000_000_000_000), 0..4);
    (name, labels, samples, prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 0..2)).prop_map(
        |(name, mut labels, samples, exemplars)| {
            labels.insert("__name__".into(), name);
            let mut seen = std::collections::HashSet::new();
            labels.retain(|name, _| seen.insert(name.to_ascii_lowercase()));
            let labels = labels.into_iter().map(|(name, value)| Label { name, value }).collect();
            let samples = samples.into_iter().map(|(value, timestamp)| Sample { value, timestamp }).collect();
            TimeSeries { labels, samples, exemplars }
        },
    )
}

proptest! {
    #[test]
    fn rows_equal_what_prost_decodes(timeseries in prop::collection::vec(series_strategy(), 0..5)) {
        let body = WriteRequest { timeseries }.encode_to_vec();
        let request = WriteRequest::decode(&body[..]).unwrap(); // again, since encoding drops the sign of -0.0
        let mut set = RowSet::new();
        let outcome = intake().remote_write(&body, &mut set).unwrap();
        let mut expected: Vec<_> = request.timeseries.iter().flat_map(expected_rows).collect();
        prop_assert_eq!(outcome.accepted, expected.len() as u64);
        prop_assert_eq!(outcome.rejected, 0);
        let mut actual: Vec<_> = rows(&set).iter().map(read_row).collect();
        let key = |row: &(i64, Value, f64)| (row.0, row.2.is_nan(), row.2.to_bits());
        expected.sort_by_key(key);
        actual.sort_by_key(key);
        for (actual, expected) in actual.iter().zip(&expected) {
            prop_assert_eq!((actual.0, &actual.1), (expected.0, &expected.1));
            prop_assert!(actual.2 == expected.2 || (actual.2.is_nan() && expected.2.is_nan()));
        }
    }

    /// Whatever bytes arrive: when prost reads them, so do we, and we never fail where it succeeds.
    #[test]
    fn accepts_what_prost_accepts(bytes in prop::collection::vec(any::<u8>(), 0..60), cut in 0usize..200) {
        let mut body = remote_write_body(&[series("up", 1.0)]);
        body.truncate(cut);
        body.extend_from_slice(&bytes);
        let ours = intake().remote_write(&body, &mut RowSet::new());
        if WriteRequest::decode(&body[..]).is_ok() {
            prop_assert!(ours.is_ok(), "{:?}", ours);
        }
    }
}

fn series(name: &str, value: f64) -> Series {
    Series { labels: vec![("__name__".into(), name.into()), ("job".into(), "j".into())], samples: vec![(1000, value)] }
}

/// A length-delimited field 1.
fn field_one(payload: &[u8]) -> Vec<u8> {
    let mut field = vec![0x0a, u8::try_from(payload.len()).unwrap()];
    field.extend_from_slice(payload);
    field
}

#[test]
fn a_bad_series_does_not_lose_its_neighbours() {
    let mut body = remote_write_body(&[series("before", 1.0)]);
    body.extend(field_one(&[0x0a, 0x7f, 0x01])); // a label longer than its series
    body.extend(field_one(&[0x0d, 1, 2, 3, 4])); // a label that is a fixed32
    body.extend(remote_write_body(&[Series { labels: vec![("job".into(), "j".into())], samples: vec![(1, 1.0)] }]));
    body.extend(remote_write_body(&[series("___", 3.0)])); // nothing left for a table name
    body.extend(remote_write_body(&[series("after", 2.0)]));
    let mut set = RowSet::new();
    let outcome = intake().remote_write(&body, &mut set).unwrap();
    assert_eq!((outcome.accepted, outcome.rejected), (2, 4), "{:?}", outcome.first_error);
    let tables: Vec<_> = rows(&set).into_iter().map(|row| row.table).collect();
    assert_eq!(tables, ["Before", "After"]);
    assert!(outcome.first_error.unwrap().contains("byte"));
}

#[test]
fn a_body_cut_short_is_refused_whole() {
    let body = remote_write_body(&[series("a", 1.0), series("b", 2.0)]);
    let mut set = RowSet::new();
    let error = intake().remote_write(&body[..body.len() - 1], &mut set).unwrap_err();
    assert!(matches!(error, DecodeError::Protobuf { .. }), "{error}");
    assert!(set.is_empty());
    // The intake is as good as new afterwards.
    assert_eq!(intake().remote_write(&body, &mut set).unwrap().accepted, 2);
}

#[test]
fn a_row_set_is_reusable() {
    let body = remote_write_body(&[series("a_total", 1.0), series("b", 2.0), series("a_total", 3.0)]);
    let mut set = RowSet::new();
    intake().remote_write(&body, &mut set).unwrap();
    let first = rows(&set);
    set.clear();
    assert!(set.is_empty() && set.tables().is_empty());
    intake().remote_write(&body, &mut set).unwrap();
    assert_eq!(rows(&set), first);
    assert_eq!(first.len(), 3);
    assert_eq!(set.tables().len(), 2);
}

#[test]
fn lifted_labels_become_quoted_columns() {
    let lift = |name: &str, column: Option<&str>| Lift { name: name.into(), column: column.map(Into::into) };
    let lifts = vec![lift("zone", None), lift("Host", Some("host_name")), lift("absent", None)];
    let intake = MetricIntake::new("Metrics", MetricRules::default(), lifts);
    let labels = [("__name__", "m"), ("zone", "a,\"b\"\n"), ("HOST", "h"), ("x", "y")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let mut set = RowSet::new();
    intake.remote_write(&remote_write_body(&[Series { labels, samples: vec![(0, 1.0)] }]), &mut set).unwrap();
    let row = &rows(&set)[0];
    assert_eq!(row.columns[4..], ["Absent", "HostName", "Zone"]);
    assert_eq!(row.fields[4..], ["", "h", "a,\"b\"\n"]);
    assert_eq!(row.json("Labels"), serde_json::json!({"x": "y"}));
}

/// Buckets and counts as in Prometheus' own documentation of the format: schema 0, spans (0,2) and (1,2), deltas
/// 1, 1, -1, 0 are the counts 1, 2, 1, 1 in the buckets up to 1, 2, 8 and 16.
#[test]
fn native_histograms_become_cumulative_buckets() {
    let mut histogram = vec![0x08, 7]; // count 7
    histogram.push(0x19);
    histogram.extend_from_slice(&12.5f64.to_le_bytes()); // sum
    histogram.extend([0x20, 0]); // schema 0
    histogram.extend([0x30, 2]); // zero count 2
    histogram.extend([0x5a, 4, 0x08, 0, 0x10, 2]); // positive span: offset 0, length 2
    histogram.extend([0x5a, 4, 0x08, 2, 0x10, 2]); // offset 1 (zigzag), length 2
    histogram.extend([0x62, 4, 2, 2, 1, 0]); // deltas 1, 1, -1, 0
    histogram.extend([0x78, 0xe8, 0x07]); // timestamp 1000
    let label = |name: &str, value: &str| {
        let mut message = field_one(name.as_bytes());
        message.extend([0x12, u8::try_from(value.len()).unwrap()]);
        message.extend_from_slice(value.as_bytes());
        field_one(&message)
    };
    let mut series = [label("__name__", "latency"), label("job", "j")].concat();
    series.extend([0x22, u8::try_from(histogram.len()).unwrap()]);
    series.extend(&histogram);
    let mut set = RowSet::new();
    let outcome = intake().remote_write(&field_one(&series), &mut set).unwrap();
    assert_eq!((outcome.accepted, outcome.rejected), (1, 0), "{:?}", outcome.first_error);
    let rows = rows(&set);
    let buckets: Vec<_> = rows.iter().filter(|row| row.table == "LatencyBucket").collect();
    let read: Vec<_> = buckets
        .iter()
        .map(|row| {
            assert_eq!(row.json("Labels")["job"], "j");
            let le: f64 = row.json("Labels")["le"].as_str().unwrap().parse().unwrap();
            (le, row.real("Value"))
        })
        .collect();
    let expected = [(0.0, 2.0), (1.0, 3.0), (2.0, 5.0), (4.0, 5.0), (8.0, 6.0), (16.0, 7.0), (f64::INFINITY, 7.0)];
    assert_eq!(read, expected);
    let value = |table: &str| rows.iter().find(|row| row.table == table).unwrap().real("Value");
    assert_eq!((value("LatencyCount"), value("LatencySum")), (7.0, 12.5));
    assert_eq!(rows[0].get("Timestamp"), "1970-01-01T00:00:01Z");
}
