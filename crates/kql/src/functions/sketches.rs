//! Readers of the states that the aggregates `hll` and `tdigest` make.

use super::Function;
use super::signature::{Arg, DYNAMIC, Param, REAL, Resolved, constant_text, fixed, optional, variadic};
use crate::aggregates::digest::Digest;
use crate::aggregates::distinct::Distinct;
use crate::eval::EvalContext;
use crate::types::Type;
use crate::value::{Dynamic, Value};

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new(
        "dcount_hll",
        |a| fixed(a, &[DYNAMIC], Type::Long),
        |_, a| hll(&a[0]).map_or(Value::Null, |state| Value::Long(state.count())),
    ),
    Function::new(
        "hll_merge",
        |a| variadic(a, &[], DYNAMIC, 2, Type::Dynamic),
        |_, a| {
            let mut merged = Distinct::default();
            a.iter().filter_map(hll).for_each(|state| merged.merge(&state));
            Value::dynamic(merged.to_dynamic())
        },
    ),
    Function::new(
        "tdigest_merge",
        |a| variadic(a, &[], DYNAMIC, 2, Type::Dynamic),
        |_, a| {
            let mut merged = Digest::default();
            a.iter().filter_map(digest).for_each(|state| merged.merge(state));
            Value::dynamic(merged.to_dynamic())
        },
    )
    .alias(&["merge_tdigest"]),
    Function::new("percentile_tdigest", resolve_percentile, percentile),
    Function::new(
        "percentiles_array_tdigest",
        |a| fixed(a, &[DYNAMIC, DYNAMIC], Type::Dynamic),
        |_, a| match (digest(&a[0]), a[1].as_array()) {
            (Some(state), Some(percents)) => {
                let at = |percent: &Dynamic| percent.as_real().map_or(Value::Null, |percent| state.percentile(percent));
                Value::array(percents.iter().map(|percent| at(percent).to_dynamic()).collect())
            }
            _ => Value::Null,
        },
    ),
];

fn hll(value: &Value) -> Option<Distinct> {
    Distinct::from_dynamic(&value.to_dynamic())
}

fn digest(value: &Value) -> Option<Digest> {
    Digest::from_dynamic(&value.to_dynamic())
}

/// The result is dynamic unless a type is given.
fn resolve_percentile(args: &[Arg<'_>]) -> Result<Resolved, String> {
    let ty = match args.len() {
        3 => constant_text(args, 2).and_then(Type::parse).ok_or("argument 3 must be typeof(a scalar type)")?,
        _ => Type::Dynamic,
    };
    optional(args, &[DYNAMIC, REAL, Param::Constant], 2, ty)
}

fn percentile(ctx: &mut EvalContext, args: &[Value]) -> Value {
    let (Some(state), Value::Real(percent)) = (digest(&args[0]), &args[1]) else {
        return Value::Null;
    };
    let value = state.percentile(*percent);
    match args.get(2).and_then(Value::as_str).and_then(Type::parse) {
        Some(ty) if ty != Type::Dynamic => match super::lookup(super::cast_name(ty)) {
            Some(cast) => (cast.eval)(ctx, &[value]),
            None => Value::Null,
        },
        _ => Value::dynamic(value.to_dynamic()),
    }
}
