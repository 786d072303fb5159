//! The machine against receivers, a network that loses, delays and reorders, and restarts of the
//! sender at any moment: every segment is stored exactly once, or dead, or counted.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use proptest::prelude::*;

use super::*;

/// A request on its way, and whether its sender still waits for the answer.
struct Flying {
    job: Job,
    waiting: bool,
}

/// What stands behind an endpoint.
#[derive(Clone, Debug)]
enum Behind {
    /// Our receivers by identity: a connection reaches any of them.
    Ours(Vec<[u8; 16]>),
    Reference,
}

struct World {
    config: Config,
    behind: Vec<Behind>,
    /// Each segment has an endpoint of its own, and what is not sent is uploaded here.
    routed: bool,
    /// Endpoints that are there, by index, where segments have their own.
    present: Vec<bool>,
    /// Released, and not taken up by the uploader: forgotten with the process.
    released: Vec<Release>,
    /// Taken up: the members of batches are durable. With what the machine said of them.
    uploading: BTreeMap<Key, bool>,
    /// How often each segment was stored, by receiver (0 is the reference's).
    stored: HashMap<Key, BTreeMap<[u8; 16], u32>>,
    /// Never acceptable.
    bad: HashSet<Key>,
    // The sender's disk:
    record: Option<Vec<u8>>,
    unsettled: BTreeSet<Key>,
    dead: HashSet<Key>,
    counted: HashSet<Key>,
    next_number: u64,
    // Its memory:
    machine: Machine,
    network: Vec<Flying>,
    now: u64,
}

const REFERENCE: [u8; 16] = [0; 16];
/// As if it were a receiver: what is uploaded from here.
const UPLOADED: [u8; 16] = [255; 16];

impl World {
    fn new(behind: Vec<Behind>) -> World {
        World::with(behind, false)
    }

    fn with(behind: Vec<Behind>, routed: bool) -> World {
        let urls = (0..behind.len()).map(|i| format!("http://e{i}")).collect();
        let config = Config {
            endpoints: if routed { Vec::new() } else { urls },
            max_batch_bytes: 300,
            max_batch_segments: 4,
            concurrency: 3,
            endpoint_concurrency: usize::MAX,
            pin_ms: 600_000,
            unhealthy_ms: 60_000,
        };
        let mut machine = Machine::new(config.clone(), None, 0);
        let present = vec![true; behind.len()];
        if routed {
            set_endpoints(&mut machine, &present);
        }
        World {
            machine,
            config,
            behind,
            routed,
            present,
            released: Vec::new(),
            uploading: BTreeMap::new(),
            stored: HashMap::new(),
            bad: HashSet::new(),
            record: None,
            unsettled: BTreeSet::new(),
            dead: HashSet::new(),
            counted: HashSet::new(),
            next_number: 1,
            network: Vec::new(),
            now: 1_000_000,
        }
    }

    fn act(&mut self, what: u8, choice: u16) {
        match what % 18 {
            0..=2 => self.seal(choice),
            3..=7 => self.step(choice),
            8..=10 => self.deliver(choice, Fate::Answered),
            11 => self.deliver(choice, Fate::AnswerLost),
            12 => self.deliver(choice, Fate::GivenUpAndLate),
            13 => self.deliver(choice, Fate::Refused),
            14 => self.now += u64::from(choice) * 20,
            15 => self.restart(),
            16 => self.upload(choice),
            _ => self.come_and_go(choice),
        }
    }

    fn seal(&mut self, choice: u16) {
        let key = Key { database: ["A", "B"][usize::from(choice % 2)].into(), number: self.next_number };
        self.next_number += 1;
        if choice.is_multiple_of(13) {
            self.bad.insert(key.clone());
        }
        self.unsettled.insert(key);
        self.offer();
    }

    fn offer(&mut self) {
        let is_new = |key: &&Key| !self.uploading.contains_key(key) && !self.released.iter().any(|release| release.key == **key);
        let offers = self.unsettled.iter().filter(is_new).map(|key| Offer { key: key.clone(), bytes: 100, route: self.route(key) });
        self.machine.offer(offers.collect::<Vec<_>>());
    }

    fn route(&self, key: &Key) -> Route {
        match key.number % 5 {
            _ if !self.routed => Route::Any,
            4 => Route::Keep("its table is ours"),
            owner => Route::To { endpoint: format!("e{}", owner as usize % self.behind.len()).into(), until: self.now + 90_000 },
        }
    }

    /// An endpoint goes or comes back.
    fn come_and_go(&mut self, choice: u16) {
        if self.routed {
            let count = self.present.len();
            let present = &mut self.present[usize::from(choice) % count];
            *present = !*present;
            set_endpoints(&mut self.machine, &self.present);
        }
    }

    /// The uploader takes up a released segment, or ends what it has begun.
    fn upload(&mut self, choice: u16) {
        if choice.is_multiple_of(2)
            && let Some(release) = self.released.pop()
        {
            self.uploading.insert(release.key, release.maybe_duplicate);
        } else if let Some((key, maybe_duplicate)) = self.uploading.pop_first() {
            assert!(self.unsettled.remove(&key), "settled twice: {key:?}");
            *self.stored.entry(key.clone()).or_default().entry(UPLOADED).or_default() += 1;
            self.machine.settled([&key]);
            if maybe_duplicate {
                self.counted.insert(key);
            }
        }
    }

    fn restart(&mut self) {
        self.machine = Machine::new(self.config.clone(), self.record.as_deref(), self.now);
        self.released.clear();
        if self.routed {
            set_endpoints(&mut self.machine, &self.present);
            let begun = self.uploading.keys().map(|key| Offer { key: key.clone(), bytes: 100, route: Route::Released });
            let others = self.unsettled.iter().filter(|key| !self.uploading.contains_key(key));
            let others = others.map(|key| Offer { key: key.clone(), bytes: 100, route: self.route(key) });
            self.machine.offer(begun.chain(others).collect::<Vec<_>>());
            // What the uploader has begun is told of before anything else, so that it needs no memory of its own.
            self.uploading.values_mut().for_each(|maybe_duplicate| *maybe_duplicate = false);
            loop {
                let step = self.machine.next(self.now);
                let released = matches!(step, Step::Release(_));
                self.carry_out(step, 8);
                if !released {
                    break;
                }
            }
        }
        for flying in &mut self.network {
            flying.waiting = false;
        }
        self.offer();
    }

    fn step(&mut self, choice: u16) {
        let step = self.machine.next(self.now);
        self.carry_out(step, choice);
    }

    fn carry_out(&mut self, step: Step, choice: u16) {
        match step {
            Step::Wait(_) => {}
            Step::Probe { endpoint } => {
                let contract = match &self.behind[endpoint] {
                    _ if choice.is_multiple_of(7) => None,
                    Behind::Ours(ids) => Some(Contract::Ours { receiver: ids[usize::from(choice) % ids.len()] }),
                    Behind::Reference => Some(Contract::Reference),
                };
                self.machine.probed(endpoint, contract, self.now);
            }
            Step::Record(bytes) => {
                if !choice.is_multiple_of(5) {
                    self.record = Some(bytes);
                }
                if choice % 11 == 1 {
                    self.restart();
                } else {
                    self.machine.recorded(!choice.is_multiple_of(5));
                }
            }
            Step::Send(job) => self.network.push(Flying { job, waiting: true }),
            Step::Release(releases) => {
                assert!(self.routed, "nobody else sees to them");
                for release in releases {
                    match self.uploading.get_mut(&release.key) {
                        Some(maybe_duplicate) => *maybe_duplicate = release.maybe_duplicate,
                        None => self.released.push(release),
                    }
                }
            }
        }
    }

    fn deliver(&mut self, choice: u16, fate: Fate) {
        if self.network.is_empty() {
            return;
        }
        let index = usize::from(choice) % self.network.len();
        if fate == Fate::GivenUpAndLate {
            // The sender's timeout: the request stays on its way.
            let flying = &mut self.network[index];
            if std::mem::replace(&mut flying.waiting, false) {
                let ticket = flying.job.ticket;
                self.answer(ticket, Answer::Unknown);
            }
            return;
        }
        let Flying { job, waiting } = self.network.remove(index);
        let answer = match fate {
            Fate::Refused if choice.is_multiple_of(3) => Answer::DatabaseBusy { retry_after_ms: Some(500) },
            Fate::Refused => Answer::Unavailable { retry_after_ms: None },
            _ => self.receive(&job, choice),
        };
        if waiting {
            let lost = fate == Fate::AnswerLost;
            self.answer(job.ticket, if lost { Answer::Unknown } else { answer });
        }
    }

    fn receive(&mut self, job: &Job, choice: u16) -> Answer {
        let receiver = match &self.behind[job.endpoint] {
            Behind::Reference => REFERENCE,
            Behind::Ours(ids) => ids[usize::from(choice) % ids.len()],
        };
        if job.receiver.is_some_and(|expected| expected != receiver) {
            return Answer::Misdirected { actual: receiver };
        }
        if job.segments.iter().any(|k| self.bad.contains(k)) {
            return Answer::Unacceptable { reason: "bad".to_owned() };
        }
        for key in &job.segments {
            let count = self.stored.entry(key.clone()).or_default().entry(receiver).or_default();
            // Ours recognises what it has; the reference's stores again.
            *count = if receiver == REFERENCE { *count + 1 } else { 1 };
        }
        Answer::Stored { refused: Vec::new() }
    }

    fn answer(&mut self, ticket: u64, answer: Answer) {
        let settles = self.machine.answered(ticket, answer, self.now);
        for settle in &settles {
            assert!(self.unsettled.remove(&settle.key), "settled twice: {settle:?}");
            if settle.dead.is_some() {
                self.dead.insert(settle.key.clone());
            }
            if settle.maybe_duplicate {
                self.counted.insert(settle.key.clone());
            }
        }
        self.machine.settled(settles.iter().map(|s| &s.key));
    }

    /// Everything works from here on: all must drain.
    fn heal(&mut self) {
        for round in 0..20_000u16 {
            if self.unsettled.is_empty() && self.network.is_empty() {
                assert_eq!(self.machine.pending(), 0);
                return;
            }
            self.upload(round);
            // 8 is neither a lost probe, nor a failed record, nor a crash.
            self.step(if round.is_multiple_of(2) { 8 } else { 3 });
            self.deliver(round, Fate::Answered);
            if self.network.is_empty() {
                self.now += 500;
            }
        }
        panic!("{} segments do not drain: {:?}", self.unsettled.len(), self.machine);
    }

    fn check(&self) {
        for number in 1..self.next_number {
            let places: u32 = ["A", "B"]
                .into_iter()
                .map(|db| {
                    let key = Key { database: db.into(), number };
                    let stored: u32 = self.stored.get(&key).map_or(0, |p| p.values().sum());
                    let dead = u32::from(self.dead.contains(&key));
                    // What a peer refuses is uploaded.
                    assert!(!self.bad.contains(&key) || if self.routed { dead == 0 } else { stored == 0 });
                    assert!(stored <= 1 || self.counted.contains(&key), "uncounted duplicate: {key:?}");
                    stored + dead
                })
                .sum();
            assert!(places >= 1, "segment {number} is lost");
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    AnswerLost,
    GivenUpAndLate,
    Refused,
}

fn set_endpoints(machine: &mut Machine, present: &[bool]) {
    let there = (0..present.len()).filter(|&i| present[i]);
    let endpoints: Vec<(String, String)> = there.map(|i| (format!("e{i}"), format!("http://e{i}"))).collect();
    machine.set_endpoints(endpoints.iter().map(|(name, url)| (name.as_str(), url.as_str())));
}

fn run(behind: Vec<Behind>, actions: &[(u8, u16)]) -> World {
    run_in(World::new(behind), actions)
}

fn run_in(mut world: World, actions: &[(u8, u16)]) -> World {
    for (what, choice) in actions {
        world.act(*what, *choice);
    }
    world.heal();
    world.check();
    world
}

fn behind() -> impl Strategy<Value = Vec<Behind>> {
    let one = prop_oneof![
        3 => Just(Behind::Ours(vec![[1; 16]])),
        1 => Just(Behind::Ours(vec![[1; 16], [2; 16]])),
        1 => Just(Behind::Ours(vec![[3; 16]])),
        1 => Just(Behind::Reference),
    ];
    prop::collection::vec(one, 1..3)
}

fn config() -> ProptestConfig {
    let soak: u32 = std::env::var("ADXMON_SOAK").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1);
    ProptestConfig { cases: 256 * soak, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_segment_is_stored_once_or_counted(
        behind in behind(),
        actions in prop::collection::vec(any::<(u8, u16)>(), 0..400),
    ) {
        run(behind, &actions);
    }

    #[test]
    fn every_segment_with_an_endpoint_of_its_own_is_sent_or_uploaded_once_or_counted(
        behind in behind(),
        actions in prop::collection::vec(any::<(u8, u16)>(), 0..400),
    ) {
        run_in(World::with(behind, true), &actions);
    }
}

#[test]
fn one_receiver_never_makes_a_duplicate_within_its_time() {
    // Lost answers and restarts, but never ten minutes of silence.
    let actions: Vec<(u8, u16)> =
        (0..4000u16).map(|i| ([0, 3, 4, 8, 11, 3, 12, 5, 15][usize::from(i) % 9], i.wrapping_mul(7919))).collect();
    let world = run(vec![Behind::Ours(vec![[1; 16]])], &actions);
    assert!(world.counted.is_empty(), "{:?}", world.counted);
    assert!(world.next_number > 400);
}

#[test]
fn a_database_over_its_quota_does_not_hold_the_other() {
    let mut world = World::new(vec![Behind::Ours(vec![[1; 16]])]);
    for choice in [1, 2, 3, 4] {
        world.seal(choice);
    }
    let job = loop {
        match world.machine.next(world.now) {
            Step::Send(job) => break job,
            Step::Record(_) => world.machine.recorded(true),
            Step::Probe { endpoint } => {
                let contract = Some(Contract::Ours { receiver: [1; 16] });
                world.machine.probed(endpoint, contract, world.now);
            }
            Step::Wait(_) | Step::Release(_) => panic!("there is work"),
        }
    };
    world.machine.answered(job.ticket, Answer::DatabaseBusy { retry_after_ms: Some(5000) }, world.now);
    let Step::Send(other) = world.machine.next(world.now) else { panic!("the other database waits") };
    assert_ne!(other.segments[0].database, job.segments[0].database);
    assert_eq!(world.machine.next(world.now), Step::Wait(Some(world.now + 5000)));
    assert!(matches!(world.machine.next(world.now + 5000), Step::Send(j) if j.segments == job.segments));
}

/// With another endpoint it goes there, and the others stay where they are.
#[test]
fn a_database_over_its_quota_goes_to_the_next_endpoint_alone() {
    let mut world = World::new(vec![Behind::Ours(vec![[1; 16]]), Behind::Ours(vec![[2; 16]])]);
    for choice in [1, 2] {
        world.seal(choice);
    }
    let next = |machine: &mut Machine, now: u64| loop {
        match machine.next(now) {
            Step::Send(job) => return Some(job),
            Step::Record(_) => machine.recorded(true),
            Step::Probe { endpoint } => {
                machine.probed(endpoint, Some(Contract::Ours { receiver: [endpoint as u8 + 1; 16] }), now);
            }
            Step::Wait(_) | Step::Release(_) => return None,
        }
    };
    let now = world.now;
    let full = next(&mut world.machine, now).unwrap();
    let other = next(&mut world.machine, now).unwrap();
    assert_eq!((full.endpoint, other.endpoint), (0, 0));
    let stored = Answer::Stored { refused: Vec::new() };
    let settles = world.machine.answered(other.ticket, stored.clone(), now);
    world.machine.settled(settles.iter().map(|settle| &settle.key));
    assert!(world.machine.answered(full.ticket, Answer::DatabaseBusy { retry_after_ms: Some(5000) }, now).is_empty());
    let again = next(&mut world.machine, now).unwrap();
    assert_eq!((again.endpoint, again.receiver, &again.segments), (1, Some([2; 16]), &full.segments));
    let settles = world.machine.answered(again.ticket, stored, now);
    // Nothing of it was stored at the first.
    assert!(settles.iter().all(|settle| !settle.maybe_duplicate));
    world.machine.settled(settles.iter().map(|settle| &settle.key));
    // A new segment of each: the full one goes elsewhere until its time is up, the other one does not follow.
    for choice in [1, 2] {
        world.seal(choice);
    }
    let mut jobs = [next(&mut world.machine, now).unwrap(), next(&mut world.machine, now).unwrap()];
    jobs.sort_by_key(|job| job.endpoint);
    assert_eq!(
        jobs.map(|job| (job.endpoint, job.segments[0].database.clone())),
        [(0, other.segments[0].database.clone()), (1, full.segments[0].database.clone())]
    );
}

#[test]
fn the_bad_one_of_a_group_is_found_and_only_it_dies() {
    let mut world = World::new(vec![Behind::Ours(vec![[1; 16]])]);
    // 13 is bad; all odd choices go to database B.
    for choice in [1, 13, 3] {
        world.seal(choice);
    }
    world.heal();
    world.check();
    assert_eq!(world.dead.len(), 1);
    assert_eq!(world.dead, world.bad);
}

#[test]
fn a_lost_answer_binds_for_ten_minutes_and_is_counted_after() {
    let (first, second) = ([1; 16], [2; 16]);
    let mut world = World::new(vec![Behind::Ours(vec![first]), Behind::Ours(vec![second])]);
    world.seal(1);
    let next_job = |machine: &mut Machine, now: u64| loop {
        match machine.next(now) {
            Step::Send(job) => return Some(job),
            Step::Record(_) => machine.recorded(true),
            Step::Probe { endpoint } => {
                let contract = Contract::Ours { receiver: if endpoint == 0 { first } else { second } };
                machine.probed(endpoint, Some(contract), now);
            }
            Step::Wait(_) | Step::Release(_) => return None,
        }
    };
    let lost = world.now;
    let job = next_job(&mut world.machine, lost).unwrap();
    assert_eq!(job.receiver, Some(first));
    assert!(world.machine.answered(job.ticket, Answer::Unknown, lost).is_empty());
    // The same one is asked again, and is away; the other one is never asked.
    let mut now = lost;
    while now < lost + 599_000 {
        if let Some(job) = next_job(&mut world.machine, now) {
            assert_eq!(job.receiver, Some(first), "after {} ms", now - lost);
            let away = Answer::Unavailable { retry_after_ms: Some(30_000) };
            assert!(world.machine.answered(job.ticket, away, now).is_empty());
        }
        now += 1000;
    }
    now = lost + 600_000;
    let job = next_job(&mut world.machine, now).unwrap();
    assert_eq!(job.receiver, Some(second));
    let settles = world.machine.answered(job.ticket, Answer::Stored { refused: Vec::new() }, now);
    assert_eq!(settles.iter().map(|settle| settle.maybe_duplicate).collect::<Vec<_>>(), [true]);
}
