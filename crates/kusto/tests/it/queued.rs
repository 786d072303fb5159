//! Queued ingestion: against Azurite, which checks every request as Azure does, and against storage that fails.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use azure_storage::{Account, Permissions, Resource, Retry, Storage};
use azure_testing::azurite::Azurite;
use base64::Engine as _;
use jiff::{Timestamp, ToSpan as _};
use kusto::queued::{BlobName, FailureKind, Ingestion, IngestionStatus, Queued, QueuedClient, QueuedError, QueuedOptions, UploadedBlob};
use kusto::{BatchId, Client, Delivery, RetryPolicy};
use serde_json::{Map, Value, json};

use crate::management::{IDENTITY, Management};
use crate::sink::Sink;

const BATCH: BatchId = BatchId([0x5a; 16]);

fn retry() -> Retry {
    Retry { attempts: 2, first_pause: Duration::from_millis(1), longest_pause: Duration::from_millis(2) }
}

fn client(management: &Management) -> QueuedClient {
    let patience = RetryPolicy { attempts: 1, first_pause: Duration::ZERO, longest_pause: Duration::ZERO };
    let management = Client::builder(&management.url).retry(patience).build().unwrap();
    let options = QueuedOptions { retry: retry(), block_bytes: 64 << 10, ..QueuedOptions::default() };
    QueuedClient::with(management, options).unwrap()
}

fn name() -> BlobName {
    BlobName::of_batch("Db", "T", BATCH)
}

fn rows(count: usize) -> Vec<u8> {
    (0..count).flat_map(|row| format!("{row},\"value {}\"\n", row.wrapping_mul(2_654_435_761) % 1_000_003).into_bytes()).collect()
}

/// A source that gives `rows`, and counts how often it is opened.
fn source(rows: Vec<u8>) -> (impl Fn() -> io::Result<io::Cursor<Vec<u8>>> + Send + Sync + 'static, Arc<AtomicUsize>) {
    let opened = Arc::new(AtomicUsize::new(0));
    let count = opened.clone();
    let open = move || {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(io::Cursor::new(rows.clone()))
    };
    (open, opened)
}

/// An Azurite with a container, a queue and a table, and with all rights on them.
struct Cloud {
    azurite: Azurite,
    storage: Storage,
    container: Resource,
    queue: Resource,
    table: Resource,
}

impl Cloud {
    async fn start() -> Option<Cloud> {
        let azurite = Azurite::start()?;
        let account = Account::parse(&azurite.connection_string()).unwrap();
        let storage = Storage::new(retry(), None).unwrap();
        let until = Timestamp::now() + 1.hour();
        let container = account.container("temp", Permissions::All, until).unwrap();
        let queue = account.queue("ready", Permissions::All, until).unwrap();
        let table = account.table("status", Permissions::All, until).unwrap();
        storage.create_container(&container).await.unwrap();
        storage.create_queue(&queue).await.unwrap();
        storage.create_table(&table).await.unwrap();
        Some(Cloud { azurite, storage, container, queue, table })
    }

    /// What a data-management service gives out, with signatures that end after `minutes`.
    fn resources(&self, minutes: i64) -> Vec<(&'static str, String)> {
        let account = Account::parse(&self.azurite.connection_string()).unwrap();
        let until = Timestamp::now() + minutes.minutes();
        let given = |resource: Result<Resource, _>| resource.map(|resource: Resource| resource.with_sas().to_owned()).unwrap();
        vec![
            ("TempStorage", given(account.container("temp", Permissions::Client, until))),
            ("SecuredReadyForAggregationQueue", given(account.queue("ready", Permissions::Client, until))),
            ("IngestionsStatusTable", given(account.table("status", Permissions::Client, until))),
        ]
    }

    async fn blob(&self, blob: &UploadedBlob) -> Vec<u8> {
        let mut download = self.storage.get_blob(&self.container.with_sas_of(blob.blob.as_str())).await.unwrap();
        let mut bytes = Vec::new();
        while let Some(chunk) = download.chunk().await.unwrap() {
            bytes.extend_from_slice(&chunk);
        }
        let mut rows = Vec::new();
        flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut rows).unwrap();
        rows
    }

    async fn message(&self) -> Value {
        let messages = self.storage.get_messages(&self.queue, 32, Duration::from_secs(60)).await.unwrap();
        assert_eq!(messages.len(), 1);
        let json = base64::engine::general_purpose::STANDARD.decode(&messages[0].message_text).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    async fn set_status(&self, queued: &Queued, properties: Value) {
        let properties: Map<String, Value> = properties.as_object().unwrap().clone();
        self.storage.merge_entity(&self.table, &queued.partition, &queued.row, &properties).await.unwrap();
    }
}

#[tokio::test]
async fn a_batch_becomes_a_blob_a_message_and_a_status() {
    let Some(cloud) = Cloud::start().await else { return };
    let given = cloud.resources(60);
    let management = Management::start(move |_| given.clone()).await;
    let client = client(&management);
    let rows = rows(100_000);
    let blob = client.upload(&name(), source(rows.clone()).0).await.unwrap();
    assert_eq!((blob.raw_size, cloud.blob(&blob).await == rows), (rows.len() as u64, true));

    let what = Ingestion {
        mapping: Some("T_1".to_owned()),
        tags: vec!["ingest-by:5a".to_owned(), "drop-by:x".to_owned()],
        ingest_if_not_exists: vec!["5a".to_owned()],
        flush_immediately: true,
        ..Ingestion::new(BATCH, "Db", "T")
    };
    let queued = client.enqueue(&blob, &what).await.unwrap();
    let id = "5a5a5a5a-5a5a-5a5a-5a5a-5a5a5a5a5a5a";
    let mut message = cloud.message().await;
    let path = message["BlobPath"].take();
    let (address, signature) = path.as_str().unwrap().split_once('?').unwrap();
    assert_eq!((address, signature.contains("sig=")), (format!("{}/{}", cloud.container, name()).as_str(), true));
    let table = message["IngestionStatusInTable"]["TableConnectionString"].take();
    assert!(table.as_str().unwrap().starts_with(&format!("{}?", cloud.table)));
    let created: Timestamp = message["SourceMessageCreationTime"].take().as_str().unwrap().parse().unwrap();
    assert!(Timestamp::now().duration_since(created).as_secs().abs() < 60);
    // the fields of Microsoft's "Ingestion message internal structure" and of its clients
    let expected = json!({
        "Id": id, "BlobPath": null, "RawDataSize": rows.len(), "DatabaseName": "Db", "TableName": "T",
        "RetainBlobOnSuccess": true, "FlushImmediately": true, "ReportLevel": 2, "ReportMethod": 1, "SourceMessageCreationTime": null,
        "IngestionStatusInTable": {"TableConnectionString": null, "PartitionKey": id, "RowKey": queued.row},
        "AdditionalProperties": {
            "authorizationContext": IDENTITY, "format": "csv", "ignoreFirstRecord": false,
            "ingestionMappingReference": "T_1", "ingestionMappingType": "Csv",
            "tags": "[\"ingest-by:5a\",\"drop-by:x\"]", "ingestIfNotExists": "[\"5a\"]",
        },
    });
    assert_eq!(message, expected);

    assert_eq!(client.status(&queued).await.unwrap(), IngestionStatus::Pending);
    cloud.set_status(&queued, json!({"Status": "Succeeded"})).await;
    assert_eq!(client.status(&queued).await.unwrap(), IngestionStatus::Succeeded);
    assert_eq!(management.asked(), 1);
    // what is written down has no signatures, and is enough
    let written = serde_json::to_string(&(&blob, &queued)).unwrap();
    assert!(!written.contains("sig="), "{written}");
    let (_, queued): (UploadedBlob, Queued) = serde_json::from_str(&written).unwrap();
    assert_eq!(super::queued::client(&management).status(&queued).await.unwrap(), IngestionStatus::Succeeded);
}

#[tokio::test]
async fn an_uploaded_batch_uploaded_again_is_there_once() {
    let Some(cloud) = Cloud::start().await else { return };
    let given = cloud.resources(60);
    let management = Management::start(move |_| given.clone()).await;
    let client = client(&management);
    client.upload(&name(), source(rows(200_000)).0).await.unwrap();
    let blob = client.upload(&name(), source(b"1,a\n".to_vec()).0).await.unwrap();
    assert_eq!(cloud.blob(&blob).await, b"1,a\n");
}

#[tokio::test]
async fn signatures_that_have_ended_are_replaced_at_once_for_every_step() {
    let Some(cloud) = Cloud::start().await else { return };
    let (ended, good) = (cloud.resources(-1), cloud.resources(60));
    // each client gets signatures that have ended first
    let management = Management::start(move |before| if before % 2 == 0 { ended.clone() } else { good.clone() }).await;
    let (open, opened) = source(rows(10));
    let blob = client(&management).upload(&name(), open).await.unwrap();
    assert_eq!((management.asked(), opened.load(Ordering::SeqCst)), (2, 2));
    let queued = client(&management).enqueue(&blob, &Ingestion::new(BATCH, "Db", "T")).await.unwrap();
    assert_eq!(management.asked(), 4);
    assert_eq!(client(&management).status(&queued).await.unwrap(), IngestionStatus::Pending);
    assert_eq!(management.asked(), 6);
    // the message has the signature that is good
    let path = cloud.message().await["BlobPath"].as_str().unwrap().to_owned();
    cloud.storage.get_blob(&path).await.unwrap();
}

#[tokio::test]
async fn signatures_that_are_never_good_are_a_transient_failure() {
    let Some(cloud) = Cloud::start().await else { return };
    let ended = cloud.resources(-1);
    let management = Management::start(move |_| ended.clone()).await;
    let error = client(&management).upload(&name(), source(rows(10)).0).await.unwrap_err();
    assert!(error.is_transient() && error.delivery() == Delivery::NotExecuted, "{error}");
    assert!(!error.to_string().contains("sig="), "{error}");
    assert_eq!(management.asked(), 2, "asked anew once, not for ever");
}

#[tokio::test]
async fn an_account_that_is_away_gives_way_to_the_next() {
    let (Some(mut away), Some(there)) = (Cloud::start().await, Cloud::start().await) else { return };
    let given: Vec<_> = away.resources(60).into_iter().chain(there.resources(60)).collect();
    away.azurite.stop();
    let management = Management::start(move |_| given.clone()).await;
    let client = client(&management);
    let mut tried = 0;
    for _ in 0..4 {
        let (open, opened) = source(rows(1000));
        let blob = client.upload(&name(), open).await.unwrap();
        assert_eq!(there.blob(&blob).await, rows(1000));
        let queued = client.enqueue(&blob, &Ingestion::new(BATCH, "Db", "T")).await.unwrap();
        assert_eq!(client.status(&queued).await.unwrap(), IngestionStatus::Pending);
        tried += opened.load(Ordering::SeqCst);
    }
    assert_eq!(tried, 5, "the account that failed is asked once, then it comes last");
    assert_eq!(there.storage.get_messages(&there.queue, 32, Duration::from_secs(60)).await.unwrap().len(), 4);
}

#[tokio::test]
async fn throttling_is_waited_for_and_then_told_of() {
    let busy = Arc::new(AtomicUsize::new(1));
    let left = busy.clone();
    let sink = Sink::start(move |_, _| match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
        Ok(_) => 503,
        Err(_) => 201,
    })
    .await;
    let given = sink.resources();
    let management = Management::start(move |_| given.clone()).await;
    let client = client(&management);
    client.upload(&name(), source(rows(10)).0).await.unwrap();
    assert_eq!(sink.asked("comp=block&"), 2);
    busy.store(usize::MAX, Ordering::SeqCst);
    let error = client.upload(&name(), source(rows(10)).0).await.unwrap_err();
    let QueuedError::Storage(storage) = &error else { panic!("{error}") };
    assert_eq!((storage.code.as_str(), error.is_transient()), ("ServerBusy", true));
}

#[tokio::test]
async fn a_lost_answer_to_a_message_is_told_of_and_it_is_not_put_again() {
    // a failure midway says nothing about what was done
    let sink = Sink::start(|_, target| if target.contains("/messages") { 500 } else { 201 }).await;
    let given = sink.resources();
    let management = Management::start(move |_| given.clone()).await;
    let client = client(&management);
    let blob = client.upload(&name(), source(rows(10)).0).await.unwrap();
    let what = Ingestion::new(BATCH, "Db", "T");
    let tagged = Ingestion { ingest_if_not_exists: vec!["x".to_owned()], ..what.clone() };
    for (tries, what) in [what, tagged].into_iter().enumerate() {
        let error = client.enqueue(&blob, &what).await.unwrap_err();
        let QueuedError::MaybeQueued { queued, .. } = &error else { panic!("{error}") };
        assert!(error.is_transient() && error.delivery() == Delivery::Unknown);
        assert!(queued.table.ends_with("/account/status"));
        assert_eq!(sink.asked("/messages"), tries + 1);
    }
}

#[tokio::test]
async fn nothing_is_queued_without_a_status_row() {
    let sink = Sink::start(|_, target| if target.contains("/status") { 503 } else { 201 }).await;
    let given = sink.resources();
    let management = Management::start(move |_| given.clone()).await;
    let client = client(&management);
    let blob = client.upload(&name(), source(rows(10)).0).await.unwrap();
    let error = client.enqueue(&blob, &Ingestion::new(BATCH, "Db", "T")).await.unwrap_err();
    assert_eq!((error.is_transient(), error.delivery(), sink.asked("/messages")), (true, Delivery::NotExecuted, 0));
}

#[tokio::test]
async fn states_of_a_batch_and_rows_that_say_nothing() {
    let Some(cloud) = Cloud::start().await else { return };
    let given = cloud.resources(60);
    let management = Management::start(move |_| given.clone()).await;
    let client = client(&management);
    let blob = client.upload(&name(), source(rows(10)).0).await.unwrap();
    let queued = client.enqueue(&blob, &Ingestion::new(BATCH, "Db", "T")).await.unwrap();
    let failed = json!({"Status": "Failed", "FailureStatus": "Permanent", "ErrorCode": "BadRequest_EntityNotFound", "Details": "no T"});
    cloud.set_status(&queued, failed).await;
    let IngestionStatus::Failed(failure) = client.status(&queued).await.unwrap() else { panic!() };
    assert_eq!((failure.kind, failure.code.as_str()), (FailureKind::Permanent, "BadRequest_EntityNotFound"));
    cloud.set_status(&queued, json!({"Status": "Lost in space"})).await;
    let missing = Queued { row: "none".to_owned(), ..queued.clone() };
    for queued in [queued, missing] {
        let error = client.status(&queued).await.unwrap_err();
        assert!(matches!(error, QueuedError::Unreadable(_)) && error.is_transient(), "{error}");
    }
}

#[tokio::test]
async fn a_message_that_is_skipped_for_its_tag_is_as_the_one_before_it() {
    let Some(cloud) = Cloud::start().await else { return };
    let given = cloud.resources(60);
    let management = Management::start(move |_| given.clone()).await;
    let client = client(&management);
    let blob = client.upload(&name(), source(rows(10)).0).await.unwrap();
    let what = Ingestion { ingest_if_not_exists: vec![BATCH.to_string()], ..Ingestion::new(BATCH, "Db", "T") };
    let (first, second) = (client.enqueue(&blob, &what).await.unwrap(), client.enqueue(&blob, &what).await.unwrap());
    let skipped = json!({"Status": "Failed", "FailureStatus": "Permanent", "ErrorCode": "Skipped_IngestByTagAlreadyExists"});
    cloud.set_status(&second, skipped).await;
    assert_eq!(client.status(&second).await.unwrap(), IngestionStatus::AlreadyIngested { whole: false });
    cloud.set_status(&first, json!({"Status": "PartiallySucceeded", "Details": "some"})).await;
    let IngestionStatus::PartiallySucceeded(failure) = client.status(&second).await.unwrap() else { panic!() };
    assert_eq!(failure.details, "some");
    cloud.set_status(&first, json!({"Status": "Succeeded"})).await;
    assert_eq!(client.status(&second).await.unwrap(), IngestionStatus::AlreadyIngested { whole: true });
}

#[tokio::test]
async fn storage_that_is_no_longer_given_out() {
    let sink = Sink::start(|_, _| 201).await;
    let given = sink.resources();
    let management = Management::start(move |_| given.clone()).await;
    let client = client(&management);
    let blob = client.upload(&name(), source(rows(10)).0).await.unwrap();
    let elsewhere = UploadedBlob { container: "https://other.blob.core.windows.net/temp".to_owned(), ..blob };
    let error = client.enqueue(&elsewhere, &Ingestion::new(BATCH, "Db", "T")).await.unwrap_err();
    assert!(matches!(&error, QueuedError::Gone(_)) && error.is_transient(), "{error}");
    let nothing = Management::start(|_| Vec::new()).await;
    let error = super::queued::client(&nothing).upload(&name(), source(rows(10)).0).await.unwrap_err();
    assert!(matches!(error, QueuedError::NoResource(_)), "{error}");
}

#[tokio::test]
async fn a_source_that_breaks_makes_no_blob() {
    let sink = Sink::start(|_, _| 201).await;
    let given = sink.resources();
    let management = Management::start(move |_| given.clone()).await;
    let client = client(&management);
    let breaks = || Ok(io::Cursor::new(rows(100_000)).chain(Breaks));
    let error = client.upload(&name(), breaks).await.unwrap_err();
    assert!(matches!(&error, QueuedError::Source(_)) && !error.is_transient(), "{error}");
    assert!(sink.asked("comp=block&") > 0);
    assert_eq!(sink.asked("comp=blocklist"), 0);
    let missing = || std::fs::File::open("/nonexistent");
    assert!(matches!(client.upload(&name(), missing).await, Err(QueuedError::Source(_))));
}

struct Breaks;

impl Read for Breaks {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("a bad block"))
    }
}

/// 256 MiB, of which a quarter does not compress, go through a few megabytes.
#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_whatever_the_size() {
    const SIZE: u64 = 256 << 20;
    let sink = Sink::start(|_, _| 201).await;
    let given = sink.resources();
    let management = Management::start(move |_| given.clone()).await;
    let client = QueuedClient::new(Client::new(&management.url).unwrap()).unwrap();
    client.upload(&name(), source(rows(10)).0).await.unwrap();
    let before = peak_memory();
    let blob = client.upload(&name(), || Ok(Noise::new().take(SIZE))).await.unwrap();
    let grown = peak_memory() - before;
    assert_eq!(blob.raw_size, SIZE);
    assert!(sink.bytes() >= SIZE / 4, "{} bytes arrived", sink.bytes());
    assert!(grown < 40 << 20, "memory grew by {} MiB", grown >> 20);
}

/// For ever 64 KiB without a pattern, then 192 KiB of zeros, for which an unoptimised build takes less time.
struct Noise {
    pattern: Vec<u8>,
    at: usize,
}

impl Noise {
    fn new() -> Noise {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let mut pattern: Vec<u8> = (0..8192).flat_map(|_| next()).collect();
        pattern.resize(256 << 10, 0);
        Noise { pattern, at: 0 }
    }
}

impl Read for Noise {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let rest = &self.pattern[self.at..];
        let taken = rest.len().min(out.len());
        out[..taken].copy_from_slice(&rest[..taken]);
        self.at = (self.at + taken) % self.pattern.len();
        Ok(taken)
    }
}

fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}
