//! The whole test run, and the long forms of its loops.

use anyhow::{Context, Result};

use crate::command::{self, in_ci, run_with};
use crate::{cases, setup};

/// Every check, in the order that fails fastest.
pub(crate) fn run(no_setup: bool) -> Result<()> {
    if !no_setup {
        setup::run()?;
    }
    command::run("cargo", &["fmt", "--all", "--check"])?;
    command::run("cargo", &["deny", "check", "bans", "licenses", "sources"])?;
    command::run("cargo", &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])?;
    let venv = setup::venv();
    let venv = venv.to_str().context("the cache folder's name is not UTF-8")?;
    let env = [("ADXMON_PYTHON_VENV", venv), ("PROPTEST_CASES", "64")];
    run_with("cargo", &["nextest", "run", "--workspace", "--profile", if in_ci() { "ci" } else { "default" }, "--locked"], &env)?;
    command::run("cargo", &["test", "--doc", "--workspace", "--locked"])?;
    cases::run_cases(&cases::Options::default())
}

/// The loops with their full counts, in the build of the tests, whose checks of overflows and assertions are on. Tests
/// read ADXMON_SOAK as a factor on their short counts.
pub(crate) fn soak(filter: Option<&str>, factor: u32) -> Result<()> {
    let factor = factor.to_string();
    let cases = (factor.parse::<u64>().unwrap_or(1) * 256).to_string();
    let mut args = vec!["nextest", "run", "--workspace", "--no-fail-fast", "--profile", "soak"];
    args.extend(filter);
    run_with("cargo", &args, &[("ADXMON_SOAK", &factor), ("PROPTEST_CASES", &cases)])
}
