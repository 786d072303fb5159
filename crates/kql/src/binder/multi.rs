//! Functions with several results, which become as many columns: they are read off the bag that the `_dynamic` twin
//! of the function returns.

use super::names;
use super::scope::Cx;
use super::{Bind, Binder};
use crate::ast::{self, ExprKind as Ast};
use crate::functions;
use crate::tree::Expr;
use crate::types::Type;
use crate::value::Value;

/// Function, its twin, results with types.
const FUNCTIONS: [(&str, &str, &[(&str, Type)]); 2] = [
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
}
