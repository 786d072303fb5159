//! The rotated files of a log: those beside it with its name and a number or a date, perhaps compressed.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::source::Stat;

/// Names that loggers give the one older file.
const OLD: [&[u8]; 3] = [b"old", b"bak", b"prev"];

/// A rotated file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sibling {
    pub(crate) path: PathBuf,
    pub(crate) stat: Stat,
    pub(crate) gz: bool,
    age: Age,
}

/// What a name says about age.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Age {
    /// `app.log.3` is older than `app.log.2`.
    Count(std::cmp::Reverse<Vec<u64>>),
    /// `app.log-20260102` is newer than `app.log-20260101`.
    Date(Vec<u64>),
    /// `app.log.old`
    Unknown,
}

/// Whether a file called `name` is a rotated form of `base`, and which.
pub(crate) fn rotated(base: &OsStr, name: &OsStr) -> Option<Age> {
    let (base, name) = (base.as_bytes(), name.as_bytes());
    let plain = name.strip_suffix(b".gz").unwrap_or(name);
    if plain == base {
        return (plain != name).then_some(Age::Unknown);
    }
    if let Some(rest) = plain.strip_prefix(base) {
        return age(rest);
    }
    // app-20260101.log: only dates, since app-1.log may be a log of its own.
    let dot = base.iter().rposition(|byte| *byte == b'.')?;
    let rest = plain.strip_prefix(&base[..dot])?.strip_suffix(&base[dot..])?;
    age(rest).filter(|age| matches!(age, Age::Date(_)))
}

fn age(rest: &[u8]) -> Option<Age> {
    let text = rest.strip_prefix(b".").or_else(|| rest.strip_prefix(b"-")).or_else(|| rest.strip_prefix(b"_"))?;
    if OLD.contains(&text) {
        return Some(Age::Unknown);
    }
    let allowed = |byte: &u8| byte.is_ascii_digit() || b"-_.:+TZ".contains(byte);
    if text.is_empty() || !text.iter().all(allowed) {
        return None;
    }
    let numbers: Vec<u64> = text
        .split(|byte| !byte.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.iter().fold(0, |n: u64, digit| n.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
        .collect();
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    match digits {
        0 => None,
        1..8 => Some(Age::Count(std::cmp::Reverse(numbers))),
        _ => Some(Age::Date(numbers)),
    }
}

/// The rotated files of `base` in `dir`, oldest first.
pub(crate) fn list(dir: &Path, base: &OsStr) -> io::Result<Vec<Sibling>> {
    let mut previous = list_once(dir, base)?;
    // Renaming goes on while we look: what is seen twice in a row was there together.
    for _ in 0..8 {
        let next = list_once(dir, base)?;
        let same = next.len() == previous.len() && next.iter().zip(&previous).all(|(a, b)| a.path == b.path && a.stat.id == b.stat.id);
        previous = next;
        if same {
            break;
        }
    }
    Ok(previous)
}

fn list_once(dir: &Path, base: &OsStr) -> io::Result<Vec<Sibling>> {
    let mut found: Vec<Sibling> = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Some(age) = rotated(base, &entry.file_name()) else { continue };
        let path = entry.path();
        let Ok(stat) = Stat::of(&path) else { continue };
        let gz = path.extension().is_some_and(|extension| extension == "gz");
        if stat.regular && !found.iter().any(|other| other.stat.id == stat.id) {
            found.push(Sibling { path, stat, gz, age });
        }
    }
    // A file and its compressed form: the compression goes on.
    let plain: Vec<PathBuf> = found.iter().filter(|s| !s.gz).map(|s| s.path.clone()).collect();
    found.retain(|s| !s.gz || !plain.contains(&s.path.with_extension("")));
    let by_name = found.windows(2).all(|pair| std::mem::discriminant(&pair[0].age) == std::mem::discriminant(&pair[1].age));
    if by_name && found.first().is_some_and(|s| s.age != Age::Unknown) {
        found.sort_by(|a, b| a.age.cmp(&b.age));
    } else {
        found.sort_by_key(|s| s.stat.mtime);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(base: &str, name: &str) -> Option<Age> {
        rotated(OsStr::new(base), OsStr::new(name))
    }

    #[test]
    fn names_of_logrotate_kubelet_and_loggers_are_known_and_others_are_not() {
        for name in ["app.log.1", "app.log.12.gz", "app.log-20260101", "app.log-20260101.gz", "app.log.2026-01-01T10:00:00Z", "app.log.old"]
        {
            assert!(of("app.log", name).is_some(), "{name}");
        }
        assert!(of("0.log", "0.log.20260101-120000.gz").is_some());
        assert!(of("app.log", "app-20260101.log.gz").is_some());
        assert!(of("app.log", "app.log.gz").is_some());
        for name in ["app.log", "app-1.log", "app.log-errors.log", "app.log.d", "app.logs.1", "1.log", "app.log.", "xapp.log.1"] {
            assert!(of("app.log", name).is_none(), "{name}");
        }
    }

    #[test]
    fn larger_counts_are_older_and_larger_dates_are_newer() {
        assert!(of("a", "a.2") < of("a", "a.1"));
        assert!(of("a", "a.10") < of("a", "a.9.gz"));
        assert!(of("a", "a-20260101") < of("a", "a-20260102.gz"));
        assert!(of("a", "a.20260101-000000") < of("a", "a.20260101-000001"));
    }
}
