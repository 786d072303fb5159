//! Requests and checks that the tests share.

use std::sync::Arc;

use wal::{Options, Outcome, Request, Section, SectionBody, SegmentInfo, Settlement, Store, TableKey};

pub(crate) const HEADER: &[u8] = b"Timestamp:datetime,Value:string\n";
pub(crate) const NOW: u64 = 1_760_000_000_000;

pub(crate) fn key(table: &str) -> TableKey {
    TableKey::new("Db", table, "abc123")
}

pub(crate) fn section(table: &str, rows: &[String]) -> Section {
    let body: String = rows.iter().map(|row| format!("t,{row}\n")).collect();
    Section {
        table: key(table),
        header: Arc::from(HEADER),
        sample_type: 1,
        rows: rows.len() as u32,
        body: SectionBody::Rows(body.into_bytes()),
    }
}

pub(crate) fn request(sections: Vec<Section>) -> Request {
    Request { sections, ..Request::default() }
}

pub(crate) fn small_options(dir: &str) -> Options {
    Options {
        journal_file_bytes: 16 << 10,
        journal_budget_bytes: 64 << 10,
        memtable_bytes: 4 << 10,
        block_bytes: 1 << 10,
        segment_max_bytes: 4 << 10,
        max_disk_bytes: 0,
        ..Options::new(dir)
    }
}

pub(crate) fn settlement(info: &SegmentInfo, outcome: Outcome) -> Settlement {
    Settlement { segment: info.id, outcome, reason: "test".into(), maybe_duplicate: false }
}

/// The second column of every row of every sealed segment of a table.
pub(crate) fn sealed_rows(store: &Store, table: &str) -> Vec<String> {
    let mut rows = Vec::new();
    for info in store.sealed().iter().filter(|info| &*info.table.table == table) {
        let image = store.read_segment(info.id).unwrap();
        let text = String::from_utf8(wal::segment::values(&image, true)).unwrap();
        let before = rows.len();
        rows.extend(text.lines().map(|line| line.strip_prefix("t,").unwrap().to_owned()));
        assert_eq!((rows.len() - before) as u64, info.rows, "{}", info.file_name);
    }
    rows
}
