//! The journal: the only thing that decides what is durable.
//!
//! Frames of many writers are gathered into groups, written at once and synced once. The store keeps its
//! requests in one; kustd uses [`Journal`] with frames of its own.

pub(crate) mod core;
pub(crate) mod frame;
pub(crate) mod scan;
pub(crate) mod suspects;
pub(crate) mod thread;
pub(crate) mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use self::frame::Body;
use self::scan::{Loaded, Skipped};
use self::suspects::Suspects;
use self::thread::Shared;
use self::writer::Writer;
use crate::disk::{self, Disk, Open};
use crate::error::During;
use crate::{Damage, Done, Durability, OpenError, Refusal};

/// Where and how a journal is kept.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// Folder of the journal alone; created when missing.
    pub dir: PathBuf,
    /// Size of one file, preallocated.
    pub file_bytes: u64,
    /// What an acknowledgement promises.
    pub durability: Durability,
}

/// A frame read back from the journal.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Log sequence number.
    pub lsn: u64,
    /// The caller's kind.
    pub kind: u8,
    /// The caller's bytes.
    pub body: &'a [u8],
}

/// What opening found.
#[derive(Debug, Clone, Default)]
pub struct JournalReport {
    /// Frames replayed.
    pub frames: u64,
    /// The number the next frame gets.
    pub next_lsn: u64,
    /// Unacknowledged bytes at the end that were dropped.
    pub torn_bytes: u64,
    /// Unreadable ranges, copied to `quarantine/` in the folder.
    pub damage: Vec<Damage>,
}

/// A journal with its own folder and commit thread. Closing or dropping it writes what waits.
pub struct Journal {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    _lock: Box<dyn std::any::Any + Send + Sync>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the journal and hands every readable frame, in order, to `replay`.
    pub fn open(
        options: JournalOptions,
        disk: Arc<dyn Disk>,
        replay: &mut dyn FnMut(Frame<'_>),
    ) -> Result<(Journal, JournalReport), OpenError> {
        let dir = options.dir.as_path();
        disk.create_dir_all(dir).during("creating", dir)?;
        let lock = lock(&*disk, dir)?;
        let mut suspects = Suspects::renew(Arc::clone(&disk), dir)?;
        let mut loaded = scan::load(&*disk, dir)?;
        loaded.sync(&mut suspects, dir)?;
        suspects.set_segments(std::iter::empty());
        let mut report = JournalReport { next_lsn: loaded.next_lsn(), ..JournalReport::default() };
        let unreadable = replay_frames(&*disk, &loaded, replay, &mut report)?;
        for skipped in loaded.skipped.iter().chain(&unreadable) {
            let damage = quarantine(&*disk, &dir.join("quarantine"), &loaded, skipped)?;
            if skipped.torn {
                report.torn_bytes += damage.bytes;
            } else {
                report.damage.push(damage);
            }
        }
        for file in loaded.empty_files() {
            disk.remove(&file.path).during("removing", &file.path)?;
        }
        let writer = Writer::new(dir, options.file_bytes, options.durability, loaded.start(), suspects);
        let shared = Shared::new(writer.bytes());
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run(writer)
            })
            .during("starting the commit thread for", dir)?;
        Ok((Journal { shared, thread: Some(thread), _lock: lock }, report))
    }

    /// Appends a frame. Compresses on the calling thread.
    pub fn append(&self, kind: u8, body: Vec<u8>, done: Done) {
        self.shared.push(Body::from_bytes(kind, &body), done);
    }

    /// Appends a frame and waits until it is durable.
    pub fn append_wait(&self, kind: u8, body: Vec<u8>) -> Result<u64, Refusal> {
        let (done, answer) = waiting();
        self.append(kind, body, done);
        answer.recv().unwrap_or(Err(Refusal::Closed))
    }

    /// Lets files go that hold only frames below `below_lsn`.
    pub fn trim(&self, below_lsn: u64) {
        self.shared.trim(below_lsn);
    }

    /// Size of all files.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes()
    }

    /// Writes what waits and ends the thread.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A `Done` and the channel it answers on.
pub(crate) fn waiting() -> (Done, mpsc::Receiver<Result<u64, Refusal>>) {
    let (sender, receiver) = mpsc::sync_channel(1);
    (Box::new(move |answer| drop(sender.send(answer))), receiver)
}

/// Locks a directory, or says who holds it.
pub(crate) fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn std::any::Any + Send + Sync>, OpenError> {
    match disk.lock(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(OpenError::Locked { path: dir.to_owned() }),
        other => other.during("locking", dir),
    }
}

/// Hands over readable frames and returns the others.
fn replay_frames(
    disk: &dyn Disk,
    loaded: &Loaded,
    replay: &mut dyn FnMut(Frame<'_>),
    report: &mut JournalReport,
) -> Result<Vec<Skipped>, OpenError> {
    let mut unreadable = Vec::new();
    let mut files = scan::Files::new(disk, loaded);
    for frame in &loaded.frames {
        let raw = files.frame(frame)?;
        match frame::read_head(raw).and_then(|head| head.body(raw)) {
            Ok(body) => {
                report.frames += 1;
                replay(Frame { lsn: frame.place.lsn, kind: frame.kind, body: &body });
            }
            Err(_) => {
                let range = frame.range.clone();
                unreadable.push(Skipped { file: frame.file, range, torn: false, before: None });
            }
        }
    }
    Ok(unreadable)
}

/// Copies skipped bytes aside. The name says where they were, so a second recovery writes the same file.
pub(crate) fn quarantine(disk: &dyn Disk, dir: &Path, loaded: &Loaded, skipped: &Skipped) -> Result<Damage, OpenError> {
    let file = &loaded.files[skipped.file];
    let bytes = disk::read_all(disk, &file.path).during("reading", &file.path)?;
    let range = skipped.range.start.min(bytes.len())..skipped.range.end.min(bytes.len());
    let name = format!("{}-{:x}", writer::file_name(file.sequence), range.start);
    set_aside(disk, dir, &name, &bytes[range.clone()])?;
    Ok(Damage { path: file.path.clone(), offset: range.start as u64, bytes: range.len() as u64, rows: 0 })
}

/// Writes `bytes` durably to a file in a quarantine folder, replacing one of that name.
pub(crate) fn set_aside(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> Result<(), OpenError> {
    disk.create_dir_all(dir).during("creating", dir)?;
    let path = dir.join(name);
    let file = match disk.open(&path, Open::Create) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => disk.open(&path, Open::Write),
        other => other,
    }
    .during("creating", &path)?;
    file.write_at(bytes, 0)
        .and_then(|()| file.set_len(bytes.len() as u64))
        .and_then(|()| file.sync())
        .and_then(|()| disk.sync_dir(dir))
        .during("writing", &path)
}
