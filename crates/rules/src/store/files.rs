//! Rules in YAML files: a folder, or one file. No cluster needed.
//!
//! Files are looked at every two seconds by their modification time, size and inode, and read again when one of these
//! changed. Notification by the kernel would be quicker by a second, but is silent on network file systems and easily lost
//! when an editor or a mounted ConfigMap swaps files by renaming; a folder of rules is a handful of `stat` calls.
//!
//! A mistake costs the document that has it. While a file has one, those of its objects that were good before and that the
//! file no longer shows stay as they were, also over a restart; [`Folder::errors`] says what is wrong and where.
//!
//! What an API server would keep — status, generation, uid, finalizers and whatever else is written to an object — is kept
//! in `rules.sqlite` in the data folder. A value written to metadata or spec outweighs the file's.

use std::any::Any;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use jiff::Timestamp;
use kube::ResourceExt as _;
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

use self::parse::{Document, Kind, Mistake};
use self::state::{State, Stored};
use self::statuses::{NewVersion, StatusWrite, Waiting, Written};
use super::{Change, Event, Key, Object, Objects, Publisher, Severity, Store, StoreError, documents};

mod parse;
mod state;
mod statuses;
#[cfg(test)]
mod tests;

pub use self::parse::FileError;

/// How often files are looked at.
const POLL: Duration = Duration::from_secs(2);
/// A file that was written less than this before it was read may be written again within the same tick of its clock.
const SETTLED: Duration = Duration::from_secs(1);
/// Larger files are refused.
const MAX_FILE: u64 = 16 << 20;
/// How often a status is made anew because somebody else wrote in between; each time means that somebody got on.
const CONFLICTS: usize = 100;
/// Folders with more files are refused.
const MAX_FILES: usize = 10_000;

/// Why a folder of rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The folder or file, or the data folder.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Another version wrote the data.
    #[error("{path} has layout {version}, this program knows up to {known}: use a newer program or another data folder")]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its layout.
        version: i64,
        /// The newest layout that is known.
        known: i64,
    },
    /// The database.
    #[error("state of the rules: {0}")]
    Database(#[from] rusqlite::Error),
    /// Whoever wrote for several has failed.
    #[error("state of the rules: the write was cut off")]
    Interrupted,
}

/// A folder of rule files, shared by the stores of its kinds. Cheap to clone; the last clone or store ends the looking.
#[derive(Clone)]
pub struct Folder {
    shared: Arc<Mutex<Shared>>,
    statuses: Waiting,
    _polling: Arc<AbortOnDropHandle<()>>,
}

struct Shared {
    path: PathBuf,
    state: State,
    files: BTreeMap<PathBuf, Loaded>,
    kinds: HashMap<Kind, Arc<dyn Decoder>>,
    /// Why the folder could not be listed.
    unlisted: Option<FileError>,
    errors: Vec<FileError>,
}

/// A file as it was last read.
struct Loaded {
    /// None: to be read again.
    mark: Option<Mark>,
    documents: Vec<Document>,
    errors: Vec<FileError>,
}

/// By what a change of a file is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    modified: SystemTime,
    size: u64,
    device: u64,
    inode: u64,
}

/// The typed side of one kind.
trait Decoder: Send + Sync {
    fn check(&self, body: &Value) -> Result<(), Mistake>;
    fn publish(&self, rows: &[Stored]);
    fn show(&self, objects: Vec<NewVersion>);
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<K: Object> Decoder for Publisher<K> {
    fn check(&self, body: &Value) -> Result<(), Mistake> {
        parse::decode::<K>(body).map(|_| ())
    }

    fn publish(&self, rows: &[Stored]) {
        let objects = rows.iter().map(|row| {
            let object = row.object().map(serde_json::from_value::<K>).transpose();
            (row.key.clone(), object)
        });
        let objects: Vec<_> = objects.collect();
        Publisher::publish(self, |map| {
            for (key, object) in objects {
                match object {
                    Ok(Some(object)) => drop(map.insert(key, Arc::new(object))),
                    Ok(None) => drop(map.remove(&key)),
                    Err(error) => tracing::error!(%key, %error, "the stored object cannot be read"),
                }
            }
        });
    }

    fn show(&self, objects: Vec<NewVersion>) {
        Publisher::publish(self, |map| {
            for NewVersion { key, version, object } in objects {
                // Of another type is nothing: whoever writes a kind has its type.
                let Ok(mut object) = object.downcast::<K>() else { continue };
                object.meta_mut().resource_version = Some(version.to_string());
                map.insert(key, Arc::from(object));
            }
        });
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl Folder {
    /// Opens a folder of `*.yaml`, `*.yml` and `*.json` files (its subfolders are not read), or one file. Status is kept
    /// in `data`. Nothing is read before [`Self::store`] says for which kinds.
    ///
    /// Must be called within a tokio runtime.
    pub fn open(path: &Path, data: &Path) -> Result<Self, FilesError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| FilesError::Io { path, source }
        };
        fs::metadata(path).map_err(io(path))?;
        fs::create_dir_all(data).map_err(io(data))?;
        let state = State::open(&data.join("rules.sqlite"), Timestamp::now())?;
        let shared =
            Shared { path: path.to_owned(), state, files: BTreeMap::new(), kinds: HashMap::new(), unlisted: None, errors: Vec::new() };
        let shared = Arc::new(Mutex::new(shared));
        let polling = tokio::spawn({
            let shared = shared.clone();
            async move {
                loop {
                    tokio::time::sleep(POLL).await;
                    on_disk(&shared, |shared| shared.reload(false)).await;
                }
            }
        });
        Ok(Self { shared, statuses: Waiting::default(), _polling: Arc::new(AbortOnDropHandle::new(polling)) })
    }

    /// The objects of one kind. All stores of one kind show the same objects.
    pub async fn store<K: Object>(&self) -> FileStore<K> {
        let kind = (K::api_version(&()).into_owned(), K::kind(&()).into_owned());
        let publisher = on_disk(&self.shared, {
            let kind = kind.clone();
            move |shared| shared.register::<K>(kind)
        });
        FileStore { publisher: publisher.await, kind, folder: self.clone(), writing: tokio::sync::Mutex::default() }
    }

    /// Looks at the files now.
    pub async fn reload(&self) {
        on_disk(&self.shared, |shared| shared.reload(false)).await;
    }

    /// The mistakes that the files have now.
    pub fn errors(&self) -> Vec<FileError> {
        self.shared.lock().errors.clone()
    }
}

/// Runs what reads or writes disks on a thread where it may.
async fn on_disk<T: Send + 'static>(shared: &Arc<Mutex<Shared>>, work: impl FnOnce(&mut Shared) -> T + Send + 'static) -> T {
    let shared = shared.clone();
    match tokio::task::spawn_blocking(move || work(&mut shared.lock())).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is ending.
        Err(_) => std::future::pending().await,
    }
}

impl Shared {
    fn register<K: Object>(&mut self, kind: Kind) -> Arc<Publisher<K>> {
        if let Some(present) = self.kinds.get(&kind)
            && let Ok(publisher) = present.clone().as_any().downcast::<Publisher<K>>()
        {
            return publisher;
        }
        let publisher = Arc::new(Publisher::new());
        self.kinds.insert(kind.clone(), publisher.clone());
        self.files.values_mut().for_each(|file| file.mark = None);
        match self.state.all(&kind) {
            Ok(rows) => Decoder::publish(&*publisher, &rows),
            Err(error) => tracing::error!(%error, kind = kind.1, "cannot read the state of rules"),
        }
        self.reload(true);
        publisher
    }

    /// Reads what has changed and publishes it. With a kind that is new here, what has not changed is published too.
    fn reload(&mut self, new_kind: bool) {
        let (paths, unlisted) = match list(&self.path) {
            Ok(paths) => (paths, None),
            // What was there stays: a file system that is away for a moment must not end all rules.
            Err(error) => (self.files.keys().cloned().collect(), Some(whole(&self.path, &error))),
        };
        let before = self.files.len();
        self.files.retain(|path, _| paths.binary_search(path).is_ok());
        let mut changed = new_kind || unlisted != self.unlisted || self.files.len() < before;
        self.unlisted = unlisted;
        for path in paths {
            changed |= self.read(path);
        }
        if changed {
            let mut errors = self.publish();
            errors.extend(self.unlisted.clone());
            errors.sort();
            for error in errors.iter().filter(|error| !self.errors.contains(error)) {
                tracing::error!(%error, "mistake in a rule file");
            }
            self.errors = errors;
        }
    }

    /// Reads one file if it has changed.
    fn read(&mut self, path: PathBuf) -> bool {
        let before = self.files.get(&path);
        let mark = fs::metadata(&path).and_then(|metadata| mark(&metadata));
        let fresh = match (&mark, before.and_then(|before| before.mark.as_ref())) {
            (Ok(mark), Some(before)) => mark == before,
            _ => false,
        };
        if fresh {
            return false;
        }
        let text = mark.and_then(|mark| Ok((mark, read_bounded(&path)?)));
        let loaded = match text {
            Ok((mark, text)) => {
                let settled = mark.modified.elapsed().is_ok_and(|age| age > SETTLED);
                let (documents, errors) = self.check(&path, &text);
                Loaded { mark: settled.then_some(mark), documents, errors }
            }
            Err(error) => Loaded { mark: None, documents: Vec::new(), errors: vec![whole(&path, &error)] },
        };
        let changed = before.is_none_or(|before| before.documents != loaded.documents || before.errors != loaded.errors);
        self.files.insert(path, loaded);
        changed
    }

    fn check(&self, path: &Path, text: &[u8]) -> (Vec<Document>, Vec<FileError>) {
        let mut good = Vec::new();
        let mut errors = Vec::new();
        for document in parse::documents(text) {
            let checked = document.and_then(|document| {
                let result = match self.kinds.get(&document.kind) {
                    Some(decoder) => decoder.check(&document.body),
                    None if parse::is_known(&document.kind) => Ok(()),
                    None => Err(parse::unknown_kind(&document.kind)),
                };
                result.map(|()| document.clone()).map_err(|mistake| (document.number, mistake))
            });
            match checked {
                Ok(document) => good.push(document),
                Err((number, mistake)) => errors.push(error(path, number, mistake)),
            }
        }
        (good, errors)
    }

    /// Stores and shows the documents of all files. Returns what is wrong with them.
    fn publish(&mut self) -> Vec<FileError> {
        let mut errors: Vec<FileError> = self.files.values().flat_map(|file| file.errors.clone()).collect();
        let kinds: Vec<(Kind, Arc<dyn Decoder>)> = self.kinds.iter().map(|(kind, decoder)| (kind.clone(), decoder.clone())).collect();
        for (kind, decoder) in kinds {
            let mut wanted: BTreeMap<Key, (&Path, &Document)> = BTreeMap::new();
            for (path, file) in &self.files {
                for document in file.documents.iter().filter(|document| document.kind == kind) {
                    if let Some((first, other)) = wanted.get(&document.key) {
                        let place = format!("{}, document {}", first.display(), other.number);
                        let message = format!("{} {} is already in {place}; this one is left out", kind.1, document.key);
                        errors.push(error(path, document.number, Mistake::at("metadata.name", message)));
                    } else {
                        wanted.insert(document.key.clone(), (path, document));
                    }
                }
            }
            let name = |path: &Path| path.to_string_lossy().into_owned();
            let mut rows: Vec<(Key, String, Value)> =
                wanted.iter().map(|(key, (path, document))| (key.clone(), name(path), document.body.clone())).collect();
            let broken: HashSet<String> =
                self.files.iter().filter(|(_, file)| !file.errors.is_empty()).map(|(path, _)| name(path)).collect();
            let stored = self.state.all(&kind).map(|present| {
                let kept =
                    present.into_iter().filter(|row| row.deleted.is_none() && broken.contains(&row.file) && !wanted.contains_key(&row.key));
                rows.extend(kept.map(|row| (row.key, row.file, row.document)));
            });
            match stored.and_then(|()| self.state.replace(&kind, rows, Timestamp::now())) {
                Ok(changed) if changed.is_empty() => {}
                Ok(changed) => decoder.publish(&changed),
                Err(error) => tracing::error!(%error, kind = kind.1, "cannot store rules; they stay as they were"),
            }
        }
        errors
    }
}

/// What is wrong with a whole file.
fn whole(file: &Path, error: &io::Error) -> FileError {
    FileError { file: file.to_owned(), document: None, path: None, message: error.to_string() }
}

fn error(file: &Path, document: usize, mistake: Mistake) -> FileError {
    FileError { file: file.to_owned(), document: Some(document), path: mistake.path, message: mistake.message }
}

/// The rule files, in order: the path itself or what the folder has, hidden files excepted.
fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let path = entry.path();
        let named = path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if named && !hidden && is_file(&entry, &path) {
            paths.push(path);
        }
        if paths.len() > MAX_FILES {
            return Err(io::Error::other(format!("more than {MAX_FILES} rule files")));
        }
    }
    paths.sort();
    Ok(paths)
}

/// Whether it is a file or a link to one; only links need to be looked at for that.
fn is_file(entry: &fs::DirEntry, path: &Path) -> bool {
    entry.file_type().is_ok_and(|kind| if kind.is_symlink() { path.is_file() } else { kind.is_file() })
}

fn mark(metadata: &fs::Metadata) -> io::Result<Mark> {
    Ok(Mark { modified: metadata.modified()?, size: metadata.len(), device: metadata.dev(), inode: metadata.ino() })
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("is larger than {} MiB; split it", MAX_FILE >> 20)));
    }
    Ok(text)
}

/// The objects of one kind in a [`Folder`].
pub struct FileStore<K> {
    publisher: Arc<Publisher<K>>,
    kind: Kind,
    folder: Folder,
    /// Changes of metadata and spec are made to the present object, one after another.
    writing: tokio::sync::Mutex<()>,
}

impl<K: Object> FileStore<K> {
    /// The folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    async fn write(
        &self,
        write: impl FnOnce(&State, &Kind) -> Result<Option<Stored>, FilesError> + Send + 'static,
    ) -> Result<(), FilesError> {
        let kind = self.kind.clone();
        let publisher = self.publisher.clone();
        on_disk(&self.folder.shared, move |shared| {
            let row = write(&shared.state, &kind)?;
            row.iter().for_each(|row| Decoder::publish(&*publisher, std::slice::from_ref(row)));
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl<K: Object> Store<K> for FileStore<K> {
    fn objects(&self) -> Objects<K> {
        self.publisher.objects()
    }

    async fn update_status(&self, key: &Key, change: Change<'_, K>) -> Result<(), StoreError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::status::<K>(key, source);
        for _ in 0..CONFLICTS {
            let Some(old) = self.objects().get(key) else { return Ok(()) };
            let Some(new) = documents::changed_status(&*old, change).map_err(|error| failed(error.into()))? else { return Ok(()) };
            let status = documents::status_of(&new).map_err(|error| failed(error.into()))?;
            let version = old.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default();
            let write = StatusWrite { kind: self.kind.clone(), key: key.clone(), version, status, object: Box::new(new) };
            let written = self.folder.statuses.write(&self.folder.shared, write).await;
            if let Written::As(_) = written.map_err(|error| failed(error.into()))? {
                return Ok(());
            }
        }
        Err(failed("it changes all the time".into()))
    }

    async fn update(&self, key: &Key, change: Change<'_, K>) -> Result<(), StoreError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::object::<K>(key, source);
        let _one = self.writing.lock().await;
        let Some(old) = self.objects().get(key) else { return Ok(()) };
        let Some(new) = documents::changed_object(&*old, change).map_err(|error| failed(error.into()))? else { return Ok(()) };
        let both = documents::without_status(&*old).and_then(|old| Ok((old, documents::without_status(&new)?)));
        let (old, new) = both.map_err(|error| failed(error.into()))?;
        let patch = documents::merge_diff(&old, &new);
        let key = key.clone();
        self.write(move |state, kind| state.patch(kind, &key, &patch)).await.map_err(|error| failed(error.into()))
    }

    async fn event(&self, object: &K, event: Event) {
        let Event { severity, action, reason, note } = event;
        let (kind, object) = (&self.kind.1, Key::of(object));
        match severity {
            Severity::Normal => tracing::info!(kind, %object, action, reason, "{note}"),
            Severity::Warning => tracing::warn!(kind, %object, action, reason, "{note}"),
        }
    }
}
