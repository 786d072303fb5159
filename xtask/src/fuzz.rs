//! Runs the fuzz targets in `fuzz/` with libFuzzer, on the stable toolchain.
//!
//! What a run finds new goes to a scratch folder beside the build; `--keep` merges from there into `fuzz/corpus` what
//! reaches code that the corpus does not reach yet. The tests replay that corpus.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::command::{self, exists, root, run_with};

/// Inputs of the corpus are small, so that it stays small and runs stay fast.
const MAX_LEN: &str = "-max_len=4096";
const LIMITS: [&str; 2] = ["-rss_limit_mb=2048", "-timeout=20"];

/// Formats that anybody on the network can send: these are fuzzed longest.
const WIRE: &[&str] = &[
    "exposition",
    "exposition_protobuf",
    "fluent_receiver",
    "grpc_call",
    "otlp_json",
    "otlp_log_rows",
    "otlp_logs",
    "otlp_metrics",
    "otlp_traces",
    "remote_write",
    "remote_write_2",
    "syslog",
];
const SCRATCH: &str = "fuzz/scratch";
const WIRE_SECONDS: u64 = 600;
const OTHER_SECONDS: u64 = 180;

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this target
    target: Option<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60, conflicts_with = "full")]
    seconds: u64,
    /// Ten minutes for each wire format, three for each other target
    #[arg(long)]
    full: bool,
    /// Afterwards, merge what reached new code into fuzz/corpus
    #[arg(long)]
    keep: bool,
}

/// Every target, or the one named. Findings are left in `fuzz/artifacts`.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !exists("cargo", &["fuzz", "--version"]) {
        command::run("cargo", &["install", "--locked", "--debug", "cargo-fuzz"])?;
    }
    let names = names(options.target.as_deref())?;
    command::run("cargo", &["run", "--quiet", "--package", "fuzz-targets", "--example", "write_seeds", SCRATCH])?;
    for name in &names {
        let seconds = match options.full {
            true if WIRE.contains(&name.as_str()) => WIRE_SECONDS,
            true => OTHER_SECONDS,
            false => options.seconds,
        };
        let scratch = scratch(name)?;
        fuzz(name, &[&scratch, &corpus(name)?], &[&format!("-max_total_time={seconds}"), "-print_final_stats=1"])?;
    }
    if options.keep {
        for name in &names {
            fuzz(name, &[&corpus(name)?, &scratch(name)?], &["-set_cover_merge=1", "-use_counters=0"])?;
        }
    }
    Ok(())
}

fn names(only: Option<&str>) -> Result<Vec<String>> {
    let targets = root().join("fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&targets).with_context(|| format!("listing {}", targets.display()))?;
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned)).collect();
    names.sort();
    if let Some(only) = only {
        ensure!(names.iter().any(|name| name == only), "there is no fuzz target '{only}'; there are {}", names.join(", "));
        names.retain(|name| name == only);
    }
    Ok(names)
}

fn corpus(name: &str) -> Result<PathBuf> {
    created(root().join("fuzz/corpus").join(name))
}

fn scratch(name: &str) -> Result<PathBuf> {
    created(root().join(SCRATCH).join(name))
}

fn created(folder: PathBuf) -> Result<PathBuf> {
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

fn fuzz(name: &str, folders: &[&Path], arguments: &[&str]) -> Result<()> {
    // An optimised build with a sanitizer of all that these link would take longer than the run.
    let build: &[&str] = match name {
        "csv" | "queue_message" => &["--features", "engine", "--dev", "--sanitizer", "none"],
        "fluent_receiver" => &["--features", "exporters"],
        "grpc_call" => &["--features", "server"],
        "batch_record" => &["--features", "ingestor", "--dev", "--sanitizer", "none"],
        _ => &[],
    };
    let folders: Vec<&str> = folders.iter().filter_map(|folder| folder.to_str()).collect();
    let line = [&["fuzz", "run", "--fuzz-dir", "fuzz"], build, &[name], &folders[..], &["--", MAX_LEN], &LIMITS, arguments].concat();
    // Coverage needs a switch that only nightly has on by default.
    run_with("cargo", &line, &[("RUSTC_BOOTSTRAP", "1")])
}
