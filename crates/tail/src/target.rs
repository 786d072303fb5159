//! What is followed: paths and patterns, and how they are found in the file system.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};

use crate::budget::Budget;

/// Folders that `**` goes down.
const DEPTH: usize = 32;

/// Files that are read in the same way.
#[derive(Debug, Clone)]
pub struct Target {
    /// Tells it from the other targets.
    pub key: Arc<str>,
    /// What keeps positions apart when two targets follow one file, and the label of metrics.
    pub scope: Arc<str>,
    /// Bytes of a line that are kept.
    pub max_line_bytes: usize,
    /// Bytes of its files that may be in flight.
    pub budget: Arc<Budget>,
    include: Vec<Pattern>,
    exclude: GlobSet,
    /// Where alone files are looked for.
    only: Option<PathBuf>,
    /// Folders that are not gone down.
    without: Vec<PathBuf>,
}

/// A pattern that is none.
#[derive(Debug, thiserror::Error)]
#[error("{pattern:?} is not a pattern for files: {reason}")]
pub struct BadPattern {
    /// The text.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

#[derive(Debug, Clone)]
struct Pattern {
    text: PathBuf,
    /// The part without wildcards, and one matcher for each further component.
    root: PathBuf,
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
enum Step {
    /// `**`: any number of folders.
    Any,
    Name(GlobMatcher),
}

fn glob(text: &str) -> Result<globset::Glob, BadPattern> {
    let bad = |error: globset::Error| BadPattern { pattern: text.to_owned(), reason: error.kind().to_string() };
    GlobBuilder::new(text).literal_separator(true).build().map_err(bad)
}

/// The folder of a path or pattern: below it are all files that it can name.
#[must_use]
pub fn folder(pattern: &str) -> &Path {
    let mut above = Path::new(pattern).ancestors().skip(1);
    above.find(|folder| !has_wildcard(&folder.to_string_lossy())).unwrap_or(Path::new("/"))
}

fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

impl Pattern {
    fn new(text: &str) -> Result<Pattern, BadPattern> {
        glob(text)?;
        let path = PathBuf::from(text);
        let mut root = PathBuf::new();
        let mut steps = Vec::new();
        for component in path.components() {
            let name = component.as_os_str().to_str().unwrap_or_default();
            match component {
                Component::Normal(_) if name == "**" => steps.push(Step::Any),
                Component::Normal(_) if !steps.is_empty() || has_wildcard(name) => steps.push(Step::Name(glob(name)?.compile_matcher())),
                _ => root.push(component),
            }
        }
        Ok(Pattern { text: path, root, steps })
    }
}

impl Target {
    /// Follows what matches one of `include` and none of `exclude`: absolute paths, with `*`, `?`, `[ab]`, `{a,b}` within a
    /// name and `**` for any number of folders.
    ///
    /// # Errors
    /// The first pattern that is none.
    pub fn new(key: &str, scope: &str, include: &[String], exclude: &[String], budget: Arc<Budget>) -> Result<Target, BadPattern> {
        let include = include.iter().map(|text| Pattern::new(text)).collect::<Result<_, _>>()?;
        let mut set = GlobSetBuilder::new();
        for text in exclude {
            set.add(glob(text)?);
        }
        let exclude = set.build().map_err(|error| BadPattern { pattern: exclude.join(", "), reason: error.to_string() })?;
        Ok(Target {
            key: key.into(),
            scope: scope.into(),
            max_line_bytes: 1 << 20,
            budget,
            include,
            exclude,
            only: None,
            without: Vec::new(),
        })
    }

    /// The same with another limit of a line.
    #[must_use]
    pub fn max_line_bytes(self, bytes: usize) -> Target {
        Target { max_line_bytes: bytes.max(1), ..self }
    }

    /// The same, of which only the files in `folder` and below are followed. Folders beside it are not looked into.
    #[must_use]
    pub fn only_in(self, folder: &Path) -> Target {
        Target { only: Some(folder.to_owned()), ..self }
    }

    /// The same without the files in `folders` and below, which are not looked into.
    #[must_use]
    pub fn without(self, folders: Vec<PathBuf>) -> Target {
        Target { without: folders, ..self }
    }

    /// Whether a pattern may find files in `folder` or below it, which is not looked into.
    #[must_use]
    pub fn reaches(&self, folder: &Path) -> bool {
        let names = |below: &Path| below.iter().map(std::ffi::OsStr::to_owned).collect::<Vec<_>>();
        let reached = |pattern: &Pattern| folder.strip_prefix(&pattern.root).is_ok_and(|below| reaches(&pattern.steps, &names(below)));
        self.include.iter().any(reached)
    }

    /// Whether files can be in `dir` or below it.
    fn enters(&self, dir: &Path) -> bool {
        let on_the_way = |only: &PathBuf| dir.starts_with(only) || only.starts_with(dir);
        self.only.as_ref().is_none_or(on_the_way) && !self.without.iter().any(|folder| folder == dir)
    }

    /// Whether two targets follow the same files.
    pub(crate) fn same_files(&self, other: &Target) -> bool {
        let part = |target: &Target| (target.only.clone(), target.without.clone());
        self.scope == other.scope
            && part(self) == part(other)
            && self.include.iter().map(|p| &p.text).eq(other.include.iter().map(|p| &p.text))
    }

    /// Whether the file is named as it is, so that it is waited for.
    pub(crate) fn names(&self, path: &Path) -> bool {
        self.include.iter().any(|pattern| pattern.steps.is_empty() && pattern.text == path)
    }

    /// The paths that exist or are named, and the folders in which more may come up.
    pub(crate) fn find(&self) -> Discovered {
        let mut found = Discovered::default();
        for pattern in &self.include {
            if pattern.steps.is_empty() {
                found.paths.insert(pattern.text.clone());
            } else {
                self.walk(&pattern.root, &pattern.steps, 0, &mut found);
            }
        }
        found
    }

    fn walk(&self, dir: &Path, steps: &[Step], depth: usize, found: &mut Discovered) {
        let Some((step, rest)) = steps.split_first() else { return };
        if !self.enters(dir) {
            return;
        }
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) => {
                if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
                    found.unreadable.insert(dir.to_owned(), error);
                }
                return;
            }
        };
        found.dirs.insert(dir.to_owned());
        if matches!(step, Step::Any) {
            self.walk(dir, rest, depth, found);
        }
        for entry in entries.flatten() {
            let path = entry.path();
            match step {
                // Links to folders are not gone down: they may lead back.
                Step::Any if depth < DEPTH && entry.file_type().is_ok_and(|kind| kind.is_dir()) => {
                    self.walk(&path, steps, depth + 1, found)
                }
                Step::Name(name) if name.is_match(entry.file_name()) => {
                    if !rest.is_empty() {
                        self.walk(&path, rest, depth, found);
                    } else if self.only.as_ref().is_none_or(|only| path.starts_with(only))
                        && !self.exclude.is_match(&path)
                        && !entry.file_type().is_ok_and(|kind| kind.is_dir())
                    {
                        found.paths.insert(path);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Whether `steps` lead into the folder of these names.
fn reaches(steps: &[Step], names: &[std::ffi::OsString]) -> bool {
    match (steps, names) {
        ([], _) => false,
        (_, []) => true,
        ([Step::Any, rest @ ..], [_, below @ ..]) => reaches(rest, names) || reaches(steps, below),
        ([Step::Name(name), rest @ ..], [first, below @ ..]) => name.is_match(first) && reaches(rest, below),
    }
}

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Discovered {
    pub(crate) paths: BTreeSet<PathBuf>,
    pub(crate) dirs: BTreeSet<PathBuf>,
    /// Folders that are there and cannot be looked into.
    pub(crate) unreadable: BTreeMap<PathBuf, Error>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_found_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for folder in ["a", "a/b/c", "d"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        for file in ["0.log", "a/1.log", "a/b/2.log", "a/b/c/3.log", "d/4.log"] {
            std::fs::write(at(file), "").unwrap();
        }
        let target = || {
            let budget = crate::Budgets::default().budget(1);
            Target::new("k", "s", &[format!("{}/**/*.log", dir.path().display())], &[], budget).unwrap()
        };
        let names = |target: &Target| -> Vec<String> {
            target.find().paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&target()), ["0.log", "1.log", "2.log", "3.log", "4.log"]);
        let (rest, part) = (target().without(vec![at("a")]), target().only_in(&at("a")).without(vec![at("a/b/c")]));
        assert_eq!(names(&rest), ["0.log", "4.log"]);
        assert_eq!(names(&part), ["1.log", "2.log"]);
        assert!(!rest.find().dirs.contains(&at("a")) && !part.find().dirs.contains(&at("a/b/c")) && !part.find().dirs.contains(&at("d")));
        assert!(rest.same_files(&rest.clone()) && !rest.same_files(&target()) && !part.same_files(&rest));
    }

    #[test]
    fn a_pattern_reaches_the_folders_that_its_steps_lead_into() {
        let reaches = |pattern: &str, folder: &str| {
            let budget = crate::Budgets::default().budget(1);
            Target::new("k", "s", &[pattern.to_owned()], &[], budget).unwrap().reaches(Path::new(folder))
        };
        for (pattern, folder) in [("/l/**/*.log", "/l/a"), ("/l/**/*.log", "/l/a/b/c"), ("/l/*/x/*.log", "/l/a/x"), ("/l/a*/**", "/l/ab/c")]
        {
            assert!(reaches(pattern, folder), "{pattern} {folder}");
        }
        for (pattern, folder) in
            [("/l/*.log", "/l/a"), ("/l/a.log", "/l/a"), ("/l/*/x/*.log", "/l/a/y"), ("/l/b*/**", "/l/ab"), ("/l/**", "/m")]
        {
            assert!(!reaches(pattern, folder), "{pattern} {folder}");
        }
    }

    #[test]
    fn the_folder_of_a_pattern_has_no_wildcard() {
        let folders =
            ["/var/log/app.log", "/var/log/*.log", "/var/*/app.log", "/srv/**/*.log", "/srv/a[b]/{c,d}/e", "/*", "/app.log"].map(folder);
        assert_eq!(folders.map(|folder| folder.to_str().unwrap()), ["/var/log", "/var/log", "/var", "/srv", "/srv", "/", "/"]);
    }
}
