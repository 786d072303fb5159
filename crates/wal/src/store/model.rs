//! The engine on a disk that crashes, against a small model: what was acknowledged is there once or
//! settled, no request is there in part, cursors move with their rows, sealed segments keep their identity,
//! the ledger adds up, and reading the files back gives the live state. `ADXMON_SOAK=<factor>` runs longer.

mod cases;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::engine::{Engine, Msg};
use super::inspect::{self, Snapshot, Verification};
use super::pool::Spare;
use super::state::State;
use super::{recover, stage};
use crate::disk::sim::{Fault, SimDisk};
use crate::journal::scan;
use crate::types::*;
use crate::{Refusal, segment};

const NOW: u64 = 1_760_000_000_000;

#[derive(Debug, Clone)]
enum Op {
    /// Requests that wait together: of each the tables and their rows.
    Commit(Vec<Vec<(u8, u8)>>),
    /// Settles up to so many of the oldest segments.
    Settle(u8, bool),
    Tick(u64),
    SealAll,
    /// Begins a batch of the oldest segments.
    Batch(u8),
    /// Retries so many dead letters, or gives them up.
    Revive(u8),
    Discard(u8),
    /// The disk operation so far ahead fails or takes the machine down; recovery too, if the second is given.
    Fault(u8, bool, Option<u8>),
    PowerCut,
    Kill,
    Full(bool),
}

fn op() -> impl Strategy<Value = Op> {
    let sections = prop::collection::vec((0u8..5, 1u8..40), 1..4);
    prop_oneof![
        8 => prop::collection::vec(sections, 1..4).prop_map(Op::Commit),
        3 => (1u8..6, any::<bool>()).prop_map(|(n, dead)| Op::Settle(n, dead)),
        3 => prop_oneof![Just(300u64), Just(31_000), Just(130_000)].prop_map(Op::Tick),
        1 => Just(Op::SealAll),
        1 => (1u8..4).prop_map(Op::Batch),
        1 => (1u8..4).prop_map(Op::Revive),
        1 => (1u8..4).prop_map(Op::Discard),
        3 => (0u8..40, any::<bool>(), prop::option::of(0u8..60)).prop_map(|(at, crash, again)| Op::Fault(at, crash, again)),
        1 => Just(Op::PowerCut),
        1 => Just(Op::Kill),
        1 => any::<bool>().prop_map(Op::Full),
    ]
}

/// Few rows, operations that fail, and processes and machines that end.
fn failing() -> impl Strategy<Value = Op> {
    let sections = prop::collection::vec((0u8..3, 1u8..20), 1..3);
    prop_oneof![
        6 => prop::collection::vec(sections, 1..3).prop_map(Op::Commit),
        2 => (1u8..4, any::<bool>()).prop_map(|(n, dead)| Op::Settle(n, dead)),
        3 => prop_oneof![Just(300u64), Just(31_000), Just(130_000)].prop_map(Op::Tick),
        1 => Just(Op::SealAll),
        5 => (0u8..30).prop_map(|at| Op::Fault(at, false, None)),
        3 => Just(Op::Kill),
        2 => Just(Op::PowerCut),
    ]
}

/// What became of a request as its sender sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Acknowledged,
    Unknown,
}

struct Sent {
    rows: Vec<String>,
    fate: Fate,
}

struct World {
    disk: SimDisk,
    engine: Option<Engine>,
    durability: Durability,
    now: u64,
    sent: Vec<Sent>,
    gone: HashSet<String>,
    /// Those of them that are dead letters: in files that last.
    dead: HashSet<String>,
    /// Segments whose settlement has no answer: either all of their rows are gone or none. Not those of a request together,
    /// since another request without an answer may speak of some of them.
    perhaps_gone: Vec<Vec<String>>,
    identity: BTreeMap<SegmentId, (u64, u64, u64)>,
    recovery_fault: Option<u8>,
    reopened: u64,
    /// Disk operations of the last recovery.
    recovery_operations: u64,
}

fn options(durability: Durability) -> Options {
    Options {
        durability,
        journal_file_bytes: 4 << 10,
        journal_budget_bytes: 12 << 10,
        memtable_bytes: 3 << 10,
        block_bytes: 1 << 10,
        segment_max_bytes: 2 << 10,
        max_disk_bytes: 0,
        ..Options::new("/store")
    }
}

fn open(disk: &SimDisk, durability: Durability, now: u64) -> Result<(Engine, OpenReport), crate::OpenError> {
    recover::open(options(durability), disk.disk(), now)
}

impl World {
    fn new(seed: u64, durability: Durability) -> World {
        let disk = SimDisk::new(seed);
        let (engine, _) = open(&disk, durability, NOW).unwrap();
        World {
            disk,
            engine: Some(engine),
            durability,
            now: NOW,
            sent: Vec::new(),
            gone: HashSet::new(),
            dead: HashSet::new(),
            perhaps_gone: Vec::new(),
            identity: BTreeMap::new(),
            recovery_fault: None,
            reopened: 0,
            recovery_operations: 0,
        }
    }

    fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().unwrap()
    }

    /// One group and the slow work that follows from it.
    fn step(&mut self, messages: Vec<Msg>) {
        let disk = self.disk.disk();
        let mut jobs = self.engine().step(messages);
        while let Some(job) = jobs.pop() {
            let message = job.run(&*disk);
            jobs.extend(self.engine().step(vec![message]));
        }
        while self.engine().has_work() && !self.disk.crashed() {
            self.engine().step(Vec::new());
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Commit(requests) => self.commit(requests),
            Op::Settle(n, dead) => self.settle(usize::from(*n), *dead),
            Op::Tick(ms) => {
                self.now += ms;
                self.step(vec![Msg::Tick(self.now)]);
            }
            Op::SealAll => self.step(vec![Msg::SealAll(Box::new(drop))]),
            Op::Batch(n) => {
                let segments: Vec<_> = self.engine().shared.sealed().iter().take(usize::from(*n)).map(|s| s.id).collect();
                let record = BatchRecord { id: [*n; 16], state: BatchState::Batched, segments, detail: vec![*n] };
                self.step(vec![Msg::Batch(record, Box::new(drop))]);
            }
            Op::Revive(n) => self.wake_dead(usize::from(*n), true),
            Op::Discard(n) => self.wake_dead(usize::from(*n), false),
            Op::Fault(ahead, crash, again) => {
                let fault = if *crash { Fault::Crash } else { Fault::Error };
                self.disk.fail_at(self.disk.operations() + u64::from(*ahead), fault);
                self.recovery_fault = *again;
            }
            Op::PowerCut if self.durability == Durability::Disk => self.reopen(true),
            Op::PowerCut | Op::Kill => self.reopen(false),
            Op::Full(full) => {
                let used: u64 = self.disk.files().iter().map(|(_, bytes)| bytes.len() as u64).sum();
                self.disk.set_capacity(full.then_some(used + 3000));
            }
        }
        if self.disk.crashed() {
            self.reopen(self.durability == Durability::Disk);
        }
    }

    fn commit(&mut self, requests: &[Vec<(u8, u8)>]) {
        let mut messages = Vec::new();
        let answers = Arc::new(Mutex::new(Vec::new()));
        for sections in requests {
            let number = self.sent.len();
            let (mut rows, mut pieces) = (Vec::new(), Pieces::default());
            let sections = sections.iter().enumerate().map(|(s, (table, n))| {
                let own: Vec<String> = (0..*n).map(|r| format!("r{number}-{s}-{r}-{}", "pad".repeat(usize::from(r % 7)))).collect();
                rows.extend(own.iter().cloned());
                let body = match number % 2 {
                    0 => SectionBody::Rows(own.iter().map(|row| format!("t,{row}\n")).collect::<String>().into_bytes()),
                    _ => SectionBody::Pieces(add_pieces(&mut pieces, &own)),
                };
                Section {
                    table: TableKey::new("Db", format!("T{table}"), "s1"),
                    header: Arc::from(&b"a:string,b:string\n"[..]),
                    sample_type: 1,
                    rows: u32::from(*n),
                    body,
                }
            });
            let sections = sections.collect();
            let marks = vec![(b"cursor".to_vec(), (number as u64 + 1).to_le_bytes().to_vec())];
            let receipts = vec![Receipt { sender: [9; 16], database: "Db".into(), number: number as u64, digest: 1, floor: 0 }];
            let request = Request { sections, marks, receipts, ..Request::default() };
            let staged = stage::stage(request, &pieces, 1 << 10, self.now, &Spare::default()).unwrap();
            let answers = Arc::clone(&answers);
            messages
                .push(Msg::Commit(Box::new(staged), Box::new(move |answer: Result<u64, Refusal>| answers.lock().push((number, answer)))));
            self.sent.push(Sent { rows, fate: Fate::Unknown });
        }
        self.step(messages);
        for (number, answer) in answers.lock().drain(..) {
            if answer.is_ok() {
                self.sent[number].fate = Fate::Acknowledged;
            }
        }
    }

    fn settle(&mut self, n: usize, dead: bool) {
        let sealed: Vec<_> = self.engine().shared.sealed().into_iter().take(n).collect();
        let outcome = if dead { Outcome::DeadLettered } else { Outcome::Forwarded };
        let mut items = Vec::new();
        let mut rows = Vec::new();
        for info in sealed {
            // A reader that hits a planned fault tries again later.
            let Ok((image, _)) = self.engine().shared.read_segment(info.id) else { return };
            rows.push(rows_of(&image));
            items.push(Settlement { segment: info.id, outcome, reason: String::new(), maybe_duplicate: false });
        }
        let settled = Arc::new(Mutex::new(false));
        let answer = Arc::clone(&settled);
        self.step(vec![Msg::Settle(items, Box::new(move |result| *answer.lock() = result.is_ok()))]);
        if *settled.lock() {
            if dead {
                self.dead.extend(rows.iter().flatten().cloned());
            }
            self.gone.extend(rows.into_iter().flatten());
        } else {
            self.perhaps_gone.extend(rows);
        }
    }

    /// Dead letters wait again, or are given up. Without an answer nobody knows, and their rows may be here or not.
    fn wake_dead(&mut self, n: usize, revive: bool) {
        let letters: Vec<_> = self.engine().shared.dead_letters().into_iter().take(n).map(|letter| letter.segment.id).collect();
        let mut rows = Vec::new();
        for id in &letters {
            let Ok(image) = self.engine().shared.read_dead_letter(*id) else { return };
            rows.push(rows_of(&image));
        }
        let answered = Arc::new(Mutex::new(false));
        let answer = Arc::clone(&answered);
        let done: Done = Box::new(move |result| *answer.lock() = result.is_ok());
        let message = if revive { Msg::Revive(letters.clone(), done) } else { Msg::Discard(letters.clone(), done) };
        self.step(vec![message]);
        let woken: HashSet<&String> = rows.iter().flatten().collect();
        self.dead.retain(|row| !woken.contains(row));
        if !revive {
            return;
        }
        // A number of its own again.
        for id in &letters {
            self.identity.remove(id);
        }
        self.gone.retain(|row| !woken.contains(row));
        if !*answered.lock() {
            self.perhaps_gone.extend(rows);
        }
    }

    /// The machine or the process ends; perhaps again while the files are read back.
    fn reopen(&mut self, power: bool) {
        let restart = |disk: &SimDisk| if power { disk.restart() } else { disk.kill() };
        self.engine = None;
        restart(&self.disk);
        self.disk.set_capacity(None);
        if let Some(ahead) = self.recovery_fault.take() {
            self.disk.fail_at(self.disk.operations() + u64::from(ahead), Fault::Crash);
            drop(open(&self.disk, self.durability, self.now));
            restart(&self.disk);
        }
        let before = self.disk.operations();
        let (engine, report) = open(&self.disk, self.durability, self.now).unwrap();
        self.recovery_operations = self.disk.operations() - before;
        self.reopened += 1;
        assert!(!report.ledger_reset && report.adopted.is_empty() && report.foreign.is_empty(), "{report:?}");
        self.engine = Some(engine);
        self.check_identity();
        self.check(true);
    }

    /// A segment that was visible has the same number, digest and rows for ever.
    fn check_identity(&mut self) {
        for info in self.engine().shared.sealed() {
            let now = (info.number, info.digest, info.rows);
            assert_eq!(*self.identity.entry(info.id).or_insert(now), now, "segment {} changed", info.id);
        }
    }

    /// Compares a copy that is read back from the files with the live state and with the model.
    fn check(&mut self, recovered: bool) {
        let copy = self.disk.snapshot();
        // Frames that were refused lie in the journal until the next group makes them void.
        let journal = scan::load(&*copy.disk(), Path::new("/store/journal")).unwrap();
        let refused = journal.next_lsn() > self.engine().writer.next_lsn();
        let (looked_at, seen) = look_at(&copy);
        let (mut again, report) = open(&copy, self.durability, self.now).unwrap();
        assert!(report.damage.is_empty(), "{report:?}");
        let live = comparable(&self.engine().shared.state.lock());
        let read = comparable(&again.shared.state.lock());
        let unsealed: u64 = self.engine().tables.map.values().map(|t| t.buffered_rows + t.open_rows()).sum();
        let sealed: u64 = live.sealed.values().map(|record| record.rows).sum();
        let on_disk: u64 = live.counts.values().map(|counts| counts.on_disk).sum();
        assert_eq!(sealed + unsealed, on_disk, "the ledger counts rows that no place holds");
        if !refused {
            assert_eq!(live, read, "reading back differs");
        }
        again.step(vec![Msg::SealAll(Box::new(|answer| assert!(answer.is_ok())))]);
        let shared = Arc::clone(&again.shared);
        let mut found: HashMap<String, usize> = HashMap::new();
        for info in shared.sealed() {
            let (image, left) = shared.read_segment(info.id).unwrap();
            let rows = rows_of(&image);
            assert_eq!((rows.len() as u64, left), (info.rows, None), "{}", info.file_name);
            rows.into_iter().for_each(|row| *found.entry(row).or_default() += 1);
        }
        let ledger = shared.state.lock().ledger();
        ledger.check().unwrap();
        assert_eq!(ledger.total().on_disk, found.values().sum::<usize>() as u64);
        // Who only looked saw the same.
        assert_eq!((looked_at, seen), (ledger, found.clone()));
        let letters: HashSet<String> = files_in(&copy, "/store/dead").iter().flat_map(|image| rows_of(image)).collect();
        for row in &self.dead {
            assert!(letters.contains(row), "a dead letter is lost: {row}");
        }
        let mark = shared.state.lock().marks.get(&b"cursor"[..]).cloned();
        self.compare(&found, mark, recovered);
    }

    fn compare(&mut self, found: &HashMap<String, usize>, mark: Option<Vec<u8>>, recovered: bool) {
        assert!(found.values().all(|n| *n == 1), "a row is there twice");
        // Settlements without an answer: all or nothing of what was not settled otherwise. A recovery decides.
        let mut perhaps: HashSet<String> = HashSet::new();
        for rows in &self.perhaps_gone {
            let left: Vec<_> = rows.iter().filter(|row| !self.gone.contains(*row)).collect();
            let present = left.iter().filter(|row| found.contains_key(**row)).count();
            assert!(present == 0 || present == left.len(), "a settlement is there in part");
            if present == 0 {
                perhaps.extend(left.into_iter().cloned());
            }
        }
        if recovered {
            self.perhaps_gone.clear();
            self.gone.extend(perhaps.drain());
        }
        let gone = |row: &String| self.gone.contains(row) || perhaps.contains(row);
        let last = mark.map_or(0, |value| u64::from_le_bytes(value.try_into().unwrap()));
        for (number, sent) in self.sent.iter().enumerate() {
            let present = sent.rows.iter().filter(|row| found.contains_key(*row) || gone(row)).count();
            match sent.fate {
                Fate::Acknowledged => {
                    assert_eq!(present, sent.rows.len(), "request {number} was acknowledged and is lost");
                    assert!(last > number as u64, "the cursor is behind request {number}");
                }
                Fate::Unknown => assert!(present == 0 || present == sent.rows.len(), "request {number} is there in part"),
            }
        }
        for row in &self.gone {
            assert!(!found.contains_key(row), "a settled row is back: {row}");
        }
        if last > 0 {
            let sent = &self.sent[last as usize - 1];
            assert!(sent.rows.iter().all(|row| found.contains_key(row) || gone(row)), "the cursor is ahead of its rows");
        }
    }
}

/// Adds rows to the buffer, the last one first; where they are, in their order.
fn add_pieces(pieces: &mut Pieces, rows: &[String]) -> std::ops::Range<usize> {
    let first = pieces.places.len();
    for row in rows.iter().rev() {
        let start = pieces.bytes.len() as u32;
        pieces.bytes.extend_from_slice(format!("t,{row}\n").as_bytes());
        pieces.places.push(start..pieces.bytes.len() as u32);
    }
    pieces.places[first..].reverse();
    first..pieces.places.len()
}

/// Ledger and waiting rows of the files as they lie there, without a recovery.
fn look_at(disk: &SimDisk) -> (Ledger, HashMap<String, usize>) {
    let before = disk.files();
    let disk_of = disk.disk();
    let snapshot = Snapshot::of(&*disk_of, Path::new("/store")).unwrap();
    let mut text = Vec::new();
    for item in snapshot.items.iter().filter(|item| matches!(item.place, inspect::Place::Sealed | inspect::Place::Open)) {
        let mut add = |value: &[u8]| {
            text.extend_from_slice(inspect::split_header(value, true).1);
            Ok(())
        };
        snapshot.read(&*disk_of, item, &mut add).unwrap();
    }
    let mut add = |_: &TableKey, _: &[u8], rows: &[u8]| {
        text.extend_from_slice(rows);
        Ok(())
    };
    snapshot.read_journal_rows(&*disk_of, &|_| true, &mut add).unwrap();
    let findings = Verification::of_directory(&*disk_of, Path::new("/store")).unwrap().findings;
    assert_eq!(findings, [], "what is whole is said to be damaged");
    assert!(disk.files() == before, "looking changes nothing");
    let mut rows: HashMap<String, usize> = HashMap::new();
    for line in String::from_utf8(text).unwrap().lines() {
        *rows.entry(line.strip_prefix("t,").unwrap().to_owned()).or_default() += 1;
    }
    (snapshot.journal.unwrap().ledger, rows)
}

/// The part of the state that files determine.
fn comparable(state: &State) -> State {
    State { last_id: 0, doomed: BTreeMap::new(), ..state.clone() }
}

fn files_in(disk: &SimDisk, dir: &str) -> Vec<Vec<u8>> {
    disk.files().into_iter().filter(|(path, _)| path.parent() == Some(Path::new(dir))).map(|(_, bytes)| bytes).collect()
}

fn rows_of(image: &[u8]) -> Vec<String> {
    let text = String::from_utf8(segment::values(image, true)).unwrap();
    text.lines().map(|line| line.strip_prefix("t,").unwrap().to_owned()).collect()
}

fn soak() -> Option<u32> {
    std::env::var("ADXMON_SOAK").ok().and_then(|factor| factor.parse().ok())
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 48 * soak().unwrap_or(1), failure_persistence: None, ..ProptestConfig::default() }
}

fn run(seed: u64, durability: Durability, ops: &[Op]) {
    let mut world = World::new(seed, durability);
    for op in ops {
        if std::env::var_os("ADXMON_TRACE").is_some() {
            eprintln!("{} {op:?}", world.disk.operations());
        }
        world.apply(op);
        world.check_identity();
        if !matches!(op, Op::Fault(..)) {
            world.check(false);
        }
    }
    world.disk.heal();
    world.disk.set_capacity(None);
    if durability == Durability::Process {
        check_power_cut_of_a_process(&world.disk.fork(), world.now);
    }
    world.reopen(durability == Durability::Disk);
    // After healing all drains.
    world.step(vec![Msg::SealAll(Box::new(|answer| assert!(answer.is_ok())))]);
    world.settle(usize::MAX, false);
    world.apply(&Op::Tick(300));
    assert_eq!(world.engine().shared.state.lock().ledger().total().on_disk, 0);
    let letters = world.engine().shared.dead_letters();
    let mut known: Vec<_> = letters.into_iter().map(|letter| letter.segment.path).collect();
    let dead = world.disk.files().into_iter().filter(|(path, _)| path.parent() == Some(Path::new("/store/dead")));
    let mut buried: Vec<_> = dead.map(|(path, _)| path).collect();
    known.sort();
    buried.sort();
    assert_eq!(known, buried, "dead letters and their files");
    let left = world.disk.files().into_iter().filter(|(path, _)| path.parent() == Some(Path::new("/store")));
    assert_eq!(left.map(|(path, _)| path).collect::<Vec<_>>(), Vec::<std::path::PathBuf>::new());
}

/// A power cut after acknowledgements that promise to survive only the end of the process: what came in the
/// last second may be lost, but what is left opens, no row is there twice, and the ledger holds.
fn check_power_cut_of_a_process(disk: &SimDisk, now: u64) {
    disk.restart();
    let (mut engine, _) = open(disk, Durability::Process, now).unwrap();
    engine.step(vec![Msg::SealAll(Box::new(|answer| assert!(answer.is_ok())))]);
    let mut found = HashSet::new();
    for info in engine.shared.sealed() {
        let (image, left) = engine.shared.read_segment(info.id).unwrap();
        for row in rows_of(&image) {
            assert!(found.insert(row.clone()), "a row is there twice: {row}");
        }
        // A file whose sync failed, and whose process ended before it could write the file anew.
        engine.step(left.map(|left| Msg::Damaged(info.id, left)).into_iter().collect());
    }
    let ledger = engine.shared.state.lock().ledger();
    ledger.check().unwrap();
    assert_eq!(ledger.total().on_disk, found.len() as u64);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn nothing_acknowledged_is_lost_on_a_disk(seed in any::<u64>(), ops in prop::collection::vec(op(), 1..30)) {
        run(seed, Durability::Disk, &ops);
    }

    #[test]
    fn nothing_acknowledged_is_lost_by_a_kill(seed in any::<u64>(), ops in prop::collection::vec(op(), 1..30)) {
        run(seed, Durability::Process, &ops);
    }
}

proptest! {
    #![proptest_config(config())]

    /// What a process read from memory of the kernel after a failed sync is not lost by a later power cut.
    #[test]
    fn nothing_acknowledged_is_lost_when_syncs_fail(seed in any::<u64>(), ops in prop::collection::vec(failing(), 1..30)) {
        run(seed, Durability::Disk, &ops);
    }
}

/// One fixed history, with the power going at every single disk operation of it, and again at every operation
/// of the recovery (in short runs at some of them).
#[test]
fn a_crash_at_every_operation() {
    let history = history();
    let mut whole = World::new(1, Durability::Disk);
    let first = whole.disk.operations();
    history.iter().for_each(|op| whole.apply(op));
    let last = whole.disk.operations();
    assert!(last > first + 30, "the history is too short to mean anything");
    let stride = if soak().is_some() { 1 } else { 9 };
    for seed in 0..u64::from(soak().unwrap_or(1)) {
        for at in first..last {
            let recovery = crash(&history, seed, at, None);
            let begin = (at % stride) as u8;
            for again in (begin..u8::try_from(recovery).unwrap()).step_by(stride as usize) {
                crash(&history, seed, at, Some(again));
            }
        }
    }
}

/// Returns how many operations the recovery took.
fn crash(history: &[Op], seed: u64, at: u64, again: Option<u8>) -> u64 {
    eprintln!("seed {seed}: the power goes at operation {at}, and of the recovery at {again:?}");
    let mut world = World::new((seed << 32) + at * 7919 + 3, Durability::Disk);
    world.disk.fail_at(at, Fault::Crash);
    world.recovery_fault = again;
    let mut recovery = 0;
    for op in history {
        let before = world.reopened;
        world.apply(op);
        if world.reopened > before {
            recovery = world.recovery_operations;
        }
    }
    world.check(false);
    world.reopen(true);
    recovery
}

fn history() -> Vec<Op> {
    vec![
        Op::Commit(vec![vec![(0, 5), (1, 30)], vec![(2, 8)]]),
        Op::Commit(vec![vec![(0, 35), (1, 30)]]),
        Op::Commit(vec![vec![(0, 39), (3, 39)]]),
        Op::Tick(31_000),
        Op::Settle(2, false),
        Op::Commit(vec![vec![(0, 20)]]),
        Op::Tick(130_000),
        Op::Commit(vec![vec![(0, 20), (4, 39)]]),
        Op::SealAll,
        Op::Settle(2, true),
        Op::Commit(vec![vec![(1, 3)]]),
        Op::Revive(1),
        Op::Tick(31_000),
        Op::Tick(130_000),
        Op::Discard(1),
        Op::Settle(3, false),
        Op::Commit(vec![vec![(1, 30), (2, 30), (3, 30)]]),
        Op::Commit(vec![vec![(1, 30), (2, 30), (3, 30)]]),
    ]
}
