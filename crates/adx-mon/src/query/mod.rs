//! `adx-mon query`: one query from the command line or standard input, or a prompt when there is a terminal.

mod output;
mod point;
mod prompt;

use std::io::{IsTerminal, Read, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use kusto::{Client, QueryOptions, RetryPolicy, Table};
use tokio::runtime::Runtime;

use crate::progress;

/// Options of `adx-mon query`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// The query; without it a prompt opens, or standard input is read when it is not a terminal
    query: Option<String>,
    /// Kusto endpoint
    #[arg(long, env = "ADXMON_KUSTO_ENDPOINT", default_value = "http://127.0.0.1:8080")]
    endpoint: String,
    /// Database that names without a database refer to
    #[arg(long, short, env = "ADXMON_KUSTO_DATABASE", default_value = "Metrics")]
    database: String,
    /// How to print the result
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Longest time that a query may take, for example 30s or 5m
    #[arg(long, default_value = "4m", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns, for reading
    Table,
    /// RFC 4180 with a header line
    Csv,
    /// One JSON object a row and line
    Json,
}

/// A failure that has been shown to the user already.
#[derive(Debug)]
struct Reported;

impl std::fmt::Display for Reported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the query failed")
    }
}

impl std::error::Error for Reported {}

/// Whether the error has been shown already.
pub(crate) fn is_reported(error: &anyhow::Error) -> bool {
    error.is::<Reported>()
}

/// Entry of the command.
pub(crate) fn run(options: &Options, runtime: &Runtime) -> Result<()> {
    let client = Client::builder(&options.endpoint)
        .application("adx-mon")
        // A person waits, who can see what is wrong and ask again.
        .retry(RetryPolicy::none())
        .build()
        .with_context(|| format!("the endpoint '{}' cannot be used", options.endpoint))?;
    let session = Session { client, timeout: options.timeout, format: options.format };
    match &options.query {
        Some(text) => session.show(runtime, &options.database, text),
        None if std::io::stdin().is_terminal() => prompt::run(&session, runtime, &options.database),
        None => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("reading the query from standard input")?;
            session.show(runtime, &options.database, &text)
        }
    }
}

/// A connection and how to show what comes back.
struct Session {
    client: Client,
    timeout: Duration,
    format: Format,
}

impl Session {
    /// Asks and prints; a failure is printed too, with a pointer into the query.
    fn show(&self, runtime: &Runtime, database: &str, text: &str) -> Result<()> {
        let asked = runtime.block_on(async {
            tokio::select! {
                answer = progress::shown("running; Ctrl-C cancels", self.ask(database, text)) => answer.map(Some),
                _ = tokio::signal::ctrl_c() => Ok(None),
            }
        });
        match asked {
            Ok(Some(tables)) => {
                let mut out = std::io::stdout().lock();
                let written = tables.iter().try_for_each(|table| output::write(&mut out, table, self.format)).and_then(|()| out.flush());
                match written {
                    // The reader has seen enough: `adx-mon query … | head`.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                    other => other.context("printing the result"),
                }
            }
            Ok(None) => {
                eprintln!("cancelled");
                Err(Reported.into())
            }
            Err(error) => {
                eprintln!("{}", point::render(text, &error, &self.client.endpoint().to_string()));
                Err(Reported.into())
            }
        }
    }

    async fn ask(&self, database: &str, text: &str) -> Result<Vec<Table>, kusto::Error> {
        if text.trim_start().starts_with('.') {
            return self.client.mgmt(database, text).await.map(|table| vec![table]);
        }
        let options = QueryOptions { timeout: self.timeout, ..QueryOptions::default() };
        self.client.query(database, text, &options).await.map(|answer| answer.tables)
    }
}
