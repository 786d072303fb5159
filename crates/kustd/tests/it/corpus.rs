//! What fuzzing CSV ingestion has found once is tried in every run.

#[test]
fn the_corpus_of_queue_messages_runs() {
    fuzz_targets::replay("queue_message", kustd::fuzzing::queue_message);
}

#[test]
fn the_corpus_of_csv_runs() {
    fuzz_targets::replay("csv", kustd::fuzzing::csv);
}
