//! `adx-mon wal`: what lies in a storage directory, for people. Logic is in the crate `wal`; here it is shown.

mod cat;
mod ls;
mod repair;
mod replay;
mod show;
mod stat;
mod verify;

use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use ::wal::RealDisk;
use ::wal::inspect::{self, Item, Snapshot};
use anyhow::{Context, Result};
use tokio::runtime::Runtime;

const EXAMPLES: &str = "\
Examples:
  adx-mon wal ls /var/lib/adx-mon/collector           what is there, by table; also while its owner runs
  adx-mon wal cat --table HttpRequestsTotal .         the rows that wait, as CSV
  adx-mon wal cat Metrics_Cpu_x_2f5d0c3e517e4000.wal  of one file, also of the reference
  adx-mon wal verify . || adx-mon wal repair .        what is damaged, and what repairing would do
  adx-mon wal repair --yes .                          do it; the owner must not run
  adx-mon wal stat --format json .                    ledger, cursors, batches, numbers
  adx-mon wal replay --to https://ingestor:9090 .     send what waits; at least once, nothing is deleted";

/// Options of `adx-mon wal`.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// List segments, and rows that are in the journal alone, by table
    Ls(ls::Options),
    /// Print the rows that wait
    Cat(cat::Options),
    /// Check every block and frame: exit code 0 all is well, 1 damage, 2 nothing could be checked
    Verify(verify::Options),
    /// Do what recovery would: cut torn ends, move damaged bytes to quarantine; without --yes only say so
    Repair(repair::Options),
    /// Show ledger, numbers, cursors and batches
    Stat(stat::Options),
    /// Send what waits to an ingestor: at least once, and nothing is deleted without --settle
    ///
    /// An ingestor knows what it has already by name and content, and for a while only: a replay that is repeated later,
    /// or of a directory whose owner sends it too, stores rows twice.
    Replay(replay::Options),
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Aligned columns, for reading
    Table,
    /// One JSON object a line
    Json,
}

/// Entry of the command.
pub(crate) fn run(options: &Options, runtime: &Runtime) -> ExitCode {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let now_ms = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    let ended = match &options.command {
        Command::Ls(options) => ls::run(options, now_ms, &mut out),
        Command::Cat(options) => cat::run(options, &mut out),
        Command::Verify(options) => verify::run(options, &mut out),
        Command::Repair(options) => repair::run(options, now_ms, &mut out),
        Command::Stat(options) => stat::run(options, &mut out),
        Command::Replay(options) => replay::run(options, now_ms, runtime, &mut out),
    };
    let ended = ended.and_then(|well| out.flush().map(|()| well).map_err(anyhow::Error::from));
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // `| head` has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if matches!(options.command, Command::Verify(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
    };
    error.chain().any(pipe)
}

/// Which tables are meant.
#[derive(clap::Args, Debug, Default)]
struct Filter {
    /// Only this database
    #[arg(long)]
    database: Option<String>,
    /// Only this table
    #[arg(long)]
    table: Option<String>,
}

impl Filter {
    fn takes(&self, table: Option<&::wal::TableKey>) -> bool {
        let is = |wanted: &Option<String>, part: Option<&str>| wanted.as_deref().is_none_or(|wanted| Some(wanted) == part);
        is(&self.database, table.map(|key| &*key.database)) && is(&self.table, table.map(|key| &*key.table))
    }
}

/// What a path of the command line is.
enum Place {
    Directory(Box<Snapshot>),
    File(Box<Item>),
}

impl Place {
    fn of(path: &Path) -> Result<Place> {
        if path.is_dir() {
            return Ok(Place::Directory(Box::new(snapshot(path)?)));
        }
        let (item, _) = inspect::file(&RealDisk, path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Place::File(Box::new(item)))
    }

    fn items(&self) -> &[Item] {
        match self {
            Place::Directory(snapshot) => &snapshot.items,
            Place::File(item) => std::slice::from_ref(item),
        }
    }
}

fn snapshot(dir: &Path) -> Result<Snapshot> {
    let snapshot = Snapshot::of(&RealDisk, dir)?;
    if is_foreign(&snapshot) {
        anyhow::bail!(
            "{} has a journal, yet not of a collector or ingestor, or its checkpoint is lost: \
             its owner recovers it at its next start",
            dir.display()
        );
    }
    Ok(snapshot)
}

/// Whether a journal has frames and no checkpoint that can be read: kustd's, or one of ours whose checkpoint is lost.
fn is_foreign(snapshot: &Snapshot) -> bool {
    snapshot.journal.as_ref().is_some_and(|facts| facts.checkpoint_lsn.is_none() && facts.frames > 0)
}

/// The paths of the command line; without any the current folder.
fn or_here(paths: &[PathBuf]) -> Vec<PathBuf> {
    if paths.is_empty() { vec![PathBuf::from(".")] } else { paths.to_vec() }
}
