//! Queued ingestion: what Kusto is told, and where the rows are while it has not said what became of them.

use std::time::Duration;

use http::StatusCode;
use ingestor::Config;
use ingestor::upload::Ingestion;
use ingestor::upload::passage::QueueOptions;
use serde_json::json;

use crate::fake_kusto::{FakeKusto, Kind};
use crate::fake_storage::{Fate, failed};
use crate::support::{NARROW, Process, WIDE, image, ledger, start};

pub(crate) fn queued(config: &mut Config) {
    config.ingestion = Ingestion::Queued;
    config.max_transfer_age = Duration::ZERO;
    config.queue = QueueOptions { first_ask: Duration::from_millis(10), longest_ask: Duration::from_millis(50), ..QueueOptions::default() };
}

fn name(table: &str, n: usize) -> String {
    format!("Metrics_{table}_aaa_2f5d0c3e517e40{n:02x}.wal")
}

pub(crate) async fn post(process: &Process, table: &str, n: usize, rows: &str) {
    assert_eq!(process.post(&name(table, n), image(NARROW, rows)).await, 202);
}

/// Waits until Kusto was asked so often what became of batches, with this answer.
pub(crate) async fn asked(process: &Process, status: &str, times: f64) {
    let metric = format!("adxmon_ingestor_queued_batch_statuses_total{{database=\"Metrics\",status=\"{status}\"}}");
    process
        .until("/metrics", |text| {
            let line = text.lines().find(|line| line.starts_with(&metric));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).is_some_and(|seen| seen >= times)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_becomes_a_blob_and_a_message_and_lands_when_kusto_says_so() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    kusto.storage.decide(|_, _| Fate::Nothing);
    let process = start(dir.path(), &[("Metrics", &kusto)], queued).await;
    post(&process, "Cpu", 1, "t1,1\nt2,2\n").await;
    kusto.wait(|_| !kusto.storage.messages().is_empty()).await;
    let message = kusto.storage.messages().remove(0);
    let id = message["Id"].as_str().unwrap().replace('-', "");
    assert_eq!(kusto.storage.blobs(), [format!("Metrics__Cpu__{id}.csv.gz")]);
    assert_eq!((&message["DatabaseName"], &message["TableName"]), (&json!("Metrics"), &json!("Cpu")));
    // A small batch is ingested with others: no tag.
    assert_eq!(message["AdditionalProperties"].get("tags"), None);
    let commands = kusto.seen.lock().commands.clone();
    let mapping = message["AdditionalProperties"]["ingestionMappingReference"].as_str().unwrap();
    assert!(commands.iter().any(|c| c.contains("ingestion csv mapping") && c.contains(mapping)), "{commands:?}");
    // Queued is not ingested: the segment stays.
    asked(&process, "pending", 3.0).await;
    process.sealed(1).await;
    kusto.storage.ingest(&kusto, 0);
    process.sealed(0).await;
    assert_eq!(kusto.rows("Metrics.Cpu mapped"), ["Timestamp=t1 Value=1", "Timestamp=t2 Value=2"]);
    process.finish().await;
    let total = ledger(dir.path());
    assert_eq!((total.landed, total.maybe_duplicate), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_the_batch_is() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    kusto.storage.decide(|_, _| Fate::Nothing);
    let process = start(dir.path(), &[("Metrics", &kusto)], queued).await;
    post(&process, "Cpu", 1, "t1,1\n").await;
    asked(&process, "pending", 1.0).await;
    // The end does not wait for Kusto: the batch is in its queue.
    process.finish().await;
    kusto.storage.ingest(&kusto, 0);
    let process = start(dir.path(), &[("Metrics", &kusto)], queued).await;
    process.sealed(0).await;
    process.finish().await;
    assert_eq!((kusto.storage.uploads(), kusto.storage.messages().len()), (1, 1));
    let total = ledger(dir.path());
    assert_eq!((total.landed, total.maybe_duplicate), (1, 0));
}

/// Nobody knows whether it was queued or streamed: it goes again, and is counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_record_cannot_be_read_goes_again_and_is_counted() {
    for (detail, table) in [(&b"\xff\0"[..], "Damaged"), (br#"{"version":9,"way":"queued"}"#, "Newer")] {
        let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
        kusto.storage.decide(|_, _| Fate::Nothing);
        let process = start(dir.path(), &[("Metrics", &kusto)], queued).await;
        post(&process, table, 1, "t1,1\n").await;
        asked(&process, "pending", 1.0).await;
        process.finish().await;
        record_anew(dir.path(), detail);
        // It was ingested, and is once more.
        kusto.storage.ingest(&kusto, 0);
        kusto.storage.decide(|_, _| Fate::Ingest);
        let process = start(dir.path(), &[("Metrics", &kusto)], queued).await;
        process.sealed(0).await;
        process.finish().await;
        assert_eq!((kusto.storage.uploads(), kusto.storage.messages().len()), (2, 2));
        let total = ledger(dir.path());
        assert_eq!((total.landed, total.maybe_duplicate), (1, 1));
    }
}

fn record_anew(dir: &std::path::Path, detail: &[u8]) {
    let (store, _) = wal::Store::open(wal::Options::new(dir), wal::RealDisk::new(), 0).unwrap();
    let record = wal::BatchRecord { detail: detail.to_vec(), ..store.batches().remove(0) };
    assert_eq!(record.state, wal::BatchState::Queued);
    let (done, durable) = std::sync::mpsc::sync_channel(1);
    store.record_batch(record, Box::new(move |recorded| done.send(recorded).unwrap()));
    durable.recv().unwrap().unwrap();
    store.close();
}

/// While the first batch is in the queue the table's next one goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_goes_on_while_its_batch_is_in_the_queue() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    kusto.storage.decide(|number, _| if number == 0 { Fate::Nothing } else { Fate::Ingest });
    let process = start(dir.path(), &[("Metrics", &kusto)], queued).await;
    post(&process, "Cpu", 1, "t1,1\n").await;
    kusto.wait(|_| kusto.storage.messages().len() == 1).await;
    post(&process, "Cpu", 2, "t2,2\n").await;
    kusto.wait(|seen| seen.rows.contains_key("Metrics.Cpu")).await;
    process.sealed(1).await;
    assert_eq!(kusto.rows("Metrics.Cpu"), ["t2,2"]);
    kusto.storage.ingest(&kusto, 0);
    process.sealed(0).await;
    process.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_segment_dies_alone_in_the_queue_too() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    kusto.faults.lock().down = true;
    kusto.storage.decide(|_, csv| match csv.contains("poison") {
        true => failed("Permanent", "Stream_WrongNumberOfFields"),
        false => Fate::Ingest,
    });
    let process = start(dir.path(), &[("Metrics", &kusto)], queued).await;
    for (n, row) in ["t1,1", "poison,2", "t3,3", "t4,4"].into_iter().enumerate() {
        post(&process, "Cpu", n, &format!("{row}\n")).await;
        process.sealed(n + 1).await;
    }
    kusto.faults.lock().down = false;
    process.sealed(0).await;
    process.finish().await;
    assert_eq!(kusto.rows("Metrics.Cpu"), ["t1,1", "t3,3", "t4,4"]);
    let total = ledger(dir.path());
    assert_eq!((total.landed, total.dead_lettered, total.maybe_duplicate), (3, 1, 0));
}

/// Not the rows' fault: they go again, and what was missing is made.
#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_other_reasons_goes_again() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    let process = start(dir.path(), &[("Metrics", &kusto)], |config| {
        queued(config);
        config.queue.first_retry = Duration::from_millis(10);
    })
    .await;
    post(&process, "Cpu", 1, "t1,1\n").await;
    process.until("/metrics", |text| text.contains("ledger_rows{database=\"Metrics\",state=\"landed\"} 1")).await;
    // Somebody drops table and mapping, which the ingestor believes to be there.
    kusto.forget_tables();
    let before = kusto.storage.messages().len();
    kusto.storage.decide(move |number, _| match number - before {
        0 | 2 => Fate::Ingest,
        _ => failed("Transient", "General_Throttled"),
    });
    post(&process, "Cpu", 2, "t2,2\n").await;
    process.until("/metrics", |text| text.contains("ledger_rows{database=\"Metrics\",state=\"landed\"} 2")).await;
    process.finish().await;
    assert_eq!(kusto.rows("Metrics.Cpu"), ["t1,1", "t2,2"]);
    assert_eq!(kusto.storage.messages().len(), before + 3);
    let total = ledger(dir.path());
    assert_eq!((total.landed, total.dead_lettered, total.maybe_duplicate), (2, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn skipped_and_partly_are_no_success() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    kusto.storage.decide(|_, csv| match csv {
        "skip,1\n" => Fate::Status(json!({"Status": "Skipped", "Details": "no data"})),
        _ => Fate::Status(json!({"Status": "PartiallySucceeded", "ErrorCode": "X", "Details": "half"})),
    });
    let process = start(dir.path(), &[("Metrics", &kusto)], queued).await;
    post(&process, "Cpu", 1, "skip,1\n").await;
    post(&process, "Mem", 2, "part,1\n").await;
    process.until("/metrics", |text| text.contains("ledger_rows{database=\"Metrics\",state=\"dead_lettered\"} 2")).await;
    process.finish().await;
    let total = ledger(dir.path());
    // Of those of which some may be there that is said.
    assert_eq!((total.landed, total.dead_lettered, total.maybe_duplicate), (0, 2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_never_success() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    kusto.storage.decide(|_, _| Fate::Status(json!({"Status": "Fabulous"})));
    let process = start(dir.path(), &[("Metrics", &kusto)], queued).await;
    post(&process, "Cpu", 1, "t1,1\n").await;
    asked(&process, "unreadable", 2.0).await;
    kusto.storage.refuse(Some(("status(", StatusCode::NOT_FOUND)));
    asked(&process, "unreadable", 4.0).await;
    process.sealed(1).await;
    kusto.storage.refuse(None);
    kusto.storage.ingest(&kusto, 0);
    process.sealed(0).await;
    process.finish().await;
    assert_eq!(ledger(dir.path()).landed, 1);
}

/// Its storage is away for uploads, then for messages; nothing is lost or there twice.
#[tokio::test(flavor = "multi_thread")]
async fn storage_that_fails_is_waited_for() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    let process = start(dir.path(), &[("Metrics", &kusto)], queued).await;
    for (n, path) in ["temp/", "ready/"].into_iter().enumerate() {
        kusto.storage.refuse(Some((path, StatusCode::FORBIDDEN)));
        post(&process, "Cpu", n, &format!("t{n},1\n")).await;
        process.sealed(1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(kusto.rows("Metrics.Cpu").len(), n);
        kusto.storage.refuse(None);
        process.sealed(0).await;
    }
    process.finish().await;
    assert_eq!(kusto.rows("Metrics.Cpu"), ["t0,1", "t1,1"]);
    assert_eq!(ledger(dir.path()).maybe_duplicate, 0);
}

/// The third row of the table: a new lifted column widens table and mapping.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_extends_the_table_and_its_mapping() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    let process = start(dir.path(), &[("Metrics", &kusto)], queued).await;
    post(&process, "Cpu", 1, "t1,1\n").await;
    kusto.wait(|seen| seen.rows.contains_key("Metrics.Cpu")).await;
    assert_eq!(process.post("Metrics_Cpu_bbb_2f5d0c3e517e4002.wal", image(WIDE, "t2,2,h\n")).await, 202);
    process.until("/metrics", |text| text.contains("ledger_rows{database=\"Metrics\",state=\"landed\"} 2")).await;
    process.finish().await;
    assert_eq!(kusto.seen.lock().tables["Metrics.Cpu"], ["Timestamp", "Value", "Host"]);
    assert_eq!(kusto.rows("Metrics.Cpu mapped"), ["Timestamp=t1 Value=1", "Timestamp=t2 Value=2 Host=h"]);
}

/// Small batches and urgent tables are streamed where the service lets them, and queued where it does not.
#[tokio::test(flavor = "multi_thread")]
async fn small_batches_and_urgent_tables_are_streamed_if_they_may() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    let process = start(dir.path(), &[("Metrics", &kusto)], |config| {
        queued(config);
        config.max_transfer_age = Duration::from_secs(3600);
        config.streaming_tables = vec!["Urgent".to_owned()];
    })
    .await;
    post(&process, "Urgent", 1, "t1,1\n").await;
    kusto.wait(|seen| seen.rows.contains_key("Metrics.Urgent")).await;
    assert_eq!((kusto.seen.lock().batches.len(), kusto.storage.messages().len()), (1, 0));
    // The policy is taken away.
    let disabled = json!({"error": {"code": "BadRequest_StreamingIngestionPolicyNotEnabled", "@message": "no", "@permanent": true}});
    kusto.faults.lock().refuse = Some(("", StatusCode::BAD_REQUEST, disabled));
    for n in 2..=3 {
        post(&process, "Urgent", n, &format!("t{n},1\n")).await;
        kusto.wait(|seen| seen.rows["Metrics.Urgent"].len() == n).await;
    }
    assert_eq!(kusto.storage.messages().len(), 2);
    // Others wait to become more, until the end.
    post(&process, "Cpu", 4, "t4,1\n").await;
    process.until("/metrics", |text| text.contains("ledger_rows{database=\"Metrics\",state=\"landed\"} 3")).await;
    assert!(kusto.rows("Metrics.Cpu").is_empty());
    process.finish().await;
    assert_eq!(kusto.rows("Metrics.Cpu"), ["t4,1"]);
    assert_eq!(ledger(dir.path()).maybe_duplicate, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_signature_is_written_down() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    kusto.storage.decide(|_, _| Fate::Nothing);
    let process = start(dir.path(), &[("Metrics", &kusto)], queued).await;
    post(&process, "Cpu", 1, "t1,1\n").await;
    asked(&process, "pending", 1.0).await;
    process.finish().await;
    let (store, _) = wal::Store::open(wal::Options::new(dir.path()), wal::RealDisk::new(), 0).unwrap();
    let record = store.batches().remove(0);
    store.close();
    let detail = String::from_utf8(record.detail).unwrap();
    assert!(detail.contains("receipt") && !detail.contains("SECRET"), "{detail}");
}

/// A Kusto that loses the first message, and finds it again when the second one is ingested.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_batch_is_queued_again_and_ingested_once() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    kusto.storage.decide(|number, _| if number == 0 { Fate::Nothing } else { Fate::Ingest });
    let process = start(dir.path(), &[("Metrics", &kusto)], |config| {
        queued(config);
        config.queue.tagged_bytes = 1;
        config.queue.batching = Duration::from_millis(50);
    })
    .await;
    post(&process, "Cpu", 1, "t1,1\n").await;
    kusto.wait(|seen| seen.rows.contains_key("Metrics.Cpu")).await;
    kusto.storage.ingest(&kusto, 0);
    process.until("/metrics", |text| text.contains("ledger_rows{database=\"Metrics\",state=\"landed\"} 1")).await;
    process.finish().await;
    assert_eq!(kusto.rows("Metrics.Cpu"), ["t1,1"]);
    for message in kusto.storage.messages() {
        let id = message["Id"].as_str().unwrap().replace('-', "");
        let properties = &message["AdditionalProperties"];
        assert_eq!(properties["tags"], json!(format!("[\"ingest-by:{id}\"]")));
        assert_eq!(properties["ingestIfNotExists"], json!(format!("[\"{id}\"]")));
    }
    assert_eq!(kusto.storage.uploads(), 1);
    assert_eq!(ledger(dir.path()).maybe_duplicate, 0);
}

/// After a restart nobody knows whether the message of a small batch was queued: it is, after a while, and that is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_batch_of_which_nobody_knows_is_counted() {
    let (dir, kusto) = (tempfile::tempdir().unwrap(), FakeKusto::start(Kind::Adx).await);
    kusto.storage.refuse(Some(("ready/", StatusCode::FORBIDDEN)));
    let impatient = |config: &mut Config| {
        queued(config);
        config.grace = Duration::ZERO;
        config.queue.batching = Duration::from_millis(100);
    };
    let process = start(dir.path(), &[("Metrics", &kusto)], impatient).await;
    post(&process, "Cpu", 1, "t1,1\n").await;
    kusto.wait(|seen| seen.commands.iter().any(|c| c.contains("identity token"))).await;
    process.finish().await;
    kusto.storage.refuse(None);
    let process = start(dir.path(), &[("Metrics", &kusto)], impatient).await;
    process.sealed(0).await;
    process.finish().await;
    assert_eq!((kusto.storage.uploads(), kusto.storage.messages().len()), (1, 1));
    let total = ledger(dir.path());
    assert_eq!((total.landed, total.maybe_duplicate), (1, 1));
}
