//! Aggregate functions: one call, or several outputs of one call (`arg_max`, `take_any`, `percentiles`).

use super::expr::prefix;
use super::names;
use super::scope::Cx;
use super::{Bind, Binder};
use crate::aggregates::{self, AggregateFunction};
use crate::ast::{self, Argument, ExprKind as Ast, Name, Span};
use crate::diagnostic::Diagnostic;
use crate::functions::Arg;
use crate::tree::{Aggregate, Expr, ExprKind};

/// An output of an aggregate call with the name it gets unless the query gives one.
pub(super) struct NamedAggregate {
    pub(super) name: String,
    pub(super) aggregate: Aggregate,
}

impl Binder<'_> {
    /// A call of an aggregate with one result.
    pub(super) fn aggregate(
        &mut self,
        function: &'static AggregateFunction,
        name: &Name,
        arguments: &[Argument],
        span: &Span,
        cx: &Cx<'_>,
    ) -> Bind<Aggregate> {
        let inner = cx.without_aggregates();
        // `count(*)` is `count()`
        let arguments = match arguments {
            [only] if name.text == "count" && matches!(only.value.kind, Ast::Wildcard(_)) => &[],
            all => all,
        };
        let args = self.plain_arguments(name, arguments, &inner)?;
        self.resolved_aggregate(function, args, span)
    }

    pub(super) fn resolved_aggregate(&mut self, function: &'static AggregateFunction, args: Vec<Expr>, span: &Span) -> Bind<Aggregate> {
        let described: Vec<Arg<'_>> = args
            .iter()
            .map(|a| Arg { ty: a.ty, constant: if let ExprKind::Const(value) = &a.kind { Some(value) } else { None } })
            .collect();
        let resolved = (function.resolve)(&described)
            .map_err(|why| Diagnostic::semantic("SEM0021", span.clone(), format!("{}(): {why}", function.name)))?;
        let mut converted = Vec::with_capacity(args.len());
        for (index, arg) in args.into_iter().enumerate() {
            let wanted = resolved.args.get(index).copied().unwrap_or(arg.ty);
            converted.push(self.convert(arg, wanted, span)?);
        }
        Ok(Aggregate { function: function.name, args: converted, ty: resolved.ty })
    }

    /// An aggregate by name that a construct implies.
    pub(super) fn aggregate_named(&mut self, name: &str, args: Vec<Expr>, span: &Span) -> Bind<Aggregate> {
        let Some(function) = aggregates::lookup(name) else {
            return Err(Diagnostic::unsupported(span.clone(), format!("the aggregate function '{name}'")));
        };
        self.resolved_aggregate(function, args, span)
    }

    /// The outputs of a call that may have several; None for calls with one result. `keys` are names that `*` leaves out.
    pub(super) fn several(&mut self, expr: &ast::Expr, keys: &[String], cx: &Cx<'_>) -> Bind<Option<Vec<NamedAggregate>>> {
        let Ast::Call(name, arguments) = &expr.kind else { return Ok(None) };
        if cx.env.get(&name.text).is_some() {
            return Ok(None);
        }
        let inner = cx.without_aggregates();
        match name.text.as_str() {
            "arg_max" | "argmax" => self.arg_extreme("arg_max", arguments, expr, keys, &inner).map(Some),
            "arg_min" | "argmin" => self.arg_extreme("arg_min", arguments, expr, keys, &inner).map(Some),
            "take_any" | "any" => self.take_any(&name.text, arguments, expr, keys, &inner).map(Some),
            "percentiles" => self.percentiles("percentile", arguments, 1, expr, &inner).map(Some),
            "percentilesw" => self.percentiles("percentilew", arguments, 2, expr, &inner).map(Some),
            _ => Ok(None),
        }
    }

    /// `arg_max(x, a, b)` is one aggregate for each column: the extreme itself, and each value at its row.
    fn arg_extreme(
        &mut self,
        function: &'static str,
        arguments: &[Argument],
        expr: &ast::Expr,
        keys: &[String],
        cx: &Cx<'_>,
    ) -> Bind<Vec<NamedAggregate>> {
        let Some((by, returned)) = arguments.split_first() else {
            return Err(super::call::arity(function, "at least 1", 0, &expr.span));
        };
        let ranked = self.scalar(&by.value, cx)?;
        let short = if function == "arg_max" { "max" } else { "min" };
        let first_name = names::of(&by.value).unwrap_or_else(|| format!("{short}_"));
        let mut outputs = vec![NamedAggregate {
            name: first_name.clone(),
            aggregate: self.aggregate_named(function, vec![ranked.clone(), ranked.clone()], &expr.span)?,
        }];
        for argument in returned {
            for (name, value) in self.returned(&argument.value, &first_name, keys, cx)? {
                let aggregate = self.aggregate_named(function, vec![ranked.clone(), value], &expr.span)?;
                outputs.push(NamedAggregate { name, aggregate });
            }
        }
        Ok(outputs)
    }

    fn take_any(
        &mut self,
        function: &str,
        arguments: &[Argument],
        expr: &ast::Expr,
        keys: &[String],
        cx: &Cx<'_>,
    ) -> Bind<Vec<NamedAggregate>> {
        let mut outputs = Vec::new();
        for argument in arguments {
            for (name, value) in self.returned(&argument.value, "", keys, cx)? {
                let name = if function == "any" { format!("any_{name}") } else { name };
                let aggregate = self.aggregate_named("take_any", vec![value], &expr.span)?;
                outputs.push(NamedAggregate { name, aggregate });
            }
        }
        if outputs.is_empty() {
            return Err(super::call::arity(function, "at least 1", arguments.len(), &expr.span));
        }
        Ok(outputs)
    }

    /// The columns that an argument stands for: itself, or for `*` all but the keys and the ranked one.
    fn returned(&mut self, expr: &ast::Expr, ranked: &str, keys: &[String], cx: &Cx<'_>) -> Bind<Vec<(String, Expr)>> {
        let Ast::Wildcard(pattern) = &expr.kind else {
            let value = self.scalar(expr, cx)?;
            return Ok(vec![(names::of(expr).unwrap_or_else(|| "Column1".to_owned()), value)]);
        };
        let columns = cx.row.map(|row| row.columns).unwrap_or_default();
        let wanted = columns
            .iter()
            .enumerate()
            .filter(|(_, column)| names::matches(pattern, &column.name) && column.name != ranked && !keys.contains(&column.name));
        Ok(wanted.map(|(at, column)| (column.name.clone(), Expr::column(at, column.ty))).collect())
    }

    /// `percentiles(x, 50, 95)`: one aggregate for each.
    fn percentiles(
        &mut self,
        function: &'static str,
        arguments: &[Argument],
        leading: usize,
        expr: &ast::Expr,
        cx: &Cx<'_>,
    ) -> Bind<Vec<NamedAggregate>> {
        if arguments.len() <= leading {
            return Err(super::call::arity(function, "more", arguments.len(), &expr.span));
        }
        let (values, percents) = arguments.split_at(leading);
        let values = values.iter().map(|a| self.scalar(&a.value, cx)).collect::<Bind<Vec<_>>>()?;
        let column = names::of(&arguments[0].value).unwrap_or_default();
        let mut outputs = Vec::new();
        for percent in percents {
            let mut args = values.clone();
            args.push(self.scalar(&percent.value, cx)?);
            outputs.push(NamedAggregate {
                name: format!("percentile_{column}_{}", names::constant_text(&percent.value)),
                aggregate: self.aggregate_named(function, args, &expr.span)?,
            });
        }
        Ok(outputs)
    }

    /// An aggregate that stands alone, as `make-series`, `top-nested` and `pivot` need: the name given, its own name, the call.
    pub(super) fn lone_aggregate(&mut self, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<(Option<String>, String, Aggregate)> {
        let (given, call) = match &expr.kind {
            Ast::Assign(names, value) if names.len() == 1 => (names.first().map(|n| n.text.clone()), &**value),
            _ => (None, expr),
        };
        if let Ast::Call(name, arguments) = &call.kind
            && let Some(function) = aggregates::lookup(&name.text)
        {
            let aggregate = self.aggregate(function, name, arguments, &call.span, cx)?;
            return Ok((given, names::of_aggregate(&name.text, arguments), aggregate));
        }
        let what = format!("{}anything but one aggregate function here", prefix(cx.operator));
        Err(Diagnostic::unsupported(call.span.clone(), what))
    }
}
