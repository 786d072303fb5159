//! Looking at directories and files without touching them: what is said must be what recovery finds.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use wal::inspect::{self, Place, Snapshot, Verification};
use wal::{BatchRecord, BatchState, Options, Outcome, RealDisk, Request, Store, repair};

use crate::support::*;

fn vectors() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/wal"))
}

fn manifest() -> Value {
    serde_json::from_slice(&std::fs::read(vectors().join("manifest.json")).unwrap()).unwrap()
}

/// Every file below a directory with its content.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.insert(path.to_str().unwrap().to_owned(), std::fs::read(&path).unwrap());
        }
    }
    all
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for (path, bytes) in contents(from) {
        let target = to.path().join(Path::new(&path).strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(target, bytes).unwrap();
    }
    to
}

/// The second column of all rows that wait, in any place.
fn waiting_rows(snapshot: &Snapshot) -> Vec<String> {
    let mut text = Vec::new();
    for item in snapshot.items.iter().filter(|item| matches!(item.place, Place::Sealed | Place::Open)) {
        let add = &mut |value: &[u8]| {
            text.extend_from_slice(inspect::split_header(value, true).1);
            Ok(())
        };
        snapshot.read(&RealDisk, item, add).unwrap();
    }
    let add = &mut |_: &wal::TableKey, header: &[u8], rows: &[u8]| {
        assert_eq!(header, HEADER);
        text.extend_from_slice(rows);
        Ok(())
    };
    snapshot.read_journal_rows(&RealDisk, &|_| true, add).unwrap();
    let mut rows: Vec<String> = String::from_utf8(text).unwrap().lines().map(|line| line.strip_prefix("t,").unwrap().to_owned()).collect();
    rows.sort();
    rows
}

fn rows(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("{n:04}")).collect()
}

/// A store with rows in all places: sealed, settled, dead, open, in the journal alone.
fn busy(dir: &Path) -> Store {
    let (store, _) = Store::open(small_options(dir.to_str().unwrap()), RealDisk::new(), NOW).unwrap();
    store.commit_wait(request(vec![section("Cpu", &rows(0, 10)), section("Gone", &rows(900, 905))])).unwrap();
    store.commit_wait(request(vec![section("Dead", &rows(800, 803))])).unwrap();
    store.seal_all().unwrap();
    for info in store.sealed() {
        match &*info.table.table {
            "Gone" => drop(store.settle_wait(vec![settlement(&info, Outcome::Forwarded)]).unwrap()),
            "Dead" => drop(store.settle_wait(vec![settlement(&info, Outcome::DeadLettered)]).unwrap()),
            _ => {}
        }
    }
    // More than fits into memory: an open segment grows.
    for from in (10..700).step_by(30) {
        store.commit_wait(request(vec![section("Cpu", &rows(from, from + 30))])).unwrap();
    }
    store.commit_wait(request(vec![section("Mem", &rows(700, 710))])).unwrap();
    let marks = vec![(b"tail/a".to_vec(), b"100".to_vec())];
    store.commit_wait(Request { marks, ..Request::default() }).unwrap();
    store
}

#[test]
fn a_running_store_is_seen_as_it_is_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let store = busy(dir.path());
    let info = store.sealed().remove(0);
    let batch = BatchRecord { id: [1; 16], state: BatchState::Queued, segments: vec![info.id], detail: b"blob".to_vec() };
    let (done, answer) = std::sync::mpsc::channel();
    store.record_batch(batch.clone(), Box::new(move |result| done.send(result).unwrap()));
    answer.recv().unwrap().unwrap();

    let before = contents(dir.path());
    let snapshot = Snapshot::of(&RealDisk, dir.path()).unwrap();
    let checked = Verification::of_directory(&RealDisk, dir.path()).unwrap();
    assert_eq!(contents(dir.path()), before);
    assert!(checked.findings.is_empty() && checked.frames > 5, "{checked:?}");

    let facts = snapshot.journal.as_ref().unwrap();
    assert_eq!(facts.ledger, store.ledger());
    assert_eq!(facts.sender, store.sender_id());
    assert_eq!(facts.batches, store.batches());
    assert_eq!(facts.marks[&b"tail/a"[..]], b"100");
    assert_eq!(facts.numbers["Db"].1, store.floor("Db"));
    let sealed: Vec<_> = snapshot.items.iter().filter(|item| item.place == Place::Sealed).collect();
    let said: BTreeMap<_, _> = sealed.iter().map(|item| (item.id.unwrap(), (item.rows, item.bytes, item.file_name.clone()))).collect();
    let known = store.sealed().into_iter().map(|info| (info.id, (Some(info.rows), info.bytes, info.file_name))).collect();
    assert_eq!(said, known);
    let of = |table: &str, place: Place| {
        let here = snapshot.items.iter().filter(|item| item.table.as_ref() == Some(&key(table)) && item.place == place);
        here.map(|item| item.rows.unwrap()).sum::<u64>()
    };
    assert_eq!((of("Mem", Place::Journal), of("Dead", Place::Dead), of("Gone", Place::Sealed)), (10, 3, 0));
    let cpu: u64 = [Place::Sealed, Place::Open, Place::Journal].into_iter().map(|place| of("Cpu", place)).sum();
    assert_eq!(cpu, 700);
    assert_eq!(waiting_rows(&snapshot), rows(0, 710));
    store.close();
    // A directory that was closed has all in segments, and the same rows.
    let closed = Snapshot::of(&RealDisk, dir.path()).unwrap();
    assert_eq!(waiting_rows(&closed), rows(0, 710));
    assert!(closed.items.iter().any(|item| item.place == Place::Open));
}

#[test]
fn what_a_kill_leaves_is_what_recovery_finds() {
    let dir = tempfile::tempdir().unwrap();
    let store = busy(dir.path());
    let killed = copy(dir.path());
    store.close();
    // The end of the journal is torn, and a segment that was sealed since the checkpoint is lost.
    let sealed = Snapshot::of(&RealDisk, killed.path()).unwrap();
    let lost = sealed.items.iter().find(|item| item.place == Place::Sealed).unwrap();
    std::fs::remove_file(&lost.path).unwrap();
    let snapshot = Snapshot::of(&RealDisk, killed.path()).unwrap();
    assert_eq!(waiting_rows(&snapshot), rows(0, 710));
    let again = snapshot.items.iter().find(|item| item.id == lost.id).unwrap();
    assert_eq!(again.rebuilt_from, Some(0));
    let checked = Verification::of_directory(&RealDisk, killed.path()).unwrap();
    assert_eq!((checked.rebuilt, checked.findings.len()), (1, 0), "{checked:?}");

    let options = small_options(killed.path().to_str().unwrap());
    let (store, report) = Store::open(options, RealDisk::new(), NOW).unwrap();
    assert_eq!(report.rebuilt, 1);
    assert_eq!(&store.ledger(), &snapshot.journal.as_ref().unwrap().ledger);
    store.close();
}

#[test]
fn damage_is_named_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = busy(dir.path());
    store.seal_all().unwrap();
    store.close();
    let snapshot = Snapshot::of(&RealDisk, dir.path()).unwrap();
    let item = snapshot.items.iter().filter(|item| item.place == Place::Sealed).max_by_key(|item| item.bytes).unwrap();
    let image = std::fs::read(&item.path).unwrap();
    let blocks: Vec<_> = wal::segment::blocks(&image).map(|block| block.unwrap().range()).collect();
    assert!(blocks.len() > 1);
    let mut damaged = image.clone();
    damaged[blocks[1].start + 20] ^= 1;
    std::fs::write(&item.path, &damaged).unwrap();
    let checked = Verification::of_directory(&RealDisk, dir.path()).unwrap();
    let [finding] = &checked.findings[..] else { panic!("{checked:?}") };
    assert_eq!((&finding.path, finding.offset, finding.bytes), (&item.path, blocks[1].start as u64, blocks[1].len() as u64));
    assert_eq!(finding.kind, "block checksum verification failed");
    let readable = wal::segment::verify(&damaged, true).rows;
    assert_eq!(finding.rows, Some(item.rows.unwrap() - readable));
    assert!(readable < item.rows.unwrap());

    std::fs::write(&item.path, &image[..blocks[1].start]).unwrap();
    let checked = Verification::of_directory(&RealDisk, dir.path()).unwrap();
    assert_eq!(checked.findings[0].kind, "the file is shorter than its record");
    std::fs::remove_file(&item.path).unwrap();
    let checked = Verification::of_directory(&RealDisk, dir.path()).unwrap();
    assert_eq!((checked.findings[0].kind.as_str(), checked.findings[0].rows), ("the file is missing", item.rows));
}

#[test]
fn damage_in_the_journal_is_named_and_its_torn_end_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = busy(dir.path());
    let killed = copy(dir.path());
    store.close();
    let journal = std::fs::read_dir(killed.path().join("journal")).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    let image = std::fs::read(&journal).unwrap();
    let frames: Vec<usize> = (0..image.len() - 4).filter(|at| image[*at..].starts_with(b"ADXJ")).collect();
    // A byte of a head in the middle: behind it are frames that know that it was durable.
    let mut damaged = image.clone();
    damaged[frames[2] + 60] ^= 1;
    std::fs::write(&journal, &damaged).unwrap();
    let checked = Verification::of_directory(&RealDisk, killed.path()).unwrap();
    let finding = &checked.findings[0];
    assert_eq!((&finding.path, finding.offset, finding.bytes), (&journal, frames[2] as u64, (frames[3] - frames[2]) as u64));
    // A byte behind the last frame was never acknowledged.
    let files = std::fs::read_dir(killed.path().join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let newest = files.filter(|path| std::fs::read(path).unwrap().starts_with(b"ADXJ")).max().unwrap();
    std::fs::write(&journal, &image).unwrap();
    let mut torn = std::fs::read(&newest).unwrap();
    let end = torn.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    torn.truncate(end);
    torn.extend_from_slice(b"ADXJ half a frame");
    std::fs::write(&newest, &torn).unwrap();
    let checked = Verification::of_directory(&RealDisk, killed.path()).unwrap();
    assert_eq!(checked.findings, []);
    assert!(checked.torn_bytes > 0);
}

#[test]
fn files_of_the_reference_are_read_as_it_reads_them() {
    // The reference takes these for whole: it stops where nothing more can be read.
    const TAILS: [&str; 2] = ["trailing_zeros.wal", "trailing_partial_header.wal"];
    for file in manifest()["files"].as_array().unwrap() {
        let name = file["file"].as_str().unwrap();
        let path = vectors().join(name);
        let checked = Verification::of_file(&RealDisk, &path).unwrap();
        let intact = file["verify"]["error"].is_null() && file["is_segment"] == true;
        let readable = file["blocks"].as_array().is_none_or(|blocks| blocks.iter().all(|block| block["decode_error"].is_null()));
        assert_eq!(checked.findings.is_empty(), intact && readable && !TAILS.contains(&name), "{name}: {checked:?}");
        if let Some(blocks) = file["verify"]["blocks"].as_u64().filter(|_| intact && readable) {
            assert_eq!(checked.blocks as u64, blocks, "{name}");
        }
        let (item, _) = inspect::file(&RealDisk, &path).unwrap();
        let mut text = Vec::new();
        let add = &mut |value: &[u8]| {
            text.extend_from_slice(value);
            Ok(())
        };
        inspect::read_item(&RealDisk, &item, add).unwrap();
        if let Some(expected) = file["reader_full"].as_str() {
            assert!(text.starts_with(expected.as_bytes()), "{name}");
        }
        assert_eq!(text, wal::segment::values(&std::fs::read(&path).unwrap(), false), "{name}");
    }
}

#[test]
fn a_directory_of_the_reference_needs_no_journal() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["Logs_AppLogs_3la1vyef1yww1_2f5d0c3e517e4001.wal", "Metrics_HttpRequestsTotal_2cawzsrvl4mw4_2f5d0c3e517e4000.wal"];
    for name in names {
        std::fs::copy(vectors().join(name), dir.path().join(name)).unwrap();
    }
    std::fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    let snapshot = Snapshot::of(&RealDisk, dir.path()).unwrap();
    assert!(snapshot.journal.is_none());
    assert_eq!(snapshot.foreign, ["notes.txt"]);
    let said: Vec<_> = snapshot.items.iter().map(|item| (item.file_name.as_str(), item.rows, item.place)).collect();
    assert_eq!(said, [(names[0], Some(2), Place::File), (names[1], Some(5), Place::File)]);
    assert_eq!(contents(dir.path()).len(), 3);
}

#[test]
fn a_damaged_file_is_mended_and_its_bad_bytes_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let image = std::fs::read(vectors().join("crc_mismatch_middle.wal")).unwrap();
    let path = dir.path().join("Metrics_Http_x_2f5d0c3e517e4000.wal");
    std::fs::write(&path, &image).unwrap();
    let before = wal::segment::verify(&image, true);
    let repaired = repair::file(&RealDisk, &path).unwrap();
    let mended = std::fs::read(&path).unwrap();
    let after = wal::segment::verify(&mended, true);
    assert!(after.is_intact());
    assert_eq!((after.rows, after.blocks, after.digest), (before.rows, before.blocks, before.digest));
    let bad = before.damaged[0].0.clone();
    assert_eq!(std::fs::read(&repaired.aside[0]).unwrap(), image[bad]);
    // Once is enough.
    assert!(repair::file(&RealDisk, &path).unwrap().aside.is_empty());
    assert_eq!(std::fs::read(&path).unwrap(), mended);

    let foreign = dir.path().join("bad_magic.wal");
    std::fs::copy(vectors().join("bad_magic.wal"), &foreign).unwrap();
    assert!(repair::file(&RealDisk, &foreign).unwrap_err().to_string().contains("begin as a segment"));
    let store_dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options::new(store_dir.path()), RealDisk::new(), NOW).unwrap().0;
    let inside = store_dir.path().join("Db_T_x_1.wal");
    std::fs::write(&inside, &image).unwrap();
    assert!(repair::file(&RealDisk, &inside).unwrap_err().to_string().contains("repair the directory"));
    assert_eq!(std::fs::read(&inside).unwrap(), image);
    store.close();
}
