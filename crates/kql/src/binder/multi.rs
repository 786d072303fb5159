//! Functions with several results, which become as many columns: they are read off the bag that the `_dynamic` twin
//! of the function returns.

use super::names;
use super::scope::Cx;
use super::{Bind, Binder};
use crate::ast::{self, Argument, ExprKind as Ast, Name};
use crate::functions;
use crate::tree::Expr;
use crate::types::Type;
use crate::value::Value;

/// A function, its twin, and its results with their types.
type Several = (&'static str, &'static str, &'static [(&'static str, Type)]);

const FUNCTIONS: [Several; 2] = [
    (
        "series_stats",
        "series_stats_dynamic",
        &[
            ("min", Type::Real),
            ("min_idx", Type::Long),
            ("max", Type::Real),
            ("max_idx", Type::Long),
            ("avg", Type::Real),
            ("stdev", Type::Real),
            ("variance", Type::Real),
        ],
    ),
    (
        "series_fit_line",
        "series_fit_line_dynamic",
        &[
            ("rsquare", Type::Real),
            ("slope", Type::Real),
            ("variance", Type::Real),
            ("rvariance", Type::Real),
            ("interception", Type::Real),
            ("line_fit", Type::Dynamic),
        ],
    ),
];

impl Binder<'_> {
    /// The named results of a call that has several; None for other expressions.
    pub(super) fn multiple(&mut self, expr: &ast::Expr, cx: &Cx<'_>) -> Bind<Option<Vec<(String, Expr)>>> {
        let Ast::Call(name, arguments) = &expr.kind else { return Ok(None) };
        if matches!(name.text.as_str(), "array_sort_asc" | "array_sort_desc") && arguments.len() > 1 {
            return self.arrays_sorted_together(name, arguments, expr, cx);
        }
        let Some((_, twin, results)) = FUNCTIONS.iter().find(|(function, ..)| *function == name.text) else {
            return Ok(None);
        };
        if functions::lookup(twin).is_none() || cx.env.get(&name.text).is_some() {
            return Ok(None);
        }
        let args = self.plain_arguments(name, arguments, cx)?;
        let bag = self.operator_call(twin, args, &expr.span)?;
        let argument = arguments.first().and_then(|a| names::of(&a.value)).unwrap_or_default();
        let mut outputs = Vec::with_capacity(results.len());
        for (key, ty) in *results {
            let path = vec![bag.clone(), Expr::constant(Value::string(key), Type::String)];
            let value = self.operator_call("[]", path, &expr.span)?;
            let value = if *ty == Type::Dynamic { value } else { self.convert(value, *ty, &expr.span)? };
            outputs.push((format!("{}_{argument}_{key}", name.text), value));
        }
        Ok(Some(outputs))
    }

    /// `array_sort_asc(a, b, …)`: the order of the first array, applied to all of them.
    fn arrays_sorted_together(
        &mut self,
        name: &Name,
        arguments: &[Argument],
        expr: &ast::Expr,
        cx: &Cx<'_>,
    ) -> Bind<Option<Vec<(String, Expr)>>> {
        let args = self.plain_arguments(name, arguments, cx)?;
        let arrays = args.iter().filter(|arg| arg.ty == Type::Dynamic).count();
        if arrays < 2 || cx.env.get(&name.text).is_some() {
            return Ok(None);
        }
        let mut outputs = Vec::with_capacity(arrays);
        for (index, argument) in arguments.iter().take(arrays).enumerate() {
            let mut nth = vec![Expr::constant(Value::Long(index as i64), Type::Long)];
            nth.extend(args.iter().cloned());
            let value = self.operator_call(&format!("{} nth", name.text), nth, &expr.span)?;
            let label = names::of(&argument.value).unwrap_or_else(|| "array".to_owned());
            outputs.push((format!("{label}_sorted"), value));
        }
        Ok(Some(outputs))
    }
}
