//! Cursors in several objects, since one holds a mebibyte: enough for about ten thousand rules.
//!
//! A rule's cursor is in the shard that the hash of its name says, of 1, 2, 4, 8 or 16. Only shards whose text has changed
//! are written. The first shard says how many there are; its object alone is what earlier versions wrote, and they read it.
//! When there are more shards than before, those that are new are written first, then the first one, which makes them known:
//! whatever cuts the writing off, a cursor is in the shard where it was or in a known one where it will be.

use std::collections::BTreeMap;

use anyhow::Context as _;
use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Checkpoint, Cursors, from_texts, to_texts};

/// Most shards; rights are given to each by name (`deploy/rbac/alerter.yaml`).
pub const MAX_SHARDS: usize = 16;
/// From this size of a shard on there are to be more.
const SHARD_BYTES: usize = 256 << 10;
/// Key of the cursors' ends in an object.
const CURSORS: &str = "cursors";
/// Key of how far rules have come, where that is further. Earlier versions do not know it.
const REACHED: &str = "reached";
/// Key of the number of shards in the first object.
const SHARDS: &str = "shards";

/// Small objects by name.
#[async_trait]
pub trait Documents: Send + Sync {
    /// What an object has; nothing if there is none.
    async fn get(&self, name: &str) -> anyhow::Result<Option<BTreeMap<String, String>>>;

    /// Replaces what an object has, or makes it.
    async fn put(&self, name: &str, data: BTreeMap<String, String>) -> anyhow::Result<()>;
}

/// A checkpoint in shards.
#[derive(Debug)]
pub struct Shards<D> {
    documents: D,
    name: String,
    /// What the objects are known to have.
    present: Mutex<Vec<Option<BTreeMap<String, String>>>>,
}

impl<D: Documents> Shards<D> {
    /// Shards in objects that are called `name`, `name-1` and so on.
    pub fn new(documents: D, name: &str) -> Shards<D> {
        Shards { documents, name: name.to_owned(), present: Mutex::default() }
    }

    fn name_of(&self, shard: usize) -> String {
        if shard == 0 { self.name.clone() } else { format!("{}-{shard}", self.name) }
    }
}

#[async_trait]
impl<D: Documents> Checkpoint for Shards<D> {
    async fn load(&self) -> anyhow::Result<Cursors> {
        let first = self.documents.get(&self.name).await.with_context(|| format!("reading {}", self.name))?;
        let count = first.as_ref().and_then(|data| data.get(SHARDS)?.parse().ok()).unwrap_or(1).clamp(1, MAX_SHARDS);
        let mut present = vec![first];
        for shard in 1..count {
            let name = self.name_of(shard);
            present.push(self.documents.get(&name).await.with_context(|| format!("reading {name}"))?);
        }
        let mut cursors = Cursors::new();
        for data in present.iter().flatten() {
            let text = |key| data.get(key).map_or("", String::as_str);
            for (rule, cursor) in from_texts(text(CURSORS), text(REACHED)) {
                let latest = cursors.entry(rule).or_insert(cursor);
                (latest.end, latest.reached) = (latest.end.max(cursor.end), latest.reached.max(cursor.reached));
            }
        }
        *self.present.lock() = present;
        Ok(cursors)
    }

    async fn save(&self, cursors: &Cursors) -> anyhow::Result<()> {
        let line = |rule: &str| rule.len() + "2026-01-01T00:00:00.123456789Z \n".len();
        let bytes: usize = cursors.iter().map(|(rule, cursor)| line(rule) * if cursor.reached > cursor.end { 2 } else { 1 }).sum();
        let known = self.present.lock().len();
        // Rules of a shard that is no longer read would be lost: there are never fewer.
        let count = bytes.div_ceil(SHARD_BYTES).max(known).next_power_of_two().min(MAX_SHARDS);
        let mut parts = vec![Cursors::new(); count];
        for (rule, cursor) in cursors {
            parts[shard_of(rule, count)].insert(rule.clone(), *cursor);
        }
        let known = known.clamp(1, count);
        for shard in (known..count).chain(0..known) {
            let [ends, reached] = to_texts(&parts[shard]);
            let mut data = BTreeMap::from([(CURSORS.to_owned(), ends)]);
            if !reached.is_empty() {
                data.insert(REACHED.to_owned(), reached);
            }
            if shard == 0 && count > 1 {
                data.insert(SHARDS.to_owned(), count.to_string());
            }
            if self.present.lock().get(shard).is_some_and(|present| present.as_ref() == Some(&data)) {
                continue;
            }
            let name = self.name_of(shard);
            self.documents.put(&name, data.clone()).await.with_context(|| format!("writing {name}"))?;
            let mut present = self.present.lock();
            if present.len() <= shard {
                present.resize(shard + 1, None);
            }
            present[shard] = Some(data);
        }
        Ok(())
    }
}

/// The shard of a rule: the last bits of its FNV-1a hash, so that with twice as many shards a rule stays or goes to one that
/// is new.
fn shard_of(rule: &str, count: usize) -> usize {
    let hash = rule.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash % count.max(1) as u64) as usize
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::state::Cursor;

    /// The API server refuses larger objects.
    const MAX_OBJECT: usize = 1 << 20;

    #[derive(Default)]
    struct Kept {
        objects: BTreeMap<String, BTreeMap<String, String>>,
        puts: Vec<String>,
        /// Puts that still succeed, if that is bounded.
        left: Option<usize>,
    }

    #[async_trait]
    impl Documents for Arc<Mutex<Kept>> {
        async fn get(&self, name: &str) -> anyhow::Result<Option<BTreeMap<String, String>>> {
            Ok(self.lock().objects.get(name).cloned())
        }

        async fn put(&self, name: &str, data: BTreeMap<String, String>) -> anyhow::Result<()> {
            let mut kept = self.lock();
            if let Some(left) = &mut kept.left {
                *left = left.checked_sub(1).context("away")?;
            }
            let size: usize = data.iter().map(|(key, value)| key.len() + value.len()).sum();
            anyhow::ensure!(size <= MAX_OBJECT, "{name} has {size} bytes");
            kept.puts.push(name.to_owned());
            kept.objects.insert(name.to_owned(), data);
            Ok(())
        }
    }

    fn at(nanos: i64) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(nanos) + 1_767_225_600_123_456_789).unwrap()
    }

    fn cursors(count: usize) -> Cursors {
        (0..count).map(|at_| (format!("team-{}/a-rule-with-a-name-of-usual-length-{at_}", at_ % 40), Cursor::at(at(0)))).collect()
    }

    fn shards(kept: &Arc<Mutex<Kept>>) -> Shards<Arc<Mutex<Kept>>> {
        Shards::new(kept.clone(), "c")
    }

    #[tokio::test]
    async fn fifty_thousand_rules_fit_and_a_change_writes_one_object() {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let writer = shards(&kept);
        let mut all = cursors(50_000);
        assert_eq!(writer.load().await.unwrap(), Cursors::new());
        writer.save(&all).await.unwrap();
        assert_eq!(kept.lock().objects.len(), MAX_SHARDS);
        assert_eq!(shards(&kept).load().await.unwrap(), all);
        // A new leader writes what has changed, and nothing else.
        let next = shards(&kept);
        next.load().await.unwrap();
        kept.lock().puts.clear();
        next.save(&all).await.unwrap();
        assert_eq!(kept.lock().puts, [""; 0]);
        let rule = all.keys().nth(777).unwrap().clone();
        all.insert(rule, Cursor::at(at(1)));
        next.save(&all).await.unwrap();
        assert_eq!(kept.lock().puts.len(), 1);
        assert_eq!(shards(&kept).load().await.unwrap(), all);
    }

    #[tokio::test]
    async fn few_rules_are_in_one_object_as_earlier_versions_have_it() {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let old = BTreeMap::from([(CURSORS.to_owned(), format!("{} n/r\n", at(5)))]);
        kept.lock().objects.insert("c".to_owned(), old.clone());
        let writer = shards(&kept);
        assert_eq!(writer.load().await.unwrap(), Cursors::from([("n/r".to_owned(), Cursor::at(at(5)))]));
        writer.save(&Cursors::from([("n/r".to_owned(), Cursor::at(at(6)))])).await.unwrap();
        let new = BTreeMap::from([(CURSORS.to_owned(), format!("{} n/r\n", at(6)))]);
        assert_eq!(kept.lock().objects, BTreeMap::from([("c".to_owned(), new)]));
    }

    /// What a leader has run but not delivered, of all of very many rules: the objects stay small enough.
    #[tokio::test]
    async fn how_far_rules_have_come_is_kept_beside_their_ends() {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let mut all = cursors(50_000);
        all.values_mut().for_each(|cursor| cursor.reached = at(7));
        shards(&kept).save(&all).await.unwrap();
        assert_eq!(shards(&kept).load().await.unwrap(), all);
        // Once all is delivered nothing of it stays.
        let writer = shards(&kept);
        writer.load().await.unwrap();
        all.values_mut().for_each(|cursor| *cursor = Cursor::at(at(7)));
        writer.save(&all).await.unwrap();
        assert!(kept.lock().objects.values().all(|data| !data.contains_key(REACHED)));
        assert_eq!(shards(&kept).load().await.unwrap(), all);
    }

    /// Growth that is cut off after any of its writes: no cursor is lost, and the next save makes up for it.
    #[tokio::test]
    async fn growth_that_is_cut_off_loses_no_cursor() {
        for (few, before, many, after) in [(2000, 1, 12_000, 4), (12_000, 4, 20_000, 8)] {
            let few = cursors(few);
            let mut many = cursors(many);
            many.values_mut().for_each(|cursor| *cursor = Cursor::at(at(1)));
            for writes in 0..=after {
                let kept = Arc::new(Mutex::new(Kept::default()));
                shards(&kept).save(&few).await.unwrap();
                assert_eq!(kept.lock().objects.len(), before);
                kept.lock().left = Some(writes);
                let writer = shards(&kept);
                writer.load().await.unwrap();
                assert_eq!(writer.save(&many).await.is_ok(), writes == after);
                let loaded = shards(&kept).load().await.unwrap();
                let (known, had): (BTreeSet<_>, BTreeSet<_>) = (loaded.keys().collect(), few.keys().collect());
                assert!(had.is_subset(&known), "after {writes} writes {} cursors are lost", had.difference(&known).count());
                kept.lock().left = None;
                writer.save(&many).await.unwrap();
                assert_eq!(shards(&kept).load().await.unwrap(), many);
            }
        }
    }
}
