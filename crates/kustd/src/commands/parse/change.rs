//! Commands that change things: definitions, policies, rows.

use kql::Type;
use kql::binder::parse_entities;
use kql::diagnostic::Diagnostic;
use kql::lexer::TokenKind;

use super::Parse;
use super::tokens::Parser;
use crate::commands::syntax::{Command, Define, DefineFunction, DefineGroup, Fill, Scope};

impl Parser<'_> {
    pub(super) fn create(&mut self, verb: &str) -> Parse<Command> {
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
        if self.take("entity_group") {
            let mut how = if verb == "create-or-alter" { DefineGroup::CreateOrAlter } else { DefineGroup::Create };
            if self.take("ifnotexists") {
                how = DefineGroup::CreateIfNotExists;
            }
            return self.entity_group(how);
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
        let body_at = self.span().start;
        let body = self.bracketed("{", "}")?;
        Ok(Command::DefineFunction { how, name, parameters, body, body_at, properties })
    }

    fn entity_group(&mut self, how: DefineGroup) -> Parse<Command> {
        let name = self.name("an entity group")?;
        let start = self.span().start;
        let references = self.bracketed("(", ")")?;
        let references = references.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or_default();
        let at_references = |diagnostic| Diagnostic { span: start..start + references.len(), ..diagnostic };
        let entities = parse_entities(references).map_err(at_references)?;
        Ok(Command::DefineEntityGroup { how, name, entities })
    }

    fn mapping(&mut self, table: String, or_alter: bool) -> Parse<Command> {
        let kind = self.mapping_kind()?;
        self.expect("mapping")?;
        let name = self.name("a mapping")?;
        let json = self.string("the mapping")?;
        let _ = self.properties()?;
        Ok(Command::DefineMapping { table, kind, name, json, or_alter })
    }

    pub(super) fn mapping_kind(&mut self) -> Parse<String> {
        let span = self.span();
        match self.word().as_deref() {
            Some(kind @ ("csv" | "json")) => Ok(kind.to_owned()),
            Some(kind) => Err(Diagnostic::unsupported(span, format!("an ingestion mapping of kind '{kind}'"))),
            None => Err(self.unexpected("'csv' or 'json'")),
        }
    }

    pub(super) fn alter(&mut self, verb: &str) -> Parse<Command> {
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
        if self.take("cluster policy") {
            return self.set_policy(Scope::Cluster, merge);
        }
        if self.take("function") {
            return self.function(DefineFunction::Alter);
        }
        if self.take("entity_group") {
            return self.entity_group(if merge { DefineGroup::AlterMerge } else { DefineGroup::Alter });
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

    pub(super) fn drop_command(&mut self) -> Parse<Command> {
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
        if self.take("entity_group") {
            let name = self.name("an entity group")?;
            return Ok(Command::DropEntityGroup { name, if_exists: self.take("ifexists") });
        }
        if self.take("database") {
            let name = self.name("a database")?;
            return Ok(Command::DropDatabase { name, if_exists: self.take("ifexists") });
        }
        let object = self.word().unwrap_or_default();
        Err(self.unsupported(format_args!(".drop {object}")))
    }

    pub(super) fn rename(&mut self) -> Parse<Command> {
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

    pub(super) fn delete(&mut self) -> Parse<Command> {
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
        if self.take("cluster") {
            return Ok(Scope::Cluster);
        }
        Err(self.unexpected("'table', 'database' or 'cluster'"))
    }

    pub(super) fn clear(&mut self) -> Parse<Command> {
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

    pub(super) fn ingest(&mut self) -> Parse<Command> {
        if !self.take("inline into table") {
            return Err(self.unsupported(".ingest from storage; use '.ingest inline into table T <| data' or streaming ingestion"));
        }
        let table = self.name("a table")?;
        let properties = self.properties()?;
        Ok(Command::IngestInline { table, properties, data: self.behind_arrow()? })
    }

    pub(super) fn fill(&mut self, how: Fill) -> Parse<Command> {
        let asynchronous = self.take("async");
        self.take("table");
        let table = self.name("a table")?;
        let properties = self.properties()?;
        Ok(Command::FromQuery { asynchronous, how, table, properties, query: self.behind_arrow()? })
    }

    pub(super) fn execute(&mut self) -> Parse<Command> {
        let cluster = if self.take("database") {
            false
        } else if self.take("cluster") {
            true
        } else {
            return Err(self.unexpected("'database script' or 'cluster script'"));
        };
        self.expect("script")?;
        let properties = self.properties()?;
        Ok(Command::ExecuteScript { cluster, properties, script: self.behind_arrow()? })
    }

    fn behind_arrow(&mut self) -> Parse<usize> {
        if !matches!(self.peek(), TokenKind::End) || self.head.len() == self.text.len() {
            return Err(self.unexpected("'<|'"));
        }
        Ok(self.head.len() + 2)
    }
}
