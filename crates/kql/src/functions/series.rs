//! Functions over series: dynamic arrays of numbers. Elements that are not numbers give null.

use super::Function;
use super::signature::{Arg, BOOL, DYNAMIC, Param, Resolved, fixed, optional};
use super::statistics;
use crate::types::Type;
use crate::value::{Dynamic, Value, compare_dynamic};

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("series_add", two, |_, a| zip(a, |x, y| x + y)),
    Function::new("series_subtract", two, |_, a| zip(a, |x, y| x - y)),
    Function::new("series_multiply", two, |_, a| zip(a, |x, y| x * y)),
    Function::new("series_divide", two, |_, a| zip(a, |x, y| x / y)),
    Function::new("series_pow", two, |_, a| zip(a, f64::powf)),
    Function::new("series_equals", two, |_, a| relate(a, |x, y| x == y)),
    Function::new("series_not_equals", two, |_, a| relate(a, |x, y| x != y)),
    Function::new("series_less", two, |_, a| relate(a, |x, y| x < y)),
    Function::new("series_less_equals", two, |_, a| relate(a, |x, y| x <= y)),
    Function::new("series_greater", two, |_, a| relate(a, |x, y| x > y)),
    Function::new("series_greater_equals", two, |_, a| relate(a, |x, y| x >= y)),
    Function::new("series_abs", one, |_, a| map(&a[0], f64::abs)),
    Function::new("series_sign", one, |_, a| map(&a[0], |x| if x == 0.0 { 0.0 } else { x.signum() })),
    Function::new("series_ceiling", one, |_, a| map(&a[0], f64::ceil)),
    Function::new("series_floor", one, |_, a| map(&a[0], f64::floor)),
    Function::new("series_exp", one, |_, a| map(&a[0], f64::exp)),
    Function::new("series_log", one, |_, a| map(&a[0], f64::ln)),
    Function::new("series_sin", one, |_, a| map(&a[0], f64::sin)),
    Function::new("series_cos", one, |_, a| map(&a[0], f64::cos)),
    Function::new("series_tan", one, |_, a| map(&a[0], f64::tan)),
    Function::new("series_asin", one, |_, a| map(&a[0], f64::asin)),
    Function::new("series_acos", one, |_, a| map(&a[0], f64::acos)),
    Function::new("series_atan", one, |_, a| map(&a[0], f64::atan)),
    Function::new("series_sum", reduced, |_, a| reduce(&a[0], |x| x.iter().sum())),
    Function::new("series_product", reduced, |_, a| reduce(&a[0], |x| x.iter().product())),
    Function::new("series_magnitude", reduced, |_, a| reduce(&a[0], |x| x.iter().map(|v| v * v).sum::<f64>().sqrt())),
    Function::new("series_dot_product", two_reduced, |_, a| dot_product(a)),
    Function::new("series_cosine_similarity", two_reduced, |_, a| {
        reduce_two(a, |x, y| {
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
            dot(x, y) / (dot(x, x).sqrt() * dot(y, y).sqrt())
        })
    }),
    Function::new("series_pearson_correlation", two_reduced, |_, a| reduce_two(a, statistics::correlation)),
    Function::new(
        "series_stats_dynamic",
        |a| optional(a, &[DYNAMIC, BOOL], 1, Type::Dynamic),
        |_, a| statistics::stats(&a[0], a.get(1) == Some(&Value::Bool(true))),
    ),
    Function::new("series_fit_line_dynamic", one, |_, a| statistics::fit_line(&a[0])),
    Function::new("series_fill_forward", resolve_fill, |_, a| fill(a, false)),
    Function::new("series_fill_backward", resolve_fill, |_, a| fill(a, true)),
    Function::new("series_fill_const", resolve_fill_const, |_, a| fill_const(a)),
    Function::new("series_fill_linear", resolve_fill_linear, |_, a| fill_linear(a)),
    Function::new("series_fir", resolve_fir, |_, a| fir(a)),
    Function::new("series_iir", |a| fixed(a, &[DYNAMIC, DYNAMIC, DYNAMIC], Type::Dynamic), |_, a| iir(a)),
];

fn one(args: &[Arg<'_>]) -> Result<Resolved, String> {
    fixed(args, &[DYNAMIC], Type::Dynamic)
}

fn reduced(args: &[Arg<'_>]) -> Result<Resolved, String> {
    fixed(args, &[DYNAMIC], Type::Real)
}

/// Two series, or a series and a number that stands for all elements.
fn series_or_number(args: &[Arg<'_>], ty: Type) -> Result<Resolved, String> {
    let resolved = fixed(args, &[Param::Any, Param::Any], ty)?;
    match args.iter().find(|arg| arg.ty != Type::Dynamic && !arg.ty.is_numeric()) {
        Some(arg) => Err(format!("a series or a number is needed, not {}", arg.ty)),
        None => Ok(resolved),
    }
}

fn two(args: &[Arg<'_>]) -> Result<Resolved, String> {
    series_or_number(args, Type::Dynamic)
}

fn two_reduced(args: &[Arg<'_>]) -> Result<Resolved, String> {
    series_or_number(args, Type::Real)
}

fn element(value: Option<f64>) -> Dynamic {
    value.map_or(Dynamic::Null, Dynamic::Real)
}

/// Operand of an element-wise function: the element at an index.
fn operand(value: &Value, index: usize) -> Dynamic {
    match value {
        Value::Dynamic(Dynamic::Array(items)) => items.get(index).cloned().unwrap_or(Dynamic::Null),
        scalar => scalar.to_dynamic(),
    }
}

fn pair_length(args: &[Value]) -> Option<usize> {
    match (args[0].as_array(), args[1].as_array()) {
        (Some(x), Some(y)) => Some(x.len().max(y.len())),
        (Some(one), None) | (None, Some(one)) => Some(one.len()),
        (None, None) => None,
    }
}

fn zip(args: &[Value], compute: fn(f64, f64) -> f64) -> Value {
    let Some(length) = pair_length(args) else {
        return Value::Null;
    };
    let at = |index| {
        let (x, y) = (operand(&args[0], index).as_real(), operand(&args[1], index).as_real());
        element(x.zip(y).map(|(x, y)| compute(x, y)))
    };
    Value::array((0..length).map(at).collect())
}

fn relate(args: &[Value], test: fn(f64, f64) -> bool) -> Value {
    let Some(length) = pair_length(args) else {
        return Value::Null;
    };
    let at = |index| match (operand(&args[0], index), operand(&args[1], index)) {
        (Dynamic::Null, _) | (_, Dynamic::Null) => Dynamic::Null,
        (x, y) => match x.as_real().zip(y.as_real()) {
            Some((x, y)) => Dynamic::Bool(test(x, y)),
            // Text and times compare by their order.
            None => Dynamic::Bool(test(f64::from(compare_dynamic(&x, &y) as i8), 0.0)),
        },
    };
    Value::array((0..length).map(at).collect())
}

fn map(value: &Value, compute: impl Fn(f64) -> f64) -> Value {
    value.as_array().map_or(Value::Null, |items| Value::array(items.iter().map(|item| element(item.as_real().map(&compute))).collect()))
}

/// All elements as numbers; None when one is not.
pub(super) fn numbers(value: &Value) -> Option<Vec<f64>> {
    value.as_array()?.iter().map(Dynamic::as_real).collect()
}

fn reduce(value: &Value, compute: impl Fn(&[f64]) -> f64) -> Value {
    numbers(value).map_or(Value::Null, |numbers| Value::Real(compute(&numbers)))
}

fn reduce_two(args: &[Value], compute: impl Fn(&[f64], &[f64]) -> f64) -> Value {
    match (numbers(&args[0]), numbers(&args[1])) {
        (Some(x), Some(y)) if x.len() == y.len() => Value::Real(compute(&x, &y)),
        _ => Value::Null,
    }
}

fn dot_product(args: &[Value]) -> Value {
    let Value::Dynamic(Dynamic::Array(products)) = zip(args, |x, y| x * y) else {
        return Value::Null;
    };
    let sum: Option<Vec<f64>> = products.iter().map(Dynamic::as_real).collect();
    sum.map_or(Value::Null, |products| Value::Real(products.iter().sum()))
}

fn resolve_fill(args: &[Arg<'_>]) -> Result<Resolved, String> {
    optional(args, &[DYNAMIC, Param::Any], 1, Type::Dynamic)
}

/// Whether an element is a gap: the given placeholder, null if there is none.
fn is_gap(item: &Dynamic, placeholder: Option<&Value>) -> bool {
    match placeholder {
        None | Some(Value::Null) => matches!(item, Dynamic::Null),
        Some(placeholder) => item.group_key() == placeholder.group_key(),
    }
}

fn fill(args: &[Value], backward: bool) -> Value {
    let Some(items) = args[0].as_array() else {
        return Value::Null;
    };
    let mut filled = items.to_vec();
    let order: Box<dyn Iterator<Item = usize>> = if backward { Box::new((0..filled.len()).rev()) } else { Box::new(0..filled.len()) };
    let mut last: Option<Dynamic> = None;
    for index in order {
        if !is_gap(&filled[index], args.get(1)) {
            last = Some(filled[index].clone());
        } else if let Some(value) = &last {
            filled[index] = value.clone();
        }
    }
    Value::array(filled)
}

fn resolve_fill_const(args: &[Arg<'_>]) -> Result<Resolved, String> {
    optional(args, &[DYNAMIC, Param::Any, Param::Any], 2, Type::Dynamic)
}

fn fill_const(args: &[Value]) -> Value {
    let constant = args[1].to_dynamic();
    args[0].as_array().map_or(Value::Null, |items| {
        let filled = items.iter().map(|item| if is_gap(item, args.get(2)) { constant.clone() } else { item.clone() });
        Value::array(filled.collect())
    })
}

fn resolve_fill_linear(args: &[Arg<'_>]) -> Result<Resolved, String> {
    optional(args, &[DYNAMIC, Param::Any, BOOL, Param::Any], 1, Type::Dynamic)
}

/// Gaps between known points lie on the line between them, those at the edges (if wanted) repeat the nearest point; a
/// series without points becomes the constant (0 unless given). A series of integers stays one.
fn fill_linear(args: &[Value]) -> Value {
    let Some(items) = args[0].as_array() else {
        return Value::Null;
    };
    let fill_edges = args.get(2) != Some(&Value::Bool(false));
    let is_known = |item: &Dynamic| !is_gap(item, args.get(1));
    let whole = items.iter().filter(|item| is_known(item)).all(|item| matches!(item, Dynamic::Long(_)));
    let known: Vec<(usize, f64)> =
        items.iter().enumerate().filter(|(_, item)| is_known(item)).filter_map(|(i, v)| Some((i, v.as_real()?))).collect();
    if known.is_empty() {
        let constant = args.get(3).map_or(Dynamic::Real(0.0), Value::to_dynamic);
        return Value::array(vec![constant; items.len()]);
    }
    let at = |index: usize, item: &Dynamic| {
        if is_known(item) {
            return item.clone();
        }
        let behind = known.partition_point(|(i, _)| *i < index);
        let value = match (behind.checked_sub(1).map(|i| known[i]), known.get(behind).copied()) {
            (Some((i, a)), Some((j, b))) => a + (b - a) * (index - i) as f64 / (j - i) as f64,
            (Some((_, edge)), None) | (None, Some((_, edge))) if fill_edges => edge,
            _ => return item.clone(),
        };
        if whole { Dynamic::Long(value as i64) } else { Dynamic::Real(value) }
    };
    Value::array(items.iter().enumerate().map(|(index, item)| at(index, item)).collect())
}

fn resolve_fir(args: &[Arg<'_>]) -> Result<Resolved, String> {
    optional(args, &[DYNAMIC, DYNAMIC, BOOL, BOOL], 2, Type::Dynamic)
}

/// Largest filter and series of the convolution, so that its cost stays bounded.
const MAX_FILTER: usize = 1024;

/// Convolution with a filter: normalized to a sum of 1 (unless the filter sums to 0), optionally centred.
fn fir(args: &[Value]) -> Value {
    let (Some(series), Some(filter)) = (numbers(&args[0]), numbers(&args[1])) else {
        return Value::Null;
    };
    if filter.is_empty() || filter.len() > MAX_FILTER {
        return Value::Null;
    }
    let total: f64 = filter.iter().sum();
    let normalize = args.get(2) != Some(&Value::Bool(false)) && total != 0.0;
    let scale = if normalize { 1.0 / total } else { 1.0 };
    let shift = if args.get(3) == Some(&Value::Bool(true)) { filter.len() / 2 } else { 0 };
    let at = |index: usize| {
        let terms = filter.iter().enumerate().filter_map(|(lag, weight)| {
            let from = (index + shift).checked_sub(lag)?;
            Some(series.get(from)? * weight)
        });
        Dynamic::Real(terms.sum::<f64>() * scale)
    };
    Value::array((0..series.len()).map(at).collect())
}

/// Recursive filter: `a0 y[i] = sum b[j] x[i-j] - sum a[k] y[i-k]`.
fn iir(args: &[Value]) -> Value {
    let (Some(series), Some(b), Some(a)) = (numbers(&args[0]), numbers(&args[1]), numbers(&args[2])) else {
        return Value::Null;
    };
    if b.is_empty() || a.is_empty() || a[0] == 0.0 || a.len().max(b.len()) > MAX_FILTER {
        return Value::Null;
    }
    let mut out: Vec<f64> = Vec::with_capacity(series.len());
    for index in 0..series.len() {
        let forward: f64 = b.iter().enumerate().filter_map(|(j, b)| Some(b * series[index.checked_sub(j)?])).sum();
        let back: f64 = a.iter().enumerate().skip(1).filter_map(|(k, a)| Some(a * out[index.checked_sub(k)?])).sum();
        out.push((forward - back) / a[0]);
    }
    Value::array(out.into_iter().map(Dynamic::Real).collect())
}
