use super::*;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn read(message: &str, now: &str) -> Record {
    record(message.as_bytes(), at(now), &Destination::new("Logs", "Syslog").unwrap())
}

fn attribute<'a>(record: &'a Record, name: &str) -> &'a Value {
    record.attributes.get(name).unwrap_or_else(|| panic!("{name} in {record:?}"))
}

/// The first example of RFC 5424, section 6.5, and the third, with structured data.
#[test]
fn rfc_5424() {
    let message = "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - 'su root' failed for lonvick on /dev/pts/8";
    let got = read(message, "2026-01-01T00:00:00Z");
    assert_eq!(got.body[logs::MESSAGE], Value::from("'su root' failed for lonvick on /dev/pts/8"));
    assert_eq!(got.timestamp, 1_065_910_455_003_000_000);
    assert_eq!(got.observed, 1_767_225_600_000_000_000);
    // <34>: facility 4 (auth), severity 2 (crit).
    assert_eq!((got.severity_text.as_str(), got.severity_number), ("ERROR2", 18));
    assert_eq!(attribute(&got, "facility"), &Value::from("auth"));
    assert_eq!(attribute(&got, "hostname"), &Value::from("mymachine.example.com"));
    assert_eq!(attribute(&got, "appname"), &Value::from("su"));
    assert_eq!(attribute(&got, "msg_id"), &Value::from("ID47"));
    assert!(!got.attributes.contains_key("proc_id"));

    let message = "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog 7 ID47 \
        [exampleSDID@32473 iut=\"3\" eventSource=\"A \\\"b\\\" \\]\" eventID=\"1011\"] An application event log entry...";
    let got = read(message, "2026-01-01T00:00:00Z");
    let Value::Map(structured) = attribute(&got, "structured_data") else { panic!("{got:?}") };
    let Value::Map(example) = &structured["exampleSDID@32473"] else { panic!("{got:?}") };
    assert_eq!(example["iut"], Value::from("3"));
    assert_eq!(example["eventSource"], Value::from("A \"b\" ]"));
    assert_eq!(attribute(&got, "proc_id"), &Value::Int(7));
}

/// The first example of RFC 3164, section 5.4.
#[test]
fn rfc_3164() {
    let got = read("<34>Oct 11 22:14:15 mymachine su[12]: 'su root' failed for lonvick on /dev/pts/8\n", "2026-11-01T00:00:00Z");
    assert_eq!(got.body[logs::MESSAGE], Value::from("'su root' failed for lonvick on /dev/pts/8"));
    assert_eq!(attribute(&got, "appname"), &Value::from("su"));
    assert_eq!(attribute(&got, "proc_id"), &Value::Int(12));
    let local = Local.with_ymd_and_hms(2026, 10, 11, 22, 14, 15).unwrap();
    assert_eq!(got.timestamp, nanoseconds(local));
}

/// A message of December that comes in January is of last year; a clock that is a little ahead does not make it old.
#[test]
fn years_are_found() {
    let year = |month, day, now| year_of((month, day, 0, 0, 0), at(now));
    assert_eq!(year(12, 31, "2026-01-01T00:00:05Z"), 2025);
    assert_eq!(year(1, 1, "2025-12-31T23:59:59Z"), 2026);
    assert_eq!(year(11, 26, "2026-11-26T10:00:00Z"), 2026);
    assert_eq!(year(11, 28, "2026-11-26T10:00:00Z"), 2025);
}

#[test]
fn what_is_no_syslog_message_is_kept() {
    for text in ["", "<", "<999999>x", "plain words", "\u{0}\u{1}"] {
        let got = read(text, "2026-11-01T00:00:00Z");
        let Value::String(body) = &got.body[logs::MESSAGE] else { panic!("{got:?}") };
        assert!(text.trim().trim_end_matches('\0').ends_with(body.trim()), "{text:?}: {body:?}");
        assert_eq!(got.timestamp, got.observed);
    }
}

/// All messages of a stream that comes in pieces of `step` bytes, and how it ended.
fn frames(stream: &[u8], step: usize, max_bytes: usize) -> (Vec<(String, bool)>, bool) {
    let (mut framing, mut buffer, mut out) = (Framing::new(max_bytes), BytesMut::new(), Vec::new());
    let text = |frame: Frame| (String::from_utf8_lossy(&frame.bytes).into_owned(), frame.truncated);
    for piece in stream.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match framing.decode(&mut buffer) {
                Ok(Some(frame)) => out.push(text(frame)),
                Ok(None) => break,
                Err(_) => return (out, false),
            }
        }
        assert!(buffer.len() <= max_bytes + MAX_DIGITS + 1 + step, "the buffer is bounded");
    }
    while let Some(frame) = framing.decode_eof(&mut buffer).unwrap() {
        out.push(text(frame));
    }
    (out, true)
}

fn whole(texts: &[&str]) -> Vec<(String, bool)> {
    texts.iter().map(|text| ((*text).to_owned(), false)).collect()
}

#[test]
fn streams_with_counts_and_with_lines() {
    for step in [1, 2, 3, 7, 100] {
        assert_eq!(frames(b"<1>a\n<2>b b\r\n\n<3>last", step, 50), (whole(&["<1>a", "<2>b b\r", "<3>last"]), true));
        assert_eq!(frames(b"4 <1>a6 <2>b\nc5 <3>de", step, 50), (whole(&["<1>a", "<2>b\nc", "<3>de"]), true));
        // One connection may have both.
        assert_eq!(frames(b"4 <1>a\n<2>b\n4 <3>c", step, 50), (whole(&["<1>a", "<2>b", "<3>c"]), true));
        // A torn message with a count is not given.
        assert_eq!(frames(b"4 <1>a9 <2>to", step, 50), (whole(&["<1>a"]), true));
    }
}

#[test]
fn a_stream_that_ends_within_a_counted_message_is_torn() {
    for (stream, torn) in [(&b"4 <1>a9 <2>to"[..], true), (b"4 <1>a9", true), (b"4 <1>a", false), (b"<1>a\n<2>b", false)] {
        let (mut framing, mut buffer) = (Framing::new(50), BytesMut::from(stream));
        while framing.decode_eof(&mut buffer).unwrap().is_some() {}
        assert_eq!(framing.is_torn(), torn, "{}", String::from_utf8_lossy(stream));
    }
}

#[test]
fn the_start_of_long_messages_is_kept() {
    for step in [1, 5, 100] {
        let (got, fine) = frames(b"19 <1>56789012345678904 <2>a\n<3>4567890123\n<4>b\n", step, 10);
        let start = |text: &str| (text.to_owned(), true);
        let expected = [start("<1>5678901"), ("<2>a".to_owned(), false), start("<3>4567890"), ("<4>b".to_owned(), false)];
        assert_eq!((got, fine), (expected.to_vec(), true), "step {step}");
    }
    for step in [1, 5, 100] {
        let (mut framing, mut buffer) = (Framing::new(10), BytesMut::new());
        for piece in b"19 <1>56789012345678904 <2>a\n<3>4567890123\n<4>b\n".chunks(step) {
            buffer.extend_from_slice(piece);
            while framing.decode(&mut buffer).unwrap().is_some() {}
        }
        assert_eq!((framing.take_cut(), framing.take_cut()), (9 + 3, 0), "step {step}");
    }
}

#[test]
fn counts_that_are_none_end_the_stream() {
    assert_eq!(frames(b"4 <1>a12x<2>b", 3, 50), (whole(&["<1>a"]), false));
    assert_eq!(frames(b"99999999999 <1>a", 3, 50), (vec![], false));
}

proptest::proptest! {
    /// Whatever the pieces, the messages are the same, and memory is bounded.
    #[test]
    fn pieces_do_not_matter(messages in proptest::collection::vec(("[a-z\n ]{1,30}", proptest::bool::ANY), 0..10), step in 1usize..40) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for (text, counted) in messages {
            let text = format!("<1>{}", if counted { text } else { text.replace('\n', "") });
            stream.extend(if counted { format!("{} {text}", text.len()) } else { format!("{text}\n") }.bytes());
            expected.push((text, false));
        }
        proptest::prop_assert_eq!(frames(&stream, step, 100), (expected, true));
    }

    /// Any bytes are read or refused, as a stream and as a message.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let _ = frames(&bytes, 7, 20);
        let _ = record(&bytes, at("2026-11-01T00:00:00Z"), &Destination::new("d", "t").unwrap());
    }
}
