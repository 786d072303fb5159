//! Kernels of arithmetic on longs, reals, datetimes and timespans, and of casts between numbers.
//!
//! Integers wrap, a null operand makes null, integer division by zero is null, ticks that leave their range are null.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array};
use datafusion::arrow::compute::kernels::arity::{binary, unary};
use datafusion::arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use kql::tree::Expr;
use kql::value::MAX_DATETIME_TICKS;
use kql::{Type, Value};

use super::kernel::{Call, Evaluation, Kernel, Selected, constant};
use crate::engine::error::EngineError;

/// The kernel for arithmetic, if there is one for its types.
pub(super) fn select<'a>(call: &Call<'a>) -> Option<Selected<'a>> {
    match call.function {
        "tolong" | "toreal" => cast(call),
        "bin" | "bin_at" => bin(call),
        "+" | "-" | "*" | "/" => {
            let (left, right) = call.pair()?;
            let args = vec![left, right];
            match (left.ty, right.ty) {
                (Type::Long, Type::Long) => Selected::new(Longs(Operator::of(call.function)?), args),
                (Type::Real, Type::Real) => Selected::new(Reals(Operator::of(call.function)?), args),
                _ => ticks(call, left, right),
            }
        }
        _ => None,
    }
}

#[derive(Debug, Clone, Copy)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl Operator {
    fn of(function: &str) -> Option<Self> {
        Some(match function {
            "+" => Self::Add,
            "-" => Self::Subtract,
            "*" => Self::Multiply,
            "/" => Self::Divide,
            _ => return None,
        })
    }
}

#[derive(Debug)]
struct Longs(Operator);

impl Kernel for Longs {
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Result<ArrayRef, EngineError> {
        let (a, b) = (args[0].as_primitive::<Int64Type>(), args[1].as_primitive::<Int64Type>());
        let result: Int64Array = match self.0 {
            Operator::Add => binary(a, b, i64::wrapping_add)?,
            Operator::Subtract => binary(a, b, i64::wrapping_sub)?,
            Operator::Multiply => binary(a, b, i64::wrapping_mul)?,
            Operator::Divide => each_pair(a, b, |a, b| (b != 0).then(|| a.wrapping_div(b))),
        };
        Ok(Arc::new(result))
    }
}

#[derive(Debug)]
struct Reals(Operator);

impl Kernel for Reals {
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Result<ArrayRef, EngineError> {
        let (a, b) = (args[0].as_primitive::<Float64Type>(), args[1].as_primitive::<Float64Type>());
        let result: Float64Array = match self.0 {
            Operator::Add => binary(a, b, |a, b| a + b)?,
            Operator::Subtract => binary(a, b, |a, b| a - b)?,
            Operator::Multiply => binary(a, b, |a, b| a * b)?,
            Operator::Divide => binary(a, b, |a, b| a / b)?,
        };
        Ok(Arc::new(result))
    }
}

/// Sums and differences of datetimes and timespans.
fn ticks<'a>(call: &Call<'a>, left: &'a Expr, right: &'a Expr) -> Option<Selected<'a>> {
    use Type::{DateTime, TimeSpan};
    let fits = match call.function {
        "+" => matches!((left.ty, right.ty), (DateTime, TimeSpan) | (TimeSpan, DateTime | TimeSpan)),
        "-" => matches!((left.ty, right.ty), (DateTime, DateTime | TimeSpan) | (TimeSpan, TimeSpan)),
        _ => false,
    };
    let kernel = Ticks { subtract: call.function == "-", datetime: call.ty == DateTime };
    if fits { Selected::new(kernel, vec![left, right]) } else { None }
}

#[derive(Debug)]
struct Ticks {
    subtract: bool,
    /// Whether the result is a datetime, which has a smaller range.
    datetime: bool,
}

impl Kernel for Ticks {
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Result<ArrayRef, EngineError> {
        let (a, b) = (args[0].as_primitive::<Int64Type>(), args[1].as_primitive::<Int64Type>());
        let compute = |a: i64, b: i64| {
            let ticks = if self.subtract { a.checked_sub(b) } else { a.checked_add(b) };
            ticks.filter(|ticks| !self.datetime || (0..=MAX_DATETIME_TICKS).contains(ticks))
        };
        Ok(Arc::new(each_pair(a, b, compute)))
    }
}

/// Null where an operand is, or where the function has no answer.
fn each_pair(a: &Int64Array, b: &Int64Array, compute: impl Fn(i64, i64) -> Option<i64>) -> Int64Array {
    a.iter().zip(b).map(|(a, b)| compute(a?, b?)).collect()
}

/// `bin` with a constant size, `bin_at` with a constant fixed point as well.
fn bin<'a>(call: &Call<'a>) -> Option<Selected<'a>> {
    let (value, size, at) = match call.args {
        [value, size] => (value, size, None),
        [value, size, at] => (value, size, Some(constant(at)?)),
        _ => return None,
    };
    let at = match (at, value.ty) {
        (None, _) => 0,
        (Some(Value::Long(at)), Type::Long) => *at,
        (Some(Value::DateTime(at)), Type::DateTime) => *at,
        (Some(Value::TimeSpan(at)), Type::TimeSpan) => *at,
        _ => return None,
    };
    match (value.ty, constant(size)?) {
        (Type::Long, Value::Long(size)) if *size > 0 => Selected::new(BinLong { size: *size, at, datetime: false }, vec![value]),
        (Type::DateTime | Type::TimeSpan, Value::TimeSpan(size) | Value::Long(size)) if *size > 0 => {
            Selected::new(BinLong { size: *size, at, datetime: value.ty == Type::DateTime }, vec![value])
        }
        (Type::Real, Value::Real(size)) if *size > 0.0 => Selected::new(BinReal(*size), vec![value]),
        _ => None,
    }
}

#[derive(Debug)]
struct BinLong {
    size: i64,
    at: i64,
    datetime: bool,
}

impl Kernel for BinLong {
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Result<ArrayRef, EngineError> {
        let values = args[0].as_primitive::<Int64Type>();
        let bin = |value: i64| {
            let below = value.checked_sub(self.at)?.div_euclid(self.size).checked_mul(self.size)?;
            let binned = below.checked_add(self.at)?;
            (!self.datetime || (0..=MAX_DATETIME_TICKS).contains(&binned)).then_some(binned)
        };
        let result: Int64Array = values.unary_opt(bin);
        Ok(Arc::new(result))
    }
}

#[derive(Debug)]
struct BinReal(f64);

impl Kernel for BinReal {
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Result<ArrayRef, EngineError> {
        let result: Float64Array = unary(args[0].as_primitive::<Float64Type>(), |value| (value / self.0).floor() * self.0);
        Ok(Arc::new(result))
    }
}

fn cast<'a>(call: &Call<'a>) -> Option<Selected<'a>> {
    let arg = call.single()?;
    let cast = match (call.function, arg.ty) {
        ("tolong", Type::Long) | ("toreal", Type::Real) => Cast::None,
        ("tolong", Type::Int) => Cast::IntToLong,
        ("toreal", Type::Int) => Cast::IntToReal,
        ("toreal", Type::Long) => Cast::LongToReal,
        ("tolong", Type::Real) => Cast::RealToLong,
        _ => return None,
    };
    Selected::new(cast, vec![arg])
}

#[derive(Debug)]
enum Cast {
    None,
    IntToLong,
    IntToReal,
    LongToReal,
    RealToLong,
}

impl Kernel for Cast {
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Result<ArrayRef, EngineError> {
        let array = &args[0];
        Ok(match self {
            Cast::None => Arc::clone(array),
            Cast::IntToLong => {
                let result: Int64Array = unary(array.as_primitive::<Int32Type>(), i64::from);
                Arc::new(result)
            }
            Cast::IntToReal => {
                let result: Float64Array = unary(array.as_primitive::<Int32Type>(), f64::from);
                Arc::new(result)
            }
            Cast::LongToReal => {
                let result: Float64Array = unary(array.as_primitive::<Int64Type>(), |long| long as f64);
                Arc::new(result)
            }
            Cast::RealToLong => {
                let reals = array.as_primitive::<Float64Type>();
                let result: Int64Array = reals.iter().map(|real| real.filter(|real| real.is_finite()).map(|real| real as i64)).collect();
                Arc::new(result)
            }
        })
    }
}
