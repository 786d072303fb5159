//! The service's queue as uploads see it, and the rows of a batch as one stream.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::Value;
use wal::{SegmentId, SegmentReader};

use super::passage::Status;
use super::plan::Batch;
use super::rows::{Pieces, ReadError};
use crate::kql::Column;

/// Rows that are read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// Opens a segment.
pub(super) type Source = Arc<dyn Fn(SegmentId) -> io::Result<SegmentReader> + Send + Sync>;

/// A service that takes blobs of rows, is told of them, and tells in the end what became of them. What it gives is written
/// down and holds no secret.
pub(super) trait Queue: Send + Sync {
    /// Uploads the rows as a blob named after the batch; with the length of its CSV. The same again replaces it.
    fn upload<'a>(&'a self, batch: &'a Batch, rows: Rows) -> BoxFuture<'a, Result<(Value, u64), QueueError>>;
    /// Tells the service of a blob. What it answers is asked for with [`Queue::status`].
    fn enqueue<'a>(&'a self, message: Message<'a>) -> BoxFuture<'a, Result<Value, QueueError>>;
    /// What became of a message.
    fn status<'a>(&'a self, receipt: &'a Value) -> BoxFuture<'a, Result<Status, QueueError>>;
}

/// What the service is told.
#[derive(Debug)]
pub(super) struct Message<'a> {
    /// What [`Queue::upload`] gave.
    pub(super) blob: &'a Value,
    pub(super) batch: &'a Batch,
    pub(super) mapping: String,
    /// The batch is ingested once, however often it is queued.
    pub(super) tagged: bool,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueueError {
    /// [`Rows::failure`] says why.
    #[error("the rows cannot be read")]
    Rows,
    /// The message may be in the queue.
    #[error("the message may be in the queue or not: {reason}")]
    MaybeQueued {
        /// To ask for its status.
        receipt: Value,
        reason: String,
    },
    /// What was written down is of no use any more.
    #[error("{0}")]
    Gone(String),
    /// The service refused.
    #[error("{0}")]
    Service(#[from] kusto::Error),
    /// Its storage did, or what it says cannot be read.
    #[error("{reason}")]
    Storage { reason: String, retry_after: Option<Duration> },
}

/// The rows of a batch, read again from the start each time they are opened.
#[derive(Clone)]
pub(super) struct Rows {
    source: Source,
    segments: Arc<[SegmentId]>,
    headed: bool,
    failure: Arc<Mutex<Option<ReadError>>>,
}

impl Rows {
    pub(super) fn new(batch: &Batch, source: Source) -> Rows {
        let segments = batch.segments.iter().map(|s| s.id).collect();
        Rows { source, segments, headed: !batch.table.schema.is_empty(), failure: Arc::default() }
    }

    /// Reads on a thread that may block.
    pub(super) fn open(&self) -> RowReader {
        RowReader { pieces: Pieces::new(self.segments.len(), self.headed, PIECE_BYTES), rows: self.clone(), piece: Bytes::new() }
    }

    /// Why reading failed last.
    pub(super) fn failure(&self) -> Option<ReadError> {
        self.failure.lock().take()
    }

    /// Whether there is a row, and the columns that the segments name. On a thread that may block.
    ///
    /// # Errors
    /// When the first rows cannot be read.
    pub(super) fn columns(&self) -> Result<Option<Option<Vec<Column>>>, ReadError> {
        let mut pieces = Pieces::new(self.segments.len(), self.headed, 1);
        let first = pieces.next(&mut |index| (self.source)(self.segments[index]))?;
        Ok(first.map(|_| pieces.columns().map(<[Column]>::to_vec)))
    }
}

/// See [`Rows::open`].
pub(super) struct RowReader {
    rows: Rows,
    pieces: Pieces,
    piece: Bytes,
}

impl Read for RowReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            let (source, segments) = (&self.rows.source, &self.rows.segments);
            match self.pieces.next(&mut |index| source(segments[index])) {
                Ok(Some(piece)) => self.piece = piece.csv,
                Ok(None) => return Ok(0),
                Err(error) => {
                    let told = io::Error::other(format!("{error:?}"));
                    *self.rows.failure.lock() = Some(error);
                    return Err(told);
                }
            }
        }
        let count = buf.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buf[..count]);
        Ok(count)
    }
}
