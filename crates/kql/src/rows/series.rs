//! `make-series`: aggregates over the bins of an axis, empty bins filled.

use std::collections::HashMap;
use std::sync::Arc;

use super::prepare::{constant, prepare, prepare_all};
use super::summarize::Ready;
use super::{Row, Rows, RunContext, RunError};
use crate::aggregates::Accumulator;
use crate::eval::eval;
use crate::tree::MakeSeries;
use crate::types::Type;
use crate::value::{Dynamic, Key, Value};

/// Most bins of one series; more is a mistake in the step.
const BINS_MAX: usize = 1_048_576;

/// The bins: in ticks or integers where the axis has them, so that no rounding creeps in.
#[derive(Debug, Clone, Copy)]
enum Axis {
    Whole { from: i64, step: i64, bins: usize, ty: Type },
    Real { from: f64, step: f64, bins: usize },
}

impl Axis {
    fn bins(&self) -> usize {
        match self {
            Axis::Whole { bins, .. } | Axis::Real { bins, .. } => *bins,
        }
    }

    fn bin_of(&self, value: &Value) -> Option<usize> {
        let index = match self {
            Axis::Whole { from, step, .. } => usize::try_from(whole(value)?.checked_sub(*from)?.div_euclid(*step)).ok()?,
            Axis::Real { from, step, .. } => {
                let index = ((real(value)? - from) / step).floor();
                if index < 0.0 { return None } else { index as usize }
            }
        };
        (index < self.bins()).then_some(index)
    }

    fn values(&self) -> Dynamic {
        let at = |index: usize| match self {
            Axis::Whole { from, step, ty, .. } => {
                let value = from.saturating_add(step.saturating_mul(index as i64));
                match ty {
                    Type::DateTime => Dynamic::DateTime(value),
                    Type::TimeSpan => Dynamic::TimeSpan(value),
                    _ => Dynamic::Long(value),
                }
            }
            Axis::Real { from, step, .. } => Dynamic::Real(from + step * index as f64),
        };
        Dynamic::Array(Arc::new((0..self.bins()).map(at).collect()))
    }
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Int(int) => Some(i64::from(*int)),
        Value::Long(v) | Value::DateTime(v) | Value::TimeSpan(v) => Some(*v),
        _ => None,
    }
}

fn real(value: &Value) -> Option<f64> {
    match value {
        Value::Int(int) => Some(f64::from(*int)),
        Value::Long(long) => Some(*long as f64),
        Value::Real(real) => Some(*real),
        _ => None,
    }
}

type Bins = HashMap<usize, Vec<Box<dyn Accumulator>>>;

pub(super) fn make_series(input: &Rows, plan: &MakeSeries, ctx: &mut RunContext<'_>) -> Result<Vec<Row>, RunError> {
    let axis_expr = prepare(&plan.axis, ctx)?;
    let positions: Vec<Value> = input.rows.iter().map(|row| eval(&axis_expr, row, &mut ctx.eval)).collect();
    let Some(axis) = axis(plan, &positions, ctx)? else { return Ok(Vec::new()) };
    let keys = prepare_all(&plan.keys, ctx)?;
    let ready = plan.aggregates.iter().map(|(aggregate, _)| Ready::new(aggregate, ctx)).collect::<Result<Vec<_>, _>>()?;
    let mut index: HashMap<Vec<Key>, usize> = HashMap::new();
    let mut groups: Vec<(Row, Bins)> = Vec::new();
    for (row, position) in input.rows.iter().zip(&positions) {
        let Some(bin) = axis.bin_of(position) else { continue };
        let key: Row = keys.iter().map(|key| eval(key, row, &mut ctx.eval)).collect();
        let at = *index.entry(key.iter().map(Value::group_key).collect()).or_insert_with(|| {
            groups.push((key, Bins::new()));
            groups.len() - 1
        });
        let states = groups[at].1.entry(bin).or_insert_with(|| ready.iter().map(Ready::start).collect());
        for (ready, state) in ready.iter().zip(states) {
            ready.update(state.as_mut(), row, ctx);
        }
    }
    if groups.is_empty() && plan.nonempty && keys.is_empty() {
        groups.push((Vec::new(), Bins::new()));
    }
    let defaults = defaults(plan, ctx)?;
    let axis_values = Value::Dynamic(axis.values());
    let mut out = Vec::with_capacity(groups.len());
    for (mut row, mut bins) in groups {
        let mut arrays: Vec<Vec<Dynamic>> = vec![Vec::with_capacity(axis.bins()); ready.len()];
        for bin in 0..axis.bins() {
            match bins.remove(&bin) {
                Some(states) => {
                    for (array, mut state) in arrays.iter_mut().zip(states) {
                        array.push(state.finish().to_dynamic());
                    }
                }
                None => arrays.iter_mut().zip(&defaults).for_each(|(array, default)| array.push(default.clone())),
            }
        }
        row.extend(arrays.into_iter().map(|array| Value::Dynamic(Dynamic::Array(Arc::new(array)))));
        row.push(axis_values.clone());
        out.push(row);
    }
    Ok(out)
}

fn defaults(plan: &MakeSeries, ctx: &mut RunContext<'_>) -> Result<Vec<Dynamic>, RunError> {
    let mut defaults = Vec::with_capacity(plan.aggregates.len());
    for (aggregate, default) in &plan.aggregates {
        defaults.push(match default {
            Some(expr) => constant(expr, ctx)?.to_dynamic(),
            None if aggregate.ty == Type::Real => Dynamic::Real(0.0),
            None => Dynamic::Long(0),
        });
    }
    Ok(defaults)
}

/// The axis from the bounds given, or from the data: then bins are aligned to multiples of the step.
fn axis(plan: &MakeSeries, positions: &[Value], ctx: &mut RunContext<'_>) -> Result<Option<Axis>, RunError> {
    let step = constant(&plan.step, ctx)?;
    let from = plan.from.as_ref().map(|expr| constant(expr, ctx)).transpose()?;
    let to = plan.to.as_ref().map(|expr| constant(expr, ctx)).transpose()?;
    let is_real = plan.axis.ty == Type::Real || matches!(step, Value::Real(_)) || matches!(from, Some(Value::Real(_)));
    if is_real { real_axis(&step, from, to, positions) } else { whole_axis(&step, from, to, positions, plan.axis.ty) }
}

fn whole_axis(step: &Value, from: Option<Value>, to: Option<Value>, positions: &[Value], ty: Type) -> Result<Option<Axis>, RunError> {
    let step = whole(step).filter(|step| *step > 0).ok_or_else(step_error)?;
    let seen = || positions.iter().filter_map(whole);
    let align = |value: i64| value - value.rem_euclid(step);
    let Some(from) = from.as_ref().map_or_else(|| seen().min().map(align), whole) else { return Ok(None) };
    let Some(to) = to.as_ref().map_or_else(|| seen().max().map(|max| max.saturating_add(1)), whole) else { return Ok(None) };
    let span = to.saturating_sub(from).max(0);
    let bins = span / step + i64::from(span % step != 0);
    Ok(Some(Axis::Whole { from, step, bins: limit(bins as f64)?, ty }))
}

fn real_axis(step: &Value, from: Option<Value>, to: Option<Value>, positions: &[Value]) -> Result<Option<Axis>, RunError> {
    let step = real(step).filter(|step| *step > 0.0).ok_or_else(step_error)?;
    let seen = || positions.iter().filter_map(real);
    let Some(from) = from.as_ref().map_or_else(|| seen().reduce(f64::min).map(|min| (min / step).floor() * step), real) else {
        return Ok(None);
    };
    let bins = match &to {
        Some(to) => real(to).map(|to| ((to - from) / step - 1e-9).ceil().max(0.0)),
        None => seen().reduce(f64::max).map(|max| ((max - from) / step).floor() + 1.0),
    };
    let Some(bins) = bins else { return Ok(None) };
    Ok(Some(Axis::Real { from, step, bins: limit(bins)? }))
}

fn step_error() -> RunError {
    RunError::Argument("make-series: the step must be a positive number or timespan".into())
}

fn limit(bins: f64) -> Result<usize, RunError> {
    if bins > BINS_MAX as f64 {
        return Err(RunError::Argument(format!("make-series: the range has more than {BINS_MAX} bins; use a larger step")));
    }
    Ok(bins as usize)
}
