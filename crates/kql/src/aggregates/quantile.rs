//! Percentiles by nearest rank, exact: all values of the group are kept and sorted.

use super::{Accumulator, AggregateFunction};
use crate::functions::signature::{Arg, DYNAMIC, LONG, Param, REAL, Resolved, fixed, variadic, wrong_count};
use crate::types::Type;
use crate::value::{Dynamic, Value, compare, to_real};

pub(super) static AGGREGATES: &[AggregateFunction] = &[
    AggregateFunction::new("percentile", |a| resolve(a, false), |_| quantile(false, false)),
    AggregateFunction::new("percentilew", |a| resolve(a, true), |_| quantile(true, false)),
    AggregateFunction::new("percentiles_array", |a| resolve_array(a, false), |_| quantile(false, true)),
    AggregateFunction::new("percentilesw_array", |a| resolve_array(a, true), |_| quantile(true, true)),
];

fn orderable(ty: Type) -> Result<Type, String> {
    match ty {
        Type::Dynamic => Ok(Type::Real),
        Type::DateTime | Type::TimeSpan => Ok(ty),
        ty if ty.is_numeric() => Ok(ty),
        ty => Err(format!("percentiles are not defined for {ty}")),
    }
}

fn resolve(args: &[Arg<'_>], weighted: bool) -> Result<Resolved, String> {
    let count = 2 + usize::from(weighted);
    if args.len() != count {
        return Err(wrong_count(args.len(), count, Some(count)));
    }
    let ty = orderable(args[0].ty)?;
    let params = [Param::Is(ty), LONG, REAL];
    if weighted { fixed(args, &params, ty) } else { fixed(args, &[params[0], REAL], ty) }
}

/// Percentiles as numbers, or as one dynamic array.
fn resolve_array(args: &[Arg<'_>], weighted: bool) -> Result<Resolved, String> {
    let Some(first) = args.first() else {
        return Err(wrong_count(0, 2, None));
    };
    let value = Param::Is(orderable(first.ty)?);
    let leading = 1 + usize::from(weighted);
    let rest = if args.get(leading).is_some_and(|arg| arg.ty == Type::Dynamic) { DYNAMIC } else { REAL };
    variadic(args, &[value, LONG][..leading], rest, 1, Type::Dynamic)
}

fn quantile(weighted: bool, array: bool) -> Box<dyn Accumulator> {
    Box::new(Quantile { values: Vec::new(), percents: Vec::new(), weighted, array })
}

struct Quantile {
    values: Vec<(Value, i64)>,
    percents: Vec<f64>,
    weighted: bool,
    array: bool,
}

impl Quantile {
    /// The smallest value below or at which lies at least that share of the weight.
    fn at(&self, percent: f64, total: i128) -> Value {
        if !(0.0..=100.0).contains(&percent) {
            return Value::Null;
        }
        let rank = ((percent / 100.0 * total as f64).ceil() as i128).max(1);
        let mut seen = 0_i128;
        let found = self.values.iter().find(|(_, weight)| {
            seen += i128::from(*weight);
            seen >= rank
        });
        found.or(self.values.last()).map_or(Value::Null, |(value, _)| value.clone())
    }
}

fn percents(values: &[Value]) -> Vec<f64> {
    let real = |value: &Value| match to_real(value) {
        Value::Real(v) => v,
        _ => f64::NAN,
    };
    match values {
        [Value::Dynamic(Dynamic::Array(items))] => items.iter().map(|item| real(&item.to_value())).collect(),
        _ => values.iter().map(real).collect(),
    }
}

impl Accumulator for Quantile {
    fn update(&mut self, args: &[Value]) {
        let leading = 1 + usize::from(self.weighted);
        if self.percents.is_empty() {
            self.percents = percents(&args[leading..]);
        }
        let weight = if self.weighted { args[1].as_long().unwrap_or(0) } else { 1 };
        let is_nan = matches!(args[0], Value::Real(v) if v.is_nan());
        if !args[0].is_null() && !is_nan && weight > 0 {
            self.values.push((args[0].clone(), weight));
        }
    }

    fn finish(&mut self) -> Value {
        self.values.sort_by(|a, b| compare(&a.0, &b.0));
        let total = self.values.iter().map(|(_, weight)| i128::from(*weight)).sum();
        let mut results = self.percents.iter().map(|percent| self.at(*percent, total));
        if self.array { Value::array(results.map(|value| value.to_dynamic()).collect()) } else { results.next().unwrap_or(Value::Null) }
    }

    fn size(&self) -> usize {
        self.values.capacity() * std::mem::size_of::<(Value, i64)>()
    }
}
