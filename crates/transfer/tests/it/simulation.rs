//! Senders, receivers, uploaders and a fake Kusto on one heap of events, from one seed: stores on disks that lose
//! what was not synced, a network that loses, delays and repeats, processes that end at any moment.
//!
//! Every row that was acknowledged to a client is in Kusto at the end: once, or counted as a possible duplicate.
//! Stores, the sender's machine and the receiver with its answers are the real ones; the client of Kusto is a few
//! lines here. A failing seed prints its last events; `ADXMON_SOAK=<factor>` runs more seeds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use http_body_util::BodyExt as _;
use tower::ServiceExt as _;
use transfer::exchange;
use transfer::machine::{Answer, Config, Contract, Job, Key, Machine, Offer, Route, Settle, Step};
use transfer::receiver::{ReceiverOptions, router};
use wal::disk::sim::{Fault, SimDisk};
use wal::{BatchRecord, BatchState, Options, Outcome, Section, SectionBody, Settlement, Store, TableKey};

const START: u64 = 1_760_000_000_000;
/// Faults end after this time, and everything has to drain.
const HEALED: u64 = START + 400_000;
const END: u64 = HEALED + 3_600_000;
const PLACES: &[u8] = b"transfer/places";
const SENDERS: usize = 2;
const NODES: usize = 4;

#[derive(Debug)]
enum Event {
    /// A client sends rows to a sender.
    Write(usize),
    Tick(usize),
    Arrives {
        sender: usize,
        run: u64,
        job: Job,
        body: Vec<u8>,
    },
    Answered {
        sender: usize,
        run: u64,
        ticket: u64,
        answer: Answer,
    },
    Ends(usize, End),
    Starts(usize),
    InKusto {
        receiver: usize,
        run: u64,
        batch: BatchRecord,
        rows: Vec<String>,
    },
    Landed {
        receiver: usize,
        run: u64,
        batch: BatchRecord,
    },
}

#[derive(Debug, Clone, Copy)]
enum End {
    Kill,
    PowerCut,
    /// At the disk operation so far ahead.
    DuringWork(u64),
}

/// A process with its disk. The first are senders, the others receivers.
struct Node {
    disk: SimDisk,
    store: Option<Store>,
    /// How often it was started.
    run: u64,
    machine: Option<Machine>,
    /// Batches of a receiver on their way.
    flying: BTreeSet<[u8; 16]>,
}

struct World {
    seed: u64,
    random: u64,
    now: u64,
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    next_event: u64,
    nodes: Vec<Node>,
    acknowledged: BTreeSet<String>,
    written: u64,
    /// How often each row is in Kusto.
    kusto: BTreeMap<String, u64>,
    batches: BTreeSet<[u8; 16]>,
    trace: Vec<String>,
    runtime: tokio::runtime::Runtime,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let from = self.trace.len().saturating_sub(150);
            eprintln!("seed {}, the last of {} events:\n{}", self.seed, self.trace.len(), self.trace[from..].join("\n"));
        }
    }
}

fn options() -> Options {
    Options {
        journal_file_bytes: 32 << 10,
        journal_budget_bytes: 128 << 10,
        memtable_bytes: 8 << 10,
        block_bytes: 1 << 10,
        segment_max_bytes: 4 << 10,
        segment_max_age_ms: 5000,
        max_disk_bytes: 0,
        ..Options::new("/store")
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut world = World {
            seed,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            now: START,
            heap: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            nodes: Vec::new(),
            acknowledged: BTreeSet::new(),
            written: 0,
            kusto: BTreeMap::new(),
            batches: BTreeSet::new(),
            trace: Vec::new(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        };
        for node in 0..NODES {
            let disk = SimDisk::new(seed * 64 + node as u64);
            world.nodes.push(Node { disk, store: None, run: 0, machine: None, flying: BTreeSet::new() });
            world.start(node);
            world.at(250, Event::Tick(node));
            let ends = world.end();
            world.at(20_000, ends.1(node, ends.0));
        }
        for sender in 0..SENDERS {
            world.at(10, Event::Write(sender));
        }
        world
    }

    /// xorshift: the same everywhere.
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % bound
    }

    fn is_healed(&self) -> bool {
        self.now >= HEALED
    }

    /// Whether something that goes wrong once in `n` goes wrong now.
    fn unlucky(&mut self, n: u64) -> bool {
        !self.is_healed() && self.below(n) == 0
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.heap.push(Reverse((self.now + delay, self.next_event)));
        self.events.insert(self.next_event, event);
        self.next_event += 1;
    }

    fn end(&mut self) -> (End, fn(usize, End) -> Event) {
        let end = match self.below(3) {
            0 => End::Kill,
            1 => End::PowerCut,
            _ => End::DuringWork(self.below(30)),
        };
        (end, Event::Ends)
    }

    fn note(&mut self, text: String) {
        self.trace.push(format!("{:>8} {text}", self.now - START));
    }

    fn run(&mut self) {
        while let Some(Reverse((time, id))) = self.heap.pop() {
            self.now = time;
            assert!(time < END, "it does not drain");
            let event = self.events.remove(&id).unwrap();
            match &event {
                Event::Tick(_) => {}
                Event::Arrives { sender, run, job, .. } => self.note(format!("arrives from {sender} run {run}: {job:?}")),
                Event::InKusto { receiver, batch, rows, .. } => {
                    self.note(format!("in Kusto from {receiver}: {} rows, {:?}", rows.len(), batch.id))
                }
                event => self.note(format!("{event:?}")),
            }
            self.handle(event);
            self.fallen();
            if self.is_healed() && self.is_drained() {
                return;
            }
        }
        panic!("nothing is left to do, and it has not drained");
    }

    fn is_drained(&self) -> bool {
        let empty = |store: &Store| store.ledger().total().on_disk == 0;
        self.nodes.iter().all(|node| node.store.as_ref().is_some_and(empty))
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Write(sender) => self.write(sender),
            Event::Tick(node) => self.tick(node),
            Event::Arrives { sender, run, job, body } => self.arrives(sender, run, job, body),
            Event::Answered { sender, run, ticket, answer } if self.nodes[sender].run == run => self.answered(sender, ticket, answer),
            Event::InKusto { receiver, run, batch, rows } => {
                // Kusto knows a batch by its id.
                if self.batches.insert(batch.id) {
                    rows.into_iter().for_each(|row| *self.kusto.entry(row).or_default() += 1);
                }
                if !self.unlucky(5) {
                    let delay = 1 + self.below(500);
                    self.at(delay, Event::Landed { receiver, run, batch });
                }
            }
            Event::Landed { receiver, run, batch } if self.nodes[receiver].run == run => self.landed(receiver, &batch),
            Event::Ends(node, end) => self.ends(node, end),
            Event::Starts(node) if self.nodes[node].store.is_none() => self.start(node),
            _ => {}
        }
    }

    // -- processes ---------------------------------------------------------------------------------

    fn start(&mut self, node: usize) {
        let now = self.now;
        let here = &mut self.nodes[node];
        let (store, report) = Store::open_inline(options(), here.disk.disk(), now).unwrap();
        assert!(report.damage.is_empty() && !report.ledger_reset && report.foreign.is_empty(), "{report:?}");
        store.ledger().check().unwrap();
        here.run += 1;
        if node < SENDERS {
            let config = Config {
                endpoints: vec!["http://2".to_owned(), "http://3".to_owned()],
                max_batch_bytes: 10_000,
                max_batch_segments: 4,
                concurrency: 3,
                endpoint_concurrency: usize::MAX,
                pin_ms: 600_000,
                unhealthy_ms: 60_000,
            };
            let mut machine = Machine::new(config, store.mark(PLACES).as_deref(), now);
            machine.offer(store.sealed().iter().map(any));
            here.machine = Some(machine);
        }
        here.store = Some(store);
    }

    fn ends(&mut self, node: usize, end: End) {
        if self.is_healed() {
            return;
        }
        let delay = 5000 + self.below(60_000);
        let next = self.end();
        self.at(delay, next.1(node, next.0));
        if self.nodes[node].store.is_none() {
            return;
        }
        let disk = self.nodes[node].disk.clone();
        match end {
            End::DuringWork(ahead) => disk.fail_at(disk.operations() + ahead, Fault::Crash),
            End::PowerCut => self.fall(node, true),
            End::Kill => self.fall(node, false),
        }
    }

    /// Processes whose disk went down in the middle of their work.
    fn fallen(&mut self) {
        for node in 0..NODES {
            if self.nodes[node].disk.crashed() {
                self.fall(node, true);
            }
        }
    }

    fn fall(&mut self, node: usize, power: bool) {
        let here = &mut self.nodes[node];
        here.disk.crash();
        // It cannot write anything any more, so that this is no orderly end.
        (here.store, here.machine) = (None, None);
        here.flying.clear();
        if power {
            here.disk.restart()
        } else {
            here.disk.kill()
        }
        self.note(format!("{node} is down, power {power}"));
        let delay = 100 + self.below(20_000);
        self.at(delay, Event::Starts(node));
    }

    // -- work --------------------------------------------------------------------------------------

    fn write(&mut self, sender: usize) {
        if self.is_healed() {
            return;
        }
        let delay = 100 + self.below(2000);
        self.at(delay, Event::Write(sender));
        let mut all = Vec::new();
        let mut sections = Vec::new();
        for table in 0..1 + self.below(3) {
            let first = self.written;
            self.written += 1 + self.below(20);
            let rows: Vec<String> = (first..self.written).map(|row| format!("r{row}")).collect();
            sections.push(Section {
                table: TableKey::new(["Logs", "Metrics"][(table % 2) as usize], format!("T{table}"), "abc"),
                header: Arc::from(&b"Time:datetime,Row:string\n"[..]),
                sample_type: 1,
                rows: rows.len() as u32,
                body: SectionBody::Rows(rows.iter().map(|row| format!("t,{row}\n")).collect::<String>().into_bytes()),
            });
            all.extend(rows);
        }
        let Some(store) = &self.nodes[sender].store else { return };
        if store.commit_wait(wal::Request { sections, ..Default::default() }).is_ok() {
            self.acknowledged.extend(all);
        }
    }

    fn tick(&mut self, node: usize) {
        self.at(250, Event::Tick(node));
        let now = self.now;
        let Some(store) = self.nodes[node].store.clone() else { return };
        store.tick(now);
        if node < SENDERS {
            self.offer(node, &store);
            self.advance(node, &store);
        } else {
            self.upload(node, &store);
        }
    }

    fn offer(&mut self, node: usize, store: &Store) {
        let sealed = store.sealed();
        if let Some(machine) = &mut self.nodes[node].machine {
            machine.offer(sealed.iter().map(any));
        }
    }

    fn advance(&mut self, sender: usize, store: &Store) {
        loop {
            let now = self.now;
            let Some(machine) = &mut self.nodes[sender].machine else { return };
            match machine.next(now) {
                Step::Wait(_) => return,
                Step::Probe { endpoint } => {
                    let lost = self.unlucky(8);
                    let receiver = self.nodes[SENDERS + endpoint].store.as_ref().filter(|_| !lost).map(Store::sender_id);
                    let contract = receiver.map(|receiver| Contract::Ours { receiver });
                    if let Some(machine) = &mut self.nodes[sender].machine {
                        machine.probed(endpoint, contract, now);
                    }
                }
                Step::Record(bytes) => {
                    let marks = vec![(PLACES.to_vec(), bytes)];
                    let durable = store.commit_wait(wal::Request { marks, ..Default::default() }).is_ok();
                    machine.recorded(durable);
                    if !durable {
                        return;
                    }
                }
                Step::Send(job) => self.send(sender, store, job),
                Step::Release(_) => panic!("nobody else sees to them"),
            }
        }
    }

    fn send(&mut self, sender: usize, store: &Store, job: Job) {
        let run = self.nodes[sender].run;
        let Some(body) = body(store, &job) else { return };
        // A client gives up after 30 seconds; the request may still be on its way.
        self.at(30_000, Event::Answered { sender, run, ticket: job.ticket, answer: Answer::Unknown });
        if self.unlucky(6) {
            return;
        }
        let delay = if self.unlucky(10) { 20_000 + self.below(100_000) } else { 1 + self.below(1000) };
        self.at(delay, Event::Arrives { sender, run, job, body });
    }

    fn arrives(&mut self, sender: usize, run: u64, job: Job, body: Vec<u8>) {
        let receiver = SENDERS + job.endpoint;
        let ticket = job.ticket;
        let answer = match self.nodes[receiver].store.clone() {
            None => Answer::Unavailable { retry_after_ms: None },
            Some(store) => self.runtime.block_on(post(store, &job, body)),
        };
        // With the process goes the answer.
        let lost = self.nodes[receiver].disk.crashed() || self.unlucky(5);
        if !lost {
            let delay = 1 + self.below(1000);
            self.at(delay, Event::Answered { sender, run, ticket, answer });
        }
    }

    fn answered(&mut self, sender: usize, ticket: u64, answer: Answer) {
        let now = self.now;
        let Some(store) = self.nodes[sender].store.clone() else { return };
        let Some(machine) = &mut self.nodes[sender].machine else { return };
        let settles = machine.answered(ticket, answer, now);
        let sealed: BTreeMap<Key, wal::SegmentId> = store.sealed().iter().map(|info| (key_of(info), info.id)).collect();
        let item = |settle: &Settle| {
            assert_eq!(settle.dead, None, "nothing here is refused for ever");
            let segment = *sealed.get(&settle.key)?;
            Some(Settlement { segment, outcome: Outcome::Forwarded, reason: String::new(), maybe_duplicate: settle.maybe_duplicate })
        };
        if settles.is_empty() {
            return;
        }
        // When the disk is down the process is, too, and asks again after its next start.
        if store.settle_wait(settles.iter().filter_map(item).collect()).is_ok() {
            machine.settled(settles.iter().map(|settle| &settle.key));
        }
    }

    // -- from a receiver to Kusto --------------------------------------------------------------------

    fn upload(&mut self, receiver: usize, store: &Store) {
        let mut batches = store.batches();
        let taken: BTreeSet<_> = batches.iter().flat_map(|batch| batch.segments.clone()).collect();
        let mut free: BTreeMap<TableKey, Vec<wal::SegmentId>> = BTreeMap::new();
        for info in store.sealed().iter().filter(|info| !taken.contains(&info.id)) {
            free.entry(info.table.clone()).or_default().push(info.id);
        }
        for segments in free.into_values() {
            let id = (u128::from(self.below(u64::MAX)) << 64 | u128::from(self.next_event)).to_le_bytes();
            let batch = BatchRecord { id, state: BatchState::Batched, segments, detail: Vec::new() };
            let (done, durable) = std::sync::mpsc::sync_channel(1);
            store.record_batch(batch.clone(), Box::new(move |result| done.send(result.is_ok()).unwrap()));
            if durable.recv().unwrap() {
                batches.push(batch);
            }
        }
        let run = self.nodes[receiver].run;
        for batch in batches {
            if !self.nodes[receiver].flying.insert(batch.id) {
                continue;
            }
            let images = batch.segments.iter().map(|id| store.read_segment(*id)).collect::<Result<Vec<_>, _>>();
            let Ok(images) = images else { continue };
            let rows = images.iter().flat_map(|image| rows_of(image)).collect();
            if !self.unlucky(6) {
                let delay = 1 + self.below(3000);
                self.at(delay, Event::InKusto { receiver, run, batch, rows });
            }
        }
        // A lost answer: the same batch goes again.
        if self.below(40) == 0 {
            self.nodes[receiver].flying.clear();
        }
    }

    fn landed(&mut self, receiver: usize, batch: &BatchRecord) {
        let Some(store) = &self.nodes[receiver].store else { return };
        let landed =
            |id: &wal::SegmentId| Settlement { segment: *id, outcome: Outcome::Landed, reason: String::new(), maybe_duplicate: false };
        let _ = store.settle_wait(batch.segments.iter().map(landed).collect());
        self.nodes[receiver].flying.remove(&batch.id);
    }

    // -- the end -----------------------------------------------------------------------------------

    fn check(&self) {
        let mut counted = 0;
        for node in &self.nodes {
            let ledger = node.store.as_ref().unwrap().ledger();
            ledger.check().unwrap();
            assert_eq!(ledger.conflicts, 0, "a number came with two digests");
            counted += ledger.total().maybe_duplicate;
        }
        for row in &self.acknowledged {
            assert!(self.kusto.contains_key(row), "row {row} was acknowledged and is lost");
        }
        let twice: u64 = self.kusto.values().map(|n| n - 1).sum();
        assert!(twice <= counted, "{twice} rows are there twice, {counted} are counted");
    }
}

pub(crate) fn key_of(info: &wal::SegmentInfo) -> Key {
    Key { database: info.table.database.clone(), number: info.number }
}

/// A segment that may go anywhere.
pub(crate) fn any(info: &wal::SegmentInfo) -> Offer {
    Offer { key: key_of(info), bytes: info.bytes, route: Route::Any }
}

fn rows_of(image: &[u8]) -> Vec<String> {
    let text = String::from_utf8(wal::segment::values(image, true)).unwrap();
    text.lines().map(|line| line.strip_prefix("t,").unwrap().to_owned()).collect()
}

/// The body of a request; nothing when the disk is down.
pub(crate) fn body(store: &Store, job: &Job) -> Option<Vec<u8>> {
    let mut sealed: BTreeMap<Key, wal::SegmentInfo> = store.sealed().into_iter().map(|info| (key_of(&info), info)).collect();
    let segments: Vec<_> = job.segments.iter().map(|key| sealed.remove(key).unwrap()).collect();
    let images: Vec<_> = segments.iter().map(|info| store.read_segment(info.id).ok()).collect::<Option<_>>()?;
    Some(exchange::body(store.sender_id(), store.floor(&job.segments[0].database), &segments, &images).unwrap())
}

/// The receiver with this store answers.
pub(crate) async fn post(store: Store, job: &Job, body: Vec<u8>) -> Answer {
    let mut request = http::Request::post("/transfer").body(axum::body::Body::from(body)).unwrap();
    *request.headers_mut() = exchange::headers(&job.receiver.unwrap());
    let response = router(store, ReceiverOptions::default(), Arc::new(|| Ok(()))).oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    exchange::meaning(head.status, &head.headers, &body.collect().await.unwrap().to_bytes(), true).0
}

#[test]
fn every_row_is_in_kusto_once_or_counted() {
    let soak: u64 = std::env::var("ADXMON_SOAK").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1);
    let (mut rows, mut falls) = (0, 0);
    for seed in 1..=12 * soak {
        let mut world = World::new(seed);
        world.run();
        world.check();
        rows += world.acknowledged.len();
        falls += world.nodes.iter().map(|node| node.run - 1).sum::<u64>();
    }
    // It is no peaceful world.
    assert!(rows > 1000 && falls > 20, "{rows} rows, {falls} falls");
}

#[test]
fn a_seed_tells_the_same_story_again() {
    let story = || {
        let mut world = World::new(7);
        world.run();
        (world.acknowledged.clone(), world.kusto.clone(), world.trace.len())
    };
    assert_eq!(story(), story());
}
