//! `evaluate`: plugins. Columns of `bag_unpack` and `pivot` depend on the data, so unless they are declared the binder
//! runs the plan to learn them.

use super::project::row_context;
use super::scope::{Cx, Env, Table};
use super::table::declared;
use super::{Bind, Binder};
use crate::ast::{Argument, ColumnDeclaration, ExprKind as Ast, Name, Span};
use crate::diagnostic::Diagnostic;
use crate::tree::{Expr, ExprKind, RelOp};
use crate::types::{Column, Type};
use crate::value::Value;

/// Plugins of `evaluate`.
pub(crate) const PLUGINS: [&str; 3] = ["bag_unpack", "narrow", "pivot"];

impl Binder<'_> {
    pub(super) fn evaluate(
        &mut self,
        input: Table,
        name: &Name,
        arguments: &[Argument],
        schema: Option<&(bool, Vec<ColumnDeclaration>)>,
        env: &Env,
        span: &Span,
    ) -> Bind<Table> {
        if !PLUGINS.contains(&name.text.as_str()) {
            return Err(Diagnostic::unsupported(name.span.clone(), format!("the plugin '{}'", name.text)));
        }
        match name.text.as_str() {
            "bag_unpack" => self.bag_unpack(input, arguments, schema, env, span),
            "pivot" => self.pivot(input, arguments, schema, env, span),
            _ => {
                let columns = vec![Column::new("Row", Type::Long), Column::new("Column", Type::String), Column::new("Value", Type::String)];
                Ok(plugin(input, "narrow", Vec::new(), columns))
            }
        }
    }

    fn bag_unpack(
        &mut self,
        input: Table,
        arguments: &[Argument],
        schema: Option<&(bool, Vec<ColumnDeclaration>)>,
        env: &Env,
        span: &Span,
    ) -> Bind<Table> {
        let scope = self.new_scope();
        let args = self.bag_unpack_arguments(arguments, &row_context(&input, env, scope, "evaluate"))?;
        let Some(Expr { ty: Type::Dynamic, kind: ExprKind::Column(bag) }) = args.first() else {
            let message = "bag_unpack() needs a dynamic column";
            return Err(Diagnostic::semantic("SEM0001", span.clone(), message));
        };
        let columns = schema.map(|(star, columns)| {
            let others = input.columns().iter().enumerate().filter(|(at, _)| star & (at != bag)).map(|(_, c)| c.clone());
            others.chain(declared(columns)).collect()
        });
        self.open_plugin(input, "bag_unpack", args, columns, span)
    }

    /// Column, prefix, what to do about conflicts, properties to leave out; the last three may be named.
    fn bag_unpack_arguments(&mut self, arguments: &[Argument], cx: &Cx<'_>) -> Bind<Vec<Expr>> {
        const NAMES: [&str; 4] = ["Column", "OutputColumnPrefix", "columnsConflict", "ignoredProperties"];
        let text = |text: &str| Expr::constant(Value::string(text), Type::String);
        let mut args = vec![None, Some(text("")), Some(text("error")), Some(Expr::constant(Value::Null, Type::Dynamic))];
        for (at, argument) in arguments.iter().enumerate() {
            let at = match &argument.name {
                Some(name) => NAMES.iter().position(|n| n.eq_ignore_ascii_case(&name.text)),
                None => Some(at),
            };
            let Some(slot) = at.and_then(|at| args.get_mut(at)) else {
                return Err(Diagnostic::unsupported(argument.value.span.clone(), "this argument of bag_unpack()"));
            };
            *slot = Some(self.scalar(&argument.value, cx)?);
        }
        Ok(args.into_iter().flatten().collect())
    }

    /// `pivot(column [, aggregate [, columns…]])`: summarizes first, by the columns kept and the pivot column.
    fn pivot(
        &mut self,
        input: Table,
        arguments: &[Argument],
        schema: Option<&(bool, Vec<ColumnDeclaration>)>,
        env: &Env,
        span: &Span,
    ) -> Bind<Table> {
        let Some((pivot, rest)) = arguments.split_first() else {
            return Err(super::call::arity("pivot", "at least 1", 0, span));
        };
        let scope = self.new_scope();
        let cx = row_context(&input, env, scope, "evaluate");
        let pivot = self.scalar(&pivot.value, &cx)?;
        let (aggregate, kept) = match rest.split_first() {
            Some((aggregate, kept)) => (self.lone_aggregate(&aggregate.value, &cx)?.2, kept),
            None => (self.aggregate_named("count", Vec::new(), span)?, rest),
        };
        let mut keys = Vec::new();
        let mut columns = Vec::new();
        if kept.is_empty() {
            let used: Vec<usize> = aggregate.args.iter().chain([&pivot]).flat_map(columns_of).collect();
            for (at, column) in input.columns().iter().enumerate().filter(|(at, _)| !used.contains(at)) {
                keys.push(Expr::column(at, column.ty));
                columns.push(column.clone());
            }
        }
        for argument in kept {
            let Ast::Name(name) = &argument.value.kind else {
                return Err(Diagnostic::unsupported(argument.value.span.clone(), "an expression as a column of pivot()"));
            };
            let value = self.scalar(&argument.value, &cx)?;
            columns.push(Column::new(name, value.ty));
            keys.push(value);
        }
        let groups = columns.clone();
        columns.push(Column::new("$pivot", pivot.ty));
        columns.push(Column::new("$value", aggregate.ty));
        keys.push(pivot);
        let size = input.size + 1;
        let op = RelOp::Summarize { input: Box::new(input.rel), keys, aggregates: vec![aggregate] };
        let summarized = Table::new(columns, op, size);
        let columns = schema.map(|(star, columns)| {
            let groups = if *star { groups } else { Vec::new() };
            groups.into_iter().chain(declared(columns)).collect()
        });
        self.open_plugin(summarized, "pivot", Vec::new(), columns, span)
    }

    /// A plugin whose columns are declared or found by running it.
    fn open_plugin(&mut self, input: Table, name: &str, args: Vec<Expr>, columns: Option<Vec<Column>>, span: &Span) -> Bind<Table> {
        let known = columns.is_some();
        let mut table = plugin(input, name, args, columns.unwrap_or_default());
        if known {
            return Ok(table);
        }
        if depends_on_argument(&table.rel) {
            let what = format!("the plugin '{name}' without declared columns inside a sub-query");
            return Err(Diagnostic::unsupported(span.clone(), what));
        }
        if let RelOp::Evaluate { open_schema, .. } = &mut table.rel.op {
            *open_schema = true;
        }
        let found = self.catalog.run(&table.rel).map_err(|why| Diagnostic::semantic("SEM0001", span.clone(), why))?;
        table.rel.columns = found.columns;
        if let RelOp::Evaluate { open_schema, .. } = &mut table.rel.op {
            *open_schema = false;
        }
        Ok(table)
    }
}

/// A plugin on top of a table.
fn plugin(input: Table, name: &str, args: Vec<Expr>, columns: Vec<Column>) -> Table {
    let size = input.size + 1;
    let op = RelOp::Evaluate { input: Box::new(input.rel), plugin: name.to_owned(), args, open_schema: false };
    Table::new(columns, op, size)
}

fn columns_of(expr: &Expr) -> Vec<usize> {
    match &expr.kind {
        ExprKind::Column(at) => vec![*at],
        ExprKind::Call { args, .. } => args.iter().flat_map(columns_of).collect(),
        _ => Vec::new(),
    }
}

/// Whether the plan reads the rows of a sub-query, so that it cannot be run alone.
pub(super) fn depends_on_argument(rel: &crate::tree::Rel) -> bool {
    matches!(rel.op, RelOp::Argument) || crate::rows::inputs(rel).into_iter().any(depends_on_argument)
}
