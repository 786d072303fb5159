//! Parsers against `log_parsers.json`, and where they do better than the reference that it was recorded from.

use logs::{Map, Parsers, Severity, Value};
use serde_json::Value as Json;

use crate::support::{value, vector};

fn parse(names: &[&str], input: &str) -> (Map, Option<Severity>) {
    let mut body = Map::new();
    let severity = Parsers::from_names(names).unwrap().parse(input, &mut body);
    (body, severity)
}

fn body(json: &Json) -> Map {
    match value(json) {
        Value::Map(map) => map,
        other => panic!("not a body: {other:?}"),
    }
}

/// Numbers of JSON that the vectors hold as float64 are integers here where they were written as such.
fn exact(value: Value) -> Value {
    match value {
        Value::Float(number) if number == number.trunc() && number.abs() < 9e15 => Value::Int(number as i64),
        Value::Map(map) => Value::Map(map.into_iter().map(|(key, item)| (key, exact(item))).collect()),
        Value::Array(items) => Value::Array(items.into_iter().map(exact).collect()),
        other => other,
    }
}

/// Vectors that freeze a defect of the reference, by input, with the better body.
fn better(parser: &str, input: &str) -> Option<Map> {
    let text = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, text)| ((*key).to_owned(), Value::from(*text))).collect();
    Some(match (parser, input) {
        // Numbers above 2^53 lose digits in a float64.
        ("json", r#"{"big":12345678901234567890,"i":9007199254740993}"#) => {
            Map::from([("big".to_owned(), Value::Uint(12_345_678_901_234_567_890)), ("i".to_owned(), Value::Int(9_007_199_254_740_993))])
        }
        // A quote after a backslash does not end a message.
        ("klog", r#"I0102 15:04:05 1 f.go:1] "msg with \"escaped\" quote" k=v"#) => text(&[
            ("date", "0102"),
            ("filename", "f.go"),
            ("k", "v"),
            ("line_number", "1"),
            ("message", "msg with \"escaped\" quote"),
            ("thread_id", "1"),
            ("timestamp", "15:04:05"),
        ]),
        // A value in quotes may have blanks.
        ("klog", r#"I0102 15:04:05 1 f.go:1] "msg" err="with space inside" ok=1"#) => text(&[
            ("date", "0102"),
            ("err", "with space inside"),
            ("filename", "f.go"),
            ("line_number", "1"),
            ("message", "msg"),
            ("ok", "1"),
            ("thread_id", "1"),
            ("timestamp", "15:04:05"),
        ]),
        // The text in front of the quotes was lost.
        ("klog", r#"I0102 15:04:05 1 f.go:1] prefix "m" a=b"#) => text(&[
            ("a", "b"),
            ("date", "0102"),
            ("filename", "f.go"),
            ("line_number", "1"),
            ("message", "m"),
            ("prefix", "prefix"),
            ("thread_id", "1"),
            ("timestamp", "15:04:05"),
        ]),
        _ => return None,
    })
}

/// What the reference drops of klog's header: date and thread. (Severity goes to columns of its own.)
fn without_header_details(mut body: Map) -> Map {
    body.remove("date");
    body.remove("thread_id");
    body
}

#[test]
fn single_parsers_agree() {
    for case in vector("log_parsers.json")["single"].as_array().unwrap() {
        let (parser, input) = (case["parser"].as_str().unwrap(), case["input"].as_str().unwrap());
        let (got, _) = parse(&[parser], input);
        if let Some(better) = better(parser, input) {
            assert_eq!(got, better, "{parser}: {input}");
            continue;
        }
        let expected = if case.get("error").is_some() {
            // A parser that fails leaves the line as it is.
            Map::from([("message".to_owned(), Value::from(input))])
        } else if parser == "json" {
            body(&case["body"]).into_iter().map(|(key, item)| (key, exact(item))).collect()
        } else {
            body(&case["body"])
        };
        assert_eq!(if parser == "klog" { without_header_details(got) } else { got }, expected, "{parser}: {input}");
    }
}

#[test]
fn chains_of_parsers_agree() {
    for case in vector("log_parsers.json")["chains"].as_array().unwrap() {
        let names: Vec<&str> =
            case["parsers"].as_array().map(|names| names.iter().map(|n| n.as_str().unwrap()).collect()).unwrap_or_default();
        let input = case["input"].as_str().unwrap();
        if names.contains(&"bogus") {
            // Skipped in silence by the reference.
            let error = Parsers::from_names(&names).unwrap_err();
            assert_eq!(error, "bogus is not a parser; use one of json, keyvalue, klog, space");
            continue;
        }
        let expected: Map = body(&case["body"]).into_iter().map(|(key, item)| (key, exact(item))).collect();
        assert_eq!(without_header_details(parse(&names, input).0), expected, "{names:?}: {input}");
    }
}

#[test]
fn klog_keeps_severity_date_and_thread() {
    let line = r#"E0102 15:04:05.678901   77 server.go:123] "Failed" err="open \"a b\": no such file\nhelp: x" obj={A:1 B:2} pods=["a/b"]"#;
    let (body, severity) = parse(&["klog"], line);
    assert_eq!(severity, Some(Severity::Error));
    let expected = [
        ("date", "0102"),
        ("timestamp", "15:04:05.678901"),
        ("thread_id", "77"),
        ("filename", "server.go"),
        ("line_number", "123"),
        ("message", "Failed"),
        ("err", "open \"a b\": no such file\nhelp: x"),
        ("obj", "{A:1 B:2}"),
        ("pods", "[\"a/b\"]"),
    ];
    assert_eq!(body, expected.map(|(key, text)| (key.to_owned(), Value::from(text))).into());
    for (letter, expected) in [("I", Severity::Info), ("W", Severity::Warn), ("F", Severity::Fatal)] {
        assert_eq!(parse(&["klog"], &format!("{letter}0102 15:04:05 1 f.go:1] x")).1, Some(expected));
    }
}

/// The reference drops what it takes for a header, and words between the pairs.
#[test]
fn klog_keeps_lines_that_are_not_of_its_format() {
    for line in ["2024-01-02 [main] INFO started", "I0102 is it? [maybe", "x]y"] {
        let (body, severity) = parse(&["klog"], line);
        assert_eq!((body, severity), (Map::from([("message".to_owned(), Value::from(line))]), None));
    }
    for rest in [r#"could not open "x.yaml": no such file"#, r#"cannot find "x""#, r#""m" word k=v"#, r#""bad \q escape""#, r#"a "b"#] {
        let (body, _) = parse(&["klog"], &format!("I0102 15:04:05 1 f.go:1] {rest}"));
        assert_eq!(body["message"], Value::from(rest), "{rest}");
    }
}

#[test]
fn klog_reads_the_escapes_of_go() {
    let (body, _) = parse(&["klog"], r#"] "\x41\101\u00e9\U0001F600\t\\\a" k="\n""#);
    assert_eq!((&body["message"], &body["k"]), (&Value::from("AAé😀\t\\\u{7}"), &Value::from("\n")));
}

#[test]
fn usual_keys_name_the_severity_and_stay_in_the_body() {
    let (body, severity) = parse(&["json"], r#"{"level":"WARNING","msg":"x"}"#);
    assert_eq!((severity, &body["level"]), (Some(Severity::Warn), &Value::from("WARNING")));
    assert_eq!(parse(&["json"], r#"{"level":30,"severity":"err"}"#).1, Some(Severity::Error));
    assert_eq!(parse(&["keyvalue"], "level=fatal msg=x").1, Some(Severity::Fatal));
    assert_eq!(parse(&["json"], r#"{"level":"blue"}"#).1, None);
    assert_eq!(parse(&["json"], r#"plain level=error"#).1, None);
}

#[test]
fn messages_of_very_many_fields_are_bounded() {
    let words = "a=1 ".repeat(20_000);
    let (body, _) = parse(&["space"], &words);
    assert_eq!(body.len(), 10_000);
    assert_eq!(body["field9999"].as_str().unwrap().len(), 4 * 10_001 - 1);
    let pairs: String = (0..20_000).map(|i| format!("k{i}=1 ")).collect();
    let (body, _) = parse(&["keyvalue"], &pairs);
    assert_eq!(body.len(), 10_001);
    assert!(body["message"].as_str().unwrap().trim_start().starts_with("k10000=1 k10001=1"));
}

#[test]
fn json_that_nests_without_end_stays_a_message() {
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    let (body, _) = parse(&["json"], &deep);
    assert_eq!(body, Map::from([("message".to_owned(), Value::from(deep))]));
}
