//! Which of the paths that were found are logs, and which are rotated files of those.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::siblings::{self, Age};

/// A log and its rotated files, oldest first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) path: PathBuf,
    pub(crate) rotated: Vec<PathBuf>,
}

/// Groups paths into logs.
pub(crate) fn logs(paths: BTreeSet<PathBuf>) -> Vec<Log> {
    let mut rotated: BTreeMap<PathBuf, Vec<(Age, PathBuf)>> = BTreeMap::new();
    let mut logs = Vec::new();
    for path in &paths {
        match base(path, &paths) {
            Some((base, age)) => rotated.entry(base).or_default().push((age, path.clone())),
            None => logs.push(path.clone()),
        }
    }
    let log = |path: PathBuf| {
        let mut rotated = rotated.remove(&path).unwrap_or_default();
        rotated.sort();
        Log { path, rotated: rotated.into_iter().map(|(_, path)| path).collect() }
    };
    logs.into_iter().map(log).collect()
}

/// The log among `paths` of which `path` is a rotated file.
fn base(path: &Path, paths: &BTreeSet<PathBuf>) -> Option<(PathBuf, Age)> {
    let name = path.file_name()?;
    let bytes = name.as_bytes();
    let ends = (1..bytes.len()).filter(|i| b".-_".contains(&bytes[*i]));
    let extension = Path::new(name).extension().filter(|extension| *extension != "gz").unwrap_or(OsStr::new("log"));
    let candidates = ends.flat_map(|end| {
        let stem = OsStr::from_bytes(&bytes[..end]);
        let mut dated = stem.to_owned();
        dated.push(".");
        dated.push(extension);
        [stem.to_owned(), dated]
    });
    candidates.into_iter().find_map(|base| {
        let age = siblings::rotated(&base, name)?;
        let base = path.with_file_name(base);
        paths.contains(&base).then_some((base, age))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_belong_to_their_log_and_are_logs_without_one() {
        let names = ["/l/a.log", "/l/a.log.1", "/l/a.log.2.gz", "/l/a-20260101.log", "/l/b.log.1", "/l/a-1.log", "/m/a.log.1"];
        let paths = names.iter().map(PathBuf::from).collect();
        let mut found: Vec<(String, Vec<String>)> = logs(paths)
            .into_iter()
            .map(|log| (log.path.display().to_string(), log.rotated.iter().map(|path| path.display().to_string()).collect()))
            .collect();
        found.sort();
        let none = |path: &str| (path.to_owned(), Vec::new());
        let rotated = ["/l/a.log.2.gz", "/l/a.log.1", "/l/a-20260101.log"].map(str::to_owned).to_vec();
        let expected = vec![none("/l/a-1.log"), ("/l/a.log".to_owned(), rotated), none("/l/b.log.1"), none("/m/a.log.1")];
        assert_eq!(found, expected);
    }
}
