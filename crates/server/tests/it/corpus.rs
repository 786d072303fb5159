//! What fuzzing has found once is tried in every run.

#[test]
fn calls_of_grpc() {
    fuzz_targets::replay("grpc_call", server::fuzzing::grpc_call);
}
