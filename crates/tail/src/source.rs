//! Files that are open, plain or compressed, read by offset of their content.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use rustix::fs::{OFlags, SeekFrom};

use crate::content::{BEFORE, FileId, HEAD, Print};
use crate::lines::READ;

/// What is known of a file without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) id: FileId,
    pub(crate) size: u64,
    pub(crate) mtime: i64,
    pub(crate) regular: bool,
}

impl Stat {
    /// Of the file at `path`, through links.
    pub(crate) fn of(path: &Path) -> io::Result<Stat> {
        std::fs::metadata(path).map(|metadata| Stat::from(&metadata))
    }
}

impl From<&Metadata> for Stat {
    fn from(m: &Metadata) -> Stat {
        let mtime = m.mtime().saturating_mul(1_000_000_000).saturating_add(m.mtime_nsec());
        Stat { id: FileId { dev: m.dev(), ino: m.ino() }, size: m.size(), mtime, regular: m.is_file() }
    }
}

/// A file that is open.
#[derive(Debug)]
pub(crate) enum Source {
    Plain(File),
    Gz(Box<Gz>),
}

/// The content of a compressed file, read forward; what was read last can be read again.
#[derive(Debug)]
pub(crate) struct Gz {
    file: File,
    decoder: MultiGzDecoder<BufReader<File>>,
    /// What the decoder gave last; ends at `at`.
    window: Vec<u8>,
    at: u64,
    ended: bool,
    /// Why it ended before the end of the content.
    error: Option<io::Error>,
}

/// How much of what was read can be read again.
const WINDOW: usize = READ + BEFORE;

impl Source {
    /// Opens a regular file. Anything else at `path` is never opened: a FIFO would wait, a device might act.
    pub(crate) fn open(path: &Path, gz: bool) -> io::Result<(Source, Stat)> {
        let regular = |stat: Stat| if stat.regular { Ok(stat) } else { Err(io::Error::other("not a regular file")) };
        regular(Stat::of(path)?)?;
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
        let file = OpenOptions::new().read(true).custom_flags(i32::try_from(flags).unwrap_or(0)).open(path)?;
        let stat = regular(Stat::from(&file.metadata()?))?;
        let source = if gz { Source::Gz(Box::new(Gz::new(file)?)) } else { Source::Plain(file) };
        Ok((source, stat))
    }

    pub(crate) fn stat(&self) -> io::Result<Stat> {
        self.file().metadata().map(|metadata| Stat::from(&metadata))
    }

    fn file(&self) -> &File {
        match self {
            Source::Plain(file) => file,
            Source::Gz(gz) => &gz.file,
        }
    }

    /// Reads into all of `buffer` unless the content ends before.
    pub(crate) fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::Plain(file) => fill(buffer, |rest, done| file.read_at(rest, offset + done as u64)),
            Source::Gz(gz) => gz.read_at(offset, buffer),
        }
    }

    /// Where the next bytes that were written begin, at or behind `offset`; `None` when there are none.
    pub(crate) fn next_data(&self, offset: u64) -> Option<u64> {
        match self {
            Source::Plain(file) => rustix::fs::seek(file, SeekFrom::Data(offset)).ok(),
            Source::Gz(_) => Some(offset),
        }
    }

    /// Begins again if the content ended before its end, as that of a file that is still being compressed does.
    ///
    /// # Errors
    /// Why it ended, so that the caller looks again later.
    pub(crate) fn complete(&mut self) -> io::Result<()> {
        let Source::Gz(gz) = self else { return Ok(()) };
        let Some(error) = gz.error.take() else { return Ok(()) };
        gz.rewind()?;
        Err(error)
    }

    /// The print of the first bytes, at most `len`.
    pub(crate) fn head(&mut self, len: usize) -> io::Result<Print> {
        self.print(0, len.min(HEAD))
    }

    pub(crate) fn print(&mut self, offset: u64, len: usize) -> io::Result<Print> {
        let mut buffer = vec![0; len];
        let n = self.read_at(offset, &mut buffer)?;
        Ok(Print::of(&buffer[..n]))
    }
}

/// Calls `read` until the buffer is full or nothing more comes.
fn fill(buffer: &mut [u8], mut read: impl FnMut(&mut [u8], usize) -> io::Result<usize>) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match read(&mut buffer[done..], done) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

impl Gz {
    fn new(file: File) -> io::Result<Gz> {
        let decoder = MultiGzDecoder::new(BufReader::new(file.try_clone()?));
        Ok(Gz { file, decoder, window: Vec::new(), at: 0, ended: false, error: None })
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if offset + (self.window.len() as u64) < self.at {
            self.rewind()?;
        }
        while !self.ended && self.at < offset + buffer.len() as u64 {
            let wanted = (offset + buffer.len() as u64 - self.at).min(READ as u64);
            self.advance(usize::try_from(wanted).unwrap_or(READ));
        }
        let start = self.at - self.window.len() as u64;
        let Some(from) = offset.checked_sub(start).and_then(|from| usize::try_from(from).ok()) else { return Ok(0) };
        let found = self.window.get(from..).unwrap_or_default();
        let n = found.len().min(buffer.len());
        buffer[..n].copy_from_slice(&found[..n]);
        Ok(n)
    }

    fn rewind(&mut self) -> io::Result<()> {
        rustix::fs::seek(&self.file, SeekFrom::Start(0))?;
        self.decoder = MultiGzDecoder::new(BufReader::new(self.file.try_clone()?));
        (self.at, self.ended, self.error) = (0, false, None);
        self.window.clear();
        Ok(())
    }

    fn advance(&mut self, wanted: usize) {
        let excess = (self.window.len() + wanted).saturating_sub(WINDOW);
        self.window.drain(..excess.min(self.window.len()));
        let old = self.window.len();
        self.window.resize(old + wanted, 0);
        let read = fill(&mut self.window[old..], |rest, _| self.decoder.read(rest));
        let n = *read.as_ref().unwrap_or(&0);
        self.window.truncate(old + n);
        self.at += n as u64;
        self.ended = n == 0;
        self.error = read.err();
    }
}
