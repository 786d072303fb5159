//! Queued ingestion over Azurite: from our client and from Microsoft's, with what can go wrong.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use azure_storage::{Account, Permissions, Resource, Retry, Storage};
use azure_testing::azurite::Azurite;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{Timestamp, ToSpan as _};
use kusto::queued::{BlobName, Failure, FailureKind, Ingestion, IngestionStatus, Queued, QueuedClient, UploadedBlob};
use kusto::{BatchId, Client};
use serde_json::{Value, json};

use crate::harness::Kustd;

fn client(kustd: &Kustd) -> QueuedClient {
    QueuedClient::new(Client::new(&kustd.address).unwrap()).unwrap()
}

fn batch(number: u8) -> BatchId {
    BatchId([number; 16])
}

async fn upload(client: &QueuedClient, number: u8, rows: impl Into<Vec<u8>>) -> UploadedBlob {
    let rows = rows.into();
    let name = BlobName::of_batch("Metrics", "T", batch(number));
    until_ready(async || {
        client
            .upload(&name, {
                let rows = rows.clone();
                move || Ok(std::io::Cursor::new(rows.clone()))
            })
            .await
            .ok()
    })
    .await
}

/// Waits for what kustd does on its own.
async fn until_ready<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let limit = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(done) = attempt().await {
            return done;
        }
        assert!(tokio::time::Instant::now() < limit, "nothing came of it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn end(client: &QueuedClient, queued: &Queued) -> IngestionStatus {
    until_ready(async || client.status(queued).await.ok().filter(IngestionStatus::is_final)).await
}

async fn ingest(client: &QueuedClient, blob: &UploadedBlob, what: &Ingestion) -> IngestionStatus {
    let queued = client.enqueue(blob, what).await.unwrap();
    end(client, &queued).await
}

fn failure(status: IngestionStatus) -> Failure {
    let IngestionStatus::Failed(failure) = status else { panic!("{status:?}") };
    failure
}

/// Storage with all rights, to look behind the curtain.
struct Behind {
    storage: Storage,
    account: Account,
}

impl Behind {
    fn new(azurite: &Azurite) -> Behind {
        Behind { storage: Storage::new(Retry::default(), None).unwrap(), account: Account::parse(&azurite.connection_string()).unwrap() }
    }

    fn queue(&self, name: &str) -> Resource {
        self.account.queue(name, Permissions::All, Timestamp::now() + 1.hour()).unwrap()
    }

    fn container(&self) -> Resource {
        self.account.container("kustd-temp-0", Permissions::All, Timestamp::now() + 1.hour()).unwrap()
    }

    async fn put(&self, text: &str) {
        self.storage.put_message(&self.queue("kustd-ready-1"), text, true).await.unwrap();
    }

    /// The next report in a queue.
    async fn report(&self, queue: &str) -> Value {
        let queue = self.queue(queue);
        until_ready(async || {
            // Before kustd has made its queues there are none.
            let message = self.storage.get_messages(&queue, 1, Duration::from_secs(1)).await.ok()?.pop()?;
            self.storage.delete_message(&queue, &message).await.unwrap();
            Some(serde_json::from_slice(&STANDARD.decode(message.message_text).unwrap()).unwrap())
        })
        .await
    }

    /// Whether all messages of clients are gone, hidden ones too: nothing goes round.
    async fn is_quiet(&self) -> bool {
        for name in ["kustd-ready-0", "kustd-ready-1"] {
            let url = self.queue(name).with_sas().replacen('?', "?comp=metadata&", 1);
            let answer = reqwest::get(url).await.unwrap();
            if answer.headers()["x-ms-approximate-messages-count"] != "0" {
                return false;
            }
        }
        true
    }
}

#[tokio::test]
async fn a_batch_of_our_client_is_in_the_table_once() {
    let Some(azurite) = Azurite::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start_queued(folder.path(), &[&azurite]).await;
    kustd.done(".create table T (n:long, s:string)").await;
    let mapping = r#"[{"Column":"s","Properties":{"Ordinal":"0"}},{"Column":"n","Properties":{"Ordinal":"1"}}]"#;
    kustd.done(&format!(".create table T ingestion csv mapping 'M' '{mapping}'")).await;
    let client = client(&kustd);
    let blob = upload(&client, 1, "\"a\nb\",7\nc,8\n").await;
    let what = Ingestion { mapping: Some("M".to_owned()), flush_immediately: true, ..Ingestion::new(batch(1), "Metrics", "T") };
    assert_eq!(ingest(&client, &blob, &what).await, IngestionStatus::Succeeded);
    let rows = [json!(["a\nb", 7]), json!(["c", 8])];
    assert_eq!(kustd.query("T | project s, n | order by n asc").await.rows(), rows);
    // the same message again, as after a lost answer, also after a restart
    assert_eq!(ingest(&client, &blob, &what).await, IngestionStatus::Succeeded);
    kustd.stop().await;
    let kustd = Kustd::start_queued(folder.path(), &[&azurite]).await;
    let client = self::client(&kustd);
    assert_eq!(ingest(&client, &blob, &what).await, IngestionStatus::Succeeded);
    assert_eq!(kustd.query("T | project s, n | order by n asc").await.rows(), rows);
    assert_eq!(kustd.done(".show cluster details | project Name").await, [json!(["kustd"])]);
    kustd.stop().await;
}

#[tokio::test]
async fn tags_keep_a_batch_from_being_ingested_twice() {
    let Some(azurite) = Azurite::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start_queued(folder.path(), &[&azurite]).await;
    kustd.done(".create table T (n:long)").await;
    let client = client(&kustd);
    let blob = upload(&client, 1, "1\n2\n").await;
    let tagged = |number| Ingestion {
        tags: vec!["ingest-by:b1".to_owned(), "drop-by:x".to_owned()],
        ingest_if_not_exists: vec!["b1".to_owned()],
        ..Ingestion::new(batch(number), "Metrics", "T")
    };
    assert_eq!(ingest(&client, &blob, &tagged(1)).await, IngestionStatus::Succeeded);
    // another batch of the same rows: the tag tells, and none of its own messages brought them; the same batch: its id does
    assert_eq!(ingest(&client, &blob, &tagged(2)).await, IngestionStatus::AlreadyIngested { whole: false });
    assert_eq!(ingest(&client, &blob, &tagged(1)).await, IngestionStatus::Succeeded);
    assert_eq!(kustd.count("T").await, 2);
    let tags = kustd.done(".show table T extents | project Tags, RowCount").await;
    assert_eq!(tags, [json!(["ingest-by:b1 drop-by:x", 2])]);
    kustd.stop().await;
}

/// More than is held as one piece: straight into an extent, and once, also after a restart.
#[tokio::test]
async fn a_long_blob_is_there_whole_and_once() {
    let Some(azurite) = Azurite::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start_queued(folder.path(), &[&azurite]).await;
    kustd.done(".create table T (n:long, s:string)").await;
    const ROWS: u64 = 45_000;
    let filler = "x".repeat(500);
    let rows: String = (0..ROWS).map(|row| format!("{row},\"{filler}\n\"\n")).collect();
    let client = client(&kustd);
    let blob = upload(&client, 1, rows).await;
    assert!(blob.raw_size > 20 << 20);
    let what = Ingestion::new(batch(1), "Metrics", "T");
    assert_eq!(ingest(&client, &blob, &what).await, IngestionStatus::Succeeded);
    let expected = [json!([ROWS, ROWS * (ROWS - 1) / 2, ROWS * 501])];
    let query = "T | summarize count(), sum(n), sum(strlen(s))";
    assert_eq!(kustd.query(query).await.rows(), expected);
    kustd.stop().await;
    let kustd = Kustd::start_queued(folder.path(), &[&azurite]).await;
    assert_eq!(ingest(&self::client(&kustd), &blob, &what).await, IngestionStatus::Succeeded);
    assert_eq!(kustd.query(query).await.rows(), expected);
    kustd.stop().await;
}

#[tokio::test]
async fn what_can_never_work_is_told_and_goes_round_no_more() {
    let Some(azurite) = Azurite::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start_queued(folder.path(), &[&azurite]).await;
    kustd.done(".create table T (n:long)").await;
    let (client, behind) = (client(&kustd), Behind::new(&azurite));
    let good = upload(&client, 1, "1\n").await;
    let missing = UploadedBlob { blob: BlobName::new("missing").unwrap(), ..good.clone() };
    let open = upload(&client, 2, "1\n\"open\n").await;
    let empty = upload(&client, 3, "").await;
    let what = |number, table: &str| Ingestion::new(batch(number), "Metrics", table);
    let mapped = Ingestion { mapping: Some("none".to_owned()), ..what(6, "T") };
    for (blob, what, code) in [
        (&good, what(2, "Nope"), "BadRequest_TableNotExist"),
        (&good, Ingestion::new(batch(3), "Nope", "T"), "BadRequest_DatabaseNotExist"),
        (&missing, what(4, "T"), "Download_SourceNotFound"),
        (&open, what(5, "T"), "BadRequest_InvalidBlob"),
        (&good, mapped, "BadRequest_MappingReferenceWasNotFound"),
        (&empty, what(7, "T"), "BadRequest_NoRecordsOrWrongFormat"),
    ] {
        let failure = failure(ingest(&client, blob, &what).await);
        assert_eq!((failure.kind, failure.code.as_str()), (FailureKind::Permanent, code), "{}", failure.details);
        assert!(!failure.details.contains("sig="), "{}", failure.details);
    }
    // poison: nobody can be told but the queue of failures
    for (text, code) in [
        ("no base64!".to_owned(), "BadRequest_CorruptedMessage"),
        (STANDARD.encode("{\"Id\":"), "BadRequest_CorruptedMessage"),
        (STANDARD.encode("{}"), "BadRequest_CorruptedMessage"),
    ] {
        behind.put(&text).await;
        let report = behind.report("kustd-failed").await;
        assert_eq!(
            (&report["ErrorCode"], &report["FailureStatus"], &report["ShouldRetry"]),
            (&json!(code), &json!("Permanent"), &json!(false))
        );
    }
    // a blob that is somebody else's is not read
    let foreign = json!({
        "Id": "10f76b1f-0c57-4844-a354-a08d7b9ee627", "BlobPath": format!("{}/x", kustd.address), "DatabaseName": "Metrics", "TableName": "T",
        "AdditionalProperties": {"authorizationContext": "x"},
    });
    behind.put(&STANDARD.encode(foreign.to_string())).await;
    let report = behind.report("kustd-failed").await;
    assert_eq!(report["ErrorCode"], "Download_Forbidden");
    until_ready(async || behind.is_quiet().await.then_some(())).await;
    assert_eq!(kustd.count("T").await, 0);
    let failures =
        kustd.done(".show ingestion failures | summarize count() by ErrorCode | where ErrorCode startswith 'BadRequest_C'").await;
    assert_eq!(failures, [json!(["BadRequest_CorruptedMessage", 3])]);
    let one = kustd
        .done(".show ingestion failures | where ErrorCode == 'BadRequest_TableNotExist' | project Table, FailureKind, OperationId")
        .await;
    assert_eq!((&one[0][0], &one[0][1]), (&json!("Nope"), &json!("Permanent")));
    let id = one[0][2].as_str().unwrap();
    assert_eq!(kustd.done(&format!(".show ingestion failures with (OperationId = \"{id}\")")).await.len(), 1);
    kustd.stop().await;
}

#[tokio::test]
async fn what_may_work_later_is_tried_again() {
    let Some(azurite) = Azurite::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    // whatever is hot is too much, so that a batch is refused until the one before it is sealed
    let accounts = vec![azurite.connection_string()];
    let kustd = Kustd::try_start_queued(folder.path(), accounts, |options| options.memory_bytes = 1).await.unwrap();
    kustd.done(".create table T (n:long)").await;
    let client = client(&kustd);
    let mut queued = Vec::new();
    for number in 1..=3 {
        let blob = upload(&client, number, format!("{number}\n")).await;
        queued.push(client.enqueue(&blob, &Ingestion::new(batch(number), "Metrics", "T")).await.unwrap());
    }
    for queued in &queued {
        assert_eq!(end(&client, queued).await, IngestionStatus::Succeeded);
    }
    assert_eq!(kustd.count("T").await, 3);
    let metrics = kustd.send(kustd.client.get(format!("{}/metrics", kustd.address))).await.text;
    let retries = metrics.lines().find_map(|line| line.strip_prefix("kustd_queued_retries_total ")).unwrap();
    assert_ne!(retries, "0");
    kustd.stop().await;
}

#[tokio::test]
async fn update_policies_apply_and_their_failures_are_theirs() {
    let Some(azurite) = Azurite::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start_queued(folder.path(), &[&azurite]).await;
    kustd.done(".create table S (n:long)").await;
    kustd.done(".create table T (n:long)").await;
    let policy = r#"[{"IsEnabled":true,"Source":"S","Query":"S | project n","IsTransactional":true}]"#;
    kustd.done(&format!(".alter table T policy update @'{policy}'")).await;
    let client = client(&kustd);
    let blob = upload(&client, 1, "1\n").await;
    let what = Ingestion::new(batch(1), "Metrics", "S");
    assert_eq!(ingest(&client, &blob, &what).await, IngestionStatus::Succeeded);
    assert_eq!((kustd.count("S").await, kustd.count("T").await), (1, 1));
    // the policy's target no longer fits: the fault is the policy's
    kustd.done(".alter table T (m:string)").await;
    let broken = failure(ingest(&client, &blob, &Ingestion::new(batch(2), "Metrics", "S")).await);
    assert!(broken.from_update_policy, "{broken:?}");
    assert_eq!(kustd.count("S").await, 1);
    kustd.stop().await;
}

#[tokio::test]
async fn a_blob_is_deleted_only_where_the_message_says_so() {
    let Some(azurite) = Azurite::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start_queued(folder.path(), &[&azurite]).await;
    kustd.done(".create table T (n:long, s:string)").await;
    let behind = Behind::new(&azurite);
    until_ready(async || behind.storage.create_container(&behind.container()).await.ok()).await;
    for (number, retain) in [(1, true), (2, false)] {
        // plain JSON, not compressed, with a mapping of its own
        let name = format!("plain-{number}.json");
        let text = format!("{{\"a\":{number},\"b\":\"x\"}}\n");
        behind.storage.put_block(&behind.container(), &name, 0, text.into()).await.unwrap();
        behind.storage.put_block_list(&behind.container(), &name, 1).await.unwrap();
        let url = behind.container().with_sas_of(&name);
        let message = json!({
            "Id": uuid_text(number), "BlobPath": url, "DatabaseName": "Metrics", "TableName": "T", "RetainBlobOnSuccess": retain,
            "ReportLevel": 2, "ReportMethod": 0,
            "AdditionalProperties": {
                "authorizationContext": "x", "format": "multijson",
                "ingestionMapping": r#"[{"column":"n","Properties":{"Path":"$.a"}},{"column":"s","Properties":{"Path":"$.b"}}]"#,
            },
        });
        behind.put(&STANDARD.encode(message.to_string())).await;
        let report = behind.report("kustd-succeeded").await;
        assert_eq!((&report["IngestionSourceId"], &report["Table"]), (&json!(uuid_text(number)), &json!("T")));
        assert!(!report.to_string().contains("sig="), "{report}");
        let there = async || behind.storage.get_blob(&url).await.is_ok();
        if retain {
            assert!(there().await);
        } else {
            until_ready(async || (!there().await).then_some(())).await;
        }
    }
    assert_eq!(kustd.query("T | order by n asc").await.rows(), [json!([1, "x"]), json!([2, "x"])]);
    kustd.stop().await;
}

fn uuid_text(number: u8) -> String {
    format!("10f76b1f-0c57-4844-a354-a08d7b9ee6{number:02}")
}

/// An account that is away from the start, and one that goes away later.
#[tokio::test]
async fn an_account_that_is_away_leaves_the_others_alone() {
    let (Some(mut never), Some(mut first), Some(second)) = (Azurite::start(), Azurite::start(), Azurite::start()) else { return };
    never.stop();
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start_queued(folder.path(), &[&never, &first, &second]).await;
    kustd.done(".create table T (n:long)").await;
    let tables = ".get ingestion resources | where ResourceTypeName == 'IngestionsStatusTable' | count";
    until_ready(async || {
        let reply = kustd.command(tables).await;
        (reply.status == 200 && reply.rows() == [json!([2])]).then_some(())
    })
    .await;
    let client = client(&kustd);
    for number in 1..=2 {
        let blob = upload(&client, number, format!("{number}\n")).await;
        assert_eq!(ingest(&client, &blob, &Ingestion::new(batch(number), "Metrics", "T")).await, IngestionStatus::Succeeded);
    }
    first.stop();
    for number in 3..=4 {
        let blob = upload(&client, number, format!("{number}\n")).await;
        assert_eq!(ingest(&client, &blob, &Ingestion::new(batch(number), "Metrics", "T")).await, IngestionStatus::Succeeded);
    }
    assert_eq!(kustd.query("T | summarize count(), sum(n)").await.rows(), [json!([4, 10])]);
    kustd.stop().await;
}

#[tokio::test]
async fn without_storage_there_is_no_queued_ingestion() {
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start(folder.path()).await;
    let refused = kustd.command(".get ingestion resources").await;
    assert!(refused.error(400).contains("--ingestion-storage"), "{}", refused.text);
    assert_eq!(kustd.done(".show cluster details | project Name").await, [json!(["KustoPersonal"])]);
    assert_eq!(kustd.done(".show ingestion failures").await, [] as [Value; 0]);
    kustd.stop().await;
}

/// Microsoft's client for Python, on the address of the engine: files, streams, tags, mappings and both queues of reports.
#[tokio::test]
async fn microsofts_client_ingests_and_hears_of_it() {
    let Some(azurite) = Azurite::start() else { return };
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let kustd = Kustd::start_queued(folder.path(), &[&azurite]).await;
    kustd.done(".create table T (n:long, s:string)").await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/queued_ingestion.py");
    let ran = tokio::process::Command::new(python).arg(script).arg(&kustd.address).stderr(Stdio::inherit()).output().await.unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    let heard: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(heard["succeeded"], json!([["Metrics", "T"], ["Metrics", "T"], ["Metrics", "T"]]));
    assert_eq!(heard["failed"], json!([["Metrics", "Nope", "BadRequest_TableNotExist", "Permanent", false]]));
    assert_eq!(kustd.query("T | order by n asc").await.rows(), [json!([1, "file"]), json!([2, "stream"]), json!([3, "json"])]);
    kustd.stop().await;
}

/// The Python of `cargo xtask setup`; in CI a missing one is a failure.
fn python() -> Option<PathBuf> {
    let cache = || {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default().join(".cache");
        std::env::var_os("XDG_CACHE_HOME").map_or(home, PathBuf::from).join("adx-mon/python")
    };
    let python = std::env::var_os("ADXMON_PYTHON_VENV").map_or_else(cache, PathBuf::from).join("bin/python");
    if python.exists() {
        return Some(python);
    }
    assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{} is missing: run `cargo xtask setup`", python.display());
    eprintln!("not run: {} is missing: run `cargo xtask setup`", python.display());
    None
}
