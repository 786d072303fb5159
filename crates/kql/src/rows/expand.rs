//! `mv-expand` and `mv-apply`.

use std::sync::Arc;

use super::prepare::prepare;
use super::{Row, Rows, RunContext, RunError, nothing, run};
use crate::eval::{EvalContext, eval};
use crate::functions;
use crate::tree::{Expr, MvExpand, Rel};
use crate::types::Type;
use crate::value::{Dynamic, Value};

/// An expansion made ready to run row by row.
struct Expansion<'a> {
    plan: &'a MvExpand,
    sources: Vec<Expr>,
    width: usize,
}

impl<'a> Expansion<'a> {
    fn new(plan: &'a MvExpand, width: usize, ctx: &mut RunContext<'_>) -> Result<Self, RunError> {
        let sources = plan.columns.iter().map(|(expr, ..)| prepare(expr, ctx)).collect::<Result<_, _>>()?;
        Ok(Expansion { plan, sources, width })
    }

    /// The rows that one input row becomes: as many as the longest of its arrays; shorter ones are filled with null.
    fn expand(&self, row: &Row, ctx: &mut RunContext<'_>) -> Vec<Row> {
        let elements: Vec<Vec<Dynamic>> =
            self.sources.iter().map(|source| elements(eval(source, row, &mut ctx.eval), self.plan.bag_as_array)).collect();
        let longest = elements.iter().map(Vec::len).max().unwrap_or(0);
        let count = self.plan.limit.map_or(longest, |limit| longest.min(usize::try_from(limit).unwrap_or(usize::MAX)));
        (0..count).map(|index| self.row(row, &elements, index, ctx)).collect()
    }

    fn row(&self, row: &Row, elements: &[Vec<Dynamic>], index: usize, ctx: &mut RunContext<'_>) -> Row {
        let mut out = vec![Value::Null; self.width];
        for (to, from) in &self.plan.keep {
            out[*to] = row[*from].clone();
        }
        for ((_, to, ty), elements) in self.plan.columns.iter().zip(elements) {
            out[*to] = elements.get(index).map_or_else(|| nothing(*ty), |element| convert(element, *ty, ctx));
        }
        if let Some(at) = self.plan.item_index {
            out[at] = Value::Long(index as i64);
        }
        out
    }
}

/// What a value expands to. Null is one null; a scalar is itself; a bag gives its properties one by one.
fn elements(value: Value, bag_as_array: bool) -> Vec<Dynamic> {
    match value {
        Value::Null => vec![Dynamic::Null],
        Value::Dynamic(Dynamic::Array(items)) => items.to_vec(),
        Value::Dynamic(Dynamic::Bag(bag)) => bag
            .iter()
            .map(|(key, value)| {
                if bag_as_array {
                    Dynamic::Array(Arc::new(vec![Dynamic::String(key.clone()), value.clone()]))
                } else {
                    Dynamic::Bag(Arc::new([(key.clone(), value.clone())].into_iter().collect()))
                }
            })
            .collect(),
        other => vec![other.to_dynamic()],
    }
}

/// An element as a value of that type, by the cast function of the type.
fn convert(element: &Dynamic, ty: Type, ctx: &mut RunContext<'_>) -> Value {
    let value = Value::from_dynamic(element.clone());
    cast(value, ty, &mut ctx.eval)
}

/// `totype(value)`.
pub(super) fn cast(value: Value, ty: Type, eval: &mut EvalContext) -> Value {
    match functions::lookup(functions::cast_name(ty)) {
        Some(function) if ty != Type::Dynamic => (function.eval)(eval, &[value]),
        _ => value,
    }
}

pub(super) fn mv_expand(input: Rows, plan: &MvExpand, width: usize, ctx: &mut RunContext<'_>) -> Result<Vec<Row>, RunError> {
    let expansion = Expansion::new(plan, width, ctx)?;
    let mut out = Vec::new();
    for row in &input.rows {
        out.extend(expansion.expand(row, ctx));
        ctx.check(out.len())?;
    }
    Ok(out)
}

pub(super) fn mv_apply(
    input: Rows,
    plan: &MvExpand,
    subquery: &Rel,
    keep: &[usize],
    ctx: &mut RunContext<'_>,
) -> Result<Vec<Row>, RunError> {
    let columns = argument_columns(subquery).unwrap_or_default();
    let expansion = Expansion::new(plan, columns.len(), ctx)?;
    let mut out = Vec::new();
    for row in &input.rows {
        let rows = expansion.expand(row, ctx);
        ctx.arguments.push(Arc::new(Rows::new(columns.clone(), rows)));
        let result = run(subquery, ctx);
        ctx.arguments.pop();
        for result in result?.rows {
            out.push(keep.iter().map(|at| row[*at].clone()).chain(result).collect());
        }
        ctx.check(out.len())?;
    }
    Ok(out)
}

/// The columns of the [`crate::tree::RelOp::Argument`] at the bottom of a sub-query.
fn argument_columns(rel: &Rel) -> Option<Vec<crate::types::Column>> {
    if matches!(rel.op, crate::tree::RelOp::Argument) {
        return Some(rel.columns.clone());
    }
    super::inputs(rel).into_iter().find_map(argument_columns)
}
