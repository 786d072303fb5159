//! All followed paths: which there are, which have something to read, and whose turn it is.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::budget::Budgets;
use crate::chunk::{Event, StreamId};
use crate::content::{Cursor, FileId, Position};
use crate::discovery;
use crate::lines::LongBudget;
use crate::source::Stat;
use crate::stats::Stats;
use crate::stream::{Followed, Outcome, Stream, Turn};
use crate::target::Target;
use crate::watch::{Change, Watched, Watcher};

/// How a [`Tailer`] works.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a rotated file is kept open at its end, since writers take a while to change over; then its unfinished last
    /// line is delivered.
    pub linger: Duration,
    /// From one look at everything to the next. Notifications make this a safety net.
    pub sweep: Duration,
    /// From one look at files in folders without notifications to the next, for up to a thousand of them; more take longer.
    pub poll: Duration,
    /// Files that are kept open though nothing happens to them.
    pub max_open: usize,
    /// Memory for lines longer than 128 KiB, of all files together.
    pub long_line_bytes: usize,
    /// How long a path may be away before its position is forgotten.
    pub forget_missing: Duration,
    /// How long a path that no target wants any more is remembered.
    pub forget_unwanted: Duration,
    /// Whether the kernel is asked for notifications.
    pub notifications: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            linger: Duration::from_secs(10),
            sweep: Duration::from_secs(15),
            poll: Duration::from_millis(250),
            max_open: 256,
            long_line_bytes: 32 << 20,
            forget_missing: Duration::from_secs(600),
            forget_unwanted: Duration::from_secs(60),
            notifications: true,
        }
    }
}

/// Where a path stood when it was followed before.
pub type Resume = Box<dyn FnMut(&Target, &Path) -> Option<Position> + Send>;

/// At most one search for new files in this time.
const RESCAN: Duration = Duration::from_secs(1);

/// Turns without a line after which a step ends.
const TURNS: usize = 256;

/// Follows files. It has no thread and no clock: the caller makes it [`step`](Tailer::step) and waits as it says.
pub struct Tailer {
    options: Options,
    resume: Resume,
    stats: Arc<Stats>,
    budgets: Budgets,
    targets: HashMap<Arc<str>, Arc<Target>>,
    streams: HashMap<StreamId, Stream>,
    by_path: HashMap<(Arc<str>, Arc<Path>), StreamId>,
    /// Who is told when something happens to a name in a folder.
    names: HashMap<PathBuf, HashMap<OsString, Vec<StreamId>>>,
    registered: HashMap<StreamId, Vec<(PathBuf, OsString)>>,
    /// Folders in which new files may come up.
    searched: HashSet<PathBuf>,
    /// Folders that could not be searched.
    unreadable: HashSet<PathBuf>,
    polled: HashSet<StreamId>,
    ready: VecDeque<StreamId>,
    queued: HashSet<StreamId>,
    parked: HashSet<StreamId>,
    wakes: BinaryHeap<Reverse<(Instant, StreamId)>>,
    opened: VecDeque<StreamId>,
    events: VecDeque<Event>,
    watcher: Watcher,
    buffer: Vec<u8>,
    long: LongBudget,
    next_id: u64,
    /// What of the folders that are looked at is in the counts, which others may count in too.
    told_polled: u64,
    next_sweep: Option<Instant>,
    next_poll: Option<Instant>,
    scanned: Option<Instant>,
    rescan: bool,
}

impl std::fmt::Debug for Tailer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tailer").field("streams", &self.streams.len()).finish_non_exhaustive()
    }
}

impl Tailer {
    /// One that follows nothing yet. `resume` is asked once for each path that comes up.
    #[must_use]
    pub fn new(options: Options, budgets: Budgets, stats: Arc<Stats>, resume: Resume) -> Tailer {
        Tailer {
            watcher: Watcher::new(options.notifications),
            long: LongBudget { left: options.long_line_bytes },
            options,
            resume,
            stats,
            budgets,
            targets: HashMap::new(),
            streams: HashMap::new(),
            by_path: HashMap::new(),
            names: HashMap::new(),
            registered: HashMap::new(),
            searched: HashSet::new(),
            unreadable: HashSet::new(),
            polled: HashSet::new(),
            ready: VecDeque::new(),
            queued: HashSet::new(),
            parked: HashSet::new(),
            wakes: BinaryHeap::new(),
            opened: VecDeque::new(),
            events: VecDeque::new(),
            buffer: Vec::new(),
            next_id: 0,
            told_polled: 0,
            next_sweep: None,
            next_poll: None,
            scanned: None,
            rescan: false,
        }
    }

    /// What is followed from now on. Files of targets that are not among these any more are read to their ends.
    pub fn set_targets(&mut self, targets: Vec<Target>, now: Instant) {
        let old = std::mem::take(&mut self.targets);
        self.targets = targets.into_iter().map(|target| (Arc::clone(&target.key), Arc::new(target))).collect();
        for stream in self.streams.values_mut() {
            match self.targets.get(&stream.target.key) {
                Some(target) if target.same_files(&stream.target) => {
                    stream.target = Arc::clone(target);
                    stream.leaving = None;
                }
                _ => {
                    stream.leaving.get_or_insert(now);
                }
            }
        }
        let known = |target: &Target| old.get(&target.key).is_some_and(|old| old.same_files(target));
        let leaving: Vec<StreamId> = self.streams.values().filter(|stream| stream.leaving.is_some()).map(|stream| stream.id).collect();
        for id in leaving {
            self.enqueue(id);
        }
        if !self.targets.values().all(|target| known(target)) {
            (self.rescan, self.scanned) = (true, None);
        }
    }

    /// Does what is to be done now; the next event if there is one. With `None`, wait for [`Tailer::next_wake`],
    /// [`Tailer::notifications`] or room in a budget.
    pub fn step(&mut self, now: Instant) -> Option<Event> {
        self.take_changes();
        self.timers(now);
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if self.budgets.0.any.swap(false, Ordering::AcqRel) {
            for id in std::mem::take(&mut self.parked) {
                self.enqueue(id);
            }
        }
        for _ in 0..TURNS {
            let id = self.ready.pop_front()?;
            self.queued.remove(&id);
            if let Some(event) = self.turn(id, now) {
                return Some(event);
            }
        }
        None
    }

    /// When to step again, whatever happens.
    #[must_use]
    pub fn next_wake(&self, now: Instant) -> Instant {
        if !self.ready.is_empty() || !self.events.is_empty() {
            return now;
        }
        let rescan = self.rescan.then(|| self.scanned.map_or(now, |at| at + RESCAN));
        let wake = self.wakes.peek().map(|Reverse((at, _))| *at);
        [rescan, wake, self.next_poll, self.next_sweep].into_iter().flatten().min().unwrap_or(now)
    }

    /// A descriptor that is readable when something happened to a file.
    #[must_use]
    pub fn notifications(&self) -> Option<OwnedFd> {
        self.watcher.descriptor()
    }

    fn turn(&mut self, id: StreamId, now: Instant) -> Option<Event> {
        let stream = self.streams.get_mut(&id)?;
        if !stream.target.budget.has_room() {
            self.parked.insert(id);
            return None;
        }
        let looked = stream.dirty;
        let mut turn = Turn { now, buffer: &mut self.buffer, long: &mut self.long, stats: &self.stats, linger: self.options.linger };
        let outcome = stream.turn(&mut turn);
        if looked {
            self.register(id);
        }
        self.outcome(id, outcome, now)
    }

    fn outcome(&mut self, id: StreamId, outcome: Outcome, now: Instant) -> Option<Event> {
        match outcome {
            Outcome::Lines(chunk) => {
                self.stats.bytes.fetch_add(chunk.bytes() as u64, Ordering::Relaxed);
                self.enqueue(id);
                Some(Event::Lines(chunk))
            }
            Outcome::Onward => {
                self.enqueue(id);
                None
            }
            Outcome::Idle(wake) => {
                if let (Some(at), Some(stream)) = (wake, self.streams.get_mut(&id))
                    && stream.scheduled.is_none_or(|scheduled| scheduled <= now || at < scheduled)
                {
                    stream.scheduled = Some(at);
                    self.wakes.push(Reverse((at, id)));
                }
                self.opened.push_back(id);
                self.close_idle();
                None
            }
        }
    }

    fn enqueue(&mut self, id: StreamId) {
        if self.queued.insert(id) {
            self.ready.push_back(id);
        }
    }

    fn wake(&mut self, id: StreamId, name: Option<&OsStr>, dirty: bool) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.dirty |= dirty;
            stream.wake(name);
            self.enqueue(id);
        }
    }

    /// Closes files at which nothing happens, those first that were looked at longest ago.
    fn close_idle(&mut self) {
        let over = usize::try_from(self.stats.open.load(Ordering::Relaxed)).unwrap_or(usize::MAX) > self.options.max_open;
        if !over && self.opened.len() < 2 * self.streams.len() + self.options.max_open {
            return;
        }
        let Some(id) = self.opened.pop_front() else { return };
        if let Some(stream) = self.streams.get_mut(&id).filter(|_| over)
            && stream.close_idle(&self.stats)
        {
            self.opened.push_back(id);
        }
    }

    fn take_changes(&mut self) {
        for change in self.watcher.changes() {
            match change {
                Change::Written(dir, name) => self.notify(&dir, &name, false),
                Change::Renamed(dir, name) => {
                    self.notify(&dir, &name, true);
                    self.rescan |= self.searched.contains(&*dir);
                }
                Change::Gone(dir) => {
                    let ids: Vec<StreamId> =
                        self.names.get(&*dir).into_iter().flat_map(|names| names.values().flatten().copied()).collect();
                    for id in ids {
                        self.polled.insert(id);
                        self.wake(id, None, true);
                    }
                    self.rescan = true;
                }
                Change::Lost => {
                    Stats::add(&self.stats.overflows);
                    self.rescan = true;
                    let ids: Vec<StreamId> = self.streams.keys().copied().collect();
                    for id in ids {
                        self.wake(id, None, true);
                    }
                }
            }
        }
    }

    fn notify(&mut self, dir: &Path, name: &OsStr, dirty: bool) {
        let Some(ids) = self.names.get(dir).and_then(|names| names.get(name)) else { return };
        for id in ids.clone() {
            self.wake(id, Some(name), dirty);
        }
    }

    fn timers(&mut self, now: Instant) {
        while let Some(Reverse((at, id))) = self.wakes.peek().copied()
            && at <= now
        {
            self.wakes.pop();
            self.enqueue(id);
        }
        if self.next_sweep.is_none_or(|at| at <= now) {
            self.next_sweep = Some(now + self.options.sweep);
            self.sweep(now);
        }
        if self.rescan && self.scanned.is_none_or(|at| at + RESCAN <= now) {
            self.rescan(now);
        }
        if self.next_poll.is_none_or(|at| at <= now) {
            self.next_poll = (!self.polled.is_empty())
                .then(|| now + self.options.poll * u32::try_from(1 + self.polled.len() / 1000).unwrap_or(u32::MAX));
            for id in self.polled.iter().copied().collect::<Vec<_>>() {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.dirty = true;
                    self.enqueue(id);
                }
            }
        }
    }

    /// Looks at every path, though nothing was heard of it.
    fn sweep(&mut self, now: Instant) {
        self.rescan = true;
        let mut gone = Vec::new();
        let mut ids: Vec<StreamId> = Vec::with_capacity(self.streams.len());
        for stream in self.streams.values_mut() {
            stream.dirty = true;
            ids.push(stream.id);
            let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
            let unwanted = since(stream.leaving)
                .is_some_and(|age| age >= self.options.forget_unwanted && stream.finished() || age >= self.options.forget_missing);
            let missing = since(stream.missing).is_some_and(|age| age >= self.options.forget_missing)
                && stream.finished()
                && !stream.target.names(&stream.path)
                && stream.path.parent().is_some_and(Path::exists);
            if unwanted || missing {
                gone.push(stream.id);
            }
        }
        for id in ids {
            self.enqueue(id);
        }
        for id in gone {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: StreamId) {
        let Some(mut stream) = self.streams.remove(&id) else { return };
        stream.set_lag(0, &self.stats);
        self.unregister(id);
        self.polled.remove(&id);
        self.by_path.remove(&(Arc::clone(&stream.target.key), Arc::clone(&stream.path)));
        let open = stream.open_files();
        self.stats.open.fetch_sub(open as u64, Ordering::Relaxed);
        self.stats.files.fetch_sub(1, Ordering::Relaxed);
        self.events.push_back(Event::Gone { stream: id, path: stream.path, target: stream.target });
    }

    /// Searches for the files of all targets.
    fn rescan(&mut self, now: Instant) {
        (self.rescan, self.scanned) = (false, Some(now));
        self.searched.clear();
        let unreadable = std::mem::take(&mut self.unreadable);
        for target in self.targets.values().cloned().collect::<Vec<_>>() {
            let found = target.find();
            for dir in found.dirs {
                self.watcher.watch(&dir);
                self.searched.insert(dir);
            }
            for (dir, error) in found.unreadable {
                Stats::add(&self.stats.errors);
                if !unreadable.contains(&dir) && !self.unreadable.contains(&dir) {
                    tracing::warn!(dir = %dir.display(), %error, "a folder of log files cannot be read; it is tried again");
                }
                self.unreadable.insert(dir);
            }
            for log in discovery::logs(found.paths) {
                self.follow(&target, log, now);
            }
        }
        let (before, polled) = (self.told_polled, self.watcher.refused() as u64);
        self.told_polled = polled;
        self.stats.polled.fetch_add(polled.wrapping_sub(before), Ordering::Relaxed);
    }

    fn follow(&mut self, target: &Arc<Target>, log: discovery::Log, _now: Instant) {
        let path: Arc<Path> = log.path.as_path().into();
        let key = (Arc::clone(&target.key), Arc::clone(&path));
        if let Some(stream) = self.by_path.get(&key).and_then(|id| self.streams.get_mut(id)) {
            stream.leaving = None;
            return;
        }
        let id = StreamId(self.next_id);
        let stream = if let Some(position) = (self.resume)(target, &path) {
            Stream::resumed(id, Arc::clone(target), &path, position)
        } else {
            let stat = Stat::of(&path).ok();
            if stat.is_some_and(|stat| !stat.regular) && !target.names(&path) {
                return;
            }
            match self.renamed(target, stat.map(|stat| stat.id)) {
                Renamed::No => Stream::new(id, Arc::clone(target), &path, rotated(log.rotated)),
                Renamed::Busy => return,
                Renamed::From(cursor) => Stream::resumed(id, Arc::clone(target), &path, Position { files: vec![cursor] }),
            }
        };
        self.next_id += 1;
        self.streams.insert(id, stream);
        self.by_path.insert(key, id);
        self.stats.files.fetch_add(1, Ordering::Relaxed);
        self.register(id);
        self.start(id);
        self.enqueue(id);
    }

    /// Looks at a new path at once, so that its position says from where on it is followed.
    fn start(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.resumed
            && let Ok(stat) = Stat::of(&stream.path)
            && stat.regular
        {
            stream.begin(stat);
        }
        let (path, target, position) = (Arc::clone(&stream.path), Arc::clone(&stream.target), stream.position());
        self.events.push_back(Event::Started { stream: id, path, target, position });
    }

    /// Whether a file that came up is one that another path of the target had.
    fn renamed(&mut self, target: &Target, id: Option<FileId>) -> Renamed {
        let Some(id) = id else { return Renamed::No };
        for stream in self.streams.values_mut().filter(|stream| stream.target.key == target.key) {
            let Some(i) = stream.files.iter().position(|file| file.cursor.id == id) else { continue };
            let current = stream.current && i + 1 == stream.files.len();
            let Some(cursor) = stream.files[i].handed_over().filter(|_| !current) else { return Renamed::Busy };
            return Renamed::From(cursor);
        }
        Renamed::No
    }

    /// Asks to be told of what happens to the names of a stream.
    fn register(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(&id) else { return };
        let mut names = vec![(stream.dir.clone(), stream.base.clone())];
        for path in std::iter::once(&*stream.path).chain(stream.files.iter().map(|file| file.path.as_path())) {
            if let (Some(dir), Some(name)) = (path.parent(), path.file_name())
                && !names.iter().any(|(d, n)| d == dir && n == name)
            {
                names.push((dir.to_owned(), name.to_owned()));
            }
        }
        let watched = names.iter().all(|(dir, _)| self.watcher.watch(dir) == Watched::Yes);
        if watched {
            self.polled.remove(&id);
        } else if self.polled.insert(id) {
            self.next_poll = None;
        }
        if self.registered.get(&id) == Some(&names) {
            return;
        }
        self.unregister(id);
        for (dir, name) in &names {
            self.names.entry(dir.clone()).or_default().entry(name.clone()).or_default().push(id);
        }
        self.registered.insert(id, names);
    }

    fn unregister(&mut self, id: StreamId) {
        for (dir, name) in self.registered.remove(&id).unwrap_or_default() {
            let Some(names) = self.names.get_mut(&dir) else { continue };
            if let Some(ids) = names.get_mut(&name) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    names.remove(&name);
                }
            }
            if names.is_empty() {
                self.names.remove(&dir);
            }
        }
    }
}

enum Renamed {
    No,
    /// It is read under its old path still.
    Busy,
    From(Cursor),
}

/// Rotated files that were there before the log was followed, and are wanted.
fn rotated(paths: Vec<PathBuf>) -> Vec<Followed> {
    let stat = |path: PathBuf| Stat::of(&path).ok().filter(|stat| stat.regular).map(|stat| (path, stat));
    let followed = |(path, stat): (PathBuf, Stat)| {
        let gz = path.extension().is_some_and(|extension| extension == "gz");
        Followed::new(Cursor::of(stat.id, gz, stat.mtime), path)
    };
    paths.into_iter().filter_map(stat).map(followed).collect()
}

impl Drop for Tailer {
    /// The counts may outlive it.
    fn drop(&mut self) {
        let mut open = 0;
        for stream in self.streams.values_mut() {
            stream.set_lag(0, &self.stats);
            open += stream.open_files();
        }
        self.stats.open.fetch_sub(open as u64, Ordering::Relaxed);
        self.stats.files.fetch_sub(self.streams.len() as u64, Ordering::Relaxed);
        self.stats.polled.fetch_sub(self.told_polled, Ordering::Relaxed);
    }
}
