//! `summarize`: groups and aggregates.

use std::collections::HashMap;

use super::prepare::prepare_all;
use super::{Row, Rows, RunContext, RunError};
use crate::aggregates::{self, Accumulator};
use crate::eval::eval;
use crate::tree::{Aggregate, Expr};
use crate::value::Value;

/// An aggregate made ready: its arguments prepared and its function found.
pub(super) struct Ready {
    args: Vec<Expr>,
    function: &'static aggregates::AggregateFunction,
}

impl Ready {
    pub(super) fn new(aggregate: &Aggregate, ctx: &mut RunContext<'_>) -> Result<Self, RunError> {
        let function = aggregates::lookup(aggregate.function)
            .ok_or_else(|| RunError::Argument(format!("the aggregate '{}' is not supported", aggregate.function)))?;
        Ok(Ready { args: prepare_all(&aggregate.args, ctx)?, function })
    }

    pub(super) fn start(&self) -> Box<dyn Accumulator> {
        let types: Vec<_> = self.args.iter().map(|arg| arg.ty).collect();
        (self.function.new)(&types)
    }

    pub(super) fn update(&self, state: &mut dyn Accumulator, row: &[Value], ctx: &mut RunContext<'_>) {
        let args: Row = self.args.iter().map(|arg| eval(arg, row, &mut ctx.eval)).collect();
        state.update(&args);
    }
}

pub(super) fn summarize(input: &Rows, keys: &[Expr], aggregates: &[Aggregate], ctx: &mut RunContext<'_>) -> Result<Vec<Row>, RunError> {
    let keys = prepare_all(keys, ctx)?;
    let ready = aggregates.iter().map(|aggregate| Ready::new(aggregate, ctx)).collect::<Result<Vec<_>, _>>()?;
    let mut index = HashMap::new();
    let mut groups: Vec<(Row, Vec<Box<dyn Accumulator>>)> = Vec::new();
    for row in &input.rows {
        let key: Row = keys.iter().map(|key| eval(key, row, &mut ctx.eval)).collect();
        let hash: Vec<_> = key.iter().map(Value::group_key).collect();
        let at = *index.entry(hash).or_insert_with(|| {
            groups.push((key, ready.iter().map(Ready::start).collect()));
            groups.len() - 1
        });
        for (ready, state) in ready.iter().zip(&mut groups[at].1) {
            ready.update(state.as_mut(), row, ctx);
        }
    }
    if keys.is_empty() && groups.is_empty() {
        groups.push((Vec::new(), ready.iter().map(Ready::start).collect()));
    }
    Ok(groups
        .into_iter()
        .map(|(mut row, states)| {
            row.extend(states.into_iter().map(|mut state| state.finish()));
            row
        })
        .collect())
}
