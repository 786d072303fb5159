//! Reads management commands from the tokens of KQL.

use kql::Type;
use kql::diagnostic::Diagnostic;
use kql::lexer::{Token, TokenKind, tokenize};

use super::syntax::{Columns, Command, Define, DefineFunction, Fill, Parsed, Properties, SchemaForm, Scope, Show};

type Parse<T> = Result<T, Diagnostic>;

/// Whether the text is a command: its first token is a point.
pub(crate) fn is_command(text: &str) -> bool {
    let mut rest = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    while let Some(comment) = rest.strip_prefix("//") {
        rest = comment.split_once('\n').map_or("", |(_, after)| after).trim_start();
    }
    rest.starts_with('.')
}

/// Reads a command.
///
/// # Errors
/// With the place and what was expected there, or the name of a command that is not supported.
pub(crate) fn parse(text: &str) -> Parse<Parsed> {
    // behind `<|` stand data or a query, which are not this parser's
    let head = text.find("<|").map_or(text, |at| &text[..at]);
    let (tokens, diagnostics) = tokenize(head);
    if let Some(first) = diagnostics.into_iter().next() {
        return Err(first);
    }
    let mut parser = Parser { text, head, tokens, at: 0 };
    parser.punctuation(".")?;
    let command = parser.command()?;
    let pipe = match parser.peek() {
        TokenKind::Punctuation("|") => Some(parser.span().start),
        TokenKind::Punctuation(";") | TokenKind::End => None,
        _ => return Err(parser.unexpected("the end of the command or '|'")),
    };
    Ok(Parsed { command, pipe })
}

struct Parser<'a> {
    text: &'a str,
    head: &'a str,
    tokens: Vec<Token>,
    at: usize,
}

impl Parser<'_> {
    fn token(&self) -> &Token {
        // the last token is the end and is never passed
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn peek(&self) -> &TokenKind {
        &self.token().kind
    }

    fn span(&self) -> std::ops::Range<usize> {
        self.token().span.clone()
    }

    fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    fn unexpected(&self, wanted: &str) -> Diagnostic {
        let span = self.span();
        let found = self.head.get(span.clone()).unwrap_or_default();
        let found = if found.is_empty() { "the end of the command".to_owned() } else { format!("'{found}'") };
        Diagnostic::syntax(span, format!("expected {wanted}, found {found}"))
    }

    fn is_mark(&self, mark: &str) -> bool {
        matches!(self.peek(), TokenKind::Punctuation(found) if *found == mark)
    }

    fn take_mark(&mut self, mark: &str) -> bool {
        let found = self.is_mark(mark);
        if found {
            self.advance();
        }
        found
    }

    fn punctuation(&mut self, mark: &str) -> Parse<()> {
        if self.take_mark(mark) { Ok(()) } else { Err(self.unexpected(&format!("'{mark}'"))) }
    }

    /// The word here, in lower case; words joined by hyphens are one.
    fn word_at(&self, at: usize) -> Option<(String, usize)> {
        let mut word = String::new();
        let mut next = at;
        loop {
            let token = self.tokens.get(next)?;
            if token.kind != TokenKind::Identifier {
                return None;
            }
            word.push_str(&self.head[token.span.clone()].to_ascii_lowercase());
            next += 1;
            let hyphen = self.tokens.get(next).is_some_and(|t| t.kind == TokenKind::Punctuation("-"));
            let glued = hyphen
                && self.tokens[next].span.start == token.span.end
                && self.tokens.get(next + 1).is_some_and(|after| after.span.start == self.tokens[next].span.end);
            if !glued || self.tokens[next + 1].kind != TokenKind::Identifier {
                return Some((word, next));
            }
            word.push('-');
            next += 1;
        }
    }

    fn word(&mut self) -> Option<String> {
        let (word, next) = self.word_at(self.at)?;
        self.at = next;
        Some(word)
    }

    /// Takes these words if they stand here.
    fn take(&mut self, words: &str) -> bool {
        let mut at = self.at;
        for wanted in words.split(' ') {
            match self.word_at(at) {
                Some((word, next)) if word == wanted => at = next,
                _ => return false,
            }
        }
        self.at = at;
        true
    }

    fn expect(&mut self, words: &str) -> Parse<()> {
        if self.take(words) { Ok(()) } else { Err(self.unexpected(&format!("'{words}'"))) }
    }

    /// `name`, `['name']`, `"name"`.
    fn name(&mut self, what: &str) -> Parse<String> {
        match self.peek().clone() {
            TokenKind::Identifier => {
                let name = self.head[self.span()].to_owned();
                self.advance();
                Ok(name)
            }
            TokenKind::String(name) => {
                self.advance();
                Ok(name)
            }
            TokenKind::Punctuation("[") => {
                self.advance();
                let TokenKind::String(name) = self.peek().clone() else {
                    return Err(self.unexpected(&format!("the name of {what} as a string")));
                };
                self.advance();
                self.punctuation("]")?;
                Ok(name)
            }
            _ => Err(self.unexpected(&format!("the name of {what}"))),
        }
    }

    /// One or more string literals, which together are one text.
    fn string(&mut self, what: &str) -> Parse<String> {
        let mut text = None;
        while let TokenKind::String(part) = self.peek().clone() {
            text.get_or_insert_with(String::new).push_str(&part);
            self.advance();
        }
        text.ok_or_else(|| self.unexpected(&format!("{what} as a string")))
    }

    fn names(&mut self, what: &str) -> Parse<Vec<String>> {
        self.punctuation("(")?;
        let mut names = Vec::new();
        while !self.take_mark(")") {
            names.push(self.name(what)?);
            if !self.take_mark(",") && !self.is_mark(")") {
                return Err(self.unexpected("',' or ')'"));
            }
        }
        Ok(names)
    }

    fn columns(&mut self) -> Parse<Columns> {
        self.punctuation("(")?;
        let mut columns: Columns = Vec::new();
        while !self.take_mark(")") {
            let start = self.span();
            let name = self.name("a column")?;
            self.punctuation(":")?;
            let ty = self.column_type()?;
            if columns.iter().any(|(other, _)| *other == name) {
                return Err(Diagnostic::semantic("SEM0034", start, format!("column '{name}' is there twice")));
            }
            columns.push((name, ty));
            if !self.take_mark(",") && !self.is_mark(")") {
                return Err(self.unexpected("',' or ')'"));
            }
        }
        Ok(columns)
    }

    fn column_type(&mut self) -> Parse<Type> {
        let span = self.span();
        let name = self.name("a type")?;
        // .NET names are accepted as well
        let plain = name.strip_prefix("System.").unwrap_or(&name).to_ascii_lowercase();
        let ty = match plain.as_str() {
            "object" => Some(Type::Dynamic),
            "sqldecimal" => Some(Type::Decimal),
            "sbyte" => Some(Type::Bool),
            plain => Type::parse(plain),
        };
        ty.ok_or_else(|| Diagnostic::semantic("SEM0001", span, format!("'{name}' is not a type")))
    }

    /// `with (name = value, …)`, if it stands here.
    fn properties(&mut self) -> Parse<Properties> {
        let mut properties = Properties::new();
        if !self.take("with") {
            return Ok(properties);
        }
        self.punctuation("(")?;
        while !self.take_mark(")") {
            let name = self.name("a property")?.to_ascii_lowercase();
            self.punctuation("=")?;
            let value = self.property_value()?;
            properties.insert(name, value);
            if !self.take_mark(",") && !self.is_mark(")") {
                return Err(self.unexpected("',' or ')'"));
            }
        }
        Ok(properties)
    }

    fn property_value(&mut self) -> Parse<String> {
        let value = match self.peek().clone() {
            TokenKind::String(_) => return self.string("the value of a property"),
            TokenKind::Identifier | TokenKind::Long(_) | TokenKind::Real(_) | TokenKind::TimeSpan(_) => self.head[self.span()].to_owned(),
            TokenKind::Typed(_, raw) => self.head[raw].trim().trim_matches(['"', '\'']).to_owned(),
            _ => return Err(self.unexpected("the value of a property")),
        };
        self.advance();
        Ok(value)
    }

    /// The text from here to the bracket that closes this one.
    fn bracketed(&mut self, open: &'static str, close: &'static str) -> Parse<String> {
        let start = self.span().start;
        if !self.is_mark(open) {
            return Err(self.unexpected(&format!("'{open}'")));
        }
        let mut depth = 0usize;
        loop {
            let end = self.span().end;
            match self.peek() {
                TokenKind::Punctuation(mark) if *mark == open => depth += 1,
                TokenKind::Punctuation(mark) if *mark == close => depth -= 1,
                TokenKind::End => return Err(self.unexpected(&format!("'{close}'"))),
                _ => {}
            }
            self.advance();
            if depth == 0 {
                return Ok(self.head[start..end].to_owned());
            }
        }
    }

    fn unsupported(&self, what: impl std::fmt::Display) -> Diagnostic {
        Diagnostic::unsupported(0..self.span().end, format!("the command '{what}'"))
    }

    fn command(&mut self) -> Parse<Command> {
        let Some(verb) = self.word() else { return Err(self.unexpected("the name of a command")) };
        match verb.as_str() {
            "create" | "create-merge" | "create-or-alter" => self.create(&verb),
            "alter" | "alter-merge" => self.alter(&verb),
            "drop" => self.drop_command(),
            "rename" => self.rename(),
            "delete" => self.delete(),
            "clear" => self.clear(),
            "ingest" => self.ingest(),
            "set" => self.fill(Fill::Set),
            "append" => self.fill(Fill::Append),
            "set-or-append" => self.fill(Fill::SetOrAppend),
            "set-or-replace" => self.fill(Fill::SetOrReplace),
            "show" => self.show().map(Command::Show),
            _ => Err(self.unsupported(format_args!(".{verb}"))),
        }
    }

    fn create(&mut self, verb: &str) -> Parse<Command> {
        if self.take("table") {
            let name = self.name("a table")?;
            if self.take("ingestion") {
                return self.mapping(name, verb != "create");
            }
            let how = if verb == "create-merge" { Define::CreateMerge } else { Define::Create };
            let tables = vec![(name, self.columns()?)];
            return Ok(Command::DefineTables { how, tables, properties: self.properties()? });
        }
        if self.take("tables") {
            let how = if verb == "create-merge" { Define::CreateMerge } else { Define::Create };
            return self.tables(how);
        }
        if self.take("function") {
            let mut how = if verb == "create-or-alter" { DefineFunction::CreateOrAlter } else { DefineFunction::Create };
            if self.take("ifnotexists") {
                how = DefineFunction::CreateIfNotExists;
            }
            return self.function(how);
        }
        if self.take("database") {
            let name = self.name("a database")?;
            // where the service would keep it: `persist (…)` or `volatile`
            if self.take("persist") {
                self.bracketed("(", ")")?;
            } else {
                self.take("volatile");
            }
            return Ok(Command::CreateDatabase { name, if_not_exists: self.take("ifnotexists") });
        }
        let object = self.word().unwrap_or_default();
        Err(self.unsupported(format_args!(".{verb} {object}")))
    }

    fn tables(&mut self, how: Define) -> Parse<Command> {
        let mut tables = Vec::new();
        loop {
            let name = self.name("a table")?;
            tables.push((name, self.columns()?));
            if !self.take_mark(",") {
                break;
            }
        }
        Ok(Command::DefineTables { how, tables, properties: self.properties()? })
    }

    fn function(&mut self, how: DefineFunction) -> Parse<Command> {
        let properties = self.properties()?;
        let name = self.name("a function")?;
        let parameters = self.bracketed("(", ")")?;
        let body = self.bracketed("{", "}")?;
        Ok(Command::DefineFunction { how, name, parameters, body, properties })
    }

    fn mapping(&mut self, table: String, or_alter: bool) -> Parse<Command> {
        let kind = self.mapping_kind()?;
        self.expect("mapping")?;
        let name = self.name("a mapping")?;
        let json = self.string("the mapping")?;
        let _ = self.properties()?;
        Ok(Command::DefineMapping { table, kind, name, json, or_alter })
    }

    fn mapping_kind(&mut self) -> Parse<String> {
        let span = self.span();
        match self.word().as_deref() {
            Some(kind @ ("csv" | "json")) => Ok(kind.to_owned()),
            Some(kind) => Err(Diagnostic::unsupported(span, format!("an ingestion mapping of kind '{kind}'"))),
            None => Err(self.unexpected("'csv' or 'json'")),
        }
    }

    fn alter(&mut self, verb: &str) -> Parse<Command> {
        let merge = verb == "alter-merge";
        if self.take("tables") {
            return self.tables(Define::AlterMerge);
        }
        if self.take("table") {
            let name = self.name("a table")?;
            if self.take("policy") {
                return self.set_policy(Scope::Table(name), merge);
            }
            if self.take("folder") {
                return Ok(Command::Describe { table: name, folder: Some(self.string("the folder")?), docstring: None });
            }
            if self.take("docstring") {
                return Ok(Command::Describe { table: name, folder: None, docstring: Some(self.string("the docstring")?) });
            }
            if self.take("ingestion") {
                return self.mapping(name, true);
            }
            let how = if merge { Define::AlterMerge } else { Define::Alter };
            let tables = vec![(name, self.columns()?)];
            return Ok(Command::DefineTables { how, tables, properties: self.properties()? });
        }
        if self.take("database") {
            let name = self.name("a database")?;
            self.expect("policy")?;
            return self.set_policy(Scope::Database(name), merge);
        }
        if self.take("function") {
            return self.function(DefineFunction::Alter);
        }
        if self.take("column") {
            let (table, column) = self.column_path()?;
            self.expect("type")?;
            self.punctuation("=")?;
            return Ok(Command::AlterColumn { table, column, ty: self.column_type()? });
        }
        let object = self.word().unwrap_or_default();
        Err(self.unsupported(format_args!(".{verb} {object}")))
    }

    fn column_path(&mut self) -> Parse<(String, String)> {
        let table = self.name("a table")?;
        self.punctuation(".")?;
        Ok((table, self.name("a column")?))
    }

    fn set_policy(&mut self, scope: Scope, merge: bool) -> Parse<Command> {
        let kind = self.word().ok_or_else(|| self.unexpected("the kind of policy"))?;
        let policy = match self.peek().clone() {
            TokenKind::String(_) => self.policy_json()?,
            _ => self.policy_words(&kind)?,
        };
        Ok(Command::SetPolicy { scope, kind, policy, merge })
    }

    fn policy_json(&mut self) -> Parse<String> {
        let span = self.span();
        let json = self.string("the policy")?;
        match serde_json::from_str::<serde_json::Value>(&json) {
            Ok(value) => Ok(value.to_string()),
            Err(error) => Err(Diagnostic::syntax(span, format!("the policy is not valid JSON: {error}"))),
        }
    }

    /// `softdelete = 7d recoverability = disabled`, `hot = 3d`, `enable`, `disable`.
    fn policy_words(&mut self, kind: &str) -> Parse<String> {
        let mut policy = serde_json::Map::new();
        while let TokenKind::Identifier = self.peek() {
            let span = self.span();
            let word = self.word().unwrap_or_default();
            let (name, value) = match (kind, word.as_str()) {
                (_, "enable") => ("IsEnabled", serde_json::Value::Bool(true)),
                (_, "disable") => ("IsEnabled", serde_json::Value::Bool(false)),
                ("retention", "softdelete") => ("SoftDeletePeriod", self.policy_span()?),
                ("retention", "recoverability") => ("Recoverability", self.policy_word()?),
                ("caching", "hot") => ("DataHotSpan", self.policy_span()?),
                _ => return Err(Diagnostic::unsupported(span, format!("'{word}' in a policy of kind '{kind}'"))),
            };
            policy.insert(name.to_owned(), value);
            self.take_mark(",");
        }
        if policy.is_empty() {
            return Err(self.unexpected("the policy"));
        }
        Ok(serde_json::Value::Object(policy).to_string())
    }

    fn policy_span(&mut self) -> Parse<serde_json::Value> {
        self.punctuation("=")?;
        let ticks = match self.peek() {
            TokenKind::TimeSpan(ticks) => Some(*ticks),
            TokenKind::Typed(Type::TimeSpan, raw) => crate::text::parse_timespan(&self.head[raw.clone()]),
            _ => None,
        };
        let ticks = ticks.ok_or_else(|| self.unexpected("a timespan such as 7d"))?;
        self.advance();
        Ok(crate::text::timespan_text(ticks).into())
    }

    fn policy_word(&mut self) -> Parse<serde_json::Value> {
        self.punctuation("=")?;
        let word = self.word().ok_or_else(|| self.unexpected("a word"))?;
        let mut letters = word.chars();
        let word: String = letters.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(letters).collect();
        Ok(word.into())
    }

    fn drop_command(&mut self) -> Parse<Command> {
        if self.take("tables") {
            let names = self.names("a table")?;
            return Ok(Command::DropTables { names, if_exists: self.take("ifexists") });
        }
        if self.take("table") {
            let name = self.name("a table")?;
            if self.take("ingestion") {
                let kind = self.mapping_kind()?;
                self.expect("mapping")?;
                return Ok(Command::DropMapping { table: name, kind, name: self.name("a mapping")? });
            }
            if self.take("columns") {
                return Ok(Command::DropColumns { table: name, columns: self.names("a column")? });
            }
            return Ok(Command::DropTables { names: vec![name], if_exists: self.take("ifexists") });
        }
        if self.take("column") {
            let (table, column) = self.column_path()?;
            return Ok(Command::DropColumns { table, columns: vec![column] });
        }
        if self.take("function") {
            let name = self.name("a function")?;
            return Ok(Command::DropFunction { name, if_exists: self.take("ifexists") });
        }
        if self.take("database") {
            let name = self.name("a database")?;
            return Ok(Command::DropDatabase { name, if_exists: self.take("ifexists") });
        }
        let object = self.word().unwrap_or_default();
        Err(self.unsupported(format_args!(".drop {object}")))
    }

    fn rename(&mut self) -> Parse<Command> {
        if self.take("table") {
            let from = self.name("a table")?;
            self.expect("to")?;
            return Ok(Command::RenameTable { from, to: self.name("a table")? });
        }
        if self.take("column") {
            let (table, column) = self.column_path()?;
            self.expect("to")?;
            return Ok(Command::RenameColumn { table, column, to: self.name("a column")? });
        }
        let object = self.word().unwrap_or_default();
        Err(self.unsupported(format_args!(".rename {object}")))
    }

    fn delete(&mut self) -> Parse<Command> {
        let scope = self.scope()?;
        self.expect("policy")?;
        let kind = self.word().ok_or_else(|| self.unexpected("the kind of policy"))?;
        Ok(Command::DeletePolicy { scope, kind })
    }

    fn scope(&mut self) -> Parse<Scope> {
        if self.take("table") {
            return Ok(Scope::Table(self.name("a table")?));
        }
        if self.take("database") {
            return Ok(Scope::Database(self.name("a database")?));
        }
        Err(self.unexpected("'table' or 'database'"))
    }

    fn clear(&mut self) -> Parse<Command> {
        if self.take("table") {
            let table = self.name("a table")?;
            self.expect("data")?;
            return Ok(Command::ClearTable { table });
        }
        self.take("database");
        if self.take("cache") {
            while self.word().is_some() {}
            return Ok(Command::ClearCache);
        }
        Err(self.unexpected("'table' or 'database cache'"))
    }

    fn ingest(&mut self) -> Parse<Command> {
        if !self.take("inline into table") {
            return Err(self.unsupported(".ingest from storage; use '.ingest inline into table T <| data' or streaming ingestion"));
        }
        let table = self.name("a table")?;
        let properties = self.properties()?;
        Ok(Command::IngestInline { table, properties, data: self.behind_arrow()? })
    }

    fn fill(&mut self, how: Fill) -> Parse<Command> {
        if self.take("async") {
            return Err(self.unsupported("… async; leave 'async' out and wait for the answer"));
        }
        self.take("table");
        let table = self.name("a table")?;
        let properties = self.properties()?;
        Ok(Command::FromQuery { how, table, properties, query: self.behind_arrow()? })
    }

    fn behind_arrow(&mut self) -> Parse<usize> {
        if !matches!(self.peek(), TokenKind::End) || self.head.len() == self.text.len() {
            return Err(self.unexpected("'<|'"));
        }
        Ok(self.head.len() + 2)
    }

    fn show(&mut self) -> Parse<Show> {
        if self.take("tables") {
            let names = if self.is_mark("(") { Some(self.names("a table")?) } else { None };
            return Ok(if self.take("details") { Show::TableDetails(names) } else { Show::Tables(names) });
        }
        if self.take("table") {
            return self.show_table();
        }
        if self.take("databases") {
            let names = if self.is_mark("(") { Some(self.names("a database")?) } else { None };
            if self.take("schema") {
                return Ok(Show::DatabasesSchema(names, self.schema_form()));
            }
            self.take("details");
            return Ok(Show::Databases);
        }
        if self.take("database") {
            return self.show_database();
        }
        if self.take("functions") {
            return Ok(Show::Functions(None));
        }
        if self.take("function") {
            let name = self.name("a function")?;
            if self.take("schema") {
                self.expect("as json")?;
                return Ok(Show::FunctionSchema(name));
            }
            return Ok(Show::Functions(Some(name)));
        }
        if self.take("cluster") {
            if self.take("details") {
                return Ok(Show::ClusterDetails);
            }
            if self.take("extents") {
                return Ok(Show::Extents(None));
            }
            return Ok(Show::Cluster);
        }
        if self.take("version") {
            return Ok(Show::Version);
        }
        if self.take("extents") {
            return Ok(Show::Extents(None));
        }
        if self.take("operations") {
            return Ok(Show::Operations(self.operation_id()));
        }
        if self.take("capacity") {
            return Ok(Show::Capacity);
        }
        if self.take("principal roles") || self.take("current principal") {
            return Ok(Show::Principals);
        }
        let object = self.word().unwrap_or_default();
        Err(self.unsupported(format_args!(".show {object}")))
    }

    fn operation_id(&mut self) -> Option<String> {
        if matches!(self.peek(), TokenKind::End | TokenKind::Punctuation("|" | ";")) {
            return None;
        }
        // a guid is several tokens; it ends where the command does
        let start = self.span().start;
        let mut end = start;
        while !matches!(self.peek(), TokenKind::End | TokenKind::Punctuation("|" | ";")) {
            end = self.span().end;
            self.advance();
        }
        Some(self.head[start..end].trim_matches(['(', ')', '"', '\'']).to_owned())
    }

    fn show_table(&mut self) -> Parse<Show> {
        let name = self.name("a table")?;
        if self.take("details") {
            return Ok(Show::TableDetails(Some(vec![name])));
        }
        if self.take("cslschema") {
            return Ok(Show::TableSchema(name, SchemaForm::Csl));
        }
        if self.take("schema") {
            return Ok(Show::TableSchema(name, self.schema_form()));
        }
        if self.take("extents") {
            return Ok(Show::Extents(Some(Scope::Table(name))));
        }
        if self.take("ingestion") {
            return self.mappings(Scope::Table(name));
        }
        if self.take("policy") {
            return self.show_policy(Scope::Table(name));
        }
        if self.take("principals") {
            return Ok(Show::Principals);
        }
        Ok(Show::Tables(Some(vec![name])))
    }

    fn show_database(&mut self) -> Parse<Show> {
        // `.show database schema` is about the request's database
        if self.take("schema") {
            return Ok(Show::DatabasesSchema(Some(Vec::new()), self.schema_form()));
        }
        if self.take("cslschema") {
            return Ok(Show::DatabasesSchema(Some(Vec::new()), SchemaForm::Csl));
        }
        if self.take("extents") {
            return Ok(Show::Extents(None));
        }
        if matches!(self.peek(), TokenKind::End | TokenKind::Punctuation("|")) {
            return Ok(Show::Databases);
        }
        let name = self.name("a database")?;
        if self.take("schema") {
            return Ok(Show::DatabasesSchema(Some(vec![name]), self.schema_form()));
        }
        if self.take("cslschema") {
            return Ok(Show::DatabasesSchema(Some(vec![name]), SchemaForm::Csl));
        }
        if self.take("ingestion") {
            return self.mappings(Scope::Database(name));
        }
        if self.take("extents") {
            return Ok(Show::Extents(Some(Scope::Database(name))));
        }
        if self.take("policy") {
            return self.show_policy(Scope::Database(name));
        }
        if self.take("principals") {
            return Ok(Show::Principals);
        }
        if self.take("details") {
            return Ok(Show::Databases);
        }
        Err(self.unexpected("'schema', 'ingestion mappings', 'extents', 'policy' or 'principals'"))
    }

    fn schema_form(&mut self) -> SchemaForm {
        if self.take("as json") {
            SchemaForm::Json
        } else if self.take("as csl") {
            SchemaForm::Csl
        } else {
            SchemaForm::Rows
        }
    }

    fn mappings(&mut self, scope: Scope) -> Parse<Show> {
        let kind = if self.take("mappings") {
            return Ok(Show::Mappings { scope, kind: None, name: None });
        } else {
            self.mapping_kind()?
        };
        if self.take("mappings") {
            return Ok(Show::Mappings { scope, kind: Some(kind), name: None });
        }
        self.expect("mapping")?;
        let name = self.name("a mapping")?;
        Ok(Show::Mappings { scope, kind: Some(kind), name: Some(name) })
    }

    fn show_policy(&mut self, scope: Scope) -> Parse<Show> {
        let kind = self.word().ok_or_else(|| self.unexpected("the kind of policy"))?;
        Ok(Show::Policy { scope, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> Command {
        parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).command
    }

    #[test]
    fn what_the_ingestor_sends() {
        assert_eq!(
            command(".create-merge table ['Cpu'] (['Timestamp']:datetime, ['Labels']:dynamic)"),
            Command::DefineTables {
                how: Define::CreateMerge,
                tables: vec![("Cpu".into(), vec![("Timestamp".into(), Type::DateTime), ("Labels".into(), Type::Dynamic)])],
                properties: Properties::new(),
            }
        );
        assert_eq!(
            command(".create-or-alter table ['T'] ingestion csv mapping \"T_1\" '[]'"),
            Command::DefineMapping { table: "T".into(), kind: "csv".into(), name: "T_1".into(), json: "[]".into(), or_alter: true }
        );
        let shown = command(".show database Db ingestion mappings");
        let wanted = Show::Mappings { scope: Scope::Database("Db".into()), kind: None, name: None };
        assert_eq!(shown, Command::Show(wanted));
    }

    #[test]
    fn functions_keep_their_text() {
        let text = ".create-or-alter function with (folder='x', skipvalidation=true) f (T:(a:long), i:timespan=1m) { T | where a > 1 }";
        let Command::DefineFunction { name, parameters, body, properties, .. } = command(text) else { panic!() };
        assert_eq!((name.as_str(), parameters.as_str()), ("f", "(T:(a:long), i:timespan=1m)"));
        assert_eq!(body, "{ T | where a > 1 }");
        assert_eq!(properties["skipvalidation"], "true");
    }

    #[test]
    fn the_tail_is_left_to_the_query_engine() {
        let text = ".show tables | where TableName == 'x' | count";
        assert_eq!(parse(text).unwrap().pipe, Some(13));
        let inline = ".ingest inline into table ['T'] with (format='csv') <| 1,\"2|3\n";
        let Command::IngestInline { data, .. } = command(inline) else { panic!() };
        assert_eq!(&inline[data..], " 1,\"2|3\n");
    }

    #[test]
    fn unknown_commands_are_named() {
        for (text, word) in [
            (".execute database script <| .show tables", ".execute"),
            (".set-or-append async T <| print 1", "async"),
            (".show gizmos", ".show gizmos"),
            (".create table T", "expected"),
            (".", "expected"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn policies_in_words_and_in_json() {
        let text = ".alter-merge table T policy retention softdelete = 7d recoverability = disabled";
        let Command::SetPolicy { policy, merge, .. } = command(text) else { panic!() };
        assert_eq!(policy, r#"{"SoftDeletePeriod":"7.00:00:00","Recoverability":"Disabled"}"#);
        assert!(merge);
        let text = ".alter database ['D'] policy caching '{\"DataHotSpan\": \"3.00:00:00\"}'";
        assert!(matches!(command(text), Command::SetPolicy { scope: Scope::Database(_), .. }));
    }
}
