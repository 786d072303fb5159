//! Standard deviation, variance and covariance. Fewer than two values have a spread of 0.

use super::basic::conditional;
use super::{Accumulator, AggregateFunction};
use crate::functions::signature::{Arg, BOOL, REAL, Resolved, fixed};
use crate::types::Type;
use crate::value::Value;

pub(super) static AGGREGATES: &[AggregateFunction] = &[
    AggregateFunction::new("stdev", one, |_| spread(true, true)),
    AggregateFunction::new("stdevp", one, |_| spread(false, true)),
    AggregateFunction::new("variance", one, |_| spread(true, false)),
    AggregateFunction::new("variancep", one, |_| spread(false, false)),
    AggregateFunction::new("stdevif", one_if, |_| conditional(spread(true, true))),
    AggregateFunction::new("stdevpif", one_if, |_| conditional(spread(false, true))),
    AggregateFunction::new("varianceif", one_if, |_| conditional(spread(true, false))),
    AggregateFunction::new("variancepif", one_if, |_| conditional(spread(false, false))),
    AggregateFunction::new("covariance", |a| fixed(a, &[REAL, REAL], Type::Real), |_| covariance(true)),
    AggregateFunction::new("covariancep", |a| fixed(a, &[REAL, REAL], Type::Real), |_| covariance(false)),
    AggregateFunction::new("covarianceif", |a| fixed(a, &[REAL, REAL, BOOL], Type::Real), |_| conditional(covariance(true))),
    AggregateFunction::new("covariancepif", |a| fixed(a, &[REAL, REAL, BOOL], Type::Real), |_| conditional(covariance(false))),
];

fn one(args: &[Arg<'_>]) -> Result<Resolved, String> {
    fixed(args, &[REAL], Type::Real)
}

fn one_if(args: &[Arg<'_>]) -> Result<Resolved, String> {
    fixed(args, &[REAL, BOOL], Type::Real)
}

fn spread(sample: bool, root: bool) -> Box<dyn Accumulator> {
    Box::new(Spread { moments: Moments::default(), sample, root })
}

fn covariance(sample: bool) -> Box<dyn Accumulator> {
    Box::new(Covariance { moments: Moments::default(), sample })
}

/// Means and the sum of products of deviations, by Welford's method.
#[derive(Default)]
struct Moments {
    count: f64,
    mean_x: f64,
    mean_y: f64,
    products: f64,
}

impl Moments {
    fn add(&mut self, x: f64, y: f64) {
        self.count += 1.0;
        let from_mean = x - self.mean_x;
        self.mean_x += from_mean / self.count;
        self.mean_y += (y - self.mean_y) / self.count;
        self.products += from_mean * (y - self.mean_y);
    }

    fn covariance(&self, sample: bool) -> f64 {
        if self.count < 2.0 { 0.0 } else { self.products / (self.count - f64::from(u8::from(sample))) }
    }
}

struct Spread {
    moments: Moments,
    sample: bool,
    root: bool,
}

impl Accumulator for Spread {
    fn update(&mut self, args: &[Value]) {
        if let Value::Real(x) = args[0] {
            self.moments.add(x, x);
        }
    }

    fn finish(&mut self) -> Value {
        let variance = self.moments.covariance(self.sample);
        Value::Real(if self.root { variance.sqrt() } else { variance })
    }

    fn size(&self) -> usize {
        0
    }
}

struct Covariance {
    moments: Moments,
    sample: bool,
}

impl Accumulator for Covariance {
    fn update(&mut self, args: &[Value]) {
        if let (Value::Real(x), Value::Real(y)) = (&args[0], &args[1]) {
            self.moments.add(*x, *y);
        }
    }

    fn finish(&mut self) -> Value {
        Value::Real(self.moments.covariance(self.sample))
    }

    fn size(&self) -> usize {
        0
    }
}
