//! OTLP logs by way of records: the rows of the straight path.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_targets::run("otlp_log_rows", bytes));
