//! Limits refuse the right requests, settlements always go through, and space that is freed is used again.

use std::sync::Arc;

use wal::disk::sim::SimDisk;
use wal::{Options, Outcome, Receipt, Refusal, Request, Section, Store, TableKey};

use crate::support::*;

fn noise(rows: usize, seed: &mut u64) -> Vec<String> {
    let mut word = || {
        *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        format!("{:016x}", *seed)
    };
    (0..rows).map(|_| (0..8).map(|_| word()).collect()).collect()
}

fn in_database(database: &str, section: Section) -> Section {
    Section { table: TableKey::new(database, section.table.table, section.table.schema), ..section }
}

fn settle_all(store: &Store) {
    store.seal_all().unwrap();
    let items = store.sealed().iter().map(|info| settlement(info, Outcome::Forwarded)).collect();
    store.settle_wait(items).unwrap();
}

#[test]
fn a_database_over_its_quota_does_not_stop_another() {
    let disk = SimDisk::new(3);
    let options = Options { database_quota_bytes: Some(20 << 10), ..small_options("/store") };
    let (store, _) = Store::open(options, disk.disk(), NOW).unwrap();
    let mut seed = 1;
    let mut refused = None;
    for _ in 0..100 {
        let full = in_database("Full", section("Cpu", &noise(10, &mut seed)));
        if let Err(refusal) = store.commit_wait(request(vec![full])) {
            refused = Some(refusal);
            break;
        }
    }
    assert_eq!(refused, Some(Refusal::DatabaseOverQuota { database: "Full".into() }));
    let healthy = || in_database("Healthy", section("Cpu", &["1".into()]));
    store.commit_wait(request(vec![healthy()])).unwrap();
    // A request for both is refused as a whole.
    let both = vec![healthy(), in_database("Full", section("Cpu", &["2".into()]))];
    assert!(store.commit_wait(request(both)).is_err());
    settle_all(&store);
    store.tick(NOW + 1000);
    store.commit_wait(Request::default()).unwrap();
    store.commit_wait(request(vec![in_database("Full", section("Cpu", &["2".into()]))])).unwrap();
    assert_eq!(store.ledger().tables[&TableKey::new("Healthy", "Cpu", "abc123")].accepted, 1);
    store.ledger().check().unwrap();
    store.close();
}

#[test]
fn the_global_limit_keeps_a_reserve_and_recovers() {
    let disk = SimDisk::new(3);
    let max = 4 << 20;
    let options = Options { max_disk_bytes: max, ..small_options("/store") };
    let (store, _) = Store::open(options, disk.disk(), NOW).unwrap();
    let mut seed = 1;
    let mut now = NOW;
    let refusal = loop {
        now += 250;
        store.tick(now);
        if let Err(refusal) = store.commit_wait(request(vec![section("Cpu", &noise(100, &mut seed))])) {
            break refusal;
        }
    };
    assert_eq!(refusal, Refusal::DiskFull);
    let files: u64 = disk.files().iter().map(|(_, bytes)| bytes.len() as u64).sum();
    assert!(files <= max, "{files} bytes are used of {max}");
    settle_all(&store);
    store.tick(now + 200_000);
    while store.commit_wait(request(vec![section("Cpu", &["1".into()])])).is_err() {
        // The checkpoint that frees the journal runs behind.
        std::thread::yield_now();
    }
    store.ledger().check().unwrap();
    store.close();
}

#[test]
fn a_full_file_system_refuses_rows_but_not_settlements() {
    let disk = SimDisk::new(3);
    let (store, _) = Store::open(small_options("/store"), disk.disk(), NOW).unwrap();
    let mut seed = 1;
    for _ in 0..4 {
        store.commit_wait(request(vec![section("Cpu", &noise(20, &mut seed))])).unwrap();
    }
    store.seal_all().unwrap();
    let sealed = store.sealed();
    let used: u64 = disk.files().iter().map(|(_, bytes)| bytes.len() as u64).sum();
    disk.set_capacity(Some(used));
    let mut acknowledged = 80;
    let refusal = loop {
        match store.commit_wait(request(vec![section("Cpu", &noise(20, &mut seed))])) {
            Ok(_) => acknowledged += 20,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refusal, Refusal::DiskFull);
    store.settle_wait(sealed.iter().map(|info| settlement(info, Outcome::Forwarded)).collect()).unwrap();
    disk.set_capacity(None);
    store.tick(NOW + 1000);
    store.commit_wait(request(vec![section("Cpu", &["after".into()])])).unwrap();
    settle_all(&store);
    let total = store.ledger().total();
    assert_eq!((total.accepted, total.forwarded), (acknowledged + 1, acknowledged + 1));
    store.close();
}

#[test]
fn tables_per_database_are_limited() {
    let disk = SimDisk::new(3);
    let options = Options { max_tables_per_database: 3, ..small_options("/store") };
    let (store, _) = Store::open(options, disk.disk(), NOW).unwrap();
    let one = |table: &str| request(vec![section(table, &["1".into()])]);
    for table in ["A", "B", "C"] {
        store.commit_wait(one(table)).unwrap();
    }
    assert_eq!(store.commit_wait(one("D")), Err(Refusal::TooManyTables { database: "Db".into() }));
    store.commit_wait(one("A")).unwrap();
    store.commit_wait(request(vec![in_database("Other", section("D", &["1".into()]))])).unwrap();
    store.close();
}

#[test]
fn two_requests_with_the_same_receipts_store_once() {
    let disk = SimDisk::new(3);
    let (store, _) = Store::open(small_options("/store"), disk.disk(), NOW).unwrap();
    let receipt = Receipt { sender: [1; 16], database: "Db".into(), number: 4, digest: 8, floor: 4 };
    let twice = Request { receipts: vec![receipt], ..request(vec![section("Cpu", &["1".into()])]) };
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (store, request) = (store.clone(), twice.clone());
            std::thread::spawn(move || store.commit_wait(request))
        })
        .collect();
    for thread in threads {
        // In one group with the first: look again. Later: known.
        assert!(matches!(thread.join().unwrap(), Ok(_) | Err(Refusal::Busy)));
    }
    assert_eq!(store.ledger().total().accepted, 1);
    store.close();
}

#[test]
fn answers_may_hold_the_last_handle() {
    let disk = SimDisk::new(3);
    let (store, _) = Store::open(small_options("/store"), disk.disk(), NOW).unwrap();
    let (done, answer) = std::sync::mpsc::channel();
    let held = Arc::new(store);
    let inner = Arc::clone(&held);
    held.commit(
        request(vec![section("Cpu", &["1".into()])]),
        Box::new(move |result| {
            drop(inner);
            done.send(result).unwrap();
        }),
    );
    drop(held);
    answer.recv().unwrap().unwrap();
}
