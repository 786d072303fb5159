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
    let (store, _) = Store::open_inline(small_options("/store"), disk.disk(), NOW).unwrap();
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
    // A sender writes down where segments go before they leave: without that no room would ever come free.
    let place = || Request { marks: vec![(b"place".to_vec(), vec![1; 300])], ..Request::default() };
    store.commit_wait(place()).unwrap();
    let copy = disk.snapshot();
    // Also when it takes the file that was reserved.
    let written = |disk: &SimDisk| disk.files().into_iter().filter(is_written_journal).count();
    let before = written(&disk);
    for _ in 0..40 {
        store.commit_wait(place()).unwrap();
        if written(&disk) > before {
            break;
        }
    }
    assert_eq!(written(&disk), before + 1);
    store.settle_wait(sealed.iter().map(|info| settlement(info, Outcome::Forwarded)).collect()).unwrap();
    disk.set_capacity(None);
    store.tick(NOW + 1000);
    store.commit_wait(request(vec![section("Cpu", &["after".into()])])).unwrap();
    settle_all(&store);
    let total = store.ledger().total();
    assert_eq!((total.accepted, total.forwarded), (acknowledged + 1, acknowledged + 1));
    store.close();
    starts_on_a_full_file_system(&copy, acknowledged);
}

fn is_written_journal((path, bytes): &(std::path::PathBuf, Vec<u8>)) -> bool {
    path.starts_with("/store/journal") && bytes.iter().any(|byte| *byte != 0)
}

/// The process was killed while the disk was full; of a torn frame at the end of the journal nobody was told.
fn starts_on_a_full_file_system(disk: &SimDisk, acknowledged: u64) {
    let (path, mut bytes) = disk.files().into_iter().rfind(is_written_journal).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    if end + 100 < bytes.len() {
        bytes[end + 40..end + 44].copy_from_slice(b"ADXJ");
        disk.put(&path, &bytes);
    }
    let used: u64 = disk.files().iter().map(|(_, bytes)| bytes.len() as u64).sum();
    disk.set_capacity(Some(used));
    let (store, report) = Store::open_inline(small_options("/store"), disk.disk(), NOW).unwrap();
    assert!(report.damage.is_empty(), "{report:?}");
    assert_eq!(store.mark(b"place"), Some(vec![1; 300]));
    // Others take what room there is: what was reserved before the start still is.
    disk.set_capacity(Some(disk.files().iter().map(|(_, bytes)| bytes.len() as u64).sum()));
    store.settle_wait(store.sealed().iter().map(|info| settlement(info, Outcome::Forwarded)).collect()).unwrap();
    assert!(store.sealed().is_empty());
    // What left made room for what waits.
    for second in 1..20 {
        store.tick(NOW + second * 1000);
        let _ = store.seal_all();
        store.settle_wait(store.sealed().iter().map(|info| settlement(info, Outcome::Forwarded)).collect()).unwrap();
    }
    assert_eq!(store.ledger().total().forwarded, acknowledged);
    store.ledger().check().unwrap();
    store.close();
}

/// Adopts one block of `table`; the answer.
fn adopt(store: &Store, table: TableKey, rows: &[String], receipts: Vec<Receipt>) -> Result<u64, Refusal> {
    let mut blocks = Vec::new();
    let text: String = rows.iter().map(|row| format!("t,{row}\n")).collect();
    let meta = wal::segment::BlockMeta { sample_type: 1, rows: rows.len() as u32 };
    wal::segment::encode_block(&mut blocks, meta, format!("h:string\n{text}").as_bytes(), &mut wal::segment::Scratch::default());
    let mut adoption = store.adopt(table).unwrap();
    adoption.write_blocks(&blocks, rows.len() as u64).unwrap();
    let (done, answer) = std::sync::mpsc::channel();
    adoption.finish(receipts, Vec::new(), Box::new(move |result| done.send(result).unwrap()));
    answer.recv().unwrap()
}

#[test]
fn whole_segments_have_the_limits_of_requests() {
    let disk = SimDisk::new(3);
    let options = Options { database_quota_bytes: Some(20 << 10), max_tables_per_database: 2, ..small_options("/store") };
    let (store, _) = Store::open(options, disk.disk(), NOW).unwrap();
    let mut seed = 1;
    let table = |database: &str, table: &str| TableKey::new(database, table, "abc123");
    let receipt = |number| Receipt { sender: [1; 16], database: "Full".into(), number, digest: number, floor: 1 };
    assert!(adopt(&store, table("Full", "A"), &noise(300, &mut seed), vec![receipt(1)]).is_ok());
    let over = adopt(&store, table("Full", "A"), &noise(10, &mut seed), vec![receipt(2)]);
    assert_eq!(over, Err(Refusal::DatabaseOverQuota { database: "Full".into() }));
    // Sent again: durable already, and not stored twice.
    assert!(adopt(&store, table("Full", "A"), &noise(300, &mut seed), vec![receipt(1)]).is_ok());
    for name in ["A", "B"] {
        adopt(&store, table("Other", name), &noise(1, &mut seed), Vec::new()).unwrap();
    }
    let third = adopt(&store, table("Other", "C"), &noise(1, &mut seed), Vec::new());
    assert_eq!(third, Err(Refusal::TooManyTables { database: "Other".into() }));
    assert_eq!(store.ledger().total().accepted, 302);
    // Nothing is left of those that were not taken.
    let temporary = disk.files().into_iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "tmp"));
    assert_eq!(temporary.count(), 0);
    store.close();
}

#[test]
fn an_adoption_whose_frame_failed_leaves_nothing() {
    let disk = SimDisk::new(3);
    let (store, _) = Store::open(small_options("/store"), disk.disk(), NOW).unwrap();
    let receipt = Receipt { sender: [1; 16], database: "Db".into(), number: 1, digest: 1, floor: 1 };
    store.commit_wait(request(vec![section("Cpu", &["1".into()])])).unwrap();
    // The file is made, written twice and synced, as are two folders; from then on all fails.
    let first = disk.operations() + 6;
    for operation in first..first + 20 {
        disk.fail_at(operation, wal::disk::sim::Fault::Error);
    }
    assert!(adopt(&store, key("Cpu"), &["2".into()], vec![receipt.clone()]).is_err());
    disk.heal();
    let temporary = |disk: &SimDisk| disk.files().into_iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "tmp")).count();
    // Until another frame has taken its place, a crash may bring the refused one back: its file must be there.
    let copy = disk.snapshot();
    let (again, _) = Store::open(small_options("/store"), copy.disk(), NOW).unwrap();
    let back = again.known(&[1; 16], "Db", 1, 1) == wal::Known::Same;
    again.seal_all().unwrap();
    assert_eq!(sealed_rows(&again, "Cpu").len(), if back { 2 } else { 1 });
    again.close();
    store.commit_wait(request(vec![section("Cpu", &["3".into()])])).unwrap();
    store.seal_all().unwrap();
    assert_eq!(temporary(&disk), 0);
    assert_eq!(sealed_rows(&store, "Cpu"), ["1", "3"]);
    assert!(adopt(&store, key("Cpu"), &["2".into()], vec![receipt]).is_ok());
    store.ledger().check().unwrap();
    store.close();
}

#[test]
fn bytes_put_aside_count_and_end_at_the_limit() {
    let disk = SimDisk::new(3);
    let options = Options { max_disk_bytes: 4 << 20, ..small_options("/store") };
    let (store, _) = Store::open_inline(options.clone(), disk.disk(), NOW).unwrap();
    let before = store.usage().total_bytes;
    store.set_aside("transfer-Db_Cpu_1.wal-8", &[1; 5000]).unwrap();
    store.set_aside("transfer-Db_Cpu_1.wal-8", &[1; 5000]).unwrap();
    store.tick(NOW + 250);
    store.commit_wait(Request::default()).unwrap();
    assert_eq!(store.usage().quarantine_bytes, 5000);
    assert!(store.usage().total_bytes >= before + 5000);
    for name in ["../x", "a/b", ""] {
        assert_eq!(store.set_aside(name, b"x").unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    }
    let refused = (0..100).find_map(|n| {
        let result = store.set_aside(&format!("n{n}"), &vec![0; 1 << 20]);
        store.commit_wait(Request::default()).unwrap();
        result.err()
    });
    assert_eq!(refused.map(|error| error.kind()), Some(std::io::ErrorKind::StorageFull));
    let kept = store.usage().quarantine_bytes;
    store.close();
    let (store, _) = Store::open_inline(options, disk.disk(), NOW).unwrap();
    assert_eq!(store.usage().quarantine_bytes, kept);
    store.close();
}

#[test]
fn tables_per_database_are_limited() {
    let disk = SimDisk::new(3);
    let options = Options { max_tables_per_database: 3, ..small_options("/store") };
    let (store, _) = Store::open_inline(options, disk.disk(), NOW).unwrap();
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
    let (store, _) = Store::open_inline(small_options("/store"), disk.disk(), NOW).unwrap();
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
    let (store, _) = Store::open_inline(small_options("/store"), disk.disk(), NOW).unwrap();
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
