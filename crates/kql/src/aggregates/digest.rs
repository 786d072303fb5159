//! A digest of a distribution: weighted points, exact while there are few, neighbours joined beyond that.

use crate::types::Type;
use crate::value::{Dynamic, Value, to_datetime, to_real, to_timespan};

/// Points that are kept; twice as many are joined to these.
const POINTS: usize = 4096;

/// Points by value, each with its weight.
#[derive(Default)]
pub(crate) struct Digest {
    ty: Option<Type>,
    points: Vec<(f64, i64)>,
}

impl Digest {
    /// Takes in a value with a weight; one that is not positive, and NaN, do not count.
    pub(crate) fn add(&mut self, value: &Value, weight: i64) {
        let Value::Real(point) = to_real(value) else { return };
        if weight <= 0 || point.is_nan() {
            return;
        }
        self.ty = self.ty.or(value.ty());
        self.points.push((point, weight));
        if self.points.len() >= 2 * POINTS {
            self.compress();
        }
    }

    /// Takes in another digest.
    pub(crate) fn merge(&mut self, other: Digest) {
        self.ty = self.ty.or(other.ty);
        self.points.extend(other.points);
        if self.points.len() >= 2 * POINTS {
            self.compress();
        }
    }

    /// Joins neighbours into their mean as long as that is no heavier than a fair share: at most [`POINTS`] remain,
    /// because of two neighbours that remain each is together above the share.
    fn compress(&mut self) {
        self.points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total: i128 = self.points.iter().map(|(_, weight)| i128::from(*weight)).sum();
        let share = 2 * total / POINTS as i128;
        let mut joined: Vec<(f64, i64)> = Vec::with_capacity(POINTS);
        for (value, weight) in self.points.drain(..) {
            match joined.last_mut() {
                Some(last) if i128::from(last.1) + i128::from(weight) <= share => {
                    last.1 = last.1.saturating_add(weight);
                    last.0 += (value - last.0) * (weight as f64 / last.1 as f64);
                }
                _ => joined.push((value, weight)),
            }
        }
        self.points = joined;
    }

    /// The value at a percentage of the weight, by nearest rank; null without values.
    pub(crate) fn percentile(&self, percent: f64) -> Value {
        let mut points = self.points.clone();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total: i128 = points.iter().map(|(_, weight)| i128::from(*weight)).sum();
        if total == 0 || !(0.0..=100.0).contains(&percent) {
            return Value::Null;
        }
        let rank = ((percent / 100.0 * total as f64).ceil() as i128).max(1);
        let mut seen = 0_i128;
        let found = points.iter().find(|(_, weight)| {
            seen += i128::from(*weight);
            seen >= rank
        });
        let value = found.or(points.last()).map_or(Value::Null, |(value, _)| Value::Real(*value));
        match self.ty {
            Some(Type::DateTime) => to_datetime(&value),
            Some(Type::TimeSpan) => to_timespan(&value),
            _ => value,
        }
    }

    /// The state as a value: the type's name, then values and weights by turns.
    pub(crate) fn to_dynamic(&self) -> Dynamic {
        let ty = self.ty.map_or("real", Type::name);
        let points = self.points.iter().flat_map(|(value, weight)| [Dynamic::Real(*value), Dynamic::Long(*weight)]);
        Dynamic::array(std::iter::once(Dynamic::string(ty)).chain(points).collect())
    }

    /// The state out of a value that [`Digest::to_dynamic`] made.
    pub(crate) fn from_dynamic(value: &Dynamic) -> Option<Digest> {
        let Dynamic::Array(items) = value else { return None };
        let (Dynamic::String(ty), points) = items.split_first()? else { return None };
        if points.len() > 4 * POINTS {
            return None;
        }
        let point = |pair: &[Dynamic]| match pair {
            [value, Dynamic::Long(weight)] if *weight > 0 => Some((value.as_real()?, *weight)),
            _ => None,
        };
        Some(Digest { ty: Type::parse(ty), points: points.chunks(2).map(point).collect::<Option<_>>()? })
    }

    /// Bytes held, roughly.
    pub(crate) fn size(&self) -> usize {
        self.points.capacity() * 16
    }
}
