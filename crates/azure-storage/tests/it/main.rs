//! Every operation against Azurite, Microsoft's emulator, which checks signatures as Azure does.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use azure_storage::{Account, Delivery, Permissions, Resource, Retry, Storage};
use azure_testing::azurite::Azurite;
use bytes::Bytes;
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Map, Value, json};

fn storage() -> Storage {
    let retry = Retry { attempts: 2, first_pause: Duration::from_millis(1), longest_pause: Duration::from_millis(2) };
    Storage::new(retry, None).unwrap()
}

fn account(azurite: &Azurite) -> Account {
    Account::parse(&azurite.connection_string()).unwrap()
}

fn later() -> Timestamp {
    Timestamp::now() + 1.hour()
}

fn row(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

async fn text(storage: &Storage, url: &str) -> String {
    let mut download = storage.get_blob(url).await.unwrap();
    let mut all = Vec::new();
    while let Some(chunk) = download.chunk().await.unwrap() {
        all.extend_from_slice(&chunk);
    }
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn blobs_are_made_of_blocks_replaced_read_and_deleted() {
    let Some(azurite) = Azurite::start() else { return };
    let storage = storage();
    let container = account(&azurite).container("temp", Permissions::All, later()).unwrap();
    for _ in 0..2 {
        storage.create_container(&container).await.unwrap();
    }
    let blob = "Db__T__1.csv.gz";
    let put = async |blocks: &[&'static str]| {
        for (number, block) in blocks.iter().enumerate().rev() {
            storage.put_block(&container, blob, number as u32, Bytes::from_static(block.as_bytes())).await.unwrap();
        }
        storage.put_block_list(&container, blob, blocks.len() as u32).await.unwrap();
    };
    put(&["one,", "two,", "three"]).await;
    let url = container.with_sas_of(blob);
    assert_eq!(text(&storage, &url).await, "one,two,three");
    put(&["again"]).await;
    assert_eq!(text(&storage, &url).await, "again");
    for _ in 0..2 {
        storage.delete_blob(&url).await.unwrap();
    }
    let error = storage.get_blob(&url).await.unwrap_err();
    assert!(error.is_not_found() && !error.is_transient(), "{error}");
    assert_eq!(error.code, "BlobNotFound");
    assert!(!error.to_string().contains("sig"), "{error}");
}

#[tokio::test]
async fn messages_are_hidden_while_they_are_worked_on_and_then_deleted() {
    let Some(azurite) = Azurite::start() else { return };
    let storage = storage();
    let queue = account(&azurite).queue("ready", Permissions::All, later()).unwrap();
    storage.create_queue(&queue).await.unwrap();
    assert_eq!(storage.get_messages(&queue, 32, Duration::from_secs(30)).await.unwrap(), []);
    for text in ["Zmlyc3Q=", "c2Vjb25k"] {
        storage.put_message(&queue, text, true).await.unwrap();
    }
    let messages = storage.get_messages(&queue, 32, Duration::from_secs(30)).await.unwrap();
    let texts: Vec<_> = messages.iter().map(|message| (message.message_text.as_str(), message.dequeue_count)).collect();
    assert_eq!(texts, [("Zmlyc3Q=", 1), ("c2Vjb25k", 1)]);
    assert_eq!(storage.get_messages(&queue, 32, Duration::from_secs(30)).await.unwrap(), [], "they are hidden");
    for _ in 0..2 {
        storage.delete_message(&queue, &messages[0]).await.unwrap();
    }
    let mut second = messages[1].clone();
    storage.hide_message(&queue, &mut second, Duration::ZERO).await.unwrap();
    let again = storage.get_messages(&queue, 32, Duration::from_secs(30)).await.unwrap();
    assert_eq!((again[0].message_text.as_str(), again[0].dequeue_count), ("c2Vjb25k", 2));
    let late = storage.hide_message(&queue, &mut messages[1].clone(), Duration::ZERO).await.unwrap_err();
    assert!(late.is_not_found() || late.status == Some(400), "{late}");
    storage.put_message(&queue, "<no> & base64", true).await.unwrap();
    let odd = storage.get_messages(&queue, 32, Duration::from_secs(30)).await.unwrap();
    assert_eq!(odd[0].message_text, "<no> & base64");
    assert!(!format!("{:?}", messages[1]).contains("c2Vj"));
    let error = storage.put_message(&queue, &"a".repeat((64 << 10) + 1), true).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.delivery), ("MESSAGE", Delivery::NotExecuted));
}

#[tokio::test]
async fn rows_are_added_changed_and_read() {
    let Some(azurite) = Azurite::start() else { return };
    let storage = storage();
    let table = account(&azurite).table("status", Permissions::All, later()).unwrap();
    for _ in 0..2 {
        storage.create_table(&table).await.unwrap();
    }
    let pending = row(json!({"PartitionKey": "p", "RowKey": "it's", "Status": "Pending", "Table": "T"}));
    storage.insert_entity(&table, &pending).await.unwrap();
    assert!(storage.insert_entity(&table, &pending).await.unwrap_err().is_conflict());
    storage.merge_entity(&table, "p", "it's", &row(json!({"Status": "Failed", "Details": "ü"}))).await.unwrap();
    let read = storage.get_entity(&table, "p", "it's").await.unwrap();
    assert_eq!((&read["Status"], &read["Table"], &read["Details"]), (&json!("Failed"), &json!("T"), &json!("ü")));
    assert!(storage.get_entity(&table, "p", "other").await.unwrap_err().is_not_found());
    storage.merge_entity(&table, "p", "new", &row(json!({"Status": "Succeeded"}))).await.unwrap();
    assert_eq!(storage.get_entity(&table, "p", "new").await.unwrap()["Status"], "Succeeded");

    storage.merge_entity(&table, "p's", "one", &row(json!({"Status": "Skipped"}))).await.unwrap();
    for (partition, expected) in [("p", &["Failed", "Succeeded"][..]), ("p's", &["Skipped"]), ("none", &[])] {
        let rows = storage.get_partition(&table, partition).await.unwrap();
        assert_eq!(rows.iter().map(|row| &row["Status"]).collect::<Vec<_>>(), expected, "{partition}");
    }
}

#[tokio::test]
async fn signatures_that_have_ended_or_do_not_allow_it_are_refused() {
    let Some(azurite) = Azurite::start() else { return };
    let (storage, account) = (storage(), account(&azurite));
    let good = account.container("temp", Permissions::All, later()).unwrap();
    storage.create_container(&good).await.unwrap();
    let refused = async |container: &Resource| {
        let error = storage.put_block(container, "b", 0, Bytes::from_static(b"x")).await.unwrap_err();
        assert!(error.is_refusal_of_signature() && error.is_transient(), "{error}");
        assert_eq!(error.delivery, Delivery::NotExecuted);
    };
    refused(&account.container("temp", Permissions::All, Timestamp::now() - 1.minute()).unwrap()).await;
    refused(&Resource::parse(&good.with_sas().replace("sig=", "sig=A")).unwrap()).await;
    let client = account.container("temp", Permissions::Client, later()).unwrap();
    storage.put_block(&client, "b", 0, Bytes::from_static(b"x")).await.unwrap();
    storage.put_block_list(&client, "b", 1).await.unwrap();
    assert!(storage.delete_blob(&client.with_sas_of("b")).await.unwrap_err().is_refusal_of_signature());
}

#[tokio::test]
async fn an_account_that_is_away_is_a_transient_failure() {
    let Some(mut azurite) = Azurite::start() else { return };
    let container = account(&azurite).container("temp", Permissions::All, later()).unwrap();
    azurite.stop();
    let error = storage().put_block(&container, "b", 0, Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.delivery, error.is_transient()), ("CONNECT", Delivery::NotExecuted, true));
    assert!(!error.to_string().contains("sig"), "{error}");
}

#[test]
fn connection_strings() {
    let account =
        Account::parse("DefaultEndpointsProtocol=https;AccountName=abc;AccountKey=c2VjcmV0;EndpointSuffix=core.windows.net").unwrap();
    let queue = account.queue("q", Permissions::Client, later()).unwrap();
    assert_eq!((queue.address().as_str(), queue.account().as_str()), ("https://abc.queue.core.windows.net/q", "abc"));
    for bad in
        ["", "AccountName=a", "AccountKey=c2VjcmV0", "AccountName=a;AccountKey=SECRET!", "AccountName=a;AccountKey=c2VjcmV0;BlobEndpoint=x"]
    {
        let error = Account::parse(bad).unwrap_err();
        assert!(!error.to_string().contains("SECRET"), "{error}");
    }
    assert!(!format!("{account:?}").contains("c2VjcmV0"));
}
