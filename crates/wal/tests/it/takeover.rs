//! A storage directory of the reference is taken over in place.

use wal::segment::{BlockMeta, HEADER, Scratch, encode_block};
use wal::{Options, Outcome, RealDisk, Store};

use crate::support::*;

fn image(values: &[&str]) -> Vec<u8> {
    let mut image = HEADER.to_vec();
    // The reference's metric writer leaves type and count 0.
    for value in values {
        encode_block(&mut image, BlockMeta::default(), value.as_bytes(), &mut Scratch::default());
    }
    image
}

#[test]
fn segments_of_the_reference_are_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    let whole = image(&["h:string\nt,1\nt,\"2\n2\"\n", "h:string\nt,3\n"]);
    put("Db_Cpu_abc123_2946d24b3c650001.wal", &whole);
    let mut torn = image(&["h:string\nt,4\n", "h:string\nt,5\n"]);
    torn.truncate(torn.len() - 2);
    put("Db_Mem_abc123_2946d24b3c650002.wal", &torn);
    put("Db_Headless_2946d24b3c650003.wal", &image(&["t,6\nt,7\n"]));
    put("Db_Empty_abc123_2946d24b3c650004.wal", &HEADER);
    put("unparsable.wal", &HEADER);
    put("Db_Foreign_abc123_2946d24b3c650005.wal", b"not a segment");
    put("notes.txt", b"keep me");
    put("old.tmp", b"leftover");

    let (store, report) = Store::open(Options::new(dir.path()), RealDisk::new(), NOW).unwrap();
    assert_eq!(report.adopted.len(), 4, "{report:?}");
    assert_eq!(report.foreign, ["Db_Foreign_abc123_2946d24b3c650005.wal", "notes.txt", "unparsable.wal"]);
    assert_eq!(report.damage.len(), 1);
    let ledger = store.ledger();
    ledger.check().unwrap();
    let on_disk = |table: &str| ledger.tables.iter().find(|(key, _)| &*key.table == table).unwrap().1.on_disk;
    assert_eq!((on_disk("Cpu"), on_disk("Mem"), on_disk("Headless"), on_disk("Empty")), (3, 1, 2, 0));
    let cpu = store.sealed().into_iter().find(|info| &*info.table.table == "Cpu").unwrap();
    assert_eq!(cpu.file_name, "Db_Cpu_abc123_2946d24b3c650001.wal");
    assert_eq!(cpu.created_ms, 1_743_098_092_152); // 2025-03-27T17:54:52.152Z
    assert_eq!(store.read_segment(cpu.id).unwrap(), whole);
    let aside: Vec<_> = std::fs::read_dir(dir.path().join("quarantine")).unwrap().collect();
    assert_eq!(aside.len(), 1);
    assert!(!dir.path().join("old.tmp").exists());
    assert!(dir.path().join("notes.txt").exists());
    assert!(!dir.path().join("Db_Mem_abc123_2946d24b3c650002.wal").exists());
    assert!(!dir.path().join("Db_Empty_abc123_2946d24b3c650004.wal").exists());
    store.close();

    // Once only, and they leave like any other segment.
    let (store, report) = Store::open(Options::new(dir.path()), RealDisk::new(), NOW).unwrap();
    assert!(report.adopted.is_empty() && report.damage.is_empty(), "{report:?}");
    assert_eq!(store.ledger(), ledger);
    let items = store.sealed().iter().map(|info| settlement(info, Outcome::Forwarded)).collect();
    store.settle_wait(items).unwrap();
    assert_eq!(store.ledger().total().forwarded, 6);
    store.close();
    assert!(!dir.path().join("Db_Cpu_abc123_2946d24b3c650001.wal").exists());
}

#[test]
fn a_reference_on_any_host_is_taken_over() {
    let disk = wal::disk::sim::SimDisk::new(3);
    disk.disk().create_dir_all(std::path::Path::new("/store")).unwrap();
    // Ids carry ten bits of the host; one of these is what our own ids carry.
    for host in 0..1024u64 {
        let id = 0x2946_d24b_3c00_0000 | host << 13;
        let path = format!("/store/Db_Cpu_abc123_{id:x}.wal");
        disk.put(std::path::Path::new(&path), &image(&[&format!("h:string\nt,{host}\n")]));
    }
    let (store, report) = Store::open(small_options("/store"), disk.disk(), NOW).unwrap();
    assert_eq!((report.adopted.len(), report.foreign.len()), (1024, 0));
    assert_eq!(store.ledger().total().on_disk, 1024);
    store.close();
}

#[test]
fn a_crash_at_any_moment_of_a_takeover_loses_nothing() {
    let torn = {
        let mut torn = image(&["h:string\nt,1\n", "h:string\nt,2\n"]);
        torn.truncate(torn.len() - 1);
        torn
    };
    for durability in [wal::Durability::Disk, wal::Durability::Process] {
        for (operation, seed) in (0..100).flat_map(|operation| (0..8).map(move |seed| (operation, seed))) {
            let disk = wal::disk::sim::SimDisk::new(operation * 8 + seed);
            disk.disk().create_dir_all(std::path::Path::new("/store")).unwrap();
            // One is taken over in place, one is written anew without its damaged end.
            disk.put(std::path::Path::new("/store/Db_Cpu_abc123_2946d24b3c650001.wal"), &image(&["h:string\nt,0\n"]));
            disk.put(std::path::Path::new("/store/Db_Mem_abc123_2946d24b3c650002.wal"), &torn);
            disk.fail_at(operation, wal::disk::sim::Fault::Crash);
            let options = Options { durability, ..small_options("/store") };
            let crashed = Store::open_inline(options.clone(), disk.disk(), NOW).is_err();
            disk.crash();
            disk.restart();
            let (store, _) = Store::open_inline(options, disk.disk(), NOW).unwrap();
            store.seal_all().unwrap();
            assert_eq!(
                (sealed_rows(&store, "Cpu"), sealed_rows(&store, "Mem")),
                (vec!["0".to_owned()], vec!["1".to_owned()]),
                "{operation}"
            );
            store.ledger().check().unwrap();
            if !crashed {
                assert!(operation > 20, "{operation}");
                break;
            }
        }
    }
}
