//! `ingestor ledger` and `ingestor dlq`: what is in a storage directory, of a running ingestor or of one that is not.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use wal::segment;
use wal::{RealDisk, Store};

use crate::control::{self, Action, Door, Letter};
use crate::ledger::LedgerReport;

/// A request of the command line may wait for a disk.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What `ingestor` does besides running.
#[derive(Clone, Debug, Subcommand)]
#[allow(missing_docs)] // a comment of a flattened field would be shown as help
pub enum Command {
    /// Show rows by table, and where they are.
    Ledger {
        #[command(flatten)]
        storage: Storage,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Dead letters: segments that were refused for ever.
    Dlq {
        #[command(subcommand)]
        action: Dlq,
    },
}

/// The storage directory.
#[derive(Clone, Debug, Args)]
pub struct Storage {
    /// Folder of journal and segments, of an ingestor that runs or that does not.
    #[arg(long, value_name = "DIR")]
    pub storage_dir: PathBuf,
}

/// What to do with dead letters.
#[derive(Clone, Debug, Subcommand)]
#[allow(missing_docs)] // a comment of a flattened field would be shown as help
pub enum Dlq {
    /// List them.
    Ls {
        #[command(flatten)]
        storage: Storage,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the reason of one, and its first rows.
    Show {
        #[command(flatten)]
        storage: Storage,
        /// Its id, as `ls` has it.
        id: String,
        /// So many rows.
        #[arg(long, value_name = "COUNT", default_value_t = 20)]
        rows: usize,
    },
    /// Put them back among the segments that wait for their upload.
    Retry {
        #[command(flatten)]
        storage: Storage,
        #[command(flatten)]
        which: Which,
    },
    /// Give them up; their rows count as dropped.
    Drop {
        #[command(flatten)]
        storage: Storage,
        #[command(flatten)]
        which: Which,
    },
}

/// Some dead letters.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// Their ids, as `ls` has them.
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Those of a table.
    #[arg(long, value_name = "DATABASE.TABLE")]
    pub table: Option<String>,
    /// All of them.
    #[arg(long)]
    pub all: bool,
}

impl Which {
    fn choose(&self, letters: &[Letter]) -> anyhow::Result<Vec<String>> {
        if let Some(id) = self.ids.iter().find(|id| !letters.iter().any(|letter| letter.id == **id)) {
            bail!("{id} is no dead letter: `ingestor dlq ls` shows those that are");
        }
        let of_table = |letter: &&Letter| self.table.as_ref().is_none_or(|table| *table == format!("{}.{}", letter.database, letter.table));
        let named = |letter: &&Letter| self.ids.is_empty() || self.ids.contains(&letter.id);
        Ok(letters.iter().filter(of_table).filter(named).map(|letter| letter.id.clone()).collect())
    }
}

impl Command {
    /// Does it, and gives what is to be printed.
    ///
    /// # Errors
    /// Why it cannot be done, and the way out.
    pub async fn run(&self) -> anyhow::Result<String> {
        match self {
            Command::Ledger { storage, json } => {
                let ledger = Access::open(storage).await?.ledger().await?;
                Ok(if *json { format!("{}\n", serde_json::to_string_pretty(&ledger)?) } else { ledger.to_string() })
            }
            Command::Dlq { action: Dlq::Ls { storage, json } } => {
                let letters = Access::open(storage).await?.letters().await?;
                Ok(if *json { format!("{}\n", serde_json::to_string_pretty(&letters)?) } else { listed(&letters) })
            }
            Command::Dlq { action: Dlq::Show { storage, id, rows } } => Access::open(storage).await?.show(id, *rows).await,
            Command::Dlq { action: Dlq::Retry { storage, which } } => change(storage, which, Action::Retry).await,
            Command::Dlq { action: Dlq::Drop { storage, which } } => change(storage, which, Action::Drop).await,
        }
    }
}

async fn change(storage: &Storage, which: &Which, action: Action) -> anyhow::Result<String> {
    let access = Access::open(storage).await?;
    let letters = access.letters().await?;
    let ids = which.choose(&letters)?;
    let rows: u64 = letters.iter().filter(|letter| ids.contains(&letter.id)).map(|letter| letter.rows).sum();
    access.act(action, &ids).await?;
    let what = match action {
        Action::Retry => "wait for their upload again",
        Action::Drop => "are dropped",
    };
    Ok(format!("{} segments with {rows} rows {what}\n", ids.len()))
}

fn listed(letters: &[Letter]) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for letter in letters {
        let table = format!("{}.{}", letter.database, letter.table);
        let time = |ms: u64| jiff::Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(0)).unwrap_or_default();
        let first = time(letter.created_ms);
        let died = letter.died_ms.map(|ms| format!("  refused {:.0}", time(ms))).unwrap_or_default();
        let perhaps = if letter.maybe_duplicate { " (rows may be stored already)" } else { "" };
        let Letter { id, rows, bytes, reason, .. } = letter;
        let _ = writeln!(out, "{id}  {table}  {rows} rows  {bytes} bytes  since {first:.0}{died}{perhaps}\n    {reason}");
    }
    let rows: u64 = letters.iter().map(|letter| letter.rows).sum();
    let _ = writeln!(out, "{} dead letters with {rows} rows", letters.len());
    out
}

/// A running ingestor, or the store itself.
enum Access {
    Running(reqwest::Client, Door),
    Store(Store),
}

impl Access {
    /// The store if nobody has it, otherwise whoever has it.
    async fn open(storage: &Storage) -> anyhow::Result<Access> {
        let dir = storage.storage_dir.clone();
        if !dir.join("journal").is_dir() {
            bail!("{} is no storage directory: it has no folder journal", dir.display());
        }
        let options = wal::Options { max_disk_bytes: 0, ..wal::Options::new(&dir) };
        let opened = tokio::task::spawn_blocking(move || Store::open(options, RealDisk::new(), crate::run::now_ms())).await?;
        match opened {
            Ok((store, _)) => Ok(Access::Store(store)),
            Err(wal::OpenError::Locked { .. }) => {
                let door = control::find_door(&storage.storage_dir)?;
                let door = door.context("the storage directory is in use, but not by an ingestor that could be asked")?;
                server::install_crypto();
                Ok(Access::Running(reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?, door))
            }
            Err(error) => Err(error).with_context(|| format!("opening {}", storage.storage_dir.display())),
        }
    }

    async fn ledger(&self) -> anyhow::Result<LedgerReport> {
        match self {
            Access::Running(..) => Ok(serde_json::from_slice(&self.get("ledger").await?)?),
            Access::Store(store) => Ok(LedgerReport::from(&store.ledger())),
        }
    }

    async fn letters(&self) -> anyhow::Result<Vec<Letter>> {
        match self {
            Access::Running(..) => Ok(serde_json::from_slice(&self.get("dead-letters").await?)?),
            Access::Store(store) => Ok(control::letters(store)),
        }
    }

    async fn show(&self, id: &str, rows: usize) -> anyhow::Result<String> {
        let letters = self.letters().await?;
        let letter = letters.iter().find(|letter| letter.id == id);
        let letter = letter.with_context(|| format!("{id} is no dead letter: `ingestor dlq ls` shows those that are"))?;
        let image = match self {
            Access::Running(..) => self.get(&format!("dead-letters/{id}")).await?,
            Access::Store(store) => store.read_dead_letter(control::parse_id(id).context("an id is a hexadecimal number")?)?,
        };
        let mut out = format!(
            "{}\nfile  {}\n\n",
            listed(std::slice::from_ref(letter)).lines().take(2).collect::<Vec<_>>().join("\n"),
            letter.path.display()
        );
        let csv = segment::values(&image, false);
        let records: Vec<&[u8]> = wal::csv::Records::new(&csv).take(rows).collect();
        records.iter().for_each(|record| out.push_str(&String::from_utf8_lossy(record)));
        Ok(out)
    }

    async fn act(&self, action: Action, ids: &[String]) -> anyhow::Result<()> {
        match self {
            Access::Running(client, door) => {
                let url = format!("{}/control/dead-letters/{}", door.url, action.path());
                let body = serde_json::to_vec(ids)?;
                let request = client.post(url).header("Content-Type", "application/json").body(body);
                answer(request.bearer_auth(&door.token)).await.map(drop)
            }
            Access::Store(store) => {
                control::act(store, action, ids).await?;
                let store = store.clone();
                tokio::task::spawn_blocking(move || store.close()).await?;
                Ok(())
            }
        }
    }

    async fn get(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let Access::Running(client, door) = self else { bail!("the ingestor does not run") };
        answer(client.get(format!("{}/control/{path}", door.url)).bearer_auth(&door.token)).await
    }
}

async fn answer(request: reqwest::RequestBuilder) -> anyhow::Result<Vec<u8>> {
    let response = request.send().await.context("asking the running ingestor")?;
    let status = response.status();
    let body = response.bytes().await.context("reading the ingestor's answer")?;
    if !status.is_success() {
        bail!("the ingestor answers {status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(body.to_vec())
}
