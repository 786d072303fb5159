//! Line formats against `log_source_parsers.json`, and what the reference loses.

use std::sync::Arc;

use logs::{LineCounts, LineFormat, LineOptions, LineReader, Map, Parsers, Value};

use crate::support::{NOW, Owned, messages, push_all, reader, value, vector};

fn options(format: LineFormat) -> LineOptions {
    LineOptions { format, ..LineOptions::default() }
}

/// Steps of vectors that freeze a defect, by case and line: the messages that come instead.
fn better(case: &str, line: &str) -> Option<Vec<&'static str>> {
    Some(match (case, line) {
        // Bad lines were dropped.
        ("cri no trailing space", line) => vec![leaked(line)],
        ("docker malformed", line) => vec![leaked(line)],
        // Formats were decided once for a file, so that lines of the other were dropped.
        ("kubernetes autodetect docker", "2021-07-01T00:00:00Z stdout F cri-after-docker") => vec!["cri-after-docker"],
        ("kubernetes autodetect cri", line) if line.starts_with('{') => vec!["x"],
        // An empty first line ended the process.
        ("kubernetes first line empty", "") | ("cri empty line", "") => vec![],
        // Only the tag `P` alone was partial.
        ("cri multi tags", "2021-07-01T00:00:01Z stdout P:x a") => vec![],
        ("cri multi tags", "2021-07-01T00:00:01Z stdout F:x b") => vec!["ab"],
        // A bad time threw away what had been joined.
        ("cri bad ts on final after partial", "badts stdout F b") => vec!["ab"],
        // Carriage returns stayed.
        ("cri CR", _) => vec!["crlf"],
        ("docker crlf", _) => vec!["x"],
        _ => return None,
    })
}

fn leaked(line: &str) -> &'static str {
    line.to_owned().leak()
}

#[test]
fn formats_agree() {
    for case in vector("log_source_parsers.json").as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let mut reader = reader(options(case["log_type"].as_str().unwrap().parse().unwrap()));
        for step in case["steps"].as_array().unwrap() {
            let line = step["line"].as_str().unwrap();
            let mut got = Vec::new();
            let resource = Arc::new(Map::new());
            let mut bodies = Vec::new();
            reader.push(line.as_bytes(), 0, NOW, |entry| {
                got.push(Owned::from(entry));
                bodies.push(entry.record(&Parsers::default(), &resource, None).body);
            });
            if let Some(better) = better(name, line) {
                assert_eq!(got.iter().map(|entry| entry.message.as_str()).collect::<Vec<_>>(), better, "{name}: {line}");
                continue;
            }
            assert!(step.get("error").is_none() && step.get("panic").is_none(), "{name}: {line}: what is better is to be named");
            if step["partial"] == true {
                assert_eq!(got, [], "{name}: {line}");
                continue;
            }
            let [entry] = &got[..] else { panic!("{name}: {line}: {got:?}") };
            assert_eq!(entry.message, step["message"].as_str().unwrap(), "{name}: {line}");
            let time = if step["timestamp_ns"] == "<now>" { NOW } else { step["timestamp_ns"].as_u64().unwrap() };
            assert_eq!(entry.timestamp, time, "{name}: {line}");
            let Value::Map(mut body) = value(&step["body"]) else { panic!("{name}: no body") };
            body.insert("message".to_owned(), Value::from(entry.message.as_str()));
            assert_eq!(bodies, [body], "{name}: {line}");
        }
    }
}

#[test]
fn bad_lines_are_kept_and_counted() {
    let mut reader = reader(options(LineFormat::Kubernetes));
    let lines: [&[u8]; 6] =
        [b"", b"three words only", b"2024-01-02T03:04:05Z syslog F x y", b"{\"a\":1}", b"\xff\0 bin\xfe", b"nope stdout F z"];
    let entries = push_all(&mut reader, &lines);
    let expected = ["three words only", "2024-01-02T03:04:05Z syslog F x y", "{\"a\":1}", "\u{fffd}\0 bin\u{fffd}", "z"];
    assert_eq!(messages(&entries), expected);
    let counts = reader.take_counts();
    let expected =
        LineCounts { lines: 6, entries: 5, bad_lines: 4, bad_times: 1, empty_lines: 1, invalid_utf8: 1, ..LineCounts::default() };
    assert_eq!(counts, expected);
    assert_eq!(reader.take_counts(), LineCounts::default());
}

#[test]
fn long_messages_are_cut_at_a_character_and_the_rest_is_counted() {
    let cri = LineOptions { max_bytes: 5, ..options(LineFormat::Cri) };
    let mut cri = reader(cri);
    let part = |tag: &str, text: &str| format!("2024-01-02T03:04:05Z stdout {tag} {text}");
    let lines = [part("F", "abcdé"), part("P", "ab"), part("P", "cdé"), part("P", "z"), part("F", "end\r"), part("F", "12345")];
    let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
    let entries = push_all(&mut cri, &lines);
    assert_eq!(messages(&entries), ["abcd", "abcd", "12345"]);
    let counts = cri.take_counts();
    assert_eq!((counts.cut_entries, counts.cut_bytes), (2, 2 + 2 + 1 + 4));
}

#[test]
fn the_default_cap_is_a_mebibyte() {
    let mut reader = reader(options(LineFormat::Docker));
    let part = format!("{{\"log\":\"{}\",\"stream\":\"stdout\"}}", "x".repeat(16 << 10));
    for index in 0..100 {
        reader.push(part.as_bytes(), index, NOW, |_| panic!("not whole"));
    }
    let mut lengths = Vec::new();
    reader.push(b"{\"log\":\"\\n\",\"stream\":\"stdout\"}", 100, NOW, |entry| lengths.push((entry.message.len(), entry.start)));
    assert_eq!(lengths, [(1 << 20, 0)]);
    assert_eq!(reader.take_counts().cut_bytes, 36 * (16 << 10));
}

#[test]
fn positions_up_to_the_first_unfinished_line_may_be_committed() {
    let mut reader = reader(options(LineFormat::Cri));
    let lines = ["t stdout F a", "t stdout P b", "t stderr P c", "t stdout F d", "t stderr F e"];
    let mut start = 0;
    let mut unfinished = Vec::new();
    for line in lines {
        reader.push(line.as_bytes(), start, NOW, |_| {});
        start += line.len() as u64 + 1;
        unfinished.push(reader.unfinished());
    }
    assert_eq!(unfinished, [None, Some(13), Some(13), Some(26), None]);
}

#[test]
fn parts_survive_a_restart() {
    let options = Arc::new(options(LineFormat::Cri));
    let mut first = LineReader::new(Arc::clone(&options));
    push_all(&mut first, &[b"2024-01-02T03:04:05Z stdout P one ", b"2024-01-02T03:04:06Z stderr P x\0\xff"]);
    let mut second = LineReader::restore(options, &first.save()).unwrap();
    let entries = push_all(&mut second, &[b"2024-01-02T03:04:07Z stderr F y", b"2024-01-02T03:04:08Z stdout F two"]);
    assert_eq!(messages(&entries), ["x\0\u{fffd}y", "one two"]);
    assert_eq!((second.save(), second.unfinished()), (Vec::new(), None));
}

#[test]
fn what_is_unfinished_at_the_end_comes_as_it_is() {
    let mut reader = reader(options(LineFormat::Cri));
    push_all(&mut reader, &[b"2024-01-02T03:04:05Z stdout P one"]);
    let mut entries = Vec::new();
    reader.finish(NOW, |entry| entries.push(Owned::from(entry)));
    let expected = Owned { timestamp: 1_704_164_645_000_000_000, stream: "stdout".into(), message: "one".into(), start: 0 };
    assert_eq!((entries, reader.unfinished()), (vec![expected], None));
}

#[test]
fn saved_readers_that_are_damaged_are_refused() {
    let options = Arc::new(LineOptions::default());
    for (saved, part) in [(&b"{"[..], "cannot be read"), (b"{\"version\":2,\"partials\":[],\"groups\":[]}", "version 2")] {
        let error = LineReader::restore(Arc::clone(&options), saved).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_file_that_invents_streams_is_bounded() {
    let mut reader = reader(options(LineFormat::Docker));
    let lines: Vec<String> = (0..100).map(|i| format!("{{\"log\":\"{i}\",\"stream\":\"s{i}\"}}")).collect();
    let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
    let entries = push_all(&mut reader, &lines);
    assert_eq!(entries.iter().flatten().count(), 92, "eight are held, the others come as they are");
}

#[test]
fn names_of_formats() {
    for name in LineFormat::NAMES {
        assert!(name.parse::<LineFormat>().is_ok());
    }
    assert_eq!("".parse(), Ok(LineFormat::Plain));
    let error = "CRI".parse::<LineFormat>().unwrap_err();
    assert_eq!(error, "CRI is not a log type; use one of plain, docker, cri, kubernetes");
}
