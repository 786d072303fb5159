//! CSV ingestion of the embedded Kusto: any bytes, as many rows as are reported.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kustd::fuzzing::csv(bytes));
