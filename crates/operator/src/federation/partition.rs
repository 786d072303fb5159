//! A partition: reads its own schema, and tells its hubs.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::{FederatedTarget, Federation};
use futures::StreamExt as _;
use jiff::Timestamp;
use kusto::Table;
use kusto::text::quote_name;

use super::access::{Call, Kusto};
use super::heartbeat::{DatabaseSchema, Heartbeat};
use super::{DEFAULT_DATABASE, Outcome, heartbeat};

/// Time for one hub.
const TARGET: Duration = Duration::from_secs(120);
/// Time for calls, by what they ask for.
const SHORT: Duration = Duration::from_secs(15);
const USUAL: Duration = Duration::from_secs(30);
const SCHEMA: Duration = Duration::from_secs(45);
/// Databases, and functions of one, that are asked about at a time.
const AT_A_TIME: usize = 4;
/// Names of failures that are told.
const NAMED: usize = 10;

/// Tells all hubs about the cluster at `endpoint`. Those that hang or fail do not hold the others up.
pub async fn tell(kusto: &dyn Kusto, endpoint: &str, federation: &Federation, now: Timestamp) -> Outcome {
    let mut outcome = Outcome::default();
    let known = match read(kusto, endpoint, &mut outcome).await {
        Ok(known) => known,
        Err(error) => return Outcome::failed(format!("reading the schema of {endpoint}: {error}")),
    };
    let partitioning = serde_json::to_string(&federation.partitioning).unwrap_or_default();
    let news = &News { time: now, endpoint, known, partitioning };
    let told = futures::stream::iter(federation.federated_targets.clone())
        .map(|target| async move {
            let told = match tokio::time::timeout(TARGET, news.tell(kusto, &target)).await {
                Ok(told) => told,
                Err(_) => Err(format!("no answer within {} s", TARGET.as_secs())),
            };
            (target.endpoint, told)
        })
        .buffer_unordered(federation.federated_targets.len().max(1))
        .collect::<Vec<_>>()
        .await;
    for (hub, told) in told {
        match told {
            Ok(()) => outcome.done += 1,
            Err(error) => outcome.failures.push(format!("hub {hub}: {error}")),
        }
    }
    outcome.failures.sort();
    outcome
}

/// What is to be told.
struct News<'a> {
    time: Timestamp,
    endpoint: &'a str,
    known: Known,
    partitioning: String,
}

/// What is known of a cluster's databases.
#[derive(Default)]
struct Known {
    databases: Vec<DatabaseSchema>,
    /// Names of those that could not be read.
    unread: Vec<String>,
}

impl News<'_> {
    /// A database that could not be read is told as it was told before: a hub must not forget it for that.
    async fn tell(&self, kusto: &dyn Kusto, target: &FederatedTarget) -> Result<(), String> {
        let mut databases = self.known.databases.clone();
        if !self.known.unread.is_empty() {
            let mut before = self.told_before(kusto, target).await;
            before.retain(|database| self.known.unread.contains(&database.database));
            databases.extend(before);
        }
        let schema = serde_json::to_string(&databases).unwrap_or_default();
        let heartbeat = Heartbeat { time: self.time, endpoint: self.endpoint, schema: &schema, partitioning: &self.partitioning };
        kusto.ask(call(target, heartbeat.command(&target.heartbeat_table))).await.map(drop)
    }

    /// The databases of the newest heartbeat that the hub has; none if it does not say.
    async fn told_before(&self, kusto: &dyn Kusto, target: &FederatedTarget) -> Vec<DatabaseSchema> {
        match kusto.ask(call(target, heartbeat::newest(&target.heartbeat_table, self.endpoint))).await {
            Ok(answer) => heartbeat::schema(&answer, 0).and_then(|schema| serde_json::from_str(&schema).ok()).unwrap_or_default(),
            Err(error) => {
                tracing::warn!(
                    hub = target.endpoint,
                    error,
                    "what was told before cannot be read: databases that cannot be read are left out"
                );
                Vec::new()
            }
        }
    }
}

fn call(target: &FederatedTarget, text: String) -> Call {
    let identity = Some(target.managed_identity_client_id.clone()).filter(|id| !id.is_empty() && target.endpoint.starts_with("https://"));
    let (endpoint, database) = (target.endpoint.clone(), target.heartbeat_database.clone());
    Call { endpoint, identity, database, text, now: None, timeout: USUAL }
}

/// The cluster's databases.
async fn read(kusto: &dyn Kusto, endpoint: &str, outcome: &mut Outcome) -> Result<Known, String> {
    let names = names(&ask(kusto, endpoint, DEFAULT_DATABASE, ".show databases | project DatabaseName".to_owned(), USUAL).await?);
    let read = futures::stream::iter(names)
        .map(|name| async move {
            let schema = read_database(kusto, endpoint, &name).await;
            (name, schema)
        })
        .buffered(AT_A_TIME)
        .collect::<Vec<_>>()
        .await;
    let mut known = Known::default();
    for (name, schema) in read {
        match schema {
            Ok((schema, failures)) => {
                outcome.failures.extend(failures);
                let is_default = schema.database == DEFAULT_DATABASE;
                if !is_default || !schema.tables.is_empty() || !schema.views.is_empty() {
                    known.databases.push(schema);
                }
            }
            Err(error) => {
                outcome.failures.push(format!("database {name}: {error}"));
                known.unread.push(name);
            }
        }
    }
    Ok(known)
}

async fn read_database(kusto: &dyn Kusto, endpoint: &str, name: &str) -> Result<(DatabaseSchema, Vec<String>), String> {
    let quoted = quote_name(name);
    let schema = ask(kusto, endpoint, name, format!(".show database {quoted} schema"), SCHEMA).await?;
    let columns = columns_by_table(&schema);
    let declared = |columns: &Vec<(String, String)>| {
        let columns: Vec<String> = columns.iter().map(|(name, ty)| format!("['{name}']:{ty}")).collect();
        columns.join(", ")
    };
    let mut database = DatabaseSchema {
        database: name.to_owned(),
        tables: columns.keys().cloned().collect(),
        table_schemas: columns.iter().map(|(table, columns)| (table.clone(), declared(columns))).collect(),
        views: Vec::new(),
    };
    let functions = names(&ask(kusto, endpoint, name, ".show functions | project Name".to_owned(), USUAL).await?);
    let kinds = futures::stream::iter(functions)
        .map(|function| async move {
            let kind = "| project FunctionKind = tostring(todynamic(Schema).FunctionKind)";
            let text = format!(".show function {} schema as json {kind}", quote_name(&function));
            let kind = ask(kusto, endpoint, name, text, SHORT).await;
            (function, kind.map(|kind| names(&kind).first().is_some_and(|kind| kind == "ViewFunction")))
        })
        .buffered(AT_A_TIME)
        .collect::<Vec<_>>()
        .await;
    let mut failed = Vec::new();
    for (function, is_view) in kinds {
        match is_view {
            Ok(true) => database.views.push(function),
            Ok(false) => {}
            Err(error) => failed.push(format!("{function} ({error})")),
        }
    }
    let failures = match failed.len() {
        0 => Vec::new(),
        count => vec![format!("database {name}: functions that cannot be read: {count}: {}", failed[..count.min(NAMED)].join(", "))],
    };
    Ok((database, failures))
}

async fn ask(kusto: &dyn Kusto, endpoint: &str, database: &str, text: String, timeout: Duration) -> Result<Table, String> {
    let call = Call { endpoint: endpoint.to_owned(), identity: None, database: database.to_owned(), text, now: None, timeout };
    match tokio::time::timeout(timeout * 2, kusto.ask(call)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s", timeout.as_secs() * 2)),
    }
}

/// Texts of the first column.
fn names(table: &Table) -> Vec<String> {
    table.rows.iter().filter_map(|row| row.first()?.as_str().map(str::to_owned)).collect()
}

/// Columns of the tables in the answer of `.show database … schema`, in their order.
pub(super) fn columns_by_table(schema: &Table) -> BTreeMap<String, Vec<(String, String)>> {
    let mut tables: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for row in 0..schema.rows.len() {
        let text = |column: &str| schema.text(row, column).unwrap_or_default();
        let (table, column) = (text("TableName"), text("ColumnName"));
        if table.is_empty() {
            continue;
        }
        let columns = tables.entry(table.to_owned()).or_default();
        if let (false, Some(ty)) = (column.is_empty(), kql_type(text("ColumnType"))) {
            columns.push((column.to_owned(), ty.to_owned()));
        }
    }
    tables
}

/// KQL's name of a type that may be .NET's.
fn kql_type(name: &str) -> Option<&'static str> {
    Some(match name.trim_start_matches("System.") {
        "String" | "string" => "string",
        "Int64" | "long" => "long",
        "Int32" | "int" => "int",
        "Double" | "real" => "real",
        "DateTime" | "datetime" => "datetime",
        "TimeSpan" | "timespan" => "timespan",
        "Object" | "dynamic" => "dynamic",
        "SByte" | "Boolean" | "bool" => "bool",
        "Guid" | "guid" => "guid",
        "Data.SqlTypes.SqlDecimal" | "decimal" => "decimal",
        _ => return None,
    })
}
