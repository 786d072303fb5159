//! A criteria expression: any text is true, false or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_targets::run("criteria", bytes));
