//! The `collector` binary: flags, logging, signals; everything else is in the library.

mod allocator;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use collector::config::{Backend, Problem, reference};
use collector::{Config, ConfigError, Reloaded, Reloader, Warning};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Receives and scrapes telemetry and sends it to an ADX-Mon ingestor.
#[derive(Debug, Parser)]
#[command(name = "collector", version)]
struct Flags {
    /// Configuration file (TOML); `collector config` prints one.
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Name of this node; the operating system's host name by default.
    #[arg(long, global = true)]
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
    Config {
        /// A file to start from, a page in Markdown, or a JSON schema for editors.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Checks a configuration file and names every mistake in it, with its line and column.
    ///
    /// Nothing is started or connected to. Ends with 0 when a collector would run with the file, warnings or not, with 1
    /// when it would not.
    Check,
}

/// What the documentation of the configuration is printed as.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Format {
    #[default]
    File,
    Page,
    Schema,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    if let Some(Command::Config { format }) = flags.command {
        match format {
            Format::File => print!("{}", reference::file_to_start_from()),
            Format::Page => print!("{}", reference::page()),
            Format::Schema => println!("{:#}", reference::schema()),
        }
        return ExitCode::SUCCESS;
    }
    if matches!(flags.command, Some(Command::Check)) {
        return check(&flags);
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
    allow_many_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).context("watching SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("watching SIGINT")?;
        let mut hangup = signal(SignalKind::hangup()).context("watching SIGHUP")?;
        let running = collector::start(config, shutdown.clone()).await?;
        let reloader = running.reloader();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    _ = hangup.recv() => reload(&flags, &reloader).await,
                }
            }
            shutdown.cancel();
        });
        running.finished().await
    })
}

/// Raises the limit of open files to what this process may raise it to. The usual limit of 1024 is kept low for programs
/// that use `select`; log files, connections and segments of many tables are more.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files could not be raised");
        }
    }
}

/// Reads the file again and runs with it, or goes on as before and says why.
async fn reload(flags: &Flags, reloader: &Reloader) {
    match reloader.reload(configuration(flags)).await {
        Ok(Reloaded { after_restart }) if after_restart.is_empty() => tracing::info!("configuration reloaded"),
        Ok(Reloaded { after_restart }) => {
            tracing::warn!(after_restart = after_restart.join(", "), "configuration reloaded, except for settings that need a restart");
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the configuration was not reloaded: the collector goes on as before");
        }
    }
}

/// Prints what is wrong with a file, one line each, as compilers do.
fn check(flags: &Flags) -> ExitCode {
    let (path, text) = match file(flags) {
        Ok(file) => file,
        Err(error) => {
            eprintln!("collector: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let path = path.display();
    match Config::from_toml(&text, &hostname(flags)) {
        Ok((_, warnings)) => {
            for Warning(message) in &warnings {
                println!("{path}: warning: {message}");
            }
            println!("{path}: the configuration is valid; warnings: {}", warnings.len());
            ExitCode::SUCCESS
        }
        Err(ConfigError { mut problems }) => {
            problems.sort_by_key(|problem| problem.position.map(|at| (at.line, at.column)));
            for Problem { position, message } in &problems {
                let place = position.map_or_else(String::new, |at| format!(":{}:{}", at.line, at.column));
                // Expressions that do not compile are explained over several lines.
                println!("{path}{place}: error: {}", message.replace('\n', "\n    "));
            }
            println!("{path}: the configuration is not valid; errors: {}", problems.len());
            ExitCode::FAILURE
        }
    }
}

fn file(flags: &Flags) -> anyhow::Result<(&Path, String)> {
    let path = flags.config.as_ref().context("--config is required; run `collector config` for a file to start from")?;
    Ok((path, std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?))
}

fn hostname(flags: &Flags) -> String {
    flags.hostname.clone().unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

fn configuration(flags: &Flags) -> anyhow::Result<Config> {
    let (path, text) = file(flags)?;
    let (mut config, warnings) = Config::from_toml(&text, &hostname(flags)).with_context(|| format!("configuration {}", path.display()))?;
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
