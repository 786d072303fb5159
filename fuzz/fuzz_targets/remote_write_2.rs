//! Remote write 2.0: any bytes, whole rows.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_targets::run("remote_write_2", bytes));
