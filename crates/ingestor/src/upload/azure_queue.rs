//! The queue of Azure Data Explorer, and of kustd with it: `kusto`'s client, with what is written down as JSON.

use std::fmt::Display;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kusto::queued::{BlobName, Failure, FailureKind, IngestionStatus, Queued, QueuedClient, QueuedError, UploadedBlob};
use kusto::{BatchId, Client};
use serde_json::Value;

use super::passage::Status;
use super::plan::Batch;
use super::queue::{Message, Queue, QueueError, Rows};

/// See the module.
pub(super) struct AzureQueue {
    client: QueuedClient,
}

impl AzureQueue {
    /// `management` is a client of the data-management endpoint.
    pub(super) fn new(management: Client) -> Result<AzureQueue, QueueError> {
        Ok(AzureQueue { client: QueuedClient::new(management)? })
    }

    async fn put(&self, batch: &Batch, rows: Rows) -> Result<(Value, u64), QueueError> {
        let name = BlobName::of_batch(&batch.table.database, &batch.table.table, BatchId(batch.id));
        let blob = self.client.upload(&name, move || Ok(rows.open())).await?;
        Ok((written(&blob)?, blob.raw_size))
    }

    async fn send(&self, message: Message<'_>) -> Result<Value, QueueError> {
        let Message { blob, batch, mapping, tagged } = message;
        let blob: UploadedBlob = read(blob)?;
        let id = BatchId(batch.id);
        let mut what = kusto::queued::Ingestion::new(id, &batch.table.database, &batch.table.table);
        what.mapping = Some(mapping);
        if tagged {
            what.tags = vec![format!("ingest-by:{id}")];
            what.ingest_if_not_exists = vec![id.to_string()];
        }
        written(&self.client.enqueue(&blob, &what).await?)
    }

    async fn look(&self, receipt: &Value) -> Result<Status, QueueError> {
        let queued: Queued = read(receipt)?;
        Ok(status(self.client.status(&queued).await?))
    }
}

impl Queue for AzureQueue {
    fn upload<'a>(&'a self, batch: &'a Batch, rows: Rows) -> BoxFuture<'a, Result<(Value, u64), QueueError>> {
        self.put(batch, rows).boxed()
    }

    fn enqueue<'a>(&'a self, message: Message<'a>) -> BoxFuture<'a, Result<Value, QueueError>> {
        self.send(message).boxed()
    }

    fn status<'a>(&'a self, receipt: &'a Value) -> BoxFuture<'a, Result<Status, QueueError>> {
        self.look(receipt).boxed()
    }
}

fn status(status: IngestionStatus) -> Status {
    match status {
        IngestionStatus::Pending => Status::Pending("Pending".to_owned()),
        IngestionStatus::Queued => Status::Pending("Queued".to_owned()),
        IngestionStatus::Succeeded => Status::Succeeded,
        IngestionStatus::AlreadyIngested { whole } => Status::AlreadyIngested { whole },
        IngestionStatus::Skipped(details) => Status::Skipped(details),
        IngestionStatus::PartiallySucceeded(Failure { code, details, .. }) => Status::PartiallySucceeded(format!("{code}: {details}")),
        IngestionStatus::Failed(Failure { kind, code, details, from_update_policy }) => {
            // Whoever wrote the policy can put it right.
            let permanent = kind == FailureKind::Permanent && !from_update_policy;
            Status::Failed { permanent, code, details }
        }
    }
}

fn written(value: &impl serde::Serialize) -> Result<Value, QueueError> {
    serde_json::to_value(value).map_err(|error| unusable("writing down what the service gave", error))
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, QueueError> {
    serde_json::from_value(value.clone()).map_err(|error| QueueError::Gone(format!("the record of the batch cannot be read: {error}")))
}

fn unusable(doing: &str, error: impl Display) -> QueueError {
    QueueError::Storage { reason: format!("{doing}: {error}"), retry_after: None }
}

impl From<QueuedError> for QueueError {
    fn from(error: QueuedError) -> QueueError {
        let retry_after = error.retry_after();
        match error {
            QueuedError::Service(error) => QueueError::Service(error),
            QueuedError::Source(_) => QueueError::Rows,
            QueuedError::MaybeQueued { queued, source } => match written(&queued) {
                Ok(receipt) => QueueError::MaybeQueued { receipt, reason: source.to_string() },
                Err(error) => error,
            },
            gone @ QueuedError::Gone(_) => QueueError::Gone(gone.to_string()),
            other => QueueError::Storage { reason: other.to_string(), retry_after },
        }
    }
}
