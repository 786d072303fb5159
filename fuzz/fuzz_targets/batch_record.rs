//! Details of the records of batches: any bytes, no panic, and what is read is what would be written.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ingestor::fuzzing::batch_record(bytes));
