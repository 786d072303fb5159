//! From an ingestor to Kusto.

use std::collections::{BTreeMap, BTreeSet};

use wal::{BatchRecord, BatchState, Outcome, SegmentId, Settlement, Store, TableKey};

use super::nodes::key_of;
use super::{Event, START, World};

impl World<'_> {
    /// Makes batches of what is kept, and sends those that are not on their way.
    pub(super) fn upload(&mut self, node: usize, store: &Store) {
        let mut batches = store.batches();
        let taken: BTreeSet<_> = batches.iter().flat_map(|batch| batch.segments.clone()).collect();
        let mut free: BTreeMap<TableKey, Vec<SegmentId>> = BTreeMap::new();
        for info in store.sealed() {
            if self.nodes[node].kept.contains_key(&info.id) && !taken.contains(&info.id) {
                free.entry(info.table).or_default().push(info.id);
            }
        }
        for segments in free.into_values() {
            let id = (u128::from(self.below(u64::MAX)) << 64 | u128::from(self.next_event)).to_le_bytes();
            let batch = BatchRecord { id, state: BatchState::Batched, segments, detail: Vec::new() };
            let (done, durable) = std::sync::mpsc::sync_channel(1);
            store.record_batch(batch.clone(), Box::new(move |result| done.send(result.is_ok()).unwrap()));
            if durable.recv().unwrap() {
                self.nodes[node].sent.insert(id, 0);
                batches.push(batch);
            }
        }
        let run = self.nodes[node].run;
        for batch in batches {
            if !self.nodes[node].flying.insert(batch.id) {
                continue;
            }
            let images = batch.segments.iter().map(|id| store.read_segment(*id)).collect::<Result<Vec<_>, _>>();
            let Ok(images) = images else { continue };
            // One of an earlier run may have been sent by it.
            *self.nodes[node].sent.entry(batch.id).or_insert(1) += 1;
            let rows = images.iter().flat_map(|image| rows_of(image)).collect();
            if !self.unlucky(6) {
                let delay = 1 + self.below(3000);
                self.at(delay, Event::InKusto { node, run, batch, rows });
            }
        }
        // A lost answer: the same batch goes again.
        if self.below(40) == 0 {
            self.nodes[node].flying.clear();
        }
    }

    pub(super) fn in_kusto(&mut self, node: usize, run: u64, batch: BatchRecord, rows: Vec<String>) -> Option<usize> {
        if self.batches.insert(batch.id) || self.kusto_forgets() {
            let came = (self.now() - START, node);
            rows.into_iter().for_each(|row| self.kusto.entry(row).or_default().push(came));
        }
        if !self.unlucky(5) {
            let delay = 1 + self.below(500);
            self.at(delay, Event::Landed { node, run, batch });
        }
        None
    }

    pub(super) fn landed(&mut self, node: usize, batch: &BatchRecord) -> Option<usize> {
        let forgets = self.kusto_forgets();
        let here = &mut self.nodes[node];
        let store = here.store.as_ref()?;
        let repeated = forgets && here.sent.get(&batch.id).is_none_or(|times| *times > 1);
        let landed = |id: &SegmentId| {
            let maybe_duplicate = repeated || here.kept.get(id).copied().unwrap_or_default();
            Settlement { segment: *id, outcome: Outcome::Landed, reason: String::new(), maybe_duplicate }
        };
        let keys: Vec<_> = store.sealed().iter().filter(|info| batch.segments.contains(&info.id)).map(key_of).collect();
        if store.settle_wait(batch.segments.iter().map(landed).collect()).is_ok() {
            here.machine.iter_mut().for_each(|machine| machine.settled(&keys));
        }
        here.flying.remove(&batch.id);
        Some(node)
    }
}

fn rows_of(image: &[u8]) -> Vec<String> {
    let text = String::from_utf8(wal::segment::values(image, true)).unwrap();
    text.lines().map(|line| line.strip_prefix("t,").unwrap().to_owned()).collect()
}
