//! The `collector` binary: flags, logging, signals; everything else is in the library.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use collector::Config;
use collector::config::{Backend, DEFAULT_FILE};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Steady memory under many small allocations from several threads.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Receives and scrapes telemetry and sends it to an ADX-Mon ingestor.
#[derive(Debug, Parser)]
#[command(name = "collector", version)]
struct Flags {
    /// Configuration file (TOML); `collector config` prints one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name of this node; the operating system's host name by default.
    #[arg(long)]
    hostname: Option<String>,
    /// Overrides storage-backend of the file: adx.
    #[arg(long, env = "COLLECTOR_STORAGE_BACKEND", value_name = "adx|clickhouse")]
    storage_backend: Option<String>,
    /// Overrides durability of the file.
    #[arg(long, env = "ADXMON_DURABILITY", value_name = "disk|process")]
    durability: Option<wal::Durability>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints a configuration file with every setting explained.
    Config,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    if matches!(flags.command, Some(Command::Config)) {
        print!("{DEFAULT_FILE}");
        return ExitCode::SUCCESS;
    }
    server::init_logging();
    match run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("collector: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    let config = configuration(&flags)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).context("watching SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("watching SIGINT")?;
        let running = collector::start(config, shutdown.clone()).await?;
        let token = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            token.cancel();
        });
        running.finished().await
    })
}

fn configuration(flags: &Flags) -> anyhow::Result<Config> {
    let path = flags.config.as_ref().context("--config is required; run `collector config` for a file to start from")?;
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let hostname = match &flags.hostname {
        Some(name) => name.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let (mut config, warnings) = Config::from_toml(&text, &hostname).with_context(|| format!("configuration {}", path.display()))?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if let Some(backend) = &flags.storage_backend {
        config.backend = Backend::parse(Some(backend)).map_err(anyhow::Error::msg)?;
    }
    if let Some(durability) = flags.durability {
        config.durability = durability;
    }
    Ok(config)
}
