//! The `ingestor` binary: reads the command line, starts, and drains on SIGINT or SIGTERM.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let flags = ingestor::Flags::parse();
    // What a command prints is for people and programs; nothing is mixed into it.
    if flags.command.is_none() {
        server::init_logging();
    }
    match run(flags).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ingestor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: ingestor::Flags) -> anyhow::Result<()> {
    if let Some(command) = &flags.command {
        print!("{}", command.run().await?);
        return Ok(());
    }
    let config = flags.config()?;
    let shutdown = CancellationToken::new();
    let running = ingestor::start(config, shutdown.clone()).await?;
    tokio::spawn(stop_on_signal(shutdown));
    running.finished().await.context("stopping")
}

async fn stop_on_signal(shutdown: CancellationToken) {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        tracing::error!("signals cannot be received: stopping loses the drain, not data");
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping: no more data is taken, what is here is uploaded as far as time allows");
    shutdown.cancel();
}
