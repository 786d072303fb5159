//! A disk in memory that can crash, for tests of everything that stands on [`Disk`].
//!
//! What is written is visible at once and durable only after a sync. A crash keeps, of the unsynced
//! writes of a file, any subset of their 512-byte sectors, and of the unsynced names of a folder any
//! prefix: disks reorder data, while file systems order their metadata. All choices come from a seed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, Entry, File, Open};

const SECTOR: usize = 512;

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// From this operation on nothing works until [`SimDisk::restart`].
    Crash,
    /// This operation fails with an I/O error, once. A failed sync drops what it should have made durable,
    /// at random, and later syncs do not notice: as Linux does.
    Error,
}

/// The disk. Clones share it.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// Current names.
    names: BTreeMap<PathBuf, u64>,
    dirs: Vec<PathBuf>,
    /// Names as they survive a crash.
    durable_names: BTreeMap<PathBuf, u64>,
    /// Unsynced changes of names, by folder.
    pending_names: BTreeMap<PathBuf, Vec<NameChange>>,
    files: BTreeMap<u64, SimFile>,
    next_file: u64,
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    crashed: bool,
    /// Handles of before a crash do not work after it.
    epoch: u64,
    capacity: Option<u64>,
    random: u64,
    locked: Vec<PathBuf>,
}

#[derive(Clone)]
enum NameChange {
    Create(PathBuf, u64),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
    /// The file went to another folder, where the rename is written down: atomic, so a crash alone does not
    /// take it from here.
    Moved(PathBuf),
}

#[derive(Clone, Default)]
struct SimFile {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

impl SimDisk {
    /// An empty disk whose random choices follow `seed`.
    pub fn new(seed: u64) -> SimDisk {
        // Small seeds would begin with small numbers, which all choose alike.
        let mixed = (seed ^ 0x6A09_E667_F3BC_C909).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        SimDisk(Arc::new(Mutex::new(Inner { random: mixed ^ mixed >> 32 | 1, ..Inner::default() })))
    }

    /// The disk as the engine takes it.
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// Changing operations so far (writes, syncs, names).
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Lets the operation with this number (counted from 0) fail.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.0.lock().faults.insert(operation, fault);
    }

    /// Forgets planned faults.
    pub fn heal(&self) {
        self.0.lock().faults.clear();
    }

    /// Limits the sum of file lengths; growth beyond it fails with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// From now on nothing works until [`SimDisk::restart`] or [`SimDisk::kill`].
    pub fn crash(&self) {
        self.0.lock().crashed = true;
    }

    /// Whether a crash happened.
    pub fn crashed(&self) -> bool {
        self.0.lock().crashed
    }

    /// The power goes and comes back: unsynced changes survive in part. Locks and handles are gone.
    pub fn restart(&self) {
        self.0.lock().restart();
    }

    /// The process ends and starts again: everything written survives.
    pub fn kill(&self) {
        let mut inner = self.0.lock();
        inner.crashed = false;
        inner.faults.clear();
        inner.epoch += 1;
        inner.locked.clear();
    }

    /// A copy of the disk as it is now, with everything durable and no locks.
    pub fn snapshot(&self) -> SimDisk {
        let inner = self.0.lock();
        let files = inner.files.iter().map(|(id, file)| {
            let bytes = file.current.clone();
            (*id, SimFile { current: bytes.clone(), durable: bytes, pending: Vec::new() })
        });
        SimDisk(Arc::new(Mutex::new(Inner {
            names: inner.names.clone(),
            dirs: inner.dirs.clone(),
            durable_names: inner.names.clone(),
            files: files.collect(),
            next_file: inner.next_file,
            random: inner.random,
            ..Inner::default()
        })))
    }

    /// Another disk with the same past: what is not synced here is not synced there.
    pub fn fork(&self) -> SimDisk {
        let inner = self.0.lock();
        SimDisk(Arc::new(Mutex::new(Inner {
            names: inner.names.clone(),
            dirs: inner.dirs.clone(),
            durable_names: inner.durable_names.clone(),
            pending_names: inner.pending_names.clone(),
            files: inner.files.clone(),
            next_file: inner.next_file,
            random: inner.random,
            ..Inner::default()
        })))
    }

    /// All files with their content.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let inner = self.0.lock();
        inner.names.iter().map(|(path, id)| (path.clone(), inner.files[id].current.clone())).collect()
    }

    /// Replaces or creates a file durably, from outside.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut inner = self.0.lock();
        let id = inner.names.get(path).copied().unwrap_or_else(|| inner.new_file());
        inner.names.insert(path.to_owned(), id);
        inner.durable_names.insert(path.to_owned(), id);
        let file = SimFile { current: bytes.to_vec(), durable: bytes.to_vec(), pending: Vec::new() };
        inner.files.insert(id, file);
    }
}

impl Inner {
    fn new_file(&mut self) -> u64 {
        self.next_file += 1;
        self.files.insert(self.next_file, SimFile::default());
        self.next_file
    }

    /// xorshift: enough for tests, and the same everywhere.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    fn alive(&self, epoch: u64) -> io::Result<()> {
        if self.crashed || epoch != self.epoch { Err(io::Error::other("the simulated machine is down")) } else { Ok(()) }
    }

    /// Counts a changing operation. `Ok(true)` means it has to fail.
    fn step(&mut self, epoch: u64) -> io::Result<bool> {
        self.alive(epoch)?;
        let number = self.operations;
        self.operations += 1;
        match self.faults.remove(&number) {
            None => Ok(false),
            Some(Fault::Error) => Ok(true),
            Some(Fault::Crash) => {
                self.crashed = true;
                Err(io::Error::other("the simulated machine went down"))
            }
        }
    }

    fn must(&mut self, epoch: u64) -> io::Result<()> {
        if self.step(epoch)? { Err(io::Error::other("simulated I/O error")) } else { Ok(()) }
    }

    fn room_for(&self, growth: usize) -> io::Result<()> {
        let used: u64 = self.names.values().map(|id| self.files[id].current.len() as u64).sum();
        match self.capacity {
            Some(capacity) if growth > 0 && used + growth as u64 > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn change_names(&mut self, dir: &Path, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.entry(dir.to_owned()).or_default().push(change);
    }

    fn restart(&mut self) {
        self.crashed = false;
        self.faults.clear();
        self.epoch += 1;
        self.locked.clear();
        for (_, changes) in std::mem::take(&mut self.pending_names) {
            let keep = (self.random() as usize) % (changes.len() + 1);
            for change in changes[..keep].iter().filter(|change| !matches!(change, NameChange::Moved(_))) {
                change.apply(&mut self.durable_names);
            }
        }
        self.names = self.durable_names.clone();
        let ids: Vec<u64> = self.files.keys().copied().collect();
        for id in ids {
            let mut file = self.files.remove(&id).unwrap_or_default();
            let mut content = std::mem::take(&mut file.durable);
            for change in std::mem::take(&mut file.pending) {
                self.survive(&mut content, change);
            }
            self.files.insert(id, SimFile { current: content.clone(), durable: content, pending: Vec::new() });
        }
    }

    /// Applies to `content` what a crash leaves of an unsynced change.
    fn survive(&mut self, content: &mut Vec<u8>, change: Change) {
        match change {
            Change::Len(len) => {
                if self.random() & 1 == 0 {
                    content.resize(len, 0);
                }
            }
            Change::Write(offset, bytes) => {
                let mut at = 0;
                while at < bytes.len() {
                    let end = bytes.len().min(((offset + at) / SECTOR + 1) * SECTOR - offset);
                    if self.random() & 1 == 0 {
                        write_into(content, offset + at, &bytes[at..end]);
                    }
                    at = end;
                }
            }
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            NameChange::Create(path, id) => drop(names.insert(path.clone(), *id)),
            NameChange::Remove(path) | NameChange::Moved(path) => drop(names.remove(path)),
            NameChange::Rename(from, to) => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
        }
    }
}

fn write_into(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

fn parent(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}

struct Handle {
    disk: SimDisk,
    id: u64,
    epoch: u64,
}

impl Disk for SimDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        // Folders are durable at once: creating them is not what these tests are about.
        let mut inner = self.0.lock();
        inner.alive(inner.epoch)?;
        if !inner.dirs.iter().any(|dir| dir == path) {
            inner.dirs.push(path.to_owned());
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let inner = self.0.lock();
        inner.alive(inner.epoch)?;
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let files = inner.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let files = files.map(|(path, id)| Entry { name: name(path), len: inner.files[id].current.len() as u64, is_dir: false });
        let dirs = inner.dirs.iter().filter(|path| path.parent() == Some(dir));
        let dirs = dirs.map(|path| Entry { name: name(path), len: 0, is_dir: true });
        Ok(files.chain(dirs).collect())
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut inner = self.0.lock();
        let epoch = inner.epoch;
        inner.alive(epoch)?;
        let id = match (how, inner.names.get(path).copied()) {
            (Open::Create, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Open::Create, None) => {
                inner.must(epoch)?;
                let id = inner.new_file();
                inner.change_names(&parent(path), NameChange::Create(path.to_owned(), id));
                id
            }
            (_, Some(id)) => id,
            (_, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(Handle { disk: self.clone(), id, epoch }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.0.lock();
        let epoch = inner.epoch;
        inner.must(epoch)?;
        if !inner.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change_names(&parent(path), NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.0.lock();
        let epoch = inner.epoch;
        inner.must(epoch)?;
        let id = inner.names.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        if parent(from) == parent(to) {
            inner.change_names(&parent(to), NameChange::Rename(from.to_owned(), to.to_owned()));
        } else {
            inner.change_names(&parent(to), NameChange::Create(to.to_owned(), id));
            inner.change_names(&parent(from), NameChange::Moved(from.to_owned()));
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.0.lock();
        let epoch = inner.epoch;
        inner.must(epoch)?;
        for change in inner.pending_names.remove(dir).unwrap_or_default() {
            change.apply(&mut inner.durable_names);
        }
        Ok(())
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn std::any::Any + Send + Sync>> {
        let mut inner = self.0.lock();
        inner.alive(inner.epoch)?;
        if inner.locked.iter().any(|locked| locked == dir) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        inner.locked.push(dir.to_owned());
        Ok(Box::new(Guard { disk: self.clone(), dir: dir.to_owned(), epoch: inner.epoch }))
    }
}

struct Guard {
    disk: SimDisk,
    dir: PathBuf,
    epoch: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut inner = self.disk.0.lock();
        if inner.epoch == self.epoch {
            inner.locked.retain(|locked| *locked != self.dir);
        }
    }
}

impl File for Handle {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let inner = self.disk.0.lock();
        inner.alive(self.epoch)?;
        let content = &inner.files[&self.id].current;
        let start = content.len().min(offset as usize);
        let n = buf.len().min(content.len() - start);
        buf[..n].copy_from_slice(&content[start..start + n]);
        Ok(n)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        inner.alive(self.epoch)?;
        let fails = match inner.step(self.epoch) {
            Ok(fails) => fails,
            Err(error) => {
                // The machine goes down in the middle of the write: some of it may be on the disk.
                if let Some(file) = inner.files.get_mut(&self.id) {
                    file.pending.push(Change::Write(offset as usize, bytes.to_vec()));
                }
                return Err(error);
            }
        };
        if fails {
            return Err(io::Error::other("simulated I/O error"));
        }
        let offset = offset as usize;
        let growth = (offset + bytes.len()).saturating_sub(inner.files[&self.id].current.len());
        inner.room_for(growth)?;
        let file = inner.files.entry(self.id).or_default();
        write_into(&mut file.current, offset, bytes);
        file.pending.push(Change::Write(offset, bytes.to_vec()));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        inner.must(self.epoch)?;
        let len = len as usize;
        inner.room_for(len.saturating_sub(inner.files[&self.id].current.len()))?;
        let file = inner.files.entry(self.id).or_default();
        file.current.resize(len, 0);
        file.pending.push(Change::Len(len));
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let current = self.len()?;
        if len > current { self.set_len(len) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        if inner.step(self.epoch)? {
            let pending = std::mem::take(&mut inner.files.entry(self.id).or_default().pending);
            let mut durable = std::mem::take(&mut inner.files.entry(self.id).or_default().durable);
            for change in pending {
                inner.survive(&mut durable, change);
            }
            inner.files.entry(self.id).or_default().durable = durable;
            return Err(io::Error::other("simulated sync error"));
        }
        // Only what was pending becomes durable: what an earlier failed sync lost stays lost.
        let file = inner.files.entry(self.id).or_default();
        for change in std::mem::take(&mut file.pending) {
            match change {
                Change::Len(len) => file.durable.resize(len, 0),
                Change::Write(offset, bytes) => write_into(&mut file.durable, offset, &bytes),
            }
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let inner = self.disk.0.lock();
        inner.alive(self.epoch)?;
        Ok(inner.files[&self.id].current.len() as u64)
    }
}
