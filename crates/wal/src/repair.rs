//! Mending a single segment file that belongs to no journal: its readable blocks take its place, the rest is kept.

use std::io;
use std::path::{Path, PathBuf};

use crate::OpenError;
use crate::disk::{Disk, Open};
use crate::error::During;
use crate::inspect::{self, Checked};
use crate::journal::set_aside;
use crate::segment::HEADER;

/// How much is copied at a time.
const PIECE: usize = 1 << 20;

/// What became of a file.
#[derive(Debug, Clone)]
pub struct Repaired {
    /// What was readable, and is in the file now.
    pub kept: Checked,
    /// Files of the quarantine folder with the damaged bytes.
    pub aside: Vec<PathBuf>,
}

/// Writes the readable blocks of `path` to a new file beside it, which takes its place when it is durable. Damaged bytes
/// are copied to `quarantine/` first. An intact file stays as it is.
///
/// # Errors
/// A file cannot be read or written, the file is part of a directory with a journal, or it is no segment at all; then
/// it is as it was.
pub fn file(disk: &dyn Disk, path: &Path) -> Result<Repaired, OpenError> {
    let refuse = |why: &str| OpenError::Io { action: "repairing", path: path.to_owned(), source: io::Error::other(why.to_owned()) };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| refuse("its name is not text"))?;
    if inspect::has_journal(disk, dir) {
        return Err(refuse("it is part of a directory with a journal: repair the directory"));
    }
    let (_, kept) = inspect::file(disk, path).during("reading", path)?;
    if kept.damaged.is_empty() {
        return Ok(Repaired { kept, aside: Vec::new() });
    }
    if kept.damaged[0].0.start == 0 {
        return Err(refuse("it does not begin as a segment does"));
    }
    let old = disk.open(path, Open::Read).during("opening", path)?;
    let quarantine = dir.join("quarantine");
    let mut aside = Vec::new();
    for (range, _) in &kept.damaged {
        let len = usize::try_from(range.end - range.start).map_err(|_| refuse("too much is damaged"))?;
        let mut bytes = vec![0; len];
        old.read_at(&mut bytes, range.start).during("reading", path)?;
        let name = format!("{name}-{:x}", range.start);
        set_aside(disk, &quarantine, &name, &bytes)?;
        aside.push(quarantine.join(name));
    }
    let new_path = dir.join(format!("{name}.tmp"));
    match disk.remove(&new_path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).during("removing", &new_path),
        _ => {}
    }
    let new = disk.open(&new_path, Open::Create).during("creating", &new_path)?;
    new.write_at(&HEADER, 0).during("writing", &new_path)?;
    let (mut to, mut piece) = (HEADER.len() as u64, vec![0; PIECE]);
    for range in &kept.good {
        let mut at = range.start;
        while at < range.end {
            let len = usize::try_from(range.end - at).map_or(PIECE, |left| left.min(PIECE));
            let read = old.read_at(&mut piece[..len], at).during("reading", path)?;
            if read == 0 {
                return Err(refuse("it became shorter meanwhile"));
            }
            new.write_at(&piece[..read], to).during("writing", &new_path)?;
            (at, to) = (at + read as u64, to + read as u64);
        }
    }
    new.sync().during("syncing", &new_path)?;
    disk.rename(&new_path, path).during("renaming", &new_path)?;
    disk.sync_dir(dir).during("syncing", dir)?;
    Ok(Repaired { kept, aside })
}
