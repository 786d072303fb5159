//! The folder that holds everything, locked so that two processes do not share it.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use etcetera::base_strategy::{BaseStrategy, choose_base_strategy};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// An opened data folder; the lock is held until this is dropped.
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens `path` or the user's data folder, creating it if needed.
    pub(crate) fn open(path: Option<PathBuf>) -> Result<DataDir> {
        let path = match path {
            Some(path) => path,
            None => user_data().context("there is no home folder; name a folder with --data-dir")?,
        };
        let unusable = || format!("the data folder {} cannot be used; choose another with --data-dir", path.display());
        std::fs::create_dir_all(&path).with_context(unusable)?;
        let lock = File::create(path.join("lock")).with_context(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(DataDir { path, _lock: lock }),
            Err(Errno::WOULDBLOCK) => {
                bail!("another adx-mon runs in {}; stop it, or choose another folder with --data-dir", path.display())
            }
            Err(error) => Err(error).with_context(unusable),
        }
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A folder inside, created if needed.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.path.join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(folder)
    }
}

/// Where the system wants the user's data of this program.
pub(crate) fn user_data() -> Option<PathBuf> {
    choose_base_strategy().ok().map(|folders| folders.data_dir().join("adx-mon"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(Some(folder.path().to_owned())).unwrap();
        let error = DataDir::open(Some(folder.path().to_owned())).err().unwrap().to_string();
        assert!(error.contains("another adx-mon") && error.contains("--data-dir"), "{error}");
        drop(first);
        DataDir::open(Some(folder.path().to_owned())).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_named_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("below")] {
            let error = DataDir::open(Some(path.clone())).err().unwrap().to_string();
            assert!(error.contains(&path.display().to_string()) && error.contains("--data-dir"), "{error}");
        }
    }
}
