//! The message that tells the service of a blob.
//!
//! Names and numbers are those of Microsoft's page "How to ingest data with the REST API" and of its clients.

use std::fmt;

use azure_storage::Resource;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::client::{BatchId, Format};
use crate::queued::upload::UploadedBlob;

/// `ReportLevel`: failures and successes.
const REPORT_ALL: u8 = 2;
/// `ReportMethod`: the status table.
const REPORT_TO_TABLE: u8 = 1;

/// What is to become of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingestion {
    /// The batch, which becomes the id of the message. kustd remembers it: the same batch again changes nothing.
    pub batch: BatchId,
    /// The database.
    pub database: String,
    /// The table.
    pub table: String,
    /// The format.
    pub format: Format,
    /// Name of an ingestion mapping of the table.
    pub mapping: Option<String>,
    /// Tags of the extent, prefixes included: `ingest-by:x`, `drop-by:y`.
    pub tags: Vec<String>,
    /// Values without the prefix `ingest-by:`; the blob is skipped if the table has an extent with one of them. With this,
    /// a message may be queued twice, and is after a lost answer.
    pub ingest_if_not_exists: Vec<String>,
    /// Whether to ingest now rather than with others.
    pub flush_immediately: bool,
}

impl Ingestion {
    /// CSV by position, with no tags.
    pub fn new(batch: BatchId, database: &str, table: &str) -> Ingestion {
        Ingestion {
            batch,
            database: database.to_owned(),
            table: table.to_owned(),
            format: Format::Csv,
            mapping: None,
            tags: Vec::new(),
            ingest_if_not_exists: Vec::new(),
            flush_immediately: false,
        }
    }
}

/// A message that is in the queue: where to ask for its status. Holds no secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// The address of the status table.
    pub table: String,
    /// The row's partition: the batch.
    pub partition: String,
    /// The row: this try.
    pub row: String,
}

impl fmt::Debug for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queued({}, {}/{})", self.table, self.partition, self.row)
    }
}

impl Queued {
    /// A new row, so that every try has a status of its own.
    pub(crate) fn new(table: &Resource, batch: BatchId) -> Queued {
        let partition = uuid::Uuid::from_bytes(batch.0).to_string();
        Queued { table: table.address(), partition, row: uuid::Uuid::new_v4().to_string() }
    }
}

/// The status row as it begins.
pub(crate) fn pending(queued: &Queued, blob: &UploadedBlob, what: &Ingestion, now: Timestamp) -> Map<String, Value> {
    let properties = json!({
        "PartitionKey": queued.partition,
        "RowKey": queued.row,
        "Status": "Pending",
        "IngestionSourceId": queued.partition,
        "IngestionSourcePath": format!("{}/{}", blob.container, blob.blob),
        "Database": what.database,
        "Table": what.table,
        "UpdatedOn": now.to_string(),
        "FailureStatus": "Unknown",
        "ErrorCode": "Unknown",
        "Details": "",
    });
    match properties {
        Value::Object(properties) => properties,
        _ => Map::new(),
    }
}

/// The message, ready for the queue: a secret, as it has signatures and the identity token.
pub(crate) fn encode(
    queued: &Queued,
    container: &Resource,
    blob: &UploadedBlob,
    table: &Resource,
    what: &Ingestion,
    identity: &str,
    now: Timestamp,
) -> String {
    let (format, mapping_type) = match what.format {
        Format::Csv => ("csv", "Csv"),
        Format::MultiJson => ("multijson", "Json"),
    };
    let mut more = json!({ "authorizationContext": identity, "format": format, "ignoreFirstRecord": false });
    if let Some(mapping) = &what.mapping {
        more["ingestionMappingReference"] = json!(mapping);
        more["ingestionMappingType"] = json!(mapping_type);
    }
    // lists are JSON in a string
    if !what.tags.is_empty() {
        more["tags"] = json!(json!(what.tags).to_string());
    }
    if !what.ingest_if_not_exists.is_empty() {
        more["ingestIfNotExists"] = json!(json!(what.ingest_if_not_exists).to_string());
    }
    let message = json!({
        "Id": queued.partition,
        "BlobPath": container.with_sas_of(blob.blob.as_str()),
        "RawDataSize": blob.raw_size,
        "DatabaseName": what.database,
        "TableName": what.table,
        // deleted, a repeated message would fail for ever where its first one succeeded
        "RetainBlobOnSuccess": true,
        "FlushImmediately": what.flush_immediately,
        "ReportLevel": REPORT_ALL,
        "ReportMethod": REPORT_TO_TABLE,
        "SourceMessageCreationTime": now.to_string(),
        "IngestionStatusInTable": {
            "TableConnectionString": table.with_sas(),
            "PartitionKey": queued.partition,
            "RowKey": queued.row,
        },
        "AdditionalProperties": more,
    });
    STANDARD.encode(message.to_string())
}
