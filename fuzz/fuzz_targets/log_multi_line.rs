//! Events of several lines: any lines, in their order.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_targets::run("log_multi_line", bytes));
