//! Messages of queued ingestion: any bytes, no panic, and nothing taken that lacks what it needs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kustd::fuzzing::queue_message(bytes));
