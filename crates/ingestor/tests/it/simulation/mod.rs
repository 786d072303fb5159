//! Collectors, three ingestors that pass segments on, and a fake Kusto on one heap of events, from one seed: a network that
//! loses, delays, repeats and cuts; disks that lose what was not synced, are full or slow; processes that end at any moment;
//! views of the cluster that are late and differ; a Kusto that is away, fails, loses messages, takes some rows of a batch,
//! refuses signatures that have ended, and whose answers get lost.
//!
//! Every row that was acknowledged is in Kusto or a dead letter at the end; one that is in two places was counted as a
//! possible duplicate, and no segment is counted twice. At every moment each store's ledger adds up. When the faults are over
//! everything drains. Stores, the sender's machine, the routing, the receiver with its answers, and the plans of batches with
//! their passages are the real ones; what is between them, and Kusto, are here.
//!
//! `ADXMON_SEED=7` runs one seed and shows its events, `ADXMON_SOAK=200` runs 200 times as many. A seed that fails says so.

mod http;
mod kusto;
mod nodes;
mod uploads;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ingestor::upload::machine::{Done, Step, Work};
use tokio::runtime::Runtime;
use transfer::machine::{Answer, Job};
use wal::SegmentId;

use kusto::Kusto;
use nodes::Node;
use uploads::rows_of;

const START: u64 = 1_760_000_000_000;
/// Faults end after this time, and everything has to drain.
const HEALED: u64 = START + 40_000;
const END: u64 = HEALED + 3_600_000;
const TICK: u64 = 500;
/// When nothing goes wrong any more.
const LATE_TICK: u64 = 2000;
const COLLECTORS: usize = 2;
const NODES: usize = 5;
const SEEDS: u64 = 500;

#[derive(Debug)]
enum Event {
    /// A client sends rows to a node.
    Write(usize),
    Tick(usize),
    Arrives {
        from: usize,
        to: usize,
        run: u64,
        job: Job,
        body: Vec<u8>,
        /// Which copy it is of a request that something on the way repeats, if so: the answer of the last one counts.
        copy: Option<Repeated>,
    },
    Answered {
        node: usize,
        run: u64,
        ticket: u64,
        answer: Answer,
    },
    Ends(usize, End),
    Starts(usize),
    /// The disk is full, or has room again.
    Full(usize, bool),
    /// Two nodes do not reach each other, or do again.
    Cut(usize, usize, bool),
    /// An ingestor sees who is there.
    Sees(usize),
    /// Work of uploads begins; again, when the disk did not take it.
    Begins {
        node: usize,
        run: u64,
        work: Work,
    },
    /// A request with these rows reaches Kusto or its storage.
    Reaches {
        node: usize,
        run: u64,
        work: Work,
        rows: Vec<String>,
    },
    Back {
        node: usize,
        run: u64,
        work: Work,
        done: Done,
    },
    /// Kusto takes a message out of its queue.
    TakenUp {
        row: usize,
    },
    /// A database is away, or there again.
    Away(&'static str, bool),
    /// Somebody retries the dead letters of a node.
    Retries(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Repeated {
    First,
    Last,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Kill,
    PowerCut,
    /// At the disk operation so far ahead.
    DuringWork(u64),
}

/// What happened in how many places, so that nobody takes a peaceful world for a proof.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Story {
    rows: u64,
    falls: u64,
    /// Rows that went from one ingestor to another.
    passed_on: u64,
    counted: u64,
    /// Rows in two places.
    twice: u64,
    dead: u64,
    /// Batches with a way through the queue, and messages of which nobody knew whether they were there.
    queued: u64,
}

struct World<'a> {
    seed: u64,
    random: u64,
    now: Arc<AtomicU64>,
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    next_event: u64,
    nodes: Vec<Node>,
    cut: BTreeSet<(usize, usize)>,
    acknowledged: BTreeSet<String>,
    written: u64,
    kusto: Kusto,
    /// Databases that are away.
    away: Vec<&'static str>,
    next_batch: u64,
    /// Rows of the segments that were settled as perhaps stored elsewhere.
    counted: BTreeMap<(usize, SegmentId), Vec<String>>,
    traced: bool,
    trace: Vec<String>,
    runtime: &'a Runtime,
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.seed;
            let trace = self.trace.join("\n");
            eprintln!("{trace}\nseed {seed}; to see its events: ADXMON_SEED={seed} cargo nextest run -p ingestor simulation");
        }
    }
}

impl World<'_> {
    fn new(seed: u64, traced: bool, runtime: &Runtime) -> World<'_> {
        let now = Arc::new(AtomicU64::new(START));
        let mut world = World {
            seed,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            nodes: (0..NODES).map(|node| Node::new(node, seed, now.clone())).collect(),
            now,
            heap: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            cut: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            written: 0,
            kusto: Kusto::new(seed.is_multiple_of(4)),
            away: Vec::new(),
            next_batch: 0,
            counted: BTreeMap::new(),
            traced,
            trace: Vec::new(),
            runtime,
        };
        for node in 0..NODES {
            world.start(node);
            world.at(node as u64 * 7, Event::Tick(node));
            let (delay, end) = (world.below(25_000), world.end());
            world.at(delay, Event::Ends(node, end));
            let delay = world.below(40_000);
            world.at(delay, Event::Full(node, true));
            let (delay, other) = (world.below(30_000), world.below(NODES as u64) as usize);
            world.at(delay, Event::Cut(node, other, true));
            world.at(10, Event::Write(node));
            if node >= COLLECTORS {
                let delay = 20_000 + world.below(60_000);
                world.at(delay, Event::Retries(node));
            }
        }
        let delay = world.below(30_000);
        world.at(delay, Event::Away(["Logs", "Metrics"][(seed % 2) as usize], true));
        world
    }

    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// xorshift: the same everywhere.
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % bound
    }

    fn is_healed(&self) -> bool {
        self.now() >= HEALED
    }

    /// Whether something that goes wrong once in `n` goes wrong now.
    fn unlucky(&mut self, n: u64) -> bool {
        !self.is_healed() && self.below(n) == 0
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.heap.push(Reverse((self.now() + delay, self.next_event)));
        self.events.insert(self.next_event, event);
        self.next_event += 1;
    }

    /// The trace of a seed is kept when it is asked for: it costs more than the events.
    fn note(&mut self, text: impl FnOnce() -> String) {
        if !self.traced {
            return;
        }
        let text = text();
        self.trace.push(format!("{:>8} {text}", self.now() - START));
    }

    fn run(&mut self) -> Story {
        while let Some(Reverse((time, id))) = self.heap.pop() {
            self.now.store(time, Ordering::Relaxed);
            assert!(time < END, "it does not drain");
            let event = self.events.remove(&id).unwrap();
            if !matches!(event, Event::Tick(_)) {
                self.note(|| told(&event));
            }
            let touched = self.handle(event);
            self.fallen();
            if let Some(store) = touched.and_then(|node| self.nodes[node].store.as_ref()) {
                store.ledger().check().unwrap();
            }
            if self.is_healed() && self.is_drained() {
                return self.check();
            }
        }
        panic!("nothing is left to do, and it has not drained");
    }

    fn is_drained(&self) -> bool {
        self.nodes.iter().all(|node| node.store.as_ref().is_some_and(|store| store.ledger().total().on_disk == 0))
    }

    /// Returns whose store was touched.
    fn handle(&mut self, event: Event) -> Option<usize> {
        match event {
            Event::Write(node) => self.write(node),
            Event::Tick(node) => self.tick(node),
            Event::Arrives { from, to, run, job, body, copy } => self.arrives((from, to), run, job, body, copy),
            Event::Answered { node, run, ticket, answer } if self.nodes[node].run == run => self.answered(node, ticket, answer),
            Event::Ends(node, end) => self.ends(node, end),
            Event::Starts(node) if self.nodes[node].store.is_none() => self.start(node),
            Event::Full(node, full) => self.fill(node, full),
            Event::Cut(one, other, cut) => self.separate(one, other, cut),
            Event::Sees(node) => self.sees(node),
            Event::Begins { node, run, work } => {
                self.begin(node, run, work);
                Some(node)
            }
            // Also what a process has sent that has ended since.
            Event::Reaches { node, run, work, rows } => {
                self.reaches(node, run, work, rows);
                None
            }
            Event::Back { node, run, work, done } if !self.is_past(node, run) => {
                self.back(node, &work, done);
                Some(node)
            }
            Event::TakenUp { row } => {
                self.taken_up(row);
                None
            }
            Event::Away(database, away) => {
                self.away.retain(|other| *other != database);
                if away {
                    self.away.push(database);
                    let delay = 5000 + self.below(40_000);
                    self.at(delay, Event::Away(database, false));
                }
                None
            }
            Event::Retries(node) => self.retry_dead_letters(node),
            _ => None,
        }
    }

    fn dead_rows(&self) -> Vec<(usize, String)> {
        let of_node = |(index, node): (usize, &Node)| {
            let store = node.store.as_ref().unwrap();
            let images = store.dead_letters().into_iter().map(|letter| store.read_dead_letter(letter.segment.id).unwrap());
            images.flat_map(|image| rows_of(&image)).map(|row| (index, row)).collect::<Vec<_>>()
        };
        self.nodes.iter().enumerate().flat_map(of_node).collect()
    }

    fn check(&self) -> Story {
        let mut story = Story { rows: self.acknowledged.len() as u64, ..Story::default() };
        for (index, node) in self.nodes.iter().enumerate() {
            let ledger = node.store.as_ref().unwrap().ledger();
            ledger.check().unwrap();
            assert_eq!(ledger.conflicts, 0, "a number came with two digests");
            story.counted += ledger.total().maybe_duplicate;
            story.falls += node.run - 1;
            story.passed_on += if index < COLLECTORS { 0 } else { ledger.total().forwarded };
        }
        let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (row, came) in &self.kusto.rows {
            places.insert(row, came.iter().map(|(at, node)| format!("in Kusto at {} from {node}", at - START)).collect());
        }
        let dead = self.dead_rows();
        for (node, row) in &dead {
            places.entry(row).or_default().push(format!("dead at {node}"));
        }
        for row in &self.acknowledged {
            assert!(places.contains_key(row.as_str()), "row {row} was acknowledged and is lost");
        }
        let counted: BTreeSet<&str> = self.counted.values().flatten().map(String::as_str).collect();
        for (row, places) in places.iter().filter(|(_, places)| places.len() > 1) {
            assert!(counted.contains(row), "row {row} is in two places and was not counted: {places:?}");
            story.twice += 1;
        }
        let rows: u64 = self.counted.values().map(|rows| rows.len() as u64).sum();
        assert_eq!(story.counted, rows, "the ledgers count other rows than were settled as doubtful");
        (story.dead, story.queued) = (dead.len() as u64, self.kusto.queued());
        story
    }
}

/// An event, for the trace.
fn told(event: &Event) -> String {
    match event {
        Event::Arrives { from, to, run, job, .. } => {
            let numbers: Vec<u64> = job.segments.iter().map(|key| key.number).collect();
            format!("{to} is reached by {from}, run {run}: ticket {} with {numbers:?}", job.ticket)
        }
        Event::Begins { node, work, .. } => format!("{node} tries again: {}", name(work)),
        Event::Reaches { node, run, work, .. } => format!("Kusto is reached by {node}, run {run}: {}", name(work)),
        Event::Back { node, run, work, done } => format!("{node}, run {run}: {} is back: {done:?}", name(work)),
        event => format!("{event:?}"),
    }
}

/// A piece of work, for the trace.
fn name(work: &Work) -> String {
    let step = match &work.step {
        Step::Record(record) => format!("Record {:?} {}", record.state, String::from_utf8_lossy(&record.detail)),
        Step::Close { settlements, record } => {
            let rest = record.as_ref().map(|record| String::from_utf8_lossy(&record.detail).into_owned());
            format!("Close {} of {}, rest {rest:?}", settlements.len(), work.batch.segments.len())
        }
        step => format!("{step:?}"),
    };
    let segments: Vec<String> = work.batch.segments.iter().map(|segment| segment.id.to_string()).collect();
    format!("batch {} of {} {segments:?}: {step}", work.batch.id[15], work.batch.table)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[test]
fn every_row_is_in_kusto_once_or_counted_whatever_happens_to_the_cluster() {
    if let Some(seed) = number("ADXMON_SEED") {
        let runtime = runtime();
        let mut world = World::new(seed, true, &runtime);
        let story = world.run();
        println!("{}\n{story:?}", world.trace.join("\n"));
        return;
    }
    let seeds = SEEDS * number("ADXMON_SOAK").unwrap_or(1);
    let next = AtomicUsize::new(1);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let run = || {
        let runtime = runtime();
        let mut sum = Story::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed) as u64;
            if seed > seeds {
                return sum;
            }
            let story = World::new(seed, false, &runtime).run();
            sum.rows += story.rows;
            sum.falls += story.falls;
            sum.passed_on += story.passed_on;
            sum.counted += story.counted;
            sum.twice += story.twice;
            sum.dead += story.dead;
            sum.queued += story.queued;
        }
    };
    let stories: Vec<Story> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let sum = |of: fn(&Story) -> u64| stories.iter().map(of).sum::<u64>();
    let (rows, falls, passed_on) = (sum(|s| s.rows), sum(|s| s.falls), sum(|s| s.passed_on));
    let (queued, dead) = (sum(|s| s.queued), sum(|s| s.dead));
    println!(
        "{seeds} seeds: {rows} rows, {falls} falls, {passed_on} passed on, {queued} messages, {} counted, {} in two places, {dead} dead",
        sum(|s| s.counted),
        sum(|s| s.twice)
    );
    let peaceful = rows < 100 * seeds || falls < 2 * seeds || passed_on < 10 * seeds || queued < 10 * seeds || dead < seeds;
    assert!(!peaceful, "it is a peaceful world: {stories:?}");
}

#[test]
fn a_seed_tells_the_same_story_again() {
    let runtime = runtime();
    let story = || {
        let mut world = World::new(7, true, &runtime);
        let story = world.run();
        (story, world.acknowledged.clone(), world.kusto.rows.clone(), world.trace.clone())
    };
    assert_eq!(story(), story());
}
