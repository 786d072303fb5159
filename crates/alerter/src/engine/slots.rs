//! Who may run a query now.
//!
//! There are so many slots for all queries. One of them is left to every endpoint whose rules have none, so that an endpoint
//! that hangs holds up no rule of another. And a query that takes long holds up no other rule of its endpoint: it is cut off
//! after the time that quick ones get, and runs again, with all the time that there is, among the slow ones, which share half
//! of the slots. The others are never held for longer than a quick query may take, and where there are two slots or more, one
//! at least is among them.

use std::collections::BTreeMap;

use super::evaluate::Settings;

/// The endpoints that databases are at, by number.
pub(super) struct Places {
    by_database: BTreeMap<String, usize>,
    count: usize,
}

impl Places {
    pub(super) fn new(settings: &Settings) -> Places {
        let mut endpoints: BTreeMap<String, usize> = BTreeMap::new();
        let place = |(database, client): (&String, &kusto::Client)| {
            let next = endpoints.len();
            (database.clone(), *endpoints.entry(client.endpoint().to_string()).or_insert(next))
        };
        let by_database = settings.databases.iter().map(place).collect();
        Places { by_database, count: endpoints.len() }
    }

    /// The endpoint of a database; none for one that nobody knows.
    pub(super) fn of(&self, database: &str) -> Option<usize> {
        self.by_database.get(database).copied()
    }
}

/// What a query holds while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// The endpoint; none for an unknown database.
    pub(super) place: Option<usize>,
    /// Whether it has all the time that there is.
    pub(super) slow: bool,
}

/// The slots that are held.
pub(super) struct Held {
    slots: usize,
    /// Queries that run.
    running: usize,
    /// Those of them that are slow.
    slow: usize,
    /// All and quick ones by endpoint.
    of_place: Vec<[usize; 2]>,
}

impl Held {
    pub(super) fn new(slots: usize, places: &Places, running: impl Iterator<Item = Slot>) -> Held {
        let mut held = Held { slots, running: 0, slow: 0, of_place: vec![[0; 2]; places.count] };
        for slot in running {
            held.running += 1;
            held.slow += usize::from(slot.slow);
            if let Some(place) = slot.place {
                held.of_place[place][0] += 1;
                held.of_place[place][1] += usize::from(!slot.slow);
            }
        }
        held
    }

    /// Whether there is a slot for this one.
    pub(super) fn has_room_for(&self, slot: Slot) -> bool {
        let free = self.slots.saturating_sub(self.running);
        let idle = self.of_place.iter().filter(|[all, _]| *all == 0).count();
        let first = slot.place.is_none_or(|place| self.of_place[place][usize::from(!slot.slow)] == 0);
        let of_slow = self.slow < self.slots.div_ceil(2) || first && free > 1;
        free > 0 && (first || free > idle) && (!slot.slow || of_slow)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn slot(place: usize, slow: bool) -> Slot {
        Slot { place: Some(place), slow }
    }

    fn held(slots: usize, places: usize, running: &[Slot]) -> Held {
        let places = Places { by_database: BTreeMap::new(), count: places };
        Held::new(slots, &places, running.iter().copied())
    }

    #[test]
    fn slow_queries_share_half_of_the_slots_and_quick_ones_may_have_all() {
        let slow = [slot(0, true); 5];
        assert!(held(10, 1, &slow[..4]).has_room_for(slot(0, true)));
        assert!(!held(10, 1, &slow).has_room_for(slot(0, true)));
        assert!(held(10, 1, &slow).has_room_for(slot(0, false)));
        assert!(held(10, 1, &[slot(0, false); 9]).has_room_for(slot(0, false)));
        assert!(!held(10, 1, &[slot(0, false); 10]).has_room_for(slot(0, false)));
        // Where there is one slot only, somebody has to wait.
        assert!(held(1, 1, &[]).has_room_for(slot(0, true)));
    }

    #[test]
    fn an_endpoint_without_queries_finds_a_slot_and_slow_ones_do_not_take_the_last() {
        let first = [slot(0, true), slot(0, true), slot(0, false)];
        assert!(!held(4, 2, &first).has_room_for(slot(0, false)), "the last is for the other endpoint");
        assert!(held(4, 2, &first).has_room_for(slot(1, false)));
        assert!(held(4, 2, &first[..2]).has_room_for(slot(1, true)));
        assert!(!held(4, 2, &first).has_room_for(slot(1, true)), "the last is for a quick one");
        // What hangs at an endpoint takes no more than a moment from others, but not their own endpoint from its quick rules.
        assert!(held(4, 3, &first[..2]).has_room_for(slot(0, false)));
        assert!(!held(4, 3, &[slot(0, true), slot(0, true), slot(1, true)]).has_room_for(slot(2, true)));
        assert!(held(4, 3, &[slot(0, true), slot(0, true), slot(1, true)]).has_room_for(slot(2, false)));
    }

    proptest! {
        /// Whoever comes in whatever order, and if no slow query ever ends: once the quick ones have ended, one of any endpoint
        /// finds a slot.
        #[test]
        fn quick_queries_always_find_a_slot(slots in 2usize..12, places in 1usize..4, asking in prop::collection::vec((0usize..4, any::<bool>()), 0..60)) {
            let mut running: Vec<Slot> = Vec::new();
            for (place, slow) in asking {
                let slot = slot(place % places, slow);
                if held(slots, places, &running).has_room_for(slot) {
                    running.push(slot);
                }
                prop_assert!(running.len() <= slots);
                let hanging: Vec<Slot> = running.iter().copied().filter(|slot| slot.slow).collect();
                prop_assert!((0..places).all(|place| held(slots, places, &hanging).has_room_for(self::slot(place, false))), "{hanging:?}");
            }
        }
    }
}
