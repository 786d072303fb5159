//! Bit operations and hexadecimal text over longs.

use super::Function;
use super::signature::{Arg, LONG, Resolved, fixed, optional};
use crate::types::Type;
use crate::value::Value;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("binary_and", two, |_, a| combine(a, |x, y| Some(x & y))),
    Function::new("binary_or", two, |_, a| combine(a, |x, y| Some(x | y))),
    Function::new("binary_xor", two, |_, a| combine(a, |x, y| Some(x ^ y))),
    Function::new("binary_shift_left", two, |_, a| combine(a, |x, y| Some(x.wrapping_shl(u32::try_from(y).ok()?)))),
    Function::new("binary_shift_right", two, |_, a| combine(a, |x, y| Some(x.wrapping_shr(u32::try_from(y).ok()?)))),
    Function::new("binary_not", |a| fixed(a, &[LONG], Type::Long), |_, a| a[0].as_long().map_or(Value::Null, |v| Value::Long(!v))),
    Function::new(
        "bitset_count_ones",
        |a| fixed(a, &[LONG], Type::Long),
        |_, a| a[0].as_long().map_or(Value::Null, |v| Value::Long(i64::from(v.count_ones()))),
    ),
    Function::new("tohex", |a| optional(a, &[LONG, LONG], 1, Type::String), |_, a| tohex(a)),
];

fn two(args: &[Arg<'_>]) -> Result<Resolved, String> {
    fixed(args, &[LONG, LONG], Type::Long)
}

fn combine(args: &[Value], compute: fn(i64, i64) -> Option<i64>) -> Value {
    let result = args[0].as_long().zip(args[1].as_long()).and_then(|(x, y)| compute(x, y));
    result.map_or(Value::Null, Value::Long)
}

/// Lower-case digits, padded with zeros to a length of at most 16.
fn tohex(args: &[Value]) -> Value {
    let Some(value) = args[0].as_long() else {
        return Value::string("");
    };
    let length = args.get(1).and_then(Value::as_long).unwrap_or(0).clamp(0, 16) as usize;
    Value::string(format!("{value:0length$x}"))
}
