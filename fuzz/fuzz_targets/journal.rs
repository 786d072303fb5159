//! Recovery of a store from a folder with any bytes as its journal: it opens, or says why not; it never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wal::disk::sim::SimDisk;
use wal::{Options, Store};

/// Bytes of a frame's head before its parts, and where its checksum is in them.
const FIXED: usize = 56;
const CRC_AT: usize = 52;

fuzz_target!(|bytes: &[u8]| {
    let folder = std::path::PathBuf::from("/store");
    let sim = SimDisk::new(1);
    let disk = sim.disk();
    let Ok(()) = disk.create_dir_all(&folder.join("journal")) else { return };
    let mut bytes = bytes.to_vec();
    make_checksums_right(&mut bytes);
    sim.put(&folder.join("journal/j-0000000000000001"), &bytes);
    if let Ok((store, _)) = Store::open(Options::new(&folder), disk, 1_700_000_000_000) {
        let _ = store.ledger();
        store.close();
    }
});

/// Frames, as far as their lengths go, get the right checksums and file: else nothing behind them would be read.
fn make_checksums_right(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(4).position(|window| window == b"ADXJ") {
        at += found;
        let number = |bytes: &[u8], at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
        let (Some(head), Some(parts)) = (number(bytes, at + 40), number(bytes, at + 48)) else { return };
        if head < FIXED || head > bytes.len() - at || parts > (head - FIXED) / 12 {
            at += 4;
            continue;
        }
        let mut body = at + head;
        for part in (0..parts).map(|part| at + FIXED + part * 12) {
            let stored = number(bytes, part + 4).unwrap_or(0) & 0x7fff_ffff;
            let crc = crc32(bytes.get(body..body.saturating_add(stored)).unwrap_or_default());
            bytes[part + 8..part + 12].copy_from_slice(&crc.to_le_bytes());
            body = body.saturating_add(stored);
        }
        bytes[at + 8..at + 16].copy_from_slice(&1u64.to_le_bytes());
        let covered = [&bytes[at..at + CRC_AT], &bytes[at + FIXED..at + head]].concat();
        bytes[at + CRC_AT..at + FIXED].copy_from_slice(&crc32(&covered).to_le_bytes());
        at += head;
    }
}

/// CRC-32 IEEE, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(!0u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc)))
}
