//! `macro-expand`: the union of one sub-query over the entities of a group.

use std::rc::Rc;
use std::sync::Arc;

use super::entity::{Entity, Place};
use super::scope::{Binding, Bound, Cx, Env, Table};
use super::union::unite;
use super::{Bind, Binder};
use crate::ast::{self, ExprKind as Ast, OperatorOption, Span};
use crate::catalog::RemoteError;
use crate::diagnostic::{Diagnostic, DiagnosticKind};
use crate::remote::{self, text};
use crate::tree::{Branches, RelOp, Remote};
use crate::value::Value;

/// What to do about entities that differ or fail.
#[derive(Debug, Clone, Copy, Default)]
struct Options {
    /// Only columns that all have.
    inner: bool,
    /// Entities that cannot be resolved are left out.
    fuzzy: bool,
    /// So are those whose cluster fails while the query runs.
    best_effort: bool,
}

impl Binder<'_> {
    pub(super) fn macro_expand(&mut self, expand: &ast::MacroExpand, env: &Env, span: &Span) -> Bind<Table> {
        let options = self.expand_options(&expand.options)?;
        let entities = self.group(&expand.group, env)?;
        self.look_up_members(&entities, &expand.members, env);
        let cx = Cx::constant(env, "macro-expand");
        let (mut legs, mut reasons) = (Vec::new(), Vec::new());
        for entity in entities {
            let shown = entity.to_string();
            let inner = env.with(&expand.alias.text, Binding::Entity(Rc::new(entity)));
            match self.body(&expand.body, &inner, &cx, span) {
                Ok(Bound::Table(table)) => legs.push(*table),
                Ok(Bound::Scalar(_)) => {
                    return Err(Diagnostic::semantic("SEM0001", span.clone(), "the sub-query of macro-expand has to be a table"));
                }
                Err(diagnostic) if options.fuzzy && is_unresolved(&diagnostic) => reasons.push((shown, diagnostic)),
                Err(mut diagnostic) => {
                    diagnostic.message = format!("{} (for {shown})", diagnostic.message);
                    return Err(diagnostic);
                }
            }
        }
        if legs.is_empty() {
            return Err(none_resolved(&reasons, span));
        }
        for (shown, diagnostic) in reasons {
            self.catalog.warn(format!("macro-expand does without {shown}: {}", diagnostic.message));
        }
        if options.best_effort {
            legs = tolerant(legs);
        }
        let mut table = unite(legs, options.inner, None, "");
        if let RelOp::Union(parts) = table.rel.op {
            table.rel.op = RelOp::Union(parts.into_iter().map(remote::pushed).collect());
        }
        self.check_size(&table, span)?;
        Ok(table)
    }

    fn expand_options(&self, written: &[OperatorOption]) -> Bind<Options> {
        let mut options = Options { best_effort: self.options.best_effort, ..Options::default() };
        for option in written {
            match (option.name.text.as_str(), &option.value.kind) {
                ("kind", Ast::Name(kind)) if kind == "inner" || kind == "outer" => options.inner = kind == "inner",
                ("isfuzzy", Ast::Literal(Value::Bool(flag), _)) => options.fuzzy = *flag,
                ("best_effort", Ast::Literal(Value::Bool(flag), _)) => options.best_effort = *flag,
                (name, _) if name.starts_with("hint.") => {}
                (name, _) => {
                    let what = format!("this value of the option '{name}' of macro-expand");
                    return Err(Diagnostic::unsupported(option.value.span.clone(), what));
                }
            }
        }
        options.fuzzy |= options.best_effort;
        Ok(options)
    }

    fn group(&mut self, group: &ast::Expr, env: &Env) -> Bind<Vec<Entity>> {
        let name = match &group.kind {
            Ast::EntityGroup(references) => return self.entities(references, &Cx::constant(env, "macro-expand")),
            Ast::Name(name) => name,
            _ => return Err(Diagnostic::syntax(group.span.clone(), "expected an entity group")),
        };
        match env.get(name) {
            Some(Binding::Group(entities)) => return Ok((**entities).clone()),
            Some(_) => {
                let message = format!("'{name}' is not an entity group");
                return Err(Diagnostic::semantic("SEM0100", group.span.clone(), message));
            }
            None => {}
        }
        let of = format!("'macro-expand' operator: Failed to resolve entity group named '{name}'");
        let stored = self.catalog.entity_group(name).map_err(|error| match error {
            RemoteError::Refused(_) => Diagnostic::semantic("SEM0100", group.span.clone(), of),
            RemoteError::Unavailable(why) => Diagnostic::unavailable(group.span.clone(), format!("{of}: {why}")),
        })?;
        let at_group = |diagnostic| Diagnostic { span: group.span.clone(), ..diagnostic };
        self.written_entities(&stored.join(", "), env).map_err(at_group)
    }

    /// Asks all clusters at once for what the sub-query will ask them for. What fails does so again where it is used.
    fn look_up_members(&mut self, entities: &[Entity], members: &[String], env: &Env) {
        let mut queries = Vec::new();
        let nowhere = ast::Expr { kind: Ast::Error, span: 0..0, height: 1 };
        for entity in entities {
            let Ok(Place::Elsewhere { cluster, database }) = self.place(entity, &nowhere, &Cx::constant(env, "")) else { continue };
            let names = entity.table.iter().chain(members.iter().filter(|name| entity.table.is_none() && !name.starts_with('$')));
            queries.extend(names.map(|name| Remote { cluster: cluster.clone(), database: database.clone(), query: text::name(name) }));
        }
        self.look_up(queries);
    }
}

/// Whether the entity, or what the sub-query wants of it, does not exist or cannot be reached.
fn is_unresolved(diagnostic: &Diagnostic) -> bool {
    diagnostic.code == "SEM0100" || diagnostic.kind == DiagnosticKind::Unavailable
}

fn none_resolved(reasons: &[(String, Diagnostic)], span: &Span) -> Diagnostic {
    let first = reasons.first().map(|(shown, diagnostic)| format!(": {shown}: {}", diagnostic.message)).unwrap_or_default();
    let message = format!("'macro-expand' operator: no entity of the group could be resolved{first}");
    match reasons.iter().any(|(_, diagnostic)| diagnostic.kind == DiagnosticKind::Unavailable) {
        true => Diagnostic::unavailable(span.clone(), message),
        false => Diagnostic::semantic("SEM0100", span.clone(), message),
    }
}

/// Branches that have no rows where their cluster fails.
fn tolerant(legs: Vec<Table>) -> Vec<Table> {
    let branches = Arc::new(Branches { count: legs.len() });
    let wrap = |(branch, leg): (usize, Table)| {
        let columns = leg.rel.columns.clone();
        let op = RelOp::BestEffort { input: Box::new(leg.rel), branch, branches: branches.clone() };
        Table { name: leg.name, ..Table::new(columns, op, leg.size + 1) }
    };
    legs.into_iter().enumerate().map(wrap).collect()
}
