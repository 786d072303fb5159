//! `make-series`.

use super::expr::prefix;
use super::names::{self, Unique};
use super::project::row_context;
use super::scope::{Cx, Env, Table};
use super::{Bind, Binder};
use crate::ast::{self, ExprKind as Ast, Span};
use crate::diagnostic::Diagnostic;
use crate::tree::{Expr, MakeSeries, RelOp};
use crate::types::{Column, Type};
use crate::value::Value;

impl Binder<'_> {
    pub(super) fn make_series(&mut self, input: Table, spec: &ast::MakeSeries, env: &Env, span: &Span) -> Bind<Table> {
        let scope = self.new_scope();
        let cx = row_context(&input, env, scope, "make-series");
        let mut names = Unique::new();
        let mut columns = Vec::new();
        let mut keys = Vec::new();
        for key in &spec.keys {
            let (name, _, value) = self.key(key, &cx)?;
            let name = names.of(name);
            columns.push(Column::new(name, value.ty));
            keys.push(value);
        }
        let mut aggregates = Vec::new();
        for (aggregate, default) in &spec.aggregates {
            let (given, auto, aggregate) = self.lone_aggregate(aggregate, &cx)?;
            let default = match default {
                Some(default) => Some(self.series_default(default, aggregate.ty, &cx)?),
                None => None,
            };
            columns.push(Column::new(names.name(&given.unwrap_or(auto)), Type::Dynamic));
            aggregates.push((aggregate, default));
        }
        let axis_name = names::of(&spec.axis).unwrap_or_else(|| "Column1".to_owned());
        let axis = self.scalar(&spec.axis, &cx)?;
        columns.push(Column::new(names.name(&axis_name), Type::Dynamic));
        let nonempty = spec.options.iter().any(|o| matches!(&o.value.kind, Ast::Name(kind) if kind == "nonempty"));
        let (axis, from, to, step) = self.series_axis(axis, spec, &cx, span)?;
        let size = input.size + 1;
        let plan = MakeSeries { input: input.rel, aggregates, axis, from, to, step, keys, nonempty };
        Ok(Table::new(columns, RelOp::MakeSeries(Box::new(plan)), size))
    }

    /// `default=`: a constant, in the type of the aggregate where it fits.
    fn series_default(&mut self, default: &ast::Expr, ty: Type, cx: &Cx<'_>) -> Bind<Expr> {
        let (value, from) = self.constant(default, cx)?;
        let constant = Expr::constant(value, from);
        if from.is_numeric() && ty.is_numeric() { self.convert(constant, ty, &default.span) } else { Ok(constant) }
    }

    /// Axis, bounds and step in types that go together.
    #[allow(clippy::type_complexity)]
    fn series_axis(
        &mut self,
        axis: Expr,
        spec: &ast::MakeSeries,
        cx: &Cx<'_>,
        span: &Span,
    ) -> Bind<(Expr, Option<Expr>, Option<Expr>, Expr)> {
        let outside = Cx { row: None, ..*cx };
        let step = match &spec.step {
            Some(step) => self.scalar(step, &outside)?,
            None => return Err(Diagnostic::unsupported(span.clone(), "make-series without a step")),
        };
        let from = spec.from.as_ref().map(|e| self.scalar(e, &outside)).transpose()?;
        let mut to = spec.to.as_ref().map(|e| self.scalar(e, &outside)).transpose()?;
        let bounds: Vec<Type> = from.iter().chain(&to).map(|e| e.ty).collect();
        let (ty, width) = match (axis.ty, step.ty) {
            (Type::DateTime, Type::TimeSpan) => (Type::DateTime, Type::TimeSpan),
            (Type::TimeSpan, Type::TimeSpan) => (Type::TimeSpan, Type::TimeSpan),
            (a, b) if a.is_numeric() && b.is_numeric() => {
                let whole = [a, b].iter().chain(&bounds).all(|t| matches!(t, Type::Int | Type::Long));
                if whole { (Type::Long, Type::Long) } else { (Type::Real, Type::Real) }
            }
            (a, b) => {
                let message = format!("{}an axis of type {a} with a step of type {b} is not defined", prefix(cx.operator));
                return Err(Diagnostic::semantic("SEM0001", span.clone(), message));
            }
        };
        if spec.in_range {
            to = Some(self.exclusive_end(to, ty, span)?);
        }
        let axis = self.convert(axis, ty, span)?;
        let step = self.convert(step, width, span)?;
        let from = from.map(|e| self.convert(e, ty, span)).transpose()?;
        let to = to.map(|e| self.convert(e, ty, span)).transpose()?;
        Ok((axis, from, to, step))
    }

    /// `in range(a, b, s)` includes its end: the exclusive end is one unit behind it.
    fn exclusive_end(&mut self, end: Option<Expr>, ty: Type, span: &Span) -> Bind<Expr> {
        let unit = match ty {
            Type::DateTime | Type::TimeSpan => Expr::constant(Value::TimeSpan(1), Type::TimeSpan),
            Type::Long => Expr::constant(Value::Long(1), Type::Long),
            _ => return Err(Diagnostic::unsupported(span.clone(), "make-series in range() over real numbers")),
        };
        let Some(end) = end else {
            return Err(Diagnostic::unsupported(span.clone(), "make-series in range() without an end"));
        };
        self.operator_call("+", vec![end, unit], span)
    }
}
