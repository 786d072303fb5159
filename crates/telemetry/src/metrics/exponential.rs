//! Exponential buckets, of OTLP and of Prometheus' native histograms, as cumulative `le` buckets.
//!
//! At scale *s* the positive bucket *i* holds values in (b^i, b^(i+1)], b = 2^(2^-s); the negative side mirrors it
//! and a zero bucket lies between. Lowering the scale by one merges buckets pairwise, which keeps the number of
//! rows of a point bounded and lets points of different scales be added.

/// Buckets of one side that become rows; finer histograms are merged until they fit. SDKs send at most 160.
const MAX_BUCKETS: usize = 160;

/// Scales that floating point can express.
pub(crate) const SCALES: std::ops::RangeInclusive<i32> = -10..=20;

/// Contiguous buckets of one side: `counts[k]` belongs to bucket index `offset + k`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Side {
    pub(crate) offset: i32,
    pub(crate) counts: Vec<f64>,
}

/// One exponential histogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Exponential {
    pub(crate) scale: i32,
    pub(crate) zero_threshold: f64,
    pub(crate) zero_count: f64,
    pub(crate) count: f64,
    pub(crate) sum: Option<f64>,
    pub(crate) positive: Side,
    pub(crate) negative: Side,
}

impl Side {
    /// Index and count of each bucket.
    fn indexed(&self) -> impl DoubleEndedIterator<Item = (i64, f64)> + '_ {
        let offset = i64::from(self.offset);
        self.counts.iter().enumerate().map(move |(at, &count)| (offset + at as i64, count))
    }

    /// Halves the resolution: bucket *i* goes into bucket *i* / 2, rounded down.
    fn halve(&mut self) {
        let merged = (i64::from(self.offset) + self.counts.len() as i64 - 1).div_euclid(2);
        let offset = self.offset.div_euclid(2);
        let len = if self.counts.is_empty() { 0 } else { (merged - i64::from(offset) + 1) as usize };
        let mut counts = vec![0.0; len];
        for (index, count) in self.indexed() {
            counts[(index.div_euclid(2) - i64::from(offset)) as usize] += count;
        }
        *self = Self { offset, counts };
    }

    /// Adds buckets of the same scale; false when both together would be too many.
    fn add(&mut self, other: &Self) -> bool {
        if other.counts.is_empty() {
            return true;
        }
        if self.counts.is_empty() {
            *self = other.clone();
            return true;
        }
        let end = |side: &Self| i64::from(side.offset) + side.counts.len() as i64;
        let (first, end) = (self.offset.min(other.offset), end(self).max(end(other)));
        if end - i64::from(first) > MAX_BUCKETS as i64 {
            return false;
        }
        let mut counts = vec![0.0; (end - i64::from(first)) as usize];
        for side in [&*self, other] {
            let start = (i64::from(side.offset) - i64::from(first)) as usize;
            for (sum, count) in counts[start..].iter_mut().zip(&side.counts) {
                *sum += count;
            }
        }
        *self = Self { offset: first, counts };
        true
    }

    /// Drops empty buckets at both ends.
    fn trim(&mut self) {
        let Some(first) = self.counts.iter().position(|&count| count != 0.0) else {
            return self.counts.clear();
        };
        let last = self.counts.iter().rposition(|&count| count != 0.0).unwrap_or(first);
        self.counts.truncate(last + 1);
        self.counts.drain(..first);
        self.offset = self.offset.saturating_add(first as i32);
    }
}

impl Exponential {
    /// Makes the number of buckets bounded.
    pub(crate) fn fit(&mut self) {
        self.positive.trim();
        self.negative.trim();
        while self.positive.counts.len().max(self.negative.counts.len()) > MAX_BUCKETS {
            self.halve();
        }
    }

    fn halve(&mut self) {
        self.scale -= 1;
        self.positive.halve();
        self.negative.halve();
    }

    /// Adds another histogram of the same series; both were fitted.
    pub(crate) fn add(&mut self, mut other: Self) {
        while self.scale > other.scale {
            self.halve();
        }
        while other.scale > self.scale {
            other.halve();
        }
        loop {
            let (mut positive, mut negative) = (self.positive.clone(), self.negative.clone());
            if positive.add(&other.positive) && negative.add(&other.negative) {
                (self.positive, self.negative) = (positive, negative);
                break;
            }
            self.halve();
            other.halve();
        }
        self.zero_threshold = self.zero_threshold.max(other.zero_threshold);
        self.zero_count += other.zero_count;
        self.count += other.count;
        self.sum = self.sum.zip(other.sum).map(|(a, b)| a + b);
    }

    /// Upper bound and cumulative count of each bucket in ascending order, ending with (`+Inf`, all).
    pub(crate) fn cumulative(&self) -> Vec<(f64, f64)> {
        let mut buckets = Vec::with_capacity(self.positive.counts.len() + self.negative.counts.len() + 2);
        let mut below = 0.0;
        for (index, count) in self.negative.indexed().rev() {
            below += count;
            buckets.push((-bound(self.scale, index), below));
        }
        if self.zero_count != 0.0 || !buckets.is_empty() {
            below += self.zero_count;
            buckets.push((self.zero_threshold, below));
        }
        for (index, count) in self.positive.indexed() {
            below += count;
            buckets.push((bound(self.scale, index + 1), below));
        }
        buckets.retain(|(bound, _)| bound.is_finite());
        buckets.dedup_by(|later, earlier| {
            let same = later.0 <= earlier.0;
            if same {
                earlier.1 = later.1;
            }
            same
        });
        buckets.push((f64::INFINITY, self.count.max(below)));
        buckets
    }
}

/// b^index for b = 2^(2^-scale).
fn bound(scale: i32, index: i64) -> f64 {
    (index as f64 * f64::from(-scale).exp2()).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn side(offset: i32, counts: &[f64]) -> Side {
        Side { offset, counts: counts.to_vec() }
    }

    /// Values of the OTLP data model's example table for scale 0: buckets (1, 2], (2, 4], (4, 8].
    #[test]
    fn bounds_are_powers_of_the_base() {
        let histogram = Exponential { zero_count: 1.0, count: 10.0, positive: side(0, &[2.0, 3.0, 4.0]), ..Exponential::default() };
        let expected = [(0.0, 1.0), (2.0, 3.0), (4.0, 6.0), (8.0, 10.0), (f64::INFINITY, 10.0)];
        assert_eq!(histogram.cumulative(), expected);
    }

    #[test]
    fn negative_values_come_first() {
        let histogram = Exponential { count: 3.0, negative: side(0, &[1.0, 2.0]), ..Exponential::default() };
        // negative bucket 1 is [-4, -2): its upper bound is -2
        assert_eq!(histogram.cumulative(), [(-2.0, 2.0), (-1.0, 3.0), (0.0, 3.0), (f64::INFINITY, 3.0)]);
    }

    fn any_side() -> impl Strategy<Value = Side> {
        (-200i32..200, prop::collection::vec(0u8..5, 0..400))
            .prop_map(|(offset, counts)| Side { offset, counts: counts.into_iter().map(f64::from).collect() })
    }

    /// Scales and offsets whose bounds floating point can tell apart.
    fn any_histogram() -> impl Strategy<Value = Exponential> {
        (0i32..8, any_side(), any_side(), 0u8..9).prop_map(|(scale, positive, negative, zero)| {
            let sum = |side: &Side| side.counts.iter().sum::<f64>();
            let count = sum(&positive) + sum(&negative) + f64::from(zero);
            Exponential { scale, zero_count: f64::from(zero), count, positive, negative, ..Exponential::default() }
        })
    }

    /// Observations at or below a bound, read from buckets.
    fn at_or_below(buckets: &[(f64, f64)], bound: f64) -> Option<f64> {
        buckets.iter().find(|bucket| bucket.0 == bound).map(|bucket| bucket.1)
    }

    proptest! {
        #[test]
        fn buckets_are_ascending_and_end_with_the_count(mut histogram in any_histogram()) {
            histogram.fit();
            let buckets = histogram.cumulative();
            prop_assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
            prop_assert_eq!(buckets.last().map(|last| last.1), Some(histogram.count));
            prop_assert!(buckets.len() <= 2 * MAX_BUCKETS + 2);
        }

        /// A bound that survives merging still counts the same observations.
        #[test]
        fn halving_keeps_cumulative_counts(histogram in any_histogram()) {
            let before = histogram.cumulative();
            let mut after = histogram;
            after.halve();
            for (bound, count) in after.cumulative() {
                if let Some(expected) = at_or_below(&before, bound) {
                    prop_assert_eq!(count, expected, "at {}", bound);
                }
            }
        }

        #[test]
        fn adding_adds_the_counts(mut a in any_histogram(), mut b in any_histogram()) {
            a.fit();
            b.fit();
            let expected = a.count + b.count;
            a.add(b);
            prop_assert_eq!(a.cumulative().last().map(|last| last.1), Some(expected));
            prop_assert!(a.positive.counts.len() <= MAX_BUCKETS && a.negative.counts.len() <= MAX_BUCKETS);
        }
    }
}
