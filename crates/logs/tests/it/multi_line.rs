//! Several lines of one event.

use std::sync::Arc;
use std::time::Duration;

use logs::{Language, LineFormat, LineOptions, LineReader, MultiLine};

use crate::support::{NOW, messages, push_all, reader};

fn grouped(multi_line: MultiLine, lines: &str) -> Vec<String> {
    let mut reader = reader(LineOptions { multi_line: Some(Arc::new(multi_line)), ..LineOptions::default() });
    let lines: Vec<&[u8]> = lines.lines().map(str::as_bytes).collect();
    let mut all: Vec<String> = messages(&push_all(&mut reader, &lines)).into_iter().map(str::to_owned).collect();
    reader.finish(NOW, |entry| all.push(entry.message.to_owned()));
    assert_eq!(reader.unfinished(), None);
    all
}

fn all_languages() -> Vec<Language> {
    Language::NAMES.iter().map(|name| name.parse().unwrap()).collect()
}

const JAVA: &str = "\
Exception in thread \"main\" javax.servlet.ServletException: Something bad happened
    at com.example.Filter.doFilter(Filter.java:60)
\tat org.mortbay.jetty.Server.handle(Server.java:326)
Caused by: com.example.ProjectServletException
    at com.example.Servlet.doPost(Servlet.java:169)
    ... 27 more
\tSuppressed: java.lang.Error: x
\t\tat a.b.C(D.java:1)
Caused by: java.sql.SQLException: Violation of unique constraint
    at org.hsqldb.jdbc.Util.throwError(Unknown Source)
    ... 54 common frames omitted";

const PYTHON: &str = "\
Traceback (most recent call last):
  File \"/app/a.py\", line 3, in f
    return d['k']
           ~^^^^^
KeyError: 'k'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File \"/app/a.py\", line 9, in <module>
    main()
  [Previous line repeated 2 more times]
  File \"<string>\", line 1, in g
app.errors.Failed: it failed";

const GO: &str = "\
panic: my panic [recovered]
\tpanic: my panic
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x4772]

goroutine 4 [running]:
panic(0x45cb40, 0x47ad70)
\t/usr/local/go/src/runtime/panic.go:542 +0x46c fp=0xc42003f7b8 sp=0xc42003f710 pc=0x422f7c
main.main.func1(0xc420024120)
\tfoo.go:6 +0x39 fp=0xc42003f7d8
created by main.main in goroutine 1
\tfoo.go:5 +0x58

goroutine 1 [chan receive, 5 minutes]:
net/http.(*conn).serve(0xc000, {0x1, 0x2})
\t/usr/local/go/src/net/http/server.go:1878 +0x12c
exit status 2";

const NODE: &str = "\
/app/index.js:3
throw new TypeError('boom')
^

TypeError: boom
    at Object.<anonymous> (/app/index.js:3:7)
    at node:internal/main/run_main_module:23:47 {
  code: 'ENOENT',
  [cause]: Error: inner
      at foo (/app/x.js:1:1)
}";

#[test]
fn traces_are_one_event_each() {
    for (language, trace) in [("java", JAVA), ("python", PYTHON), ("go", GO), ("node", NODE)] {
        let text = format!("before\n{trace}\nafter 1\nafter 2\n{trace}");
        let expected = ["before", trace, "after 1", "after 2", trace];
        assert_eq!(grouped(MultiLine::traces(&[language.parse().unwrap()]), &text), expected, "{language}");
        assert_eq!(grouped(MultiLine::traces(&all_languages()), &text), expected, "{language} among all");
        let other = if language == "go" { "python" } else { "go" };
        assert_eq!(grouped(MultiLine::traces(&[other.parse().unwrap()]), trace).len(), trace.lines().count(), "{language} to {other}");
    }
}

#[test]
fn a_trace_may_follow_a_trace_or_end_in_the_middle() {
    let text = "MyError: a\n    at f (a.js:1:1)\nMyError: b\n    at f (a.js:1:1)\nError: alone\nplain\n  indented";
    let expected = ["MyError: a\n    at f (a.js:1:1)", "MyError: b\n    at f (a.js:1:1)", "Error: alone", "plain", "  indented"];
    assert_eq!(grouped(MultiLine::traces(&[Language::Node]), text), expected);
}

#[test]
fn first_lines_begin_events() {
    let rule = || MultiLine::first_line(r"^\d{4}-").unwrap();
    assert_eq!(grouped(rule(), "orphan\n2024-1\n a\n\nb\n2024-2\n2024-3"), ["orphan", "2024-1\n a\n\nb", "2024-2", "2024-3"]);
    assert!(MultiLine::first_line("(").is_err());
}

#[test]
fn events_are_bounded_and_lose_nothing() {
    let rule = MultiLine::first_line("^START").unwrap().bounded(3, MultiLine::DEFAULT_MAX_WAIT);
    assert_eq!(grouped(rule, "START\n1\n2\n3\n4\n5\n6\nSTART"), ["START\n1\n2", "3\n4\n5", "6", "START"]);
    let rule = MultiLine::first_line("^START").unwrap();
    let options = LineOptions { max_bytes: 10, multi_line: Some(Arc::new(rule)), ..LineOptions::default() };
    let mut reader = reader(options);
    let lines: [&[u8]; 6] = [b"START", b"1234", b"5", b"too long for it", b"6", b"START"];
    let mut entries = push_all(&mut reader, &lines);
    reader.finish(NOW, |entry| entries.push(vec![entry.into()]));
    assert_eq!(messages(&entries), ["START\n1234", "5", "too long f", "6", "START"]);
    assert_eq!(reader.take_counts().cut_bytes, 5);
}

#[test]
fn events_wait_for_their_next_line_only_so_long() {
    let second = 1_000_000_000;
    let rule = MultiLine::first_line("^START").unwrap().bounded(MultiLine::DEFAULT_MAX_LINES, Duration::from_secs(2));
    let mut reader = reader(LineOptions { multi_line: Some(Arc::new(rule)), ..LineOptions::default() });
    let none = |_: logs::Entry<'_>| panic!("too early");
    reader.push(b"START", 0, NOW, none);
    reader.push(b"1", 6, NOW + second, none);
    reader.tick(NOW + 3 * second - 1, none);
    let mut entries = Vec::new();
    reader.tick(NOW + 3 * second, |entry| entries.push((entry.message.to_owned(), entry.timestamp, entry.start)));
    assert_eq!(entries, [("START\n1".to_owned(), NOW, 0)]);
    // A clock that jumps back an hour: the wait begins anew, and ends.
    reader.push(b"START", 8, NOW, none);
    reader.tick(NOW - 3600 * second, none);
    reader.tick(NOW - 3598 * second, |entry| entries.push((entry.message.to_owned(), entry.timestamp, entry.start)));
    assert_eq!(entries.len(), 2);
}

#[test]
fn streams_are_grouped_apart_and_positions_wait_for_the_last_line() {
    let rule = Arc::new(MultiLine::traces(&[Language::Python]));
    let options = Arc::new(LineOptions { format: LineFormat::Cri, multi_line: Some(rule), ..LineOptions::default() });
    let mut reader = LineReader::new(Arc::clone(&options));
    let lines: [&[u8]; 5] = [
        b"2024-01-02T03:04:01Z stdout F one",
        b"2024-01-02T03:04:02Z stderr F Traceback (most recent call last):",
        b"2024-01-02T03:04:03Z stdout F two",
        b"2024-01-02T03:04:04Z stderr F   File \"a\", line 1",
        b"2024-01-02T03:04:05Z stderr P KeyErr",
    ];
    let entries = push_all(&mut reader, &lines);
    assert_eq!(messages(&entries), ["one", "two"]);
    assert_eq!(reader.unfinished(), Some(lines[0].len() as u64 + 1));
    // The rest of the part and of the trace come after a restart.
    let mut reader = LineReader::restore(options, &reader.save()).unwrap();
    let lines: [&[u8]; 2] = [b"2024-01-02T03:04:06Z stderr F or: 'k'", b"2024-01-02T03:04:07Z stderr F three"];
    let entries = push_all(&mut reader, &lines);
    assert_eq!(messages(&entries), ["Traceback (most recent call last):\n  File \"a\", line 1\nKeyError: 'k'", "three"]);
    assert_eq!((entries[1][0].timestamp, reader.unfinished()), (1_704_164_642_000_000_000, None));
}

#[test]
fn groups_that_a_new_configuration_does_not_want_come_first() {
    let rule = Arc::new(MultiLine::first_line("^START").unwrap());
    let mut old = reader(LineOptions { multi_line: Some(rule), ..LineOptions::default() });
    push_all(&mut old, &[b"START", b"1"]);
    let mut new = LineReader::restore(Arc::default(), &old.save()).unwrap();
    assert_eq!(messages(&push_all(&mut new, &[b"next"])), ["START\n1", "next"]);
}
