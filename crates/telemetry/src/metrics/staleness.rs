//! Which series a page had, so that the next one tells which have ended.

use crate::labels::Labels;
use crate::wire::Span;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The value that says that a series has ended here: a NaN of its own, as Prometheus writes it.
pub const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// Whether a value is a stale marker, which other NaNs are not.
#[inline]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE.to_bits()
}

/// Series that a set holds; beyond it, which have ended is not told.
const MAX_SERIES: usize = 2_000_000;

/// Series by a hash of name and labels that does not depend on the order of the labels: eight bytes each.
#[derive(Clone, Debug, Default)]
pub struct SeriesSet {
    hashes: Vec<u64>,
    overflowed: bool,
}

impl SeriesSet {
    pub(crate) fn insert(&mut self, labels: &Labels, body: &[u8], metric: Span) {
        if self.hashes.len() == MAX_SERIES {
            self.overflowed = true;
        } else {
            self.hashes.push(hash(labels, body, metric));
        }
    }

    /// Makes what was noted ready for comparing.
    pub fn finish(&mut self) {
        self.hashes.sort_unstable();
        self.hashes.dedup();
        self.hashes.shrink_to_fit();
    }

    pub(crate) fn contains(&self, labels: &Labels, body: &[u8], metric: Span) -> bool {
        self.hashes.binary_search(&hash(labels, body, metric)).is_ok()
    }

    /// Whether a series of this set is not in `later`; both are finished. Of too many series nothing is known.
    pub fn lost_any(&self, later: &SeriesSet) -> bool {
        if self.overflowed || later.overflowed {
            return false;
        }
        let mut later = later.hashes.iter();
        self.hashes.iter().any(|hash| later.find(|other| *other >= hash) != Some(hash))
    }

    /// Whether there were more series than a set holds.
    pub fn is_overflowed(&self) -> bool {
        self.overflowed
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there is no series.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

fn hash(labels: &Labels, body: &[u8], metric: Span) -> u64 {
    let name = xxh3_64(labels.text(body, metric));
    // A sum, since labels have no order. Names are distinct, so no two terms are equal.
    let pair = |(name, value): (&[u8], &[u8])| xxh3_64_with_seed(value, xxh3_64(name));
    labels.iter(body).map(pair).fold(name, u64::wrapping_add)
}
