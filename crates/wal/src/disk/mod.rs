//! The narrow way to files: everything the engine does to a file system is in these two traits.
//!
//! [`real::RealDisk`] is the operating system. [`sim::SimDisk`] keeps files in memory and can crash:
//! unsynced writes are then lost, torn at 512 bytes or reordered, as disks do it.

pub mod real;
pub mod sim;

use std::io;
use std::path::Path;
use std::sync::Arc;

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Existing, for reading.
    Read,
    /// Existing, for reading and writing.
    Write,
    /// New, for reading and writing; an existing file of that name is an error.
    Create,
}

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name without the folder.
    pub name: String,
    /// Length of a file.
    pub len: u64,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// An open file. All positions are explicit; there is no cursor.
#[allow(clippy::len_without_is_empty)] // a file is not a collection
pub trait File: Send + Sync {
    /// Fills `buf` from `offset`; fewer bytes only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`, extending the file when needed.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves space so that writes below `len` cannot fail for lack of it; the file has that length then.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&self) -> io::Result<()>;
    /// The length.
    fn len(&self) -> io::Result<u64>;
}

/// Folders and names.
pub trait Disk: Send + Sync {
    /// Creates a folder and its parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Entries of a folder, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    /// Opens or creates a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Renames a file, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names of a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Keeps other processes out of `dir` until the guard is dropped. `WouldBlock` when one is in.
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn std::any::Any + Send + Sync>>;
}

/// Reads a whole file.
pub(crate) fn read_all(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Read)?;
    let len = usize::try_from(file.len()?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut bytes = vec![0; len];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}
