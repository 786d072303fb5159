//! Processes: how they start, end, take rows in, and send segments.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ingestor::peers::{Arrivals, Limits, Members, Routing};
use ingestor::upload::machine::Uploads;
use tokio::sync::watch;
use transfer::machine::{Answer, Config, Contract, Job, Key, Machine, Offer, Route, Settle, Step};
use wal::disk::sim::{Fault, SimDisk};
use wal::{Options, Outcome, Section, SectionBody, SegmentId, SegmentInfo, Settlement, Store, TableKey};

use super::http::{body, post};
use super::uploads::resume;
use super::{COLLECTORS, End, Event, LATE_TICK, NODES, Repeated, TICK, World};

const PLACES: &[u8] = b"transfer/places";

/// A process with its disk. The first are collectors, the others ingestors.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) disk: SimDisk,
    pub(super) store: Option<Store>,
    /// How often it was started.
    pub(super) run: u64,
    pub(super) machine: Option<Machine>,
    /// Who is there, as this one sees it.
    view: watch::Sender<Members>,
    pub(super) routing: Option<Routing>,
    pub(super) arrivals: Arrivals,
    clock: Arc<AtomicU64>,
    /// Segments that the machine was told of. A dead letter that waits again has another number.
    offered: BTreeSet<Key>,
    /// What is uploaded here, and whether it may be elsewhere.
    pub(super) kept: BTreeMap<SegmentId, bool>,
    /// Of an ingestor, by database.
    pub(super) uploads: Vec<(Arc<str>, Uploads)>,
    /// Rows of segments that are being settled as perhaps stored elsewhere. Kept beside the process, as its disk is.
    pub(super) doubtful: BTreeMap<SegmentId, Vec<String>>,
    /// Its disk is full, so that it takes nothing.
    pub(super) full: bool,
}

impl Node {
    pub(super) fn new(index: usize, seed: u64, clock: Arc<AtomicU64>) -> Node {
        Node {
            name: format!("n{index}"),
            disk: SimDisk::new(seed * 64 + index as u64),
            store: None,
            run: 0,
            machine: None,
            view: watch::channel(Members::new()).0,
            routing: None,
            arrivals: arrivals(clock.clone()),
            clock,
            offered: BTreeSet::new(),
            kept: BTreeMap::new(),
            uploads: Vec::new(),
            doubtful: BTreeMap::new(),
            full: false,
        }
    }

    fn forget(&mut self) {
        (self.store, self.machine, self.routing) = (None, None, None);
        self.arrivals = arrivals(self.clock.clone());
        self.offered.clear();
        self.kept.clear();
        self.uploads.clear();
        self.full = false;
    }

    fn is_ingestor(&self) -> bool {
        self.routing.is_some()
    }
}

fn arrivals(clock: Arc<AtomicU64>) -> Arrivals {
    Arrivals::new(40_000, Arc::new(move || clock.load(Ordering::Relaxed)))
}

fn url(node: usize) -> String {
    format!("http://{node}")
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

fn limits() -> Limits {
    Limits { max_segments: 10, max_bytes: 4 << 10, max_age_ms: 20_000 }
}

impl World<'_> {
    pub(super) fn start(&mut self, node: usize) -> Option<usize> {
        let now = self.now();
        let here = &mut self.nodes[node];
        let (store, report) = Store::open_inline(options(), here.disk.disk(), now).unwrap();
        assert!(report.damage.is_empty() && !report.ledger_reset && report.foreign.is_empty(), "{report:?}");
        here.run += 1;
        let is_ingestor = node >= COLLECTORS;
        let config = Config {
            endpoints: if is_ingestor { Vec::new() } else { (COLLECTORS..NODES).map(url).collect() },
            max_batch_bytes: 10_000,
            max_batch_segments: 4,
            concurrency: 4,
            endpoint_concurrency: 2,
            pin_ms: 600_000,
            unhealthy_ms: 20_000,
        };
        here.machine = Some(Machine::new(config, store.mark(PLACES).as_deref(), now));
        if is_ingestor {
            here.view.send_replace(Members::from([(here.name.clone(), url(node))]));
            let (own, members, arrivals) = (here.name.clone(), here.view.subscribe(), here.arrivals.clone());
            here.routing = Some(Routing { own, members, limits: limits(), started_ms: now, arrivals });
        }
        here.store = Some(store.clone());
        if is_ingestor {
            here.uploads = resume(&store);
        }
        self.count(node, &store);
        self.offer(node, &store, true);
        self.advance(node, &store);
        self.upload(node);
        self.look_around();
        Some(node)
    }

    /// Who is there has changed: each ingestor sees it in its time.
    fn look_around(&mut self) {
        for node in COLLECTORS..NODES {
            let delay = self.below(4000);
            self.at(delay, Event::Sees(node));
        }
    }

    pub(super) fn sees(&mut self, node: usize) -> Option<usize> {
        let up = (COLLECTORS..NODES).filter(|&other| self.nodes[other].store.is_some());
        let members: Members = up.map(|other| (self.nodes[other].name.clone(), url(other))).collect();
        let here = &mut self.nodes[node];
        if let (Some(machine), false) = (&mut here.machine, members.is_empty()) {
            machine.set_endpoints(members.iter().map(|(name, url)| (name.as_str(), url.as_str())));
            here.view.send_replace(members);
        }
        None
    }

    pub(super) fn end(&mut self) -> End {
        match self.below(3) {
            0 => End::Kill,
            1 => End::PowerCut,
            _ => End::DuringWork(self.below(30)),
        }
    }

    pub(super) fn ends(&mut self, node: usize, end: End) -> Option<usize> {
        if self.is_healed() {
            return None;
        }
        let (delay, next) = (5000 + self.below(40_000), self.end());
        self.at(delay, Event::Ends(node, next));
        self.nodes[node].store.as_ref()?;
        let disk = self.nodes[node].disk.clone();
        match end {
            End::DuringWork(ahead) => disk.fail_at(disk.operations() + ahead, Fault::Crash),
            End::PowerCut => self.fall(node, true),
            End::Kill => self.fall(node, false),
        }
        None
    }

    /// Processes whose disk went down in the middle of their work.
    pub(super) fn fallen(&mut self) {
        for node in 0..NODES {
            if self.nodes[node].disk.crashed() {
                self.fall(node, true);
            }
        }
    }

    fn fall(&mut self, node: usize, power: bool) {
        let here = &mut self.nodes[node];
        // It cannot write anything any more, so that this is no orderly end.
        here.disk.crash();
        here.forget();
        here.disk.set_capacity(None);
        if power {
            here.disk.restart()
        } else {
            here.disk.kill()
        }
        self.note(|| format!("{node} is down, power {power}"));
        let delay = 100 + self.below(15_000);
        self.at(delay, Event::Starts(node));
        self.look_around();
    }

    pub(super) fn fill(&mut self, node: usize, full: bool) -> Option<usize> {
        let used: usize = self.nodes[node].disk.files().iter().map(|(_, bytes)| bytes.len()).sum();
        let full = full && !self.is_healed();
        self.nodes[node].full = full;
        self.nodes[node].disk.set_capacity(full.then_some(used as u64 + 1000));
        if full {
            let delay = 1000 + self.below(20_000);
            self.at(delay, Event::Full(node, false));
        }
        None
    }

    pub(super) fn separate(&mut self, one: usize, other: usize, cut: bool) -> Option<usize> {
        self.cut.remove(&(one, other));
        if cut && !self.is_healed() {
            self.cut.insert((one, other));
            let delay = 1000 + self.below(50_000);
            self.at(delay, Event::Cut(one, other, false));
        }
        None
    }

    fn is_cut(&self, one: usize, other: usize) -> bool {
        !self.is_healed() && (self.cut.contains(&(one, other)) || self.cut.contains(&(other, one)))
    }

    // -- work --------------------------------------------------------------------------------------

    pub(super) fn write(&mut self, node: usize) -> Option<usize> {
        if self.is_healed() {
            return None;
        }
        let delay = 100 + self.below(4000);
        self.at(delay, Event::Write(node));
        let mut all = Vec::new();
        let mut sections = Vec::new();
        for _ in 0..1 + self.below(2) {
            let table = self.below(6);
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
        let store = self.nodes[node].store.as_ref()?;
        if store.commit_wait(wal::Request { sections, ..Default::default() }).is_ok() {
            self.acknowledged.extend(all);
        }
        Some(node)
    }

    pub(super) fn tick(&mut self, node: usize) -> Option<usize> {
        // A slow disk holds up everything.
        let slow = if self.unlucky(40) { 5000 + self.below(10_000) } else { 0 };
        let pause = if self.is_healed() { LATE_TICK } else { TICK };
        self.at(pause + slow, Event::Tick(node));
        let store = self.nodes[node].store.clone()?;
        store.tick(self.now());
        self.offer(node, &store, false);
        self.advance(node, &store);
        self.upload(node);
        Some(node)
    }

    fn offer(&mut self, node: usize, store: &Store, started: bool) {
        let now = self.now();
        let here = &mut self.nodes[node];
        let sealed = store.sealed();
        let new: Vec<SegmentInfo> = sealed.into_iter().filter(|info| here.offered.insert(key_of(info))).collect();
        let mut batched = BTreeSet::new();
        if started {
            batched.extend(store.batches().into_iter().flat_map(|batch| batch.segments));
        }
        let mut tables: BTreeMap<TableKey, Vec<SegmentInfo>> = BTreeMap::new();
        new.into_iter().for_each(|info| tables.entry(info.table.clone()).or_default().push(info));
        let mut offers = Vec::new();
        for (table, segments) in tables {
            let (begun, free): (Vec<_>, Vec<_>) = segments.into_iter().partition(|info| batched.contains(&info.id));
            let routes = match &here.routing {
                Some(routing) => routing.of_table(&table, &free, now),
                None => vec![Route::Any; free.len()],
            };
            let begun = begun.into_iter().map(|info| (info, Route::Released));
            let all = begun.chain(free.into_iter().zip(routes));
            offers.extend(all.map(|(info, route)| Offer { key: key_of(&info), bytes: info.bytes, route }));
        }
        if let Some(machine) = &mut here.machine {
            machine.offer(offers);
        }
    }

    fn advance(&mut self, node: usize, store: &Store) {
        loop {
            let now = self.now();
            let Some(machine) = &mut self.nodes[node].machine else { return };
            match machine.next(now) {
                Step::Wait(_) => return,
                Step::Probe { endpoint } => {
                    let to: usize = machine.url(endpoint).trim_start_matches("http://").parse().unwrap();
                    let lost = self.unlucky(8) || self.is_cut(node, to);
                    let receiver = self.nodes[to].store.as_ref().filter(|_| !lost).map(Store::sender_id);
                    let contract = receiver.map(|receiver| Contract::Ours { receiver });
                    if let Some(machine) = &mut self.nodes[node].machine {
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
                Step::Release(releases) => {
                    assert!(self.nodes[node].is_ingestor(), "nobody else sees to them");
                    let ids: BTreeMap<Key, SegmentId> = store.sealed().iter().map(|info| (key_of(info), info.id)).collect();
                    let kept = releases.into_iter().filter_map(|release| Some((*ids.get(&release.key)?, release.maybe_duplicate)));
                    self.nodes[node].kept.extend(kept);
                }
                Step::Send(job) => self.send(node, store, job),
            }
        }
    }

    fn send(&mut self, node: usize, store: &Store, job: Job) {
        let here = &self.nodes[node];
        let run = here.run;
        let Some(to) = here.machine.as_ref().map(|machine| machine.url(job.endpoint).trim_start_matches("http://").parse().unwrap()) else {
            return;
        };
        let Some(body) = body(store, &job) else { return };
        // A client gives up after 30 seconds; the request may still be on its way.
        self.at(30_000, Event::Answered { node, run, ticket: job.ticket, answer: Answer::Unknown });
        if self.unlucky(8) || self.is_cut(node, to) {
            return;
        }
        let delay = if self.unlucky(12) { 20_000 + self.below(60_000) } else { 1 + self.below(800) };
        let repeated = self.unlucky(10);
        if repeated {
            let earlier = self.below(delay);
            self.at(earlier, Event::Arrives { from: node, to, run, job: job.clone(), body: body.clone(), copy: Some(Repeated::First) });
        }
        self.at(delay, Event::Arrives { from: node, to, run, job, body, copy: repeated.then_some(Repeated::Last) });
    }

    pub(super) fn arrives(
        &mut self,
        (from, to): (usize, usize),
        run: u64,
        job: Job,
        body: Vec<u8>,
        copy: Option<Repeated>,
    ) -> Option<usize> {
        let ticket = job.ticket;
        let answer = match self.nodes[to].store.clone() {
            // What repeats requests cannot say what became of the first copy.
            None if copy.is_some() => Answer::Unknown,
            None => Answer::Unavailable { retry_after_ms: None },
            Some(store) => {
                let peer = (from >= COLLECTORS).then(|| self.nodes[from].name.clone());
                let here = &self.nodes[to];
                self.runtime.block_on(post(store, here.full, &job, body, peer, here.arrivals.clone()))
            }
        };
        // With the process goes the answer.
        let lost = copy == Some(Repeated::First) || self.nodes[to].disk.crashed() || self.unlucky(6) || self.is_cut(from, to);
        if !lost {
            let delay = 1 + self.below(800);
            self.at(delay, Event::Answered { node: from, run, ticket, answer });
        }
        Some(to)
    }

    pub(super) fn answered(&mut self, node: usize, ticket: u64, answer: Answer) -> Option<usize> {
        let now = self.now();
        let store = self.nodes[node].store.clone()?;
        let machine = self.nodes[node].machine.as_mut()?;
        let settles = machine.answered(ticket, answer, now);
        let sealed: BTreeMap<Key, SegmentId> = store.sealed().iter().map(|info| (key_of(info), info.id)).collect();
        let item = |settle: &Settle| {
            assert_eq!(settle.dead, None, "nothing here is refused for ever");
            let segment = *sealed.get(&settle.key)?;
            Some(Settlement { segment, outcome: Outcome::Forwarded, reason: String::new(), maybe_duplicate: settle.maybe_duplicate })
        };
        if settles.is_empty() {
            return None;
        }
        let items: Vec<Settlement> = settles.iter().filter_map(item).collect();
        // When the disk is down the process is, too, and asks again after its next start.
        if self.settle(node, &store, &items)
            && let Some(machine) = &mut self.nodes[node].machine
        {
            machine.settled(settles.iter().map(|settle| &settle.key));
        }
        Some(node)
    }
}

pub(super) fn key_of(info: &SegmentInfo) -> Key {
    Key { database: info.table.database.clone(), number: info.number }
}
