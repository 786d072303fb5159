//! Error function, beta distribution and Welch's test.

use super::Function;
use super::math::log_gamma;
use super::signature::{Arg, REAL, Resolved, fixed};
use crate::types::Type;
use crate::value::Value;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("erf", |a| reals(a, 1), |_, a| compute(a, |x| 1.0 - erfc(x[0]))),
    Function::new("erfc", |a| reals(a, 1), |_, a| compute(a, |x| erfc(x[0]))),
    Function::new("beta_cdf", |a| reals(a, 3), |_, a| compute(a, |x| beta_cdf(x[0], x[1], x[2]))),
    Function::new("beta_inv", |a| reals(a, 3), |_, a| compute(a, |x| beta_inv(x[0], x[1], x[2]))),
    Function::new("beta_pdf", |a| reals(a, 3), |_, a| compute(a, |x| beta_pdf(x[0], x[1], x[2]))),
    Function::new("welch_test", |a| reals(a, 6), |_, a| compute(a, welch)),
];

fn reals(args: &[Arg<'_>], count: usize) -> Result<Resolved, String> {
    fixed(args, &[REAL; 6][..count], Type::Real)
}

fn compute(args: &[Value], function: impl FnOnce(&[f64]) -> f64) -> Value {
    let real = |value: &Value| match value {
        Value::Real(v) => Some(*v),
        _ => None,
    };
    let values: Option<Vec<f64>> = args.iter().map(real).collect();
    values.map_or(Value::Null, |values| Value::Real(function(&values)))
}

/// Complement of the error function, through the incomplete gamma function of 1/2.
fn erfc(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let upper = upper_gamma_half(x * x);
    if x >= 0.0 { upper } else { 2.0 - upper }
}

/// Q(1/2, t): by its series for small t, by its continued fraction (Lentz) for others.
fn upper_gamma_half(t: f64) -> f64 {
    let a = 0.5;
    let scale = (-t + a * t.ln() - log_gamma(a)).exp();
    if t == 0.0 {
        return 1.0;
    }
    if t < a + 1.0 {
        let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
        while term.abs() > sum.abs() * f64::EPSILON {
            n += 1.0;
            term *= t / n;
            sum += term;
        }
        return 1.0 - sum * scale;
    }
    let mut b = t + 1.0 - a;
    let mut c = 1.0 / f64::MIN_POSITIVE;
    let mut d = 1.0 / b;
    let mut h = d;
    for i in 1..500 {
        let an = -f64::from(i) * (f64::from(i) - a);
        b += 2.0;
        d = 1.0 / not_zero(an * d + b);
        c = not_zero(b + an / c);
        h *= d * c;
        if (d * c - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    h * scale
}

fn not_zero(value: f64) -> f64 {
    if value.abs() < f64::MIN_POSITIVE { f64::MIN_POSITIVE } else { value }
}

fn log_beta(a: f64, b: f64) -> f64 {
    log_gamma(a) + log_gamma(b) - log_gamma(a + b)
}

fn in_domain(x: f64, a: f64, b: f64) -> bool {
    (0.0..=1.0).contains(&x) && a > 0.0 && b > 0.0
}

fn beta_pdf(x: f64, a: f64, b: f64) -> f64 {
    if !in_domain(x, a, b) {
        return f64::NAN;
    }
    x.powf(a - 1.0) * (1.0 - x).powf(b - 1.0) / log_beta(a, b).exp()
}

/// The regularized incomplete beta function.
fn beta_cdf(x: f64, a: f64, b: f64) -> f64 {
    if !in_domain(x, a, b) {
        return f64::NAN;
    }
    if x == 0.0 || x == 1.0 {
        return x;
    }
    let front = (a * x.ln() + b * (1.0 - x).ln() - log_beta(a, b)).exp();
    if x < (a + 1.0) / (a + b + 2.0) { front * beta_fraction(x, a, b) / a } else { 1.0 - front * beta_fraction(1.0 - x, b, a) / b }
}

/// Continued fraction of the incomplete beta function (Lentz).
fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    let mut c = 1.0;
    let mut d = 1.0 / not_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut h = d;
    for m in 1..1000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / not_zero(1.0 + even * d);
        c = not_zero(1.0 + even / c);
        h *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / not_zero(1.0 + odd * d);
        c = not_zero(1.0 + odd / c);
        h *= d * c;
        if (d * c - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    h
}

/// Inverse of [`beta_cdf`], by bisection.
fn beta_inv(probability: f64, a: f64, b: f64) -> f64 {
    if !in_domain(probability, a, b) {
        return f64::NAN;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if beta_cdf(middle, a, b) < probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// Two-sided p-value of Welch's t-test for (mean, variance, count) of two samples.
fn welch(x: &[f64]) -> f64 {
    let [mean_1, variance_1, count_1, mean_2, variance_2, count_2] = x else {
        return f64::NAN;
    };
    let (error_1, error_2) = (variance_1 / count_1, variance_2 / count_2);
    let error = error_1 + error_2;
    let t_squared = (mean_1 - mean_2).powi(2) / error;
    let freedom = error.powi(2) / (error_1.powi(2) / (count_1 - 1.0) + error_2.powi(2) / (count_2 - 1.0));
    beta_cdf(freedom / (freedom + t_squared), freedom / 2.0, 0.5)
}
