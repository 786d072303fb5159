//! The protobuf exposition: any bytes, whole rows.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_targets::run("exposition_protobuf", bytes));
