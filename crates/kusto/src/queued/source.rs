//! From the caller's bytes to compressed blocks, on a thread that may block.

use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::mpsc;

/// What is read at once.
const CHUNK: usize = 64 << 10;

/// What is to be uploaded: opened for every try, and each time it gives the same bytes. Opened and read on a thread that may
/// block.
pub trait Source: Send + Sync + 'static {
    /// Begins to read from the start.
    ///
    /// # Errors
    /// When that is not possible; the upload ends with it.
    fn open(&self) -> io::Result<Box<dyn Read + Send>>;
}

impl<F, R> Source for F
where
    F: Fn() -> io::Result<R> + Send + Sync + 'static,
    R: Read + Send + 'static,
{
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self()?))
    }
}

/// Reads all of `source` and sends it, compressed, in blocks of `block_bytes`; returns how many bytes were read. When nobody
/// takes the blocks any more it ends early, with nothing said.
pub(crate) fn compress(source: &dyn Source, block_bytes: usize, blocks: mpsc::Sender<Bytes>) -> io::Result<u64> {
    let mut reader = source.open()?;
    let out = Blocks { block: BytesMut::with_capacity(block_bytes), block_bytes, blocks };
    let mut encoder = GzEncoder::new(out, Compression::fast());
    let mut chunk = vec![0; CHUNK];
    let mut raw = 0;
    loop {
        let read = match reader.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        raw += read as u64;
        if encoder.write_all(&chunk[..read]).is_err() {
            return Ok(raw);
        }
    }
    if let Ok(mut out) = encoder.finish() {
        // the last block, which nobody may want
        let _ = out.send();
    }
    Ok(raw)
}

/// Collects bytes into blocks.
struct Blocks {
    block: BytesMut,
    block_bytes: usize,
    blocks: mpsc::Sender<Bytes>,
}

impl Blocks {
    fn send(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::replace(&mut self.block, BytesMut::with_capacity(self.block_bytes)).freeze();
        self.blocks.blocking_send(block).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.block_bytes - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == self.block_bytes {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
