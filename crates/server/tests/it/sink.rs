//! Rows and marks into a real store.

use server::{Marks, Refused, Sink, WalSink};
use telemetry::{Encoding, LogIntake, LogOptions, RowSet};

fn rows() -> RowSet {
    let options = LogOptions { default_database: Some("Logs".to_owned()), default_table: Some("App".to_owned()), ..LogOptions::default() };
    let body = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"hi"}}]}]}]}"#;
    let mut rows = RowSet::new();
    LogIntake::new(options).otlp(body, Encoding::Json, &mut rows).unwrap();
    rows
}

fn mark(value: &str) -> Marks {
    vec![(b"cursor".to_vec(), value.as_bytes().to_vec())]
}

fn open(dir: &std::path::Path, max_disk_bytes: u64) -> wal::Store {
    let options = wal::Options { max_disk_bytes, durability: wal::Durability::Process, ..wal::Options::new(dir) };
    wal::Store::open(options, wal::RealDisk::new(), 0).unwrap().0
}

#[tokio::test]
async fn marks_move_with_the_rows_alone_and_not_with_refused_ones() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 30);
    let sink = WalSink::new(store.clone());
    sink.commit_with_marks(rows(), 0, mark("1")).await.unwrap();
    assert_eq!(store.mark(b"cursor").unwrap(), b"1");
    sink.commit_with_marks(RowSet::new(), 0, mark("2")).await.unwrap();
    drop(sink);
    store.close();

    let full = open(dir.path(), 1);
    let sink = WalSink::new(full.clone());
    assert_eq!(full.mark(b"cursor").unwrap(), b"2", "a commit of marks alone survives a restart");
    let refused = sink.commit_with_marks(rows(), 0, mark("3")).await;
    assert!(matches!(refused, Err(Refused::Overloaded { .. })), "{refused:?}");
    assert_eq!(full.mark(b"cursor").unwrap(), b"2");
    drop(sink);
    full.close();
}
