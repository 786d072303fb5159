//! The reader of ADXWAL segments: any bytes, no panic, and what it calls good decodes again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wal::segment;

fuzz_target!(|bytes: &[u8]| {
    let verified = segment::verify(bytes, true);
    assert!(verified.good_bytes() <= bytes.len());
    let _ = segment::values(bytes, true);
    let mut value = Vec::new();
    for block in segment::blocks(bytes).flatten() {
        value.clear();
        let _ = block.decode(&mut value);
    }
});
