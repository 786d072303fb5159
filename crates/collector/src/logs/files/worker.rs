//! From lines to rows of one database, committed with the positions of the files.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use logs::{Batch, EncodedResource, Entry, LineCounts, LineReader, Transforms};
use tail::{Chunk, Event, Position, StreamId, Target};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::marks::{self, Marks};
use super::{Group, Log, Logs};
use crate::logs::now_ns;

/// A batch is committed when so many bytes of lines are in it ...
const BATCH_BYTES: usize = 1 << 20;

/// ... or after this time.
const BATCH_TIME: Duration = Duration::from_millis(200);

/// How often it is looked whether events of several lines are complete.
const TICK: Duration = Duration::from_secs(1);

/// Makes rows of lines and commits them.
pub(super) struct Worker {
    group: Arc<Group>,
    logs: Logs,
    marks: Arc<Marks>,
    transforms: Transforms,
    streams: HashMap<StreamId, Stream>,
    /// Keys of marks that go with the next commit; without a stream, to be deleted.
    moved: HashMap<Vec<u8>, Option<StreamId>>,
    /// What happened to lines since it was told last.
    counts: LineCounts,
    ticked: Instant,
}

/// A followed path.
struct Stream {
    reader: LineReader,
    key: Vec<u8>,
    log: Arc<Log>,
    /// The resource of the log, as rows have it.
    resource: Arc<EncodedResource>,
    position: Position,
    /// Whether it was said that lines of it are not as they should be.
    told: bool,
}

impl Worker {
    pub(super) fn new(group: Arc<Group>, logs: Logs, marks: Arc<Marks>) -> Worker {
        let transforms = group.transforms.clone();
        let counts = LineCounts::default();
        Worker { group, logs, marks, transforms, streams: HashMap::new(), moved: HashMap::new(), counts, ticked: Instant::now() }
    }

    /// Works until no events come, or `stop` while the store takes nothing.
    pub(super) async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>, stop: CancellationToken) {
        let group = Arc::clone(&self.group);
        loop {
            let mut batch = Batch::new(group.delivery.encoder());
            // Chunks count as being in flight until they are committed.
            let mut chunks = Vec::<Chunk>::new();
            let ended = self.fill(&mut batch, &mut chunks, &mut events).await;
            let (rows, counts) = batch.finish();
            group.delivery.lines(std::mem::take(&mut self.counts));
            group.delivery.transformed(&mut self.transforms);
            let moved = std::mem::take(&mut self.moved);
            if !rows.is_empty() || !moved.is_empty() {
                let marks = moved.iter().map(|(key, stream)| (key.clone(), self.mark(*stream))).collect();
                if !group.delivery.commit(rows, counts, marks, &stop).await {
                    return;
                }
                moved.keys().for_each(|key| self.marks.stored(key));
            }
            if ended {
                return;
            }
        }
    }

    fn mark(&self, stream: Option<StreamId>) -> Vec<u8> {
        let stream = stream.and_then(|id| self.streams.get(&id));
        stream.map_or_else(Vec::new, |stream| marks::encode(&stream.reader.save(), &stream.position))
    }

    /// Fills a batch; whether no more events will come.
    async fn fill(&mut self, batch: &mut Batch<'_>, chunks: &mut Vec<Chunk>, events: &mut mpsc::UnboundedReceiver<Event>) -> bool {
        let (mut bytes, mut until) = (0, None);
        while bytes < BATCH_BYTES {
            let wake = until.unwrap_or_else(|| Instant::now() + TICK);
            let Ok(event) = timeout_at(wake, events.recv()).await else {
                self.tick(batch);
                if until.is_some() || !batch.rows().is_empty() {
                    return false;
                }
                continue;
            };
            let Some(event) = event else { return true };
            until.get_or_insert_with(|| Instant::now() + BATCH_TIME);
            if let Some(chunk) = self.take(event, batch) {
                bytes += chunk.bytes();
                chunks.push(*chunk);
            }
        }
        self.tick(batch);
        false
    }

    fn take(&mut self, event: Event, batch: &mut Batch<'_>) -> Option<Box<Chunk>> {
        match event {
            Event::Started { stream, path, target, position } => {
                self.begin(stream, &path, &target, position);
                None
            }
            Event::Lines(chunk) => {
                self.lines(&chunk, batch);
                Some(chunk)
            }
            Event::Gone { stream, path, target } => {
                if let Some(mut stream) = self.streams.remove(&stream) {
                    let (now, transforms) = (now_ns(), &mut self.transforms);
                    let (log, resource) = (&stream.log, &stream.resource);
                    stream.reader.finish(now, |entry| row(&entry, (log, resource), transforms, batch, now));
                    self.counts += stream.reader.take_counts();
                }
                self.moved.insert(marks::key(&target.scope, &path), None);
                None
            }
        }
    }

    fn begin(&mut self, id: StreamId, path: &Path, target: &Target, position: Position) {
        let Some(log) = self.logs.read().get(&target.key).cloned() else { return };
        let key = marks::key(&target.scope, path);
        let fresh = || LineReader::new(Arc::clone(&log.lines));
        let reader = match self.marks.reader(&key) {
            None => fresh(),
            Some(saved) => LineReader::restore(Arc::clone(&log.lines), &saved).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "the beginning of a message was lost with an unreadable state");
                fresh()
            }),
        };
        let resource = self.group.delivery.encoder().resource(&log.resource);
        self.moved.insert(key.clone(), Some(id));
        self.streams.insert(id, Stream { reader, key, log, resource, position, told: false });
    }

    fn lines(&mut self, chunk: &Chunk, batch: &mut Batch<'_>) {
        if !self.streams.contains_key(&chunk.stream) {
            // Its destination was another one before.
            self.begin(chunk.stream, &chunk.path, &chunk.target, chunk.start());
        }
        let log = self.logs.read().get(&chunk.target.key).cloned();
        let Some(stream) = self.streams.get_mut(&chunk.stream) else { return };
        let encoder = self.group.delivery.encoder();
        let changed = log.filter(|log| !Arc::ptr_eq(log, &stream.log));
        if changed.is_some() || !encoder.is_current(&stream.resource) {
            stream.log = changed.unwrap_or_else(|| Arc::clone(&stream.log));
            stream.reader.set_options(Arc::clone(&stream.log.lines));
            stream.resource = encoder.resource(&stream.log.resource);
        }
        let (now, mut cut, mut cut_lines) = (now_ns(), 0, 0);
        let (log, transforms) = ((&*stream.log, &*stream.resource), &mut self.transforms);
        for line in chunk.lines() {
            cut += line.cut;
            cut_lines += u64::from(line.cut > 0);
            stream.reader.push(line.text, 0, now, |entry| row(&entry, log, transforms, batch, now));
        }
        let mut counts = stream.reader.take_counts();
        counts.cut_bytes += cut;
        counts.cut_entries += cut_lines;
        stream.tell(&chunk.path, &counts);
        self.counts += counts;
        stream.position = chunk.position(chunk.bytes());
        self.moved.insert(stream.key.clone(), Some(chunk.stream));
    }

    /// Ends events that have waited long enough for their next line.
    fn tick(&mut self, batch: &mut Batch<'_>) {
        if self.ticked.elapsed() < TICK {
            return;
        }
        self.ticked = Instant::now();
        let (now, transforms) = (now_ns(), &mut self.transforms);
        for (id, stream) in self.streams.iter_mut().filter(|(_, stream)| stream.log.lines.multi_line.is_some()) {
            let (log, before) = ((&*stream.log, &*stream.resource), batch.counts());
            stream.reader.tick(now, |entry| row(&entry, log, transforms, batch, now));
            self.counts += stream.reader.take_counts();
            if batch.counts() != before {
                self.moved.insert(stream.key.clone(), Some(*id));
            }
        }
    }
}

impl Stream {
    /// Says once that lines are not as they should be; metrics say how many.
    fn tell(&mut self, path: &Path, counts: &LineCounts) {
        let LineCounts { bad_lines, bad_times, invalid_utf8, cut_entries, .. } = *counts;
        if self.told || bad_lines + bad_times + invalid_utf8 + cut_entries == 0 {
            return;
        }
        self.told = true;
        tracing::warn!(
            path = %path.display(), not_of_format = bad_lines, bad_times, not_utf8 = invalid_utf8, cut = cut_entries,
            "lines of a log file are not of its log-type or above its limit: they are stored as they stand, or cut; what comes \
             after these is counted only"
        );
    }
}

/// Adds a message to the batch, which counts those that become no row.
fn row(entry: &Entry<'_>, (log, resource): (&Log, &EncodedResource), transforms: &mut Transforms, batch: &mut Batch<'_>, now: u64) {
    if log.parsers.is_empty() && transforms.is_empty() {
        let _ = batch.line(entry, resource, &log.destination);
        return;
    }
    let mut record = entry.record(&log.parsers, &log.resource, Some(&log.destination));
    if transforms.apply(&mut record, now) {
        let _ = batch.record(&record);
    }
}
