//! What the binder asks of the database: tables, stored functions, and rows where columns depend on data.

use crate::eval::EvalContext;
use crate::rows::{self, NoTables, Rows, RunContext};
use crate::tree::{Rel, Remote};
use crate::types::Column;

/// A stored table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    /// Database that holds it.
    pub database: String,
    /// Its name.
    pub name: String,
    /// Its columns in order.
    pub columns: Vec<Column>,
}

/// A stored function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFunction {
    /// Its name.
    pub name: String,
    /// The parameter list with parentheses: `(T:(Timestamp:datetime), interval:timespan=1m)`.
    pub parameters: String,
    /// The body with braces: `{ … }`.
    pub body: String,
    /// Wildcards of `union` and `search` find it.
    pub view: bool,
}

/// Why the columns of a query of another cluster are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// The cluster refused it: what it names does not exist there, or is wrong.
    #[error("{0}")]
    Refused(String),
    /// The cluster did not answer, or was not asked.
    #[error("{0}")]
    Unavailable(String),
}

/// The database as the binder sees it. `None` as database means the one of [`crate::BindOptions`].
pub trait Catalog {
    /// The table of that name.
    fn table(&self, database: Option<&str>, name: &str) -> Option<TableSchema>;

    /// The stored function of that name.
    fn function(&self, database: Option<&str>, name: &str) -> Option<StoredFunction>;

    /// All tables whose name matches the wildcard (`*` stands for any text), in order of name.
    fn tables(&self, database: Option<&str>, wildcard: &str) -> Vec<TableSchema>;

    /// Names of the stored views whose name matches the wildcard, in order. Unless overridden there are none.
    fn views(&self, _database: Option<&str>, _wildcard: &str) -> Vec<String> {
        Vec::new()
    }

    /// Names of the databases.
    fn databases(&self) -> Vec<String>;

    /// The entities of the stored entity group of that name, as KQL: `cluster('c').database('d')`.
    ///
    /// # Errors
    /// There is none of that name, or, unless overridden, it is not known which there are.
    fn entity_group(&self, _name: &str) -> Result<Vec<String>, RemoteError> {
        Err(RemoteError::Unavailable("entity groups are not known here".to_owned()))
    }

    /// The address of the cluster that `cluster(name)` names; `None` is this one, which unless overridden has every name.
    ///
    /// # Errors
    /// Why queries may not reach it.
    fn cluster(&self, _name: &str) -> Result<Option<String>, String> {
        Ok(None)
    }

    /// The columns of queries of other clusters, all of which are asked at the same time.
    fn remote_columns(&self, queries: &[Remote]) -> Vec<Result<Vec<Column>, RemoteError>> {
        queries.iter().map(|_| Err(RemoteError::Unavailable("queries of other clusters cannot be run here".to_owned()))).collect()
    }

    /// Told what a result lacks.
    fn warn(&self, _message: String) {}

    /// What `current_cluster_endpoint()` answers: host and port.
    fn endpoint(&self) -> String {
        String::new()
    }

    /// Runs a plan, where binding depends on data: columns of `bag_unpack` and `pivot`, constants that are queries.
    /// Unless overridden there are no stored tables to read.
    fn run(&self, rel: &Rel) -> Result<Rows, String> {
        let mut context = RunContext::new(&NoTables, EvalContext::new(0));
        rows::run(rel, &mut context).map_err(|error| error.to_string())
    }
}

/// A catalog without tables and functions: for queries that bring their own data.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmptyCatalog;

impl Catalog for EmptyCatalog {
    fn table(&self, _database: Option<&str>, _name: &str) -> Option<TableSchema> {
        None
    }

    fn function(&self, _database: Option<&str>, _name: &str) -> Option<StoredFunction> {
        None
    }

    fn tables(&self, _database: Option<&str>, _wildcard: &str) -> Vec<TableSchema> {
        Vec::new()
    }

    fn databases(&self) -> Vec<String> {
        Vec::new()
    }
}
