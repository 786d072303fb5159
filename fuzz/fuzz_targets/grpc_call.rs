//! Calls of gRPC and gRPC-Web: each has an answer, which is OK only for one whole frame.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| server::fuzzing::grpc_call(bytes));
