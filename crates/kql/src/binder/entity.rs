//! Databases and their members, here and in other clusters: `database("d").T`, `cluster("c").database("d").f()`, and
//! the entities that `macro-expand` runs its sub-query for.

use super::expr::prefix;
use super::scope::{Binding, Bound, Cx, Env, Size, Table};
use super::{Bind, BindOptions, Binder};
use crate::ast::{self, Argument, ExprKind as Ast};
use crate::catalog::{EmptyCatalog, RemoteError};
use crate::diagnostic::Diagnostic;
use crate::parser;
use crate::remote::text;
use crate::tree::{Expr, RelOp, Remote};
use crate::types::Type;
use crate::value::Value;

/// A database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Of this cluster, by name.
    Here(String),
    /// Of another one.
    Elsewhere {
        /// Address of the cluster.
        cluster: String,
        /// Name of the database.
        database: String,
    },
}

/// An element of an entity group: a database, or a table or function of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entity {
    /// The cluster as it is written; none is this one.
    pub(super) cluster: Option<String>,
    pub(super) database: String,
    pub(super) table: Option<String>,
}

impl std::fmt::Display for Entity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(cluster) = &self.cluster {
            write!(f, "cluster({}).", text::quoted(cluster, '\''))?;
        }
        write!(f, "database({})", text::quoted(&self.database, '\''))?;
        match &self.table {
            Some(table) => write!(f, ".{}", text::name(table)),
            None => Ok(()),
        }
    }
}

/// An element of an entity group as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityReference {
    /// The reference in one form: `cluster('c').database('d')`.
    pub text: String,
    /// The cluster that it names.
    pub cluster: Option<String>,
}

/// Reads the elements of an entity group, `cluster('c').database('d'), …`.
///
/// # Errors
/// What is no reference to a database, or to a table or function of one.
pub fn parse_entities(text: &str) -> Result<Vec<EntityReference>, Diagnostic> {
    let options = BindOptions::default();
    let mut binder = Binder::new(&EmptyCatalog, &options);
    let entities = binder.written_entities(text, &Env::default())?;
    Ok(entities.into_iter().map(|entity| EntityReference { text: entity.to_string(), cluster: entity.cluster }).collect())
}

impl Binder<'_> {
    /// The database that `database("x")`, `cluster("c").database("x")` or the name of an entity stands for; None for other
    /// expressions.
    pub(super) fn place_of(&mut self, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Option<Place>> {
        let entity = match &expr.kind {
            Ast::Name(name) => match cx.env.get(name) {
                Some(Binding::Entity(entity)) if entity.table.is_none() => Some((**entity).clone()),
                _ => None,
            },
            _ => self.database_reference(expr, cx)?,
        };
        entity.map(|entity| self.place(&entity, expr, cx)).transpose()
    }

    pub(super) fn place(&mut self, entity: &Entity, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Place> {
        let database = entity.database.clone();
        if let Some(name) = &entity.cluster {
            let refused = |why: String| Diagnostic::semantic("SEM0100", expr.span.clone(), format!("{}{why}", prefix(cx.operator)));
            if let Some(cluster) = self.catalog.cluster(name).map_err(refused)? {
                return Ok(Place::Elsewhere { cluster, database });
            }
        }
        let known = self.catalog.databases();
        if !known.is_empty() && !known.iter().any(|d| d.eq_ignore_ascii_case(&database)) {
            let message = format!("{}Failed to resolve database named '{database}'", prefix(cx.operator));
            return Err(Diagnostic::semantic("SEM0100", expr.span.clone(), message));
        }
        Ok(Place::Here(database))
    }

    /// `database("x")` and `cluster("c").database("x")` as an entity.
    fn database_reference(&mut self, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Option<Entity>> {
        let Ast::Call(name, arguments) = &expr.kind else { return Ok(None) };
        let (cluster, database) = match (name.text.as_str(), arguments.as_slice()) {
            ("database", [database]) => (None, database),
            (".database", [Argument { value: ast::Expr { kind: Ast::Call(base, of), .. }, .. }, database]) if base.text == "cluster" => {
                let [cluster] = of.as_slice() else {
                    return Err(super::call::arity("cluster", "1", of.len(), &expr.span));
                };
                (Some(self.name_argument("cluster", cluster, cx)?), database)
            }
            _ => return Ok(None),
        };
        let database = self.name_argument("database", database, cx)?;
        Ok(Some(Entity { cluster, database, table: None }))
    }

    fn name_argument(&mut self, function: &str, argument: &Argument, cx: &Cx<'_>) -> Bind<String> {
        match self.constant(&argument.value, cx)?.0 {
            Value::String(name) => Ok(name.to_string()),
            _ => Err(Diagnostic::semantic("SEM0001", argument.value.span.clone(), format!("{function}() needs a name"))),
        }
    }

    /// Elements of `entity_group [...]`.
    pub(super) fn entities(&mut self, references: &[ast::Expr], cx: &Cx<'_>) -> Bind<Vec<Entity>> {
        references.iter().map(|reference| self.entity(reference, cx)).collect()
    }

    fn entity(&mut self, reference: &ast::Expr, cx: &Cx<'_>) -> Bind<Entity> {
        let (database, table) = match &reference.kind {
            Ast::Member(database, table) => (&**database, Some(table.text.clone())),
            _ => (reference, None),
        };
        match self.database_reference(database, cx)? {
            Some(entity) => Ok(Entity { table, ..entity }),
            None => {
                let what = "an entity that is neither a database, as in cluster('c').database('d'), nor a table of one";
                Err(Diagnostic::unsupported(reference.span.clone(), what))
            }
        }
    }

    /// Elements of a stored group.
    pub(super) fn written_entities(&mut self, text: &str, env: &Env) -> Bind<Vec<Entity>> {
        let query = format!("entity_group [{text}]");
        let parsed = parser::parse(&query);
        if let Some(diagnostic) = parsed.diagnostics.into_iter().next() {
            return Err(diagnostic);
        }
        match parsed.statements.as_slice() {
            [ast::Statement::Query(ast::Expr { kind: Ast::EntityGroup(references), .. })] => {
                self.entities(references, &Cx::constant(env, "entity_group"))
            }
            _ => Err(Diagnostic::syntax(0..query.len(), "expected references to databases, such as cluster('c').database('d')")),
        }
    }

    /// The name of an entity where a table is expected.
    pub(super) fn entity_as_table(&mut self, entity: &Entity, name: &str, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Bound> {
        let Some(table) = &entity.table else {
            let message = format!("{}'{name}' is a database; its tables are {name}.Table", prefix(cx.operator));
            return Err(Diagnostic::semantic("SEM0100", expr.span.clone(), message));
        };
        let place = self.place(entity, expr, cx)?;
        self.member_of(&place, table, expr, cx)
    }

    /// A table or a function without arguments of a database, or what an entity says about itself.
    pub(super) fn member_of(&mut self, place: &Place, name: &str, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Bound> {
        let about = match (name, place) {
            ("$current_database", Place::Here(database) | Place::Elsewhere { database, .. }) => Some(database.clone()),
            ("$current_cluster_endpoint", Place::Here(_)) => Some(self.catalog.endpoint()),
            ("$current_cluster_endpoint", Place::Elsewhere { cluster, .. }) => Some(cluster.clone()),
            _ => None,
        };
        if let Some(text) = about {
            return Ok(Bound::Scalar(Expr::constant(Value::string(text), Type::String)));
        }
        match place {
            Place::Here(database) => self.catalog_name(Some(database), name, expr, cx),
            Place::Elsewhere { cluster, database } => {
                let query = Remote { cluster: cluster.clone(), database: database.clone(), query: text::name(name) };
                let mut table = self.remote(query, expr)?;
                table.name = Some(name.to_owned());
                Ok(Bound::Table(Box::new(table)))
            }
        }
    }

    /// A call of another cluster's function.
    pub(super) fn remote_call(
        &mut self,
        cluster: String,
        database: String,
        function: &str,
        arguments: &[Argument],
        expr: &ast::Expr,
        cx: &Cx<'_>,
    ) -> Bind<Bound> {
        let mut written = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let value = self.scalar(&argument.value, &Cx { row: None, ..*cx })?;
            let Some(value) = text::expr(&value, &[]) else {
                return Err(Diagnostic::unsupported(argument.value.span.clone(), "this argument of another cluster's function"));
            };
            written.push(match &argument.name {
                Some(name) => format!("{}={value}", text::name(&name.text)),
                None => value,
            });
        }
        let query = format!("{}({})", text::name(function), written.join(", "));
        self.remote(Remote { cluster, database, query }, expr).map(|table| Bound::Table(Box::new(table)))
    }

    fn remote(&mut self, query: Remote, expr: &ast::Expr) -> Bind<Table> {
        self.look_up(vec![query.clone()]);
        let found = self.remotes.get(&query).cloned();
        let of = format!("{} in database '{}' of cluster '{}'", query.query, query.database, query.cluster);
        match found {
            Some(Ok(columns)) => Ok(Table::new(columns, RelOp::Remote(query), Size::LEAF)),
            Some(Err(RemoteError::Refused(why))) => {
                Err(Diagnostic::semantic("SEM0100", expr.span.clone(), format!("Failed to resolve {of}: {why}")))
            }
            Some(Err(RemoteError::Unavailable(why))) => Err(Diagnostic::unavailable(expr.span.clone(), format!("{of}: {why}"))),
            None => Err(Diagnostic::unavailable(expr.span.clone(), format!("{of}: its columns are not known"))),
        }
    }

    /// Asks for the columns of queries of other clusters that are not known yet, of all at once.
    pub(super) fn look_up(&mut self, mut queries: Vec<Remote>) {
        queries.retain(|query| !self.remotes.contains_key(query));
        if queries.is_empty() {
            return;
        }
        let found = self.catalog.remote_columns(&queries);
        self.remotes.extend(queries.into_iter().zip(found));
    }
}
