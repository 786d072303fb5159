//! OTLP traces in protobuf: any bytes, whole rows.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_targets::run("otlp_traces", bytes));
