//! A batch becomes a blob.

use std::fmt;
use std::sync::Arc;

use azure_storage::{Resource, Storage};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::client::BatchId;
use crate::error::Error;
use crate::queued::error::QueuedError;
use crate::queued::source::{self, Source};

/// Blocks that are on their way at once.
const IN_FLIGHT: usize = 2;
/// Characters of database and table that become part of a name.
const LONGEST_PART: usize = 200;

/// The name of a blob. The same name again replaces the blob, so a batch that is uploaded twice is there once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlobName(String);

impl BlobName {
    /// `stem` with the ending by which Kusto knows what is in it.
    ///
    /// # Errors
    /// A permanent error when that is no name: 1 to 900 letters, digits, `-`, `_`, `.` or `/`.
    pub fn new(stem: &str) -> Result<BlobName, Error> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        if stem.is_empty() || stem.len() > 900 || !stem.chars().all(good) || stem.starts_with(['.', '/']) {
            return Err(Error::invalid("BLOB_NAME", format!("{stem:?} is no name of a blob; use letters, digits, -, _, . and /")));
        }
        Ok(BlobName(format!("{stem}.csv.gz")))
    }

    /// The name of a batch. Database and table are in it for people who look into the container.
    pub fn of_batch(database: &str, table: &str, batch: BatchId) -> BlobName {
        let part = |name: &str| -> String {
            let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
            name.chars().take(LONGEST_PART).map(plain).collect()
        };
        BlobName(format!("{}__{}__{batch}.csv.gz", part(database), part(table)))
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A blob that is whole. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadedBlob {
    /// The address of its container, which names the account too.
    pub container: String,
    /// Its name.
    pub blob: BlobName,
    /// Bytes before compression.
    pub raw_size: u64,
}

/// Uploads into one container.
pub(crate) async fn put(
    storage: &Storage,
    container: &Resource,
    blob: &BlobName,
    source: Arc<dyn Source>,
    block_bytes: usize,
) -> Result<UploadedBlob, QueuedError> {
    let (sender, receiver) = mpsc::channel(1);
    let compressing = tokio::task::spawn_blocking(move || source::compress(&*source, block_bytes, sender));
    let numbered = stream::unfold((receiver, 0u32), async |(mut receiver, number)| {
        let block = receiver.recv().await?;
        Some(((number, block), (receiver, number + 1)))
    });
    // a failure drops the receiver, at which the other side ends
    let sent = numbered
        .map(|(number, block)| async move { storage.put_block(container, blob.as_str(), number, block).await.map(|()| 1) })
        .buffer_unordered(IN_FLIGHT)
        .try_fold(0u32, async |sent, one| Ok(sent + one))
        .await;
    let compressed = compressing.await.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
    // a source that breaks also ends the stream of blocks, as if it were whole
    let raw_size = compressed.map_err(QueuedError::Source)?;
    storage.put_block_list(container, blob.as_str(), sent?).await?;
    Ok(UploadedBlob { container: container.address(), blob: blob.clone(), raw_size })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_plain_whatever_the_table_is_called() {
        let name = BlobName::of_batch("Db", "a/../b c?ü", BatchId([0xab; 16]));
        assert_eq!(name.as_str(), format!("Db__a----b-c--__{}.csv.gz", "ab".repeat(16)));
        assert!(BlobName::of_batch(&"d".repeat(1000), &"t".repeat(1000), BatchId([0; 16])).as_str().len() < 1024);
        assert_eq!(BlobName::new("2024/a-1").unwrap().as_str(), "2024/a-1.csv.gz");
        for bad in ["", "/a", "a b", "a?b", "ü", &"a".repeat(901)] {
            assert!(BlobName::new(bad).is_err(), "{bad}");
        }
    }
}
