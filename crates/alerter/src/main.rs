//! The `alerter` binary: reads the command line, then runs rules until SIGINT or SIGTERM, or checks them.

use std::process::ExitCode;

use alerter::{Command, Flags, RunFlags};
use anyhow::Context as _;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of a lint that could check nothing, as of a wrong command line.
const NOTHING_CHECKED: u8 = 2;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    let (ended, failure) = match flags.command {
        None => {
            server::init_logging();
            (run(flags.run).await.map(|()| true), ExitCode::FAILURE)
        }
        Some(Command::Lint(flags)) => (alerter::lint::run(&flags).await, ExitCode::from(NOTHING_CHECKED)),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("alerter: {error:#}");
            failure
        }
    }
}

async fn run(flags: RunFlags) -> anyhow::Result<()> {
    let config = flags.config()?;
    let shutdown = CancellationToken::new();
    tokio::spawn(stop_on_signal(shutdown.clone()));
    let surroundings = alerter::surroundings(&flags, &config, shutdown.clone()).await?;
    let running = alerter::start(config, surroundings, shutdown).await?;
    tracing::info!(address = %running.address(), "alerter runs");
    running.finished().await.context("stopping")
}

async fn stop_on_signal(shutdown: CancellationToken) {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        tracing::error!("signals cannot be received: end the alerter with SIGKILL; nothing is lost");
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping: no more queries, notifications on their way are waited for");
    shutdown.cancel();
}
