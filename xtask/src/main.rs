//! Developer automation, started as `cargo xtask <command>`.
//!
//! - `setup` installs what the tests need: Debian packages, kube-apiserver, Python packages, cargo tools.
//! - `test` is the whole check that CI runs: set-up, format, licences, lints, tests, doc tests, KQL cases.
//! - `soak` runs the torture tests with their full counts.
//! - `kql-cases` scores the engine on recorded answers of Kusto.
//! - `fuzz` runs the fuzz targets for a time.

mod cases;
mod command;
mod fuzz;
mod setup;
mod test;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Developer automation of ADX-Mon")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the tests need: Debian packages, a kube-apiserver built from source, Python packages, cargo tools
    Setup,
    /// Install what is missing, then run every check and test, as CI does
    Test {
        /// Skip the installation
        #[arg(long)]
        no_setup: bool,
    },
    /// Run the crash, damage and kill loops with their full counts (hours)
    Soak {
        /// Only tests whose name contains this
        filter: Option<String>,
        /// Multiplies the short counts: 50 makes 200 kills
        #[arg(long, default_value_t = 50)]
        factor: u32,
    },
    /// Score the KQL engine on recorded answers of Kusto; the folder comes from ADXMON_KQL_CASES
    KqlCases(cases::Options),
    /// Run fuzz targets with libFuzzer
    Fuzz(fuzz::Options),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Setup => setup::run(),
        Command::Test { no_setup } => test::run(no_setup),
        Command::Soak { filter, factor } => test::soak(filter.as_deref(), factor),
        Command::KqlCases(options) => cases::run_cases(&options),
        Command::Fuzz(options) => fuzz::run(&options),
    }
}
