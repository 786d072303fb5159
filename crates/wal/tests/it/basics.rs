//! The way of a row: committed, sealed, read, settled, and what a restart finds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wal::disk::sim::SimDisk;
use wal::{BatchRecord, BatchState, Filtered, Known, Options, Outcome, RealDisk, Receipt, Refusal, Request, Section, SectionBody, Store};

use crate::support::*;

fn open(dir: &std::path::Path) -> (Store, wal::OpenReport) {
    Store::open(Options::new(dir), RealDisk::new(), NOW).unwrap()
}

#[test]
fn rows_go_through_a_segment_and_out() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let woken = Arc::new(AtomicUsize::new(0));
    store.on_sealed(Arc::new({
        let woken = woken.clone();
        move || {
            woken.fetch_add(1, Ordering::SeqCst);
        }
    }));
    store.commit_wait(request(vec![section("Cpu", &["1".into(), "2".into()]), section("Mem", &["3".into()])])).unwrap();
    assert!(store.sealed().is_empty());
    assert_eq!(store.ledger().tables[&key("Cpu")].on_disk, 2);

    store.seal_all().unwrap();
    assert!(woken.load(Ordering::SeqCst) > 0);
    assert_eq!(sealed_rows(&store, "Cpu"), ["1", "2"]);
    assert_eq!(sealed_rows(&store, "Mem"), ["3"]);
    let sealed = store.sealed();
    assert_eq!(sealed.iter().map(|info| info.number).collect::<std::collections::BTreeSet<_>>(), [1, 2].into());
    assert_eq!(store.floor("Db"), 1);
    let parsed = wal::segment::FileName::parse(&sealed[0].file_name).unwrap();
    assert_eq!((parsed.database.as_str(), parsed.schema.as_deref()), ("Db", Some("abc123")));
    assert!(sealed.iter().all(|info| info.path.exists()));

    let items = sealed.iter().map(|info| settlement(info, Outcome::Forwarded)).collect();
    store.settle_wait(items).unwrap();
    assert!(store.sealed().is_empty());
    assert_eq!(store.floor("Db"), 3);
    let ledger = store.ledger();
    ledger.check().unwrap();
    assert_eq!((ledger.total().forwarded, ledger.total().on_disk), (3, 0));
    store.close();
    assert!(sealed.iter().all(|info| !info.path.exists()));
}

#[test]
fn a_restart_finds_everything() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let sender = store.sender_id();
    let receipt = |number, digest, floor| Receipt { sender: [7; 16], database: "Db".into(), number, digest, floor };
    let full = Request {
        sections: vec![section("Cpu", &["1".into()])],
        filtered: vec![Filtered { database: "Db".into(), reason: "dropped by rule", rows: 5 }],
        receipts: vec![receipt(10, 77, 9)],
        marks: vec![(b"tail/a".to_vec(), b"100".to_vec()), (b"tail/b".to_vec(), b"5".to_vec())],
        ..Request::default()
    };
    store.commit_wait(full.clone()).unwrap();
    let marks = vec![(b"tail/b".to_vec(), Vec::new())];
    store.commit_wait(Request { marks, ..Request::default() }).unwrap();
    // The same numbers again: acknowledged, not stored.
    store.commit_wait(full).unwrap();
    store.seal_all().unwrap();
    let info = store.sealed().remove(0);
    let batch = BatchRecord { id: [1; 16], state: BatchState::Queued, segments: vec![info.id], detail: b"blob".to_vec() };
    let (done, answer) = std::sync::mpsc::channel();
    store.record_batch(batch.clone(), Box::new(move |result| done.send(result).unwrap()));
    answer.recv().unwrap().unwrap();
    store.commit_wait(request(vec![section("Cpu", &["2".into()])])).unwrap();
    let before = store.ledger();
    store.close();

    let (store, report) = open(dir.path());
    assert!(report.damage.is_empty() && !report.ledger_reset && report.foreign.is_empty(), "{report:?}");
    assert_eq!(store.sender_id(), sender);
    assert_eq!(store.ledger(), before);
    assert_eq!(before.filtered.values().sum::<u64>(), 5);
    assert_eq!(store.mark(b"tail/a"), Some(b"100".to_vec()));
    assert_eq!(store.marks_with_prefix(b"tail/").len(), 1);
    assert_eq!(store.batches(), [batch]);
    assert_eq!(store.known(&[7; 16], "Db", 10, 77), Known::Same);
    assert_eq!(store.known(&[7; 16], "Db", 10, 78), Known::Different);
    assert_eq!(store.known(&[7; 16], "Db", 8, 1), Known::Different);
    assert_eq!(store.known(&[7; 16], "Db", 11, 1), Known::Unknown);
    assert_eq!(store.known(&[8; 16], "Db", 10, 77), Known::Unknown);
    store.seal_all().unwrap();
    assert_eq!(sealed_rows(&store, "Cpu"), ["1", "2"]);
    let items = vec![settlement(&info, Outcome::DeadLettered)];
    store.settle_wait(items).unwrap();
    assert!(store.batches().is_empty());
    assert_eq!(store.ledger().total().dead_lettered, 1);
    store.close();
    assert!(dir.path().join("dead").join(&info.file_name).exists());
}

/// The clock was an hour ahead before a restart: what was stored then is not held back for an hour.
#[test]
fn rows_of_the_future_are_of_age() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { segment_max_bytes: 1 << 20, ..small_options(dir.path().to_str().unwrap()) };
    let open = || Store::open(options(), RealDisk::new(), NOW).unwrap().0;
    let store = open();
    store.tick(NOW + 3_600_000);
    // More than stays in memory, so that the segment has begun on disk.
    let rows: Vec<String> = (0..100).map(|n| format!("{n}{}", "x".repeat(1000))).collect();
    store.commit_wait(request(vec![section("Old", &rows)])).unwrap();
    store.close();
    let store = open();
    let (woke, wake) = std::sync::mpsc::channel();
    store.on_sealed(Arc::new(move || woke.send(()).unwrap()));
    store.tick(NOW + 30_000);
    wake.recv_timeout(std::time::Duration::from_secs(30)).expect("it is sealed");
    assert_eq!(sealed_rows(&store, "Old").len(), 100);
}

#[test]
fn while_many_wait_nothing_of_their_database_is_sealed_for_its_age() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { sealed_by_age_below: 2, ..Options::new(dir.path()) };
    let (store, _) = Store::open_inline(options, RealDisk::new(), NOW).unwrap();
    let tables = || store.sealed().iter().map(|info| info.table.table.to_string()).collect::<std::collections::BTreeSet<_>>();
    for (table, at) in [("A", 0), ("B", 10_000), ("C", 20_000)] {
        store.tick(NOW + at);
        store.commit_wait(request(vec![section(table, &["1".into()])])).unwrap();
    }
    store.tick(NOW + 30_000);
    assert_eq!(tables(), ["A".to_owned()].into());
    store.tick(NOW + 50_000);
    let sealed = tables();
    // A tick finds what is of age at once.
    assert_eq!(sealed, ["A", "B", "C"].map(str::to_owned).into());
    store.commit_wait(request(vec![section("D", &["1".into()])])).unwrap();
    let other = Section { table: wal::TableKey::new("Other", "E", "abc123"), ..section("E", &["1".into()]) };
    store.commit_wait(request(vec![other])).unwrap();
    store.tick(NOW + 100_000);
    assert_eq!(tables(), ["A", "B", "C", "E"].map(str::to_owned).into(), "the other database goes on");

    // As they leave it is D's turn, with what came meanwhile.
    store.commit_wait(request(vec![section("D", &["2".into()])])).unwrap();
    let left = store
        .sealed()
        .iter()
        .filter(|info| &*info.table.database == "Db")
        .take(2)
        .map(|info| settlement(info, Outcome::Forwarded))
        .collect();
    store.settle_wait(left).unwrap();
    store.tick(NOW + 101_000);
    assert_eq!(sealed_rows(&store, "D"), ["1", "2"]);
}

#[test]
fn sealed_segments_are_found_by_number_and_those_after_one() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    for round in 0..3 {
        store.commit_wait(request(vec![section("Cpu", &[round.to_string()])])).unwrap();
        store.seal_all().unwrap();
    }
    let numbers = |last: u64| {
        store.sealed_after(|database| if database == "Db" { last } else { 0 }).iter().map(|info| info.number).collect::<Vec<_>>()
    };
    assert_eq!((numbers(0), numbers(1), numbers(3), numbers(u64::MAX)), (vec![1, 2, 3], vec![2, 3], vec![], vec![]));
    let second = store.sealed_segment("Db", 2).unwrap();
    assert_eq!(store.sealed()[1], second);
    assert_eq!((store.sealed_segment("Db", 4), store.sealed_segment("Other", 2)), (None, None));
    store.settle_wait(vec![settlement(&second, Outcome::DeadLettered)]).unwrap();
    assert_eq!((store.sealed_segment("Db", 2), numbers(1), store.waiting_segments()), (None, vec![3], 2));
    // A dead letter that goes again has a new number.
    let (done, durable) = std::sync::mpsc::channel();
    store.retry_dead_letters(vec![second.id], Box::new(move |result| done.send(result.is_ok()).unwrap()));
    assert!(durable.recv().unwrap());
    assert_eq!((numbers(3), store.sealed_segment("Db", 4).unwrap().id), (vec![4], second.id));
}

#[test]
fn age_and_size_seal() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.commit_wait(request(vec![section("Old", &["1".into()])])).unwrap();
    store.tick(NOW + 29_999);
    store.commit_wait(Request::default()).unwrap();
    assert!(store.sealed().is_empty());
    let (woke, wake) = std::sync::mpsc::channel();
    store.on_sealed(Arc::new(move || woke.send(()).unwrap()));
    store.tick(NOW + 30_000);
    wake.recv().unwrap();
    assert_eq!(sealed_rows(&store, "Old"), ["1"]);

    // Incompressible rows fill a segment of 1 MiB.
    let mut x = 1u64;
    let mut row = |_| {
        let mut text = String::new();
        while text.len() < 4000 {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            text.push_str(&format!("{x:x}"));
        }
        text
    };
    let rows: Vec<String> = (0..1000).map(&mut row).collect();
    store.commit_wait(request(vec![section("Big", &rows)])).unwrap();
    wake.recv().unwrap();
    assert_eq!(sealed_rows(&store, "Big"), rows);
    store.close();
}

#[test]
fn blocks_are_kept_as_they_came() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let mut blocks = Vec::new();
    let meta = wal::segment::BlockMeta { sample_type: 3, rows: 2 };
    wal::segment::encode_block(&mut blocks, meta, b"h:string\nt,1\nt,2\n", &mut wal::segment::Scratch::default());
    let mut with_blocks = section("Cpu", &["x".into(), "y".into()]);
    with_blocks.body = SectionBody::Blocks(blocks.clone());
    store.commit_wait(request(vec![with_blocks.clone()])).unwrap();
    store.seal_all().unwrap();
    let info = store.sealed().remove(0);
    let image = store.read_segment(info.id).unwrap();
    assert_eq!(image, [&wal::segment::HEADER[..], &blocks].concat());

    // A transfer of its own, with the same blocks.
    let mut adoption = store.adopt(key("Large")).unwrap();
    adoption.write_blocks(&blocks, 2).unwrap();
    adoption.write_blocks(&blocks, 2).unwrap();
    let (done, answer) = std::sync::mpsc::channel();
    adoption.finish(Vec::new(), Vec::new(), Box::new(move |result| done.send(result).unwrap()));
    answer.recv().unwrap().unwrap();
    assert_eq!(sealed_rows(&store, "Large"), ["1", "2", "1", "2"]);
    drop(store.adopt(key("Abandoned")).unwrap());
    store.ledger().check().unwrap();

    with_blocks.body = SectionBody::Blocks(b"not a block".to_vec());
    assert!(matches!(store.commit_wait(request(vec![with_blocks])), Err(Refusal::Invalid(_))));
    store.close();
}

/// The rows of `small` and `other` take turns in the buffer, and so do those of `large`, which are more than go into a frame
/// as they are.
#[test]
fn rows_in_pieces_are_those_of_their_tables() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let (mut rows, mut places) = (wal::Pieces::default(), [Vec::new(), Vec::new(), Vec::new()]);
    for number in 0..2000 {
        for (table, pad) in [(0, 0), (1, 3), (2, 20)] {
            if number < 10 || table == 2 {
                let start = rows.bytes.len() as u32;
                rows.bytes.extend_from_slice(format!("t,{number}{}\n", "x".repeat(pad)).as_bytes());
                places[table].push(start..rows.bytes.len() as u32);
            }
        }
    }
    assert!(places[2].iter().map(ExactSizeIterator::len).sum::<usize>() > 40_000);
    let sections = ["small", "other", "large"].into_iter().zip(&places).map(|(table, own)| {
        let first = rows.places.len();
        rows.places.extend_from_slice(own);
        Section { rows: own.len() as u32, body: SectionBody::Pieces(first..rows.places.len()), ..section(table, &[]) }
    });
    let sections: Vec<Section> = sections.collect();
    store.commit_wait(Request { sections, rows: rows.clone(), ..Request::default() }).unwrap();
    store.seal_all().unwrap();
    let expected = |rows: usize, pad: usize| (0..rows).map(|n| format!("{n}{}", "x".repeat(pad))).collect::<Vec<_>>();
    assert_eq!(sealed_rows(&store, "small"), expected(10, 0));
    assert_eq!(sealed_rows(&store, "other"), expected(10, 3));
    assert_eq!(sealed_rows(&store, "large"), expected(2000, 20));
    store.ledger().check().unwrap();

    // Of places that are not there, nothing is kept.
    let end = rows.bytes.len() as u32;
    for (places, wanted) in [(&[(0, 5)][..], 2), (&[(0, 5), (end - 1, end + 1)], 2), (&[(5, 1)], 1)] {
        let section = Section { rows: 1, body: SectionBody::Pieces(0..wanted), ..section("small", &[]) };
        let places = places.iter().map(|(start, end)| *start..*end).collect();
        let rows = wal::Pieces { places, ..rows.clone() };
        let refused = store.commit_wait(Request { sections: vec![section], rows, ..Request::default() });
        assert!(matches!(&refused, Err(Refusal::Invalid(text)) if text.contains("small")), "{refused:?}");
    }
    store.close();
}

#[test]
fn names_that_leave_the_folder_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    for table in ["", "a_b", "../x", "a/b", "a\0b"] {
        assert!(matches!(store.commit_wait(request(vec![section(table, &["1".into()])])), Err(Refusal::Invalid(_))));
    }
    // A name that is longer than file systems allow still works.
    let long = "x".repeat(1000);
    store.commit_wait(request(vec![section(&long, &["1".into()])])).unwrap();
    store.seal_all().unwrap();
    assert_eq!(sealed_rows(&store, &long), ["1"]);
    store.close();
    let (store, report) = open(dir.path());
    assert_eq!(sealed_rows(&store, &long), ["1"]);
    assert!(report.foreign.is_empty(), "{report:?}");
}

#[test]
fn a_directory_is_opened_once() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, _) = open(dir.path());
    assert!(matches!(Store::open(Options::new(dir.path()), RealDisk::new(), NOW), Err(wal::OpenError::Locked { .. })));
}

#[test]
fn rows_in_memory_stay_within_their_bounds() {
    let disk = SimDisk::new(1);
    let options = Options { memtable_bytes: 64 << 10, block_bytes: 16 << 10, ..Options::new("/d") };
    let most = options.memtable_bytes as u64;
    let (store, _) = Store::open_inline(options, disk.disk(), NOW).unwrap();
    let mut largest = 0;
    for number in 0..3000usize {
        // A table that gets most of the rows, many that get a few, and requests of one little section.
        let rows = |table: String, n: usize| section(&table, &(0..n).map(|i| format!("{number}-{i}")).collect::<Vec<_>>());
        let sections = match number % 3 {
            0 => vec![rows("One".into(), 1)],
            1 => (0..20).map(|i| rows(format!("T{}", (number + i * 7) % 400), 1 + i % 3)).collect(),
            _ => [rows("Hot".into(), 300)].into_iter().chain((0..5).map(|i| rows(format!("T{}", (number * i) % 400), 2))).collect(),
        };
        store.commit_wait(request(sections)).unwrap();
        largest = largest.max(store.usage().memtable_bytes);
    }
    assert!(largest > most / 2 && largest <= most, "{largest} of {most}");
}

/// Two batches with the same segment would each send it.
#[test]
fn a_segment_belongs_to_the_batch_that_was_recorded_last() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    for row in ["1", "2", "3"] {
        store.commit_wait(request(vec![section("Cpu", &[row.into()])])).unwrap();
        store.seal_all().unwrap();
    }
    let ids: Vec<_> = store.sealed().iter().map(|info| info.id).collect();
    let record = |id: u8, segments: &[wal::SegmentId]| {
        let batch = BatchRecord { id: [id; 16], state: BatchState::Batched, segments: segments.to_vec(), detail: vec![id] };
        let (done, answer) = std::sync::mpsc::channel();
        store.record_batch(batch, Box::new(move |result| done.send(result).unwrap()));
        answer.recv().unwrap().unwrap();
    };
    let members = |store: &wal::Store| store.batches().into_iter().map(|batch| (batch.id[0], batch.segments)).collect::<Vec<_>>();
    record(1, &ids);
    record(2, &ids[..1]);
    assert_eq!(members(&store), [(1, ids[1..].to_vec()), (2, ids[..1].to_vec())]);
    record(3, &ids[1..]);
    let expected = [(2, ids[..1].to_vec()), (3, ids[1..].to_vec())];
    assert_eq!(members(&store), expected);
    store.close();
    assert_eq!(members(&open(dir.path()).0), expected);
}
