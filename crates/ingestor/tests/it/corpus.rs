//! What fuzzing the records of batches has found once is tried in every run.

#[test]
fn records_of_batches() {
    fuzz_targets::replay("batch_record", ingestor::fuzzing::batch_record);
}
