//! Hostile input: nothing panics, nothing explodes, the answer says where.

use crate::support::rows;
use proptest::prelude::*;
use telemetry::client::{Series, remote_write_body};
use telemetry::rules::MetricRules;
use telemetry::{
    DecodeError, Encoding, ExpositionFormat, LogIntake, LogOptions, MetricIntake, RowSet, ScrapedPage, TraceIntake, TraceOptions,
};

fn metrics() -> MetricIntake {
    MetricIntake::new("Metrics", MetricRules::default(), Vec::new())
}

fn logs() -> LogIntake {
    let options = LogOptions { default_database: Some("Logs".into()), default_table: Some("Otel".into()), ..LogOptions::default() };
    LogIntake::new(options)
}

fn traces() -> TraceIntake {
    TraceIntake::new(TraceOptions { default_database: Some("Traces".into()), ..TraceOptions::default() })
}

proptest! {
    #[test]
    fn any_bytes_are_survived(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut set = RowSet::new();
        let _ = metrics().remote_write(&body, &mut set);
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            let _ = metrics().otlp(&body, encoding, &mut set);
            let _ = logs().otlp(&body, encoding, &mut set);
            let _ = traces().otlp(&body, encoding, &mut set);
        }
        for format in [ExpositionFormat::PrometheusText, ExpositionFormat::OpenMetrics, ExpositionFormat::Protobuf] {
            metrics().scrape(&ScrapedPage { body: &body, format, target_labels: &[("job".into(), "j".into())], honor_labels: false, now_ms: 0 }, &mut set);
        }
        rows(&set);
    }

    /// Bytes that look like protobuf reach deeper than random ones.
    #[test]
    fn any_nested_messages_are_survived(body in nested_messages()) {
        let mut set = RowSet::new();
        let _ = metrics().remote_write(&body, &mut set);
        let _ = metrics().otlp(&body, Encoding::Protobuf, &mut set);
        let _ = logs().otlp(&body, Encoding::Protobuf, &mut set);
        let _ = traces().otlp(&body, Encoding::Protobuf, &mut set);
        let mut framed = Vec::new();
        prost::encoding::encode_varint(body.len() as u64, &mut framed);
        framed.extend_from_slice(&body);
        let format = ExpositionFormat::Protobuf;
        metrics().scrape(&ScrapedPage { body: &framed, format, target_labels: &[], honor_labels: false, now_ms: 0 }, &mut set);
        rows(&set);
    }

    #[test]
    fn any_page_is_survived(page in "([a-z{}=\",#\\\\ \n0-9.]|le|NaN|# EOF){0,60}") {
        let mut set = RowSet::new();
        let format = ExpositionFormat::OpenMetrics;
        metrics().scrape(&ScrapedPage { body: page.as_bytes(), format, target_labels: &[], honor_labels: false, now_ms: 0 }, &mut set);
        rows(&set);
    }
}

/// Messages within messages, with fields of all types and low numbers.
fn nested_messages() -> impl Strategy<Value = Vec<u8>> {
    let tagged = |wire: u8| (1u8..16).prop_map(move |field| field << 3 | wire);
    let leaf = prop_oneof![
        (tagged(0), 0u8..128).prop_map(|(tag, number)| vec![tag, number]),
        (tagged(1), any::<[u8; 8]>()).prop_map(|(tag, bytes)| [&[tag][..], &bytes].concat()),
        (tagged(5), any::<[u8; 4]>()).prop_map(|(tag, bytes)| [&[tag][..], &bytes].concat()),
        (tagged(2), "[a-z_]{0,8}").prop_map(|(tag, text)| [&[tag, text.len() as u8][..], text.as_bytes()].concat()),
        prop::collection::vec(any::<u8>(), 0..3),
    ];
    leaf.prop_recursive(8, 64, 4, move |inner| {
        (1u8..16, prop::collection::vec(inner, 1..4)).prop_map(|(field, parts)| {
            let payload = parts.concat();
            let mut message = vec![field << 3 | 2];
            message.extend([(payload.len() & 0x7f) as u8 | 0x80, (payload.len() >> 7) as u8]);
            message.extend(payload);
            message
        })
    })
}

#[test]
fn deep_json_is_an_error_that_says_where() {
    let deep = "[".repeat(100_000);
    let any_value = "{\"arrayValue\":{\"values\":[".repeat(100_000);
    for body in [
        deep.clone(),
        format!("{{\"resourceLogs\":{deep}"),
        format!("{{\"unknown\":\n{deep}"),
        format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"body\":{any_value}"),
    ] {
        let error = logs().otlp(body.as_bytes(), Encoding::Json, &mut RowSet::new()).unwrap_err();
        let DecodeError::Json { line, column, reason } = error else { panic!("{error}") };
        assert!(line > 0 && column > 0 && reason.contains("nested deeper"), "{line}:{column} {reason}");
    }
    // Brackets in strings are not nesting.
    let text = format!("{{\"unknown\": \"{}\"}}", "[{\\\"".repeat(1000));
    assert!(logs().otlp(text.as_bytes(), Encoding::Json, &mut RowSet::new()).is_ok());
}

/// Protobuf nested deeper than a stack could follow is written to a fixed depth.
#[test]
fn deep_protobuf_is_cut_off() {
    let mut any = vec![0x0a, 4, b'l', b'e', b'a', b'f'];
    for _ in 0..5_000 {
        any = message(5, &message(1, &any));
    }
    let body = message(1, &message(2, &message(2, &message(5, &any))));
    let mut set = RowSet::new();
    assert_eq!(logs().otlp(&body, Encoding::Protobuf, &mut set).unwrap().accepted, 1);
    let row = &rows(&set)[0];
    let text = row.get("Body");
    assert!(text.contains("[\"...\"]") && text.len() < 200, "{text}");
}

fn message(field: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    let mut length = payload.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(payload);
    out
}

/// A megabyte of label repeated for every few-byte sample would be a hundred gigabytes of rows.
#[test]
fn a_small_body_cannot_become_endless_rows() {
    let labels = vec![("__name__".into(), "m".into()), ("x".into(), "y".repeat(1 << 20))];
    let series = Series { labels, samples: (0..100_000).map(|ms| (ms, 1.0)).collect() };
    let mut set = RowSet::new();
    let outcome = metrics().remote_write(&remote_write_body(&[series]), &mut set).unwrap();
    assert_eq!(outcome.total(), 100_000);
    assert!(outcome.accepted < 1000 && outcome.rejected > 99_000);
    assert!(outcome.first_error.unwrap().contains("send smaller requests"));
}

#[test]
fn unfinished_json_and_wrong_types_are_errors() {
    let error = logs().otlp(b"{\n\"resourceLogs\": 7}", Encoding::Json, &mut RowSet::new()).unwrap_err();
    let DecodeError::Json { line, reason, .. } = error else { panic!("{error}") };
    assert_eq!((line, reason.as_str()), (2, "invalid type: integer `7`, expected a value for resourceLogs"));
    for body in ["", "{", "[]", "7", "{\"resourceLogs\":7}", "{\"resourceLogs\":[7]}", "{} {}", "{\"resourceLogs\":[],}"] {
        assert!(logs().otlp(body.as_bytes(), Encoding::Json, &mut RowSet::new()).is_err(), "{body}");
    }
    for body in ["{}", "{\"resourceLogs\":null}", "{\"resourceLogs\":[]}", "{\"unknown\":[{}]}"] {
        assert_eq!(logs().otlp(body.as_bytes(), Encoding::Json, &mut RowSet::new()).unwrap().total(), 0, "{body}");
    }
}

#[test]
fn a_request_writes_to_a_bounded_number_of_tables() {
    let series = |number: usize| Series { labels: vec![("__name__".into(), format!("m_{number}"))], samples: vec![(0, 1.0)] };
    let body = remote_write_body(&(0..10_005).map(series).collect::<Vec<_>>());
    let mut set = RowSet::new();
    let outcome = metrics().remote_write(&body, &mut set).unwrap();
    assert_eq!((outcome.accepted, outcome.rejected, set.tables().len()), (10_000, 5, 10_000));
    assert!(outcome.first_error.unwrap().contains("10000 tables"));
}

/// Sets of labels so large that comparing each with each would take minutes.
#[test]
fn many_attributes_take_no_quadratic_time() {
    let attributes = |prefix: &str| -> Vec<u8> {
        (0..50_000)
            .flat_map(|number| {
                let key = format!("{prefix}{number}");
                message(1, &[message(1, key.as_bytes()), message(2, &message(1, b"v"))].concat())
            })
            .collect()
    };
    // The attributes of a point stand in its field 7.
    let mut point = attributes("p");
    let mut at = 0;
    while at < point.len() {
        point[at] = 7 << 3 | 2;
        at += 2 + usize::from(point[at + 1]);
    }
    let metric = message(2, &[message(1, b"m"), message(5, &message(1, &point))].concat());
    let body = message(1, &[message(1, &attributes("r")), message(2, &metric)].concat());
    let mut set = RowSet::new();
    assert_eq!(metrics().otlp(&body, Encoding::Protobuf, &mut set).unwrap().accepted, 1);
    assert_eq!(rows(&set)[0].json("Labels").as_object().unwrap().len(), 100_000);
}

/// Two bytes of body make an empty label, sample, bucket or attribute, which takes tens of bytes in memory.
#[test]
fn lists_of_tiny_members_are_bounded() {
    let many = |field: u8| [field << 3 | 2, 0].repeat(200_000);
    let metric =
        |data: u8, point: &[u8]| message(1, &message(2, &message(2, &[message(1, b"m"), message(data, &message(1, point))].concat())));
    let packed_buckets = message(8, &message(2, &vec![1; 200_000]));
    let mut set = RowSet::new();
    for (what, body) in [
        ("labels", message(1, &many(1))),
        ("samples", message(1, &many(2))),
        ("histograms", message(1, &many(4))),
        (
            "spans of a histogram",
            message(1, &[message(1, &[message(1, b"__name__"), message(2, b"m")].concat()), message(4, &many(11))].concat()),
        ),
    ] {
        let outcome = metrics().remote_write(&body, &mut set).unwrap();
        assert_eq!((outcome.rejected, outcome.total()), (1, 1), "{what}");
        assert!(outcome.first_error.unwrap().ends_with("more than 131072 members in one list"), "{what}");
    }
    for (what, body) in [
        ("attributes", metric(5, &message(7, &message(2, &[0x10, 1])).repeat(200_000))),
        ("quantiles", metric(11, &many(6))),
        ("buckets", metric(10, &packed_buckets)),
        ("bucket counts", metric(9, &message(6, &vec![0; 200_000 * 8]))),
    ] {
        let outcome = metrics().otlp(&body, Encoding::Protobuf, &mut set).unwrap();
        assert_eq!((outcome.rejected, outcome.total()), (1, 1), "{what}");
        assert!(outcome.first_error.unwrap().ends_with("more than 131072 members in one list"), "{what}");
    }
    for (what, span) in [("attributes", many(9)), ("events", many(11)), ("links", many(13))] {
        let body = message(1, &message(2, &message(2, &span)));
        assert_eq!(traces().otlp(&body, Encoding::Protobuf, &mut set).unwrap().rejected, 1, "{what}");
    }
    let map = message(5, &message(6, &many(1)));
    for (what, record) in [("attributes", many(6)), ("members of the body", map)] {
        let body = message(1, &message(2, &message(2, &record)));
        assert_eq!(logs().otlp(&body, Encoding::Protobuf, &mut set).unwrap().rejected, 1, "{what}");
    }
    assert!(set.is_empty());
}

/// Everything below a resource that cannot be read is counted.
#[test]
fn what_is_lost_with_a_resource_is_counted() {
    let bad_resource = message(1, &message(1, &[7, 0x10])); // an attribute that is no message
    let bad_resource = [bad_resource, message(2, &[message(2, &[]), message(2, &[])].concat()), message(2, &message(2, &[]))].concat();
    let good = message(1, &message(2, &message(2, &[])));
    let body = [message(1, &bad_resource), good].concat();
    let mut set = RowSet::new();
    let outcome = logs().otlp(&body, Encoding::Protobuf, &mut set).unwrap();
    assert_eq!((outcome.accepted, outcome.rejected), (1, 3), "{:?}", outcome.first_error);
    let outcome = traces().otlp(&body, Encoding::Protobuf, &mut set).unwrap();
    assert_eq!((outcome.accepted, outcome.rejected), (1, 3), "{:?}", outcome.first_error);
    let metric = message(2, &[message(1, b"m"), message(5, &[message(1, &[]), message(1, &[])].concat())].concat());
    let bad_scope = message(2, &[message(1, &message(3, &[7, 0x10])), metric.clone()].concat());
    let body = message(1, &[bad_scope, message(2, &metric)].concat());
    let outcome = metrics().otlp(&body, Encoding::Protobuf, &mut set).unwrap();
    assert_eq!((outcome.accepted, outcome.rejected), (2, 2), "{:?}", outcome.first_error);
}

/// A resource's labels belong to each of its points: a megabyte of hidden ones for a million points would be a
/// terabyte to hash, and leaves no row that is too large.
#[test]
fn labels_are_not_repeated_without_end() {
    let hidden = message(1, &[message(1, b"adxmon_x"), message(2, &message(1, &vec![b'y'; 1 << 20]))].concat());
    let points = message(1, &[]).repeat(100_000);
    let metric = message(2, &[message(1, b"m"), message(5, &points)].concat());
    let body = message(1, &[message(1, &hidden), message(2, &metric)].concat());
    let outcome = metrics().otlp(&body, Encoding::Protobuf, &mut RowSet::new()).unwrap();
    assert_eq!(outcome.total(), 100_000);
    assert!((500..1500).contains(&outcome.accepted), "{}", outcome.accepted);
    assert!(outcome.first_error.unwrap().contains("repeats its labels too often"));
}

#[test]
fn items_and_reasons_have_a_bounded_length() {
    let huge = message(1, &message(2, &message(2, &message(5, &message(1, &vec![b'x'; 17 << 20])))));
    let outcome = logs().otlp(&huge, Encoding::Protobuf, &mut RowSet::new()).unwrap();
    assert_eq!((outcome.accepted, outcome.rejected), (0, 1));
    let endless_name = message(1, &message(2, &message(2, &message(1, &vec![b'x'; 1 << 20]))));
    let outcome = metrics().otlp(&endless_name, Encoding::Protobuf, &mut RowSet::new()).unwrap();
    assert_eq!(outcome.rejected, 1);
    assert!(outcome.first_error.unwrap().len() < 600);
}
