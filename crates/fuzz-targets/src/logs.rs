//! Lines of log files and parsers of messages: no panic, nothing lost, bounds kept, and rows that other readers can read.

use std::sync::{Arc, LazyLock};

use logs::{
    Batch, Destination, Encoder, Language, LineFormat, LineOptions, LineReader, Map, MultiLine, Parser, Parsers, Value, otlp_records,
};
use telemetry::{Added, Encoding, LogIntake, LogOptions, Outcome, RowSet};

const NOW: u64 = 1_700_000_000_000_000_000;

/// Small, so that inputs reach it.
const MAX_BYTES: usize = 64;

/// The first byte chooses a format and where the reader is saved and restored, the rest are lines.
pub(crate) fn lines(bytes: &[u8]) {
    let Some((&choice, rest)) = bytes.split_first() else { return };
    let formats = [LineFormat::Plain, LineFormat::Docker, LineFormat::Cri, LineFormat::Kubernetes];
    let format = formats[usize::from(choice % 4)];
    run(rest, LineOptions { format, max_bytes: MAX_BYTES, multi_line: None }, usize::from(choice / 4));
}

/// The same with events of several lines, after a byte that chooses the rule.
pub(crate) fn multi_line(bytes: &[u8]) {
    let Some((&choice, rest)) = bytes.split_first() else { return };
    let rule = Arc::clone(&RULES[usize::from(choice) % RULES.len()]);
    run(rest, LineOptions { format: LineFormat::Plain, max_bytes: MAX_BYTES, multi_line: Some(rule) }, usize::from(choice) / RULES.len());
    in_order(rest);
}

/// Each language alone, all together, and first lines. Compiling them takes longer than a run.
static RULES: LazyLock<Vec<Arc<MultiLine>>> = LazyLock::new(|| {
    let languages = [Language::Java, Language::Python, Language::Go, Language::Node];
    let mut rules: Vec<MultiLine> = languages.iter().map(|language| MultiLine::traces(&[*language])).collect();
    rules.push(MultiLine::traces(&languages));
    rules.push(MultiLine::first_line(r"^\S").expect("a regular expression"));
    rules.into_iter().map(|rule| Arc::new(rule.bounded(5, MultiLine::DEFAULT_MAX_WAIT))).collect()
});

/// Entries of the lines, with the reader saved and restored before the line at `restart`, are those without.
fn run(text: &[u8], options: LineOptions, restart: usize) {
    let options = Arc::new(options);
    let (mut plain, mut restored) = (LineReader::new(Arc::clone(&options)), LineReader::new(Arc::clone(&options)));
    let (mut entries, mut same) = (Vec::new(), Vec::new());
    let mut start = 0;
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if index == restart {
            restored = LineReader::restore(Arc::clone(&options), &restored.save()).expect("what was saved can be restored");
        }
        plain.push(line, start, NOW, |entry| entries.push((entry.message.to_owned(), entry.stream.to_owned(), entry.start)));
        restored.push(line, start, NOW, |entry| same.push((entry.message.to_owned(), entry.stream.to_owned(), entry.start)));
        assert!(plain.unfinished().is_none_or(|unfinished| unfinished <= start), "a position behind the last line");
        start += line.len() as u64 + 1;
    }
    plain.finish(NOW, |entry| entries.push((entry.message.to_owned(), entry.stream.to_owned(), entry.start)));
    restored.finish(NOW, |entry| same.push((entry.message.to_owned(), entry.stream.to_owned(), entry.start)));
    assert_eq!(entries, same, "a restart changes entries");
    assert_eq!((plain.unfinished(), plain.save()), (None, Vec::new()), "something is left");
    assert!(entries.iter().all(|(message, _, _)| message.len() <= MAX_BYTES), "a message longer than allowed");
    let counts = plain.take_counts();
    assert_eq!(counts.entries, entries.len() as u64);
    assert!(counts.lines >= counts.empty_lines + counts.bad_lines);
}

/// Plain lines that are short enough come out in their order, whatever events they are part of.
fn in_order(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let rule = Arc::clone(&RULES[4]);
    let mut reader = LineReader::new(Arc::new(LineOptions { multi_line: Some(rule), ..LineOptions::default() }));
    let mut out = Vec::new();
    let mut take = |message: &str| out.extend(message.split('\n').filter(|line| !line.is_empty()).map(str::to_owned));
    for line in text.split('\n') {
        reader.push(line.as_bytes(), 0, NOW, |entry| take(entry.message));
    }
    reader.finish(NOW, |entry| take(entry.message));
    let lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).filter(|line| !line.is_empty());
    assert!(lines.eq(out.iter().map(String::as_str)), "lines in another order");
}

/// A message through each parser and into a row.
pub(crate) fn parsers(bytes: &[u8]) {
    let message = String::from_utf8_lossy(bytes);
    let encoder = Encoder::new(Added::default(), Vec::new());
    let resource = Arc::new(Map::new());
    let destination = Destination::new("D", "T");
    for parser in [Parser::Json, Parser::KeyValue, Parser::Klog, Parser::Space] {
        let mut body = Map::new();
        Parsers::from(vec![parser]).parse(&message, &mut body);
        let record = logs::Record { body, resource: Arc::clone(&resource), destination: destination.clone(), ..logs::Record::default() };
        let mut batch = Batch::new(&encoder);
        batch.record(&record).expect("there is room for one record");
        let (rows, _) = batch.finish();
        let tables = rows.by_table();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&tables[0].bytes[..]);
        let row = reader.records().next().expect("a row").expect("readable");
        let read: serde_json::Value = serde_json::from_str(&row[6]).expect("the body is JSON");
        assert_eq!(read.as_object().map(serde_json::Map::len), Some(record.body.values().filter(|value| writable(value)).count()));
    }
}

fn writable(value: &Value) -> bool {
    !matches!(value, Value::Float(number) if !number.is_finite())
}

/// An OTLP request has the same rows by way of records as straight.
pub(crate) fn otlp_rows(bytes: &[u8]) {
    let options = LogOptions { default_database: Some("Logs".into()), default_table: Some("T".into()), ..LogOptions::default() };
    let mut straight = RowSet::new();
    let expected = LogIntake::new(options).otlp_at(bytes, Encoding::Protobuf, NOW, &mut straight);
    let encoder = Encoder::new(Added::default(), Vec::new());
    let mut batch = Batch::new(&encoder);
    let got = otlp_records(bytes, Encoding::Protobuf, NOW, (Some("Logs"), Some("T")), |record, outcome| match batch.record(&record) {
        Ok(()) => outcome.accepted += 1,
        Err(why) => outcome.reject(1, || why.to_string()),
    });
    assert_eq!(got.is_ok(), expected.is_ok());
    let (Ok(got), Ok(expected)) = (got, expected) else { return };
    // Each reads what it needs: damage in what is not written, or of a resource without records, only one of them sees.
    let sees_damage = |outcome: &Outcome| outcome.first_error.as_ref().is_some_and(|error| error.starts_with("reading protobuf"));
    if sees_damage(&got) || sees_damage(&expected) {
        return;
    }
    assert_eq!((got.accepted, got.rejected), (expected.accepted, expected.rejected), "{got:?} {expected:?}");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let rows = |rows: RowSet| rows.by_table().into_iter().map(|t| (t.table, text(&t.bytes))).collect::<Vec<_>>();
    let (got, expected) = (rows(batch.finish().0), rows(straight));
    // Times far beyond those of any clock end where 64 bits of nanoseconds do. OTLP's text is UTF-8: bytes that are none are
    // replaced by both, but one character stands for one or for a few of them, and names are sorted before or after it.
    let columns = |line: &str| line.splitn(3, ',').nth(2).map(str::to_owned);
    let is_replaced = |line: &str| line.contains('\u{fffd}') || line.contains("\\ufffd");
    assert_eq!(got.len(), expected.len());
    for ((table, got), (expected_table, expected)) in got.iter().zip(&expected) {
        assert_eq!((table, got.lines().count()), (expected_table, expected.lines().count()));
        for (got, expected) in got.lines().zip(expected.lines()) {
            assert!(columns(got) == columns(expected) || (is_replaced(got) && is_replaced(expected)), "{got}\n{expected}");
        }
    }
}
