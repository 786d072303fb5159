//! A large segment on its way into a segment file of its own: whole blocks are checked and written
//! as they come, so that memory holds a piece and at most one block that is not complete yet.

use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};
use wal::segment::{self, FileName, HEADER, MAX_BLOCK_BYTES};
use wal::{Adoption, Receipt};

use super::admit::table_of;
use super::{Answer, Shared};

/// Bodies are read in pieces of this size.
pub(super) const PIECE: u64 = 4 << 20;
/// Damaged bytes that are kept for the quarantine; more means that this is no segment.
const MAX_DAMAGED: usize = 16 << 20;

/// Blocks that arrive.
pub(super) struct Intake {
    adoption: Adoption,
    headed: bool,
    /// Bytes that do not make a whole block yet.
    carry: Vec<u8>,
    /// Where `carry` begins in the body.
    offset: u64,
    /// Unreadable ranges so far, with their bytes.
    pub(super) damaged: Vec<(u64, Vec<u8>)>,
    blocks: bool,
}

impl Intake {
    /// An intake of a body from `offset` on; at 0 the file header is skipped.
    pub(super) fn begin(shared: &Arc<Shared>, name: &FileName, offset: u64) -> Result<Intake, Answer> {
        let adoption = shared.store.adopt(table_of(name)).map_err(|e| Answer::Busy(format!("making a segment file: {e}")))?;
        Ok(Intake { adoption, headed: name.schema.is_some(), carry: Vec::new(), offset, damaged: Vec::new(), blocks: false })
    }

    /// Takes the next piece; `last` says that nothing follows.
    pub(super) async fn push(self, piece: Vec<u8>, last: bool) -> Result<Intake, Answer> {
        blocking(move || self.push_blocking(&piece, last)).await?
    }

    fn push_blocking(mut self, piece: &[u8], last: bool) -> Result<Intake, Answer> {
        let skip = if self.offset == 0 { HEADER.len() } else { 0 };
        self.carry.extend_from_slice(piece);
        if self.carry.len() < skip {
            return Ok(self);
        }
        self.carry.drain(..skip);
        self.offset += skip as u64;
        let found = segment::verify_blocks(&self.carry, self.headed);
        let waits = !last && self.carry.len() <= MAX_BLOCK_BYTES + 8;
        let whole = match found.good.last() {
            Some(range) if waits || self.carry.len() - range.end <= MAX_BLOCK_BYTES + 8 && !last => range.end,
            None if waits => 0,
            _ => self.carry.len(),
        };
        for (range, _) in found.damaged.iter().filter(|(range, _)| range.end <= whole) {
            self.damaged.push((self.offset + range.start as u64, self.carry[range.clone()].to_vec()));
        }
        let damaged: usize = self.damaged.iter().map(|(_, bytes)| bytes.len()).sum();
        if damaged > MAX_DAMAGED {
            return Err(Answer::Unacceptable(format!("{damaged} bytes cannot be read: this is no segment")));
        }
        let mut good = Vec::with_capacity(found.good_bytes());
        for range in &found.good {
            good.extend_from_slice(&self.carry[range.clone()]);
        }
        if !good.is_empty() {
            self.blocks = true;
            self.adoption.write_blocks(&good, found.rows).map_err(|e| Answer::Busy(format!("writing a segment file: {e}")))?;
        }
        self.carry.drain(..whole);
        self.offset += whole as u64;
        Ok(self)
    }

    /// Makes what arrived durable.
    pub(super) async fn finish(self, receipts: Vec<Receipt>, marks: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), Answer> {
        if !self.blocks {
            return Err(Answer::Unacceptable("no block of the body can be read".to_owned()));
        }
        let (done, committed) = oneshot::channel();
        let adoption = self.adoption;
        blocking(move || {
            adoption.finish(receipts, marks, Box::new(move |outcome| drop(done.send(outcome))));
        })
        .await?;
        match committed.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(refusal)) => Err(Answer::from_refusal(&refusal)),
            Err(_) => Err(Answer::Unknown("the store was closed".to_owned())),
        }
    }
}

/// Segments that are checked at a time: each may need the memory of one decoded block, which is up to
/// [`MAX_BLOCK_BYTES`] however short the body is.
static CHECKS: Semaphore = Semaphore::const_new(8);

/// Runs work that takes the processor or the disk for a while.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Answer> {
    let _turn = CHECKS.acquire().await;
    tokio::task::spawn_blocking(work).await.map_err(|e| Answer::Unknown(format!("checking the segment failed: {e}")))
}
