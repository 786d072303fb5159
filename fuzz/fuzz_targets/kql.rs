//! Any text parses or is refused, is bound or is refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_targets::run("kql", bytes));
