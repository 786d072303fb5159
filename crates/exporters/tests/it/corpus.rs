//! What fuzzing has found once is tried in every run.

#[test]
fn answers_of_fluent_receivers() {
    fuzz_targets::replay("fluent_receiver", exporters::fuzzing::fluent_receiver);
}
