//! Durations against the examples of Go's documentation and tests of package time.

use crds::duration::{format, parse};
use jiff::SignedDuration;
use proptest::prelude::*;

const SECOND: i64 = 1_000_000_000;

/// From `parseDurationTests` of Go's time_test.go.
#[test]
fn what_go_parses() {
    for (text, nanos) in [
        ("0", 0),
        ("5s", 5 * SECOND),
        ("30s", 30 * SECOND),
        ("1478s", 1478 * SECOND),
        ("-5s", -5 * SECOND),
        ("+5s", 5 * SECOND),
        ("-0", 0),
        ("+0", 0),
        ("5.0s", 5 * SECOND),
        ("5.6s", 5 * SECOND + 600_000_000),
        ("5.s", 5 * SECOND),
        (".5s", SECOND / 2),
        ("1.0s", SECOND),
        ("1.00s", SECOND),
        ("1.004s", SECOND + 4_000_000),
        ("1.0040s", SECOND + 4_000_000),
        ("100.00100s", 100 * SECOND + 1_000_000),
        ("10ns", 10),
        ("11us", 11_000),
        ("12µs", 12_000),
        ("12μs", 12_000),
        ("13ms", 13_000_000),
        ("14s", 14 * SECOND),
        ("15m", 15 * 60 * SECOND),
        ("16h", 16 * 3600 * SECOND),
        ("3h30m", 3 * 3600 * SECOND + 30 * 60 * SECOND),
        ("10.5s4m", 4 * 60 * SECOND + 10 * SECOND + SECOND / 2),
        ("-2m3.4s", -(2 * 60 * SECOND + 3 * SECOND + 400_000_000)),
        ("1h2m3s4ms5us6ns", 3600 * SECOND + 2 * 60 * SECOND + 3 * SECOND + 4_005_006),
        ("39h9m14.425s", 39 * 3600 * SECOND + 9 * 60 * SECOND + 14 * SECOND + 425_000_000),
        ("52763797000ns", 52_763_797_000),
        ("0.3333333333333333333h", 20 * 60 * SECOND),
        ("9007199254740993ns", (1 << 53) + 1),
        ("9223372036854775807ns", i64::MAX),
        ("9223372036854775.807us", i64::MAX),
        ("9223372036s854ms775us807ns", i64::MAX),
        ("-9223372036854775808ns", i64::MIN),
        ("0.100000000000000000000h", 6 * 60 * SECOND),
        ("0.830103483285477580700h", 49 * 60 * SECOND + 48 * SECOND + 372_539_827),
    ] {
        assert_eq!(parse(text), Ok(SignedDuration::from_nanos(nanos)), "{text}");
    }
}

/// From `parseDurationErrorTests`, with the messages of Go.
#[test]
fn what_go_refuses() {
    for text in [
        "",
        "-",
        "s",
        ".",
        "-.",
        ".s",
        "+.s",
        "9223372036854775810ns",
        "9223372036854775808ns",
        "-9223372036854775809ns",
        "9223372036854776us",
        "3000000h",
        "99999999999999999999999999999999999999999h",
        "bogus",
        " 1s",
    ] {
        assert_eq!(parse(text).unwrap_err().to_string(), format!("time: invalid duration {text:?}"));
    }
    assert_eq!(parse("3").unwrap_err().to_string(), "time: missing unit in duration \"3\"");
    assert_eq!(parse("1d").unwrap_err().to_string(), "time: unknown unit \"d\" in duration \"1d\"");
    assert_eq!(parse("1h-5m").unwrap_err().to_string(), "time: unknown unit \"h-\" in duration \"1h-5m\"");
    assert_eq!(parse("1s ").unwrap_err().to_string(), "time: unknown unit \"s \" in duration \"1s \"");
}

/// From `durationTests` of Go, and the specification's section 2.5.
#[test]
fn what_go_writes() {
    for (text, nanos) in [
        ("0s", 0),
        ("1ns", 1),
        ("1.1µs", 1_100),
        ("2.2ms", 2_200_000),
        ("3.3s", 3_300_000_000),
        ("4m5s", 4 * 60 * SECOND + 5 * SECOND),
        ("4m5.001s", 4 * 60 * SECOND + 5_001_000_000),
        ("5h6m7.001s", 5 * 3600 * SECOND + 6 * 60 * SECOND + 7_001_000_000),
        ("8m0.000000001s", 8 * 60 * SECOND + 1),
        ("2562047h47m16.854775807s", i64::MAX),
        ("-2562047h47m16.854775808s", i64::MIN),
        ("1h30m0.25s", 5400 * SECOND + SECOND / 4),
        ("1h0m0s", 3600 * SECOND),
    ] {
        assert_eq!(format(SignedDuration::from_nanos(nanos)), text);
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back(nanos: i64) {
        let duration = SignedDuration::from_nanos(nanos);
        prop_assert_eq!(parse(&format(duration)), Ok(duration));
    }

    #[test]
    fn any_text_is_a_duration_or_an_error(text in "[-+0-9.hmsunµd ]{0,40}") {
        let _ = parse(&text);
    }
}
