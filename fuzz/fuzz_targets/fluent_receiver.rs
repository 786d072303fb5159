//! What a fluent forward receiver sends: HELO, PONG and acknowledgements.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exporters::fuzzing::fluent_receiver(bytes));
