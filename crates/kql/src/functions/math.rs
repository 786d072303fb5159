//! Mathematics over reals, and random numbers.

use super::Function;
use super::signature::{Arg, LONG, Param, REAL, Resolved, fixed, optional};
use crate::eval::EvalContext;
use crate::types::Type;
use crate::value::Value;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("abs", resolve_abs, |_, a| abs(&a[0])),
    Function::new("sign", one, |_, a| on(&a[0], |x| if x == 0.0 || x.is_nan() { x } else { x.signum() })),
    Function::new("sqrt", one, |_, a| on(&a[0], f64::sqrt)),
    Function::new("exp", one, |_, a| on(&a[0], f64::exp)),
    Function::new("exp2", one, |_, a| on(&a[0], f64::exp2)),
    Function::new("exp10", one, |_, a| on(&a[0], |x| 10_f64.powf(x))),
    Function::new("log", one, |_, a| logarithm(&a[0], f64::ln)),
    Function::new("log2", one, |_, a| logarithm(&a[0], f64::log2)),
    Function::new("log10", one, |_, a| logarithm(&a[0], f64::log10)),
    Function::new("pow", |a| fixed(a, &[REAL, REAL], Type::Real), |_, a| pow(a)),
    Function::new("sin", one, |_, a| on(&a[0], f64::sin)),
    Function::new("cos", one, |_, a| on(&a[0], f64::cos)),
    Function::new("tan", one, |_, a| on(&a[0], f64::tan)),
    Function::new("cot", one, |_, a| on(&a[0], |x| 1.0 / x.tan())),
    Function::new("asin", one, |_, a| on(&a[0], f64::asin)),
    Function::new("acos", one, |_, a| on(&a[0], f64::acos)),
    Function::new("atan", one, |_, a| on(&a[0], f64::atan)),
    Function::new(
        "atan2",
        |a| fixed(a, &[REAL, REAL], Type::Real),
        |_, a| match a {
            [Value::Real(y), Value::Real(x)] => Value::Real(y.atan2(*x)),
            _ => Value::Null,
        },
    ),
    Function::new("degrees", one, |_, a| on(&a[0], f64::to_degrees)),
    Function::new("radians", one, |_, a| on(&a[0], f64::to_radians)),
    Function::new("pi", |a| fixed(a, &[], Type::Real), |_, _| Value::Real(std::f64::consts::PI)),
    Function::new("gamma", one, |_, a| on(&a[0], gamma)),
    Function::new("loggamma", one, |_, a| on(&a[0], log_gamma)),
    Function::new("isnan", test, |_, a| is(&a[0], f64::is_nan)),
    Function::new("isinf", test, |_, a| is(&a[0], f64::is_infinite)),
    Function::new("isfinite", test, |_, a| is(&a[0], f64::is_finite)),
    Function::new("rand", |a| optional(a, &[LONG], 0, if a.is_empty() { Type::Real } else { Type::Long }), rand).volatile(),
    Function::new("new_guid", |a| fixed(a, &[], Type::Guid), |_, _| Value::Guid(uuid::Uuid::new_v4().as_u128())).volatile(),
];

fn one(args: &[Arg<'_>]) -> Result<Resolved, String> {
    fixed(args, &[REAL], Type::Real)
}

fn test(args: &[Arg<'_>]) -> Result<Resolved, String> {
    fixed(args, &[REAL], Type::Bool)
}

fn on(value: &Value, compute: impl FnOnce(f64) -> f64) -> Value {
    match value {
        Value::Real(v) => Value::Real(compute(*v)),
        _ => Value::Null,
    }
}

fn is(value: &Value, test: fn(f64) -> bool) -> Value {
    match value {
        Value::Real(v) => Value::Bool(test(*v)),
        _ => Value::Bool(false),
    }
}

fn resolve_abs(args: &[Arg<'_>]) -> Result<Resolved, String> {
    let ty = match args.first().map(|arg| arg.ty) {
        Some(Type::Int | Type::Long) => Type::Long,
        Some(ty @ (Type::Decimal | Type::TimeSpan)) => ty,
        _ => Type::Real,
    };
    fixed(args, &[Param::Is(ty)], ty)
}

fn abs(value: &Value) -> Value {
    match value {
        Value::Long(v) => Value::Long(v.wrapping_abs()),
        Value::Real(v) => Value::Real(v.abs()),
        Value::Decimal(v) => Value::Decimal(v.abs()),
        Value::TimeSpan(v) => v.checked_abs().map_or(Value::Null, Value::TimeSpan),
        _ => Value::Null,
    }
}

/// Null for negative numbers, minus infinity for zero.
fn logarithm(value: &Value, log: fn(f64) -> f64) -> Value {
    match value {
        Value::Real(v) if *v < 0.0 => Value::Null,
        other => on(other, log),
    }
}

fn pow(args: &[Value]) -> Value {
    match args {
        [Value::Real(base), Value::Real(exponent)] => Value::Real(base.powf(*exponent)),
        _ => Value::Null,
    }
}

/// Lanczos' approximation (g = 7, n = 9), good to about 15 digits.
fn lanczos(x: f64) -> (f64, f64) {
    const COEFFICIENTS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let series = COEFFICIENTS.iter().enumerate().map(|(i, c)| c / (x + i as f64 + 1.0));
    (0.999_999_999_999_809_9 + series.sum::<f64>(), x + 7.5)
}

fn gamma(x: f64) -> f64 {
    if x < 0.5 {
        return std::f64::consts::PI / ((std::f64::consts::PI * x).sin() * gamma(1.0 - x));
    }
    let x = x - 1.0;
    let (sum, t) = lanczos(x);
    (2.0 * std::f64::consts::PI).sqrt() * t.powf(x + 0.5) * (-t).exp() * sum
}

/// Logarithm of the absolute value of the gamma function.
pub(super) fn log_gamma(x: f64) -> f64 {
    if x < 0.5 {
        return (std::f64::consts::PI / (std::f64::consts::PI * x).sin()).abs().ln() - log_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let (sum, t) = lanczos(x);
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

/// A real in [0, 1), or an integer in [0, n).
fn rand(ctx: &mut EvalContext, args: &[Value]) -> Value {
    let unit = (ctx.random_bits() >> 11) as f64 / (1_u64 << 53) as f64;
    match args.first().and_then(Value::as_long) {
        Some(n) if n > 0 => Value::Long((unit * n as f64) as i64),
        _ => Value::Real(unit),
    }
}
