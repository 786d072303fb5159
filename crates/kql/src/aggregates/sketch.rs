//! Aggregates whose result is a state to be merged and read later: `hll` and `tdigest`, with their merging forms.
//!
//! The states are dynamic values of our own; those of Kusto are opaque as well.

use super::basic::conditional;
use super::digest::Digest;
use super::distinct::{Distinct, hash};
use super::{Accumulator, AggregateFunction};
use crate::functions::signature::{Arg, BOOL, DYNAMIC, LONG, Param, Resolved, fixed, optional};
use crate::types::Type;
use crate::value::Value;

pub(super) static AGGREGATES: &[AggregateFunction] = &[
    AggregateFunction::new(
        "hll",
        |a| optional(a, &[Param::Any, LONG], 1, Type::Dynamic),
        |_| Box::new(Hll { state: Distinct::default(), merge: false }),
    ),
    AggregateFunction::new(
        "hll_if",
        |a| fixed(a, &[Param::Any, BOOL], Type::Dynamic),
        |_| conditional(Box::new(Hll { state: Distinct::default(), merge: false })),
    ),
    AggregateFunction::new(
        "hll_merge",
        |a| fixed(a, &[DYNAMIC], Type::Dynamic),
        |_| Box::new(Hll { state: Distinct::default(), merge: true }),
    ),
    AggregateFunction::new("tdigest", resolve_tdigest, |_| Box::new(TDigest { state: Digest::default(), merge: false })),
    AggregateFunction::new(
        "tdigest_merge",
        |a| fixed(a, &[DYNAMIC], Type::Dynamic),
        |_| Box::new(TDigest { state: Digest::default(), merge: true }),
    )
    .alias(&["merge_tdigest"]),
];

fn resolve_tdigest(args: &[Arg<'_>]) -> Result<Resolved, String> {
    match args.first().map(|arg| arg.ty) {
        Some(ty) if ty.is_numeric() || matches!(ty, Type::DateTime | Type::TimeSpan) => {
            optional(args, &[Param::Any, LONG], 1, Type::Dynamic)
        }
        Some(Type::Dynamic) => optional(args, &[Param::Number, LONG], 1, Type::Dynamic),
        ty => Err(format!("a t-digest is not defined for {}", ty.map_or("nothing", Type::name))),
    }
}

struct Hll {
    state: Distinct,
    merge: bool,
}

impl Accumulator for Hll {
    fn update(&mut self, args: &[Value]) {
        match &args[0] {
            Value::Null => {}
            Value::Dynamic(state) if self.merge => {
                if let Some(other) = Distinct::from_dynamic(state) {
                    self.state.merge(&other);
                }
            }
            value => self.state.insert(hash(&value.group_key())),
        }
    }

    fn finish(&mut self) -> Value {
        Value::dynamic(self.state.to_dynamic())
    }

    fn size(&self) -> usize {
        self.state.size()
    }
}

struct TDigest {
    state: Digest,
    merge: bool,
}

impl Accumulator for TDigest {
    fn update(&mut self, args: &[Value]) {
        match &args[0] {
            Value::Null => {}
            Value::Dynamic(state) if self.merge => {
                if let Some(other) = Digest::from_dynamic(state) {
                    self.state.merge(other);
                }
            }
            value => {
                let weight = args.get(1).map_or(Some(1), Value::as_long).unwrap_or(0);
                self.state.add(value, weight);
            }
        }
    }

    fn finish(&mut self) -> Value {
        Value::dynamic(self.state.to_dynamic())
    }

    fn size(&self) -> usize {
        self.state.size()
    }
}
