//! Telling clients what became of their messages: the status row, the queues of successes and failures, and
//! `.show ingestion failures`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::ingest::Failed;
use super::message::{Message, ReportLevel};
use super::{IngestionFailure, IngestionStorage};
use crate::service::Kustd;
use crate::text;

/// Details are cut to this, so that a report stays a message.
const LONGEST_DETAILS: usize = 8 << 10;

/// How a message ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum End<'a> {
    Succeeded,
    /// With the reason, and whether the same message fails again.
    Failed(&'a Failed, Kind),
}

/// Kusto's `FailureStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Permanent,
    Exhausted,
}

/// Tells of the end, as far as the client wants to hear of it. `account` is the one whose queue the message came from.
pub(super) async fn tell(
    kustd: &Kustd,
    storage: &IngestionStorage,
    account: usize,
    message: &Message,
    end: End<'_>,
) -> Result<(), azure_storage::Error> {
    let operation = Uuid::new_v4().to_string();
    if let End::Failed(why, kind) = end {
        remember(kustd, message, &operation, why, kind);
    }
    let wanted = match end {
        End::Succeeded => message.report == ReportLevel::All,
        End::Failed(..) => message.report != ReportLevel::Nothing,
    };
    if !wanted {
        return Ok(());
    }
    let now = text::datetime_text(kustd.now());
    let shares = storage.all_shares()?;
    if let Some(row) = &message.status {
        // only our own: the address comes from outside
        match shares.iter().find(|share| share.status.address() == row.table) {
            Some(share) => {
                let properties = status_properties(message, &operation, &now, end);
                storage.requests.merge_entity(&share.status, &row.partition, &row.row, &properties).await?;
            }
            None => {
                tracing::warn!(id = %message.id, table = row.table, "a status table is not that of .get ingestion resources; nothing is written")
            }
        }
    }
    if message.to_queue
        && let Some(share) = shares.get(account)
    {
        let (queue, report) = match end {
            End::Succeeded => (&share.succeeded, success(message, &operation, &now)),
            End::Failed(why, kind) => (&share.failed, failure(message, &operation, &now, why, kind)),
        };
        storage.requests.put_message(queue, &STANDARD.encode(report.to_string()), false).await?;
    }
    Ok(())
}

fn remember(kustd: &Kustd, message: &Message, operation: &str, why: &Failed, kind: Kind) {
    tracing::warn!(
        id = %message.id, database = message.database, table = message.table, code = why.code, details = why.details,
        "a queued ingestion failed for good"
    );
    kustd.failures.put(IngestionFailure {
        operation: operation.to_owned(),
        database: message.database.clone(),
        table: message.table.clone(),
        failed: kustd.now(),
        source: message.source().to_owned(),
        details: why.details.clone(),
        permanent: kind == Kind::Permanent,
        code: why.code.clone(),
        from_update_policy: why.from_update_policy,
    });
}

/// The columns of Kusto's status table that the service writes.
fn status_properties(message: &Message, operation: &str, now: &str, end: End<'_>) -> Map<String, Value> {
    let mut properties = Map::new();
    let mut put = |name: &str, value: Value| properties.insert(name.to_owned(), value);
    put("IngestionSourceId", json!(message.id.to_string()));
    put("IngestionSourcePath", json!(message.source()));
    put("Database", json!(message.database));
    put("Table", json!(message.table));
    put("UpdatedOn", json!(now));
    put("OperationId", json!(operation));
    put("ActivityId", json!(operation));
    match end {
        End::Succeeded => {
            put("Status", json!("Succeeded"));
        }
        End::Failed(why, kind) => {
            put("Status", json!("Failed"));
            put("FailureStatus", json!(name(kind)));
            put("ErrorCode", json!(why.code));
            put("Details", json!(shorten(&why.details)));
            put("OriginatesFromUpdatePolicy", json!(why.from_update_policy));
        }
    }
    properties
}

fn success(message: &Message, operation: &str, now: &str) -> Value {
    json!({
        "OperationId": operation,
        "Database": message.database,
        "Table": message.table,
        "SucceededOn": now,
        "IngestionSourceId": message.id.to_string(),
        "IngestionSourcePath": message.source(),
        "RootActivityId": operation,
    })
}

/// The "ingestion failure message structure" of Microsoft's documentation.
fn failure(message: &Message, operation: &str, now: &str, why: &Failed, kind: Kind) -> Value {
    json!({
        "OperationId": operation,
        "Database": message.database,
        "Table": message.table,
        "FailedOn": now,
        "IngestionSourceId": message.id.to_string(),
        "IngestionSourcePath": message.source(),
        "Details": shorten(&why.details),
        "ErrorCode": why.code,
        "FailureStatus": name(kind),
        "RootActivityId": operation,
        "OriginatesFromUpdatePolicy": why.from_update_policy,
        "ShouldRetry": kind == Kind::Exhausted,
    })
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Permanent => "Permanent",
        Kind::Exhausted => "Exhausted",
    }
}

fn shorten(details: &str) -> &str {
    details.get(..details.floor_char_boundary(LONGEST_DETAILS)).unwrap_or_default()
}
