//! `kustd`: the embedded Kusto as a program of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Answers KQL over Kusto's REST protocol from one folder.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Folder of all data; created when missing.
    #[arg(long)]
    data_dir: PathBuf,
    /// Address to listen on. Nobody has to sign in: keep it on the loopback, or behind something that asks.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// What an acknowledged ingestion survives: `disk` a power failure, `process` a kill.
    #[arg(long, env = "ADXMON_DURABILITY", default_value = "disk")]
    durability: wal::Durability,
    /// Databases to create beside NetDefaultDB, each with the age at which its rows are dropped where no retention policy says
    /// otherwise, if that is not --retention: Metrics,Logs=90d.
    #[arg(long, value_delimiter = ',')]
    databases: Vec<kustd::DatabaseSetting>,
    /// Age at which rows are dropped where no retention policy says otherwise, such as 7d.
    #[arg(long, value_parser = period)]
    retention: Option<Duration>,
    /// Size of all extents in bytes above which the oldest are dropped.
    #[arg(long)]
    max_bytes: Option<u64>,
    /// Connection string of an Azure Storage account or of Azurite, for queued ingestion; once for each account. In the
    /// environment, accounts stand on lines of their own.
    #[arg(long, env = "ADXMON_INGESTION_STORAGE", hide_env_values = true, value_delimiter = '\n')]
    ingestion_storage: Vec<String>,
    /// Address of another cluster that queries may name, such as http://kustd.west:8080; once for each. Those that stand in
    /// an entity group may be named too.
    #[arg(long, value_delimiter = ',')]
    allowed_clusters: Vec<String>,
    /// How long another cluster may take to answer.
    #[arg(long, default_value = "30s", value_parser = period)]
    remote_timeout: Duration,
}

#[tokio::main]
async fn main() -> ExitCode {
    server::init_logging();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kustd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let config = kustd::Config {
        data_dir: arguments.data_dir,
        listen: arguments.listen,
        durability: arguments.durability,
        databases: arguments.databases,
        retention: arguments.retention,
        max_bytes: arguments.max_bytes,
        ingestion_storage: arguments.ingestion_storage,
        remote: kustd::RemoteSettings { allowed: arguments.allowed_clusters, timeout: arguments.remote_timeout },
    };
    let running = kustd::start(config, shutdown.clone()).await?;
    tracing::info!(address = %running.addr, "kustd is ready");
    wait_for_signal().await?;
    shutdown.cancel();
    running.finished().await
}

async fn wait_for_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("watching for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watching for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Reads a period such as `7d` or `36h`.
fn period(text: &str) -> Result<Duration, String> {
    kustd::parse_period(text).ok_or_else(|| format!("'{text}' is no period such as 7d or 36h"))
}
