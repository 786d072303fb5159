//! Update policies: rows that come to a table also go, through a query over just them, to the tables that name it as
//! their source. Rows of source and targets become durable and visible at once.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use kql::Column;

use crate::catalog::{Database, Image, Table};
use crate::commands;
use crate::error::KustoError;
use crate::query::{self, QueryOptions};
use crate::service::Kustd;
use crate::snapshot::Snapshot;
use crate::storage::{Ingested, NewRows};

/// The kind of policy.
pub(crate) const KIND: &str = "update";
/// Longest chain of tables that feed one another.
const LONGEST_CHAIN: usize = 10;

/// One entry of a table's policy.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Entry {
    #[serde(default = "enabled")]
    is_enabled: bool,
    source: String,
    query: String,
    #[serde(default)]
    is_transactional: bool,
    #[serde(default)]
    propagate_ingestion_properties: bool,
    /// There are no identities here, but policies of a cluster may name one.
    #[serde(default, rename = "ManagedIdentity")]
    _managed_identity: Option<String>,
}

fn enabled() -> bool {
    true
}

fn entries(policy: &str) -> Result<Vec<Entry>, serde_json::Error> {
    serde_json::from_str::<Option<Vec<Entry>>>(policy).map(Option::unwrap_or_default)
}

fn entries_of(table: &Table) -> Vec<Entry> {
    // it was checked when it was set
    table.policies.get(KIND).map(|policy| entries(policy).unwrap_or_default()).unwrap_or_default()
}

/// The targets of a table: tables with enabled entries that name it.
fn targets(database: &Database, source: &str) -> Vec<(Arc<Table>, Entry)> {
    let with_policy = database.tables.values().filter(|table| table.policies.contains_key(KIND));
    let found = with_policy.flat_map(|table| entries_of(table).into_iter().map(|entry| (table.clone(), entry)));
    found.filter(|(_, entry)| entry.is_enabled && entry.source == source).collect()
}

/// Refuses a policy that is not one, that would feed a table from itself, or whose queries do not give the rows of
/// `table`.
pub(crate) fn check(kustd: &Kustd, database: &str, table: &str, policy: &str) -> Result<(), KustoError> {
    let wrong = |what: String| KustoError::bad_request(format!("the update policy of table '{table}': {what}"));
    let form = r#"[{"IsEnabled":true,"Source":"S","Query":"F()","IsTransactional":true,"PropagateIngestionProperties":false}]"#;
    let entries = entries(policy).map_err(|error| wrong(format!("{error}; it is an array such as {form}")))?;
    let snapshot = kustd.snapshot();
    let image = snapshot.image();
    let stored = image.database(database).ok_or_else(|| KustoError::not_found("Database", database))?;
    let target = kustd.table(database, table)?;
    let snapshot = Arc::new(kustd.snapshot());
    for entry in entries.iter().filter(|entry| entry.is_enabled) {
        if !stored.tables.contains_key(entry.source.as_str()) {
            return Err(wrong(format!("its source '{}' is no table of the database", entry.source)));
        }
        check_chain(stored, &entry.source, table).map_err(wrong)?;
        let mut results = query::bound_columns(snapshot.clone(), database, &entry.query, kustd.now())?;
        let [columns] = results.as_mut_slice() else { return Err(wrong("its query must have one result".to_owned())) };
        check_columns(&target, columns).map_err(wrong)?;
    }
    Ok(())
}

/// Follows the sources of `source`, of which `table` must not be one.
fn check_chain(database: &Database, source: &str, table: &str) -> Result<(), String> {
    let mut sources = vec![source.to_owned()];
    let mut seen = sources.clone();
    for _ in 0..LONGEST_CHAIN {
        if sources.iter().any(|source| source == table) {
            return Err(format!("its source '{source}' is fed from it, so that rows would go round for ever"));
        }
        let above = sources.iter().filter_map(|source| database.tables.get(source.as_str())).flat_map(|table| entries_of(table));
        let mut above: Vec<String> = above.filter(|entry| entry.is_enabled).map(|entry| entry.source).collect();
        above.retain(|source| !seen.contains(source) || source == table);
        if above.is_empty() {
            return Ok(());
        }
        seen.extend(above.iter().cloned());
        sources = above;
    }
    Err(format!("more than {LONGEST_CHAIN} tables would feed one another"))
}

/// The columns of the query are those of the table: names, types, order.
fn check_columns(table: &Table, columns: &[Column]) -> Result<(), String> {
    let wanted = table.schema();
    if wanted == columns {
        return Ok(());
    }
    let list = |columns: &[Column]| columns.iter().map(|column| format!("{}:{}", column.name, column.ty)).collect::<Vec<_>>().join(", ");
    Err(format!("its query gives ({}), the table has ({})", list(columns), list(&wanted)))
}

/// Makes rows of `table` durable and visible, with those that its targets get from them.
pub(crate) async fn ingest(kustd: &Arc<Kustd>, table: Arc<Table>, rows: RecordBatch, batch_id: &[u8]) -> Result<Ingested, KustoError> {
    let mut all = vec![NewRows { table, batches: vec![rows], tags: Vec::new(), replace: false }];
    derive(kustd, &mut all).await?;
    Ok(kustd.storage.ingest(all, batch_id, kustd.now()).await?)
}

/// Appends the rows that targets get from the first entry of `rows`, and targets of targets from those.
pub(crate) async fn derive(kustd: &Arc<Kustd>, rows: &mut Vec<NewRows>) -> Result<(), KustoError> {
    let mut level = 0..rows.len();
    // a chain is checked when a policy is set; this is for one that came about by renaming
    for _ in 0..=LONGEST_CHAIN {
        for at in level.clone() {
            if rows[at].batches.iter().any(|batch| batch.num_rows() > 0) {
                derive_from(kustd, rows, at).await?;
            }
        }
        level = level.end..rows.len();
        if level.is_empty() {
            return Ok(());
        }
    }
    let name = &rows[0].table.name;
    Err(KustoError::bad_request(format!("more than {LONGEST_CHAIN} update policies are chained behind table '{name}'")))
}

async fn derive_from(kustd: &Arc<Kustd>, rows: &mut Vec<NewRows>, at: usize) -> Result<(), KustoError> {
    let source = rows[at].table.clone();
    let image: Arc<Image> = kustd.storage.catalog().image();
    let Some(database) = image.database(&source.database) else { return Ok(()) };
    let targets = targets(database, &source.name);
    if targets.is_empty() {
        return Ok(());
    }
    let only_new = Arc::new(kustd.snapshot().with_only(&source, &rows[at].batches, kustd.now())?);
    for (target, entry) in targets {
        let tags = if entry.propagate_ingestion_properties { rows[at].tags.clone() } else { Vec::new() };
        match derived(kustd, only_new.clone(), &target, &entry.query).await {
            Ok(batches) => rows.push(NewRows { table: target, batches, tags, replace: false }),
            Err(error) if entry.is_transactional => {
                let message = format!("the update policy of table '{}' over '{}' failed: {}", target.name, source.name, error.message);
                return Err(KustoError { message, ..error });
            }
            Err(error) => {
                kustd.metrics.update_policy_failures.inc();
                tracing::error!(table = %target.name, source = %source.name, %error, "an update policy failed; its table does not get these rows");
            }
        }
    }
    Ok(())
}

async fn derived(kustd: &Kustd, rows: Arc<Snapshot>, target: &Table, query: &str) -> Result<Vec<RecordBatch>, KustoError> {
    let options = QueryOptions { no_truncation: true, ..QueryOptions::default() };
    let answer = query::run(rows, &target.database, query, &options, kustd.now()).await?;
    let [result] = <[_; 1]>::try_from(answer.tables).map_err(|_| KustoError::bad_request("its query must have one result"))?;
    check_columns(target, &result.columns).map_err(KustoError::bad_request)?;
    result.batches.iter().map(|batch| commands::fit(target, &result.columns, batch)).collect()
}
