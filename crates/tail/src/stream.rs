//! One followed path: the file at it now, and the rotated ones that are not read to their ends yet.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::budget::Budget;
use crate::chunk::{Chunk, StreamId};
use crate::content::{Cursor, FileId, Position};
use crate::lines::{self, Found, Lines, Long, LongBudget};
use crate::source::{Source, Stat};
use crate::stats::Stats;
use crate::target::Target;

/// Rotated files that are read and still remembered, so that they are known when they are compressed.
const REMEMBERED: usize = 4;

/// From one look at a file that nobody should write to any more to the next.
const LINGER_POLL: Duration = Duration::from_millis(250);

/// Pauses after a failure: the first one, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Pause after which a rotated file that cannot be read is left alone, so that it does not hold up the newer ones.
const GIVE_UP: Duration = Duration::from_secs(8);

/// Of a content that no file is known to have.
const NOBODY: FileId = FileId { dev: 0, ino: 0 };

/// What a turn may use.
pub(crate) struct Turn<'a> {
    pub(crate) now: Instant,
    pub(crate) buffer: &'a mut Vec<u8>,
    pub(crate) long: &'a mut LongBudget,
    pub(crate) stats: &'a Stats,
    /// How long a rotated file is kept open at its end.
    pub(crate) linger: Duration,
}

/// How a turn ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Lines(Box<Chunk>),
    /// No line yet, but there is more to read.
    Onward,
    /// Nothing to do before the time, or before something happens.
    Idle(Option<Instant>),
}

/// A content and the file that has it.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) cursor: Cursor,
    pub(crate) path: PathBuf,
    pub(crate) source: Option<Source>,
    long: Option<Box<Long>>,
    /// Whether there may be something to read.
    pub(crate) more: bool,
    /// Size and time of change when it was read to its end.
    seen: Option<(u64, i64)>,
    /// Since when it is at its end, if it is.
    at_end: Option<Instant>,
    /// Its last unfinished line is read too.
    over: bool,
    /// Place among the rotated files when they were last listed.
    pub(crate) rank: Option<usize>,
}

impl Followed {
    pub(crate) fn new(cursor: Cursor, path: PathBuf) -> Followed {
        Followed { cursor, path, source: None, long: None, more: true, seen: None, at_end: None, over: false, rank: None }
    }

    /// One that is open.
    pub(crate) fn rotated(cursor: Cursor, path: PathBuf, source: Source, rank: usize) -> Followed {
        Followed { source: Some(source), rank: Some(rank), ..Followed::new(cursor, path) }
    }

    /// There may be more, whatever was found before.
    pub(crate) fn wake(&mut self) {
        self.more = true;
    }

    /// There is no more.
    pub(crate) fn settle(&mut self) {
        (self.more, self.over) = (false, true);
    }

    /// Its cursor for another path that has it now, if it is read to its end; then it is not known here any more.
    pub(crate) fn handed_over(&mut self) -> Option<Cursor> {
        let cursor = (!self.more).then_some(self.cursor)?;
        self.settle();
        self.cursor.id = NOBODY;
        Some(cursor)
    }

    /// Its file has another content; its own lives on in a copy, perhaps.
    pub(crate) fn detach(&mut self, stats: &Stats) {
        if self.source.take().is_some() {
            stats.open.fetch_sub(1, Ordering::Relaxed);
        }
        self.cursor.id = NOBODY;
        self.settle();
    }

    /// Settles it; says whether it was before.
    pub(crate) fn given_up(&mut self) -> bool {
        let before = self.over && !self.more;
        self.settle();
        before
    }
}

/// A followed path.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) target: Arc<Target>,
    pub(crate) path: Arc<Path>,
    /// Folder and name of the file itself, where `path` is a link.
    pub(crate) dir: PathBuf,
    pub(crate) base: OsString,
    /// Oldest first.
    pub(crate) files: Vec<Followed>,
    /// Whether the last one is the file at the path.
    pub(crate) current: bool,
    /// Whether the path has to be looked at.
    pub(crate) dirty: bool,
    /// Whether positions come from before a restart: device numbers may have changed.
    pub(crate) resumed: bool,
    /// Whether no file was at the path yet.
    first: bool,
    /// Since when nothing is at the path.
    pub(crate) missing: Option<Instant>,
    /// Whether it is no longer wanted.
    pub(crate) leaving: Option<Instant>,
    /// When rotated files have to be listed again.
    pub(crate) recheck: Option<Instant>,
    /// When its next turn is due, if one is.
    pub(crate) scheduled: Option<Instant>,
    failure: Option<(Instant, Duration)>,
    pub(crate) lag: u64,
}

impl Stream {
    /// With the files of a path that is followed from where it stood before.
    pub(crate) fn resumed(id: StreamId, target: Arc<Target>, path: &Path, position: Position) -> Stream {
        let files = position.files.into_iter().map(|cursor| Followed::new(cursor, path.to_owned())).collect();
        Stream { resumed: true, first: false, ..Stream::new(id, target, path, files) }
    }

    /// With the files that are read before the one at the path.
    pub(crate) fn new(id: StreamId, target: Arc<Target>, path: &Path, files: Vec<Followed>) -> Stream {
        Stream {
            id,
            target,
            path: path.into(),
            dir: path.parent().unwrap_or(Path::new("/")).to_owned(),
            base: path.file_name().unwrap_or_default().to_owned(),
            files,
            current: false,
            dirty: true,
            resumed: false,
            first: true,
            missing: None,
            leaving: None,
            recheck: None,
            scheduled: None,
            failure: None,
            lag: 0,
        }
    }

    /// Reads the next lines, of the oldest file that has any.
    pub(crate) fn turn(&mut self, turn: &mut Turn<'_>) -> Outcome {
        if let Some((until, _)) = self.failure.filter(|(until, _)| *until > turn.now) {
            return Outcome::Idle(Some(until));
        }
        if (std::mem::take(&mut self.dirty) || self.recheck.is_some_and(|at| at <= turn.now))
            && let Err(error) = self.look(turn)
        {
            return self.failed(turn, &error, "looking at");
        }
        let mut i = 0;
        while i < self.files.len() {
            match self.read(i, turn) {
                Ok(Step::Lines(lines)) => return Outcome::Lines(Box::new(self.chunk(i, *lines))),
                Ok(Step::Onward) => return Outcome::Onward,
                Ok(Step::Nothing) => i += 1,
                Err(error) if !self.is_current(i) && self.failure.is_some_and(|(_, pause)| pause > GIVE_UP) => {
                    tracing::warn!(path = %self.files[i].path.display(), %error, "a rotated log file cannot be read; its rest is left out");
                    Stats::add(&turn.stats.lost);
                    self.failure = None;
                    self.drop_file(i, turn);
                }
                Err(error) => return self.failed(turn, &error, "reading"),
            }
        }
        self.failure = None;
        self.forget(turn);
        Outcome::Idle(self.wake_at(turn))
    }

    fn failed(&mut self, turn: &Turn<'_>, error: &io::Error, what: &str) -> Outcome {
        Stats::add(&turn.stats.errors);
        let pause = self.failure.map_or(RETRY.0, |(_, pause)| (pause * 2).min(RETRY.1));
        if self.failure.is_none() {
            tracing::warn!(path = %self.path.display(), %error, "{what} a log file failed; trying again in {pause:?}, then less often");
        }
        self.failure = Some((turn.now + pause, pause));
        self.dirty = true;
        self.wake(None);
        Outcome::Idle(Some(turn.now + pause))
    }

    fn is_current(&self, i: usize) -> bool {
        self.current && i + 1 == self.files.len()
    }

    fn read(&mut self, i: usize, turn: &mut Turn<'_>) -> io::Result<Step> {
        let current = self.is_current(i);
        let leaving = self.leaving.is_some();
        let max_line = self.target.max_line_bytes;
        let file = &mut self.files[i];
        if file.over && !file.more {
            return Ok(Step::Nothing);
        }
        let abandoned = (!current || leaving) && file.at_end.is_some_and(|since| turn.now.duration_since(since) >= turn.linger);
        let polled = !current && file.at_end.is_some();
        if !file.more && !abandoned && !polled {
            return Ok(Step::Nothing);
        }
        if file.source.is_none() && !open(file, turn.stats)? {
            if current {
                self.dirty = true;
            } else {
                self.find_rotated(turn)?;
            }
            return Ok(Step::Onward);
        }
        let Some(source) = &mut file.source else { return Ok(Step::Nothing) };
        if current && file.cursor.offset == 0 && file.long.is_none() {
            let mtime = source.stat()?.mtime;
            if mtime != file.cursor.mtime {
                self.find_copies(turn)?;
                if let Some(file) = self.files.last_mut() {
                    file.cursor.mtime = mtime;
                }
                return Ok(Step::Onward);
            }
        }
        match lines::next(source, &mut file.cursor, &mut file.long, turn.buffer, (max_line, turn.long))? {
            Found::Lines(lines) => {
                (file.at_end, file.more, file.over) = (None, true, false);
                self.measure(i, turn);
                Ok(Step::Lines(Box::new(lines)))
            }
            Found::Onward => {
                (file.at_end, file.more, file.over) = (None, true, false);
                Ok(Step::Onward)
            }
            Found::Replaced => self.replaced(i, turn),
            Found::End { unfinished } => {
                source.complete()?;
                file.more = false;
                file.at_end.get_or_insert(turn.now);
                if !abandoned {
                    self.measure(i, turn);
                    return Ok(Step::Nothing);
                }
                file.over = true;
                let rest = match unfinished {
                    0 => None,
                    _ => lines::last_line(source, &mut file.cursor, &mut file.long, turn.buffer, turn.long)?,
                };
                self.close(i, turn);
                if rest.is_none() && self.files[i].cursor.offset == 0 {
                    // It was empty, so that nothing but its inode tells it from another file that gets that.
                    self.files[i].cursor.id = NOBODY;
                }
                Ok(rest.map_or(Step::Nothing, |lines| Step::Lines(Box::new(lines))))
            }
        }
    }

    /// The file has another content than the one that was read.
    fn replaced(&mut self, i: usize, turn: &mut Turn<'_>) -> io::Result<Step> {
        lines::release(&mut self.files[i].long, turn.long);
        if self.is_current(i) {
            self.begin_anew(turn);
        } else {
            Stats::add(&turn.stats.truncations);
            self.files[i].detach(turn.stats);
        }
        self.find_rotated(turn)?;
        Ok(Step::Onward)
    }

    /// The file at the path has a new content; what was read of the old one lives on in a copy, perhaps.
    pub(crate) fn begin_anew(&mut self, turn: &mut Turn<'_>) {
        let Some(file) = self.files.last_mut() else { return };
        lines::release(&mut file.long, turn.long);
        Stats::add(&turn.stats.truncations);
        tracing::debug!(path = %self.path.display(), offset = file.cursor.offset, "the file was truncated or written anew");
        let id = file.cursor.id;
        let changed = file.source.as_ref().and_then(|source| source.stat().ok()).map_or(0, |stat| stat.mtime);
        let fresh = Followed { source: file.source.take(), ..Followed::new(Cursor::of(id, file.cursor.gz, changed), file.path.clone()) };
        file.detach(turn.stats);
        self.files.push(fresh);
    }

    fn measure(&mut self, i: usize, turn: &Turn<'_>) {
        let file = &mut self.files[i];
        let Some(Ok(stat)) = file.source.as_ref().map(Source::stat) else { return };
        if file.cursor.offset > 0 {
            file.cursor.mtime = stat.mtime;
        }
        file.seen = Some((stat.size, stat.mtime));
        let unread = if file.cursor.gz { 0 } else { stat.size.saturating_sub(file.cursor.offset) };
        self.set_lag(unread, turn.stats);
    }

    pub(crate) fn set_lag(&mut self, lag: u64, stats: &Stats) {
        stats.lag_changed(&self.target.scope, self.lag, lag);
        self.lag = lag;
    }

    fn chunk(&mut self, i: usize, lines: Lines) -> Chunk {
        let mut before: Vec<Cursor> = self.files.iter().map(|file| file.cursor).collect();
        before[i] = lines.start;
        Chunk {
            stream: self.id,
            path: Arc::clone(&self.path),
            target: Arc::clone(&self.target),
            _taken: Budget::take(&self.target.budget, lines.data.len()),
            lines,
            before: before.into(),
            index: i,
        }
    }

    /// Takes the file that is at the path when the stream begins.
    pub(crate) fn begin(&mut self, stat: Stat) {
        self.first = false;
        self.current = true;
        self.resolve();
        let gz = self.path.extension().is_some_and(|extension| extension == "gz");
        self.files.push(Followed::new(Cursor::of(stat.id, gz, stat.mtime), self.path.to_path_buf()));
    }

    /// Where the path stands.
    pub(crate) fn position(&self) -> Position {
        Position { files: self.files.iter().map(|file| file.cursor).collect() }
    }

    /// Something happened to a name: that of the path, or the one of a rotated file.
    pub(crate) fn wake(&mut self, name: Option<&OsStr>) {
        let last = self.files.len().saturating_sub(usize::from(self.current));
        for (i, file) in self.files.iter_mut().enumerate() {
            if i >= last || !file.over || file.path.file_name().is_some_and(|own| Some(own) == name) {
                file.wake();
            }
        }
    }

    /// Looks at what is at the path.
    fn look(&mut self, turn: &mut Turn<'_>) -> io::Result<()> {
        let stat = match Stat::of(&self.path) {
            Ok(stat) => stat,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return self.absent(turn);
            }
            Err(error) => return Err(error),
        };
        if !stat.regular {
            self.absent(turn)?;
            return Err(io::Error::other("it is a folder, a pipe or a device, which are not followed; a file is waited for"));
        }
        self.missing = None;
        let resumed = std::mem::take(&mut self.resumed);
        if resumed {
            self.adopt(stat.id);
            self.resolve();
        }
        let known = self.files.iter().position(|file| file.cursor.id == stat.id);
        let last = self.files.len().checked_sub(1);
        if known.is_some() && known == last {
            self.current = true;
            self.at_path(stat);
            // After a restart others may be waiting.
            return if resumed || self.recheck.is_some() { self.find_rotated(turn) } else { Ok(()) };
        }
        if !self.first {
            Stats::add(&turn.stats.rotations);
        }
        let first = std::mem::take(&mut self.first);
        match known {
            Some(i) => {
                let file = self.files.remove(i);
                self.files.push(file);
            }
            None => {
                let gz = self.path.extension().is_some_and(|extension| extension == "gz");
                self.files.push(Followed::new(Cursor::of(stat.id, gz, stat.mtime), PathBuf::new()));
            }
        }
        self.current = true;
        self.resolve();
        self.at_path(stat);
        if first { Ok(()) } else { self.find_rotated(turn) }
    }

    fn at_path(&mut self, stat: Stat) {
        let Some(file) = self.files.last_mut() else { return };
        file.path = self.path.to_path_buf();
        file.rank = None;
        if file.seen != Some((stat.size, stat.mtime)) {
            file.wake();
        }
    }

    /// Device numbers may differ after a restart, and cursors of the reference may fit any file; that the content is the
    /// same is checked when it is read.
    fn adopt(&mut self, id: FileId) {
        if let Some(last) = self.files.last_mut()
            && (last.cursor.id.ino == id.ino && last.cursor.before.len() > 0 || last.cursor.id.ino == 0)
        {
            last.cursor.id = id;
        }
    }

    /// Follows a link to the folder in which the file is rotated.
    fn resolve(&mut self) {
        let Ok(real) = std::fs::canonicalize(&self.path) else { return };
        if let (Some(dir), Some(base)) = (real.parent(), real.file_name()) {
            (self.dir, self.base) = (dir.to_owned(), base.to_owned());
        }
    }

    fn absent(&mut self, turn: &mut Turn<'_>) -> io::Result<()> {
        self.missing.get_or_insert(turn.now);
        let was_current = std::mem::take(&mut self.current);
        if self.resumed || was_current && self.files.last().is_some_and(|file| file.source.is_none()) {
            self.resumed = false;
            return self.find_rotated(turn);
        }
        Ok(())
    }

    /// Forgets rotated files that are read.
    fn forget(&mut self, turn: &mut Turn<'_>) {
        let empty = |file: &Followed| file.over && !file.more && file.cursor.offset == 0 && file.cursor.id == NOBODY;
        while let Some(i) = self.files.iter().position(empty) {
            self.drop_file(i, turn);
        }
        let last = self.files.len() - usize::from(self.current);
        let over = self.files[..last].iter().filter(|file| file.over && !file.more).count();
        for _ in REMEMBERED..over {
            if let Some(i) = self.files.iter().position(|file| file.over && !file.more) {
                self.drop_file(i, turn);
            }
        }
    }

    fn drop_file(&mut self, i: usize, turn: &mut Turn<'_>) {
        lines::release(&mut self.files[i].long, turn.long);
        self.close(i, turn);
        if self.is_current(i) {
            self.current = false;
        }
        self.files.remove(i);
    }

    pub(crate) fn close(&mut self, i: usize, turn: &Turn<'_>) {
        if self.files[i].source.take().is_some() {
            turn.stats.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many of its files are open.
    pub(crate) fn open_files(&self) -> usize {
        self.files.iter().filter(|file| file.source.is_some()).count()
    }

    /// Closes the file at the path if nothing is waiting in it; says whether one is open still.
    pub(crate) fn close_idle(&mut self, stats: &Stats) -> bool {
        for file in &mut self.files {
            if !file.more && file.long.is_none() && file.source.take().is_some() {
                stats.open.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.files.iter().any(|file| file.source.is_some())
    }

    fn wake_at(&self, turn: &Turn<'_>) -> Option<Instant> {
        let lingering = self
            .files
            .iter()
            .enumerate()
            .any(|(i, file)| !file.over && file.at_end.is_some() && (!self.is_current(i) || self.leaving.is_some()));
        let poll = lingering.then(|| turn.now + LINGER_POLL);
        [poll, self.recheck].into_iter().flatten().min()
    }

    /// Whether everything that was there is read and delivered.
    pub(crate) fn finished(&self) -> bool {
        self.files.iter().all(|file| file.over && !file.more)
    }
}

enum Step {
    Lines(Box<Lines>),
    Onward,
    Nothing,
}

/// Opens the file at its path; false when it is not there any more.
fn open(file: &mut Followed, stats: &Stats) -> io::Result<bool> {
    match Source::open(&file.path, file.cursor.gz) {
        Ok((source, stat)) if stat.id == file.cursor.id => {
            stats.open.fetch_add(1, Ordering::Relaxed);
            // Of a file of which nothing was read, the time tells since when it is known.
            if file.cursor.offset > 0 {
                file.cursor.mtime = stat.mtime;
            }
            file.source = Some(source);
            Ok(true)
        }
        Ok(_) => Ok(false),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}
