//! Statistics of one series: summary, line fit, correlation.

use std::sync::Arc;

use indexmap::IndexMap;

use super::series::numbers;
use crate::value::{Dynamic, Value};

/// Pearson's correlation coefficient.
pub(super) fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let count = x.len() as f64;
    let (mean_x, mean_y) = (x.iter().sum::<f64>() / count, y.iter().sum::<f64>() / count);
    let products = |f: &dyn Fn(usize) -> f64| (0..x.len()).map(f).sum::<f64>();
    let covariance = products(&|i| (x[i] - mean_x) * (y[i] - mean_y));
    let spread_x = products(&|i| (x[i] - mean_x).powi(2));
    let spread_y = products(&|i| (y[i] - mean_y).powi(2));
    covariance / (spread_x.sqrt() * spread_y.sqrt())
}

/// A bag of named numbers.
fn bag(entries: Vec<(&str, Dynamic)>) -> Value {
    let bag: IndexMap<Arc<str>, Dynamic> = entries.into_iter().map(|(key, value)| (Arc::from(key), value)).collect();
    Value::Dynamic(Dynamic::Bag(Arc::new(bag)))
}

/// `series_stats_dynamic`: min, min_idx, max, max_idx, avg, stdev, variance, sum, len. Null and other elements that are
/// not finite numbers make null, or are passed over when asked.
pub(super) fn stats(series: &Value, ignore_nonfinite: bool) -> Value {
    let Some(items) = series.as_array() else {
        return Value::Null;
    };
    let values: Vec<(usize, f64)> =
        items.iter().enumerate().filter_map(|(index, item)| Some((index, item.as_real().filter(|v| v.is_finite())?))).collect();
    if values.is_empty() || (values.len() != items.len() && !ignore_nonfinite) {
        return Value::Null;
    }
    let count = values.len() as f64;
    let sum: f64 = values.iter().map(|(_, v)| v).sum();
    let mean = sum / count;
    let squares: f64 = values.iter().map(|(_, v)| (v - mean).powi(2)).sum();
    let variance = if values.len() < 2 { 0.0 } else { squares / (count - 1.0) };
    let smallest = values.iter().fold(values[0], |best, v| if v.1 < best.1 { *v } else { best });
    let largest = values.iter().fold(values[0], |best, v| if v.1 > best.1 { *v } else { best });
    bag(vec![
        ("min", Dynamic::Real(smallest.1)),
        ("min_idx", Dynamic::Long(smallest.0 as i64)),
        ("max", Dynamic::Real(largest.1)),
        ("max_idx", Dynamic::Long(largest.0 as i64)),
        ("avg", Dynamic::Real(mean)),
        ("stdev", Dynamic::Real(variance.sqrt())),
        ("variance", Dynamic::Real(variance)),
        ("sum", Dynamic::Real(sum)),
        ("len", Dynamic::Long(items.len() as i64)),
    ])
}

/// `series_fit_line_dynamic`: least squares over the indexes.
pub(super) fn fit_line(series: &Value) -> Value {
    let Some(y) = numbers(series).filter(|y| y.len() > 1) else {
        return Value::Null;
    };
    let count = y.len() as f64;
    let mean_x = (count - 1.0) / 2.0;
    let mean_y = y.iter().sum::<f64>() / count;
    let spread_x: f64 = (0..y.len()).map(|i| (i as f64 - mean_x).powi(2)).sum();
    let products: f64 = y.iter().enumerate().map(|(i, y)| (i as f64 - mean_x) * (y - mean_y)).sum();
    let spread_y: f64 = y.iter().map(|y| (y - mean_y).powi(2)).sum();
    let slope = products / spread_x;
    let interception = mean_y - slope * mean_x;
    let line: Vec<f64> = (0..y.len()).map(|i| interception + slope * i as f64).collect();
    let residue: f64 = y.iter().zip(&line).map(|(y, fit)| (y - fit).powi(2)).sum();
    bag(vec![
        ("rsquare", Dynamic::Real(if spread_y == 0.0 { 1.0 } else { 1.0 - residue / spread_y })),
        ("slope", Dynamic::Real(slope)),
        ("variance", Dynamic::Real(spread_y / (count - 1.0))),
        ("rvariance", Dynamic::Real(residue / (count - 1.0))),
        ("interception", Dynamic::Real(interception)),
        ("line_fit", Dynamic::array(line.into_iter().map(Dynamic::Real).collect())),
    ])
}
