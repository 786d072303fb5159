//! Kernels of comparison and logic.
//!
//! Equality is total (a null equals no value; two nulls compare to null), the orderings are null with any null, NaN is
//! not ordered, and the null string is the empty string.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray, Scalar, StringArray};
use datafusion::arrow::buffer::{BooleanBuffer, NullBuffer};
use datafusion::arrow::compute::kernels::zip::zip;
use datafusion::arrow::compute::kernels::{boolean, cmp};
use datafusion::arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use kql::tree::Expr;
use kql::{Type, Value};

use super::kernel::{Call, Evaluation, Kernel, Selected, constant};
use crate::engine::error::EngineError;
use crate::engine::values::arrow_type;

type Answer = Result<ArrayRef, EngineError>;

/// The kernel for a comparison or logical operation, if there is one for its types.
pub(super) fn select<'a>(call: &Call<'a>) -> Option<Selected<'a>> {
    match call.function {
        "and" | "or" => Selected::new(Logic { all: call.function == "and" }, call.args.iter().collect()),
        "not" => Selected::new(Not, vec![call.single()?]),
        "iff" => choice(call),
        "in" | "!in" => membership(call),
        "between" => range(call),
        "isnull" | "isnotnull" | "isempty" | "isnotempty" => absence(call),
        _ => comparison(call),
    }
}

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// The operator by the name of its KQL function.
    pub(in crate::engine) fn of(function: &str) -> Option<Self> {
        Some(match function {
            "==" => Self::Equal,
            "!=" => Self::NotEqual,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            _ => return None,
        })
    }

    /// The operator with its sides exchanged.
    pub(in crate::engine) fn flipped(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            same => same,
        }
    }

    fn holds<T: PartialOrd>(self, a: T, b: T) -> bool {
        match self {
            Self::Equal | Self::NotEqual => a == b,
            Self::Less => a < b,
            Self::LessOrEqual => a <= b,
            Self::Greater => a > b,
            Self::GreaterOrEqual => a >= b,
        }
    }
}

fn comparison<'a>(call: &Call<'a>) -> Option<Selected<'a>> {
    let op = Comparison::of(call.function)?;
    let (left, right) = call.pair()?;
    if left.ty != right.ty {
        return None;
    }
    let (op, arg, value) = match (constant(left), constant(right)) {
        (None, Some(value)) => (op, left, value),
        (Some(value), None) => (op.flipped(), right, value),
        _ => return compare_columns(op, left, right),
    };
    match value {
        Value::Long(v) | Value::DateTime(v) | Value::TimeSpan(v) => Selected::new(ToConstant::<Int64Type>(op, *v), vec![arg]),
        Value::Int(v) => Selected::new(ToConstant::<Int32Type>(op, *v), vec![arg]),
        Value::Real(v) => Selected::new(ToConstant::<Float64Type>(op, *v), vec![arg]),
        Value::String(v) => Selected::new(TextToConstant(op, Scalar::new(StringArray::from(vec![&**v]))), vec![arg]),
        _ => None,
    }
}

fn compare_columns<'a>(op: Comparison, left: &'a Expr, right: &'a Expr) -> Option<Selected<'a>> {
    let args = vec![left, right];
    match left.ty {
        Type::Long | Type::DateTime | Type::TimeSpan => Selected::new(Columns::<Int64Type>(op, std::marker::PhantomData), args),
        Type::Int => Selected::new(Columns::<Int32Type>(op, std::marker::PhantomData), args),
        Type::Real => Selected::new(Columns::<Float64Type>(op, std::marker::PhantomData), args),
        Type::String => Selected::new(TextColumns(op), args),
        _ => None,
    }
}

/// A number compared with a constant.
#[derive(Debug)]
struct ToConstant<T: ArrowPrimitiveType>(Comparison, T::Native);

impl<T: ArrowPrimitiveType + Debug> Kernel for ToConstant<T>
where
    T::Native: PartialOrd,
{
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Answer {
        let array = args[0].as_primitive::<T>();
        // Comparing all slots, null or not, is what the compiler vectorises.
        let holds = compare_values(self.0, array.values(), |_| self.1);
        Ok(Arc::new(with_null_rule(self.0, holds, array.nulls(), None)))
    }
}

/// Two numbers.
#[derive(Debug)]
struct Columns<T: ArrowPrimitiveType>(Comparison, std::marker::PhantomData<fn() -> T>);

impl<T: ArrowPrimitiveType + Debug> Kernel for Columns<T>
where
    T::Native: PartialOrd,
{
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Answer {
        let (left, right): (&PrimitiveArray<T>, &PrimitiveArray<T>) = (args[0].as_primitive(), args[1].as_primitive());
        let others = right.values();
        let holds = compare_values(self.0, left.values(), |row| others[row]);
        let both = NullBuffer::union(left.nulls(), right.nulls());
        let any = either(left.nulls(), right.nulls());
        Ok(Arc::new(with_null_rule(self.0, holds, both.as_ref(), any)))
    }
}

/// The comparison dispatched outside of the loop.
fn compare_values<N: PartialOrd + Copy>(op: Comparison, values: &[N], other: impl Fn(usize) -> N) -> BooleanBuffer {
    macro_rules! each {
        ($op:expr) => {
            BooleanBuffer::collect_bool(values.len(), |row| $op.holds(values[row], other(row)))
        };
    }
    match op {
        Comparison::Equal | Comparison::NotEqual => each!(Comparison::Equal),
        Comparison::Less => each!(Comparison::Less),
        Comparison::LessOrEqual => each!(Comparison::LessOrEqual),
        Comparison::Greater => each!(Comparison::Greater),
        Comparison::GreaterOrEqual => each!(Comparison::GreaterOrEqual),
    }
}

/// Validity of rows where at least one side is valid; None: all of them.
fn either(left: Option<&NullBuffer>, right: Option<&NullBuffer>) -> Option<NullBuffer> {
    match (left, right) {
        (Some(left), Some(right)) => Some(NullBuffer::new(left.inner() | right.inner())),
        _ => None,
    }
}

/// `holds` with the null rule of the operator. `valid`: rows without any null. `comparable`: rows that equality
/// answers, those with at most one null.
fn with_null_rule(op: Comparison, holds: BooleanBuffer, valid: Option<&NullBuffer>, comparable: Option<NullBuffer>) -> BooleanArray {
    let equal = |holds: BooleanBuffer| valid.map_or_else(|| holds.clone(), |valid| &holds & valid.inner());
    match op {
        Comparison::Equal => BooleanArray::new(equal(holds), comparable),
        Comparison::NotEqual => BooleanArray::new(!&equal(holds), comparable),
        _ => BooleanArray::new(holds, valid.cloned()),
    }
}

/// A string compared with a constant.
#[derive(Debug)]
struct TextToConstant(Comparison, Scalar<StringArray>);

impl Kernel for TextToConstant {
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Answer {
        compare_text(self.0, &args[0].as_string::<i32>(), &self.1)
    }
}

/// Two strings.
#[derive(Debug)]
struct TextColumns(Comparison);

impl Kernel for TextColumns {
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Answer {
        compare_text(self.0, &args[0].as_string::<i32>(), &args[1].as_string::<i32>())
    }
}

fn compare_text(op: Comparison, left: &dyn datafusion::arrow::array::Datum, right: &dyn datafusion::arrow::array::Datum) -> Answer {
    Ok(Arc::new(match op {
        Comparison::Equal => cmp::eq(left, right)?,
        Comparison::NotEqual => cmp::neq(left, right)?,
        Comparison::Less => cmp::lt(left, right)?,
        Comparison::LessOrEqual => cmp::lt_eq(left, right)?,
        Comparison::Greater => cmp::gt(left, right)?,
        Comparison::GreaterOrEqual => cmp::gt_eq(left, right)?,
    }))
}

/// `and`, `or` in three-valued logic.
#[derive(Debug)]
struct Logic {
    all: bool,
}

impl Kernel for Logic {
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Answer {
        let mut result = args[0].as_boolean().clone();
        for arg in &args[1..] {
            let arg = arg.as_boolean();
            result = if self.all { boolean::and_kleene(&result, arg)? } else { boolean::or_kleene(&result, arg)? };
        }
        Ok(Arc::new(result))
    }
}

#[derive(Debug)]
struct Not;

impl Kernel for Not {
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Answer {
        Ok(Arc::new(boolean::not(args[0].as_boolean())?))
    }
}

fn choice<'a>(call: &Call<'a>) -> Option<Selected<'a>> {
    let [condition, yes, no] = call.args else { return None };
    let storage = arrow_type(call.ty);
    let fits = condition.ty == Type::Bool && arrow_type(yes.ty) == storage && arrow_type(no.ty) == storage;
    if fits { Selected::new(Choice, vec![condition, yes, no]) } else { None }
}

/// `iff`: a null condition is not true.
#[derive(Debug)]
struct Choice;

impl Kernel for Choice {
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Answer {
        Ok(zip(args[0].as_boolean(), &args[1], &args[2])?)
    }
}

/// `in` and `!in` with constants of the needle's type.
fn membership<'a>(call: &Call<'a>) -> Option<Selected<'a>> {
    let (needle, candidates) = call.args.split_first()?;
    let values = candidates.iter().map(constant).collect::<Option<Vec<_>>>()?;
    if constant(needle).is_some() || candidates.iter().any(|candidate| candidate.ty != needle.ty) {
        return None;
    }
    let present = values.iter().filter(|value| !value.is_null());
    let negated = call.function == "!in";
    match needle.ty {
        Type::String => {
            let set = present.map(|value| value.as_str().map(Box::<str>::from)).collect::<Option<HashSet<_>>>()?;
            Selected::new(TextIn { set, negated }, vec![needle])
        }
        Type::Long | Type::DateTime | Type::TimeSpan => {
            let set = present.map(|value| ticks_or_long(value)).collect::<Option<HashSet<_>>>()?;
            let mut nulls = vec![Value::Null];
            nulls.extend(values.iter().map(|value| (*value).clone()));
            let Value::Bool(when_null) = call.oracle(&nulls) else { return None };
            Selected::new(LongIn { set, negated, when_null }, vec![needle])
        }
        _ => None,
    }
}

fn ticks_or_long(value: &Value) -> Option<i64> {
    match value {
        Value::Long(v) | Value::DateTime(v) | Value::TimeSpan(v) => Some(*v),
        _ => None,
    }
}

#[derive(Debug)]
struct TextIn {
    set: HashSet<Box<str>>,
    negated: bool,
}

impl Kernel for TextIn {
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Answer {
        let array = args[0].as_string::<i32>();
        let holds = |row: usize| self.set.contains(array.value(row)) != self.negated;
        Ok(Arc::new(BooleanArray::new(BooleanBuffer::collect_bool(array.len(), holds), None)))
    }
}

#[derive(Debug)]
struct LongIn<N: Hash + Eq + Debug> {
    set: HashSet<N>,
    negated: bool,
    when_null: bool,
}

impl Kernel for LongIn<i64> {
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Answer {
        let array = args[0].as_primitive::<Int64Type>();
        let holds = |row: usize| match array.is_valid(row) {
            true => self.set.contains(&array.value(row)) != self.negated,
            false => self.when_null,
        };
        Ok(Arc::new(BooleanArray::new(BooleanBuffer::collect_bool(array.len(), holds), None)))
    }
}

/// `between` with constant bounds of the value's type.
fn range<'a>(call: &Call<'a>) -> Option<Selected<'a>> {
    let [value, low, high] = call.args else { return None };
    if low.ty != value.ty || high.ty != value.ty || !matches!(value.ty, Type::Long | Type::DateTime | Type::TimeSpan) {
        return None;
    }
    let (low, high) = (constant(low)?, constant(high)?);
    let when_null = match call.oracle(&[Value::Null, low.clone(), high.clone()]) {
        Value::Bool(answer) => Some(answer),
        _ => None,
    };
    Selected::new(Between { low: ticks_or_long(low)?, high: ticks_or_long(high)?, when_null }, vec![value])
}

#[derive(Debug)]
struct Between {
    low: i64,
    high: i64,
    when_null: Option<bool>,
}

impl Kernel for Between {
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Answer {
        let array = args[0].as_primitive::<Int64Type>();
        let values = array.values();
        let holds = BooleanBuffer::collect_bool(values.len(), |row| self.low <= values[row] && values[row] <= self.high);
        let result = match (array.nulls(), self.when_null) {
            (None, _) => BooleanArray::new(holds, None),
            (Some(nulls), Some(true)) => BooleanArray::new(&holds | &!nulls.inner(), None),
            (Some(nulls), Some(false)) => BooleanArray::new(&holds & nulls.inner(), None),
            (Some(nulls), None) => BooleanArray::new(holds, Some(nulls.clone())),
        };
        Ok(Arc::new(result))
    }
}

/// `isnull` and `isempty` with their negations. Not for dynamic, whose JSON null is text.
fn absence<'a>(call: &Call<'a>) -> Option<Selected<'a>> {
    let arg = call.single()?;
    let negated = matches!(call.function, "isnotnull" | "isnotempty");
    match (arg.ty, call.function) {
        (Type::Dynamic, _) => None,
        (Type::String, "isempty" | "isnotempty") => Selected::new(Empty { negated }, vec![arg]),
        _ => Selected::new(Null { negated }, vec![arg]),
    }
}

#[derive(Debug)]
struct Empty {
    negated: bool,
}

impl Kernel for Empty {
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Answer {
        let array = args[0].as_string::<i32>();
        let offsets = array.value_offsets();
        let holds = |row: usize| (offsets[row] == offsets[row + 1]) != self.negated;
        Ok(Arc::new(BooleanArray::new(BooleanBuffer::collect_bool(array.len(), holds), None)))
    }
}

#[derive(Debug)]
struct Null {
    negated: bool,
}

impl Kernel for Null {
    fn run(&self, args: &[ArrayRef], _: &Evaluation) -> Answer {
        let result = if self.negated { boolean::is_not_null(&args[0])? } else { boolean::is_null(&args[0])? };
        Ok(Arc::new(result))
    }
}
