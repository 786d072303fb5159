//! Notifications of the kernel about folders.
//!
//! Folders are watched, not files: one watch serves ten thousand logs. Where watching fails, as it does when the user's
//! number of watches is used up, the folder is reported so that it is looked at instead.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

/// A change in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A file was written to.
    Written(Arc<Path>, OsString),
    /// A name came, went, or has another file.
    Renamed(Arc<Path>, OsString),
    /// The folder itself is gone.
    Gone(Arc<Path>),
    /// Changes were lost.
    Lost,
}

/// Watched folders.
#[derive(Debug)]
pub(crate) struct Watcher {
    inotify: Option<OwnedFd>,
    dirs: HashMap<Arc<Path>, i32>,
    paths: HashMap<i32, Arc<Path>>,
    refused: HashMap<PathBuf, ()>,
}

/// Whether a folder is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watched {
    Yes,
    /// It has to be looked at.
    Refused,
    /// There is none.
    Absent,
}

impl Watcher {
    pub(crate) fn new(enabled: bool) -> Watcher {
        let inotify = match inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC) {
            _ if !enabled => None,
            Ok(inotify) => Some(inotify),
            Err(error) => {
                tracing::warn!(%error, "no notifications of log files; they are looked at instead (raise fs.inotify.max_user_instances)");
                None
            }
        };
        Watcher { inotify, dirs: HashMap::new(), paths: HashMap::new(), refused: HashMap::new() }
    }

    pub(crate) fn descriptor(&self) -> Option<OwnedFd> {
        self.inotify.as_ref().and_then(|inotify| inotify.try_clone().ok())
    }

    /// Folders that have to be looked at.
    pub(crate) fn refused(&self) -> usize {
        self.refused.len()
    }

    pub(crate) fn watch(&mut self, dir: &Path) -> Watched {
        if self.dirs.contains_key(dir) {
            return Watched::Yes;
        }
        let Some(inotify) = &self.inotify else {
            self.refused.insert(dir.to_owned(), ());
            return Watched::Refused;
        };
        let flags = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        match inotify::add_watch(inotify, dir, flags) {
            Ok(wd) => {
                let dir: Arc<Path> = dir.into();
                // Two names of one folder have one watch; the older name keeps it.
                if self.paths.contains_key(&wd) {
                    self.refused.insert(dir.to_path_buf(), ());
                    return Watched::Refused;
                }
                self.refused.remove(&*dir);
                self.paths.insert(wd, Arc::clone(&dir));
                self.dirs.insert(dir, wd);
                Watched::Yes
            }
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Watched::Absent,
            Err(error) => {
                if self.refused.is_empty() {
                    tracing::warn!(dir = %dir.display(), %error, "folders of log files cannot be watched and are looked at instead (raise fs.inotify.max_user_watches)");
                }
                self.refused.insert(dir.to_owned(), ());
                Watched::Refused
            }
        }
    }

    /// What has happened since the last call.
    pub(crate) fn changes(&mut self) -> Vec<Change> {
        let Some(inotify) = &self.inotify else { return Vec::new() };
        let mut changes: Vec<Change> = Vec::new();
        let mut gone = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = Reader::new(inotify, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) if io::Error::from(error).kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::warn!(%error, "reading notifications of log files failed");
                    changes.push(Change::Lost);
                    break;
                }
            };
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                changes.push(Change::Lost);
                continue;
            }
            let Some(dir) = self.paths.get(&event.wd()) else { continue };
            if flags.intersects(ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT) {
                gone.push((event.wd(), flags.contains(ReadFlags::IGNORED)));
                changes.push(Change::Gone(Arc::clone(dir)));
                continue;
            }
            let Some(name) = event.file_name() else { continue };
            let name = OsStr::from_bytes(name.to_bytes()).to_owned();
            let change = if flags.contains(ReadFlags::MODIFY) {
                Change::Written(Arc::clone(dir), name)
            } else {
                Change::Renamed(Arc::clone(dir), name)
            };
            if changes.last() != Some(&change) {
                changes.push(change);
            }
        }
        for (wd, ignored) in gone {
            if let Some(dir) = self.paths.remove(&wd) {
                self.dirs.remove(&dir);
            }
            // A folder that was moved away is still watched, under a name that is wrong.
            if let Some(inotify) = self.inotify.as_ref().filter(|_| !ignored) {
                let _ = inotify::remove_watch(inotify, wd);
            }
        }
        changes
    }
}
