//! Wire formats and KQL: no panic, and whatever is accepted becomes whole CSV records of the table's width.

use telemetry::export::{ExportExemplar, ExportSample, ExportSeries};
use telemetry::rules::MetricRules;
use telemetry::{
    DecodeError, Encoding, ExpositionFormat, LogIntake, LogOptions, MetricIntake, Outcome, PageProgress, Reading, RowSet, ScrapedPage,
    SeriesSet, TraceIntake, TraceOptions,
};

const NOW_MS: i64 = 1_700_000_000_000;

/// With an exporter, so that exemplars are read.
fn metrics() -> MetricIntake {
    MetricIntake::new("Metrics", MetricRules::default(), Vec::new()).tap(MetricRules::default())
}

fn logs() -> LogIntake {
    LogIntake::new(LogOptions { default_database: Some("Logs".into()), default_table: Some("T".into()), ..LogOptions::default() })
}

fn traces() -> TraceIntake {
    TraceIntake::new(TraceOptions { default_database: Some("Logs".into()), default_table: Some("T".into()), ..TraceOptions::default() })
}

/// Reads the rows with another CSV reader: as many records as are counted, each as wide as the table. Returns how many.
fn records(mut rows: RowSet) -> u64 {
    exports(&mut rows);
    let mut all = 0;
    for table in rows.by_table() {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&table.bytes[..]);
        let mut found = 0;
        for record in reader.byte_records() {
            let width = record.map(|record| record.len()).unwrap_or(0);
            assert_eq!(width, table.schema.columns.len(), "a record of another width than the table {}", table.table);
            found += 1;
        }
        assert_eq!(found, table.rows, "records and the count of {}", table.table);
        assert_eq!(wal::csv::records(&table.bytes), u64::from(found), "records as the store counts them");
        all += u64::from(found);
    }
    all
}

/// Lines for exporters are as many as are counted, and can be read.
fn exports(rows: &mut RowSet) {
    for export in rows.take_exports() {
        let lines = export.bytes.split_inclusive(|byte| *byte == b'\n');
        assert_eq!(lines.clone().count(), export.rows as usize, "lines and their count");
        for line in lines {
            let sample = ExportSample::read(line);
            let series = sample.and_then(|sample| ExportSeries::read(sample.series));
            let exemplars = sample.map(|sample| (sample.exemplars.is_empty(), ExportExemplar::read_all(sample.exemplars).is_empty()));
            assert!(series.is_some() && exemplars.is_some_and(|(none, read)| none == read), "{}", String::from_utf8_lossy(line));
        }
    }
}

/// For formats in which one item is one row: what was accepted is what is there.
fn one_row_each(result: Result<Outcome, DecodeError>, rows: RowSet) {
    if let Ok(outcome) = result {
        assert_eq!(records(rows), outcome.accepted, "{outcome:?}");
    }
}

/// Remote write 1.0, without Snappy; a native histogram is many rows.
pub(crate) fn remote_write(bytes: &[u8]) {
    let mut rows = RowSet::new();
    if metrics().remote_write(bytes, &mut rows).is_ok() {
        records(rows);
    }
}

/// Remote write 2.0, without Snappy; what is written is what was not rejected.
pub(crate) fn remote_write_2(bytes: &[u8]) {
    let mut rows = RowSet::new();
    if let Ok(written) = metrics().remote_write_2(bytes, &mut rows) {
        assert_eq!(written.samples + written.histograms, written.outcome.accepted + written.outcome.filtered, "{written:?}");
        records(rows);
    }
}

/// An exposition page in both text formats.
pub(crate) fn exposition(bytes: &[u8]) {
    page(bytes, ExpositionFormat::PrometheusText);
    page(bytes, ExpositionFormat::OpenMetrics);
}

/// The protobuf exposition.
pub(crate) fn exposition_protobuf(bytes: &[u8]) {
    page(bytes, ExpositionFormat::Protobuf);
}

/// A page as a whole, in parts, and as one whose series have ended: each time the same samples.
fn page(body: &[u8], format: ExpositionFormat) {
    let page = ScrapedPage { body, format, target_labels: &[("pod".into(), "p".into())], honor_labels: false, now_ms: NOW_MS };
    let mut rows = RowSet::new();
    let whole = metrics().scrape(&page, &mut rows);
    one_row_each(Ok(whole.clone()), rows);

    let (mut progress, mut series, mut parts) = (PageProgress::default(), SeriesSet::default(), 0);
    while !progress.is_done() {
        let mut rows = RowSet::new();
        let part = metrics().scrape_part(&page, &mut progress, Reading::Noting(&mut series), 7, &mut rows);
        parts += part.accepted;
        one_row_each(Ok(part), rows);
    }
    // Only a page of very many bytes is limited, and its parts less so.
    assert!(parts >= whole.accepted, "{parts} in parts, {} as a whole", whole.accepted);
    series.finish();
    assert!(!series.lost_any(&series));
    let ended = |alive| {
        let mut rows = RowSet::new();
        let outcome = metrics().scrape_part(&page, &mut PageProgress::default(), Reading::Ended(alive), u64::MAX, &mut rows);
        assert!(rows.is_empty(), "stale markers are no rows");
        outcome.filtered
    };
    assert_eq!(ended(&series), 0);
    assert!(ended(&SeriesSet::default()) == 0 || !series.is_empty());
}

/// OTLP logs in protobuf.
pub(crate) fn otlp_logs(bytes: &[u8]) {
    let mut rows = RowSet::new();
    one_row_each(logs().otlp(bytes, Encoding::Protobuf, &mut rows), rows);
}

/// OTLP traces in protobuf.
pub(crate) fn otlp_traces(bytes: &[u8]) {
    let mut rows = RowSet::new();
    one_row_each(traces().otlp(bytes, Encoding::Protobuf, &mut rows), rows);
}

/// OTLP metrics in protobuf; a histogram's point is many rows.
pub(crate) fn otlp_metrics(bytes: &[u8]) {
    let mut rows = RowSet::new();
    if metrics().otlp(bytes, Encoding::Protobuf, &mut rows).is_ok() {
        records(rows);
    }
}

/// OTLP of all three signals in JSON.
pub(crate) fn otlp_json(bytes: &[u8]) {
    let mut rows = RowSet::new();
    one_row_each(logs().otlp(bytes, Encoding::Json, &mut rows), rows);
    let mut rows = RowSet::new();
    one_row_each(traces().otlp(bytes, Encoding::Json, &mut rows), rows);
    let mut rows = RowSet::new();
    if metrics().otlp(bytes, Encoding::Json, &mut rows).is_ok() {
        records(rows);
    }
}

/// KQL: any text parses or is refused, is bound or is refused with a place inside the text.
pub(crate) fn kql(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let parsed = kql::parse(text);
    let refused = kql::bind(text, &kql::EmptyCatalog, &kql::BindOptions::default()).err().unwrap_or_default();
    for diagnostic in parsed.diagnostics.iter().chain(&refused) {
        assert!(diagnostic.span.start <= diagnostic.span.end && diagnostic.span.end <= text.len(), "{diagnostic:?}");
        assert!(!diagnostic.message.is_empty(), "{diagnostic:?}");
    }
}
