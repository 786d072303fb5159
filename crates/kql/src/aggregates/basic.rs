//! `count`, `sum`, `avg`, `min`, `max`, their `…if` forms and bitwise aggregates.
//!
//! Nulls are passed over. Sums without a value are 0, averages are NaN, minimum and maximum are null.

use rust_decimal::Decimal;

use super::{Accumulator, AggregateFunction};
use crate::functions::is_true;
use crate::functions::signature::{Arg, BOOL, Param, Resolved, fixed, optional, wrong_count};
use crate::types::Type;
use crate::value::{Value, compare};

pub(super) static AGGREGATES: &[AggregateFunction] = &[
    AggregateFunction::new("count", |a| optional(a, &[Param::Any], 0, Type::Long), |_| Box::new(Count(0))),
    AggregateFunction::new("countif", |a| fixed(a, &[BOOL], Type::Long), |_| Box::new(CountIf(0))),
    AggregateFunction::new("sum", |a| resolve_number(a, false, sum_type), |t| sum(t)),
    AggregateFunction::new("sumif", |a| resolve_number(a, true, sum_type), |t| conditional(sum(t))),
    AggregateFunction::new("avg", |a| resolve_number(a, false, average_type), |t| average(t)),
    AggregateFunction::new("avgif", |a| resolve_number(a, true, average_type), |t| conditional(average(t))),
    AggregateFunction::new("min", |a| resolve_any(a, false), |_| Box::new(Extreme { best: None, largest: false })),
    AggregateFunction::new("max", |a| resolve_any(a, false), |_| Box::new(Extreme { best: None, largest: true })),
    AggregateFunction::new("minif", |a| resolve_any(a, true), |_| conditional(Box::new(Extreme { best: None, largest: false }))),
    AggregateFunction::new("maxif", |a| resolve_any(a, true), |_| conditional(Box::new(Extreme { best: None, largest: true }))),
    AggregateFunction::new("binary_all_and", resolve_bits, |_| Box::new(Bits { state: None, combine: |a, b| a & b })),
    AggregateFunction::new("binary_all_or", resolve_bits, |_| Box::new(Bits { state: None, combine: |a, b| a | b })),
    AggregateFunction::new("binary_all_xor", resolve_bits, |_| Box::new(Bits { state: None, combine: |a, b| a ^ b })),
];

fn sum_type(ty: Type) -> Type {
    if ty == Type::Int { Type::Long } else { ty }
}

fn average_type(ty: Type) -> Type {
    match ty {
        Type::Decimal | Type::TimeSpan | Type::DateTime => ty,
        _ => Type::Real,
    }
}

/// One number or timespan, then the condition if there is one.
fn resolve_number(args: &[Arg<'_>], condition: bool, result: fn(Type) -> Type) -> Result<Resolved, String> {
    let count = 1 + usize::from(condition);
    if args.len() != count {
        return Err(wrong_count(args.len(), count, Some(count)));
    }
    let ty = match args[0].ty {
        Type::Dynamic | Type::Bool => Type::Real,
        ty if ty.is_numeric() || ty == Type::TimeSpan => ty,
        ty => return Err(format!("argument 1 must be a number or timespan, not {ty}")),
    };
    let mut types = vec![ty];
    types.extend(fixed(&args[1..], &[BOOL][..count - 1], ty)?.args);
    Ok(Resolved { ty: result(ty), args: types })
}

fn resolve_any(args: &[Arg<'_>], condition: bool) -> Result<Resolved, String> {
    let params = [Param::Any, BOOL];
    let ty = args.first().map_or(Type::Dynamic, |arg| arg.ty);
    fixed(args, &params[..1 + usize::from(condition)], ty)
}

fn resolve_bits(args: &[Arg<'_>]) -> Result<Resolved, String> {
    fixed(args, &[crate::functions::signature::LONG], Type::Long)
}

/// Wraps an aggregate so that it takes only rows whose last argument is true.
pub(super) fn conditional(inner: Box<dyn Accumulator>) -> Box<dyn Accumulator> {
    Box::new(Conditional(inner))
}

struct Conditional(Box<dyn Accumulator>);

impl Accumulator for Conditional {
    fn update(&mut self, args: &[Value]) {
        if let Some((condition, rest)) = args.split_last()
            && is_true(condition)
        {
            self.0.update(rest);
        }
    }

    fn finish(&mut self) -> Value {
        self.0.finish()
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}

struct Count(i64);

impl Accumulator for Count {
    fn update(&mut self, _: &[Value]) {
        self.0 += 1;
    }

    fn finish(&mut self) -> Value {
        Value::Long(self.0)
    }

    fn size(&self) -> usize {
        0
    }
}

struct CountIf(i64);

impl Accumulator for CountIf {
    fn update(&mut self, args: &[Value]) {
        self.0 += i64::from(is_true(&args[0]));
    }

    fn finish(&mut self) -> Value {
        Value::Long(self.0)
    }

    fn size(&self) -> usize {
        0
    }
}

fn sum(types: &[Type]) -> Box<dyn Accumulator> {
    Box::new(match types.first() {
        Some(Type::Real) => Sum::Real(0.0),
        Some(Type::Decimal) => Sum::Decimal(Decimal::ZERO),
        Some(Type::TimeSpan) => Sum::TimeSpan(0),
        _ => Sum::Long(0),
    })
}

enum Sum {
    Long(i64),
    Real(f64),
    Decimal(Decimal),
    TimeSpan(i64),
}

impl Accumulator for Sum {
    fn update(&mut self, args: &[Value]) {
        match (self, &args[0]) {
            (Sum::Long(sum), Value::Long(v)) => *sum = sum.wrapping_add(*v),
            (Sum::Long(sum), Value::Int(v)) => *sum = sum.wrapping_add(i64::from(*v)),
            (Sum::Real(sum), Value::Real(v)) => *sum += v,
            (Sum::Decimal(sum), Value::Decimal(v)) => *sum = sum.saturating_add(*v),
            (Sum::TimeSpan(sum), Value::TimeSpan(v)) => *sum = sum.wrapping_add(*v),
            _ => {}
        }
    }

    fn finish(&mut self) -> Value {
        match self {
            Sum::Long(v) => Value::Long(*v),
            Sum::Real(v) => Value::Real(*v),
            Sum::Decimal(v) => Value::Decimal(*v),
            Sum::TimeSpan(v) => Value::TimeSpan(*v),
        }
    }

    fn size(&self) -> usize {
        0
    }
}

fn average(types: &[Type]) -> Box<dyn Accumulator> {
    let number = !matches!(types.first(), Some(Type::Decimal | Type::TimeSpan | Type::DateTime));
    Box::new(Average { number, ..Average::default() })
}

/// The mean. Integers are summed as long, with wrapping; without a value the mean of numbers is NaN.
#[derive(Default)]
struct Average {
    count: u64,
    whole: i64,
    real: f64,
    decimal: Decimal,
    kind: Kind,
    /// Whether the result is a real.
    number: bool,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Kind {
    #[default]
    Number,
    Decimal,
    TimeSpan,
}

impl Accumulator for Average {
    fn update(&mut self, args: &[Value]) {
        match &args[0] {
            Value::Int(v) => self.whole = self.whole.wrapping_add(i64::from(*v)),
            Value::Long(v) => self.whole = self.whole.wrapping_add(*v),
            Value::Real(v) => self.real += v,
            Value::Decimal(v) => {
                self.kind = Kind::Decimal;
                self.decimal = self.decimal.saturating_add(*v);
            }
            Value::TimeSpan(v) => {
                self.kind = Kind::TimeSpan;
                self.whole = self.whole.wrapping_add(*v);
            }
            _ => return,
        }
        self.count += 1;
    }

    fn finish(&mut self) -> Value {
        if self.count == 0 {
            return if self.number { Value::Real(f64::NAN) } else { Value::Null };
        }
        match self.kind {
            Kind::Number => Value::Real((self.whole as f64 + self.real) / self.count as f64),
            Kind::Decimal => self.decimal.checked_div(Decimal::from(self.count)).map_or(Value::Null, Value::Decimal),
            Kind::TimeSpan => i64::try_from(self.count).map_or(Value::Null, |n| Value::TimeSpan(self.whole / n)),
        }
    }

    fn size(&self) -> usize {
        0
    }
}

struct Extreme {
    best: Option<Value>,
    largest: bool,
}

impl Accumulator for Extreme {
    fn update(&mut self, args: &[Value]) {
        let value = &args[0];
        if value.is_null() {
            return;
        }
        let better = match &self.best {
            None => true,
            Some(best) if self.largest => compare(value, best).is_gt(),
            Some(best) => compare(value, best).is_lt(),
        };
        if better {
            self.best = Some(value.clone());
        }
    }

    fn finish(&mut self) -> Value {
        self.best.clone().unwrap_or(Value::Null)
    }

    fn size(&self) -> usize {
        64
    }
}

struct Bits {
    state: Option<i64>,
    combine: fn(i64, i64) -> i64,
}

impl Accumulator for Bits {
    fn update(&mut self, args: &[Value]) {
        if let Some(value) = args[0].as_long() {
            self.state = Some(self.state.map_or(value, |state| (self.combine)(state, value)));
        }
    }

    fn finish(&mut self) -> Value {
        self.state.map_or(Value::Null, Value::Long)
    }

    fn size(&self) -> usize {
        0
    }
}
