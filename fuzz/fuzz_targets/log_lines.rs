//! Lines of log files in every format: any bytes, nothing lost, and a restart changes nothing.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_targets::run("log_lines", bytes));
