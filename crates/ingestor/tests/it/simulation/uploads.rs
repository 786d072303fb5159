//! From an ingestor into Kusto: the real plans of batches and their passages, with a store, a network and a Kusto that fail.

use std::sync::Arc;
use std::time::Duration;

use ingestor::upload::machine::{Done, NotEnqueued, Sent, Settings, Step, Uploads, Work};
use ingestor::upload::passage::{QueueOptions, Way};
use ingestor::upload::plan::{Ended, Gather, Limits};
use serde_json::json;
use wal::{BatchRecord, Outcome, SegmentId, Settlement, Store};

use super::kusto::Fate;
use super::{Event, World};

/// What is streamed, and does not wait to become more.
const STREAMED: &str = "T5";
const DATABASES: [&str; 2] = ["Logs", "Metrics"];

/// The uploads of a process that has just started, as its store has them.
pub(super) fn resume(store: &Store) -> Vec<(Arc<str>, Uploads)> {
    let uploads = |database: &str| {
        let mine: Vec<_> = store.sealed().into_iter().filter(|segment| *segment.table.database == *database).collect();
        (database.into(), Uploads::resume(settings(), store.batches(), mine))
    };
    DATABASES.into_iter().map(uploads).collect()
}

fn settings() -> Settings {
    let gather = Some(Gather { bytes: 2000, age_ms: 4000 });
    let queue = QueueOptions {
        tagged_bytes: 300,
        first_ask: Duration::from_millis(500),
        longest_ask: Duration::from_secs(4),
        first_retry: Duration::from_millis(500),
        batching: Duration::from_secs(5),
        lost: Duration::from_secs(200),
    };
    Settings {
        limits: Limits { max_segments: 6, max_bytes: 20_000, concurrency: 3, gather },
        urgent: vec![STREAMED.to_owned()],
        queue,
        outcome: (Outcome::Landed, "ingested"),
    }
}

impl World<'_> {
    /// Offers what is kept here, and begins what is due.
    pub(super) fn upload(&mut self, node: usize) {
        let here = &mut self.nodes[node];
        let Some(store) = here.store.as_ref().filter(|_| !here.uploads.is_empty()) else { return };
        for segment in store.sealed().into_iter().filter(|segment| here.kept.contains_key(&segment.id)) {
            let uploads = here.uploads.iter_mut().find(|(database, _)| *database == segment.table.database);
            uploads.into_iter().for_each(|(_, uploads)| uploads.offer([segment.clone()]));
        }
        self.go_on(node);
    }

    /// Begins what is due.
    fn go_on(&mut self, node: usize) {
        let (now, run) = (self.now(), self.nodes[node].run);
        let mut work = Vec::new();
        let (seed, ids) = (self.seed, &mut self.next_batch);
        let here = &mut self.nodes[node];
        for (_, uploads) in &mut here.uploads {
            work.extend(uploads.next(now, || {
                *ids += 1;
                (u128::from(seed) << 64 | u128::from(*ids)).to_be_bytes()
            }));
        }
        for work in work {
            self.begin(node, run, work);
        }
    }

    /// Something of an earlier run is over.
    pub(super) fn is_past(&self, node: usize, run: u64) -> bool {
        self.nodes[node].run != run || self.nodes[node].store.is_none()
    }

    pub(super) fn begin(&mut self, node: usize, run: u64, work: Work) {
        if self.is_past(node, run) {
            return;
        }
        let Some(store) = self.nodes[node].store.clone() else { return };
        match &work.step {
            Step::Record(record) => match record_batch(&store, record) {
                true => self.comes_back(node, run, work, Done::Recorded, 1),
                false => self.at(1000, Event::Begins { node, run, work }),
            },
            Step::Close { settlements, record } => {
                let closed = self.settle(node, &store, settlements) && record.as_ref().is_none_or(|record| record_batch(&store, record));
                match closed {
                    true => self.comes_back(node, run, work, Done::Closed, 1),
                    false => self.at(1000, Event::Begins { node, run, work }),
                }
            }
            _ => {
                let reads = matches!(work.step, Step::Stream | Step::Upload);
                let rows = if reads { rows_of_batch(&store, &work) } else { Some(Vec::new()) };
                let Some(rows) = rows else { return };
                self.request(node, run, work, rows);
            }
        }
    }

    /// A request on its way; when it is lost its sender gives up in time.
    fn request(&mut self, node: usize, run: u64, work: Work, rows: Vec<String>) {
        if self.unlucky(10) || self.is_away(&work) {
            let nothing = failed(&work.step, self.kusto.forgets, false);
            return self.comes_back(node, run, work, nothing, 5000);
        }
        let delay = 1 + self.below(1500);
        self.at(delay, Event::Reaches { node, run, work, rows });
    }

    fn is_away(&self, work: &Work) -> bool {
        !self.is_healed() && self.away.iter().any(|database| **database == *work.batch.table.database)
    }

    fn comes_back(&mut self, node: usize, run: u64, work: Work, done: Done, delay: u64) {
        self.at(delay, Event::Back { node, run, work, done });
    }

    /// Kusto or its storage answers.
    pub(super) fn reaches(&mut self, node: usize, run: u64, work: Work, rows: Vec<String>) {
        let done = match self.unlucky(15) {
            true => failed(&work.step, self.kusto.forgets, false),
            false => self.serve(node, &work, rows),
        };
        let (done, delay) = match self.unlucky(8) {
            true => (self.answer_lost(node, &work, done), 5000 + self.below(20_000)),
            false => (done, 1 + self.below(500)),
        };
        self.comes_back(node, run, work, done, delay);
    }

    /// What a client makes of it. A row by which the message can be asked for is there before the message, if that was put.
    fn answer_lost(&mut self, node: usize, work: &Work, done: Done) -> Done {
        let now = self.now();
        match (done, &work.step) {
            (Done::Enqueued(Ok(receipt)), _) => Done::Enqueued(Err(NotEnqueued::Perhaps(receipt))),
            (_, Step::Enqueue { blob, tagged }) => {
                let row = self.kusto.announce(node, &work.batch.table, work.batch.id, blob, *tagged, now);
                Done::Enqueued(Err(NotEnqueued::Perhaps(json!({ "row": row }))))
            }
            (_, step) => failed(step, self.kusto.forgets, true),
        }
    }

    fn serve(&mut self, node: usize, work: &Work, rows: Vec<String>) -> Done {
        let (now, batch) = (self.now(), &work.batch);
        match &work.step {
            Step::Choose { .. } if *batch.table.table == *STREAMED => Done::Chosen(Ok(Way::Streaming)),
            Step::Choose { .. } => Done::Chosen(Ok(Way::Queued)),
            Step::Stream => {
                let remembers = !self.kusto.forgets;
                let sent = if self.unlucky(12) {
                    Sent::MustQueue
                } else if self.kusto.stream(node, batch.id, rows, now) {
                    Sent::Ended(Ended::Landed)
                } else {
                    Sent::Ended(Ended::Refused { landed: 0, bad: 0..batch.segments.len(), reason: "bad".to_owned(), partly: false })
                };
                Done::Streamed { sent, remembers }
            }
            Step::Upload => Done::Uploaded(Ok(self.kusto.put_blob(&batch.id, rows))),
            // Its container is no longer given out.
            Step::Enqueue { .. } if self.unlucky(15) => Done::Enqueued(Err(NotEnqueued::Gone)),
            Step::Enqueue { blob, tagged } => {
                let row = self.kusto.announce(node, &batch.table, batch.id, blob, *tagged, now);
                // Some are never taken up.
                if !self.unlucky(25) {
                    let delay = if self.unlucky(8) { self.below(60_000) } else { 1 + self.below(8000) };
                    self.at(delay, Event::TakenUp { row });
                }
                Done::Enqueued(Ok(json!({ "row": row })))
            }
            Step::Ask { receipt } => Done::Asked(Some(self.kusto.status(receipt))),
            Step::Record(_) | Step::Close { .. } => panic!("the store's"),
        }
    }

    pub(super) fn taken_up(&mut self, row: usize) {
        let fate = match self.below(40) {
            _ if self.is_healed() => Fate::Ingested,
            0..3 => Fate::Transient,
            3 => Fate::Missing,
            4 => Fate::Partly,
            5 => Fate::Skipped,
            _ => Fate::Ingested,
        };
        let now = self.now();
        let status = self.kusto.ingest(row, fate, now).clone();
        self.note(|| format!("Kusto takes up message {row}: {status:?}"));
    }

    pub(super) fn back(&mut self, node: usize, work: &Work, done: Done) {
        let now = self.now();
        let database = &work.batch.table.database;
        let uploads = self.nodes[node].uploads.iter_mut().find(|(name, _)| name == database);
        if let Some((_, uploads)) = uploads {
            uploads.done(&work.batch.id, done.clone(), now);
        }
        if matches!(done, Done::Closed) {
            self.closed(node, work);
        }
        self.go_on(node);
    }

    /// The sender forgets what is settled.
    fn closed(&mut self, node: usize, work: &Work) {
        let Step::Close { settlements, .. } = &work.step else { return };
        let here = &mut self.nodes[node];
        let gone = |id: &SegmentId| settlements.iter().any(|item| item.segment == *id);
        let keys: Vec<_> = work.batch.segments.iter().filter(|s| gone(&s.id)).map(super::nodes::key_of).collect();
        here.machine.iter_mut().for_each(|machine| machine.settled(&keys));
        here.kept.retain(|id, _| !gone(id));
    }

    /// Makes an end durable, and remembers which rows are counted with it.
    pub(super) fn settle(&mut self, node: usize, store: &Store, settlements: &[Settlement]) -> bool {
        let mut items = settlements.to_vec();
        for item in &mut items {
            item.maybe_duplicate |= self.nodes[node].kept.get(&item.segment).copied().unwrap_or_default();
            if item.maybe_duplicate
                && let Ok(image) = store.read_segment(item.segment)
            {
                self.nodes[node].doubtful.insert(item.segment, rows_of(&image));
            }
        }
        let settled = items.is_empty() || store.settle_wait(items).is_ok();
        if settled {
            self.count(node, store);
        }
        settled
    }

    /// What was settled as doubtful is counted.
    pub(super) fn count(&mut self, node: usize, store: &Store) {
        let doubtful = std::mem::take(&mut self.nodes[node].doubtful);
        if doubtful.is_empty() {
            return;
        }
        let sealed: std::collections::BTreeSet<SegmentId> = store.sealed().iter().map(|segment| segment.id).collect();
        for (id, rows) in doubtful {
            if !sealed.contains(&id) {
                self.counted.insert((node, id), rows);
            }
        }
    }

    /// Dead letters go once more.
    pub(super) fn retry_dead_letters(&mut self, node: usize) -> Option<usize> {
        let store = self.nodes[node].store.clone()?;
        let letters: Vec<SegmentId> = store.dead_letters().iter().map(|letter| letter.segment.id).collect();
        let (done, durable) = std::sync::mpsc::sync_channel(1);
        store.retry_dead_letters(letters, Box::new(move |result| done.send(result.is_ok()).unwrap()));
        durable.recv().unwrap();
        Some(node)
    }
}

/// What a client makes of a request that failed; `lost`: the answer alone.
fn failed(step: &Step, forgets: bool, lost: bool) -> Done {
    let transient = |outcome_unknown| Ended::Transient { database: true, retry_after: None, outcome_unknown };
    match step {
        Step::Choose { .. } => Done::Chosen(Err(transient(false))),
        Step::Stream => Done::Streamed { sent: Sent::Ended(transient(lost && forgets)), remembers: !forgets },
        Step::Upload => Done::Uploaded(Err(transient(false))),
        Step::Enqueue { .. } => Done::Enqueued(Err(NotEnqueued::Later)),
        Step::Ask { .. } => Done::Asked(None),
        Step::Record(_) | Step::Close { .. } => panic!("the store's"),
    }
}

fn record_batch(store: &Store, record: &BatchRecord) -> bool {
    let (done, durable) = std::sync::mpsc::sync_channel(1);
    store.record_batch(record.clone(), Box::new(move |result| done.send(result.is_ok()).unwrap()));
    durable.recv().unwrap()
}

/// Nothing when the disk is down.
fn rows_of_batch(store: &Store, work: &Work) -> Option<Vec<String>> {
    let images = work.batch.segments.iter().map(|segment| store.read_segment(segment.id).ok());
    Some(images.collect::<Option<Vec<_>>>()?.iter().flat_map(|image| rows_of(image)).collect())
}

pub(super) fn rows_of(image: &[u8]) -> Vec<String> {
    let text = String::from_utf8(wal::segment::values(image, true)).unwrap();
    text.lines().map(|line| line.strip_prefix("t,").unwrap().to_owned()).collect()
}
