//! What a hub has to run so that it is as its partitions are: entity groups, tables, functions, and what goes with the last
//! partition that had a database.

use std::collections::{BTreeMap, BTreeSet};

use kusto::text::{quote_name, quote_string_single};

use super::topology::{Column, DatabaseTopology, TableTopology, Topology};

/// Longest script that Kusto takes.
pub const LONGEST_SCRIPT: usize = 1 << 20;
/// How a script begins.
pub const PREAMBLE: &str = ".execute database script with (ContinueOnErrors=true)\n<|\n";
/// Columns of a table that no partition describes: those that logs have.
const LOGS: [(&str, &str); 9] = [
    ("Timestamp", "datetime"),
    ("ObservedTimestamp", "datetime"),
    ("TraceId", "string"),
    ("SpanId", "string"),
    ("SeverityText", "string"),
    ("SeverityNumber", "int"),
    ("Body", "dynamic"),
    ("Resource", "dynamic"),
    ("Attributes", "dynamic"),
];
/// What the names of groups end with.
const SPOKE: &str = "Spoke";

/// A hub's database as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubDatabase {
    /// Elements of its entity groups.
    pub groups: BTreeMap<String, Vec<String>>,
    /// Columns of its tables.
    pub tables: BTreeMap<String, Vec<Column>>,
    /// Bodies of its functions.
    pub functions: BTreeMap<String, String>,
}

/// What has to run in the hub's database of that name, in order; nothing if it is as it shall be.
///
/// Groups of all databases are in each, as the reference has them; tables and functions in the one of their name. A group is
/// replaced in one step, so that no query comes between. With no partition at all nothing is taken away: more likely the
/// heartbeats are at fault.
pub fn statements(name: &str, hub: &HubDatabase, topology: &Topology) -> Vec<String> {
    if topology.partitions == 0 {
        return Vec::new();
    }
    let mut statements = Vec::new();
    for (database, of) in &topology.databases {
        let group = format!("{database}{SPOKE}");
        if hub.groups.get(&group).map(Vec::as_slice).map(normal) != Some(normal(&entities(database, of))) {
            statements.push(define_group(database, of));
        }
    }
    if let Some(database) = topology.databases.get(name) {
        let tables = database.tables.iter().filter(|(_, table)| table.is_table);
        statements.extend(tables.filter_map(|(table, of)| define_table(table, of, hub.tables.get(table))));
        let changed =
            |table: &&String| hub.functions.get(*table).is_none_or(|body| normal_text(body) != normal_text(&body_of(name, table)));
        statements.extend(database.tables.keys().filter(changed).map(|table| define_function(name, table)));
    }
    // what no partition has any more, if it is ours
    let known = |table: &str| topology.databases.get(name).is_some_and(|database| database.tables.contains_key(table));
    for (function, body) in &hub.functions {
        if !known(function) && is_ours(body, name, function) {
            statements.push(format!(".drop function {} ifexists", quote_name(function)));
        }
    }
    for (group, entities) in &hub.groups {
        let of = group.strip_suffix(SPOKE).filter(|database| !topology.databases.contains_key(*database));
        if of.is_some_and(|database| entities.iter().all(|entity| is_database(entity, database))) {
            statements.push(format!(".drop entity_group {}", quote_name(group)));
        }
    }
    statements
}

/// Elements of the group of a database.
fn entities(database: &str, of: &DatabaseTopology) -> Vec<String> {
    let entity = |endpoint: &String| format!("cluster({}).database({})", quote_string_single(endpoint), quote_string_single(database));
    of.endpoints.iter().map(entity).collect()
}

/// The command for the group of a database, with its partitions in order of their addresses.
pub fn define_group(database: &str, of: &DatabaseTopology) -> String {
    let name = quote_name(&format!("{database}{SPOKE}"));
    format!(".create-or-alter entity_group {name} ({})", entities(database, of).join(", "))
}

/// The command for a table, if the hub lacks it or columns of it.
fn define_table(name: &str, of: &TableTopology, there: Option<&Vec<Column>>) -> Option<String> {
    let logs = || LOGS.iter().map(|(name, ty)| ((*name).to_owned(), (*ty).to_owned())).collect();
    let wanted: Vec<Column> = match (of.columns.is_empty(), there) {
        (true, Some(_)) => return None,
        (true, None) => logs(),
        (false, _) => of.columns.clone(),
    };
    // a column that the hub has with another type stays as it is there
    let is_new = |column: &&Column| there.is_none_or(|there| !there.iter().any(|(name, _)| *name == column.0));
    let columns: Vec<String> = wanted.iter().filter(is_new).map(|(name, ty)| format!("{}:{ty}", quote_name(name))).collect();
    (!columns.is_empty()).then(|| format!(".create-merge table {} ({})", quote_name(name), columns.join(", ")))
}

/// The command for the function over a table of all partitions. It is not validated: that would ask them.
pub fn define_function(database: &str, table: &str) -> String {
    format!(".create-or-alter function with (skipvalidation=true) {}() {}", quote_name(table), body_of(database, table))
}

fn body_of(database: &str, table: &str) -> String {
    let group = quote_name(&format!("{database}{SPOKE}"));
    format!("{{ macro-expand isfuzzy=true best_effort=true {group} as X ( X.{} ) }}", quote_name(table))
}

/// Whether a function is one that this operator or the reference's made.
fn is_ours(body: &str, database: &str, table: &str) -> bool {
    let reference = format!("{{ macro-expand isfuzzy=true best_effort=true {database}{SPOKE} as X ( X.{table} ) }}");
    [reference, body_of(database, table)].iter().any(|ours| normal_text(ours) == normal_text(body))
}

/// Whether an element of a group is that database of another cluster.
fn is_database(entity: &str, database: &str) -> bool {
    let entity = normal_text(entity);
    entity.starts_with("cluster('") && entity.ends_with(&format!(".database({})", normal_text(&quote_string_single(database))))
}

/// Without blanks, and with one kind of quotes: services write what they store in their own way.
fn normal_text(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).map(|c| if c == '"' { '\'' } else { c }).collect()
}

fn normal(entities: &[String]) -> BTreeSet<String> {
    entities.iter().map(|entity| normal_text(entity)).collect()
}

/// Scripts of no more than `longest` bytes with all the statements, each behind a line of its own; a statement that is longer
/// has a script alone.
pub fn scripts(statements: &[String], longest: usize) -> Vec<Vec<String>> {
    let mut scripts: Vec<Vec<String>> = Vec::new();
    let mut size = 0;
    for statement in statements {
        let piece = format!("//\n{statement}\n");
        match scripts.last_mut() {
            Some(script) if size + piece.len() <= longest => {
                size += piece.len();
                script.push(piece);
            }
            _ => {
                size = PREAMBLE.len() + piece.len();
                scripts.push(vec![piece]);
            }
        }
    }
    scripts
}
