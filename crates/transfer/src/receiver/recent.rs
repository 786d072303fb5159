//! What the reference's senders sent lately, by file name: they number nothing, but repeat a request
//! under the same name, sometimes grown at its end. Kept as marks of the store, in the frame of the
//! rows, for a quarter of an hour and at most 20,000 names.

use std::collections::{HashMap, HashSet, VecDeque};

const KEEP_MS: u64 = 15 * 60 * 1000;
const KEEP_NAMES: usize = 20_000;
/// Old names that one commit forgets.
const FORGET: usize = 16;
const PREFIX: &[u8] = b"transfer/name/";

/// A body that was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its length.
    pub(crate) length: u64,
    /// XXH3-64 of it.
    pub(crate) digest: u64,
    /// It ended with a whole block, so that more may follow.
    pub(crate) intact: bool,
    /// When it was stored, in milliseconds since 1970.
    pub(crate) stored_ms: u64,
}

impl Seen {
    fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(25);
        for number in [self.length, self.digest, self.stored_ms] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(u8::from(self.intact));
        out
    }

    fn decode(bytes: &[u8]) -> Option<Seen> {
        let (numbers, intact) = bytes.split_at_checked(24)?;
        let number = |at: usize| numbers[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        Some(Seen { length: number(0)?, digest: number(8)?, stored_ms: number(16)?, intact: intact == [1] })
    }
}

/// Names that were stored lately, and those being stored now.
#[derive(Default)]
pub(crate) struct Recent {
    names: HashMap<String, Seen>,
    by_age: VecDeque<(u64, String)>,
    in_work: HashSet<String>,
}

impl Recent {
    pub(crate) fn load(store: &wal::Store, now: u64) -> Recent {
        let mut recent = Recent::default();
        let mut marks: Vec<(String, Seen)> = store
            .marks_with_prefix(PREFIX)
            .into_iter()
            .filter_map(|(key, value)| {
                let name = String::from_utf8(key.get(PREFIX.len()..)?.to_vec()).ok()?;
                Some((name, Seen::decode(&value)?))
            })
            .collect();
        marks.sort_by_key(|(_, seen)| seen.stored_ms);
        for (name, seen) in marks {
            // A clock that went back must not keep names for ever.
            let seen = Seen { stored_ms: seen.stored_ms.min(now), ..seen };
            recent.insert(name, seen);
        }
        recent
    }

    pub(crate) fn get(&self, name: &str) -> Option<Seen> {
        self.names.get(name).copied()
    }

    pub(crate) fn insert(&mut self, name: String, seen: Seen) {
        self.by_age.push_back((seen.stored_ms, name.clone()));
        self.names.insert(name, seen);
    }

    /// The marks that store a name, and forget some old ones.
    pub(crate) fn marks(&mut self, name: &str, seen: Seen) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut marks = vec![(key(name), seen.encode())];
        while marks.len() <= FORGET {
            let oldest = self.by_age.front();
            let due = oldest.is_some_and(|(at, _)| at + KEEP_MS < seen.stored_ms || self.by_age.len() > KEEP_NAMES);
            let Some((at, old)) = due.then(|| self.by_age.pop_front()).flatten() else { break };
            // A name stored again since then is younger than this entry says.
            if old != name && self.names.get(&old).is_some_and(|seen| seen.stored_ms == at) {
                self.names.remove(&old);
                marks.push((key(&old), Vec::new()));
            }
        }
        marks
    }

    /// Takes a name for one request; false while another has it.
    pub(crate) fn claim(&mut self, name: &str) -> bool {
        self.in_work.insert(name.to_owned())
    }

    pub(crate) fn free(&mut self, name: &str) {
        self.in_work.remove(name);
    }
}

fn key(name: &str) -> Vec<u8> {
    [PREFIX, name.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(stored_ms: u64) -> Seen {
        Seen { length: 1, digest: 2, intact: true, stored_ms }
    }

    #[test]
    fn marks_read_back_and_old_names_leave() {
        assert_eq!(Seen::decode(&seen(9).encode()), Some(seen(9)));
        assert_eq!(Seen::decode(b"short"), None);
        let mut recent = Recent::default();
        recent.insert("old".into(), seen(0));
        recent.insert("again".into(), seen(1));
        recent.insert("again".into(), seen(KEEP_MS));
        let marks = recent.marks("new", seen(KEEP_MS + 2));
        let keys: Vec<_> = marks.iter().map(|(k, v)| (&k[PREFIX.len()..], v.is_empty())).collect();
        assert_eq!(keys, [(&b"new"[..], false), (b"old", true)]);
        assert!(recent.get("again").is_some() && recent.get("old").is_none());
    }
}
