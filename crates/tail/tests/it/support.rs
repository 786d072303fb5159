//! A folder of logs, and what a reader with a store makes of them.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tail::{Budgets, Event, Options, Position, Stats, Tailer, Target};
use tempfile::TempDir;

type Marks = Arc<Mutex<BTreeMap<PathBuf, Vec<u8>>>>;

/// Logs, a reader, and a store of lines and positions that survives the reader.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    /// Delivered lines, by path that is followed.
    pub(crate) lines: BTreeMap<PathBuf, Vec<String>>,
    pub(crate) cut: u64,
    pub(crate) gone: Vec<PathBuf>,
    pub(crate) marks: Marks,
    pub(crate) stats: Arc<Stats>,
    pub(crate) tailer: Option<Tailer>,
    pub(crate) now: Instant,
    pub(crate) options: Options,
    include: Vec<String>,
    exclude: Vec<String>,
    max_line: usize,
    writers: BTreeMap<String, File>,
}

impl World {
    /// Follows `include`, names below the folder.
    pub(crate) fn new(include: &[&str]) -> World {
        World::with(include, &[], 1 << 20, Options::default())
    }

    pub(crate) fn with(include: &[&str], exclude: &[&str], max_line: usize, options: Options) -> World {
        let dir = tempfile::tempdir().unwrap();
        let below = |names: &[&str]| names.iter().map(|name| dir.path().join(name).display().to_string()).collect();
        let mut world = World {
            include: below(include),
            exclude: below(exclude),
            dir,
            lines: BTreeMap::new(),
            cut: 0,
            gone: Vec::new(),
            marks: Marks::default(),
            stats: Arc::default(),
            tailer: None,
            now: Instant::now(),
            options,
            max_line,
            writers: BTreeMap::new(),
        };
        world.start();
        world
    }

    pub(crate) fn start(&mut self) {
        let marks = Arc::clone(&self.marks);
        let resume = move |_: &Target, path: &Path| Position::decode(marks.lock().get(path)?);
        let budgets = Budgets::default();
        let target = Target::new("t", "t", &self.include, &self.exclude, budgets.budget(1 << 20)).unwrap();
        self.stats = Arc::default();
        let mut tailer = Tailer::new(self.options.clone(), budgets, Arc::clone(&self.stats), Box::new(resume));
        tailer.set_targets(vec![target.max_line_bytes(self.max_line)], self.now);
        self.tailer = Some(tailer);
    }

    /// Nothing of the reader survives.
    pub(crate) fn kill(&mut self) {
        self.tailer = None;
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The next step; false when there was nothing to do.
    pub(crate) fn step(&mut self) -> bool {
        let Some(event) = self.tailer.as_mut().unwrap().step(self.now) else { return false };
        match event {
            Event::Lines(chunk) => {
                let lines = self.lines.entry(chunk.path.to_path_buf()).or_default();
                for line in chunk.lines() {
                    lines.push(String::from_utf8_lossy(line.text).into_owned());
                    self.cut += line.cut;
                }
                self.marks.lock().insert(chunk.path.to_path_buf(), chunk.position(chunk.bytes()).encode());
            }
            Event::Started { path, position, .. } => {
                self.marks.lock().insert(path.to_path_buf(), position.encode());
            }
            Event::Gone { path, .. } => {
                self.marks.lock().remove(&*path);
                self.gone.push(path.to_path_buf());
            }
        }
        true
    }

    /// Reads until nothing is left to do now.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            let more = self.step();
            if !more && self.tailer.as_ref().unwrap().next_wake(self.now) > self.now {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.settle();
    }

    /// A restart after a kill.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.start();
        self.settle();
    }

    /// Appends through a descriptor that stays open, as loggers do.
    pub(crate) fn write(&mut self, name: &str, text: &str) {
        let path = self.path(name);
        let open = || OpenOptions::new().create(true).append(true).open(path).unwrap();
        self.writers.entry(name.to_owned()).or_insert_with(open).write_all(text.as_bytes()).unwrap();
    }

    /// The logger opens its file anew before it writes again.
    pub(crate) fn reopen(&mut self, name: &str) {
        self.writers.remove(name);
    }

    /// Renames `name` to `name.1` and the older ones up.
    pub(crate) fn rename(&mut self, name: &str) {
        self.shift(name);
        std::fs::rename(self.path(name), self.path(&format!("{name}.1"))).unwrap();
        self.reopen(name);
    }

    pub(crate) fn shift(&self, name: &str) {
        for n in (1..20).rev() {
            for end in ["", ".gz"] {
                let old = self.path(&format!("{name}.{n}{end}"));
                if old.exists() {
                    std::fs::rename(old, self.path(&format!("{name}.{}{end}", n + 1))).unwrap();
                }
            }
        }
    }

    /// Copies `name` to `name.1` and truncates it.
    pub(crate) fn copy_truncate(&mut self, name: &str) {
        self.shift(name);
        std::fs::copy(self.path(name), self.path(&format!("{name}.1"))).unwrap();
        OpenOptions::new().write(true).open(self.path(name)).unwrap().set_len(0).unwrap();
    }

    /// Compresses a file in its place, as gzip does.
    pub(crate) fn gzip(&self, name: &str) {
        let path = self.path(name);
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        let to = File::create(self.path(&format!("{name}.gz"))).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(to, flate2::Compression::fast());
        encoder.write_all(&std::fs::read(&path).unwrap()).unwrap();
        encoder.finish().unwrap().set_modified(modified).unwrap();
        std::fs::remove_file(path).unwrap();
    }

    /// Delivered lines of one path.
    pub(crate) fn of(&self, name: &str) -> Vec<&str> {
        self.lines.get(&self.path(name)).into_iter().flatten().map(String::as_str).collect()
    }

    pub(crate) fn count(&self, counter: impl Fn(&Stats) -> &AtomicU64) -> u64 {
        counter(&self.stats).load(Ordering::Relaxed)
    }
}
