//! From a blob to rows that are durable and visible.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use datafusion::arrow::array::RecordBatch;
use tokio::sync::mpsc;

use super::message::{Malformed, Message, What};
use crate::catalog::{StoredMapping, Table};
use crate::error::KustoError;
use crate::ingest::{self, Format, Limits, Reading, Unread};
use crate::service::Kustd;
use crate::storage::{NewRows, Publication, Published};
use crate::update;

/// Blobs of less text than `piece` go the way of streamed rows, others straight into an extent.
const LIMITS: Limits = Limits { piece: 16 << 20, record: 64 << 20, text: 1 << 30 };

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Its rows are there, of this or of an earlier try.
    Succeeded,
    /// It cannot work as it is.
    Failed(Failed),
    /// It may work later.
    Later(Failed),
}

/// Why it did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    /// Kusto's code.
    pub(super) code: String,
    pub(super) details: String,
    pub(super) from_update_policy: bool,
}

fn failed(code: &str, details: impl Into<String>) -> Outcome {
    Outcome::Failed(Failed { code: code.to_owned(), details: details.into(), from_update_policy: false })
}

fn later(code: &str, details: impl Into<String>) -> Outcome {
    Outcome::Later(Failed { code: code.to_owned(), details: details.into(), from_update_policy: false })
}

/// Does what a message says.
pub(super) async fn ingest(kustd: &Arc<Kustd>, message: &Message) -> Outcome {
    let what = match &message.what {
        Ok(what) => what,
        Err(Malformed { code, details }) => return failed(code, details),
    };
    // a failure is an outcome too
    match try_ingest(kustd, message, what).await {
        Ok(outcome) | Err(outcome) => outcome,
    }
}

async fn try_ingest(kustd: &Arc<Kustd>, message: &Message, what: &What) -> Result<Outcome, Outcome> {
    let table = table(kustd, message)?;
    let format: Format = what.format.parse().map_err(|why: String| failed("BadRequest_FormatNotSupported", why))?;
    let mapping = mapping(kustd, &table, format, what)?;
    let batches = read_blob(kustd, message, what, table.clone(), format, mapping).await?;
    if batches.is_empty() {
        return Err(failed("BadRequest_NoRecordsOrWrongFormat", "the blob has no records"));
    }
    let (count, bytes) =
        batches.iter().fold((0, 0), |(rows, bytes), batch| (rows + batch.num_rows(), bytes + batch.get_array_memory_size()));
    let one_piece = batches.len() == 1;
    let mut rows = vec![NewRows { table, batches, tags: what.tags.clone(), replace: false }];
    update::derive(kustd, &mut rows).await.map_err(|error| refused("UpdatePolicy_UnknownError", &error, true))?;
    let outcome = if one_piece && what.tags.is_empty() && what.unless_tagged.is_empty() {
        let stored = kustd.storage.ingest(rows, message.id.as_bytes(), kustd.now()).await;
        stored.map(|_| Outcome::Succeeded).map_err(KustoError::from)
    } else {
        let publication = Publication {
            rows,
            unless_tagged: what.unless_tagged.clone(),
            batch_id: message.id.as_bytes().to_vec(),
            ..Publication::default()
        };
        let owner = kustd.clone();
        let published = tokio::task::spawn_blocking(move || owner.storage.append_extents(publication, owner.now())).await;
        let published = published.map_err(|error| later("General_InternalServerError", error.to_string()))?;
        published.map_err(KustoError::from).map(|published| match published {
            Published::Stored(_) | Published::Repeated => Outcome::Succeeded,
            // as Azure reports it
            Published::Known => {
                failed("Skipped_IngestByTagAlreadyExists", "the table has an extent with one of the tags of ingestIfNotExists")
            }
        })
    };
    let outcome = outcome.map_err(|error| refused("General_InternalServerError", &error, false))?;
    if outcome == Outcome::Succeeded {
        kustd.metrics.ingested_rows.inc_by(count as u64);
        tracing::debug!(id = %message.id, table = message.table, rows = count, bytes, "a queued blob is ingested");
    }
    Ok(outcome)
}

fn table(kustd: &Kustd, message: &Message) -> Result<Arc<Table>, Outcome> {
    let image = kustd.storage.catalog().image();
    let database = image
        .database(&message.database)
        .ok_or_else(|| failed("BadRequest_DatabaseNotExist", format!("there is no database '{}'", message.database)))?;
    database
        .tables
        .get(message.table.as_str())
        .cloned()
        .ok_or_else(|| failed("BadRequest_TableNotExist", format!("database '{}' has no table '{}'", message.database, message.table)))
}

fn mapping(kustd: &Kustd, table: &Table, format: Format, what: &What) -> Result<Option<Arc<StoredMapping>>, Outcome> {
    if let Some(json) = &what.mapping {
        ingest::check_mapping(json).map_err(|why| failed("BadRequest_InvalidMapping", why))?;
        return Ok(Some(Arc::new(StoredMapping { json: json.clone(), updated: 0 })));
    }
    let Some(name) = &what.mapping_reference else { return Ok(None) };
    let stored = kustd.mapping(table, format, name);
    stored.map(Some).map_err(|error| failed("BadRequest_MappingReferenceWasNotFound", error.message))
}

fn refused(code: &str, error: &KustoError, from_update_policy: bool) -> Outcome {
    let why = Failed { code: code.to_owned(), details: error.message.clone(), from_update_policy };
    if error.permanent { Outcome::Failed(why) } else { Outcome::Later(why) }
}

/// Downloads a blob and reads it, at the same time.
async fn read_blob(
    kustd: &Arc<Kustd>,
    message: &Message,
    what: &What,
    table: Arc<Table>,
    format: Format,
    mapping: Option<Arc<StoredMapping>>,
) -> Result<Vec<RecordBatch>, Outcome> {
    let Some(storage) = &kustd.ingestion_storage else { return Err(later("General_InternalServerError", "there is no storage")) };
    let own = storage.all_shares().map_err(|error| download_failed(&error))?;
    if !own.iter().flat_map(|share| &share.containers).any(|container| container.contains(&message.blob)) {
        let details = format!("{} is in none of the containers of .get ingestion resources; others are not read", message.source());
        return Err(failed("Download_Forbidden", details));
    }
    let mut download = storage.requests.get_blob(&message.blob).await.map_err(|error| download_failed(&error))?;
    let (sender, receiver) = mpsc::channel(2);
    let feeding = async move {
        loop {
            let chunk = download.chunk().await.transpose();
            let Some(chunk) = chunk else { return };
            let broken = chunk.is_err();
            // the reader may have ended
            if sender.send(chunk).await.is_err() || broken {
                return;
            }
        }
    };
    let skip_first = what.skip_first;
    let reading = tokio::task::spawn_blocking(move || {
        let reading = Reading { format, mapping: mapping.as_deref(), skip_first };
        let text = inflated(Chunks { receiver, rest: Bytes::new() })?;
        ingest::read_stream(&table, &reading, text, LIMITS).map_err(unread)
    });
    let ((), read) = tokio::join!(feeding, reading);
    let (batches, length) = read.map_err(|error| later("General_InternalServerError", format!("reading the blob: {error}")))??;
    kustd.metrics.ingested_bytes.inc_by(length);
    Ok(batches)
}

fn download_failed(error: &azure_storage::Error) -> Outcome {
    match error.status {
        Some(404) => failed("Download_SourceNotFound", error.to_string()),
        Some(401 | 403) => failed("Download_Forbidden", error.to_string()),
        _ if error.is_transient() => later("Download_UnknownError", error.to_string()),
        _ => failed("Download_BadRequest", error.to_string()),
    }
}

fn unread(why: Unread) -> Outcome {
    match why {
        Unread::Io(error) => io_failed(error),
        Unread::TooLarge(what) => failed("BadRequest_FileTooLarge", what),
        Unread::Bad(bad) if bad.is_about_a_row() => failed("BadRequest_InvalidBlob", bad.to_string()),
        Unread::Bad(bad) => failed("BadRequest_InconsistentMapping", bad.to_string()),
    }
}

/// A broken download, or bytes that are not what their compression says.
fn io_failed(error: io::Error) -> Outcome {
    match error.downcast::<azure_storage::Error>() {
        Ok(error) => download_failed(&error),
        Err(error) => failed("BadRequest_InvalidBlob", format!("decompressing the blob: {error}")),
    }
}

/// The bytes, decompressed if they are gzip, whatever the blob is called.
fn inflated(mut bytes: impl Read + Send + 'static) -> Result<Box<dyn Read + Send>, Outcome> {
    let mut head = Vec::new();
    bytes.by_ref().take(2).read_to_end(&mut head).map_err(io_failed)?;
    let is_gzip = head == [0x1f, 0x8b];
    let all = Read::chain(io::Cursor::new(head), bytes);
    Ok(if is_gzip { Box::new(flate2::read::MultiGzDecoder::new(all)) } else { Box::new(all) })
}

/// Chunks of a download, for a thread that may block.
struct Chunks {
    receiver: mpsc::Receiver<Result<Bytes, azure_storage::Error>>,
    rest: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => self.rest = chunk.map_err(io::Error::other)?,
            }
        }
        let taken = self.rest.len().min(out.len());
        self.rest.copy_to_slice(&mut out[..taken]);
        Ok(taken)
    }
}
