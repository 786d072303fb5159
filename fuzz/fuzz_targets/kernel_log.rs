//! Records of the kernel log.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_targets::run("kernel_log", bytes));
