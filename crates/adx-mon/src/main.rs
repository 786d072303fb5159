//! `adx-mon`: one command for people.
//!
//! `adx-mon up` runs collector, ingestor and an embedded Kusto on this machine; `adx-mon query` asks a Kusto endpoint,
//! `adx-mon crds` prints the custom resource definitions, `adx-mon wal` shows and mends storage directories.

mod host;
mod progress;
mod query;
mod up;
mod wal;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Metrics, logs and traces into Kusto, and KQL answers out.
#[derive(Parser)]
#[command(name = "adx-mon", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  adx-mon up                                   run everything here, with this host's own metrics and logs
  adx-mon query 'NodeLoad1 | top 5 by Timestamp'
  adx-mon query --database Logs --format csv 'OTelLogs | take 100' > logs.csv
  adx-mon query                                an interactive prompt
  adx-mon crds | kubectl apply -f -            AlertRule, SummaryRule and the others, in a cluster
  adx-mon wal ls /var/lib/adx-mon/collector    what waits in a storage directory";

#[derive(Subcommand)]
enum Command {
    /// Run collector, ingestor and an embedded Kusto on this machine, in one process
    Up(up::Options),
    /// Ask a Kusto endpoint in KQL: this machine's by default
    Query(query::Options),
    /// Print the custom resource definitions, for `kubectl apply -f -`
    Crds {
        /// Only this kind, by any of its names: SummaryRule, summaryrules, sr
        #[arg(long)]
        kind: Option<String>,
    },
    /// Look into storage directories of collectors and ingestors, check, mend and send what is there
    Wal(wal::Options),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    server::install_crypto();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the asynchronous runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = match command {
        Command::Up(options) => runtime.block_on(up::run(options)),
        Command::Query(options) => query::run(&options, &runtime),
        Command::Wal(options) => return wal::run(&options, &runtime),
        Command::Crds { kind } => print_crds(kind.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if query::is_reported(&error) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print_crds(kind: Option<&str>) -> anyhow::Result<()> {
    let crds = match kind {
        None => crds::all(),
        Some(kind) => vec![crds::of_kind(kind).with_context(|| {
            let kinds: Vec<String> = crds::all().into_iter().map(|crd| crd.spec.names.kind).collect();
            format!("there is no kind {kind:?}; there are {}", kinds.join(", "))
        })?],
    };
    match std::io::stdout().write_all(crds::yaml(&crds).as_bytes()) {
        // `| head` has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write the definitions"),
    }
}
