//! Logs in files: those that the configuration names, and those of the pods of this node.
//!
//! A few threads follow the files ([`readers`], [`tail`]). Lines go to a worker for each thread and database, so that one that
//! takes nothing holds up no other; a worker makes rows of them and commits these with the positions of the files. What is read
//! and not committed is bounded for each worker: a store that refuses stops the reading, and what was not committed is read
//! again after a restart.

mod marks;
mod mounts;
mod pod_logs;
mod readers;
mod worker;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use logs::{Destination, LineOptions, Map, Parsers, Transforms, Value};
use parking_lot::{Mutex, RwLock};
use tail::{Event, Target};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::Delivery;
use crate::config::{Config, FileLog, FileSource, LogTarget, PodLines};
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::pods::Pods;
use marks::Marks;
use mounts::Mounts;
use pod_logs::{Mistake, PodLog};
use readers::{ReaderId, Readers};
use worker::Worker;

/// The scope of positions of pods' logs.
const PODS: &str = "pods";

/// How long a target that is not wanted any more is remembered: longer than [`tail`] reads from it.
const RETIRED: Duration = Duration::from_secs(1800);

/// When positions of files that do not come back are forgotten, after the start.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Starts to follow the files of `config`; ends when `stop` is cancelled.
///
/// # Errors
/// A pattern that is none.
pub(crate) fn start(
    pipeline: &Pipeline,
    config: &Config,
    pods: Option<watch::Receiver<Pods>>,
    stop: &CancellationToken,
    sources: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    if config.files.is_empty() {
        return Ok(());
    }
    let groups: Vec<Arc<Group>> = config.files.iter().map(|source| Arc::new(Group::new(source, pipeline, config, stop))).collect();
    let discovering = config.files.iter().position(|source| source.pods.is_some()).zip(pods);
    let mut followed =
        Followed { readers: Readers::new(discovering.is_some()), logs: Arc::default(), lines: Vec::new(), retired: HashMap::new() };
    let named = followed.named(&config.files)?;
    let marks = Arc::new(Marks::load(&pipeline.store, &config.storage_dir, named.iter().map(|(_, target)| &*target.scope)));
    let logs = Arc::clone(&followed.logs);
    let workers = || Workers {
        groups: groups.clone(),
        logs: Arc::clone(&logs),
        marks: Arc::clone(&marks),
        running: HashMap::new(),
        closed: false,
        stop: stop.clone(),
    };
    followed.readers.start(&pipeline.metrics, &marks, workers, stop, sources)?;
    sources.spawn(forget(Arc::clone(&marks), stop.clone()));
    let metrics = Arc::clone(&pipeline.metrics);
    sources.spawn(discover(followed, named, discovering, config.files.clone(), metrics, stop.clone()));
    Ok(())
}

/// One `[[host-log]]`.
struct Group {
    delivery: Delivery,
    transforms: Transforms,
}

impl Group {
    fn new(source: &FileSource, pipeline: &Pipeline, config: &Config, stop: &CancellationToken) -> Group {
        let mut shared: LogTarget = source.shared.clone();
        shared.add_attributes.extend(pipeline.identity.clone());
        Group {
            delivery: Delivery::new(pipeline, "tailsource", &shared, config, stop),
            transforms: source.shared.transforms.transforms.clone(),
        }
    }
}

/// How the lines of a target become rows.
struct Log {
    group: usize,
    lines: Arc<LineOptions>,
    parsers: Parsers,
    destination: Destination,
    resource: Arc<Map>,
}

type Logs = Arc<RwLock<HashMap<Arc<str>, Arc<Log>>>>;

/// What is followed, and how it is read.
struct Followed {
    readers: Readers,
    logs: Logs,
    /// How lines of pods are read: most pods have it alike.
    lines: Vec<(PodLines, Arc<LineOptions>)>,
    /// Targets that are not wanted any more, since when.
    retired: HashMap<Arc<str>, Instant>,
}

impl Followed {
    /// The targets that the configuration names, and who reads them.
    fn named(&mut self, sources: &[FileSource]) -> anyhow::Result<Vec<(ReaderId, Target)>> {
        let mut targets = Vec::new();
        let mounts = Mounts::read();
        for (group, source) in sources.iter().enumerate() {
            for (i, file) in source.files.iter().enumerate() {
                let key = format!("{group}.{i}");
                let parts = self.parts(group, &key, file, &mounts);
                targets.extend(parts.with_context(|| format!("host-log.file-target {}", file.path))?);
            }
        }
        Ok(targets)
    }

    /// The files of a pattern: those of each mount that may hang by themselves, and the others.
    fn parts(&mut self, group: usize, key: &str, file: &FileLog, mounts: &Mounts) -> anyhow::Result<Vec<(ReaderId, Target)>> {
        let folder = tail::folder(&file.path);
        let (reader, target) = self.part(group, key, file, folder)?;
        let below: Vec<_> = mounts.below(folder).into_iter().filter(|mount| target.reaches(mount)).collect();
        let mut parts = vec![(reader, target.without(below.clone()))];
        for mount in &below {
            let (reader, target) = self.part(group, &format!("{key}:{}", mount.display()), file, mount)?;
            parts.push((reader, target.only_in(mount).without(mounts.below(mount))));
        }
        Ok(parts)
    }

    /// The target `key`, read by the reader of `folder`.
    fn part(&mut self, group: usize, key: &str, file: &FileLog, folder: &Path) -> anyhow::Result<(ReaderId, Target)> {
        let scope = format!("{}.{}", file.destination.database(), file.destination.table());
        let reader = self.readers.of(folder);
        let budget = self.readers.budget(reader, group, file.destination.database());
        let target = Target::new(key, &scope, std::slice::from_ref(&file.path), &file.exclude, budget)?;
        let log = (Arc::clone(&file.lines), file.parsers.clone(), file.destination.clone(), Map::new());
        self.put(&target, group, log);
        Ok((reader, target.max_line_bytes(file.lines.max_bytes)))
    }

    fn pod(&mut self, group: usize, log: &PodLog) -> anyhow::Result<Target> {
        let destination = Destination::new(&log.database, &log.table).context("database and table need an ASCII letter or digit each")?;
        let budget = self.readers.budget(readers::PODS, group, destination.database());
        let target = Target::new(&log.file, PODS, std::slice::from_ref(&log.file), &[], budget)?;
        let parsers = Parsers::from_names(&log.parsers).map_err(anyhow::Error::msg)?;
        let resource = log.resource.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
        let lines = self.lines(&log.lines)?;
        // What a line is cut to is for its reader to say, who knows what is message in it; this bounds what is held.
        let longest = target.max_line_bytes.max(lines.max_bytes);
        self.put(&target, group, (lines, parsers, destination, resource));
        Ok(target.max_line_bytes(longest))
    }

    fn lines(&mut self, lines: &PodLines) -> anyhow::Result<Arc<LineOptions>> {
        if let Some((_, options)) = self.lines.iter().find(|(known, _)| known == lines) {
            return Ok(Arc::clone(options));
        }
        let options = lines.options().map_err(|(key, why)| anyhow::anyhow!("multi-line.{key}: {why}"))?;
        let options = Arc::new(options);
        self.lines.push((lines.clone(), Arc::clone(&options)));
        Ok(options)
    }

    fn put(&self, target: &Target, group: usize, (lines, parsers, destination, resource): (Arc<LineOptions>, Parsers, Destination, Map)) {
        let log = Log { group, lines, parsers, destination, resource: Arc::new(resource) };
        self.logs.write().insert(Arc::clone(&target.key), Arc::new(log));
    }

    /// Forgets how targets are read that were not wanted for so long that nothing of them is on its way.
    fn retire<'t>(&mut self, wanted: impl Iterator<Item = &'t Target>) {
        let wanted: HashSet<&str> = wanted.map(|target| &*target.key).collect();
        let mut logs = self.logs.write();
        self.retired.retain(|key, _| !wanted.contains(&**key));
        for key in logs.keys().filter(|key| !wanted.contains(&***key)) {
            self.retired.entry(Arc::clone(key)).or_insert_with(Instant::now);
        }
        self.retired.retain(|key, since| {
            let keep = since.elapsed() < RETIRED;
            if !keep {
                logs.remove(key);
            }
            keep
        });
        self.lines.retain(|(_, options)| Arc::strong_count(options) > 1);
    }
}

/// Tells what to follow: at once, and when the pods change.
async fn discover(
    mut followed: Followed,
    named: Vec<(ReaderId, Target)>,
    discovering: Option<(usize, watch::Receiver<Pods>)>,
    sources: Vec<FileSource>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let mut by_reader: HashMap<ReaderId, Vec<Target>> = HashMap::new();
    for (reader, target) in &named {
        by_reader.entry(*reader).or_default().push(target.clone());
    }
    for (reader, targets) in by_reader {
        followed.readers.follow(reader, targets);
    }
    let mut told = BTreeSet::new();
    tell(BTreeSet::new(), &mut told, &metrics);
    let Some((group, mut pods)) = discovering else {
        stop.cancelled().await;
        return;
    };
    let Some(settings) = sources[group].pods.clone() else { return };
    loop {
        let snapshot = pods.borrow_and_update().clone();
        if snapshot.known {
            let (mut wanted, mut mistakes) = (Vec::new(), BTreeSet::new());
            let mut seen = BTreeMap::new();
            for log in snapshot.by_uid.values().flat_map(|pod| pod_logs::logs(pod, &settings, &mut mistakes)) {
                seen.insert(log.file.clone(), log);
            }
            tell(mistakes, &mut told, &metrics);
            for log in seen.values() {
                match followed.pod(group, log) {
                    Ok(target) => wanted.push(target),
                    Err(error) => tracing::warn!(file = log.file, error = %format!("{error:#}"), "the log of a container is not collected"),
                }
            }
            followed.retire(named.iter().map(|(_, target)| target).chain(&wanted));
            followed.readers.follow(readers::PODS, wanted);
        }
        if !matches!(stop.run_until_cancelled(pods.changed()).await, Some(Ok(()))) {
            return;
        }
    }
}

/// Tells what is wrong with annotations: once in the log, and as long as it is so in the metrics.
fn tell(mistakes: BTreeSet<Mistake>, told: &mut BTreeSet<Mistake>, metrics: &Metrics) {
    mistakes.difference(told).for_each(Mistake::tell);
    metrics.log_annotations_unusable.set(i64::try_from(mistakes.len()).unwrap_or(i64::MAX));
    *told = mistakes;
}

/// Forgets positions of files that do not come back.
async fn forget(marks: Arc<Marks>, stop: CancellationToken) {
    if stop.run_until_cancelled(tokio::time::sleep(FORGET_AFTER)).await.is_some() {
        // On a thread that nobody waits for: a file system may hang.
        std::thread::spawn(move || marks.forget_missing());
    }
}

/// A worker, and what it listens to.
struct Running {
    sender: mpsc::UnboundedSender<Event>,
    task: JoinHandle<()>,
}

/// The workers of one reader, by what they have to do with.
struct Workers {
    groups: Vec<Arc<Group>>,
    logs: Logs,
    marks: Arc<Marks>,
    running: HashMap<(usize, Arc<str>), Running>,
    /// Whether nothing is taken any more.
    closed: bool,
    stop: CancellationToken,
}

impl Workers {
    fn give(&mut self, event: Event) {
        if self.closed {
            return;
        }
        let key = match &event {
            Event::Lines(chunk) => &chunk.target.key,
            Event::Started { target, .. } | Event::Gone { target, .. } => &target.key,
        };
        let Some(log) = self.logs.read().get(key).cloned() else { return };
        let running = self.running.entry((log.group, Arc::clone(log.destination.database()))).or_insert_with(|| {
            let (sender, events) = mpsc::unbounded_channel();
            let worker = Worker::new(Arc::clone(&self.groups[log.group]), Arc::clone(&self.logs), Arc::clone(&self.marks));
            Running { sender, task: tokio::spawn(worker.run(events, self.stop.clone())) }
        });
        // Bounded by what may be in flight. A worker that failed has said so.
        let _ = running.sender.send(event);
    }

    /// Takes nothing more; the workers, which end with what they have.
    fn close(&mut self) -> Vec<JoinHandle<()>> {
        self.closed = true;
        self.running.drain().map(|(_, running)| running.task).collect()
    }
}

/// Reader states and cursor files that wait for their stream to begin.
type Waiting<T> = Mutex<HashMap<Vec<u8>, T>>;
