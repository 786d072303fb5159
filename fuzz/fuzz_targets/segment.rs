//! The reader of ADXWAL segments: any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_targets::run("segment", bytes));
