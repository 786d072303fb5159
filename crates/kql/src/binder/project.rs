//! `project` and its family, `extend`, `where`, `distinct`, `serialize`: one expression for each output column.

use super::expr::{find, prefix};
use super::names::{self, Unique};
use super::scope::{Cx, Env, Row, Table, is_serialized};
use super::table::with_op;
use super::{Bind, Binder};
use crate::ast::{self, ExprKind as Ast, Name, Ordered};
use crate::diagnostic::Diagnostic;
use crate::tree::{Expr, RelOp};
use crate::types::{Column, Type};

/// An output column while its name may still change.
struct Output {
    /// The wish; None: `Column1`.
    name: Option<String>,
    /// Named by the query, so it must not be changed.
    explicit: Option<ast::Span>,
    value: Expr,
}

impl Binder<'_> {
    pub(super) fn filter(&mut self, input: Table, predicate: &ast::Expr, env: &Env) -> Bind<Table> {
        let scope = self.new_scope();
        let cx = row_context(&input, env, scope, "where");
        let predicate = self.predicate(predicate, &cx)?;
        Ok(with_op(input, Vec::new(), |rel| RelOp::Filter(rel, predicate)))
    }

    /// A condition: bool, or what converts to it.
    pub(super) fn predicate(&mut self, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Expr> {
        let value = self.scalar(expr, cx)?;
        match value.ty {
            Type::Bool => Ok(value),
            Type::Dynamic | Type::Int | Type::Long => self.convert(value, Type::Bool, &expr.span),
            ty => {
                let message = format!("{}the condition has to be a bool, not a {ty}", prefix(cx.operator));
                Err(Diagnostic::semantic("SEM0021", expr.span.clone(), message))
            }
        }
    }

    pub(super) fn project(&mut self, input: Table, items: &[ast::Expr], env: &Env, operator: &str) -> Bind<Table> {
        let scope = self.new_scope();
        let cx = row_context(&input, env, scope, operator);
        let outputs = self.outputs(items, &cx)?;
        let mut names = Unique::new();
        take_explicit(&mut names, &outputs, &cx)?;
        let (mut columns, mut exprs) = (Vec::new(), Vec::new());
        for output in outputs {
            let name = match (output.name, output.explicit) {
                (Some(name), Some(_)) => name,
                (wish, _) => names.of(wish),
            };
            columns.push(Column::new(name, output.value.ty));
            exprs.push(output.value);
        }
        if columns.is_empty() {
            // `project` of nothing keeps no column
            let size = input.size + 1;
            return Ok(Table::new(columns, RelOp::Project(Box::new(input.rel), exprs), size));
        }
        Ok(with_op(input, columns, |rel| RelOp::Project(rel, exprs)))
    }

    /// `extend`: a name that exists is replaced in place, others are appended.
    pub(super) fn extend(&mut self, input: Table, items: &[ast::Expr], env: &Env, operator: &str) -> Bind<Table> {
        let scope = self.new_scope();
        let cx = row_context(&input, env, scope, operator);
        let outputs = self.outputs(items, &cx)?;
        let mut columns = input.columns().to_vec();
        let mut exprs = identity(&columns);
        let mut names = Unique::new();
        for column in &columns {
            names.take(&column.name);
        }
        for output in outputs {
            let replaces = output.explicit.is_some() || matches!(output.value.kind, crate::tree::ExprKind::Column(_));
            let name = output.name.unwrap_or_else(|| names.unnamed());
            match columns.iter().position(|c| c.name == name) {
                Some(at) if replaces => {
                    columns[at].ty = output.value.ty;
                    exprs[at] = output.value;
                }
                found => {
                    let name = if found.is_some() { names.name(&name) } else { name };
                    names.take(&name);
                    columns.push(Column::new(name, output.value.ty));
                    exprs.push(output.value);
                }
            }
        }
        Ok(with_op(input, columns, |rel| RelOp::Project(rel, exprs)))
    }

    fn outputs(&mut self, items: &[ast::Expr], cx: &Cx<'_>) -> Bind<Vec<Output>> {
        let mut outputs = Vec::with_capacity(items.len());
        for item in items {
            match &item.kind {
                Ast::Assign(names, value) => {
                    for (name, value) in self.assigned(names, value, cx)? {
                        outputs.push(Output { name: Some(name), explicit: Some(item.span.clone()), value });
                    }
                }
                Ast::Wildcard(pattern) => {
                    let columns = cx.row.map(|row| row.columns).unwrap_or_default();
                    for (index, column) in columns.iter().enumerate().filter(|(_, c)| names::matches(pattern, &c.name)) {
                        let value = Expr::column(index, column.ty);
                        outputs.push(Output { name: Some(column.name.clone()), explicit: None, value });
                    }
                }
                _ => match self.multiple(item, cx)? {
                    Some(values) => {
                        outputs.extend(values.into_iter().map(|(name, value)| Output { name: Some(name), explicit: None, value }))
                    }
                    None => {
                        let value = self.scalar(item, cx)?;
                        outputs.push(Output { name: names::of(item), explicit: None, value });
                    }
                },
            }
        }
        Ok(outputs)
    }

    /// `name = value` or `(a, b) = value`, the second of a function with several results.
    pub(super) fn assigned(&mut self, names: &[Name], value: &ast::Expr, cx: &Cx<'_>) -> Bind<Vec<(String, Expr)>> {
        if let [name] = names {
            return Ok(vec![(name.text.clone(), self.scalar(value, cx)?)]);
        }
        let Some(values) = self.multiple(value, cx)? else {
            let what = "an assignment to several names of an expression with one value";
            return Err(Diagnostic::unsupported(value.span.clone(), what));
        };
        let renamed =
            values.into_iter().enumerate().map(|(index, (auto, value))| (names.get(index).map_or(auto, |name| name.text.clone()), value));
        Ok(renamed.collect())
    }

    pub(super) fn serialize(&mut self, input: Table, items: &[ast::Expr], env: &Env) -> Bind<Table> {
        let serialized = with_op(input, Vec::new(), RelOp::Serialize);
        if items.is_empty() { Ok(serialized) } else { self.extend(serialized, items, env, "serialize") }
    }

    pub(super) fn distinct(&mut self, input: Table, items: &[ast::Expr], env: &Env) -> Bind<Table> {
        let projected = self.project(input, items, env, "distinct")?;
        Ok(with_op(projected, Vec::new(), RelOp::Distinct))
    }

    pub(super) fn project_away(&mut self, input: Table, patterns: &[ast::Expr]) -> Bind<Table> {
        let gone = self.matched(input.columns(), patterns, "project-away")?;
        let kept = (0..input.columns().len()).filter(|at| !gone.contains(at)).collect();
        Ok(pick(input, kept))
    }

    pub(super) fn project_keep(&mut self, input: Table, patterns: &[ast::Expr]) -> Bind<Table> {
        let mut kept = self.matched(input.columns(), patterns, "project-keep")?;
        kept.sort_unstable();
        Ok(pick(input, kept))
    }

    /// Columns first as listed, the rest behind in their order.
    pub(super) fn project_reorder(&mut self, input: Table, items: &[Ordered]) -> Bind<Table> {
        let columns = input.columns().to_vec();
        let listed: Vec<String> = items.iter().filter_map(|i| names::of(&i.expr)).collect();
        let mut order: Vec<usize> = Vec::new();
        for item in items {
            let mut matched = self.matched(&columns, std::slice::from_ref(&item.expr), "project-reorder")?;
            if matches!(item.expr.kind, Ast::Wildcard(_)) {
                // a name that is listed itself is not caught by a pattern
                matched.retain(|at| !listed.contains(&columns[*at].name));
            }
            match item.descending {
                Some(false) => matched.sort_by(|a, b| columns[*a].name.cmp(&columns[*b].name)),
                Some(true) => matched.sort_by(|a, b| columns[*b].name.cmp(&columns[*a].name)),
                None => {}
            }
            order.extend(matched.into_iter().filter(|at| !order.contains(at)).collect::<Vec<_>>());
        }
        let rest: Vec<usize> = (0..columns.len()).filter(|at| !order.contains(at)).collect();
        order.extend(rest);
        Ok(pick(input, order))
    }

    pub(super) fn project_rename(&mut self, input: Table, items: &[ast::Expr]) -> Bind<Table> {
        let mut columns = input.columns().to_vec();
        for item in items {
            let Ast::Assign(new, old) = &item.kind else {
                return Err(Diagnostic::semantic("SEM0001", item.span.clone(), "project-rename takes new=old"));
            };
            let ([new], Ast::Name(old_name)) = (new.as_slice(), &old.kind) else {
                return Err(Diagnostic::semantic("SEM0001", item.span.clone(), "project-rename takes new=old"));
            };
            let Some((at, _)) = find(input.columns(), old_name) else {
                return Err(missing(old_name, old, "project-rename"));
            };
            columns[at].name.clone_from(&new.text);
        }
        let mut names = Unique::new();
        for column in &columns {
            if !names.take(&column.name) {
                let span = items.first().map_or(0..0, |i| i.span.clone());
                let message = format!("project-rename: two columns would be named '{}'", column.name);
                return Err(Diagnostic::semantic("SEM0034", span, message));
            }
        }
        let exprs = identity(&columns);
        Ok(with_op(input, columns, |rel| RelOp::Project(rel, exprs)))
    }

    /// Positions of the columns that names and patterns stand for; each once.
    fn matched(&self, columns: &[Column], patterns: &[ast::Expr], operator: &str) -> Bind<Vec<usize>> {
        let mut matched = Vec::new();
        for pattern in patterns {
            let found: Vec<usize> = match &pattern.kind {
                Ast::Wildcard(text) => (0..columns.len()).filter(|at| names::matches(text, &columns[*at].name)).collect(),
                Ast::Name(name) => match find(columns, name) {
                    Some((at, _)) => vec![at],
                    None => return Err(missing(name, pattern, operator)),
                },
                _ => {
                    let message = format!("{}a column is expected here", prefix(operator));
                    return Err(Diagnostic::semantic("SEM0001", pattern.span.clone(), message));
                }
            };
            for at in found {
                if !matched.contains(&at) {
                    matched.push(at);
                }
            }
        }
        Ok(matched)
    }
}

/// Marks the names that the query gives; two equal ones are an error.
fn take_explicit(names: &mut Unique, outputs: &[Output], cx: &Cx<'_>) -> Bind<()> {
    for output in outputs {
        if let (Some(name), Some(span)) = (&output.name, &output.explicit)
            && !names.take(name)
        {
            let message = format!("{}a column named '{name}' is already there", prefix(cx.operator));
            return Err(Diagnostic::semantic("SEM0034", span.clone(), message));
        }
    }
    Ok(())
}

fn missing(name: &str, expr: &ast::Expr, operator: &str) -> Diagnostic {
    let message = format!("{}Failed to resolve column named '{name}'", prefix(operator));
    Diagnostic::semantic("SEM0100", expr.span.clone(), message)
}

/// The context of expressions over the rows of a table.
pub(super) fn row_context<'c>(input: &'c Table, env: &'c Env, scope: usize, operator: &'c str) -> Cx<'c> {
    let row = Row::of(input.columns(), is_serialized(&input.rel));
    Cx { env, row: Some(row), scope, operator, aggregates: None }
}

/// Every column as it is.
pub(super) fn identity(columns: &[Column]) -> Vec<Expr> {
    columns.iter().enumerate().map(|(index, column)| Expr::column(index, column.ty)).collect()
}

/// The columns at those positions.
pub(super) fn pick(input: Table, positions: Vec<usize>) -> Table {
    let columns: Vec<Column> = positions.iter().map(|at| input.columns()[*at].clone()).collect();
    let exprs = positions.iter().zip(&columns).map(|(at, column)| Expr::column(*at, column.ty)).collect();
    let size = input.size + 1;
    Table::new(columns, RelOp::Project(Box::new(input.rel), exprs), size)
}
