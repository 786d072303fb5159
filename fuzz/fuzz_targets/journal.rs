//! Recovery of a store from a folder with any bytes as its journal: it opens, or says why not; it never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wal::disk::sim::SimDisk;
use wal::{Options, Store};

fuzz_target!(|bytes: &[u8]| {
    let folder = std::path::PathBuf::from("/store");
    let sim = SimDisk::new(1);
    let disk = sim.disk();
    let Ok(()) = disk.create_dir_all(&folder) else { return };
    sim.put(&folder.join("j-0000000000000001"), bytes);
    if let Ok((store, _)) = Store::open(Options::new(&folder), disk, 1_700_000_000_000) {
        let _ = store.ledger();
        store.close();
    }
});
