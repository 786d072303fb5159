//! Collectors, three ingestors that pass segments on, and a fake Kusto on one heap of events, from one seed: a network that
//! loses, delays, repeats and cuts; disks that lose what was not synced, are full or slow; processes that end at any moment;
//! views of the cluster that are late and differ.
//!
//! Every row that was acknowledged is in Kusto at the end: once, or counted as a possible duplicate. At every moment each
//! store's ledger adds up. When the faults are over everything drains. Stores, the sender's machine, the routing and the
//! receiver with its answers are the real ones; the client of Kusto is a few lines here.
//!
//! `ADXMON_SEED=7` runs one seed and shows its events, `ADXMON_SOAK=200` runs 200 times as many. A seed that fails says so.

mod http;
mod nodes;
mod uploads;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::runtime::Runtime;
use transfer::machine::{Answer, Job};
use wal::BatchRecord;

use nodes::Node;

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
    InKusto {
        node: usize,
        run: u64,
        batch: BatchRecord,
        rows: Vec<String>,
    },
    Landed {
        node: usize,
        run: u64,
        batch: BatchRecord,
    },
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
    twice: u64,
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
    /// When each row came to Kusto, and from which node.
    kusto: BTreeMap<String, Vec<(u64, usize)>>,
    /// What Kusto remembers; nothing in worlds where it forgets.
    batches: BTreeSet<[u8; 16]>,
    trace: Vec<String>,
    runtime: &'a Runtime,
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let shown = if number("ADXMON_SEED").is_some() { usize::MAX } else { 150 };
            let from = self.trace.len().saturating_sub(shown);
            let seed = self.seed;
            eprintln!(
                "seed {seed}, the last of {} events; to see it again: ADXMON_SEED={seed} cargo nextest run -p ingestor simulation\n{}",
                self.trace.len(),
                self.trace[from..].join("\n")
            );
        }
    }
}

impl World<'_> {
    fn new(seed: u64, runtime: &Runtime) -> World<'_> {
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
            kusto: BTreeMap::new(),
            batches: BTreeSet::new(),
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
        }
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

    /// Whether Kusto takes a batch that comes twice for two.
    fn kusto_forgets(&self) -> bool {
        self.seed.is_multiple_of(4)
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.heap.push(Reverse((self.now() + delay, self.next_event)));
        self.events.insert(self.next_event, event);
        self.next_event += 1;
    }

    fn note(&mut self, text: String) {
        self.trace.push(format!("{:>8} {text}", self.now() - START));
    }

    fn run(&mut self) -> Story {
        while let Some(Reverse((time, id))) = self.heap.pop() {
            self.now.store(time, Ordering::Relaxed);
            assert!(time < END, "it does not drain");
            let event = self.events.remove(&id).unwrap();
            match &event {
                Event::Tick(_) => {}
                Event::Arrives { from, to, run, job, .. } => {
                    let numbers: Vec<u64> = job.segments.iter().map(|key| key.number).collect();
                    self.note(format!("{to} is reached by {from}, run {run}: ticket {} with {numbers:?}", job.ticket));
                }
                Event::InKusto { node, batch, rows, .. } => {
                    self.note(format!("in Kusto from {node}: {} rows, batch {:?}", rows.len(), &batch.id[..2]))
                }
                event => self.note(format!("{event:?}")),
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
            Event::InKusto { node, run, batch, rows } => self.in_kusto(node, run, batch, rows),
            Event::Landed { node, run, batch } if self.nodes[node].run == run => self.landed(node, &batch),
            _ => None,
        }
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
        for row in &self.acknowledged {
            assert!(self.kusto.contains_key(row), "row {row} was acknowledged and is lost");
        }
        story.twice = self.kusto.values().filter(|times| times.len() > 1).count() as u64;
        let first = self.kusto.iter().find(|(_, times)| times.len() > 1);
        let (twice, counted) = (story.twice, story.counted);
        assert!(twice <= counted, "{twice} rows are there twice, {counted} are counted; the first one: {first:?}");
        story
    }
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
        let mut world = World::new(seed, &runtime);
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
            let story = World::new(seed, &runtime).run();
            sum.rows += story.rows;
            sum.falls += story.falls;
            sum.passed_on += story.passed_on;
            sum.counted += story.counted;
            sum.twice += story.twice;
        }
    };
    let stories: Vec<Story> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let sum = |of: fn(&Story) -> u64| stories.iter().map(of).sum::<u64>();
    let (rows, falls, passed_on) = (sum(|s| s.rows), sum(|s| s.falls), sum(|s| s.passed_on));
    println!(
        "{seeds} seeds: {rows} rows, {falls} falls, {passed_on} passed on, {} counted, {} twice",
        sum(|s| s.counted),
        sum(|s| s.twice)
    );
    assert!(rows > 100 * seeds && falls > 2 * seeds && passed_on > 10 * seeds, "it is a peaceful world: {stories:?}");
}

#[test]
fn a_seed_tells_the_same_story_again() {
    let runtime = runtime();
    let story = || {
        let mut world = World::new(7, &runtime);
        let story = world.run();
        (story, world.acknowledged.clone(), world.kusto.clone(), world.trace.clone())
    };
    assert_eq!(story(), story());
}
