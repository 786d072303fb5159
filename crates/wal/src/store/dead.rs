//! Dead letters at the start: the folder against what is known of it.

use std::collections::{BTreeMap, HashSet};

use super::engine::Engine;
use super::frames::SealedRecord;
use super::recover::entries;
use super::state::DeadRecord;
use super::tables::{disk_name, open_name};
use super::takeover::{id_of, key_of};
use crate::OpenError;
use crate::disk::{self, Open};
use crate::error::During;
use crate::segment::{self, FileName};
use crate::types::{SegmentId, TableKey};

/// Files of which nothing is known are dead letters of before that was kept, or of a journal that is lost. Dead letters
/// without a file were dropped by hand.
pub(super) fn take_stock(engine: &Engine) -> Result<(), OpenError> {
    let dir = engine.shared.dead_dir();
    let names: HashSet<String> = entries(&*engine.disk, &dir)?.into_iter().filter(|entry| !entry.is_dir).map(|entry| entry.name).collect();
    drop_missing(engine, &names);
    let mut unknown: Vec<&String> = names.iter().filter(|name| is_unknown(engine, name)).collect();
    unknown.sort();
    for name in unknown {
        let Some((id, record)) = id_of(name).zip(FileName::parse(name).ok()) else { continue };
        let path = dir.join(name);
        let image = disk::read_all(&*engine.disk, &path).during("reading", &path)?;
        let found = segment::verify(&image, record.schema.is_some());
        tracing::warn!(file = name, rows = found.rows, "a dead letter is there of which nothing is known");
        engine.shared.ids.lock().seen(id.0);
        let segment = SealedRecord {
            id,
            table: key_of(&record),
            first_lsn: 0,
            last_lsn: 0,
            number: 0,
            bytes: image.len() as u64,
            rows: found.rows,
            digest: found.digest,
            created_ms: segment::created_ms(&record.epoch).unwrap_or(engine.now_ms),
            layout: Vec::new(),
        };
        let reason = "not known: it is older than the journal".to_owned();
        engine.shared.state.lock().bury(DeadRecord { segment, reason, maybe_duplicate: false, died_ms: None });
    }
    count(engine);
    Ok(())
}

fn is_unknown(engine: &Engine, name: &str) -> bool {
    let state = engine.shared.state.lock();
    let known = |id: &SegmentId| state.dead.contains_key(id) || state.sealed.contains_key(id) || state.doomed.contains_key(id);
    id_of(name).is_some_and(|id| !known(&id))
}

fn drop_missing(engine: &Engine, names: &HashSet<String>) {
    let mut state = engine.shared.state.lock();
    let exists = |record: &SealedRecord| {
        let name = disk_name(&record.table, record.id);
        names.contains(&name)
            || [name, open_name(record.id)].iter().any(|name| engine.disk.open(&engine.dir.join(name), Open::Read).is_ok())
    };
    let missing: Vec<SegmentId> = state.dead.values().map(|letter| &letter.segment).filter(|s| !exists(s)).map(|s| s.id).collect();
    for id in &missing {
        tracing::warn!(segment = %id, "a dead letter was removed by hand; its rows count as dropped");
    }
    state.discard(&missing);
    missing.iter().for_each(|id| drop(state.doomed.remove(id)));
}

/// After a lost journal the totals do not know of dead letters that are there.
fn count(engine: &Engine) {
    let mut state = engine.shared.state.lock();
    let mut held: BTreeMap<TableKey, u64> = BTreeMap::new();
    for letter in state.dead.values() {
        *held.entry(letter.segment.table.clone()).or_default() += letter.segment.rows;
    }
    for (table, rows) in held {
        state.find_dead(&table, rows);
    }
}
