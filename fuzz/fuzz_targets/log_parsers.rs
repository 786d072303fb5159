//! Parsers of log messages: any text, rows that can be read.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_targets::run("log_parsers", bytes));
