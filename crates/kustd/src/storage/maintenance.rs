//! What happens to rows after they are acknowledged: merging in memory, sealing, carrying, merging extents, retention.
//!
//! Each step reads a consistent copy of a table's rows, works without the lock, makes the result durable, and only then
//! swaps it in. Steps exclude each other; ingestion and queries go on.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use kql::value::TICKS_PER_SECOND;

use super::extent::{self, Extent};
use super::hot::{self, BatchState, HotBatch, TableData};
use super::{NewRows, Publication, Published, Storage, StorageError, batch_key, columns, frame};
use crate::catalog::{BatchKey, Image, Round, Table, TableId};
use crate::text;

/// How long batch ids are remembered.
const BATCH_MEMORY: i64 = 24 * 3600 * TICKS_PER_SECOND;
/// Tables sealed in one catalogue transaction.
const ROUND_TABLES: usize = 64;
/// Hot rows of a table below which it is carried forward rather than sealed when the journal is over budget.
const SMALL_BYTES: u64 = 4 << 20;
/// Size of a carried frame.
const PACK_BYTES: u64 = 8 << 20;
/// Extents of a size class that are merged into one.
const MERGE_FAN_IN: usize = 8;
/// Extents of this many rows are left as they are.
const LARGE_EXTENT_ROWS: u64 = 1_000_000;
/// Memory that one merge may take.
const MERGE_BYTES: u64 = 512 << 20;

/// What a tick did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TickReport {
    /// Tables whose rows went into extents.
    pub(crate) sealed: usize,
    /// Tables whose rows were carried forward.
    pub(crate) carried: usize,
    /// Extents that were merged into others.
    pub(crate) merged: usize,
    /// Extents that retention dropped.
    pub(crate) expired: usize,
}

/// New extents in the place of hot rows and of other extents.
#[derive(Default)]
struct Swap {
    added: Vec<Arc<Extent>>,
    removed: Vec<Arc<Extent>>,
    hot: Vec<(TableId, Vec<Arc<HotBatch>>)>,
}

impl Storage {
    /// One round of maintenance at time `now` (ticks).
    ///
    /// # Errors
    /// When files or the catalogue cannot be written; rows stay where they were, and the next tick tries again.
    pub(crate) fn tick(&self, now: i64) -> Result<TickReport, StorageError> {
        let _one = self.maintenance.lock();
        let mut report = TickReport::default();
        self.forget_dropped();
        self.merge_hot()?;
        let due = self.due_for_sealing(now);
        report.sealed += self.seal(&due, now)?;
        if self.journal.bytes() > self.options.journal_budget_bytes {
            let (large, small) = self.split_by_size();
            report.sealed += self.seal(&large, now)?;
            report.carried = self.carry(&small)?;
            self.keep_batches(now)?;
        }
        if report.sealed + report.carried > 0 {
            self.trim();
        }
        report.merged = self.merge_extents(now)?;
        report.expired = self.expire(now)?;
        Ok(report)
    }

    /// Puts rows straight into extents, and ends the operation whose work they are: one transaction.
    pub(crate) fn append_extents(&self, publication: Publication, now: i64) -> Result<Published, StorageError> {
        let _one = self.maintenance.lock();
        let mut round = Round { operation: publication.operation, ..Round::default() };
        let mut swap = Swap::default();
        if let Some(first) = publication.rows.first()
            && !publication.batch_id.is_empty()
        {
            let key = batch_key(first.table.id, &publication.batch_id);
            match self.state.lock().batches.get(&key) {
                Some(BatchState::Done { .. }) => return Ok(Published::Repeated),
                Some(BatchState::InFlight(_)) => {
                    return Err(StorageError::Overloaded("a request with this batch id is under way".to_owned()));
                }
                None => round.batches.push((key, now)),
            }
        }
        let known = publication.rows.first().is_some_and(|rows| self.has_any_tag(rows.table.id, &publication.unless_tagged));
        if known {
            // nothing of the batch is stored, so there is nothing to remember
            round.batches.clear();
        }
        let mut extents = Vec::new();
        for NewRows { table, batches, tags, replace } in if known { Vec::new() } else { publication.rows } {
            let batches = batches.iter().map(|batch| columns::with_ingestion_time(batch, now)).collect::<Result<Vec<_>, _>>()?;
            let mut added = None;
            if batches.iter().any(|batch| batch.num_rows() > 0) {
                let extent = Arc::new(extent::write(&self.extents, &table, &batches, now, tags)?);
                swap.added.push(extent.clone());
                added = Some(extent);
            }
            extents.push(added);
            if replace {
                let data = self.table_data(table.id);
                round.sealed.push((table.id, data.hot_lsn()));
                swap.hot.push((table.id, data.hot.clone()));
                swap.removed.extend(data.extents.iter().cloned());
            }
        }
        self.publish(round, swap)?;
        Ok(if known { Published::Known } else { Published::Stored(extents) })
    }

    fn has_any_tag(&self, table: TableId, tags: &[String]) -> bool {
        !tags.is_empty() && self.table_data(table).extents.iter().any(|extent| extent.record.tags.iter().any(|tag| tags.contains(tag)))
    }

    /// Removes extents of a table by id, for `.drop extents` and retention.
    fn remove_extents(&self, extents: Vec<Arc<Extent>>) -> Result<usize, StorageError> {
        let count = extents.len();
        if count > 0 {
            self.publish(Round::default(), Swap { removed: extents, ..Swap::default() })?;
        }
        Ok(count)
    }

    /// Forgets the rows of tables that the catalogue has dropped.
    pub(crate) fn forget_tables(&self, tables: &[TableId]) {
        let mut state = self.state.lock();
        for table in tables {
            state.drop_table(*table);
        }
    }

    /// Forgets rows that were on their way while their table was dropped: nobody sees them, and the journal would be
    /// kept for them.
    fn forget_dropped(&self) {
        // first the rows, then the catalogue: a table that has rows was created before them
        let with_rows: Vec<TableId> = self.state.lock().tables.keys().copied().collect();
        let known = tables_by_id(&self.catalog.image());
        let dropped: Vec<TableId> = with_rows.into_iter().filter(|id| !known.contains_key(id)).collect();
        self.forget_tables(&dropped);
    }

    /// One catalogue transaction, then one swap under the lock.
    fn publish(&self, mut round: Round, swap: Swap) -> Result<(), StorageError> {
        round.added.extend(swap.added.iter().map(|extent| extent.record.clone()));
        round.removed.extend(swap.removed.iter().map(|extent| extent.record.id.clone()));
        self.catalog.change(|edit| edit.put_round(&round))?;
        let mut state = self.state.lock();
        for (table, batches) in &swap.hot {
            state.replace_hot(*table, batches, None);
        }
        for extent in swap.added {
            Arc::make_mut(state.tables.entry(extent.record.table).or_default()).extents.push(extent);
        }
        for extent in &swap.removed {
            if let Some(data) = state.tables.get_mut(&extent.record.table) {
                Arc::make_mut(data).extents.retain(|other| !Arc::ptr_eq(other, extent));
            }
            extent.doom();
        }
        for (key, seen) in round.batches {
            match state.batches.get_mut(&key) {
                Some(BatchState::Done { kept, .. }) => *kept = true,
                Some(BatchState::InFlight(_)) => {}
                // stored with this round, in no frame
                None => drop(state.batches.insert(key, BatchState::Done { seen, lsn: 0, kept: true })),
            }
        }
        if let Some(before) = round.forget_batches_before {
            state.batches.retain(|_, batch| !matches!(batch, BatchState::Done { seen, kept: true, .. } if *seen < before));
        }
        Ok(())
    }

    fn hot_tables(&self) -> Vec<(TableId, Arc<TableData>)> {
        let state = self.state.lock();
        state.tables.iter().filter(|(_, data)| !data.hot.is_empty()).map(|(id, data)| (*id, data.clone())).collect()
    }

    fn merge_hot(&self) -> Result<(), StorageError> {
        let tables = tables_by_id(&self.catalog.image());
        for (id, data) in self.hot_tables() {
            let (Some(table), Some(batches)) = (tables.get(&id), hot::crowded_class(&data.hot)) else { continue };
            let merged = hot::merged(table, &batches)?;
            self.state.lock().replace_hot(id, &batches, Some(merged));
        }
        Ok(())
    }

    /// Tables whose hot rows are many, large or old; the largest ones when memory is short.
    fn due_for_sealing(&self, now: i64) -> Vec<TableId> {
        let oldest = now - ticks(self.options.seal_age);
        let mut hot = self.hot_tables();
        let mut excess = hot.iter().map(|(_, data)| data.hot_bytes()).sum::<u64>();
        hot.sort_by_key(|(_, data)| std::cmp::Reverse(data.hot_bytes()));
        let short = excess > self.options.memory_bytes;
        let mut due = Vec::new();
        for (id, data) in hot {
            let full = data.hot_rows() >= self.options.seal_rows || data.hot_bytes() >= self.options.seal_bytes;
            let old = data.hot.iter().any(|batch| batch.ingested <= oldest);
            let squeezed = short && excess > self.options.memory_bytes / 2;
            if full || old || squeezed {
                excess -= data.hot_bytes();
                due.push(id);
            }
        }
        due
    }

    /// Tables with hot rows: those worth an extent, and the small ones. What is carried must be little beside the
    /// journal's budget, or it would be carried again and again.
    fn split_by_size(&self) -> (Vec<TableId>, Vec<TableId>) {
        let mut tables = self.hot_tables();
        tables.sort_by_key(|(_, data)| data.hot_bytes());
        let (mut large, mut small) = (Vec::new(), Vec::new());
        let mut carried = 0;
        for (id, data) in tables {
            let bytes = data.hot_bytes();
            carried += bytes;
            let fits = bytes < SMALL_BYTES && carried <= self.options.journal_budget_bytes / 4;
            if fits { small.push(id) } else { large.push(id) }
        }
        (large, small)
    }

    /// Turns the hot rows of tables into extents.
    fn seal(&self, tables: &[TableId], now: i64) -> Result<usize, StorageError> {
        let known = tables_by_id(&self.catalog.image());
        let mut sealed = 0;
        for chunk in tables.chunks(ROUND_TABLES) {
            let mut round = self.batches_to_keep(now);
            let mut swap = Swap::default();
            for id in chunk {
                let Some(table) = known.get(id) else { continue };
                let data = self.table_data(*id);
                let batches: Vec<RecordBatch> = data.hot.iter().map(|batch| batch.rows.clone()).collect();
                swap.added.push(Arc::new(extent::write(&self.extents, table, &batches, now, Vec::new())?));
                swap.hot.push((*id, data.hot.clone()));
                round.sealed.push((*id, data.hot_lsn()));
            }
            sealed += swap.added.len();
            self.publish(round, swap)?;
        }
        Ok(sealed)
    }

    /// Writes the hot rows of small tables to the journal's end, so that its older files can go.
    fn carry(&self, tables: &[TableId]) -> Result<usize, StorageError> {
        let known = tables_by_id(&self.catalog.image());
        let mut pack: Vec<(frame::Carried, Vec<Arc<HotBatch>>)> = Vec::new();
        let mut packed = 0;
        for id in tables {
            let Some(table) = known.get(id) else { continue };
            let data = self.table_data(*id);
            let merged = hot::merged(table, &data.hot)?;
            packed += merged.bytes as u64;
            pack.push((frame::Carried { table: *id, covers: merged.lsn, batch: merged.rows }, data.hot.clone()));
            if packed >= PACK_BYTES {
                self.carry_pack(std::mem::take(&mut pack))?;
                packed = 0;
            }
        }
        self.carry_pack(pack)?;
        Ok(tables.len())
    }

    fn carry_pack(&self, pack: Vec<(frame::Carried, Vec<Arc<HotBatch>>)>) -> Result<(), StorageError> {
        if pack.is_empty() {
            return Ok(());
        }
        let (sections, old): (Vec<_>, Vec<_>) = pack.into_iter().unzip();
        let lsn = self.journal.append_wait(frame::CARRIED, frame::encode_carried(&sections)?)?;
        let mut state = self.state.lock();
        for (section, old) in sections.into_iter().zip(old) {
            let carried = HotBatch::new(section.batch, section.covers, lsn);
            state.replace_hot(section.table, &old, Some(carried));
        }
        state.last_lsn = state.last_lsn.max(lsn);
        Ok(())
    }

    /// Batch ids that only the journal knows, and the time before which they are forgotten.
    fn batches_to_keep(&self, now: i64) -> Round {
        let oldest = now - BATCH_MEMORY;
        let state = self.state.lock();
        let fresh = |(key, batch): (&BatchKey, &BatchState)| match batch {
            BatchState::Done { seen, kept: false, .. } => Some((key.clone(), *seen)),
            _ => None,
        };
        let batches = state.batches.iter().filter_map(fresh).collect();
        Round { batches, forget_batches_before: Some(oldest), ..Round::default() }
    }

    fn keep_batches(&self, now: i64) -> Result<(), StorageError> {
        let round = self.batches_to_keep(now);
        self.publish(round, Swap::default())
    }

    /// Lets go of journal files that hold nothing needed.
    fn trim(&self) {
        let below = self.state.lock().oldest_needed();
        self.journal.trim(below);
    }

    /// Merges extents of similar size, one group per table and tick.
    fn merge_extents(&self, now: i64) -> Result<usize, StorageError> {
        let tables = tables_by_id(&self.catalog.image());
        let all: Vec<_> = self.state.lock().tables.iter().map(|(id, data)| (*id, data.clone())).collect();
        let mut merged = 0;
        for (id, data) in all {
            let (Some(table), Some(group)) = (tables.get(&id), merge_group(&data.extents)) else { continue };
            let mut batches = Vec::new();
            for extent in &group {
                batches.extend(extent.read_all()?);
            }
            let mut tags: Vec<String> = group.iter().flat_map(|extent| extent.record.tags.clone()).collect();
            tags.sort();
            tags.dedup();
            let created = group.iter().map(|extent| extent.record.created).max().unwrap_or(now);
            let extent = Arc::new(extent::write(&self.extents, table, &batches, created, tags)?);
            merged += group.len();
            self.publish(Round::default(), Swap { added: vec![extent], removed: group, ..Swap::default() })?;
        }
        Ok(merged)
    }

    /// Drops extents whose last row is older than the retention of their table, then the oldest above the size limit.
    fn expire(&self, now: i64) -> Result<usize, StorageError> {
        let image = self.catalog.image();
        let mut kept: Vec<Arc<Extent>> = Vec::new();
        let mut expired = Vec::new();
        let tables = tables_by_id(&image);
        for (id, data) in &self.state.lock().tables {
            let period = tables.get(id).and_then(|table| self.retention(&image, table));
            let oldest = period.map(|period| now.saturating_sub(period));
            for extent in &data.extents {
                let old = oldest.is_some_and(|oldest| extent.record.ingested.1 < oldest);
                if old { expired.push(extent.clone()) } else { kept.push(extent.clone()) }
            }
        }
        if let Some(limit) = self.options.max_bytes {
            kept.sort_by_key(|extent| extent.record.ingested.1);
            let mut total: u64 = kept.iter().map(|extent| extent.record.bytes).sum();
            for extent in kept {
                if total <= limit {
                    break;
                }
                total -= extent.record.bytes;
                expired.push(extent);
            }
        }
        self.remove_extents(expired)
    }

    /// The soft-delete period of a table: its policy, its database's, the one configured for that, the configured one. Ticks.
    fn retention(&self, image: &Image, table: &Table) -> Option<i64> {
        let database = image.databases.get(&table.database);
        table
            .policies
            .get("retention")
            .or_else(|| database.and_then(|database| database.policies.get("retention")))
            .and_then(|policy| soft_delete_period(policy))
            .or_else(|| self.options.retentions.get(&*table.database).copied().or(self.options.retention).map(ticks))
    }
}

/// `SoftDeletePeriod` of a retention policy, ticks.
pub(crate) fn soft_delete_period(policy: &str) -> Option<i64> {
    let policy: serde_json::Value = serde_json::from_str(policy).ok()?;
    text::parse_timespan(policy.get("SoftDeletePeriod")?.as_str()?)
}

fn ticks(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_nanos() / 100).unwrap_or(i64::MAX)
}

fn tables_by_id(image: &Image) -> HashMap<TableId, Arc<Table>> {
    image.databases.values().flat_map(|database| database.tables.values()).map(|table| (table.id, table.clone())).collect()
}

/// Extents of one size class, when there are enough of them and they fit into memory.
fn merge_group(extents: &[Arc<Extent>]) -> Option<Vec<Arc<Extent>>> {
    if extents.len() < MERGE_FAN_IN {
        return None;
    }
    let mut classes: HashMap<u32, Vec<Arc<Extent>>> = HashMap::new();
    for extent in extents.iter().filter(|extent| extent.record.rows < LARGE_EXTENT_ROWS) {
        classes.entry(extent.record.rows.max(1).ilog2() / 3).or_default().push(extent.clone());
    }
    let mut group = classes.into_values().find(|members| members.len() >= MERGE_FAN_IN)?;
    group.truncate(MERGE_FAN_IN);
    let bytes: u64 = group.iter().map(|extent| extent.record.original_bytes).sum();
    (bytes <= MERGE_BYTES).then_some(group)
}

#[cfg(test)]
mod tests {
    use kql::Type;

    use super::*;
    use crate::ingest::{Format, Reading, read};
    use crate::storage::StorageOptions;

    #[tokio::test]
    async fn rows_that_land_after_their_table_was_dropped_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let options = StorageOptions { journal_file_bytes: 1 << 20, ..StorageOptions::new(folder.path()) };
        let storage = Storage::open(options).unwrap();
        let mut table = Table::new(&"Db".into(), "T", 0);
        table.add_column("n", Type::Long);
        let table = storage.catalog().change(|edit| edit.create_database("Db", 0).and_then(|_| edit.put_table(table))).unwrap();
        let reading = Reading { format: Format::Delimited(b','), mapping: None, skip_first: false };
        let rows = read(&table, &reading, b"1\n2\n").unwrap();
        storage.catalog().change(|edit| edit.drop_table(&table)).unwrap();
        storage.forget_tables(&[table.id]);
        let rows = NewRows { table: table.clone(), batches: vec![rows], tags: Vec::new(), replace: false };
        storage.ingest(vec![rows], &[], 0).await.unwrap();
        assert!(storage.pressure().0 > 0);
        storage.tick(0).unwrap();
        assert_eq!(storage.pressure().0, 0, "rows that nobody can see hold no memory");
        let state = storage.state.lock();
        assert_eq!(state.oldest_needed(), state.last_lsn + 1, "nor the journal");
    }
}
