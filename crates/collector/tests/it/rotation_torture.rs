//! Fifty logs that grow and are rotated every second, by renaming, by copying and truncating, and by compressing, while the
//! collector is killed every few seconds. Every line carries its number: none is lost, none is torn, hardly any comes twice.
//!
//! It lasts a minute in CI, fifteen seconds elsewhere, and `ADXMON_SOAK` minutes in a soak.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::support::client;

const FILES: usize = 50;
/// Twenty thousand lines a second.
const LINES_PER_TICK: usize = 20;
const TICK: Duration = Duration::from_millis(50);
const TICKS_PER_ROTATION: usize = 20;

/// A logger of one file, and whoever rotates it.
struct Log {
    path: PathBuf,
    number: usize,
    lines: usize,
    rotations: usize,
    writer: File,
}

fn appending(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

impl Log {
    fn new(dir: &Path, number: usize) -> Log {
        let path = dir.join(format!("app{number:02}.log"));
        Log { writer: appending(&path), path, number, lines: 0, rotations: 0 }
    }

    fn write(&mut self, lines: usize) {
        let line = |n| format!("f{:02} {:08} {}#\n", self.number, self.lines + n, "x".repeat(60));
        self.writer.write_all((0..lines).map(line).collect::<String>().as_bytes()).unwrap();
        self.lines += lines;
    }

    fn rotate(&mut self) {
        self.rotations += 1;
        // Every other log counts its rotated files, the others date them.
        let rotated = if self.number.is_multiple_of(2) { self.shift() } else { self.beside(&format!("-2026{:08}", self.rotations)) };
        match (self.rotations + self.number) % 3 {
            0 => self.rename(&rotated),
            1 => {
                std::fs::copy(&self.path, &rotated).unwrap();
                OpenOptions::new().write(true).open(&self.path).unwrap().set_len(0).unwrap();
            }
            _ => {
                self.rename(&rotated);
                compress(&rotated);
            }
        }
    }

    fn beside(&self, end: &str) -> PathBuf {
        PathBuf::from(format!("{}{end}", self.path.display()))
    }

    /// Makes room for `.1`. The last ones stay, so that nothing is deleted that may be unread.
    fn shift(&self) -> PathBuf {
        for n in (1..self.rotations).rev() {
            for end in ["", ".gz"] {
                let _ = std::fs::rename(self.beside(&format!(".{n}{end}")), self.beside(&format!(".{}{end}", n + 1)));
            }
        }
        self.beside(".1")
    }

    fn rename(&mut self, to: &Path) {
        std::fs::rename(&self.path, to).unwrap();
        self.writer = appending(&self.path);
    }
}

fn compress(path: &Path) {
    let modified = path.metadata().unwrap().modified().unwrap();
    let mut encoder = GzEncoder::new(File::create(format!("{}.gz", path.display())).unwrap(), Compression::fast());
    encoder.write_all(&std::fs::read(path).unwrap()).unwrap();
    encoder.finish().unwrap().set_modified(modified).unwrap();
    std::fs::remove_file(path).unwrap();
}

/// When the logs begin to be rotated, and when they end.
#[derive(Default)]
struct Signals {
    rotate: AtomicBool,
    stop: AtomicBool,
}

/// Writes until it is told to stop; the number of lines of each log.
fn write(dir: &Path, signals: &Signals) -> Vec<usize> {
    let mut logs: Vec<Log> = (0..FILES).map(|number| Log::new(dir, number)).collect();
    let mut tick = 0;
    while !signals.stop.load(Ordering::Relaxed) {
        let rotating = signals.rotate.load(Ordering::Relaxed);
        let next = Instant::now() + TICK;
        for log in &mut logs {
            log.write(LINES_PER_TICK);
            if rotating && (tick + log.number) % TICKS_PER_ROTATION == TICKS_PER_ROTATION - 1 {
                log.rotate();
            }
        }
        tick += 1;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    logs.iter().map(|log| log.lines).collect()
}

struct Collector {
    dir: PathBuf,
    child: Child,
}

impl Collector {
    fn start(dir: &Path) -> Collector {
        // Each life has its own output, which says where it listens.
        let output = File::create(dir.join("output")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_collector"));
        command.env_remove("COLLECTOR_STORAGE_BACKEND").env_remove("ADXMON_DURABILITY").env_remove("LOG_LEVEL");
        let child = command.arg("--config").arg(dir.join("c.toml")).stdin(Stdio::null()).stdout(output).stderr(Stdio::inherit()).spawn();
        Collector { dir: dir.to_owned(), child: child.unwrap() }
    }

    fn url(&self) -> Option<String> {
        let output = std::fs::read_to_string(self.dir.join("output")).ok()?;
        let started = output.lines().find(|line| line.contains("\"collector started\""))?;
        let line: serde_json::Value = serde_json::from_str(started).ok()?;
        Some(format!("http://{}", line["addr"].as_str()?))
    }

    /// What has arrived, and what is known to be left.
    async fn state(&self) -> Option<(f64, f64)> {
        let page = client().get(format!("{}/metrics", self.url()?)).send().await.ok()?.text().await.ok()?;
        let value = |name: &str| page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        let accepted = value("adxmon_ledger_rows{database=\"Logs\",state=\"accepted\"}")?;
        Some((accepted, value("adxmon_collector_tail_lag_bytes{target=\"Logs.App\"}").unwrap_or_default()))
    }

    /// Waits until nothing is left to read and nothing more arrives.
    async fn done(&self, total: f64) {
        let (mut last, mut since) = (0.0, Instant::now());
        loop {
            if let Some((accepted, lag)) = self.state().await {
                if accepted != last || lag > 0.0 {
                    (last, since) = (accepted, Instant::now());
                }
                // Lines that are lost never come: they are looked for in the store.
                if accepted >= total && lag == 0.0 || since.elapsed() > Duration::from_secs(20) {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn until(&self, what: &str, enough: impl Fn(f64, f64) -> bool) {
        let patience = Instant::now() + Duration::from_secs(240);
        loop {
            let state = self.state().await;
            if state.is_some_and(|(accepted, lag)| enough(accepted, lag)) {
                return;
            }
            assert!(Instant::now() < patience, "{what}: (accepted, unread) are {state:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How often each line is in the store, by log; and how many are none of those that were written.
fn arrived(dir: &Path) -> (Vec<HashMap<usize, u32>>, usize) {
    let options = wal::Options { durability: wal::Durability::Process, ..wal::Options::new(dir) };
    let (store, _) = wal::Store::open(options, wal::RealDisk::new(), 0).unwrap();
    store.seal_all().unwrap();
    let (mut logs, mut torn) = (vec![HashMap::new(); FILES], 0);
    let whole = regex::Regex::new(r"^f(\d\d) (\d{8}) x{60}#$").unwrap();
    for segment in store.sealed() {
        let text = wal::segment::values(&store.read_segment(segment.id).unwrap(), true);
        for row in String::from_utf8(text).unwrap().lines() {
            let message = row.split_once("\"\"message\"\":\"\"").and_then(|(_, rest)| rest.split_once("\"\"")).map(|(message, _)| message);
            match message.and_then(|message| whole.captures(message)) {
                Some(found) => *logs[found[1].parse::<usize>().unwrap()].entry(found[2].parse().unwrap()).or_default() += 1,
                None => torn += 1,
            }
        }
    }
    store.close();
    (logs, torn)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_is_lost_or_torn_when_files_rotate_and_the_collector_is_killed() {
    let soak = std::env::var("ADXMON_SOAK").ok().and_then(|factor| factor.parse::<u64>().ok());
    let seconds = soak.map_or(if std::env::var_os("CI").is_some() { 60 } else { 15 }, |factor| 60 * factor);
    let (logs, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = dir.path().join("store");
    let settings = format!(
        "listen-addr = '127.0.0.1:0'\nstorage-dir = '{}'\ndurability = 'process'\n[[host-log]]\ndisable-kube-discovery = true\n\
         [[host-log.file-target]]\nfile-path = '{}/app??.log'\ndatabase = 'Logs'\ntable = 'App'\n",
        store.display(),
        logs.path().display()
    );
    std::fs::write(dir.path().join("c.toml"), settings).unwrap();
    let mut collector = Collector::start(dir.path());
    let signals = Arc::new(Signals::default());
    let writer = {
        let (signals, dir) = (Arc::clone(&signals), logs.path().to_owned());
        std::thread::spawn(move || write(&dir, &signals))
    };
    // What was rotated before a log is followed is not of it: from here on each of them is.
    collector.until("the first lines", |accepted, _| accepted >= (FILES * LINES_PER_TICK * 40) as f64).await;
    signals.rotate.store(true, Ordering::Relaxed);
    let (end, mut kills, mut life) = (Instant::now() + Duration::from_secs(seconds), 0, 0_u64);
    while Instant::now() < end {
        // Some die while they start, most while they work.
        life = (life * 31 + 1847) % 5000;
        tokio::time::sleep(Duration::from_millis(300 + life)).await;
        drop(collector);
        kills += 1;
        tokio::time::sleep(Duration::from_millis(life % 1500)).await;
        collector = Collector::start(dir.path());
    }
    signals.stop.store(true, Ordering::Relaxed);
    let written = writer.join().unwrap();
    let total: usize = written.iter().sum();
    collector.done(total as f64).await;
    drop(collector);
    let (found, torn) = arrived(&store);
    let missing: Vec<(usize, usize)> = written
        .iter()
        .enumerate()
        .flat_map(|(log, lines)| (0..*lines).map(move |line| (log, line)))
        .filter(|(log, line)| !found[*log].contains_key(line))
        .collect();
    let again: u32 = found.iter().flat_map(HashMap::values).map(|times| times - 1).sum();
    eprintln!("{total} lines of {FILES} logs in {seconds} s, {kills} kills: {} missing, {torn} torn, {again} twice", missing.len());
    assert!(missing.is_empty(), "{} of {total} lines are missing: {:?}", missing.len(), &missing[..missing.len().min(40)]);
    assert_eq!(torn, 0);
    assert!(f64::from(again) < total as f64 / 1000.0, "{again} of {total} lines came twice");
}
