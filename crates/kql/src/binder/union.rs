//! `union`: columns are matched by name; a name with several types becomes `x_long`, `x_string`.

use super::entity::Place;
use super::names::{self, Unique};
use super::scope::{Bound, Cx, Env, Size, Table};
use super::table::stored;
use super::{Bind, Binder};
use crate::ast::{self, ExprKind as Ast, OperatorOption, Span};
use crate::diagnostic::Diagnostic;
use crate::tree::{Expr, Rel, RelOp};
use crate::types::{Column, Type};
use crate::value::Value;

impl Binder<'_> {
    pub(super) fn union(
        &mut self,
        input: Option<Table>,
        options: &[OperatorOption],
        tables: &[ast::Expr],
        env: &Env,
        span: &Span,
    ) -> Bind<Table> {
        let (mut inner, mut source, mut fuzzy) = (false, None, false);
        for option in options {
            match (option.name.text.as_str(), &option.value.kind) {
                ("kind", Ast::Name(kind)) if kind == "inner" || kind == "outer" => inner = kind == "inner",
                ("withsource" | "with_source", Ast::Name(name)) => source = Some(name.clone()),
                ("withsource" | "with_source", Ast::Literal(Value::String(name), _)) => source = Some(name.to_string()),
                ("isfuzzy", Ast::Literal(Value::Bool(flag), _)) => fuzzy = *flag,
                (name, _) if name.starts_with("hint.") => {}
                (name, _) => {
                    let what = format!("this value of the option '{name}' of union");
                    return Err(Diagnostic::unsupported(option.value.span.clone(), what));
                }
            }
        }
        let mut parts: Vec<Table> = input.into_iter().collect();
        for table in tables {
            match self.operands(table, env, "union") {
                Ok(found) => parts.extend(found),
                Err(diagnostic) if fuzzy && diagnostic.code == "SEM0100" => {}
                Err(diagnostic) => return Err(diagnostic),
            }
        }
        if parts.is_empty() {
            let message = "'union' operator: Failed to resolve table expression: no table matches";
            return Err(Diagnostic::semantic("SEM0100", span.clone(), message));
        }
        let union = unite(parts, inner, source.as_deref(), "union_arg");
        self.check_size(&union, span)?;
        Ok(union)
    }

    /// The tables that an operand of `union` or `search` stands for: one, or all that match a pattern.
    pub(super) fn operands(&mut self, expr: &ast::Expr, env: &Env, operator: &str) -> Bind<Vec<Table>> {
        let cx = Cx::constant(env, operator);
        let (database, pattern) = match &expr.kind {
            Ast::Wildcard(pattern) => (None, pattern),
            Ast::Member(base, member) if member.text.contains('*') => match self.place_of(base, &cx)? {
                Some(Place::Here(database)) => (Some(database), &member.text),
                Some(Place::Elsewhere { .. }) => {
                    return Err(Diagnostic::unsupported(expr.span.clone(), "a pattern of tables of another cluster"));
                }
                None => return Err(Diagnostic::unsupported(expr.span.clone(), "this pattern of tables")),
            },
            _ => return Ok(vec![self.table(expr, &cx)?]),
        };
        let mut found = Vec::new();
        if database.is_none() {
            for name in env.views(|name| names::matches(pattern, name)) {
                let view = ast::Expr { kind: Ast::Name(name), span: expr.span.clone(), height: 1 };
                found.push(self.table(&view, &cx)?);
            }
        }
        for name in self.catalog.views(database.as_deref(), pattern) {
            // a view over all tables is none of them
            if self.views.contains(&name) {
                continue;
            }
            self.views.push(name.clone());
            let view = self.stored_function(database.as_deref(), &name, None, &[], &expr.span, &cx);
            self.views.pop();
            if let Some(Bound::Table(mut table)) = view? {
                table.name = Some(name);
                found.push(*table);
            }
        }
        found.extend(self.catalog.tables(database.as_deref(), pattern).into_iter().map(stored));
        if found.is_empty() {
            let message = format!("'{operator}' operator: Failed to resolve table expression named '{pattern}'");
            return Err(Diagnostic::semantic("SEM0100", expr.span.clone(), message));
        }
        Ok(found)
    }
}

/// Concatenates tables. `source` names a column that says where a row comes from: the table's name, or `prefix` and a
/// number.
pub(super) fn unite(parts: Vec<Table>, inner: bool, source: Option<&str>, prefix: &str) -> Table {
    let mut columns: Vec<Column> = Vec::new();
    for column in parts.iter().flat_map(|part| part.columns()) {
        if !columns.contains(column) {
            columns.push(column.clone());
        }
    }
    if inner {
        columns.retain(|column| parts.iter().all(|part| part.columns().contains(column)));
    }
    let named = without_conflicts(&columns);
    let mut out = named.clone();
    if let Some(source) = source {
        out.insert(0, Column::new(source, Type::String));
    }
    let size = parts.iter().map(|part| part.size).fold(Size::LEAF, Size::beside) + 1;
    let rels = parts
        .into_iter()
        .enumerate()
        .map(|(index, part)| {
            let label = source.map(|_| part.name.clone().unwrap_or_else(|| format!("{prefix}{index}")));
            aligned(part, &columns, &out, label)
        })
        .collect();
    Table::new(out, RelOp::Union(rels), size)
}

/// Columns under the names that they get: `x_long` and `x_string` where `x` has several types.
fn without_conflicts(columns: &[Column]) -> Vec<Column> {
    let conflicts = |column: &Column| columns.iter().filter(|other| other.name == column.name).count() > 1;
    let mut taken = Unique::new();
    for column in columns.iter().filter(|column| !conflicts(column)) {
        taken.take(&column.name);
    }
    let rename = |column: &Column| {
        let name = if conflicts(column) { taken.name(&format!("{}_{}", column.name, column.ty)) } else { column.name.clone() };
        Column::new(name, column.ty)
    };
    columns.iter().map(rename).collect()
}

/// A table with exactly the columns of the union; those it has not are null.
fn aligned(part: Table, columns: &[Column], out: &[Column], label: Option<String>) -> Rel {
    if label.is_none() && part.columns() == out {
        return part.rel;
    }
    let label = label.map(|text| Expr::constant(Value::string(text), Type::String));
    let values = columns.iter().map(|column| match part.columns().iter().position(|c| c == column) {
        Some(at) => Expr::column(at, column.ty),
        None => Expr::constant(Value::null_of(column.ty), column.ty),
    });
    let exprs = label.into_iter().chain(values).collect();
    Rel { columns: out.to_vec(), op: RelOp::Project(Box::new(part.rel), exprs) }
}
