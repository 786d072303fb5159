//! Tabular expressions: references to tables, pipes, and the operators that make rows of nothing.

use std::sync::Arc;

use super::call::{arity, shared};
use super::expr::{prefix, unresolved};
use super::ingestion;
use super::names::{self, Unique};
use super::project::identity;
use super::scope::{Binding, Bound, Cx, Env, Size, Table};
use super::{Bind, Binder};
use crate::ast::{self, Argument, ExprKind as Ast, Name, Operator, OperatorKind as Op};
use crate::catalog::TableSchema;
use crate::diagnostic::Diagnostic;
use crate::functions;
use crate::remote;
use crate::tree::{Expr, ExprKind, Rel, RelOp};
use crate::types::{Column, Type};
use crate::value::Value;

impl Binder<'_> {
    /// A tabular expression; a scalar in its place is an error.
    pub(super) fn table(&mut self, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Table> {
        match self.any(expr, &Cx { row: None, aggregates: None, ..*cx })? {
            Bound::Table(table) => Ok(*table),
            Bound::Scalar(_) => {
                let message = format!("{}a tabular expression is expected here", prefix(cx.operator));
                Err(Diagnostic::semantic("SEM0100", expr.span.clone(), message))
            }
        }
    }

    /// Operators applied one after the other. `as` names the rows for those behind it.
    pub(super) fn pipe(&mut self, source: &ast::Expr, operators: &[Operator], cx: &Cx<'_>) -> Bind<Table> {
        let operator = operators.first().map_or("", |o| operator_name(&o.kind));
        let mut source = self.table(source, &Cx { operator, ..*cx })?;
        let asking = ingestion::asked_for(operators);
        if asking == 0 {
            return self.operators(source, operators, cx.env);
        }
        source = ingestion::exposed(source);
        let (asking, rest) = operators.split_at(asking);
        let (table, env) = self.some_operators(source, asking, cx.env)?;
        self.operators(ingestion::hidden(table), rest, &env)
    }

    pub(super) fn operators(&mut self, table: Table, operators: &[Operator], env: &Env) -> Bind<Table> {
        self.some_operators(table, operators, env).map(|(table, _)| table)
    }

    /// With the names that stand for their rows.
    fn some_operators(&mut self, mut table: Table, operators: &[Operator], env: &Env) -> Bind<(Table, Env)> {
        let mut env = env.clone();
        for operator in operators {
            if let Op::As(name) = &operator.kind {
                table = shared(table);
                table.name = Some(name.text.clone());
                env = env.with(&name.text, Binding::Table(table.clone().into()));
                continue;
            }
            table = self.operator(table, operator, &env)?;
            table.rel = remote::pushed(table.rel);
            self.check_size(&table, &operator.span)?;
        }
        Ok((table, env))
    }

    fn operator(&mut self, input: Table, operator: &Operator, env: &Env) -> Bind<Table> {
        let name = operator_name(&operator.kind);
        let span = &operator.span;
        match &operator.kind {
            Op::Where(predicate) => self.filter(input, predicate, env),
            Op::Project(items) => self.project(input, items, env, name),
            Op::ProjectAway(patterns) => self.project_away(input, patterns),
            Op::ProjectKeep(patterns) => self.project_keep(input, patterns),
            Op::ProjectRename(items) => self.project_rename(input, items),
            Op::ProjectReorder(items) => self.project_reorder(input, items),
            Op::Extend(items) => self.extend(input, items, env, name),
            Op::Summarize { aggregates, keys, .. } => self.summarize(input, aggregates, keys, env, span),
            Op::Sort(keys) => self.sort(input, keys, env),
            Op::Top { count, by } => self.top(input, count, by, env),
            Op::Take(count) => self.take(input, count, env),
            Op::Distinct(items) => self.distinct(input, items, env),
            Op::Count(name) => Ok(self.count(input, name.as_ref())),
            Op::Join { lookup, options, right, on } => self.join(input, *lookup, options, right, on, env, span),
            Op::Union { options, tables } => self.union(Some(input), options, tables, env, span),
            Op::MvExpand(expand) => self.mv_expand(input, expand, env, span),
            Op::MvApply { expand, subquery } => self.mv_apply(input, expand, subquery, env, span),
            Op::MakeSeries(series) => self.make_series(input, series, env, span),
            Op::Serialize(items) => self.serialize(input, items, env),
            Op::Partition { key, subquery, .. } => self.partition(input, key, subquery, env),
            Op::Parse { filter, options, source, pattern } => self.parse(input, *filter, options, source, pattern, env),
            Op::ParseKv { source, keys, options } => self.parse_kv(input, source, keys, options, env),
            Op::Search { options, tables, predicate } => self.search(Some(input), options, tables, predicate, env, span),
            Op::TopNested(levels) => self.top_nested(input, levels, env),
            Op::Scan(scan) => self.scan(input, scan, env, span),
            Op::Sample(count) => self.sample(input, count, None, env),
            Op::SampleDistinct(count, of) => self.sample(input, count, Some(of), env),
            Op::Evaluate { name, arguments, schema, .. } => self.evaluate(input, name, arguments, schema.as_ref(), env, span),
            Op::GetSchema => Ok(get_schema(input)),
            Op::Invoke(name, arguments) => self.invoke(input, name, arguments, env, span),
            Op::Render { chart, options } => self.render(input, chart, options),
            Op::Consume => Ok(with_op(input, Vec::new(), |rel| RelOp::Take(rel, 0))),
            Op::As(_) => Ok(input),
            Op::DataTable { .. } | Op::Print(_) | Op::Range { .. } | Op::MacroExpand(_) => {
                Err(Diagnostic::semantic("SEM0001", span.clone(), format!("'{name}' cannot stand behind a pipe")))
            }
            Op::Other(name) => Err(Diagnostic::unsupported(name.span.clone(), format!("the operator '{}'", name.text))),
        }
    }

    /// An operator that needs no input.
    pub(super) fn source(&mut self, operator: &Operator, env: &Env) -> Bind<Table> {
        let span = &operator.span;
        match &operator.kind {
            Op::DataTable { columns, values } => self.datatable(columns, values, env, span),
            Op::Print(items) => self.print(items, env),
            Op::Range { name, from, to, step } => self.range(name, [from, to, step], env),
            Op::Union { options, tables } => self.union(None, options, tables, env, span),
            Op::Search { options, tables, predicate } => self.search(None, options, tables, predicate, env, span),
            Op::MacroExpand(expand) => self.macro_expand(expand, env, span),
            Op::Evaluate { name, .. } => {
                Err(Diagnostic::unsupported(name.span.clone(), format!("the plugin '{}' without input", name.text)))
            }
            other => {
                let name = if let Op::Other(name) = other { &name.text } else { operator_name(other) };
                Err(Diagnostic::unsupported(span.clone(), format!("the operator '{name}'")))
            }
        }
    }

    fn datatable(&mut self, columns: &[ast::ColumnDeclaration], values: &[ast::Expr], env: &Env, span: &ast::Span) -> Bind<Table> {
        let cx = Cx::constant(env, "datatable");
        if columns.is_empty() || !values.len().is_multiple_of(columns.len()) {
            let message = format!("datatable has {} values for {} columns", values.len(), columns.len());
            return Err(Diagnostic::semantic("SEM0001", span.clone(), message));
        }
        let mut rows = Vec::with_capacity(values.len() / columns.len());
        for cells in values.chunks(columns.len()) {
            let mut row = Vec::with_capacity(columns.len());
            for (column, cell) in columns.iter().zip(cells) {
                row.push(self.cell(cell, column.ty, &cx)?);
            }
            rows.push(row);
        }
        let mut names = Unique::new();
        for column in columns {
            if !names.take(&column.name.text) {
                let message = format!("the column '{}' is declared twice", column.name.text);
                return Err(Diagnostic::semantic("SEM0034", column.name.span.clone(), message));
            }
        }
        let columns = declared(columns);
        Ok(Table::new(columns, RelOp::Values(Arc::new(rows)), Size::LEAF))
    }

    /// A value of `datatable` in the type of its column, converted as the cast functions do.
    fn cell(&mut self, cell: &ast::Expr, ty: Type, cx: &Cx<'_>) -> Bind<Value> {
        let (value, from) = self.constant(cell, cx)?;
        if value.is_null() {
            return Ok(Value::null_of(ty));
        }
        if from == ty {
            return Ok(value);
        }
        if ty == Type::Dynamic {
            return Ok(Value::dynamic(value.to_dynamic()));
        }
        let cast = Expr::constant(value, from);
        let cast = self.operator_call(functions::cast_name(ty), vec![cast], &cell.span)?;
        match cast.kind {
            ExprKind::Const(value) => Ok(value),
            _ => Err(Diagnostic::semantic("SEM0001", cell.span.clone(), "a value of datatable has to be constant")),
        }
    }

    /// `print`: one row. Columns without a name are `print_0`, `print_1`, ….
    fn print(&mut self, items: &[ast::Expr], env: &Env) -> Bind<Table> {
        let scope = self.new_scope();
        let cx = Cx { scope, ..Cx::constant(env, "print") };
        let mut names = Unique::new();
        let mut columns = Vec::new();
        let mut exprs = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let values = match &item.kind {
                Ast::Assign(assigned, value) => self.assigned(assigned, value, &cx)?,
                _ => match self.multiple(item, &cx)? {
                    Some(values) => values,
                    None => vec![(format!("print_{index}"), self.scalar(item, &cx)?)],
                },
            };
            for (name, value) in values {
                columns.push(Column::new(names.name(&name), value.ty));
                exprs.push(value);
            }
        }
        Ok(one_row(columns, exprs))
    }

    /// A scalar that stands where a query is expected.
    pub(super) fn print_one(&mut self, value: Expr, expr: &ast::Expr) -> Table {
        let name = names::of(expr).unwrap_or_else(|| "print_0".to_owned());
        one_row(vec![Column::new(name, value.ty)], vec![value])
    }

    fn range(&mut self, name: &Name, bounds: [&ast::Expr; 3], env: &Env) -> Bind<Table> {
        let scope = self.new_scope();
        let cx = Cx { scope, ..Cx::constant(env, "range") };
        let [from, to, step] = bounds.map(|bound| self.scalar(bound, &cx));
        let (from, to, step) = (from?, to?, step?);
        let ty = match (from.ty, to.ty, step.ty) {
            (Type::DateTime, Type::DateTime, Type::TimeSpan) => Type::DateTime,
            (Type::TimeSpan, Type::TimeSpan, Type::TimeSpan) => Type::TimeSpan,
            (a, b, c) if [a, b, c].iter().all(|t| matches!(t, Type::Int | Type::Long)) => Type::Long,
            (a, b, c) if [a, b, c].iter().all(|t| t.is_numeric()) => Type::Real,
            (a, b, c) => {
                let message = format!("range from {a} to {b} by {c} is not defined");
                return Err(Diagnostic::semantic("SEM0001", name.span.clone(), message));
            }
        };
        let width = if ty == Type::DateTime { Type::TimeSpan } else { ty };
        let from = self.convert(from, ty, &bounds[0].span)?;
        let to = self.convert(to, ty, &bounds[1].span)?;
        let step = self.convert(step, width, &bounds[2].span)?;
        Ok(Table::new(vec![Column::new(&name.text, ty)], RelOp::Range { from, to, step }, Size::LEAF))
    }

    /// `invoke f(…)`: the rows are the first argument.
    fn invoke(&mut self, input: Table, name: &Name, arguments: &[Argument], env: &Env, span: &ast::Span) -> Bind<Table> {
        let cx = Cx::constant(env, "invoke");
        let bound = match env.get(&name.text).cloned() {
            Some(Binding::Function(function)) => self.invoke_callable(&function, &name.text, Some(input), arguments, span, &cx)?,
            _ => match self.stored_function(None, &name.text, Some(input), arguments, span, &cx)? {
                Some(bound) => bound,
                None => {
                    let message = format!("Unknown function: '{}'", name.text);
                    return Err(Diagnostic::semantic("SEM0260", name.span.clone(), message));
                }
            },
        };
        match bound {
            Bound::Table(table) => Ok(*table),
            Bound::Scalar(_) => {
                let message = format!("invoke: '{}' does not return a table", name.text);
                Err(Diagnostic::semantic("SEM0001", span.clone(), message))
            }
        }
    }

    /// A name that no column, `let` or parameter has: a function or a table of the catalog. A function hides the table of
    /// its name, but not from itself.
    pub(super) fn catalog_name(&mut self, database: Option<&str>, name: &str, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Bound> {
        let is_inside = self.functions.iter().any(|(of, function)| of.as_deref() == database && function == name);
        match self.catalog.table(database, name) {
            Some(schema) if is_inside => return Ok(Bound::Table(Box::new(stored(schema)))),
            Some(schema) if self.catalog.function(database, name).is_none() => return Ok(Bound::Table(Box::new(stored(schema)))),
            _ => {}
        }
        if let Some(bound) = self.stored_function(database, name, None, &[], &expr.span, cx)? {
            return Ok(bound);
        }
        Err(unresolved(name, &expr.span, cx))
    }

    /// `table("x")` and its relatives.
    pub(super) fn table_call(&mut self, name: &Name, arguments: &[Argument], expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Bound> {
        if name.text != "table" {
            return Err(Diagnostic::unsupported(expr.span.clone(), format!("'{}()' as a table", name.text)));
        }
        let [first, ..] = arguments else {
            return Err(arity("table", "1", arguments.len(), &expr.span));
        };
        let Value::String(table) = self.constant(&first.value, cx)?.0 else {
            let message = "table() needs the name of a table";
            return Err(Diagnostic::semantic("SEM0001", first.value.span.clone(), message));
        };
        if let Some(Binding::Table(bound)) = cx.env.get(&table) {
            return Ok(Bound::Table(Box::new((**bound).clone())));
        }
        // of a table and a function of one name, `table()` means the table
        if let Some(schema) = self.catalog.table(None, &table) {
            return Ok(Bound::Table(Box::new(stored(schema))));
        }
        self.catalog_name(None, &table, expr, &Cx { row: None, ..*cx })
    }
}

/// A table of the catalog.
pub(super) fn stored(schema: TableSchema) -> Table {
    let op = RelOp::Table { database: schema.database, table: schema.name.clone() };
    let mut table = Table::new(schema.columns, op, Size::LEAF);
    table.name = Some(schema.name);
    table
}

/// One row of those expressions.
fn one_row(columns: Vec<Column>, exprs: Vec<Expr>) -> Table {
    let empty = Rel { columns: Vec::new(), op: RelOp::Values(Arc::new(vec![Vec::new()])) };
    Table::new(columns, RelOp::Project(Box::new(empty), exprs), Size::LEAF)
}

fn get_schema(input: Table) -> Table {
    let columns = vec![
        Column::new("ColumnName", Type::String),
        Column::new("ColumnOrdinal", Type::Long),
        Column::new("DataType", Type::String),
        Column::new("ColumnType", Type::String),
    ];
    let schema = with_op(input, columns.clone(), RelOp::GetSchema);
    let mut exprs = identity(&columns);
    let ordinal = Expr::column(1, Type::Long);
    exprs[1] = Expr { ty: Type::Int, kind: ExprKind::Call { function: "toint", args: vec![ordinal] } };
    let mut columns = columns;
    columns[1].ty = Type::Int;
    with_op(schema, columns, |rel| RelOp::Project(rel, exprs))
}

/// An operator on top of a table; without columns it keeps those of the input.
pub(super) fn with_op(input: Table, columns: Vec<Column>, op: impl FnOnce(Box<Rel>) -> RelOp) -> Table {
    let columns = if columns.is_empty() { input.rel.columns.clone() } else { columns };
    let size = input.size + 1;
    Table::new(columns, op(Box::new(input.rel)), size)
}

/// Columns of a declaration.
pub(super) fn declared(columns: &[ast::ColumnDeclaration]) -> Vec<Column> {
    columns.iter().map(|c| Column::new(&c.name.text, c.ty)).collect()
}

/// The name of an operator for messages.
fn operator_name(kind: &Op) -> &'static str {
    match kind {
        Op::Where(_) => "where",
        Op::Project(_) => "project",
        Op::ProjectAway(_) => "project-away",
        Op::ProjectKeep(_) => "project-keep",
        Op::ProjectRename(_) => "project-rename",
        Op::ProjectReorder(_) => "project-reorder",
        Op::Extend(_) => "extend",
        Op::Summarize { .. } => "summarize",
        Op::Sort(_) => "sort",
        Op::Top { .. } => "top",
        Op::Take(_) => "take",
        Op::Distinct(_) => "distinct",
        Op::Count(_) => "count",
        Op::As(_) => "as",
        Op::Join { lookup: false, .. } => "join",
        Op::Join { lookup: true, .. } => "lookup",
        Op::Union { .. } => "union",
        Op::MvExpand(_) => "mv-expand",
        Op::MvApply { .. } => "mv-apply",
        Op::MakeSeries(_) => "make-series",
        Op::Serialize(_) => "serialize",
        Op::Partition { .. } => "partition",
        Op::Parse { filter: false, .. } => "parse",
        Op::Parse { filter: true, .. } => "parse-where",
        Op::ParseKv { .. } => "parse-kv",
        Op::Search { .. } => "search",
        Op::TopNested(_) => "top-nested",
        Op::Scan(_) => "scan",
        Op::Sample(_) => "sample",
        Op::SampleDistinct(..) => "sample-distinct",
        Op::Evaluate { .. } => "evaluate",
        Op::GetSchema => "getschema",
        Op::Invoke(..) => "invoke",
        Op::Render { .. } => "render",
        Op::Consume => "consume",
        Op::DataTable { .. } => "datatable",
        Op::Print(_) => "print",
        Op::Range { .. } => "range",
        Op::MacroExpand(_) => "macro-expand",
        Op::Other(_) => "",
    }
}
