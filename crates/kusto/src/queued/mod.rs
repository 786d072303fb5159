//! Queued ingestion of Azure Data Explorer: a batch of rows becomes a blob in the service's own storage, a message in its
//! queue tells of it, and a row of its status table says in the end what became of it.
//!
//! ```no_run
//! # use kusto::{BatchId, Client, Endpoint};
//! # use kusto::queued::{BlobName, Ingestion, QueuedClient};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Endpoint::parse("https://cluster.region.kusto.windows.net")?;
//! let management = Client::builder(&engine.data_management().to_string()).build()?;
//! let client = QueuedClient::new(management)?;
//!
//! let batch = BatchId(*b"sixteen bytes id");
//! let name = BlobName::of_batch("Metrics", "Cpu", batch);
//! let blob = client.upload(&name, || std::fs::File::open("rows.csv")).await?; // to be recorded
//! let what = Ingestion::new(batch, "Metrics", "Cpu");
//! let queued = client.enqueue(&blob, &what).await?; // to be recorded
//! let status = client.status(&queued).await?; // to be asked again until it is final
//! # Ok(()) }
//! ```
//!
//! [`UploadedBlob`] and [`Queued`] are what a caller writes down to go on after a restart. Signatures (SAS) are never part
//! of them: they are added anew from the resources that the service gives out. Those are asked for every hour, early and at
//! no fixed minute, and at once when a signature is refused.
//!
//! An upload that fails in one storage account begins anew in the next one: the [`Source`] is opened again. Accounts that
//! worked recently come first. Memory is bounded by the blocks on their way (`block_bytes` times 4), whatever the size.

mod accounts;
mod cached;
mod client;
mod error;
mod message;
mod resources;
mod source;
mod status;
mod upload;

pub use client::{QueuedClient, QueuedOptions};
pub use error::QueuedError;
pub use message::{Ingestion, Queued};
pub use source::Source;
pub use status::{Failure, FailureKind, IngestionStatus};
pub use upload::{BlobName, UploadedBlob};
