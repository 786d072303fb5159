//! Management commands as values.

use std::collections::BTreeMap;

use kql::Type;
use kql::binder::EntityReference;

/// `with (name = value, …)`, names in lower case.
pub(crate) type Properties = BTreeMap<String, String>;
/// Column names and types of a table definition.
pub(crate) type Columns = Vec<(String, Type)>;

/// A command, and where its text goes on with query operators.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parsed {
    /// What to do.
    pub(crate) command: Command,
    /// Byte of the `|` behind the command.
    pub(crate) pipe: Option<usize>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    /// `.create table(s)`, `.create-merge table(s)`, `.alter table`, `.alter-merge table(s)`
    DefineTables { how: Define, tables: Vec<(String, Columns)>, properties: Properties },
    /// `.drop table T ifexists`, `.drop tables (T1, T2)`
    DropTables { names: Vec<String>, if_exists: bool },
    /// `.rename table A to B`
    RenameTable { from: String, to: String },
    /// `.alter column T.c type = ty`
    AlterColumn { table: String, column: String, ty: Type },
    /// `.rename column T.c to d`
    RenameColumn { table: String, column: String, to: String },
    /// `.drop column T.c`, `.drop table T columns (a, b)`
    DropColumns { table: String, columns: Vec<String> },
    /// `.alter table T folder|docstring "…"`
    Describe { table: String, folder: Option<String>, docstring: Option<String> },
    /// `.clear table T data`
    ClearTable { table: String },
    /// `.create function`, `.create-or-alter function`, `.alter function`
    DefineFunction { how: DefineFunction, name: String, parameters: String, body: String, body_at: usize, properties: Properties },
    /// `.create entity_group G (cluster('c').database('d'))`, `.create-or-alter …`, `.alter …`, `.alter-merge …`
    DefineEntityGroup { how: DefineGroup, name: String, entities: Vec<EntityReference> },
    /// `.drop entity_group G`
    DropEntityGroup { name: String, if_exists: bool },
    /// `.drop function F ifexists`
    DropFunction { name: String, if_exists: bool },
    /// `.create(-or-alter) table T ingestion csv mapping "M" '[…]'`
    DefineMapping { table: String, kind: String, name: String, json: String, or_alter: bool },
    /// `.drop table T ingestion csv mapping "M"`
    DropMapping { table: String, kind: String, name: String },
    /// `.ingest inline into table T with (…) <| data`
    IngestInline { table: String, properties: Properties, data: usize },
    /// `.set`, `.append`, `.set-or-append`, `.set-or-replace` `[async] T <| query`
    FromQuery { asynchronous: bool, how: Fill, table: String, properties: Properties, query: usize },
    /// `.execute database script <| commands`, `.execute cluster script <| commands`
    ExecuteScript { cluster: bool, properties: Properties, script: usize },
    /// `.create database D ifnotexists`
    CreateDatabase { name: String, if_not_exists: bool },
    /// `.drop database D`
    DropDatabase { name: String, if_exists: bool },
    /// `.alter …  policy`, `.alter-merge … policy`
    SetPolicy { scope: Scope, kind: String, policy: String, merge: bool },
    /// `.delete … policy`
    DeletePolicy { scope: Scope, kind: String },
    /// `.clear database cache query_results` and its like: there is no such cache
    ClearCache,
    /// `.show …`
    Show(Show),
}

impl Command {
    /// Whether it is about a database, and so needs one that exists.
    pub(crate) fn needs_database(&self) -> bool {
        let own = matches!(
            self,
            Command::CreateDatabase { .. }
                | Command::DropDatabase { .. }
                | Command::Show(_)
                | Command::ClearCache
                | Command::ExecuteScript { cluster: true, .. }
                | Command::SetPolicy { scope: Scope::Cluster | Scope::Database(_), .. }
                | Command::DeletePolicy { scope: Scope::Cluster | Scope::Database(_), .. }
        );
        !own
    }

    /// The operation's name, as `.show operations` gives it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::DefineTables { how: Define::Create | Define::CreateMerge, .. } => "TableCreate",
            Command::DefineTables { .. } => "TableAlter",
            Command::DropTables { .. } => "TableDrop",
            Command::RenameTable { .. } => "TableRename",
            Command::AlterColumn { .. } => "ColumnAlter",
            Command::RenameColumn { .. } => "ColumnRename",
            Command::DropColumns { .. } => "ColumnDrop",
            Command::Describe { .. } => "TableDescribe",
            Command::ClearTable { .. } => "TableClear",
            Command::DefineFunction { .. } => "FunctionCreateOrAlter",
            Command::DropFunction { .. } => "FunctionDrop",
            Command::DefineEntityGroup { .. } => "EntityGroupCreateOrAlter",
            Command::DropEntityGroup { .. } => "EntityGroupDrop",
            Command::DefineMapping { .. } => "MappingCreateOrAlter",
            Command::DropMapping { .. } => "MappingDrop",
            Command::IngestInline { .. } => "DataIngestInline",
            Command::ExecuteScript { cluster: false, .. } => "ExecuteDatabaseScript",
            Command::ExecuteScript { cluster: true, .. } => "ExecuteClusterScript",
            Command::FromQuery { how: Fill::Set, .. } => "TableSet",
            Command::FromQuery { how: Fill::Append, .. } => "TableAppend",
            Command::FromQuery { how: Fill::SetOrAppend, .. } => "TableSetOrAppend",
            Command::FromQuery { how: Fill::SetOrReplace, .. } => "TableSetOrReplace",
            Command::CreateDatabase { .. } => "DatabaseCreate",
            Command::DropDatabase { .. } => "DatabaseDrop",
            Command::SetPolicy { .. } => "PolicyAlter",
            Command::DeletePolicy { .. } => "PolicyDelete",
            Command::ClearCache => "CacheClear",
            Command::Show(_) => "Show",
        }
    }
}

/// Ways to define a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Define {
    /// Nothing happens when it exists.
    Create,
    /// New columns are added; the table is created when missing.
    CreateMerge,
    /// The columns become exactly these; the table must exist.
    Alter,
    /// New columns are added; the table must exist.
    AlterMerge,
}

/// Ways to define a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DefineFunction {
    /// An error when it exists.
    Create,
    /// Nothing happens when it exists.
    CreateIfNotExists,
    /// Replaces.
    CreateOrAlter,
    /// Must exist.
    Alter,
}

/// Ways to define an entity group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DefineGroup {
    /// An error when it exists.
    Create,
    /// Nothing happens when it exists.
    CreateIfNotExists,
    /// Replaces.
    CreateOrAlter,
    /// Must exist.
    Alter,
    /// Must exist; the entities come to those that it has.
    AlterMerge,
}

/// Ways to fill a table from a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// The table must not exist.
    Set,
    /// The table must exist.
    Append,
    /// Creates the table when missing.
    SetOrAppend,
    /// All other rows go.
    SetOrReplace,
}

impl Fill {
    /// The command's verb.
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Fill::Set => ".set",
            Fill::Append => ".append",
            Fill::SetOrAppend => ".set-or-append",
            Fill::SetOrReplace => ".set-or-replace",
        }
    }
}

/// What a policy is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everything.
    Cluster,
    /// A database.
    Database(String),
    /// A table of the request's database.
    Table(String),
}

/// Forms of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SchemaForm {
    /// One row per column.
    Rows,
    /// One cell of JSON.
    Json,
    /// One cell of `name:type,…`.
    Csl,
}

/// What to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Show {
    /// `.show tables`, `.show table T`
    Tables(Option<Vec<String>>),
    /// `.show tables details`, `.show table T details`
    TableDetails(Option<Vec<String>>),
    /// `.show table T schema as json`, `.show table T cslschema`
    TableSchema(String, SchemaForm),
    /// `.show databases`
    Databases,
    /// `.show databases (a, b) schema as json`, `.show database D schema`
    DatabasesSchema(Option<Vec<String>>, SchemaForm),
    /// `.show functions`, `.show function F`
    Functions(Option<String>),
    /// `.show function F schema as json`
    FunctionSchema(String),
    /// `.show entity_groups`, `.show entity_group G`
    EntityGroups(Option<String>),
    /// `.show database D ingestion mappings`, `.show table T ingestion csv mapping(s) "M"`
    Mappings { scope: Scope, kind: Option<String>, name: Option<String> },
    /// `.show cluster`
    Cluster,
    /// `.show cluster details`
    ClusterDetails,
    /// `.show version`
    Version,
    /// `.show extents`, `.show database D extents`, `.show table T extents`
    Extents(Option<Scope>),
    /// `.show operations`, with an id
    Operations(Option<String>),
    /// `.show capacity`
    Capacity,
    /// `.show principal roles`, `.show database D principals`
    Principals,
    /// `.get ingestion resources`
    IngestionResources,
    /// `.get kusto identity token`
    IdentityToken,
    /// `.show ingestion failures`, with an id
    IngestionFailures(Option<String>),
    /// `.show … policy retention`
    Policy { scope: Scope, kind: String },
}
