//! What the store reads back from disk: segments and the journal.

use std::path::Path;

use wal::disk::sim::SimDisk;
use wal::{Options, Store, segment};

/// Folders of the simulated store, and the journal file that holds the bytes.
const STORE: &str = "/store";
const JOURNAL: &str = "/store/journal";
/// A new store begins with file 2; frames name their file, so bytes of another file would all be refused.
pub(crate) const JOURNAL_FILE: &str = "/store/journal/j-0000000000000002";
pub(crate) const NOW_MS: u64 = 1_700_000_000_000;

/// The reader of ADXWAL segments: what it calls good decodes, what it calls bad lies inside the image.
pub(crate) fn segment(bytes: &[u8]) {
    for headed in [true, false] {
        let verified = segment::verify(bytes, headed);
        assert!(verified.good_bytes() <= bytes.len());
        let _ = segment::values(bytes, headed);
    }
    let mut value = Vec::new();
    for block in segment::blocks(bytes).flatten() {
        value.clear();
        let _ = block.decode(&mut value);
    }
}

/// Recovery of a store whose journal is these bytes: as they are, and with the checksums of every frame put right, so
/// that what lies behind them is reached too.
pub(crate) fn journal(bytes: &[u8]) {
    recover(bytes, true);
    let mut forged = bytes.to_vec();
    wal::fuzzing::repair_checksums(&mut forged);
    if forged != bytes {
        // Frames with right checksums may say what no store wrote, such as one segment settled twice.
        recover(&forged, false);
    }
}

/// Opens, drains and closes the store twice: the second time finds what the first left, and `balanced` says whether
/// the ledger must add up.
fn recover(bytes: &[u8], balanced: bool) {
    let sim = SimDisk::new(1);
    let disk = sim.disk();
    for folder in [STORE, JOURNAL] {
        if disk.create_dir_all(Path::new(folder)).is_err() {
            return;
        }
    }
    sim.put(Path::new(JOURNAL_FILE), bytes);
    for _ in 0..2 {
        let Ok((store, _)) = Store::open(options(), sim.disk(), NOW_MS) else { return };
        store.tick(NOW_MS);
        let _ = store.seal_all();
        for info in store.sealed() {
            let _ = store.read_segment(info.id);
        }
        // Rows of damaged blocks are counted by the frame that the readers asked for.
        let _ = store.commit_wait(wal::Request::default());
        if let (true, Err(error)) = (balanced, store.ledger().check()) {
            panic!("{error}");
        }
        store.close();
    }
}

/// Small files, so that a run costs little memory.
pub(crate) fn options() -> Options {
    Options {
        journal_file_bytes: 16 << 10,
        journal_budget_bytes: 64 << 10,
        memtable_bytes: 64 << 10,
        block_bytes: 1 << 10,
        segment_max_bytes: 64 << 10,
        max_disk_bytes: 0,
        ..Options::new(STORE)
    }
}
