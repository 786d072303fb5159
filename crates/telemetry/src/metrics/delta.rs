//! Running totals of delta series, so that what reaches the tables is cumulative like everything else there.
//!
//! A total starts at zero with the first point and is forgotten when the process ends, which readers see as a
//! counter reset. A point with the time of the last one is a repeated request and adds nothing; an older one is
//! refused, since adding it would bend the past. The number of series is bounded: when there are too many, those
//! without a point for an hour of data time make room.

use super::exponential::Exponential;
use parking_lot::Mutex;
use std::collections::HashMap;

/// Series with a running total; about 100 bytes each.
const MAX_SERIES: usize = 500_000;
/// Exponential histograms with running totals; up to 3 KiB each.
const MAX_HISTOGRAMS: usize = 20_000;
const FORGET_AFTER_NS: u64 = 3_600_000_000_000;

/// Why a delta point could not be added.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum DeltaError {
    #[error("delta point older than the last one of its series")]
    OutOfOrder,
    #[error("too many delta series; send cumulative temporality")]
    TooManySeries,
}

/// Totals of all delta series of one intake.
#[derive(Debug)]
pub(crate) struct Totals {
    numbers: Mutex<Table<f64>>,
    histograms: Mutex<Table<Exponential>>,
}

impl Default for Totals {
    fn default() -> Self {
        Self { numbers: Mutex::new(Table::new(MAX_SERIES)), histograms: Mutex::new(Table::new(MAX_HISTOGRAMS)) }
    }
}

impl Totals {
    /// Adds a number; answers with the total.
    pub(crate) fn add(&self, series: u128, time_ns: u64, value: f64) -> Result<f64, DeltaError> {
        self.numbers.lock().add(series, time_ns, value, |total, value| *total += value)
    }

    /// Adds a histogram; answers with the total.
    pub(crate) fn add_histogram(&self, series: u128, time_ns: u64, value: Exponential) -> Result<Exponential, DeltaError> {
        self.histograms.lock().add(series, time_ns, value, Exponential::add)
    }
}

#[derive(Debug)]
struct Table<T> {
    totals: HashMap<u128, (u64, T)>,
    newest_ns: u64,
    capacity: usize,
}

impl<T: Clone> Table<T> {
    fn new(capacity: usize) -> Self {
        Self { totals: HashMap::new(), newest_ns: 0, capacity }
    }

    fn add(&mut self, series: u128, time_ns: u64, value: T, add: impl FnOnce(&mut T, T)) -> Result<T, DeltaError> {
        self.newest_ns = self.newest_ns.max(time_ns);
        if let Some((last_ns, total)) = self.totals.get_mut(&series) {
            if time_ns < *last_ns {
                return Err(DeltaError::OutOfOrder);
            }
            if time_ns > *last_ns || time_ns == 0 {
                add(total, value);
                *last_ns = time_ns;
            }
            return Ok(total.clone());
        }
        if self.totals.len() >= self.capacity {
            let oldest = self.newest_ns.saturating_sub(FORGET_AFTER_NS);
            self.totals.retain(|_, (last_ns, _)| *last_ns >= oldest);
            if self.totals.len() >= self.capacity {
                return Err(DeltaError::TooManySeries);
            }
        }
        self.totals.insert(series, (time_ns, value.clone()));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_add_nothing_and_the_past_is_refused() {
        let totals = Totals::default();
        assert_eq!(totals.add(1, 10, 3.0), Ok(3.0));
        assert_eq!(totals.add(1, 20, 4.0), Ok(7.0));
        assert_eq!(totals.add(1, 20, 4.0), Ok(7.0));
        assert_eq!(totals.add(1, 15, 4.0), Err(DeltaError::OutOfOrder));
        assert_eq!(totals.add(2, 15, 1.0), Ok(1.0));
    }

    #[test]
    fn a_full_table_forgets_series_that_ended() {
        let mut table = Table::new(2);
        let add = |total: &mut f64, value: f64| *total += value;
        assert_eq!(table.add(1, 1, 1.0, add), Ok(1.0));
        assert_eq!(table.add(2, 2, 1.0, add), Ok(1.0));
        assert_eq!(table.add(3, 3, 1.0, add), Err(DeltaError::TooManySeries));
        let later = FORGET_AFTER_NS + 2;
        assert_eq!(table.add(4, later, 1.0, add), Ok(1.0), "series 1 made room");
        assert_eq!(table.add(2, later, 1.0, add), Ok(2.0), "series 2 was still remembered");
    }
}
