//! What each fuzz target does with bytes from outside, and the valid inputs it starts from.
//!
//! libFuzzer runs these through `fuzz/fuzz_targets`; the tests of this crate run the seeds and every file of
//! `fuzz/corpus`, so that what was found once is tried in every run. Others stand in their own crates, because they link much
//! or need what is private there: CSV ingestion and messages of queued ingestion in `kustd::fuzzing`, records of batches in
//! `ingestor::fuzzing`, calls of gRPC in `server::fuzzing`, answers of fluent forward receivers in `exporters::fuzzing`.

use std::panic::AssertUnwindSafe;
use std::path::Path;

mod criteria;
mod decoders;
mod host;
mod logs;
mod seeds;
mod storage;

pub use seeds::seeds;

/// A fuzz target: its name, which is also the name of its corpus folder, and what it does.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Name of the libFuzzer binary and of the folder in `fuzz/corpus`.
    pub name: &'static str,
    /// Panics when the code under test breaks a promise.
    pub run: fn(&[u8]),
}

/// All targets of this crate.
pub const TARGETS: &[Target] = &[
    Target { name: "criteria", run: criteria::criteria },
    Target { name: "exposition", run: decoders::exposition },
    Target { name: "exposition_protobuf", run: decoders::exposition_protobuf },
    Target { name: "journal", run: storage::journal },
    Target { name: "kernel_log", run: host::kernel_log },
    Target { name: "kql", run: decoders::kql },
    Target { name: "log_lines", run: logs::lines },
    Target { name: "log_multi_line", run: logs::multi_line },
    Target { name: "log_parsers", run: logs::parsers },
    Target { name: "otlp_json", run: decoders::otlp_json },
    Target { name: "otlp_logs", run: decoders::otlp_logs },
    Target { name: "otlp_log_rows", run: logs::otlp_rows },
    Target { name: "otlp_metrics", run: decoders::otlp_metrics },
    Target { name: "otlp_traces", run: decoders::otlp_traces },
    Target { name: "remote_write", run: decoders::remote_write },
    Target { name: "remote_write_2", run: decoders::remote_write_2 },
    Target { name: "segment", run: storage::segment },
    Target { name: "syslog", run: host::syslog },
];

/// Runs the target of that name.
///
/// # Panics
/// When there is no such target, or the code under test breaks a promise.
pub fn run(name: &str, bytes: &[u8]) {
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else { panic!("no fuzz target '{name}'") };
    (target.run)(bytes);
}

/// Runs every input of a target's corpus, which must not be empty.
///
/// # Panics
/// When the corpus is missing or empty, or `run` panics; the file is named on standard error.
pub fn replay(name: &str, run: impl Fn(&[u8])) {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus")).join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs = 0;
    for path in entries.flatten().map(|entry| entry.path()) {
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| run(&bytes))) {
            eprintln!("{name} fails on {}", path.display());
            std::panic::resume_unwind(panic);
        }
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", folder.display());
}
