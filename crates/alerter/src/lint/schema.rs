//! Tables and functions that queries are bound against: out of the JSON of `.show database schema as json`, or of commands
//! that create them.

use std::collections::BTreeMap;

use kql::lexer::{Token, TokenKind, tokenize};
use kql::{Catalog, Column, StoredFunction, TableSchema, Type};
use serde_json::Value;

/// Tables and functions of one database.
#[derive(Debug, Clone, Default)]
struct Database {
    tables: BTreeMap<String, Vec<Column>>,
    functions: BTreeMap<String, StoredFunction>,
}

/// What queries may use.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    databases: BTreeMap<String, Database>,
    /// Of commands, which name no database: the same for all.
    everywhere: Option<Database>,
}

/// What is wrong with a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(String);

impl Schema {
    /// Reads a schema file: JSON if it begins with a brace, otherwise commands.
    ///
    /// # Errors
    /// Where it is neither, or a command cannot be read.
    pub fn read(text: &str) -> Result<Schema, SchemaError> {
        if text.trim_start().starts_with(['{', '[']) { Schema::of_json(text) } else { Schema::of_commands(text) }
    }

    /// Adds another schema.
    pub fn merge(&mut self, other: Schema) {
        self.databases.extend(other.databases);
        self.everywhere = other.everywhere.or(self.everywhere.take());
    }

    /// Whether there is such a database.
    pub(super) fn has(&self, database: &str) -> bool {
        self.everywhere.is_some() || self.databases.contains_key(database)
    }

    /// Names of the databases.
    pub(super) fn names(&self) -> Vec<String> {
        self.databases.keys().cloned().collect()
    }

    fn of_json(text: &str) -> Result<Schema, SchemaError> {
        let bad = |why: String| SchemaError(format!("the schema is not what `.show database schema as json` answers: {why}"));
        let json: Value = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
        let databases = json["Databases"].as_object().ok_or_else(|| bad("there is no \"Databases\"".to_owned()))?;
        let databases = databases.iter().map(|(name, json)| Ok((name.clone(), database_of_json(json).map_err(bad)?)));
        Ok(Schema { databases: databases.collect::<Result<_, SchemaError>>()?, everywhere: None })
    }

    fn of_commands(text: &str) -> Result<Schema, SchemaError> {
        let mut database = Database::default();
        if !text.trim().is_empty() && commands(text).is_empty() {
            let why = "the schema has no command: each begins at the beginning of a line, such as .create table T (Value: real)";
            return Err(SchemaError(why.to_owned()));
        }
        for (line, command) in commands(text) {
            read_command(command, &mut database).map_err(|why| SchemaError(format!("line {line} of the schema: {why}")))?;
        }
        Ok(Schema { databases: BTreeMap::new(), everywhere: Some(database) })
    }
}

fn database_of_json(json: &Value) -> Result<Database, String> {
    let mut database = Database::default();
    for kind in ["Tables", "ExternalTables", "MaterializedViews"] {
        for (name, table) in json[kind].as_object().into_iter().flatten() {
            let columns = table["OrderedColumns"].as_array().into_iter().flatten().map(column_of_json);
            database.tables.insert(name.clone(), columns.collect::<Result<_, _>>().map_err(|why| format!("table {name}: {why}"))?);
        }
    }
    for (name, function) in json["Functions"].as_object().into_iter().flatten() {
        let parameters: Vec<String> = function["InputParameters"].as_array().into_iter().flatten().map(parameter_of_json).collect();
        let body = function["Body"].as_str().unwrap_or_default().to_owned();
        let view = function["FunctionKind"] == "ViewFunction";
        let stored = StoredFunction { name: name.clone(), parameters: format!("({})", parameters.join(", ")), body, view };
        database.functions.insert(name.clone(), stored);
    }
    Ok(database)
}

fn column_of_json(json: &Value) -> Result<Column, String> {
    let name = json["Name"].as_str().ok_or("a column without a name")?;
    let ty = json["CslType"].as_str().unwrap_or("string");
    Ok(Column::new(name, Type::parse(ty).ok_or_else(|| format!("column {name} has the unknown type {ty}"))?))
}

fn parameter_of_json(json: &Value) -> String {
    let name = json["Name"].as_str().unwrap_or_default();
    match (json["Columns"].as_array(), json["CslType"].as_str()) {
        (Some(columns), _) if !columns.is_empty() => {
            let column = |c: &Value| format!("{}: {}", c["Name"].as_str().unwrap_or_default(), c["CslType"].as_str().unwrap_or("string"));
            format!("{name}: ({})", columns.iter().map(column).collect::<Vec<_>>().join(", "))
        }
        (Some(_), None) => format!("{name}: (*)"),
        (_, ty) => match json["CslDefaultValue"].as_str() {
            Some(default) => format!("{name}: {} = {default}", ty.unwrap_or("string")),
            None => format!("{name}: {}", ty.unwrap_or("string")),
        },
    }
}

/// The commands of a text, each with its first line: one begins where a line begins with a dot.
fn commands(text: &str) -> Vec<(usize, &str)> {
    let mut starts: Vec<(usize, usize)> = Vec::new();
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if line.starts_with('.') {
            starts.push((index + 1, offset));
        }
        offset += line.len();
    }
    let ends: Vec<usize> = starts.iter().skip(1).map(|(_, start)| *start).chain([text.len()]).collect();
    starts.iter().zip(ends).map(|((line, start), end)| (*line, &text[*start..end])).collect()
}

/// `.create table T (…)`, `.create-merge table`, `.create-or-alter function`, `.create materialized-view`, with `with (…)`
/// and `ifnotexists`. Other commands do not change what there is.
fn read_command(text: &str, database: &mut Database) -> Result<(), String> {
    let (tokens, _) = tokenize(text);
    let word = |at: usize| tokens.get(at).map(|token| &text[token.span.clone()]);
    let is_materialized = |at: usize| word(at) == Some("materialized") && word(at + 1) == Some("-") && word(at + 2) == Some("view");
    let object = (0..tokens.len()).find(|at| matches!(word(*at), Some("table" | "function")) || is_materialized(*at));
    let (Some(at), true) = (object, text.starts_with(".create") || text.starts_with(".alter")) else {
        return Ok(());
    };
    let kind = word(at).unwrap_or_default();
    let (mut at, mut view) = (if is_materialized(at) { at + 3 } else { at + 1 }, false);
    while matches!(word(at), Some("ifnotexists" | "with")) {
        at += 1;
        if word(at) == Some("(") {
            let close = closing(text, &tokens, at).ok_or("a bracket is not closed")?;
            view |= (at..close)
                .any(|at| word(at) == Some("view") && word(at + 2).is_some_and(|value| value.trim_matches(['"', '\'']) == "true"));
            at = close + 1;
        }
    }
    let (name, after) = name_at(text, &tokens, at).ok_or_else(|| format!("no name behind {kind:?}"))?;
    if kind == "materialized" {
        // Its columns are those of its query; without one, this is about a policy of it.
        let Some(start) = text.find('{') else { return Ok(()) };
        let body = text[start..].trim().trim_end_matches(';').to_owned();
        database.functions.insert(name.clone(), StoredFunction { name, parameters: "()".to_owned(), body, view: true });
        return Ok(());
    }
    let open = tokens.get(after).filter(|token| &text[token.span.clone()] == "(").ok_or_else(|| format!("no \"(\" behind {name}"))?;
    let close = closing(text, &tokens, after).ok_or("a bracket is not closed")?;
    match kind {
        "table" => {
            let columns = columns(text, &tokens[after + 1..close])?;
            database.tables.entry(name).or_default().extend(columns);
        }
        "function" => {
            let parameters = text[open.span.start..tokens[close].span.end].to_owned();
            let body = text[tokens[close].span.end..].trim().trim_end_matches(';').to_owned();
            database.functions.insert(name.clone(), StoredFunction { name, parameters, body, view });
        }
        _ => {}
    }
    Ok(())
}

/// A name, bare or as `['name']` or `"name"`, and the token after it.
fn name_at(text: &str, tokens: &[Token], at: usize) -> Option<(String, usize)> {
    match &tokens.get(at)?.kind {
        TokenKind::Identifier => Some((text[tokens[at].span.clone()].to_owned(), at + 1)),
        TokenKind::String(name) => Some((name.clone(), at + 1)),
        TokenKind::Punctuation("[") => match &tokens.get(at + 1)?.kind {
            TokenKind::String(name) => Some((name.clone(), at + 3)),
            _ => None,
        },
        _ => None,
    }
}

/// The bracket that closes the one at `open`.
fn closing(text: &str, tokens: &[Token], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match &text[token.span.clone()] {
            "(" => depth += 1,
            ")" => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

fn columns(text: &str, tokens: &[Token]) -> Result<Vec<Column>, String> {
    let mut out = Vec::new();
    for part in tokens.split(|token| token.kind == TokenKind::Punctuation(",")).filter(|part| !part.is_empty()) {
        let (name, after) = name_at(text, part, 0).ok_or("a column without a name")?;
        let ty = part.get(after + 1).filter(|_| part[after].kind == TokenKind::Punctuation(":"));
        let ty = ty.map(|token| &text[token.span.clone()]).ok_or_else(|| format!("column {name} has no type: write {name}: string"))?;
        out.push(Column::new(&name, Type::parse(ty).ok_or_else(|| format!("column {name} has the unknown type {ty}"))?));
    }
    Ok(out)
}

/// A schema seen from one database.
pub(super) struct View<'a> {
    pub(super) schema: &'a Schema,
    pub(super) database: &'a str,
}

impl View<'_> {
    fn database(&self, name: Option<&str>) -> Option<&Database> {
        self.schema.databases.get(name.unwrap_or(self.database)).or(self.schema.everywhere.as_ref())
    }

    fn table_schema(&self, database: Option<&str>, name: &str, columns: &[Column]) -> TableSchema {
        let database = database.unwrap_or(self.database).to_owned();
        TableSchema { database, name: name.to_owned(), columns: columns.to_vec() }
    }
}

impl Catalog for View<'_> {
    fn table(&self, database: Option<&str>, name: &str) -> Option<TableSchema> {
        let columns = self.database(database)?.tables.get(name)?;
        Some(self.table_schema(database, name, columns))
    }

    fn function(&self, database: Option<&str>, name: &str) -> Option<StoredFunction> {
        self.database(database)?.functions.get(name).cloned()
    }

    fn tables(&self, database: Option<&str>, wildcard: &str) -> Vec<TableSchema> {
        let tables = self.database(database).into_iter().flat_map(|d| &d.tables);
        tables.filter(|(name, _)| matches(wildcard, name)).map(|(name, columns)| self.table_schema(database, name, columns)).collect()
    }

    fn views(&self, database: Option<&str>, wildcard: &str) -> Vec<String> {
        let functions = self.database(database).into_iter().flat_map(|d| d.functions.values());
        functions.filter(|function| function.view && matches(wildcard, &function.name)).map(|function| function.name.clone()).collect()
    }

    fn databases(&self) -> Vec<String> {
        let names = self.schema.names();
        if names.is_empty() { vec![self.database.to_owned()] } else { names }
    }
}

/// Whether a name matches a wildcard, in which `*` stands for any text.
fn matches(wildcard: &str, name: &str) -> bool {
    match wildcard.split_once('*') {
        None => wildcard == name,
        Some((before, after)) => name
            .strip_prefix(before)
            .is_some_and(|rest| (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(after, &rest[at..]))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(columns: &[Column]) -> Vec<String> {
        columns.iter().map(|c| format!("{}:{}", c.name, c.ty)).collect()
    }

    #[test]
    fn commands_are_read() {
        let text = "// comment\n.create table Cpu (Timestamp: datetime, ['Host name']: string,\n  Value:real)\n\n\
                    .create-or-alter function with (docstring = \"x (y)\") Hot (limit: real) {\n  Cpu | where Value > limit\n}\n\
                    .create-merge table Cpu (Extra: dynamic)\n.alter-merge database X policy retention '{}'\n";
        let schema = Schema::read(text).unwrap();
        let view = View { schema: &schema, database: "Any" };
        assert_eq!(
            names(&view.table(None, "Cpu").unwrap().columns),
            ["Timestamp:datetime", "Host name:string", "Value:real", "Extra:dynamic"]
        );
        let hot = view.function(Some("Other"), "Hot").unwrap();
        assert_eq!((hot.parameters.as_str(), hot.body.as_str()), ("(limit: real)", "{\n  Cpu | where Value > limit\n}"));
        for (bad, why) in [
            ("\n.create table T (a: nothing)", "line 2 of the schema: column a has the unknown type nothing"),
            (".create table T (a)", "line 1 of the schema: column a has no type: write a: string"),
            (".create table T (a: int", "line 1 of the schema: a bracket is not closed"),
            (
                "Cpu\n  .create table T (a: int)",
                "the schema has no command: each begins at the beginning of a line, such as .create table T (Value: real)",
            ),
        ] {
            assert_eq!(Schema::read(bad).unwrap_err().to_string(), why);
        }
    }

    /// The JSON is what Kusto's documentation shows for `.show database schema as json`.
    #[test]
    fn json_is_read() {
        let text = r#"{"Databases":{"TestDB":{"Name":"TestDB","Tables":{"TestTable":{"Name":"TestTable","DocString":null,"OrderedColumns":[
            {"Name":"A","Type":"System.String","CslType":"string"},{"Name":"B","Type":"System.DateTime","CslType":"datetime"}]}},
            "Functions":{"f":{"Name":"f","InputParameters":[{"Name":"x","Type":"System.Int64","CslType":"long"},
            {"Name":"T","Columns":[{"Name":"A","CslType":"string"}]}],"Body":"{ T | take x }"}}}}}"#;
        let schema = Schema::read(text).unwrap();
        assert!(schema.has("TestDB") && !schema.has("Other"));
        let view = View { schema: &schema, database: "TestDB" };
        assert_eq!(names(&view.table(None, "TestTable").unwrap().columns), ["A:string", "B:datetime"]);
        assert_eq!(view.function(None, "f").unwrap().parameters, "(x: long, T: (A: string))");
        assert_eq!(view.tables(None, "Test*").len(), 1);
        assert!(Schema::read("{}").unwrap_err().to_string().contains("Databases"));
    }

    #[test]
    fn wildcards() {
        for (wildcard, name, expected) in
            [("*", "", true), ("a*c", "abc", true), ("a*c", "abd", false), ("a*b*", "axxbyy", true), ("a", "ab", false)]
        {
            assert_eq!(matches(wildcard, name), expected, "{wildcard} {name}");
        }
    }
}
