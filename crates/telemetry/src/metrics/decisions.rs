//! What is known about metric names: what the filters decided, and the table of each.
//!
//! It is kept from one request to the next, because the same names come again and again; only which table of the
//! [`RowSet`](crate::RowSet) belongs to a name is of one request.

use crate::MetricIntake;
use crate::names;
use crate::rules::NameDecision;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Names remembered at a time within a request.
const MAX_NAMES: usize = 100_000;

/// Names that are kept for the next request, and their bytes; what is beyond is forgotten.
const MAX_KEPT_NAMES: usize = 20_000;
const MAX_KEPT_BYTES: usize = 2 << 20;

/// Requests decode at the same time on as many threads as there are cores: more sets than these few are rarely lent.
const MAX_SPARE: usize = 4;

/// What is known about metric names. An index is good until the next lookup.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    by_name: HashMap<Box<[u8]>, usize, RandomState>,
    entries: Vec<NameEntry>,
    /// Different names may have the same table.
    by_table: HashMap<Arc<str>, usize, RandomState>,
    /// Of each table: the last request that wrote to it, and where it is in the rows of that request.
    places: Vec<(u64, usize)>,
    /// What was known of this request's tables was forgotten.
    forgotten: bool,
    /// Bytes of all names.
    bytes: usize,
    /// The name that was looked up last; the series of a metric mostly follow each other.
    last: (Vec<u8>, usize),
    /// Number of the request that is being read.
    request: u64,
}

/// Of one name.
#[derive(Debug)]
pub(super) struct NameEntry {
    pub(super) decision: NameDecision,
    /// Table name; empty when nothing of the metric's name is left after normalisation.
    pub(super) name: Arc<str>,
    /// What the exporters of the source decided, by tap.
    pub(super) taps: Vec<NameDecision>,
    /// Index among the tables.
    table: usize,
}

impl Decisions {
    /// Index of what is known about `name`.
    #[inline]
    pub(super) fn find_or_decide(&mut self, name: &[u8], intake: &MetricIntake) -> usize {
        if self.last.0 == name && !self.entries.is_empty() {
            return self.last.1;
        }
        let index = self.find_or_decide_another(name, intake);
        self.last.0.clear();
        self.last.0.extend_from_slice(name);
        self.last.1 = index;
        index
    }

    fn find_or_decide_another(&mut self, name: &[u8], intake: &MetricIntake) -> usize {
        if let Some(&index) = self.by_name.get(name) {
            return index;
        }
        if self.entries.len() == MAX_NAMES {
            self.forget();
        }
        let decision = intake.rules.decide(name);
        let taps = intake.taps.iter().map(|tap| tap.rules.decide(name)).collect();
        let (name_of_table, table) = self.table_named(names::normalize_metric(name).into());
        self.entries.push(NameEntry { decision, name: name_of_table, taps, table });
        self.by_name.insert(name.into(), self.entries.len() - 1);
        self.bytes += name.len();
        self.entries.len() - 1
    }

    fn table_named(&mut self, name: Arc<str>) -> (Arc<str>, usize) {
        if let Some((known, &table)) = self.by_table.get_key_value(&name) {
            return (known.clone(), table);
        }
        self.places.push((0, 0));
        self.by_table.insert(name.clone(), self.places.len() - 1);
        (name, self.places.len() - 1)
    }

    /// What is known at an index.
    #[inline]
    pub(super) fn at(&self, index: usize) -> &NameEntry {
        &self.entries[index]
    }

    /// The table of the rows of this request, once [`Decisions::set_table`] was told.
    #[inline]
    pub(super) fn table(&self, index: usize) -> Option<usize> {
        let (request, place) = self.places[self.entries[index].table];
        (request == self.request).then_some(place)
    }

    /// Remembers the table for this request.
    pub(super) fn set_table(&mut self, index: usize, table: usize) {
        let entry = self.entries[index].table;
        self.places[entry] = (self.request, table);
    }

    /// Whether [`Decisions::table`] knows every table of this request.
    pub(super) fn knows_all_tables(&self) -> bool {
        !self.forgotten
    }

    fn forget(&mut self) {
        self.by_name.clear();
        self.entries.clear();
        self.by_table.clear();
        self.places.clear();
        self.bytes = 0;
        self.forgotten = true;
    }
}

/// Sets of decisions that no request uses at the moment.
#[derive(Debug, Default)]
pub(super) struct Spare(Mutex<Vec<Decisions>>);

impl Spare {
    /// Lends a set to a request.
    pub(super) fn lend(&self) -> Lent<'_> {
        let mut decisions = self.0.lock().pop().unwrap_or_default();
        decisions.request += 1;
        decisions.forgotten = false;
        Lent { decisions, owner: self }
    }
}

/// A set of decisions while a request uses it.
pub(super) struct Lent<'s> {
    decisions: Decisions,
    owner: &'s Spare,
}

impl Deref for Lent<'_> {
    type Target = Decisions;

    fn deref(&self) -> &Decisions {
        &self.decisions
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Decisions {
        &mut self.decisions
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let decisions = std::mem::take(&mut self.decisions);
        if decisions.entries.len() > MAX_KEPT_NAMES || decisions.bytes > MAX_KEPT_BYTES || decisions.last.0.len() > MAX_KEPT_BYTES {
            return;
        }
        let mut spare = self.owner.0.lock();
        if spare.len() < MAX_SPARE {
            spare.push(decisions);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::MetricRules;

    #[test]
    fn names_are_kept_for_the_next_request_but_their_tables_are_not() {
        let intake = MetricIntake::new("M", MetricRules::default(), Vec::new());
        let spare = Spare::default();
        let mut first = spare.lend();
        let index = first.find_or_decide(b"a_b", &intake);
        assert_eq!((first.table(index), &*first.at(index).name), (None, "AB"));
        first.set_table(index, 7);
        assert_eq!(first.table(index), Some(7));
        drop(first);
        let mut second = spare.lend();
        assert_eq!((second.entries.len(), second.find_or_decide(b"a_b", &intake)), (1, index));
        assert_eq!(second.table(index), None);
    }

    #[test]
    fn a_flood_of_names_is_not_kept() {
        let intake = MetricIntake::new("M", MetricRules::default(), Vec::new());
        let spare = Spare::default();
        let mut flooded = spare.lend();
        for number in 0..=MAX_KEPT_NAMES {
            flooded.find_or_decide(format!("m{number}").as_bytes(), &intake);
        }
        drop(flooded);
        let mut long = spare.lend();
        long.find_or_decide(&vec![b'x'; MAX_KEPT_BYTES + 1], &intake);
        drop(long);
        assert_eq!(spare.0.lock().len(), 0);
        // However many are lent at a time, few are kept.
        drop((0..10).map(|_| spare.lend()).collect::<Vec<_>>());
        assert_eq!(spare.0.lock().len(), MAX_SPARE);
    }
}
