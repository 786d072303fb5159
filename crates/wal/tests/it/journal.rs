//! The journal as kustd uses it: frames of its own kinds, trimmed by the caller.

use std::path::Path;
use std::sync::Arc;

use wal::disk::sim::{Fault, SimDisk};
use wal::journal::{Journal, JournalOptions, JournalReport};
use wal::{Disk, Durability, OpenError, Refusal};

/// LSN, kind and body of frames.
type Frames = Vec<(u64, u8, Vec<u8>)>;

fn open(disk: Arc<dyn Disk>) -> Result<(Journal, Frames, JournalReport), OpenError> {
    let mut frames = Vec::new();
    let options = JournalOptions { dir: "/journal".into(), file_bytes: 32 << 10, durability: Durability::Disk };
    let (journal, report) = Journal::open(options, disk, &mut |frame| frames.push((frame.lsn, frame.kind, frame.body.to_vec())))?;
    Ok((journal, frames, report))
}

fn body(n: u64, len: usize) -> Vec<u8> {
    let mut x = n + 1;
    let mut next = || {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn frames_come_back_in_order_until_they_are_trimmed() {
    let disk = SimDisk::new(1);
    let (journal, frames, _) = open(disk.disk()).unwrap();
    assert!(frames.is_empty());
    for n in 0..40u64 {
        // Some frames are larger than a file, some are empty.
        let len = [0, 10, 5000, 150_000][n as usize % 4];
        assert_eq!(journal.append_wait(n as u8, body(n, len)).unwrap(), n + 1);
    }
    let before = journal.bytes();
    journal.close();
    let (journal, frames, report) = open(disk.disk()).unwrap();
    assert_eq!((frames.len(), report.next_lsn, report.torn_bytes), (40, 41, 0));
    for (n, frame) in frames.iter().enumerate() {
        let len = [0, 10, 5000, 150_000][n % 4];
        assert_eq!(*frame, (n as u64 + 1, n as u8, body(n as u64, len)));
    }
    journal.trim(31);
    assert_eq!(journal.append_wait(9, b"after".to_vec()).unwrap(), 41);
    assert!(journal.bytes() < before);
    journal.close();
    let (_, frames, report) = open(disk.disk()).unwrap();
    assert_eq!(report.damage, []);
    assert_eq!(frames.last().unwrap(), &(41, 9, b"after".to_vec()));
    assert!(frames[0].0 <= 31 && frames[0].0 > 1);
}

#[test]
fn many_kills_do_not_leave_a_whole_file_each() {
    let disk = SimDisk::new(2);
    for n in 0..30u64 {
        let (journal, frames, report) = open(disk.disk()).unwrap();
        assert_eq!((frames.len() as u64, report.torn_bytes, report.damage.len()), (n, 0, 0));
        journal.append_wait(7, body(n, 100)).unwrap();
        disk.kill();
        drop(journal);
        disk.restart();
    }
    // The file that was written last, its reserve, and what the frames of the others take.
    let bytes: u64 = disk.files().iter().map(|(_, bytes)| bytes.len() as u64).sum();
    assert!(bytes < 3 * (32 << 10), "{bytes} bytes");
}

#[test]
fn a_power_cut_keeps_what_was_acknowledged_and_nothing_in_part() {
    for operation in 5..60 {
        let disk = SimDisk::new(operation);
        let (journal, ..) = open(disk.disk()).unwrap();
        disk.fail_at(operation, Fault::Crash);
        let mut acknowledged = 0;
        for n in 0..40 {
            match journal.append_wait(1, body(n, 3000)) {
                Ok(lsn) => acknowledged = lsn,
                Err(_) => break,
            }
        }
        journal.close();
        disk.restart();
        let (_, frames, report) = open(disk.disk()).unwrap();
        assert!(report.damage.is_empty(), "{report:?}");
        assert!(frames.len() as u64 >= acknowledged, "{acknowledged} were acknowledged, {} are there", frames.len());
        for (i, (lsn, _, found)) in frames.iter().enumerate() {
            assert_eq!(*lsn, i as u64 + 1);
            assert_eq!(*found, body(i as u64, 3000));
        }
    }
}

#[test]
fn a_failed_sync_goes_to_another_file() {
    let disk = SimDisk::new(1);
    let (journal, ..) = open(disk.disk()).unwrap();
    journal.append_wait(1, body(0, 100)).unwrap();
    // The write, then the sync that fails.
    disk.fail_at(disk.operations() + 1, Fault::Error);
    assert_eq!(journal.append_wait(1, body(1, 100)), Ok(2));
    assert_eq!(journal.append_wait(1, body(2, 100)), Ok(3));
    journal.close();
    disk.restart();
    let (journal, frames, report) = open(disk.disk()).unwrap();
    assert_eq!(report.damage, []);
    assert_eq!(frames.iter().map(|(lsn, ..)| *lsn).collect::<Vec<_>>(), [1, 2, 3]);
    journal.close();
}

#[test]
fn a_damaged_frame_costs_itself() {
    let disk = SimDisk::new(1);
    let (journal, ..) = open(disk.disk()).unwrap();
    for n in 0..5 {
        journal.append_wait(1, body(n, 1000)).unwrap();
    }
    journal.close();
    let (path, bytes) = disk.files().into_iter().find(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)).unwrap();
    for at in (0..4000).step_by(61) {
        let copy = disk.snapshot();
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        copy.put(&path, &flipped);
        let (journal, frames, report) = open(copy.disk()).unwrap();
        assert_eq!(frames.len(), 4, "byte {at}");
        assert_eq!(report.damage.len(), 1, "byte {at}: {report:?}");
        let aside = copy.files().into_iter().filter(|(path, _)| path.starts_with("/journal/quarantine"));
        assert_eq!(aside.count(), 1, "byte {at}");
        assert_eq!(report.next_lsn, 6);
        journal.close();
    }
}

#[test]
fn a_newer_version_is_not_touched() {
    let disk = SimDisk::new(1);
    let (journal, ..) = open(disk.disk()).unwrap();
    journal.append_wait(1, b"x".to_vec()).unwrap();
    journal.close();
    let (path, mut bytes) = disk.files().into_iter().find(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)).unwrap();
    bytes[4] = 2;
    // The checksum of the head is over everything but itself, at 52.
    let head_len = u32::from_le_bytes(bytes[40..44].try_into().unwrap()) as usize;
    let mut crc = crc32(&[&bytes[..52], &bytes[56..head_len]].concat()).to_le_bytes();
    bytes[52..56].swap_with_slice(&mut crc);
    disk.put(&path, &bytes);
    assert!(matches!(open(disk.disk()), Err(OpenError::NewerVersion { version: 2, .. })));
    assert_eq!(disk.files().iter().find(|(name, _)| *name == path).unwrap().1, bytes);
}

/// CRC-32 IEEE, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(!0u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())))
}

#[test]
fn a_full_disk_refuses() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(100 << 10));
    let (journal, ..) = open(disk.disk()).unwrap();
    let refusal = (0..100).find_map(|n| journal.append_wait(1, body(n, 3000)).err());
    assert_eq!(refusal, Some(Refusal::DiskFull));
    assert!(disk.files().iter().all(|(path, _)| path.starts_with(Path::new("/journal"))));
    disk.set_capacity(None);
    journal.append_wait(1, body(1, 3000)).unwrap();
    journal.close();
}

/// Kustd's way: the sync of a group fails, in the file it goes to next too, and the process ends.
#[test]
fn frames_that_a_start_reads_after_a_failed_sync_and_a_kill_survive_a_power_cut() {
    let mut lost_without = 0;
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let (journal, ..) = open(disk.disk()).unwrap();
        journal.append_wait(1, body(0, 100)).unwrap();
        // The write, the sync that fails, the mark in four steps, the next file in four; the write, and its sync.
        disk.fail_at(disk.operations() + 1, Fault::Error);
        disk.fail_at(disk.operations() + 11, Fault::Error);
        assert_eq!(journal.append_wait(1, body(1, 3000)), Err(Refusal::Poisoned));
        disk.kill();
        drop(journal);

        let unmarked = disk.fork();
        unmarked.disk().remove(Path::new("/journal/suspect")).unwrap();
        let after = |disk: &SimDisk| {
            let (journal, read, _) = open(disk.disk()).unwrap();
            disk.kill();
            drop(journal);
            disk.restart();
            (read.len(), open(disk.disk()).unwrap().1.len())
        };
        assert_eq!(after(&disk), (2, 2), "seed {seed}");
        lost_without += usize::from(after(&unmarked) != (2, 2));
        assert!(disk.files().iter().all(|(path, _)| path != Path::new("/journal/suspect")), "nothing is suspect any more");
    }
    assert!(lost_without > 5, "the disk loses nothing, so that this shows nothing");
}
