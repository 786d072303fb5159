//! Streams of syslog, cut into pieces, and their messages.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_targets::run("syslog", bytes));
