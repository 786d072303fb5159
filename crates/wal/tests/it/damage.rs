//! Every byte of a small store flipped once, every truncation: nothing panics, nothing outside the damaged
//! part is lost, what is skipped is in quarantine, and the ledger adds up.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use wal::disk::sim::SimDisk;
use wal::{Durability, Options, Store};

use crate::support::*;

fn options() -> Options {
    Options { durability: Durability::Disk, ..small_options("/store") }
}

fn open(disk: &SimDisk) -> (Store, wal::OpenReport) {
    Store::open(options(), disk.disk(), NOW).unwrap()
}

fn row(request: usize, n: usize) -> String {
    format!("q{request}-{n}-{}", "abcdefgh".repeat(n % 5))
}

/// Six requests of three tables, some rows sealed, some in open segments, some in the journal alone. Of those in
/// segments the journal has another copy.
fn small_store() -> (SimDisk, Vec<BTreeSet<String>>) {
    let (running, _, requests) = small_stores();
    (running, requests)
}

/// The same, and what it becomes by closing: a checkpoint, behind which all rows are in segments alone.
fn small_stores() -> (SimDisk, SimDisk, Vec<BTreeSet<String>>) {
    let disk = SimDisk::new(5);
    let (store, _) = open(&disk);
    let mut requests = Vec::new();
    for request_number in 0..6 {
        let rows: Vec<Vec<String>> = (0..3).map(|t| (0..6).map(|n| row(request_number, t * 10 + n)).collect()).collect();
        let sections = rows.iter().enumerate().map(|(t, rows)| section(&format!("T{t}"), rows)).collect();
        store.commit_wait(request(sections)).unwrap();
        requests.push(rows.into_iter().flatten().collect());
        if request_number == 2 {
            store.seal_all().unwrap();
        }
    }
    let copy = disk.snapshot();
    store.close();
    (copy, disk, requests)
}

/// All rows that a store still has.
fn rows_in(disk: &SimDisk) -> (BTreeSet<String>, wal::OpenReport, wal::Ledger) {
    let (store, report) = open(disk);
    store.seal_all().unwrap();
    let mut rows = BTreeSet::new();
    for info in store.sealed() {
        // Block by block, and as a whole: both leave out what is damaged, and count it once.
        let by_block = read_by_block(&store, info.id);
        let image = store.read_segment(info.id).unwrap();
        let text = String::from_utf8(wal::segment::values(&image, true)).unwrap();
        assert_eq!(by_block, text);
        for line in text.lines() {
            assert!(rows.insert(line.to_owned()), "a row is there twice: {line}");
        }
    }
    // The rows of damaged blocks are counted by a frame that the readers asked for.
    store.commit_wait(wal::Request::default()).unwrap();
    let ledger = store.ledger();
    ledger.check().unwrap();
    assert_eq!(ledger.total().on_disk, rows.len() as u64, "{ledger:?}");
    store.close();
    (rows.into_iter().map(|line| line.strip_prefix("t,").unwrap().to_owned()).collect(), report, ledger)
}

/// Rows of the blocks without their header lines.
fn read_by_block(store: &Store, id: wal::SegmentId) -> String {
    let (mut reader, mut value, mut rows) = (store.open_segment(id).unwrap(), Vec::new(), String::new());
    while reader.next_block(&mut value).unwrap() {
        rows.push_str(std::str::from_utf8(value.strip_prefix(HEADER).unwrap()).unwrap());
    }
    rows
}

fn quarantined(disk: &SimDisk) -> u64 {
    let dir = Path::new("/store/quarantine");
    disk.files().iter().filter(|(path, _)| path.parent() == Some(dir)).map(|(_, bytes)| bytes.len() as u64).sum()
}

fn data_files(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let files = disk.files().into_iter();
    files.filter(|(path, bytes)| !path.ends_with("lock") && bytes.iter().any(|byte| *byte != 0)).collect()
}

/// Checks that nothing is lost but what the damage of `bytes` (its `hit` range) can have cost: one request when it
/// is in the journal, the rows of the blocks that it touches when it is in a segment.
fn check_loss(what: &str, requests: &[BTreeSet<String>], rows: &BTreeSet<String>, path: &Path, bytes: &[u8], hit: Range<usize>) {
    let known: BTreeSet<String> = requests.iter().flatten().cloned().collect();
    assert!(rows.is_subset(&known), "{what}: rows from nowhere");
    if path.starts_with("/store/journal") {
        let damaged: Vec<usize> = (0..requests.len()).filter(|r| !requests[*r].is_subset(rows)).collect();
        assert!(damaged.len() <= 1, "{what}: requests {damaged:?} are damaged");
        return;
    }
    let mut may_go = BTreeSet::new();
    for block in wal::segment::blocks(bytes).flatten() {
        if block.range().start < hit.end && hit.start < block.range().end {
            let mut value = Vec::new();
            block.decode(&mut value).unwrap();
            let text = String::from_utf8(value).unwrap();
            may_go.extend(text.lines().skip(1).map(|line| line.strip_prefix("t,").unwrap().to_owned()));
        }
    }
    let lost: BTreeSet<String> = known.difference(rows).cloned().collect();
    assert!(lost.is_subset(&may_go), "{what}: rows outside the damaged block are lost: {lost:?}");
}

fn soak() -> Option<u32> {
    std::env::var("ADXMON_SOAK").ok().and_then(|factor| factor.parse().ok())
}

#[test]
fn every_byte_flipped() {
    let (running, closed, requests) = small_stores();
    flip_every_byte(&running, &requests);
    flip_every_byte(&closed, &requests);
}

fn flip_every_byte(disk: &SimDisk, requests: &[BTreeSet<String>]) {
    let all: BTreeSet<String> = requests.iter().flatten().cloned().collect();
    assert_eq!(rows_in(&disk.snapshot()).0, all);
    // One bit of every byte; in long runs each of them.
    let bits = soak().map_or(1, |factor| factor.min(8));
    let mut tried = 0;
    for (path, bytes) in data_files(disk) {
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for (at, bit) in (0..used).flat_map(|at| (0..bits).map(move |bit| (at, (at as u32 + bit) % 8))) {
            let copy = disk.snapshot();
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            copy.put(&path, &flipped);
            let what = format!("{} byte {at} bit {bit}", path.display());
            let (rows, report, ledger) = rows_in(&copy);
            check_loss(&what, requests, &rows, &path, &bytes, at..at + 1);
            if rows.len() < all.len() && !report.ledger_reset {
                assert!(quarantined(&copy) > 0, "{what}: nothing is in quarantine");
                let counted = ledger.total().quarantined > 0 || report.torn_bytes > 0 || !report.damage.is_empty();
                assert!(counted, "{what}: lost in silence");
            }
            tried += 1;
        }
    }
    assert!(tried > 1500, "{tried}");
}

#[test]
fn every_truncation() {
    let (running, closed, requests) = small_stores();
    cut_everywhere(&running, &requests);
    cut_everywhere(&closed, &requests);
}

fn cut_everywhere(disk: &SimDisk, requests: &[BTreeSet<String>]) {
    for (path, bytes) in data_files(disk) {
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for len in (0..used).step_by(if soak().is_some() { 1 } else { 7 }) {
            let copy = disk.snapshot();
            copy.put(&path, &bytes[..len]);
            let (rows, _, _) = rows_in(&copy);
            let what = format!("{} cut at {len}", path.display());
            if !path.starts_with("/store/journal") {
                check_loss(&what, requests, &rows, &path, &bytes, len..bytes.len());
                continue;
            }
            // What stands before the cut is there: the lost requests are the last ones, and one at most in part.
            let known: BTreeSet<String> = requests.iter().flatten().cloned().collect();
            assert!(rows.is_subset(&known), "{what}: rows from nowhere");
            let there: Vec<bool> = requests.iter().map(|request| request.is_subset(&rows)).collect();
            assert!(there.is_sorted_by(|before, after| before >= after), "{what}: {there:?}");
            let in_part = requests.iter().filter(|request| !request.is_subset(&rows) && !request.is_disjoint(&rows));
            assert!(in_part.count() <= 1, "{what}");
        }
    }
}

#[test]
fn without_any_checkpoint_the_segments_are_still_found() {
    let (disk, _) = small_store();
    for (path, bytes) in data_files(&disk).iter().filter(|(path, _)| path.starts_with("/store/journal")) {
        disk.put(path, &bytes.iter().map(|byte| byte ^ 0x55).collect::<Vec<_>>());
    }
    let (store, report) = open(&disk);
    assert!(report.ledger_reset);
    assert_eq!(report.adopted.len(), 3);
    assert_eq!(store.ledger().resets, 1);
    assert_eq!(store.ledger().total().on_disk, 3 * 18);
    store.ledger().check().unwrap();
    store.close();
}

#[test]
fn a_damaged_block_is_left_out_and_counted() {
    let (disk, _) = small_store();
    let (store, _) = open(&disk);
    let info = store.sealed().remove(0);
    let (path, mut bytes) = disk.files().into_iter().find(|(path, _)| *path == info.path).unwrap();
    let at = bytes.len() - 3;
    bytes[at] ^= 4;
    disk.put(&path, &bytes);
    let image = store.read_segment(info.id).unwrap();
    let rows = wal::segment::verify(&image, true).rows;
    assert!(rows < info.rows);
    store.commit_wait(wal::Request::default()).unwrap();
    assert_eq!(store.ledger().total().quarantined, info.rows - rows);
    assert_eq!(store.sealed()[0].rows, rows);
    // Settling it later counts what is left.
    store.settle_wait(vec![settlement(&info, wal::Outcome::Landed)]).unwrap();
    assert_eq!(store.ledger().total().landed, rows);
    store.ledger().check().unwrap();
    store.close();
}

#[test]
fn damage_is_counted_once_however_often_it_is_read() {
    let (disk, _) = small_store();
    let (store, _) = open(&disk);
    let info = store.sealed().remove(0);
    let (path, mut bytes) = disk.files().into_iter().find(|(path, _)| *path == info.path).unwrap();
    bytes[20] ^= 1;
    disk.put(&path, &bytes);
    let first = store.read_segment(info.id).unwrap();
    for _ in 0..3 {
        assert_eq!(store.read_segment(info.id).unwrap(), first);
        store.commit_wait(wal::Request::default()).unwrap();
    }
    let lost = info.rows - wal::segment::verify(&first, true).rows;
    assert!(lost > 0);
    assert_eq!(store.ledger().total().quarantined, lost);
    store.ledger().check().unwrap();
    store.close();
    let (store, _) = open(&disk);
    assert_eq!(store.ledger().total().quarantined, lost);
    store.close();
}
