//! Recovery of a store from any bytes as its journal.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_targets::run("journal", bytes));
