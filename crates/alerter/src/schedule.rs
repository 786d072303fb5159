//! One queue of times for everything that is to happen, instead of a task and a timer for each rule.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use jiff::Timestamp;

/// Times by key, earliest first. A key has at most one time.
#[derive(Debug)]
pub struct Schedule<K> {
    queue: BTreeSet<(Timestamp, K)>,
    times: HashMap<K, Timestamp>,
}

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Schedule { queue: BTreeSet::new(), times: HashMap::new() }
    }
}

impl<K: Ord + Hash + Clone> Schedule<K> {
    /// Sets the time of a key, in place of the one that it had.
    pub fn set(&mut self, key: K, at: Timestamp) {
        self.remove(&key);
        self.times.insert(key.clone(), at);
        self.queue.insert((at, key));
    }

    /// Sets the time of a key unless it has an earlier one.
    pub fn set_earlier(&mut self, key: K, at: Timestamp) {
        if self.get(&key).is_none_or(|present| at < present) {
            self.set(key, at);
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &K) {
        if let Some(at) = self.times.remove(key) {
            self.queue.remove(&(at, key.clone()));
        }
    }

    /// The time of a key.
    pub fn get(&self, key: &K) -> Option<Timestamp> {
        self.times.get(key).copied()
    }

    /// The earliest time.
    pub fn next(&self) -> Option<Timestamp> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes out the earliest key whose time has come.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<(Timestamp, K)> {
        let due = self.queue.first().is_some_and(|(at, _)| *at <= now);
        let (at, key) = due.then(|| self.queue.pop_first())??;
        self.times.remove(&key);
        Some((at, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Set(u8, i64),
        Earlier(u8, i64),
        Remove(u8),
        Pop(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u8..8, 0i64..50).prop_map(|(key, at)| Step::Set(key, at)),
            (0u8..8, 0i64..50).prop_map(|(key, at)| Step::Earlier(key, at)),
            (0u8..8).prop_map(Step::Remove),
            (0i64..50).prop_map(Step::Pop),
        ]
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or_default()
    }

    proptest! {
        /// The model is a list that is searched.
        #[test]
        fn it_does_what_a_searched_list_does(steps in prop::collection::vec(step(), 0..60)) {
            let mut schedule = Schedule::default();
            let mut model: Vec<(i64, u8)> = Vec::new();
            for step in steps {
                match step {
                    Step::Set(key, time) => {
                        schedule.set(key, at(time));
                        model.retain(|(_, k)| *k != key);
                        model.push((time, key));
                    }
                    Step::Earlier(key, time) => {
                        schedule.set_earlier(key, at(time));
                        if model.iter().all(|(t, k)| *k != key || time < *t) {
                            model.retain(|(_, k)| *k != key);
                            model.push((time, key));
                        }
                    }
                    Step::Remove(key) => {
                        schedule.remove(&key);
                        model.retain(|(_, k)| *k != key);
                    }
                    Step::Pop(now) => {
                        let first = model.iter().copied().min().filter(|(time, _)| *time <= now);
                        prop_assert_eq!(schedule.pop_due(at(now)), first.map(|(time, key)| (at(time), key)));
                        model.retain(|entry| Some(*entry) != first);
                    }
                }
                prop_assert_eq!(schedule.next(), model.iter().map(|(time, _)| at(*time)).min());
                for key in 0..8 {
                    prop_assert_eq!(schedule.get(&key), model.iter().find(|(_, k)| *k == key).map(|(time, _)| at(*time)));
                }
            }
        }
    }
}
