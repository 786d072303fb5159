//! A hub: reads the heartbeats of its partitions and becomes what they are together.

use std::collections::BTreeSet;
use std::time::Duration;

use crds::Federation;
use futures::StreamExt as _;
use jiff::Timestamp;
use kusto::Table;
use kusto::text::quote_name;
use serde_json::Value;

use super::access::{Call, Kusto};
use super::partition::columns_by_table;
use super::statements::{HubDatabase, LONGEST_SCRIPT, PREAMBLE, scripts, statements};
use super::topology::{Row, Topology};
use super::{DEFAULT_DATABASE, Outcome, heartbeat};

/// Time for calls that read, and for scripts.
const USUAL: Duration = Duration::from_secs(45);
const SCRIPT: Duration = Duration::from_secs(240);
/// Databases that are worked on at a time.
const AT_A_TIME: usize = 4;

/// The cluster that a hub is.
#[derive(Clone, Copy)]
pub struct Hub<'a> {
    /// Asks it.
    pub kusto: &'a dyn Kusto,
    /// Its address.
    pub endpoint: &'a str,
    /// How its databases come to be.
    pub databases: Databases,
    /// The time.
    pub now: Timestamp,
}

/// How a hub's databases come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Databases {
    /// By a command, as kustd's.
    ByCommand,
    /// Resource Manager makes them.
    InAzure,
    /// Somebody has to make them.
    ByHand,
}

/// Makes the hub what its partitions are. A database that fails does not hold the others up; partitions are not asked.
pub async fn federate(hub: Hub<'_>, federation: &Federation) -> Outcome {
    let topology = match hub.topology(federation).await {
        Ok(topology) => topology,
        Err(error) => return Outcome::failed(error),
    };
    let mut outcome = Outcome { partitions: Some(topology.partitions), failures: topology.left_out.clone(), ..Outcome::default() };
    if topology.partitions == 0 {
        return outcome;
    }
    let databases = match hub.databases(&topology, &mut outcome).await {
        Ok(databases) => databases,
        Err(error) => return Outcome::failed(error),
    };
    let done = futures::stream::iter(databases)
        .map(|database| {
            let topology = &topology;
            async move {
                let done = hub.bring(&database, topology).await;
                (database, done)
            }
        })
        .buffered(AT_A_TIME)
        .collect::<Vec<_>>()
        .await;
    for (database, done) in done {
        match done {
            Ok((done, failures)) => {
                outcome.done += done;
                outcome.failures.extend(failures.into_iter().map(|failure| format!("database {database}: {failure}")));
            }
            Err(error) => outcome.failures.push(format!("database {database}: {error}")),
        }
    }
    outcome
}

impl std::fmt::Debug for Hub<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hub({})", self.endpoint)
    }
}

impl Hub<'_> {
    /// What the fresh heartbeats say.
    async fn topology(&self, federation: &Federation) -> Result<Topology, String> {
        let (database, table) = (&federation.heartbeat_database, &federation.heartbeat_table);
        let query = heartbeat::query(table, &federation.heartbeat_ttl)?;
        if self.databases == Databases::ByCommand {
            self.ask(DEFAULT_DATABASE, create_database(database), USUAL).await?;
        }
        self.ask(database, heartbeat::create_table(table), USUAL).await?;
        let call = Call { now: Some(self.now), ..self.call(database, query, USUAL) };
        let answer = self.answered(call).await.map_err(|error| format!("reading heartbeats: {error}"))?;
        let row =
            |at: usize| Some(Row { endpoint: answer.text(at, "ClusterEndpoint")?.to_owned(), schema: heartbeat::schema(&answer, at)? });
        Ok(Topology::new(&(0..answer.rows.len()).filter_map(row).collect::<Vec<_>>()))
    }

    /// The hub's databases, with those that were missing.
    async fn databases(&self, topology: &Topology, outcome: &mut Outcome) -> Result<Vec<String>, String> {
        let shown = self.ask(DEFAULT_DATABASE, ".show databases | project DatabaseName".to_owned(), USUAL).await?;
        let mut there: BTreeSet<String> =
            (0..shown.rows.len()).filter_map(|row| shown.text(row, "DatabaseName").map(str::to_owned)).collect();
        for missing in topology.databases.keys().filter(|name| !there.contains(*name)).cloned().collect::<Vec<_>>() {
            match self.databases {
                Databases::ByCommand => match self.ask(DEFAULT_DATABASE, create_database(&missing), USUAL).await {
                    Ok(_) => drop(there.insert(missing)),
                    Err(error) => outcome.failures.push(format!("database {missing}: {error}")),
                },
                // Azure does not tell names by their case
                Databases::InAzure if is_made_in_azure(&missing) && !there.iter().any(|name| name.eq_ignore_ascii_case(&missing)) => {
                    outcome.failures.push(format!("database {missing} is missing: it is made in Azure now"));
                    outcome.missing.push(missing);
                }
                _ => outcome.failures.push(format!("database {missing} is missing: make it in {}", self.endpoint)),
            }
        }
        // one that is there only because it always is needs nothing
        let is_used = |name: &String| name != DEFAULT_DATABASE || topology.databases.contains_key(name);
        Ok(there.into_iter().filter(is_used).collect())
    }

    /// Brings one database to what it shall be: how many statements ran, and what is wrong with the others.
    async fn bring(&self, database: &str, topology: &Topology) -> Result<(usize, Vec<String>), String> {
        let there = self.read(database).await?;
        let (mut done, mut failures) = (0, Vec::new());
        for script in scripts(&statements(database, &there, topology), LONGEST_SCRIPT) {
            let answer = self.ask(database, format!("{PREAMBLE}{}", script.concat()), SCRIPT).await?;
            for row in 0..answer.rows.len() {
                let text = |column: &str| answer.text(row, column).unwrap_or_default();
                match text("Result") {
                    "Failed" => failures.push(format!("{}: {}", first_line(text("CommandText")), first_line(text("Reason")))),
                    _ => done += 1,
                }
            }
        }
        Ok((done, failures))
    }

    async fn read(&self, database: &str) -> Result<HubDatabase, String> {
        let schema = format!(".show database {} schema", quote_name(database));
        let (groups, functions, schema) = tokio::try_join!(
            self.ask(database, ".show entity_groups".to_owned(), USUAL),
            self.ask(database, ".show functions | project Name, Body".to_owned(), USUAL),
            self.ask(database, schema, USUAL),
        )?;
        let entities = |row: usize| {
            let cell = groups.rows.get(row)?.get(groups.column("Entities")?)?;
            let list: Value = cell.as_str().map_or_else(|| cell.clone(), |text| serde_json::from_str(text).unwrap_or_default());
            serde_json::from_value(list).ok()
        };
        let group = |row: usize| Some((groups.text(row, "Name")?.to_owned(), entities(row)?));
        let function = |row: usize| Some((functions.text(row, "Name")?.to_owned(), functions.text(row, "Body")?.to_owned()));
        Ok(HubDatabase {
            groups: (0..groups.rows.len()).filter_map(group).collect(),
            tables: columns_by_table(&schema),
            functions: (0..functions.rows.len()).filter_map(function).collect(),
        })
    }

    fn call(&self, database: &str, text: String, timeout: Duration) -> Call {
        Call { endpoint: self.endpoint.to_owned(), identity: None, database: database.to_owned(), text, now: None, timeout }
    }

    async fn ask(&self, database: &str, text: String, timeout: Duration) -> Result<Table, String> {
        self.answered(self.call(database, text, timeout)).await
    }

    async fn answered(&self, call: Call) -> Result<Table, String> {
        let patience = call.timeout + Duration::from_secs(10);
        match tokio::time::timeout(patience, self.kusto.ask(call)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", patience.as_secs())),
        }
    }
}

/// Whether the name is one that `spec.databases` may have: a partition's word alone must not be what Azure refuses.
fn is_made_in_azure(name: &str) -> bool {
    name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn create_database(name: &str) -> String {
    format!(".create database {} ifnotexists", quote_name(name))
}

/// The beginning of a text, for messages.
fn first_line(text: &str) -> String {
    text.lines().find(|line| !line.is_empty() && !line.starts_with("//")).unwrap_or_default().chars().take(200).collect()
}
