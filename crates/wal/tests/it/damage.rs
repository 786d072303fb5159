//! Every byte of a small store flipped once, every truncation: nothing panics, nothing outside the damaged
//! part is lost, what is skipped is in quarantine, and the ledger adds up.

use std::collections::BTreeSet;
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

/// Six requests of three tables, some rows sealed, some in open segments, some in the journal alone.
fn small_store() -> (SimDisk, Vec<BTreeSet<String>>) {
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
    (copy, requests)
}

/// All rows that a store still has.
fn rows_in(disk: &SimDisk) -> (BTreeSet<String>, wal::OpenReport, wal::Ledger) {
    let (store, report) = open(disk);
    store.seal_all().unwrap();
    let mut rows = BTreeSet::new();
    for info in store.sealed() {
        let image = store.read_segment(info.id).unwrap();
        let text = String::from_utf8(wal::segment::values(&image, true)).unwrap();
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

fn quarantined(disk: &SimDisk) -> u64 {
    let dir = Path::new("/store/quarantine");
    disk.files().iter().filter(|(path, _)| path.parent() == Some(dir)).map(|(_, bytes)| bytes.len() as u64).sum()
}

fn data_files(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let files = disk.files().into_iter();
    files.filter(|(path, bytes)| !path.ends_with("lock") && bytes.iter().any(|byte| *byte != 0)).collect()
}

/// One damage costs one frame, or one block of one table: never rows of two requests, unless it is one block.
fn check_loss(what: &str, requests: &[BTreeSet<String>], rows: &BTreeSet<String>, path: &Path) {
    let hit: Vec<usize> = (0..requests.len()).filter(|r| !requests[*r].is_subset(rows)).collect();
    let known: BTreeSet<String> = requests.iter().flatten().cloned().collect();
    assert!(rows.is_subset(&known), "{what}: rows from nowhere");
    if path.starts_with("/store/journal") {
        assert!(hit.len() <= 1, "{what}: requests {hit:?} are damaged");
    } else {
        let lost: BTreeSet<char> = known.difference(rows).filter_map(|row| row.split('-').nth(1)?.chars().next()).collect();
        assert!(lost.len() <= 10, "{what}");
        let tables: BTreeSet<usize> =
            known.difference(rows).map(|row| row.split('-').nth(1).unwrap().parse::<usize>().unwrap() / 10).collect();
        assert!(tables.len() <= 1, "{what}: rows of tables {tables:?} are lost");
    }
}

#[test]
fn every_byte_flipped() {
    let (disk, requests) = small_store();
    let all: BTreeSet<String> = requests.iter().flatten().cloned().collect();
    assert_eq!(rows_in(&disk.snapshot()).0, all);
    let soak = std::env::var("ADXMON_SOAK").is_ok();
    let mut tried = 0;
    for (path, bytes) in data_files(&disk) {
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        // Every third byte with another bit in normal runs: a frame field is hit by each run.
        for at in (0..used).step_by(if soak { 1 } else { 3 }) {
            let copy = disk.snapshot();
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            copy.put(&path, &flipped);
            let what = format!("{} byte {at}", path.display());
            let (rows, report, ledger) = rows_in(&copy);
            check_loss(&what, &requests, &rows, &path);
            if rows.len() < all.len() && !report.ledger_reset {
                assert!(quarantined(&copy) > 0, "{what}: nothing is in quarantine");
                let counted = ledger.total().quarantined > 0 || report.torn_bytes > 0 || !report.damage.is_empty();
                assert!(counted, "{what}: lost in silence");
            }
            tried += 1;
        }
    }
    assert!(tried > 300, "{tried}");
}

#[test]
fn every_truncation() {
    let (disk, requests) = small_store();
    for (path, bytes) in data_files(&disk) {
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for len in (0..used).step_by(29) {
            let copy = disk.snapshot();
            copy.put(&path, &bytes[..len]);
            let (rows, _, _) = rows_in(&copy);
            let known: BTreeSet<String> = requests.iter().flatten().cloned().collect();
            assert!(rows.is_subset(&known), "{} cut at {len}", path.display());
            if !path.starts_with("/store/journal") {
                check_loss(&format!("{} cut at {len}", path.display()), &requests, &rows, &path);
            }
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
