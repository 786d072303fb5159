//! Reading a sealed segment block by block, so that memory does not depend on its size.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::disk::File;
use crate::segment::{self, BLOCK_HEADER, HEADER, MAX_BLOCK_BYTES};

/// The readable blocks of a segment, in order.
pub struct SegmentReader {
    source: Source,
    block: Vec<u8>,
}

enum Source {
    /// A file whose blocks are known to be whole.
    File { file: Arc<dyn File>, at: u64, end: u64 },
    /// An image, perhaps with damaged blocks, which are left out.
    Image { image: Vec<u8>, at: Option<usize> },
}

impl fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentReader").finish_non_exhaustive()
    }
}

impl SegmentReader {
    /// The blocks of a file image.
    pub fn from_image(image: Vec<u8>) -> SegmentReader {
        SegmentReader { source: Source::Image { image, at: Some(HEADER.len()) }, block: Vec::new() }
    }

    /// The blocks of a file of `bytes`, if they have that digest.
    pub(super) fn from_file(file: Arc<dyn File>, bytes: u64, expected: u64) -> io::Result<Option<SegmentReader>> {
        let mut header = [0; HEADER.len()];
        if file.len()? < bytes || file.read_at(&mut header, 0)? < header.len() || !segment::is_segment(&header) {
            return Ok(None);
        }
        let (mut at, mut digest, mut block) = (HEADER.len() as u64, 0, Vec::new());
        while at < bytes {
            if !read_block(&*file, at, bytes, &mut block)? {
                return Ok(None);
            }
            digest = segment::digest(digest, &block);
            at += block.len() as u64;
        }
        let source = Source::File { file, at: HEADER.len() as u64, end: bytes };
        Ok((digest == expected).then_some(SegmentReader { source, block }))
    }

    /// Decodes the next block, header line and rows, into `value`; `false` behind the last one.
    ///
    /// # Errors
    /// The file cannot be read, or has changed since it was opened.
    pub fn next_block(&mut self, value: &mut Vec<u8>) -> io::Result<bool> {
        let changed = |what: String| io::Error::other(format!("a segment changed while it was read: {what}"));
        match &mut self.source {
            Source::File { at, end, .. } if at == end => Ok(false),
            Source::File { file, at, end } => {
                if !read_block(&**file, *at, *end, &mut self.block)? {
                    return Err(changed(format!("damage at byte {at}")));
                }
                let block = segment::blocks_at(&self.block, 0).next().ok_or_else(|| changed(format!("no block at byte {at}")))?;
                block.and_then(|block| block.decode(value).map(drop)).map_err(|damage| changed(damage.to_string()))?;
                *at += self.block.len() as u64;
                Ok(true)
            }
            Source::Image { image, at } => {
                while let Some(from) = *at {
                    match segment::blocks_at(image, from).next() {
                        None => *at = None,
                        Some(Err(damage)) => *at = damage.next,
                        Some(Ok(block)) => {
                            *at = Some(block.range().end);
                            if block.decode(value).is_ok() {
                                return Ok(true);
                            }
                        }
                    }
                }
                *image = Vec::new();
                Ok(false)
            }
        }
    }
}

/// Reads the block at `at` whole; `false` when there is none whose checksum is right.
pub(super) fn read_block(file: &dyn File, at: u64, end: u64, block: &mut Vec<u8>) -> io::Result<bool> {
    let mut header = [0; BLOCK_HEADER];
    if end - at < BLOCK_HEADER as u64 || file.read_at(&mut header, at)? < BLOCK_HEADER {
        return Ok(false);
    }
    let [a, b, c, d, ..] = header;
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    if len > MAX_BLOCK_BYTES || (BLOCK_HEADER + len) as u64 > end - at {
        return Ok(false);
    }
    block.clear();
    block.resize(BLOCK_HEADER + len, 0);
    let read = file.read_at(block, at)?;
    Ok(read == block.len() && matches!(segment::blocks_at(block, 0).next(), Some(Ok(_))))
}
