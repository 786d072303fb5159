//! The client: which account, with which signature, and what to do when one fails.

use std::fmt;
use std::sync::Arc;

use azure_storage::{Resource, Retry, Storage};
use jiff::Timestamp;

use crate::client::Client;
use crate::queued::accounts::Accounts;
use crate::queued::cached::Cached;
use crate::queued::error::QueuedError;
use crate::queued::message::{self, Ingestion, Queued};
use crate::queued::resources::{self, Resources};
use crate::queued::source::Source;
use crate::queued::status::{self, IngestionStatus};
use crate::queued::upload::{self, BlobName, UploadedBlob};

/// Containers, queues or tables that are tried for one step.
const MOST_TRIES: usize = 3;

/// Settings that few need.
#[derive(Clone, Debug)]
pub struct QueuedOptions {
    /// How patiently a request to one account is repeated before the next account's turn.
    pub retry: Retry,
    /// Size of a block; four of them are in memory for every upload under way.
    pub block_bytes: usize,
    /// Certificates of authorities, in PEM, for storage in place of the system's.
    pub authorities: Option<Vec<u8>>,
}

impl Default for QueuedOptions {
    fn default() -> QueuedOptions {
        QueuedOptions { retry: Retry::default(), block_bytes: 4 << 20, authorities: None }
    }
}

/// Queued ingestion into one cluster. Cheap to clone; clones share what is known of its storage.
#[derive(Clone)]
pub struct QueuedClient {
    inner: Arc<Inner>,
}

struct Inner {
    management: Client,
    storage: Storage,
    block_bytes: usize,
    resources: Cached<Resources>,
    identity: Cached<String>,
    accounts: Accounts,
}

impl fmt::Debug for QueuedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueuedClient({})", self.inner.management.endpoint())
    }
}

impl QueuedClient {
    /// `management` is a client of the cluster's data-management endpoint: see [`crate::Endpoint::data_management`].
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(management: Client) -> Result<QueuedClient, QueuedError> {
        QueuedClient::with(management, QueuedOptions::default())
    }

    /// [`QueuedClient::new`] with settings.
    ///
    /// # Errors
    /// For unusable certificates.
    pub fn with(management: Client, options: QueuedOptions) -> Result<QueuedClient, QueuedError> {
        let storage = Storage::new(options.retry, options.authorities.as_deref())?;
        Ok(QueuedClient {
            inner: Arc::new(Inner {
                management,
                storage,
                block_bytes: options.block_bytes.max(64 << 10),
                resources: Cached::default(),
                identity: Cached::default(),
                accounts: Accounts::default(),
            }),
        })
    }

    /// Uploads what `source` gives, compressed on the way, as a blob of that name. To be recorded: with the result,
    /// [`QueuedClient::enqueue`] works also after a restart.
    ///
    /// # Errors
    /// See [`QueuedError`]. Nothing is queued yet; the same upload again replaces what there is.
    pub async fn upload(&self, blob: &BlobName, source: impl Source) -> Result<UploadedBlob, QueuedError> {
        let Inner { storage, block_bytes, .. } = &*self.inner;
        let source: Arc<dyn Source> = Arc::new(source);
        self.in_any(
            "containers (TempStorage)",
            |resources| &resources.containers,
            |container| {
                let source = source.clone();
                async move { upload::put(storage, &container, blob, source, *block_bytes).await }
            },
        )
        .await
    }

    /// Tells the service of a blob: a row in the status table first, then the message. To be recorded: with the result,
    /// [`QueuedClient::status`] works also after a restart.
    ///
    /// # Errors
    /// See [`QueuedError`]. After [`QueuedError::MaybeQueued`] the message may be there, after others it is not. It is not put
    /// again here, not even with `ingest_if_not_exists`: both would report to the same row, and the later one that it was
    /// skipped.
    pub async fn enqueue(&self, blob: &UploadedBlob, what: &Ingestion) -> Result<Queued, QueuedError> {
        let Inner { storage, management, identity, .. } = &*self.inner;
        let identity = identity.get(async || resources::ask_for_identity(management).await).await?;
        let now = Timestamp::now();
        let queued = self
            .in_any(
                "status tables (IngestionsStatusTable)",
                |resources| &resources.status_tables,
                |table| async move {
                    let queued = Queued::new(&table, what.batch);
                    match storage.insert_entity(&table, &message::pending(&queued, blob, what, now)).await {
                        // the row is new by its name: a lost answer was ours
                        Err(error) if !error.is_conflict() => Err(error.into()),
                        _ => Ok(queued),
                    }
                },
            )
            .await?;
        let put = self.in_any(
            "queues (SecuredReadyForAggregationQueue)",
            |resources| &resources.queues,
            |queue| {
                let (queued, identity) = (&queued, &identity);
                async move {
                    // looked up for each try, since a refused signature of the queue brings new ones of all
                    let resources = self.resources().await?;
                    let container = find(&resources.containers, &blob.container)?;
                    let table = find(&resources.status_tables, &queued.table)?;
                    let text = message::encode(queued, container, blob, table, what, identity, now);
                    let put = storage.put_message(&queue, &text, true).await;
                    put.map_err(|source| match source.delivery {
                        azure_storage::Delivery::Unknown => QueuedError::MaybeQueued { queued: Box::new(queued.clone()), source },
                        _ => QueuedError::Storage(source),
                    })
                }
            },
        );
        put.await?;
        Ok(queued)
    }

    /// What became of a message. Where it was skipped for the batch's tag, the batch's other messages are looked at.
    ///
    /// # Errors
    /// See [`QueuedError`]; [`QueuedError::Unreadable`] when the row is missing or makes no sense, which says nothing about
    /// the batch.
    pub async fn status(&self, queued: &Queued) -> Result<IngestionStatus, QueuedError> {
        let mut resources = self.resources().await?;
        let mut renewed = false;
        loop {
            let read = match find(&resources.status_tables, &queued.table) {
                Ok(table) => self.inner.storage.get_entity(table, &queued.partition, &queued.row).await.map_err(QueuedError::from),
                Err(error) => Err(error),
            };
            match read {
                Ok(row) => match status::read(&row)? {
                    IngestionStatus::AlreadyIngested { .. } => return self.of_earlier(&resources, &queued.partition).await,
                    status => return Ok(status),
                },
                Err(QueuedError::Storage(error)) if error.is_not_found() => {
                    return Err(QueuedError::Unreadable(format!("there is no such row: {error}")));
                }
                Err(error) if !renewed && (error.is_refusal_of_signature() || matches!(error, QueuedError::Gone(_))) => {
                    resources = self.renewed_resources(&resources).await?;
                    renewed = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A message is told of by any of the service's tables.
    async fn of_earlier(&self, resources: &Resources, batch: &str) -> Result<IngestionStatus, QueuedError> {
        let mut rows = Vec::new();
        for table in &resources.status_tables {
            match self.inner.storage.get_partition(table, batch).await {
                Ok(found) => rows.extend(found),
                Err(error) if error.is_refusal_of_signature() || error.is_not_found() => {
                    tracing::warn!(%table, %error, batch, "it cannot be seen which message of a batch was ingested");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(status::of_earlier(&rows))
    }

    /// Does `work` with one of the service's resources, the next one if it fails, and with new resources if the signature
    /// was refused or what was wanted is gone.
    async fn in_any<T, F: Future<Output = Result<T, QueuedError>>>(
        &self,
        what: &'static str,
        pick: fn(&Resources) -> &Vec<Resource>,
        work: impl Fn(Resource) -> F,
    ) -> Result<T, QueuedError> {
        let Inner { accounts, .. } = &*self.inner;
        let mut resources = self.resources().await?;
        let mut renewed = false;
        loop {
            let mut failure = QueuedError::NoResource(what);
            for resource in accounts.order(pick(&resources)).into_iter().take(MOST_TRIES) {
                let account = resource.account();
                match work(resource).await {
                    Ok(done) => {
                        accounts.report(&account, true);
                        return Ok(done);
                    }
                    Err(error @ QueuedError::Storage(_)) => failure = error,
                    Err(error) => {
                        failure = error;
                        break;
                    }
                }
                if failure.is_refusal_of_signature() && !renewed {
                    break;
                }
                accounts.report(&account, false);
                tracing::warn!(error = %failure, account, "a storage account failed; the next one is tried");
            }
            let stale = failure.is_refusal_of_signature() || matches!(failure, QueuedError::Gone(_) | QueuedError::NoResource(_));
            if renewed || !stale {
                return Err(failure);
            }
            tracing::info!(error = %failure, "new ingestion resources are asked for");
            resources = self.renewed_resources(&resources).await?;
            renewed = true;
        }
    }

    async fn resources(&self) -> Result<Arc<Resources>, QueuedError> {
        let Inner { resources, management, .. } = &*self.inner;
        Ok(resources.get(async || Resources::ask(management).await).await?)
    }

    async fn renewed_resources(&self, stale: &Arc<Resources>) -> Result<Arc<Resources>, QueuedError> {
        let Inner { resources, management, .. } = &*self.inner;
        Ok(resources.renewed(stale, async || Resources::ask(management).await).await?)
    }
}

/// The resource of that address, with its present signature.
fn find<'a>(resources: &'a [Resource], address: &str) -> Result<&'a Resource, QueuedError> {
    resources.iter().find(|resource| resource.address() == address).ok_or_else(|| QueuedError::Gone(address.to_owned()))
}
