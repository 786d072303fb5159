//! Replays the seeds and the corpus of every fuzz target.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use fuzz_targets::{TARGETS, replay, seeds};

fn fuzz_folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz"))
}

/// File names of a folder, without endings; none when it is missing.
fn names(folder: PathBuf) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn seeds_are_there_and_run() {
    for target in TARGETS {
        let seeds = seeds(target.name);
        assert!(!seeds.is_empty() && seeds.iter().all(|seed| !seed.is_empty()), "{} has no seeds", target.name);
        seeds.iter().for_each(|seed| (target.run)(seed));
    }
}

#[test]
fn the_corpus_runs() {
    for target in TARGETS {
        replay(target.name, target.run);
    }
}

#[test]
fn every_target_has_a_binary() {
    let mut binaries = names(fuzz_folder().join("fuzz_targets"));
    // Their bodies and corpus tests are in the crates that they are about, which link too much for this one.
    for elsewhere in ["batch_record", "csv", "fluent_receiver", "grpc_call", "queue_message"] {
        assert!(binaries.remove(elsewhere), "{elsewhere}");
    }
    assert_eq!(binaries, TARGETS.iter().map(|target| target.name.to_owned()).collect());
}
