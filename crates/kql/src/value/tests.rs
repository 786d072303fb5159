//! Text forms, order and round trips of values.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use proptest::prelude::*;

use super::{Dynamic, MAX_DATETIME_TICKS, Value, compare, format_datetime, format_timespan, parse_datetime, parse_timespan};

#[test]
fn datetimes_are_read_in_many_forms() {
    for (text, same) in [
        ("2014-11-08", "2014-11-08T00:00:00.0000000Z"),
        ("2014-11-08 15:55", "2014-11-08T15:55:00.0000000Z"),
        ("2014-11-08T15:55:05.123456Z", "2014-11-08T15:55:05.1234560Z"),
        ("2014-11-08T15:55:05+02:00", "2014-11-08T13:55:05.0000000Z"),
        ("Sat, 08 Nov 14 15:05:02 GMT", "2014-11-08T15:05:02.0000000Z"),
        ("08 Nov 14 15:05", "2014-11-08T15:05:00.0000000Z"),
        ("Saturday, 08-Nov-14 15:05:02 UTC", "2014-11-08T15:05:02.0000000Z"),
        ("12-02-2022", "2022-12-02T00:00:00.0000000Z"),
        ("11/08/2014 03:05:02 PM", "2014-11-08T15:05:02.0000000Z"),
        ("1970-5-12", "1970-05-12T00:00:00.0000000Z"),
        ("0001-01-01", "0001-01-01T00:00:00.0000000Z"),
        ("9999-12-31 23:59:59.9999999", "9999-12-31T23:59:59.9999999Z"),
    ] {
        assert_eq!(parse_datetime(text).map(format_datetime).as_deref(), Some(same), "{text}");
    }
    for text in ["", "2020-02-30", "2020-13-01", "not a date", "2020-01-01 25:00", "é", "1", "2025", "+-"] {
        assert_eq!(parse_datetime(text), None, "{text}");
    }
}

#[test]
fn timespans_are_read_in_many_forms() {
    for (text, same) in [
        ("1.02:03:04.5", "1.02:03:04.5000000"),
        ("-00:00:01", "-00:00:01"),
        ("2:30", "02:30:00"),
        ("1d", "1.00:00:00"),
        ("1.5h", "01:30:00"),
        ("10 ms", "00:00:00.0100000"),
        ("3", "3.00:00:00"),
    ] {
        assert_eq!(parse_timespan(text).map(format_timespan).as_deref(), Some(same), "{text}");
    }
    for text in ["", "1x", "1.5", "24:00:00", "1:60", "abc"] {
        assert_eq!(parse_timespan(text), None, "{text}");
    }
}

#[test]
fn numbers_and_guids_are_read_as_kusto_reads_them() {
    for (text, number) in
        [("0x7FFFFFFFFFFFFFFF", Some(i64::MAX)), ("0X1f", Some(31)), ("-0x10", None), (" 7 ", Some(7)), ("+7", Some(7)), ("7.0", None)]
    {
        assert_eq!(super::parse_long(text), number, "{text}");
    }
    for (text, known) in
        [("  NaN  ", true), ("INF", false), ("-inf", true), ("+Infinity", true), (".5", true), ("5.", true), ("1_000", false)]
    {
        assert_eq!(super::parse_real(text).is_some(), known, "{text}");
    }
    let guid = super::parse_guid("01234567-89ab-cdef-0123-456789abcdef");
    assert_eq!(super::parse_guid("0123456789ab-cdef-0123-456789abcdef"), guid);
    assert_eq!(super::parse_guid("{0123456789abcdef0123456789abcdef}"), guid);
    assert_eq!(super::parse_guid("not a guid"), None);
}

#[test]
fn json_is_strict_and_bounded() {
    assert_eq!(Dynamic::parse_json("[1,2.0,\"a\",null,true]").unwrap().to_json(), "[1,2.0,\"a\",null,true]");
    assert_eq!(Dynamic::parse_json("\"a\tb\""), None);
    assert_eq!(Dynamic::parse_json("{'a':1}"), None);
    assert_eq!(Dynamic::parse_json(&"[".repeat(100_000)), None);
    let times = Dynamic::array(vec![Dynamic::DateTime(0), Dynamic::TimeSpan(10_000_000)]);
    assert_eq!(times.to_json(), "[\"0001-01-01T00:00:00.0000000Z\",\"00:00:01\"]");
}

#[test]
fn values_group_by_meaning() {
    assert_eq!(Value::Real(0.0).group_key(), Value::Real(-0.0).group_key());
    assert_eq!(Value::Real(f64::NAN).group_key(), Value::Real(-f64::NAN).group_key());
    assert_ne!(Value::string("").group_key(), Value::Null.group_key());
    assert!(compare(&Value::Long(2), &Value::Real(1.5)).is_gt());
    assert!(compare(&Value::Real(f64::NAN), &Value::Real(f64::NEG_INFINITY)).is_lt());
}

fn dynamic() -> impl Strategy<Value = Dynamic> {
    let leaf = prop_oneof![
        Just(Dynamic::Null),
        any::<bool>().prop_map(Dynamic::Bool),
        any::<i64>().prop_map(Dynamic::Long),
        any::<f64>().prop_filter("JSON has no such number", |v| v.is_finite()).prop_map(Dynamic::Real),
        ".*".prop_map(Dynamic::string),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Dynamic::array),
            prop::collection::vec((".*", inner), 0..4)
                .prop_map(|items| Dynamic::Bag(Arc::new(items.into_iter().map(|(k, v)| (Arc::from(k), v)).collect()))),
        ]
    })
}

proptest! {
    #[test]
    fn json_round_trips(value in dynamic()) {
        prop_assert_eq!(Dynamic::parse_json(&value.to_json()), Some(value));
    }

    #[test]
    fn datetimes_round_trip(ticks in 0..=MAX_DATETIME_TICKS) {
        prop_assert_eq!(parse_datetime(&format_datetime(ticks)), Some(ticks));
    }

    #[test]
    fn timespans_round_trip(ticks in -i64::MAX..=i64::MAX) {
        prop_assert_eq!(parse_timespan(&format_timespan(ticks)), Some(ticks));
    }

    #[test]
    fn readers_do_not_panic(text in ".{0,40}") {
        let _ = (parse_datetime(&text), parse_timespan(&text), super::parse_guid(&text), super::parse_long(&text));
    }

    #[test]
    fn reals_read_back(value in any::<f64>()) {
        let text = super::format_real(value);
        let back = super::parse_real(&text).unwrap();
        prop_assert!(back == value || (back.is_nan() && value.is_nan()), "{}", text);
    }
}
