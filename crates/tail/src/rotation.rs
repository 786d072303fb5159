//! Where the contents of a path went when another file took its place, and what came between.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::content::{Cursor, HEAD, Print};
use crate::siblings::{self, Sibling};
use crate::source::Source;
use crate::stats::Stats;
use crate::stream::{Followed, Stream, Turn};

/// How soon a file that is still being compressed is looked at again.
const COMPRESSING: Duration = Duration::from_secs(1);

/// What a rotated file turned out to be.
enum Known {
    /// It has the content of this file.
    Is(usize, Box<Source>),
    /// It is a copy of a content that is being read elsewhere.
    Copy,
    /// It was never seen.
    New(Box<Source>),
    /// It cannot be read yet.
    Unfinished,
    /// It went away while we looked.
    Away,
}

impl Stream {
    /// Finds the rotated files that are not read to their ends: those whose content was begun, by inode or, when they were
    /// copied or compressed, by their bytes; and those that are newer, which came and went unseen.
    pub(crate) fn find_rotated(&mut self, turn: &mut Turn<'_>) -> io::Result<()> {
        self.recheck = None;
        let path = Arc::clone(&self.path);
        if self.current && self.files.last_mut().is_some_and(|file| file.has_other_content(&path)) {
            self.begin_anew(turn);
        }
        let listed = siblings::list(&self.dir, &self.base)?;
        let mut claimed = self.by_inode(&listed, turn.stats);
        let mut new = Vec::new();
        for (rank, sibling) in listed.iter().enumerate().rev() {
            if claimed[rank] {
                continue;
            }
            match self.identify(sibling) {
                Known::Is(i, source) => {
                    claimed[rank] = true;
                    self.went_to(i, rank, sibling, *source, turn.stats);
                }
                Known::Copy | Known::Away => claimed[rank] = true,
                Known::Unfinished => self.recheck = Some(turn.now + COMPRESSING),
                Known::New(_) if self.not_begun(rank, sibling) => claimed[rank] = true,
                Known::New(source) => new.push((rank, source)),
            }
        }
        let rotated = self.rotated();
        // An inode that was used again may belong to a newer file than it did.
        self.files[..rotated].sort_by_key(|file| file.rank.map_or(0, |rank| rank + 1));
        self.unread(&listed, new, turn);
        self.give_up(turn);
        Ok(())
    }

    /// Finds copies of what was at the path before it was truncated, although nothing of it was read, so that its bytes are
    /// not known: newer files that the file at the path does not begin with.
    pub(crate) fn find_copies(&mut self, turn: &Turn<'_>) -> io::Result<()> {
        let Some(since) = self.files.last().map(|file| file.cursor.mtime) else { return Ok(()) };
        let listed = siblings::list(&self.dir, &self.base)?;
        let claimed = self.by_inode(&listed, turn.stats);
        let rotated = self.rotated();
        let newest = self.files[..rotated].iter().filter_map(|file| file.rank).max();
        for (rank, sibling) in listed.iter().enumerate().rev() {
            let newer = newest.is_none_or(|newest| rank > newest) && sibling.stat.mtime >= since;
            if claimed[rank] || !newer || sibling.stat.size == 0 {
                continue;
            }
            if let Known::New(mut source) = self.identify(sibling)
                && !self.not_begun(rank, sibling)
                && !self.begins_like(&mut source)?
            {
                self.take_in(rank, sibling, *source, turn.stats);
            }
        }
        Ok(())
    }

    /// Whether the file at the path begins with the bytes of `copy`, so that it was copied but not truncated.
    fn begins_like(&mut self, copy: &mut Source) -> io::Result<bool> {
        let Some(source) = self.files.last_mut().and_then(|file| file.source.as_mut()) else { return Ok(false) };
        let (mut ours, mut theirs) = ([0; HEAD], [0; HEAD]);
        let (our_len, their_len) = (source.read_at(0, &mut ours)?, copy.read_at(0, &mut theirs)?);
        Ok(our_len >= their_len && ours[..their_len] == theirs[..their_len])
    }

    /// Takes in a file before the newer ones.
    fn take_in(&mut self, rank: usize, sibling: &Sibling, source: Source, stats: &Stats) {
        Stats::add(&stats.continued);
        stats.open.fetch_add(1, Ordering::Relaxed);
        let cursor = Cursor::of(sibling.stat.id, sibling.gz, sibling.stat.mtime);
        let rotated = self.rotated();
        let at = self.files[..rotated].iter().position(|file| file.rank.is_some_and(|other| other > rank)).unwrap_or(rotated);
        self.files.insert(at, Followed::rotated(cursor, sibling.path.clone(), source, rank));
    }

    fn rotated(&self) -> usize {
        self.files.len() - usize::from(self.current)
    }

    /// Finds files that kept their inodes; says which of the listed ones are those.
    fn by_inode(&mut self, listed: &[Sibling], stats: &Stats) -> Vec<bool> {
        let rotated = self.rotated();
        let mut claimed = vec![false; listed.len()];
        for file in &mut self.files {
            file.rank = None;
        }
        for (rank, sibling) in listed.iter().enumerate() {
            // A compressed file may have got the inode of the one that it was made of.
            let same = |file: &Followed| file.cursor.id == sibling.stat.id && file.cursor.gz == sibling.gz;
            let Some(i) = self.files.iter().position(same) else { continue };
            if i < rotated && self.files[i].cursor.offset == 0 && self.files[i].source.is_none() {
                // An inode alone says little.
                continue;
            }
            let file = &mut self.files[i];
            if i < rotated && file.has_other_content(&sibling.path) {
                // It was truncated before it was renamed.
                file.detach(stats);
                continue;
            }
            claimed[rank] = true;
            if i < rotated {
                file.found(rank, sibling);
            }
        }
        claimed
    }

    /// Whether a file that has the content of none that was begun is one of those that were not, by its inode.
    fn not_begun(&mut self, rank: usize, sibling: &Sibling) -> bool {
        let rotated = self.rotated();
        let same = |file: &&mut Followed| {
            file.cursor.id == sibling.stat.id && file.cursor.gz == sibling.gz && file.cursor.offset == 0 && file.rank.is_none()
        };
        let file = self.files[..rotated].iter_mut().find(same);
        file.map(|file| file.found(rank, sibling)).is_some()
    }

    fn identify(&mut self, sibling: &Sibling) -> Known {
        let (mut source, stat) = match Source::open(&sibling.path, sibling.gz) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Known::Away,
            Err(_) => return Known::Unfinished,
        };
        if stat.id != sibling.stat.id {
            return Known::Away;
        }
        let rotated = self.rotated();
        for (i, file) in self.files.iter_mut().enumerate().rev() {
            match same_head(&mut source, file) {
                Err(_) => return Known::Unfinished,
                Ok(false) => continue,
                Ok(true) => {}
            }
            let missing = i < rotated && file.rank.is_none();
            let compressed = sibling.gz && file.path == sibling.path.with_extension("");
            if !missing {
                // A copy of the file at the path is looked at again when that turns out to be truncated.
                let copied = i >= rotated && same_before(&mut source, &file.cursor).is_ok_and(|same| same);
                if file.cursor.head.len() == HEAD || compressed || copied {
                    return Known::Copy;
                }
                continue;
            }
            match same_before(&mut source, &file.cursor) {
                Err(_) => return Known::Unfinished,
                Ok(true) => return Known::Is(i, Box::new(source)),
                Ok(false) => {}
            }
        }
        Known::New(Box::new(source))
    }

    fn went_to(&mut self, i: usize, rank: usize, sibling: &Sibling, source: Source, stats: &Stats) {
        let file = &mut self.files[i];
        file.rank = Some(rank);
        if file.source.is_some() {
            // It is open still, and what is open is the whole of it.
            return;
        }
        Stats::add(&stats.continued);
        stats.open.fetch_add(1, Ordering::Relaxed);
        let cursor = Cursor { id: sibling.stat.id, gz: sibling.gz, ..file.cursor };
        *file = Followed::rotated(cursor, sibling.path.clone(), source, rank);
    }

    /// Takes in the files that are newer than what was read, before the one at the path.
    fn unread(&mut self, listed: &[Sibling], new: Vec<(usize, Box<Source>)>, turn: &Turn<'_>) {
        let rotated = &self.files[..self.rotated()];
        let begun = |file: &&Followed| file.cursor.offset > 0;
        let newest = rotated.iter().filter(begun).filter_map(|file| file.rank).max();
        let last_change = rotated.iter().filter(begun).map(Followed::last_change).max();
        // Of a file of which nothing was read, what was there before it was truncated may be in an older one.
        let Some(since) = last_change.or_else(|| rotated.iter().map(|file| file.cursor.mtime).min()) else { return };
        for (rank, source) in new {
            let sibling = &listed[rank];
            if newest.map_or(sibling.stat.mtime >= since, |newest| rank > newest) {
                self.take_in(rank, sibling, *source, turn.stats);
            }
        }
    }

    /// What is neither open nor found is not read on.
    fn give_up(&mut self, turn: &Turn<'_>) {
        let rotated = self.rotated();
        let waiting = self.recheck.is_some();
        for file in &mut self.files[..rotated] {
            if file.rank.is_some() || file.source.is_some() {
                continue;
            }
            file.more = false;
            if !waiting && !file.given_up() {
                Stats::add(&turn.stats.lost);
                tracing::info!(path = %self.path.display(), offset = file.cursor.offset, "a rotated file is gone; if it had more lines than were read, they are lost");
            }
        }
    }
}

impl Followed {
    /// Whether its file, or the one at `path` with its inode, holds something else than what was read.
    pub(crate) fn has_other_content(&mut self, path: &Path) -> bool {
        let differs = |source: &mut Source, cursor: &Cursor| {
            let head = source.head(cursor.head.len()).is_ok_and(|head| head != cursor.head);
            head || same_before(source, cursor).is_ok_and(|same| !same)
        };
        if self.cursor.before.len() == 0 {
            return false;
        }
        if let Some(source) = &mut self.source {
            return differs(source, &self.cursor);
        }
        Source::open(path, self.cursor.gz).is_ok_and(|(mut source, stat)| stat.id == self.cursor.id && differs(&mut source, &self.cursor))
    }

    /// It is in this file.
    fn found(&mut self, rank: usize, sibling: &Sibling) {
        self.rank = Some(rank);
        self.path.clone_from(&sibling.path);
        if self.source.is_some() {
            return;
        }
        if sibling.gz || sibling.stat.size > self.cursor.offset {
            self.wake();
        } else {
            self.settle();
        }
    }

    fn last_change(&self) -> i64 {
        self.source.as_ref().and_then(|source| source.stat().ok()).map_or(self.cursor.mtime, |stat| stat.mtime)
    }
}

fn same_head(source: &mut Source, file: &mut Followed) -> io::Result<bool> {
    let head = match (file.cursor.head, &mut file.source) {
        // Nothing was read of it, but it is open.
        (Print(0, _), Some(open)) => open.head(HEAD)?,
        (head, _) => head,
    };
    if head.len() == 0 {
        return Ok(false);
    }
    let theirs = source.head(head.len())?;
    if theirs.len() < head.len() {
        source.complete()?;
    }
    Ok(theirs == head)
}

fn same_before(source: &mut Source, cursor: &Cursor) -> io::Result<bool> {
    let before = source.print(cursor.check_from(), cursor.before.len())?;
    if before.len() < cursor.before.len() {
        source.complete()?;
    }
    Ok(before == cursor.before)
}
