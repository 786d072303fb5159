//! `.show …`.

use kql::lexer::TokenKind;

use super::Parse;
use super::tokens::Parser;
use crate::commands::syntax::{SchemaForm, Scope, Show};

impl Parser<'_> {
    pub(super) fn show(&mut self) -> Parse<Show> {
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
        if self.take("entity_groups") {
            return Ok(Show::EntityGroups(None));
        }
        if self.take("entity_group") {
            let is_one = !matches!(self.peek(), TokenKind::End | TokenKind::Punctuation("|" | ";"));
            return Ok(Show::EntityGroups(if is_one { Some(self.name("an entity group")?) } else { None }));
        }
        if self.take("cluster") {
            if self.take("policy") {
                return self.show_policy(Scope::Cluster);
            }
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
        if self.take("operations") || self.take("operation") {
            return Ok(Show::Operations(self.operation_id()));
        }
        if self.take("ingestion failures") {
            return Ok(Show::IngestionFailures(self.failed_operation()?));
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

    /// `.get …`
    pub(super) fn get(&mut self) -> Parse<Show> {
        if self.take("ingestion resources") {
            return Ok(Show::IngestionResources);
        }
        if self.take("kusto identity token") {
            return Ok(Show::IdentityToken);
        }
        let object = self.word().unwrap_or_default();
        Err(self.unsupported(format_args!(".get {object}")))
    }

    /// `with (OperationId = "…")`
    fn failed_operation(&mut self) -> Parse<Option<String>> {
        if !self.take("with") {
            return Ok(None);
        }
        self.punctuation("(")?;
        self.expect("operationid")?;
        self.punctuation("=")?;
        let start = self.span().start;
        while !matches!(self.peek(), TokenKind::End | TokenKind::Punctuation(")")) {
            self.advance();
        }
        let id = self.head[start..self.span().start].trim().trim_matches(['"', '\'']).to_owned();
        self.punctuation(")")?;
        Ok(Some(id))
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
