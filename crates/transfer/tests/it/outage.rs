//! The ingestor is away for an hour of full load, or sick in turn: 429, 500, slow, torn connections.
//!
//! Time is a number here: an hour of it takes seconds. Store, machine and receiver are the real ones, on real files; a
//! client is answered as the store says. Nothing that was acknowledged is lost or comes twice, memory stays where it was,
//! and the backlog is gone in a fraction of the time it took to come, while clients go on.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use transfer::machine::{Answer, Config, Contract, Job, Machine, Settle, Step};
use wal::{Durability, Options, Outcome, RealDisk, Section, SectionBody, Settlement, Store, TableKey};

use crate::simulation::{any, body, post};

const START: u64 = 1_760_000_000_000;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// A request of the clients, each second: so many rows, of each of so many tables as many.
const ROWS: u64 = 150;
const TABLES: u64 = 6;
/// In the long form: as many segments as a node with all metrics of a cluster has in an hour.
const TABLES_OF_SOAK: (u64, u64) = (500, 500);
/// The sender's memory for rows.
const MEMTABLE: usize = 256 << 10;
/// From the sender's first byte to the answer.
const ROUND_TRIP: u64 = 50;

/// What the ingestor is like.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Health {
    Well,
    Away,
    /// 429 for everything.
    Full,
    /// 500; every second time it has stored the request all the same.
    Failing,
    /// Answers after 20 s.
    Slow,
    /// The connection breaks before or after the request was stored.
    Torn,
}

/// Minutes after the start at which it becomes so.
type Story = &'static [(u64, Health)];

enum Event {
    Arrives(Job, Vec<u8>),
    Answered(u64, Answer),
}

struct World {
    now: u64,
    story: Story,
    tables: u64,
    rows_of_table: u64,
    sender: Store,
    machine: Machine,
    receiver: Store,
    dirs: Vec<tempfile::TempDir>,
    sealed: Arc<AtomicBool>,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    by_number: HashMap<u64, Event>,
    next_event: u64,
    /// The highest number that the machine was told of.
    offered: u64,
    requests: u64,
    rows: u64,
    largest_memtable: u64,
    runtime: tokio::runtime::Runtime,
}

fn open(dir: &std::path::Path, memtable_bytes: usize) -> Store {
    let options = Options {
        durability: Durability::Process,
        journal_file_bytes: 1 << 20,
        journal_budget_bytes: 4 << 20,
        memtable_bytes,
        block_bytes: 16 << 10,
        segment_max_age_ms: 30_000,
        ..Options::new(dir)
    };
    Store::open_inline(options, RealDisk::new(), START).unwrap().0
}

impl World {
    fn new(story: Story, (tables, rows): (u64, u64)) -> World {
        let dirs = vec![tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let config = Config {
            endpoints: vec!["http://ingestor".to_owned()],
            max_batch_bytes: 4 << 20,
            max_batch_segments: 500,
            concurrency: 5,
            endpoint_concurrency: usize::MAX,
            pin_ms: 10 * MINUTE,
            unhealthy_ms: MINUTE,
        };
        let (sender, sealed) = (open(dirs[0].path(), MEMTABLE), Arc::new(AtomicBool::new(false)));
        let wake = sealed.clone();
        sender.on_sealed(Arc::new(move || wake.store(true, Ordering::SeqCst)));
        World {
            now: START,
            story,
            tables,
            rows_of_table: rows / tables,
            sender,
            sealed,
            machine: Machine::new(config, None, START),
            receiver: open(dirs[1].path(), 12 << 20),
            dirs,
            events: BinaryHeap::new(),
            by_number: HashMap::new(),
            next_event: 0,
            offered: 0,
            requests: 0,
            rows: 0,
            largest_memtable: 0,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        }
    }

    fn health(&self) -> Health {
        let minutes = (self.now - START) / MINUTE;
        self.story.iter().rev().find(|(from, _)| *from <= minutes).map_or(Health::Well, |(_, health)| *health)
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.events.push(Reverse((self.now + delay, self.next_event)));
        self.by_number.insert(self.next_event, event);
        self.next_event += 1;
    }

    /// Goes on for a second: a client's request, what happens on the network, and the clock of the stores.
    fn second(&mut self) {
        self.write();
        let until = self.now + 1000;
        while let Some(&Reverse((time, number))) = self.events.peek().filter(|Reverse((time, _))| *time <= until) {
            self.events.pop();
            self.now = time;
            let event = self.by_number.remove(&number).unwrap();
            self.handle(event);
            self.advance();
        }
        self.now = until;
        self.sender.tick(self.now);
        self.receiver.tick(self.now);
        self.offer();
        self.advance();
        self.largest_memtable = self.largest_memtable.max(self.sender.usage().memtable_bytes);
    }

    fn offer(&mut self) {
        if self.sealed.swap(false, Ordering::SeqCst) {
            let new = self.sender.sealed_after(|_| self.offered);
            self.offered = new.last().map_or(self.offered, |last| last.number);
            self.machine.offer(new.iter().map(any));
        }
    }

    fn write(&mut self) {
        let section = |table: u64| {
            let first = self.rows + table * self.rows_of_table;
            let rows = (first..first + self.rows_of_table).map(|row| format!("2026-01-01T00:00:00Z,{row}\n"));
            Section {
                table: TableKey::new("Metrics", format!("T{table}"), "abc"),
                header: Arc::from(&b"Time:datetime,Row:long\n"[..]),
                sample_type: 1,
                rows: self.rows_of_table as u32,
                body: SectionBody::Rows(rows.collect::<String>().into_bytes()),
            }
        };
        let sections = (0..self.tables).map(section).collect();
        self.sender.commit_wait(wal::Request { sections, ..Default::default() }).unwrap();
        self.rows += self.tables * self.rows_of_table;
    }

    fn advance(&mut self) {
        loop {
            match self.machine.next(self.now) {
                Step::Wait(_) => return,
                Step::Probe { endpoint } => {
                    let contract = Contract::Ours { receiver: self.receiver.sender_id() };
                    let answers = !matches!(self.health(), Health::Away);
                    self.machine.probed(endpoint, answers.then_some(contract), self.now);
                }
                Step::Record(bytes) => {
                    let marks = vec![(b"transfer/places".to_vec(), bytes)];
                    self.sender.commit_wait(wal::Request { marks, ..Default::default() }).unwrap();
                    self.machine.recorded(true);
                }
                Step::Send(job) => {
                    self.requests += 1;
                    let body = body(&self.sender, &job).unwrap();
                    self.at(ROUND_TRIP / 2, Event::Arrives(job, body));
                }
                Step::Release(_) => panic!("nobody else sees to them"),
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Answered(ticket, answer) => self.answered(ticket, answer),
            Event::Arrives(job, body) => {
                let (ticket, second) = (job.ticket, self.requests.is_multiple_of(2));
                let store = |world: &mut World| world.runtime.block_on(post(world.receiver.clone(), &job, body.clone()));
                let (answer, delay) = match self.health() {
                    Health::Away => (Answer::Unavailable { retry_after_ms: None }, 0),
                    Health::Full => (Answer::DatabaseBusy { retry_after_ms: Some(10_000) }, ROUND_TRIP / 2),
                    Health::Well => (store(self), ROUND_TRIP / 2),
                    Health::Slow => (store(self), 20_000),
                    Health::Failing | Health::Torn => {
                        if second {
                            store(self);
                        }
                        (Answer::Unknown, ROUND_TRIP / 2)
                    }
                };
                self.at(delay, Event::Answered(ticket, answer));
            }
        }
    }

    fn answered(&mut self, ticket: u64, answer: Answer) {
        let settles = self.machine.answered(ticket, answer, self.now);
        if settles.is_empty() {
            return;
        }
        let item = |settle: &Settle| {
            let segment = self.sender.sealed_segment(&settle.key.database, settle.key.number).unwrap().id;
            assert_eq!(settle.dead, None, "nothing here is refused for ever");
            Settlement { segment, outcome: Outcome::Forwarded, reason: String::new(), maybe_duplicate: settle.maybe_duplicate }
        };
        self.sender.settle_wait(settles.iter().map(item).collect()).unwrap();
        self.machine.settled(settles.iter().map(|settle| &settle.key));
    }

    fn until(&mut self, time: u64) {
        while self.now < time {
            self.second();
        }
    }

    /// Numbers of the rows that the receiver has, and how often one came again.
    fn received(&self) -> (BTreeSet<u64>, u64) {
        self.receiver.seal_all().unwrap();
        let (mut rows, mut twice) = (BTreeSet::new(), 0);
        for info in self.receiver.sealed() {
            let text = String::from_utf8(wal::segment::values(&self.receiver.read_segment(info.id).unwrap(), true)).unwrap();
            for line in text.lines() {
                twice += u64::from(!rows.insert(line.split_once(',').unwrap().1.parse().unwrap()));
            }
        }
        (rows, twice)
    }
}

/// Resident memory of this process in bytes, where it is the test's own: nextest starts one for each.
fn resident() -> Option<u64> {
    std::env::var_os("NEXTEST")?;
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(text.split(' ').nth(1)?.parse::<u64>().ok()? * 4096)
}

/// The end: no more clients, and everything there is arrives. `twice` is what may be there twice and is counted.
fn check(mut world: World) {
    world.sender.seal_all().unwrap();
    world.offer();
    while world.machine.pending() > 0 {
        world.advance();
        let Some(Reverse((time, number))) = world.events.pop() else {
            world.now += 1000;
            continue;
        };
        world.now = world.now.max(time);
        let event = world.by_number.remove(&number).unwrap();
        world.handle(event);
    }
    let written = world.rows;
    let (rows, twice) = world.received();
    assert_eq!((rows.len() as u64, rows.last().copied()), (written, Some(written - 1)));
    let total = world.sender.ledger().total();
    assert_eq!((twice, total.maybe_duplicate), (0, 0), "one ingestor, never silent for ten minutes: no duplicate");
    assert_eq!((total.accepted, total.forwarded, total.on_disk), (written, written, 0));
    world.sender.ledger().check().unwrap();
    world.receiver.ledger().check().unwrap();
    // Rows wait on disk: memory holds what it always does, and one request's rows.
    assert!(world.largest_memtable < 2 * MEMTABLE as u64, "{}", world.largest_memtable);
    drop(world.dirs);
}

#[test]
fn after_an_hour_without_an_ingestor_nothing_is_lost_and_the_backlog_goes_faster_than_it_came() {
    let load = if std::env::var_os("ADXMON_SOAK").is_some() { TABLES_OF_SOAK } else { (TABLES, ROWS) };
    let mut world = World::new(&[(0, Health::Well), (5, Health::Away), (65, Health::Well)], load);
    world.until(START + 5 * MINUTE);
    let steady = world.machine.pending();
    assert!(steady < 8 * load.0 as usize, "{steady} segments wait while all is well");

    world.until(START + 15 * MINUTE);
    let (memory, pending, waiting) = (resident(), world.machine.pending(), world.sender.ledger().total().on_disk);
    let requests = world.requests;
    world.until(START + 65 * MINUTE);
    let backlog = world.machine.pending();
    let rows = world.sender.ledger().total().on_disk;
    assert!(rows > 5 * waiting, "{rows} rows wait, {waiting} did after ten minutes");
    if let (Some(before), Some(after)) = (memory, resident()) {
        let grown = after.saturating_sub(before);
        // What a segment costs in memory while it waits.
        let segments = (backlog - pending) as u64 * 400;
        assert!(grown < (8 << 20) + segments, "{grown} bytes more in fifty minutes, for {backlog} segments on disk");
        println!("{grown} bytes more for {} segments", backlog - pending);
    }
    // It is asked whether it is back, not for each segment.
    assert!(world.requests - requests <= 50, "{} requests in fifty minutes of absence", world.requests - requests);

    let (back, before) = (world.now, world.requests);
    while world.machine.pending() > steady {
        world.second();
        // A tenth of the time it took to come, while clients go on.
        assert!(world.now < back + HOUR / 10, "{} segments still wait", world.machine.pending());
    }
    println!("{backlog} segments in {} s with {} requests", (world.now - back) / 1000, world.requests - before);
    check(world);
}

#[test]
fn an_ingestor_that_is_sick_in_every_way_costs_no_row() {
    let story = &[(0, Health::Away), (10, Health::Full), (15, Health::Failing), (20, Health::Slow), (25, Health::Torn), (30, Health::Well)];
    let mut world = World::new(story, (TABLES, ROWS));
    world.until(START + 15 * MINUTE);
    let backlog = world.machine.pending();
    assert!(backlog > 100, "{backlog} segments wait for one that is away, then full");
    world.until(START + 30 * MINUTE);
    let healed = world.now;
    while world.machine.pending() > 20 {
        world.second();
        assert!(world.now < healed + 2 * MINUTE, "{} segments still wait", world.machine.pending());
    }
    check(world);
}
