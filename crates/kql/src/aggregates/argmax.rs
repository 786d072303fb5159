//! `arg_max`, `arg_min` (one returned column each, see the binder) and `take_any`.

use super::{Accumulator, AggregateFunction};
use crate::functions::is_true;
use crate::functions::signature::{Arg, BOOL, Param, Resolved, fixed};
use crate::types::Type;
use crate::value::{Value, compare};

pub(super) static AGGREGATES: &[AggregateFunction] = &[
    AggregateFunction::new("arg_max", resolve_arg, |_| Box::new(ArgExtreme { best: None, largest: true })).alias(&["argmax"]),
    AggregateFunction::new("arg_min", resolve_arg, |_| Box::new(ArgExtreme { best: None, largest: false })).alias(&["argmin"]),
    AggregateFunction::new("take_any", resolve_any, |_| Box::new(TakeAny(None))).alias(&["any"]),
    AggregateFunction::new("take_anyif", resolve_any_if, |_| Box::new(TakeAnyIf(TakeAny(None)))).alias(&["anyif"]),
];

fn resolve_arg(args: &[Arg<'_>]) -> Result<Resolved, String> {
    let ty = args.get(1).map_or(Type::Dynamic, |arg| arg.ty);
    fixed(args, &[Param::Any, Param::Any], ty)
}

fn resolve_any(args: &[Arg<'_>]) -> Result<Resolved, String> {
    fixed(args, &[Param::Any], args.first().map_or(Type::Dynamic, |arg| arg.ty))
}

fn resolve_any_if(args: &[Arg<'_>]) -> Result<Resolved, String> {
    fixed(args, &[Param::Any, BOOL], args.first().map_or(Type::Dynamic, |arg| arg.ty))
}

/// The second argument at the row where the first is most extreme; the first such row, the first of all when there
/// are only nulls.
struct ArgExtreme {
    best: Option<(Value, Value)>,
    largest: bool,
}

impl Accumulator for ArgExtreme {
    fn update(&mut self, args: &[Value]) {
        let better = match &self.best {
            None => true,
            Some((best, _)) => match (best.is_null(), args[0].is_null()) {
                (_, true) => false,
                (true, false) => true,
                _ if self.largest => compare(&args[0], best).is_gt(),
                _ => compare(&args[0], best).is_lt(),
            },
        };
        if better {
            self.best = Some((args[0].clone(), args[1].clone()));
        }
    }

    fn finish(&mut self) -> Value {
        self.best.take().map_or(Value::Null, |(_, value)| value)
    }

    fn size(&self) -> usize {
        128
    }
}

/// The first value that is not null.
struct TakeAny(Option<Value>);

impl Accumulator for TakeAny {
    fn update(&mut self, args: &[Value]) {
        if !matches!(&self.0, Some(value) if !value.is_null()) {
            self.0 = Some(args[0].clone());
        }
    }

    fn finish(&mut self) -> Value {
        self.0.take().unwrap_or(Value::Null)
    }

    fn size(&self) -> usize {
        64
    }
}

struct TakeAnyIf(TakeAny);

impl Accumulator for TakeAnyIf {
    fn update(&mut self, args: &[Value]) {
        if is_true(&args[1]) {
            self.0.update(&args[..1]);
        }
    }

    fn finish(&mut self) -> Value {
        self.0.finish()
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}
