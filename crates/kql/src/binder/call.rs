//! Calls: user functions, which are inlined, stored functions, and the built-in ones that need the binder's help.

use std::sync::Arc;

use super::entity::Place;
use super::expr::find;
use super::scope::{Binding, Bound, Callable, Cx, Table, is_serialized};
use super::{Bind, Binder, MAX_CALLS};
use crate::aggregates;
use crate::ast::{self, Argument, Name, ParameterType, Span};
use crate::diagnostic::Diagnostic;
use crate::functions;
use crate::parser;
use crate::tree::{Expr, ExprKind, RelOp};
use crate::types::Type;
use crate::value::Value;

/// Functions that are part of the language rather than of the library: the binder knows their arguments.
pub(crate) const LANGUAGE_FUNCTIONS: [&str; 22] = [
    "bag_pack_columns",
    "cluster",
    "column_ifexists",
    "column_names_of",
    "columnifexists",
    "current_cluster_endpoint",
    "current_database",
    "current_principal_is_member_of",
    "database",
    "gettype",
    "ingestion_time",
    "materialize",
    "next",
    "pack_all",
    "prev",
    "row_cumsum",
    "row_number",
    "row_rank_dense",
    "row_rank_min",
    "row_window_session",
    "table",
    "toscalar",
];

impl Binder<'_> {
    pub(super) fn call(&mut self, name: &Name, arguments: &[Argument], expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Bound> {
        match cx.env.get(&name.text).cloned() {
            Some(Binding::Function(function)) => {
                return self.invoke_callable(&function, &name.text, None, arguments, &expr.span, cx);
            }
            // calling a table or a view without parameters
            Some(Binding::Table(table)) if arguments.is_empty() => return Ok(Bound::Table(Box::new((*table).clone()))),
            _ => {}
        }
        if let Some(bound) = self.special_call(name, arguments, expr, cx)? {
            return Ok(bound);
        }
        if let (Some(collector), Some(aggregate)) = (cx.aggregates, aggregates::lookup(&name.text)) {
            let aggregate = self.aggregate(aggregate, name, arguments, &expr.span, cx)?;
            let ty = aggregate.ty;
            return Ok(Bound::Scalar(Expr::column(collector.borrow_mut().push(aggregate), ty)));
        }
        if let Some(function) = functions::lookup(&name.text) {
            let args = self.plain_arguments(name, arguments, cx)?;
            return self.resolved_call(function, args, &expr.span).map(Bound::Scalar);
        }
        if let Some(bound) = self.stored_function(None, &name.text, None, arguments, &expr.span, cx)? {
            return Ok(bound);
        }
        if aggregates::lookup(&name.text).is_some() {
            let message = format!("the aggregate function '{}' is not allowed here", name.text);
            return Err(Diagnostic::semantic("SEM0001", expr.span.clone(), message));
        }
        Err(Diagnostic::semantic("SEM0260", name.span.clone(), format!("Unknown function: '{}'", name.text)))
    }

    /// Arguments of a built-in function: no names, no stars.
    pub(super) fn plain_arguments(&mut self, name: &Name, arguments: &[Argument], cx: &Cx<'_>) -> Bind<Vec<Expr>> {
        let mut args = Vec::with_capacity(arguments.len());
        for argument in arguments {
            if let Some(named) = &argument.name {
                let what = format!("the named argument '{}' of {}()", named.text, name.text);
                return Err(Diagnostic::unsupported(named.span.clone(), what));
            }
            args.push(self.scalar(&argument.value, cx)?);
        }
        Ok(args)
    }

    /// Functions that are part of the language rather than of the library.
    fn special_call(&mut self, name: &Name, arguments: &[Argument], expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Option<Bound>> {
        if matches!(name.text.as_str(), "external_table" | "materialized_view" | ".database") {
            return self.table_call(name, arguments, expr, cx).map(Some);
        }
        if !LANGUAGE_FUNCTIONS.contains(&name.text.as_str()) {
            return self.qualified_call(name, arguments, expr, cx);
        }
        let value = match name.text.as_str() {
            "materialize" => return self.materialize(arguments, expr, cx).map(Some),
            "toscalar" => self.scalar_of_table(arguments, expr, cx)?,
            "table" | "cluster" | "database" => return self.table_call(name, arguments, expr, cx).map(Some),
            "gettype" => {
                // known without looking at the value, which may be null, unless it is dynamic
                let argument = self.only_argument("gettype", arguments, expr)?;
                let value = self.scalar(argument, cx)?;
                if value.ty == Type::Dynamic {
                    self.operator_call("gettype", vec![value], &expr.span)?
                } else {
                    Expr::constant(Value::string(value.ty.name()), Type::String)
                }
            }
            "column_ifexists" | "columnifexists" => self.column_ifexists(arguments, expr, cx)?,
            "column_names_of" => {
                let argument = self.only_argument("column_names_of", arguments, expr)?;
                let table = self.table(argument, cx)?;
                let names = table.columns().iter().map(|c| Value::string(&c.name).to_dynamic()).collect();
                Expr::constant(Value::Dynamic(crate::value::Dynamic::Array(Arc::new(names))), Type::Dynamic)
            }
            "current_database" if arguments.is_empty() => Expr::constant(Value::string(&self.options.database), Type::String),
            "current_cluster_endpoint" if arguments.is_empty() => Expr::constant(Value::string(self.catalog.endpoint()), Type::String),
            "current_principal_is_member_of" if !arguments.is_empty() => {
                // nobody has signed in, so nobody is member of anything
                self.plain_arguments(name, arguments, cx)?;
                Expr::constant(Value::Bool(false), Type::Bool)
            }
            "ingestion_time" if arguments.is_empty() => self.ingestion_time(expr, cx)?,
            "pack_all" => self.pack_all(name, arguments, expr, cx)?,
            "bag_pack_columns" => self.bag_pack_columns(arguments, expr, cx)?,
            "prev" | "next" | "row_number" | "row_cumsum" | "row_rank_dense" | "row_rank_min" | "row_window_session" => {
                self.window(name, arguments, expr, cx)?
            }
            _ => return Ok(None),
        };
        Ok(Some(Bound::Scalar(value)))
    }

    /// `database("x").function(…)`, which the parser gives as a call of `.function` with the base in front.
    fn qualified_call(&mut self, name: &Name, arguments: &[Argument], expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Option<Bound>> {
        let (Some(function), Some((base, rest))) = (name.text.strip_prefix('.'), arguments.split_first()) else {
            return Ok(None);
        };
        let Some(place) = self.place_of(&base.value, cx)? else {
            return Err(Diagnostic::unsupported(expr.span.clone(), format!("calling '{function}' on a value")));
        };
        let database = match place {
            Place::Here(database) => database,
            Place::Elsewhere { cluster, database } => return self.remote_call(cluster, database, function, rest, expr, cx).map(Some),
        };
        match self.stored_function(Some(&database), function, None, rest, &expr.span, cx)? {
            Some(bound) => Ok(Some(bound)),
            None => {
                let message = format!("Unknown function: '{function}'");
                Err(Diagnostic::semantic("SEM0260", name.span.clone(), message))
            }
        }
    }

    fn materialize(&mut self, arguments: &[Argument], expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Bound> {
        let argument = self.only_argument("materialize", arguments, expr)?;
        Ok(match self.any(argument, &Cx { row: None, ..*cx })? {
            Bound::Table(table) => Bound::Table(Box::new(shared(*table))),
            scalar => scalar,
        })
    }

    fn scalar_of_table(&mut self, arguments: &[Argument], expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Expr> {
        let argument = self.only_argument("toscalar", arguments, expr)?;
        let table = match self.any(argument, cx)? {
            Bound::Scalar(value) => return Ok(value),
            Bound::Table(table) => *table,
        };
        let Some(first) = table.columns().first() else {
            return Err(Diagnostic::semantic("SEM0001", expr.span.clone(), "toscalar() needs a table with a column"));
        };
        Ok(Expr { ty: first.ty, kind: ExprKind::ScalarSubquery(Arc::new(table.rel)) })
    }

    pub(super) fn only_argument<'e>(&self, name: &str, arguments: &'e [Argument], expr: &ast::Expr) -> Bind<&'e ast::Expr> {
        match arguments {
            [only] => Ok(&only.value),
            _ => Err(arity(name, "1", arguments.len(), &expr.span)),
        }
    }

    fn column_ifexists(&mut self, arguments: &[Argument], expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Expr> {
        let [name, default] = arguments else {
            return Err(arity("column_ifexists", "2", arguments.len(), &expr.span));
        };
        let name = self.constant(&name.value, cx)?.0;
        let found = match (&name, &cx.row) {
            (Value::String(name), Some(row)) => find(row.columns, name),
            _ => None,
        };
        match found {
            Some((index, ty)) => Ok(Expr::column(index, ty)),
            None => self.scalar(&default.value, cx),
        }
    }

    /// `pack_all()`: a bag of all columns.
    fn pack_all(&mut self, name: &Name, arguments: &[Argument], expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Expr> {
        let Some(row) = cx.row else {
            return Err(Diagnostic::semantic("SEM0001", name.span.clone(), "pack_all() needs a row"));
        };
        let ignore_empty = match arguments {
            [] => false,
            [flag] => self.constant(&flag.value, cx)?.0 == Value::Bool(true),
            _ => return Err(arity("pack_all", "0 or 1", arguments.len(), &expr.span)),
        };
        let mut args = Vec::with_capacity(row.columns.len() * 2);
        for (index, column) in row.columns.iter().enumerate() {
            args.push(Expr::constant(Value::string(&column.name), Type::String));
            args.push(Expr::column(index, column.ty));
        }
        if !ignore_empty {
            return self.operator_call("bag_pack", args, &expr.span);
        }
        // each pair is a bag of its own or none at all
        let mut bags = Vec::new();
        for pair in args.chunks(2) {
            let empty = self.operator_call("isempty", vec![pair[1].clone()], &expr.span)?;
            let bag = self.operator_call("bag_pack", pair.to_vec(), &expr.span)?;
            let none = Expr::constant(Value::Dynamic(crate::value::Dynamic::Bag(Arc::default())), Type::Dynamic);
            bags.push(self.operator_call("iff", vec![empty, none, bag], &expr.span)?);
        }
        self.operator_call("bag_merge", bags, &expr.span)
    }

    /// `bag_pack_columns(a, b)`: a bag of those columns.
    fn bag_pack_columns(&mut self, arguments: &[Argument], expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Expr> {
        let mut args = Vec::with_capacity(arguments.len() * 2);
        for argument in arguments {
            let ast::ExprKind::Name(name) = &argument.value.kind else {
                let message = "bag_pack_columns() takes names of columns";
                return Err(Diagnostic::semantic("SEM0001", argument.value.span.clone(), message));
            };
            args.push(Expr::constant(Value::string(name), Type::String));
            args.push(self.scalar(&argument.value, cx)?);
        }
        self.operator_call("bag_pack", args, &expr.span)
    }

    fn window(&mut self, name: &Name, arguments: &[Argument], expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Expr> {
        if !cx.row.is_some_and(|row| row.serialized) {
            let message = format!(
                "{}Function '{}' cannot be invoked in the current context: the rows have to be serialized",
                super::expr::prefix(cx.operator),
                name.text
            );
            return Err(Diagnostic::semantic("SEM0001", expr.span.clone(), message));
        }
        let mut args = self.plain_arguments(name, arguments, cx)?;
        let first = args.first().map(|a| a.ty);
        let (function, ty, wanted): (&'static str, Option<Type>, Vec<Option<Type>>) = match name.text.as_str() {
            "prev" => ("prev", first, vec![None, Some(Type::Long), first]),
            "next" => ("next", first, vec![None, Some(Type::Long), first]),
            "row_number" => ("row_number", Some(Type::Long), vec![Some(Type::Long), Some(Type::Bool)]),
            "row_cumsum" => ("row_cumsum", first, vec![None, Some(Type::Bool)]),
            "row_rank_dense" => ("row_rank_dense", first.map(|_| Type::Long), vec![None, Some(Type::Bool)]),
            "row_rank_min" => ("row_rank_min", first.map(|_| Type::Long), vec![None, Some(Type::Bool)]),
            _ => {
                let span = Some(Type::TimeSpan);
                ("row_window_session", first, vec![Some(Type::DateTime), span, span, Some(Type::Bool)])
            }
        };
        let (Some(ty), true) = (ty, args.len() <= wanted.len()) else {
            return Err(arity(&name.text, "another number of", arguments.len(), &expr.span));
        };
        if function == "row_window_session" && args.len() < 3 {
            return Err(arity(&name.text, "3 or 4", arguments.len(), &expr.span));
        }
        if function == "row_cumsum" && !(ty.is_numeric() || ty == Type::TimeSpan) {
            let message = format!("row_cumsum() needs a number or a timespan, not {ty}");
            return Err(Diagnostic::semantic("SEM0021", expr.span.clone(), message));
        }
        for (arg, wanted) in args.iter_mut().zip(wanted) {
            if let Some(wanted) = wanted {
                let value = std::mem::replace(arg, Expr::constant(Value::Null, wanted));
                *arg = self.convert(value, wanted, &expr.span)?;
            }
        }
        Ok(Expr { ty, kind: ExprKind::Window { function, args } })
    }

    /// Inlines a call of a function made by `let` or stored. `first` is the table that `invoke` passes.
    pub(super) fn invoke_callable(
        &mut self,
        function: &Callable,
        name: &str,
        first: Option<Table>,
        arguments: &[Argument],
        span: &Span,
        cx: &Cx<'_>,
    ) -> Bind<Bound> {
        if self.calls >= MAX_CALLS {
            let message = format!("calls of functions are nested deeper than {MAX_CALLS}: '{name}'");
            return Err(Diagnostic::semantic("SEM0001", span.clone(), message));
        }
        let mut env = function.env.clone();
        let mut taken = vec![false; arguments.len()];
        let mut first = first;
        for parameter in &function.parameters {
            if let Some(table) = first.take() {
                let ParameterType::Table(columns) = &parameter.ty else {
                    let message = format!("the first parameter of '{name}' is not a table");
                    return Err(Diagnostic::semantic("SEM0001", span.clone(), message));
                };
                check_table(&table, columns.as_deref(), &parameter.name.text, span)?;
                env = env.with(&parameter.name.text, Binding::Table(table.into()));
                continue;
            }
            let named = arguments.iter().position(|a| a.name.as_ref().is_some_and(|n| n.text == parameter.name.text));
            let next = || arguments.iter().zip(&taken).position(|(a, taken)| a.name.is_none() && !taken);
            let index = named.or_else(next);
            let value = match index {
                Some(index) => {
                    taken[index] = true;
                    self.argument(parameter, &arguments[index].value, name, cx)?
                }
                None => self.default_argument(parameter, name, span, &function.env)?,
            };
            env = env.with(&parameter.name.text, value);
        }
        if first.is_some() || taken.contains(&false) {
            return Err(arity(name, &function.parameters.len().to_string(), arguments.len(), span));
        }
        self.calls += 1;
        let result = self.body(&function.body, &env, cx, span);
        self.calls -= 1;
        result
    }

    fn argument(&mut self, parameter: &ast::Parameter, value: &ast::Expr, name: &str, cx: &Cx<'_>) -> Bind<Binding> {
        match &parameter.ty {
            ParameterType::Scalar(ty) => {
                let bound = self.scalar(value, cx)?;
                let bound = self.convert_argument(bound, *ty, &parameter.name.text, name, &value.span)?;
                let scope = super::expr::reads_columns(&bound).then_some(cx.scope);
                Ok(Binding::Scalar(bound, scope))
            }
            ParameterType::Table(columns) => {
                let table = self.table(value, &Cx { row: None, ..*cx })?;
                check_table(&table, columns.as_deref(), &parameter.name.text, &value.span)?;
                Ok(Binding::Table(table.into()))
            }
        }
    }

    fn convert_argument(&mut self, value: Expr, ty: Type, parameter: &str, name: &str, span: &Span) -> Bind<Expr> {
        let from = value.ty;
        let fits = from == ty
            || from == Type::Dynamic
            || ty == Type::Dynamic
            || (from.is_numeric() && ty.is_numeric())
            || matches!(value.kind, ExprKind::Const(Value::Null));
        if !fits {
            let message = format!("parameter '{parameter}' of '{name}' is a {ty}, not a {from}");
            return Err(Diagnostic::semantic("SEM0021", span.clone(), message));
        }
        self.convert(value, ty, span)
    }

    fn default_argument(&mut self, parameter: &ast::Parameter, name: &str, span: &Span, env: &super::Env) -> Bind<Binding> {
        let (Some(default), ParameterType::Scalar(ty)) = (&parameter.default, &parameter.ty) else {
            let message = format!("'{name}' needs an argument for its parameter '{}'", parameter.name.text);
            return Err(Diagnostic::semantic("SEM0001", span.clone(), message));
        };
        let value = self.scalar(default, &Cx::constant(env, ""))?;
        let value = self.convert_argument(value, *ty, &parameter.name.text, name, span)?;
        Ok(Binding::Scalar(value, None))
    }

    /// Calls a function of the catalog; None when there is none of that name.
    pub(super) fn stored_function(
        &mut self,
        database: Option<&str>,
        name: &str,
        first: Option<Table>,
        arguments: &[Argument],
        span: &Span,
        cx: &Cx<'_>,
    ) -> Bind<Option<Bound>> {
        let Some(stored) = self.catalog.function(database, name) else { return Ok(None) };
        // places inside the stored text mean nothing in the query: errors point at the call
        let at_call = |mut diagnostic: Diagnostic| {
            diagnostic.span = span.clone();
            diagnostic.message = format!("{} (in function '{name}')", diagnostic.message);
            diagnostic
        };
        let parameters = parser::parse_parameters(&stored.parameters).map_err(at_call)?;
        let body = parser::parse_body(&stored.body).map_err(at_call)?;
        let callable = Callable { parameters, body, env: super::Env::default(), view: false };
        self.functions.push((database.map(str::to_owned), name.to_owned()));
        let bound = self.invoke_callable(&callable, name, first, arguments, span, cx);
        self.functions.pop();
        bound.map(Some).map_err(|diagnostic| if span.contains(&diagnostic.span.start) { diagnostic } else { at_call(diagnostic) })
    }
}

/// A table that is computed once however often it is used.
pub(super) fn shared(table: Table) -> Table {
    if matches!(table.rel.op, RelOp::Materialize(_)) {
        return table;
    }
    let Table { rel, name, size } = table;
    let columns = rel.columns.clone();
    let mut shared = Table::new(columns, RelOp::Materialize(Arc::new(rel)), size + 1);
    shared.name = name;
    shared
}

/// Whether a table has the columns that a parameter declares.
fn check_table(table: &Table, wanted: Option<&[ast::ColumnDeclaration]>, parameter: &str, span: &Span) -> Bind<()> {
    for column in wanted.unwrap_or_default() {
        match find(table.columns(), &column.name.text) {
            Some((_, ty)) if ty == column.ty || (ty.is_numeric() && column.ty.is_numeric()) => {}
            found => {
                let what = found.map_or("has none".to_owned(), |(_, ty)| format!("has it as {ty}"));
                let message = format!(
                    "the table for parameter '{parameter}' needs a column '{}' of type {}, but {what}",
                    column.name.text, column.ty
                );
                return Err(Diagnostic::semantic("SEM0100", span.clone(), message));
            }
        }
    }
    Ok(())
}

pub(super) fn arity(name: &str, wanted: &str, got: usize, span: &Span) -> Diagnostic {
    let message = format!("{name}() takes {wanted} argument(s), not {got}");
    Diagnostic::semantic("SEM0001", span.clone(), message)
}

/// Whether rows of this table may be used with window functions.
pub(super) fn serialized(table: &Table) -> bool {
    is_serialized(&table.rel)
}
