//! The `operator` binary: reads the command line, then runs until SIGINT or SIGTERM, or shows what it would do.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Parser as _;
use operator::apply::Cluster;
use operator::manifest::{self, Mistake, Resources};
use operator::{Command, DiffFlags, Flags, RenderFlags, RunFlags};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code of a diff that cannot be told.
const UNKNOWN: u8 = 2;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let (ended, failure) = match &flags.command {
        Some(Command::Render(flags)) => (render(flags).map(|()| true), ExitCode::FAILURE),
        Some(Command::Diff(flags)) => (block_on(diff(flags)), ExitCode::from(UNKNOWN)),
        None => {
            server::init_logging();
            (block_on(run(&flags.run)).map(|()| true), ExitCode::FAILURE)
        }
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("operator: {error:#}");
            failure
        }
    }
}

fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("starting the runtime")?;
    runtime.block_on(task)
}

async fn run(flags: &RunFlags) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    tokio::spawn(stop_on_signal(shutdown.clone()));
    let running = operator::start(flags.config()?, shutdown).await?;
    tracing::info!(address = %running.address(), "operator runs");
    running.finished().await.context("stopping")
}

async fn stop_on_signal(shutdown: CancellationToken) {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        tracing::error!("signals cannot be received: end the operator with SIGKILL; nothing is lost");
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping: the next operator looks at everything again");
    shutdown.cancel();
}

/// Whether nothing differs.
async fn diff(flags: &DiffFlags) -> anyhow::Result<bool> {
    server::install_crypto();
    let client = kube_watch::connect(flags.kubeconfig.as_deref()).await.context("connecting to the cluster")?;
    let client = client.context("there is no cluster: give --kubeconfig")?;
    let cluster = Cluster::new(client.clone()).await?;
    let resources = operator::diff::resources(&client, flags.namespace.as_deref()).await?;
    let text = operator::diff::differences(&cluster, &resources, &flags.common.settings()).await?;
    print!("{text}");
    Ok(text.is_empty())
}

fn render(flags: &RenderFlags) -> anyhow::Result<()> {
    let mut resources = Resources::default();
    let mut mistakes = Vec::new();
    for path in &flags.files {
        mistakes.extend(resources.read(&path.display().to_string(), &text(path)?));
    }
    if !mistakes.is_empty() {
        return complain(&mistakes);
    }
    match resources.render(&flags.common.settings()) {
        Ok(rendered) => {
            print!("{}", manifest::yaml(&rendered)?);
            Ok(())
        }
        Err(mistakes) => complain(&mistakes),
    }
}

fn text(path: &Path) -> anyhow::Result<String> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("reading the standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn complain(mistakes: &[Mistake]) -> anyhow::Result<()> {
    for mistake in mistakes {
        eprintln!("{mistake}");
    }
    bail!("mistakes: {}; nothing is rendered", mistakes.len())
}
