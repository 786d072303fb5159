//! One consistent view of all tables, taken once per query: rows that arrive later are not in it, and no row is in it
//! twice while it moves from memory into an extent.

mod bounds;
mod scan;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use kql::Column;
use kql::catalog::{RemoteError, StoredFunction, TableSchema};
use kql::rows::Rows;
use kql::tree::{Rel, Remote};

use crate::catalog::{Database, Image, Table, TableId};
use crate::engine::{Branch, QueryLimits, TableSource};
use crate::remote::{Clusters, RemoteScan};
use crate::storage::{Storage, StorageError, TableData};
use scan::TableScan;

/// The view.
pub(crate) struct Snapshot {
    image: Arc<Image>,
    data: HashMap<TableId, Arc<TableData>>,
    /// Host and port of the service.
    endpoint: Arc<str>,
    /// Other clusters.
    clusters: Arc<Clusters>,
}

impl Snapshot {
    /// The present state.
    pub(crate) fn take(storage: &Storage, endpoint: &str, clusters: &Arc<Clusters>) -> Snapshot {
        let (image, data) = storage.view();
        Snapshot { image, data, endpoint: endpoint.into(), clusters: clusters.clone() }
    }

    /// The same, but `table` has just these rows, which come at time `now`.
    pub(crate) fn with_only(mut self, table: &Table, batches: &[RecordBatch], now: i64) -> Result<Snapshot, StorageError> {
        self.data.insert(table.id, Arc::new(TableData::of(batches, now)?));
        Ok(self)
    }

    /// Databases, tables and functions.
    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    /// Rows of a table.
    pub(crate) fn data(&self, table: TableId) -> Arc<TableData> {
        self.data.get(&table).cloned().unwrap_or_default()
    }
}

impl TableSource for Snapshot {
    fn scan(&self, database: &str, table: &str) -> Option<Arc<dyn TableProvider>> {
        let table = self.image.table(database, table)?;
        Some(Arc::new(TableScan::new(table.clone(), self.data(table.id))))
    }

    fn remote(&self, remote: &Remote, columns: &[Column], limits: &QueryLimits, branch: Option<Branch>) -> Option<Arc<dyn TableProvider>> {
        Some(Arc::new(RemoteScan::new(self.clusters.clone(), remote.clone(), columns, limits.clone(), branch)))
    }
}

/// The names that the binder sees from within one database.
pub(crate) struct Names {
    /// The view.
    pub(crate) snapshot: Arc<Snapshot>,
    /// Database of unqualified names.
    pub(crate) database: String,
    /// Limits of what the binder has to run.
    pub(crate) limits: QueryLimits,
    /// Whether other clusters are asked.
    pub(crate) asks: bool,
}

impl Names {
    fn database_of(&self, name: Option<&str>) -> Option<&Arc<Database>> {
        self.snapshot.image.database(name.unwrap_or(&self.database))
    }
}

fn schema(table: &Table) -> TableSchema {
    TableSchema { database: table.database.to_string(), name: table.name.to_string(), columns: table.schema() }
}

impl kql::catalog::Catalog for Names {
    fn table(&self, database: Option<&str>, name: &str) -> Option<TableSchema> {
        self.database_of(database)?.tables.get(name).map(|table| schema(table))
    }

    fn function(&self, database: Option<&str>, name: &str) -> Option<StoredFunction> {
        let function = self.database_of(database)?.functions.get(name)?;
        Some(StoredFunction {
            name: function.name.clone(),
            parameters: function.parameters.clone(),
            body: function.body.clone(),
            view: function.view,
        })
    }

    fn views(&self, database: Option<&str>, wildcard: &str) -> Vec<String> {
        let Some(database) = self.database_of(database) else { return Vec::new() };
        let views = database.functions.values().filter(|function| function.view && matches_wildcard(&function.name, wildcard));
        views.map(|function| function.name.clone()).collect()
    }

    fn tables(&self, database: Option<&str>, wildcard: &str) -> Vec<TableSchema> {
        let Some(database) = self.database_of(database) else { return Vec::new() };
        database.tables.values().filter(|table| matches_wildcard(&table.name, wildcard)).map(|table| schema(table)).collect()
    }

    fn databases(&self) -> Vec<String> {
        self.snapshot.image.databases.keys().map(ToString::to_string).collect()
    }

    fn entity_group(&self, name: &str) -> Result<Vec<String>, RemoteError> {
        let group = self.database_of(None).and_then(|database| database.entity_groups.get(name));
        let group = group.ok_or_else(|| RemoteError::Refused(format!("there is no entity group '{name}'")))?;
        Ok(group.iter().map(|entity| entity.text.clone()).collect())
    }

    fn cluster(&self, name: &str) -> Result<Option<String>, String> {
        self.snapshot.clusters.resolve(name, &self.snapshot.image)
    }

    fn remote_columns(&self, queries: &[Remote]) -> Vec<Result<Vec<Column>, RemoteError>> {
        if self.asks {
            return self.snapshot.clusters.columns(queries, &self.limits);
        }
        let not_asked = || Err(RemoteError::Unavailable("other clusters are not asked here".to_owned()));
        queries.iter().map(|_| not_asked()).collect()
    }

    fn warn(&self, message: String) {
        self.limits.warnings.add(message);
    }

    fn endpoint(&self) -> String {
        self.snapshot.endpoint.to_string()
    }

    fn run(&self, rel: &Rel) -> Result<Rows, String> {
        let source: Arc<dyn TableSource> = self.snapshot.clone();
        crate::engine::run_rel_blocking(rel, source, self.limits.clone()).map_err(|error| error.to_string())
    }
}

/// Whether `name` fits `wildcard`, in which `*` stands for any text.
fn matches_wildcard(name: &str, wildcard: &str) -> bool {
    let Some((head, tail)) = wildcard.split_once('*') else { return name == wildcard };
    let Some(mut rest) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = tail.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (name, wildcard, fits) in [
            ("Cpu", "*", true),
            ("Cpu", "C*", true),
            ("Cpu", "*u", true),
            ("Cpu", "C*x*", false),
            ("CpuLoadTotal", "Cpu*Total", true),
            ("Cpu", "Cpu", true),
            ("Cpu", "cpu*", false),
            ("ab", "ab*b", false),
        ] {
            assert_eq!(matches_wildcard(name, wildcard), fits, "{name} {wildcard}");
        }
    }
}
