//! Dead letters: kept with their reason, counted, retried or given up once.

use wal::disk::sim::SimDisk;
use wal::{DeadLetter, Options, Outcome, Refusal, SegmentId, Settlement, Store};

use crate::support::*;

fn open(disk: &SimDisk) -> Store {
    Store::open_inline(small_options("/store"), disk.disk(), NOW).unwrap().0
}

fn wait(start: impl FnOnce(wal::Done)) -> Result<u64, Refusal> {
    let (done, answer) = std::sync::mpsc::channel();
    start(Box::new(move |outcome| drop(done.send(outcome))));
    answer.recv().unwrap()
}

fn seal(store: &Store, table: &str, rows: &[&str]) {
    let rows: Vec<String> = rows.iter().map(|row| (*row).to_owned()).collect();
    store.commit_wait(request(vec![section(table, &rows)])).unwrap();
    store.seal_all().unwrap();
}

/// A segment of `table` with these rows dies.
fn bury(store: &Store, table: &str, rows: &[&str]) -> SegmentId {
    seal(store, table, rows);
    let info = store.sealed().into_iter().find(|info| &*info.table.table == table).unwrap();
    let item = Settlement { reason: format!("{table} is refused"), ..settlement(&info, Outcome::DeadLettered) };
    store.settle_wait(vec![item]).unwrap();
    info.id
}

fn files(disk: &SimDisk, dir: &str) -> Vec<String> {
    let files = disk.files().into_iter().filter(|(path, _)| path.parent() == Some(std::path::Path::new(dir)));
    files.map(|(path, _)| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

fn counts(store: &Store) -> [u64; 4] {
    let ledger = store.ledger();
    ledger.check().unwrap();
    let total = ledger.total();
    [total.accepted, total.dead_lettered, total.dropped, total.on_disk]
}

#[test]
fn a_dead_letter_is_listed_with_its_reason_across_restarts() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let id = bury(&store, "Cpu", &["1", "2"]);
    let check = |store: &Store| {
        let [DeadLetter { segment, reason, maybe_duplicate, died_ms }] = &store.dead_letters()[..] else { panic!() };
        assert_eq!(*died_ms, Some(NOW));
        assert_eq!((segment.id, segment.rows, reason.as_str(), *maybe_duplicate), (id, 2, "Cpu is refused", false));
        assert_eq!(segment.table, key("Cpu"));
        let image = store.read_dead_letter(id).unwrap();
        assert_eq!(wal::segment::values(&image, true), b"t,1\nt,2\n");
        assert_eq!(counts(store), [2, 2, 0, 0]);
        assert_eq!(store.usage().dead_bytes, segment.bytes);
    };
    check(&store);
    // From the journal alone, then from a checkpoint.
    check(&open(&disk.snapshot()));
    store.close();
    check(&open(&disk));
}

#[test]
fn a_retried_dead_letter_waits_again_once() {
    let disk = SimDisk::new(2);
    let store = open(&disk);
    let id = bury(&store, "Cpu", &["1", "2"]);
    let number = store.dead_letters()[0].segment.number;
    wait(|done| store.retry_dead_letters(vec![id, id], done)).unwrap();
    assert_eq!((store.dead_letters().len(), counts(&store)), (0, [2, 0, 0, 2]));
    // Receivers take its old number for settled.
    assert!(store.sealed()[0].number > number && store.floor("Db") > number);
    assert_eq!(sealed_rows(&store, "Cpu"), ["1", "2"]);
    // A second command finds nothing.
    wait(|done| store.retry_dead_letters(vec![id], done)).unwrap();
    assert_eq!(store.sealed().len(), 1);
    for copy in [disk.snapshot(), disk.snapshot()] {
        let again = open(&copy);
        assert_eq!((sealed_rows(&again, "Cpu"), counts(&again)), (vec!["1".to_owned(), "2".to_owned()], [2, 0, 0, 2]));
        again.close();
    }
    store.close();
    let store = open(&disk);
    assert_eq!(sealed_rows(&store, "Cpu"), ["1", "2"]);
    let item = settlement(&store.sealed()[0], Outcome::Landed);
    store.settle_wait(vec![item]).unwrap();
    assert_eq!((counts(&store), files(&disk, "/store/dead")), ([2, 0, 0, 0], Vec::new()));
    assert_eq!(store.usage().dead_bytes, 0);
}

#[test]
fn a_dead_letter_may_die_again() {
    let disk = SimDisk::new(3);
    let store = open(&disk);
    let id = bury(&store, "Cpu", &["1"]);
    wait(|done| store.retry_dead_letters(vec![id], done)).unwrap();
    let item = Settlement { reason: "again".into(), ..settlement(&store.sealed()[0], Outcome::DeadLettered) };
    store.settle_wait(vec![item]).unwrap();
    store.close();
    let store = open(&disk);
    assert_eq!(store.dead_letters()[0].reason, "again");
    assert_eq!((counts(&store), files(&disk, "/store/dead").len()), ([1, 1, 0, 0], 1));
    assert!(store.read_dead_letter(id).is_ok());
}

#[test]
fn rows_that_may_be_elsewhere_are_counted_once_however_often_they_die() {
    let disk = SimDisk::new(5);
    let mut store = open(&disk);
    seal(&store, "Cpu", &["1", "2", "3"]);
    let doubtful = |store: &Store, outcome| Settlement { maybe_duplicate: true, ..settlement(&store.sealed()[0], outcome) };
    store.settle_wait(vec![doubtful(&store, Outcome::DeadLettered)]).unwrap();
    let counted = |store: &Store| store.ledger().total().maybe_duplicate;
    assert_eq!(counted(&store), 3);
    for outcome in [Outcome::DeadLettered, Outcome::Landed] {
        let ids = vec![store.dead_letters()[0].segment.id];
        wait(|done| store.retry_dead_letters(ids, done)).unwrap();
        // What was counted is remembered by checkpoint and journal.
        assert_eq!(counted(&open(&disk.snapshot())), 3);
        store.close();
        store = open(&disk);
        store.settle_wait(vec![doubtful(&store, outcome)]).unwrap();
        assert_eq!(counted(&store), 3);
        assert_eq!(counted(&open(&disk.snapshot())), 3);
    }
    assert_eq!(counts(&store), [3, 0, 0, 0]);
}

/// What is known of a dead letter stays with it when it dies again for another reason.
#[test]
fn a_dead_letter_that_may_be_elsewhere_is_still_so_when_it_dies_again() {
    let disk = SimDisk::new(6);
    let store = open(&disk);
    seal(&store, "Cpu", &["1"]);
    let first = Settlement { maybe_duplicate: true, ..settlement(&store.sealed()[0], Outcome::DeadLettered) };
    store.settle_wait(vec![first]).unwrap();
    wait(|done| store.retry_dead_letters(vec![store.dead_letters()[0].segment.id], done)).unwrap();
    store.settle_wait(vec![settlement(&store.sealed()[0], Outcome::DeadLettered)]).unwrap();
    assert!(store.dead_letters()[0].maybe_duplicate);
    assert_eq!(store.ledger().total().maybe_duplicate, 1);
}

#[test]
fn a_dropped_dead_letter_is_counted_and_gone() {
    let disk = SimDisk::new(4);
    let store = open(&disk);
    let ids = [bury(&store, "Cpu", &["1", "2"]), bury(&store, "Mem", &["3"])];
    wait(|done| store.drop_dead_letters(vec![ids[0]], done)).unwrap();
    assert_eq!(counts(&store), [3, 1, 2, 0]);
    assert_eq!(files(&disk, "/store/dead").len(), 1);
    let again = open(&disk.snapshot());
    assert_eq!((again.dead_letters().len(), counts(&again)), (1, [3, 1, 2, 0]));
    assert!(store.read_dead_letter(ids[0]).is_err());
}

/// They have no bound of their own, but a database with too many takes no more; the others do.
#[test]
fn dead_letters_count_for_the_quota_of_their_database() {
    let disk = SimDisk::new(5);
    let options = Options { database_quota_bytes: Some(2 << 10), ..small_options("/store") };
    let (store, _) = Store::open_inline(options, disk.disk(), NOW).unwrap();
    let noise = |seed: u64| -> String {
        (0..60u64).map(|i| format!("{:016x}", (i + seed * 1000 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect()
    };
    let mut buried = Vec::new();
    let refusal = loop {
        let row = noise(buried.len() as u64);
        match store.commit_wait(request(vec![section("Cpu", &[row])])) {
            Err(refusal) => break refusal,
            Ok(_) => store.seal_all().unwrap(),
        }
        let info = store.sealed().remove(0);
        store.settle_wait(vec![settlement(&info, Outcome::DeadLettered)]).unwrap();
        buried.push(info.id);
        assert!(buried.len() < 50);
    };
    assert_eq!(refusal, Refusal::DatabaseOverQuota { database: "Db".into() });
    // Nothing that was acknowledged is refused or lost.
    assert_eq!((store.dead_letters().len(), buried.len() as u64), (buried.len(), counts(&store)[1]));
    wait(|done| store.drop_dead_letters(buried, done)).unwrap();
    store.commit_wait(request(vec![section("Cpu", &["1".into()])])).unwrap();
}

/// Of a directory of before dead letters were recorded, or whose journal is lost, and of one that somebody tidied.
#[test]
fn the_folder_is_compared_with_what_is_known() {
    let disk = SimDisk::new(6);
    let store = open(&disk);
    bury(&store, "Cpu", &["1", "2"]);
    store.close();
    // The journal is lost.
    for (path, _) in disk.files().into_iter().filter(|(path, _)| path.starts_with("/store/journal")) {
        disk.disk().remove(&path).unwrap();
    }
    let store = open(&disk);
    let letters = store.dead_letters();
    assert_eq!((letters.len(), letters[0].segment.rows, counts(&store)), (1, 2, [2, 2, 0, 0]));
    wait(|done| store.retry_dead_letters(vec![letters[0].segment.id], done)).unwrap();
    assert_eq!(sealed_rows(&store, "Cpu"), ["1", "2"]);
    bury(&store, "Mem", &["3"]);
    store.close();
    // Somebody removes a dead letter.
    let mem = disk.files().into_iter().map(|(path, _)| path).find(|path| path.to_string_lossy().contains("dead/Db_Mem")).unwrap();
    disk.disk().remove(&mem).unwrap();
    for _ in 0..2 {
        let store = open(&disk);
        assert_eq!((store.dead_letters().len(), counts(&store)), (0, [3, 0, 1, 2]));
        store.close();
    }
}
