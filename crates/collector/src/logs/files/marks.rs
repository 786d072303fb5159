//! Positions of files, in the store: one mark for each followed path.
//!
//! A mark holds what the reader of the file had not finished, and where the path stands. A path that has none takes over the
//! one that another target left, or a cursor file of the reference, which is renamed once its position is stored.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tail::{Position, Resume, Target};

use super::Waiting;

const PREFIX: &[u8] = b"tail\0";

/// A cursor file that was taken over gets this name.
const TAKEN: &str = "cursor-taken-over";

/// The positions.
pub(super) struct Marks {
    store: wal::Store,
    dir: PathBuf,
    /// By path: positions of targets that are not configured any more.
    left: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    /// What was found at the start and nobody asked for yet.
    unclaimed: Mutex<HashSet<Vec<u8>>>,
    readers: Waiting<Vec<u8>>,
    cursors: Waiting<PathBuf>,
}

/// The key of a path's mark.
pub(super) fn key(scope: &str, path: &Path) -> Vec<u8> {
    [PREFIX, scope.as_bytes(), b"\0", path.as_os_str().as_bytes()].concat()
}

/// Scope and path of a key.
fn parts(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = key.strip_prefix(PREFIX)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    Some((&rest[..end], &rest[end + 1..]))
}

/// A mark: the state of the reader, with its length before it, and the position.
pub(super) fn encode(reader: &[u8], position: &Position) -> Vec<u8> {
    let length = u32::try_from(reader.len()).unwrap_or(0);
    [&length.to_be_bytes(), reader, &position.encode()].concat()
}

fn decode(value: &[u8]) -> Option<(Vec<u8>, Position)> {
    let (length, rest) = value.split_first_chunk::<4>()?;
    let (reader, position) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    Some((reader.to_vec(), Position::decode(position)?))
}

impl Marks {
    /// What the store has, where `scopes` are those in use.
    pub(super) fn load<'s>(store: &wal::Store, dir: &Path, scopes: impl Iterator<Item = &'s str>) -> Marks {
        let scopes: HashSet<&[u8]> = scopes.map(str::as_bytes).chain([super::PODS.as_bytes()]).collect();
        let mut left = HashMap::new();
        let mut unclaimed = HashSet::new();
        for (key, value) in store.marks_with_prefix(PREFIX) {
            if let Some((scope, path)) = parts(&key)
                && !scopes.contains(scope)
            {
                left.insert(path.to_vec(), value);
            }
            unclaimed.insert(key);
        }
        Marks {
            store: store.clone(),
            dir: dir.to_owned(),
            left: Mutex::new(left),
            unclaimed: Mutex::new(unclaimed),
            readers: Waiting::default(),
            cursors: Waiting::default(),
        }
    }

    /// Where a path stood.
    pub(super) fn resume(self: &Arc<Self>) -> Resume {
        let marks = Arc::clone(self);
        Box::new(move |target: &Target, path: &Path| marks.position(&target.scope, path))
    }

    fn position(&self, scope: &str, path: &Path) -> Option<Position> {
        let key = key(scope, path);
        self.unclaimed.lock().remove(&key);
        let stored = self.store.mark(&key).or_else(|| self.left.lock().remove(path.as_os_str().as_bytes()));
        if let Some((reader, position)) = stored.as_deref().and_then(decode) {
            self.readers.lock().insert(key, reader);
            return Some(position);
        }
        self.reference(key, path)
    }

    fn reference(&self, key: Vec<u8>, path: &Path) -> Option<Position> {
        let name = format!("{}.cursor", path.to_string_lossy().replace('/', "_"));
        let file = self.dir.join(name);
        let text = std::fs::read_to_string(&file).ok()?;
        let position = Position::from_reference(&text);
        match &position {
            Some(position) => tracing::info!(path = %path.display(), ?position, "a cursor of an earlier version is taken over"),
            None => {
                tracing::warn!(cursor = %file.display(), "the cursor of an earlier version cannot be read; its file is read from the start")
            }
        }
        self.cursors.lock().insert(key, file);
        position
    }

    /// What the reader of a path had not finished.
    pub(super) fn reader(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.readers.lock().remove(key).filter(|saved| !saved.is_empty())
    }

    /// The position under `key` is stored.
    pub(super) fn stored(&self, key: &[u8]) {
        if let Some(file) = self.cursors.lock().remove(key)
            && let Err(error) = std::fs::rename(&file, file.with_extension(TAKEN))
        {
            tracing::warn!(cursor = %file.display(), %error, "a cursor that was taken over cannot be renamed; remove it");
        }
    }

    /// Forgets positions of files that nobody follows and that do not exist.
    pub(super) fn forget_missing(&self) {
        let missing = |key: &Vec<u8>| {
            let path = parts(key).map(|(_, path)| Path::new(std::ffi::OsStr::from_bytes(path)))?;
            let error = std::fs::symlink_metadata(path).err()?;
            (error.kind() == std::io::ErrorKind::NotFound).then(|| (key.clone(), Vec::new()))
        };
        let marks: Vec<_> = std::mem::take(&mut *self.unclaimed.lock()).iter().filter_map(missing).collect();
        if marks.is_empty() {
            return;
        }
        tracing::info!(files = marks.len(), "positions of log files that are gone are forgotten");
        self.store.commit(wal::Request { marks, ..wal::Request::default() }, Box::new(|_| {}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pods come and go: what is known of their files goes with the files, also of those that went while nothing ran. The
    /// reference keeps such cursors for ever.
    #[test]
    fn positions_of_files_that_are_gone_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = wal::Store::open(wal::Options::new(dir.path().join("store")), wal::RealDisk::new(), 0).unwrap();
        let there = dir.path().join("there.log");
        std::fs::write(&there, "line\n").unwrap();
        let position = Position::from_reference("{\"fid\":\"1:2\",\"cursor\":3}").unwrap();
        let keys =
            [&there, &dir.path().join("gone.log"), &dir.path().join("gone-but-followed.log")].map(|path| key(super::super::PODS, path));
        let marks = keys.iter().map(|key| (key.clone(), encode(b"", &position))).collect();
        store.commit_wait(wal::Request { marks, ..wal::Request::default() }).unwrap();

        let marks = Marks::load(&store, dir.path(), std::iter::empty());
        assert!(marks.position(super::super::PODS, &dir.path().join("gone-but-followed.log")).is_some());
        marks.forget_missing();
        store.commit_wait(wal::Request { marks: vec![(b"behind".to_vec(), b"it".to_vec())], ..wal::Request::default() }).unwrap();
        assert_eq!(keys.map(|key| store.mark(&key).is_some()), [true, false, true]);
        store.close();
    }

    #[test]
    fn marks_are_read_back() {
        let position = Position::from_reference("{\"fid\":\"1:2\",\"cursor\":3}\n").unwrap();
        assert_eq!(decode(&encode(b"state", &position)), Some((b"state".to_vec(), position.clone())));
        assert_eq!(decode(&encode(b"", &position)), Some((Vec::new(), position)));
        assert_eq!(decode(b"\0\0\0\x09short"), None);
        assert_eq!(parts(&key("a.b", Path::new("/x/y"))), Some((&b"a.b"[..], &b"/x/y"[..])));
    }
}
