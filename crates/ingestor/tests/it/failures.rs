//! What goes wrong between ingestor and Kusto, and where the rows are then.

use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use ingestor::upload::rows::Piece;
use serde_json::{Value, json};

use crate::fake_kusto::{FakeKusto, Kind};
use crate::support::{NARROW, image, ledger, start};

const HOST: &str = "Timestamp:datetime,Value:real,Host:string";
const ZONE: &str = "Timestamp:datetime,Value:real,Zone:string";

fn name(table: &str, schema: &str, n: usize) -> String {
    format!("Metrics_{table}_{schema}_2f5d0c3e517e40{n:02x}.wal")
}

fn refusal(code: &str, message: &str) -> Value {
    json!({"error": {"code": code, "message": "Request is invalid and cannot be executed.", "@message": message, "@permanent": true}})
}

/// Whatever the order in which the columns came into the table.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_two_schemas_of_a_table_reach_their_columns() {
    for kind in [Kind::Kustd, Kind::Adx, Kind::Emulator] {
        let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(kind).await);
        let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
        process.post(&name("Cpu", "aaa", 1), image(HOST, "t1,1,h\n")).await;
        kusto.wait(|seen| seen.rows.get("Metrics.Cpu").is_some_and(|rows| rows.len() == 1)).await;
        process.post(&name("Cpu", "bbb", 2), image(ZONE, "t2,2,z\n")).await;
        kusto.wait(|seen| seen.rows["Metrics.Cpu"].len() == 2).await;
        assert_eq!(kusto.seen.lock().tables["Metrics.Cpu"], ["Timestamp", "Value", "Host", "Zone"]);
        assert_eq!(kusto.rows("Metrics.Cpu mapped"), ["Timestamp=t1 Value=1 Host=h", "Timestamp=t2 Value=2 Zone=z"]);
        process.finish().await;
    }
}

/// What an administrator can put right is no reason to give rows up.
#[tokio::test(flavor = "multi_thread")]
async fn rows_wait_while_database_or_streaming_is_missing() {
    let missing = refusal("BadRequest_EntityNotFound", "Entity ID 'Metrics' of kind 'Database' was not found.");
    let disabled = refusal("BadRequest_StreamingIngestionPolicyNotEnabled", "Streaming ingestion policy is not enabled for the table.");
    let denied = refusal("General_AccessDenied", "Principal is not authorized.");
    for (what, status, body) in [
        (".create-merge", StatusCode::BAD_REQUEST, missing),
        ("", StatusCode::BAD_REQUEST, disabled),
        ("", StatusCode::NOT_FOUND, json!({})),
        (".show version", StatusCode::FORBIDDEN, denied),
    ] {
        let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
        kusto.faults.lock().refuse = Some((what, status, body));
        let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
        process.post(&name("Cpu", "aaa", 1), image(NARROW, "t1,1\n")).await;
        let failed = "adxmon_ingestor_upload_failures_total{database=\"Metrics\",kind=\"transient\"}";
        process.until("/metrics", |text| text.contains(failed)).await;
        process.sealed(1).await;
        kusto.faults.lock().refuse = None;
        kusto.wait(|seen| seen.rows.contains_key("Metrics.Cpu")).await;
        process.finish().await;
        let total = ledger(dir.path());
        assert_eq!((total.landed, total.dead_lettered), (1, 0), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_a_service_refuses_do_not_hold_up_rows() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    let body = refusal("SYN0002", "Query could not be parsed");
    kusto.faults.lock().refuse = Some(("prom_rate", StatusCode::BAD_REQUEST, body));
    let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
    process.post(&name("Cpu", "aaa", 1), image(NARROW, "t1,1\n")).await;
    kusto.wait(|seen| seen.rows.contains_key("Metrics.Cpu")).await;
    assert!(kusto.seen.lock().commands.iter().any(|c| c.contains("function prom_delta")));
    process.finish().await;
}

/// Who may ingest may not always look at the cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_hides_its_details_gets_its_rows() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    let denied = refusal("General_AccessDenied", "Principal is not authorized.");
    kusto.faults.lock().refuse = Some((".show cluster details", StatusCode::FORBIDDEN, denied));
    let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
    process.post(&name("Cpu", "aaa", 1), image(NARROW, "t1,1\n")).await;
    kusto.wait(|seen| seen.rows.contains_key("Metrics.Cpu")).await;
    process.finish().await;
}

/// Their rows would end up in the columns of the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_under_another_header_goes_to_the_dead_letters_alone() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    kusto.faults.lock().down = true;
    let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
    for (n, header) in [HOST, HOST, ZONE].into_iter().enumerate() {
        assert_eq!(process.post(&name("Cpu", "aaa", n), image(header, &format!("t{n},{n},x\n"))).await, 202);
        process.sealed(n + 1).await;
    }
    kusto.faults.lock().down = false;
    process.sealed(0).await;
    process.finish().await;
    assert_eq!(kusto.rows("Metrics.Cpu mapped"), ["Timestamp=t0 Value=0 Host=x", "Timestamp=t1 Value=1 Host=x"]);
    let total = ledger(dir.path());
    assert_eq!((total.landed, total.dead_lettered, total.maybe_duplicate), (2, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_dropped_is_made_again() {
    for kind in [Kind::Kustd, Kind::Emulator] {
        let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(kind).await);
        let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
        process.post(&name("Cpu", "aaa", 1), image(NARROW, "t1,1\n")).await;
        kusto.wait(|seen| seen.rows.contains_key("Metrics.Cpu")).await;
        kusto.forget_tables();
        process.post(&name("Cpu", "aaa", 2), image(NARROW, "t2,2\n")).await;
        kusto.wait(|seen| seen.rows["Metrics.Cpu"].len() == 2).await;
        process.finish().await;
        assert_eq!(ledger(dir.path()).dead_lettered, 0);
    }
}

/// Four megabytes are Azure's limit for streaming ingestion; one segment has more here.
#[tokio::test(flavor = "multi_thread")]
async fn large_segments_are_sent_in_pieces_and_the_bad_one_dies_alone() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    kusto.faults.lock().down = true;
    kusto.faults.lock().bad_text = Some("poison".to_owned());
    let process = start(dir.path(), &[("Metrics", &kusto)], |c| c.max_segment_age = Duration::from_secs(1)).await;
    let rows = |n: usize, count: usize| (0..count).map(|i| format!("t{n}-{i:0100},1\n")).collect::<String>();
    let bodies = [rows(1, 80_000), rows(2, 10), format!("{}poison,2\n", rows(3, 30_000)), rows(4, 10)];
    for (n, body) in bodies.iter().enumerate() {
        assert_eq!(process.post(&name("Cpu", "aaa", n), image(NARROW, body)).await, 202);
        process.sealed(n + 1).await;
    }
    kusto.faults.lock().down = false;
    process.sealed(0).await;
    process.finish().await;
    let mut expected: Vec<String> = [&bodies[0], &bodies[1], &bodies[3]].iter().flat_map(|b| b.lines().map(str::to_owned)).collect();
    expected.sort();
    assert!(kusto.rows("Metrics.Cpu") == expected, "{} rows instead of {}", kusto.rows("Metrics.Cpu").len(), expected.len());
    let lengths = kusto.seen.lock().lengths.clone();
    assert!(lengths.iter().all(|&bytes| bytes <= 4_000_000) && lengths.len() > 3, "{lengths:?}");
    let total = ledger(dir.path());
    assert_eq!((total.landed, total.dead_lettered, total.maybe_duplicate), (80_020, 30_001, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_finds_requests_too_large_gets_smaller_ones() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    kusto.faults.lock().most_bytes = Some(6000);
    let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
    let rows: String = (0..1000).map(|i| format!("t{i},{i}\n")).collect();
    process.post(&name("Cpu", "aaa", 1), image(NARROW, &rows)).await;
    // One record that is too large whatever is done.
    process.post(&name("Big", "aaa", 2), image(NARROW, &format!("{},1\n", "x".repeat(7000)))).await;
    kusto.wait(|seen| seen.rows.get("Metrics.Cpu").is_some_and(|rows| rows.len() == 1000)).await;
    process.until("/metrics", |text| text.contains("ledger_rows{database=\"Metrics\",state=\"dead_lettered\"} 1")).await;
    process.finish().await;
    let total = ledger(dir.path());
    assert_eq!((total.landed, total.dead_lettered, total.maybe_duplicate), (1000, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_forgetful_service_may_have_twice_is_counted() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    kusto.faults.lock().lose_answers = 1;
    let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
    process.post(&name("Cpu", "aaa", 1), image(NARROW, "t1,1\n")).await;
    kusto.wait(|seen| seen.rows.get("Metrics.Cpu").is_some_and(|rows| rows.len() == 2)).await;
    process.post(&name("Mem", "aaa", 2), image(NARROW, "t2,2\n")).await;
    kusto.wait(|seen| seen.rows.contains_key("Metrics.Mem")).await;
    process.finish().await;
    let total = ledger(dir.path());
    assert_eq!((total.landed, total.maybe_duplicate), (2, 1));
}

/// Its requests break off as if the whole database were away.
#[tokio::test(flavor = "multi_thread")]
async fn a_sick_table_does_not_stop_the_others() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    kusto.faults.lock().hang_up = Some("sick".to_owned());
    let process = start(dir.path(), &[("Metrics", &kusto)], |c| c.grace = Duration::ZERO).await;
    process.post(&name("Cpu", "aaa", 0), image(NARROW, "sick,1\n")).await;
    let failed = "adxmon_ingestor_upload_failures_total{database=\"Metrics\",kind=\"transient\"}";
    process.until("/metrics", |text| text.contains(failed)).await;
    for n in 1..=3 {
        process.post(&name("Mem", "aaa", n), image(NARROW, &format!("t{n},1\n"))).await;
        kusto.wait(|seen| seen.rows.get("Metrics.Mem").is_some_and(|rows| rows.len() == n)).await;
    }
    process.sealed(1).await;
    // Kusto has the last row before we have written down that it has.
    process.until("/metrics", |text| text.contains("ledger_rows{database=\"Metrics\",state=\"landed\"} 3")).await;
    process.finish().await;
    assert_eq!(ledger(dir.path()).on_disk, 1);
}

/// In the order of its record, on which the pieces depend, whatever the ages of its segments are.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_an_earlier_run_is_sent_as_it_was_recorded() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Kustd).await);
    let (store, _) = wal::Store::open(wal::Options::new(dir.path()), wal::RealDisk::new(), 0).unwrap();
    for row in ["t1,1\n", "t2,2\n", "t3,3\n"] {
        let section = wal::Section {
            table: wal::TableKey::new("Metrics", "Cpu", "aaa"),
            header: format!("{NARROW}\n").into_bytes().into(),
            sample_type: 1,
            rows: 1,
            body: wal::SectionBody::Rows(row.as_bytes().to_vec()),
        };
        store.commit_wait(wal::Request { sections: vec![section], ..wal::Request::default() }).unwrap();
        store.seal_all().unwrap();
    }
    let sealed = store.sealed();
    let record =
        wal::BatchRecord { id: [7; 16], state: wal::BatchState::Batched, segments: vec![sealed[2].id, sealed[0].id], detail: Vec::new() };
    let (done, durable) = std::sync::mpsc::channel();
    store.record_batch(record, Box::new(move |outcome| done.send(outcome).unwrap()));
    durable.recv().unwrap().unwrap();
    store.close();

    let process = start(dir.path(), &[("Metrics", &kusto)], |_| {}).await;
    process.sealed(0).await;
    process.finish().await;
    let first = Piece { csv: "t3,3\nt1,1\n".into(), segments: 0..2, continues: false, index: 0 };
    assert_eq!(kusto.seen.lock().batches[0], hex(first.id(&[7; 16])));
    assert_eq!(kusto.rows("Metrics.Cpu"), ["t1,1", "t2,2", "t3,3"]);
}

fn hex(id: [u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a crash at that moment would leave is a copy of the folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_recorded_before_its_first_byte_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let kusto = FakeKusto::start(Kind::Kustd).await;
    kusto.faults.lock().lose_answers = usize::MAX;
    let process = start(dir.path(), &[("Metrics", &kusto)], |c| c.grace = Duration::ZERO).await;
    process.post(&name("Cpu", "aaa", 1), image(NARROW, "t1,1\n")).await;
    kusto.wait(|seen| !seen.batches.is_empty()).await;
    // Again from the beginning when a file was renamed under the copy's hands.
    let copy = loop {
        let copy = tempfile::tempdir().unwrap();
        match copy_folder(dir.path(), copy.path()) {
            Ok(()) => break copy,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        }
    };
    process.finish().await;
    let (store, _) = wal::Store::open(wal::Options::new(copy.path()), wal::RealDisk::new(), 0).unwrap();
    let (batches, sealed) = (store.batches(), store.sealed());
    store.close();
    assert_eq!((batches.len(), sealed.len()), (1, 1));
    assert_eq!(batches[0].segments, [sealed[0].id]);
    let piece = Piece { csv: "t1,1\n".into(), segments: 0..1, continues: false, index: 0 };
    assert_eq!(kusto.seen.lock().batches[0], hex(piece.id(&batches[0].id)));
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => copy_folder(&entry.path(), &to.join(entry.file_name()))?,
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name()))?),
        }
    }
    Ok(())
}
