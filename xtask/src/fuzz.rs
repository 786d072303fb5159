//! Runs the fuzz targets in `fuzz/` with libFuzzer, on the stable toolchain.

use anyhow::{Context, Result};

use crate::command::{exists, root, run_with};

/// Every target, or the one named, for that many seconds each. Findings are left in `fuzz/artifacts`.
pub(crate) fn run(seconds: u64, only: Option<&str>) -> Result<()> {
    if !exists("cargo", &["fuzz", "--version"]) {
        crate::command::run("cargo", &["install", "--locked", "cargo-fuzz"])?;
    }
    let targets = root().join("fuzz/fuzz_targets");
    let mut names: Vec<String> = std::fs::read_dir(&targets)
        .with_context(|| format!("listing {}", targets.display()))?
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned))
        .filter(|name| only.is_none_or(|only| only == name))
        .collect();
    names.sort();
    for name in names {
        let time = format!("-max_total_time={seconds}");
        // Sanitizers and coverage need the switch that nightly has on by default.
        run_with(
            "cargo",
            &["fuzz", "run", "--fuzz-dir", "fuzz", &name, "--", &time, "-rss_limit_mb=2048", "-timeout=20"],
            &[("RUSTC_BOOTSTRAP", "1")],
        )?;
    }
    Ok(())
}
