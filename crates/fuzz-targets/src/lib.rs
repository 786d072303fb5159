//! What each fuzz target does with bytes from outside, and the valid inputs it starts from.
//!
//! libFuzzer runs these through `fuzz/fuzz_targets`; the tests of this crate run the seeds and every file of
//! `fuzz/corpus`, so that what was found once is tried in every run. CSV ingestion is `kustd::fuzzing::csv`, because
//! only kustd may link the query engine.

mod decoders;
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
    Target { name: "exposition", run: decoders::exposition },
    Target { name: "journal", run: storage::journal },
    Target { name: "kql", run: decoders::kql },
    Target { name: "otlp_json", run: decoders::otlp_json },
    Target { name: "otlp_logs", run: decoders::otlp_logs },
    Target { name: "otlp_metrics", run: decoders::otlp_metrics },
    Target { name: "otlp_traces", run: decoders::otlp_traces },
    Target { name: "remote_write", run: decoders::remote_write },
    Target { name: "segment", run: storage::segment },
];

/// Runs the target of that name.
///
/// # Panics
/// When there is no such target, or the code under test breaks a promise.
pub fn run(name: &str, bytes: &[u8]) {
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else { panic!("no fuzz target '{name}'") };
    (target.run)(bytes);
}
