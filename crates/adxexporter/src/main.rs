//! The `adxexporter` binary: reads the command line, starts, and stops on SIGINT or SIGTERM.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let flags = adxexporter::Flags::parse();
    server::init_logging();
    match run(flags).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("adxexporter: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: adxexporter::Flags) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let running = adxexporter::start(flags.config()?, shutdown.clone()).await?;
    tokio::spawn(stop_on_signal(shutdown));
    running.finished().await.context("stopping")
}

async fn stop_on_signal(shutdown: CancellationToken) {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        tracing::error!("signals cannot be received");
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping: windows under way are exported again by whoever runs next");
    shutdown.cancel();
}
