//! Opening: the catalogue, the extents it knows, and the frames that are not in extents yet.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use wal::journal::{Frame, Journal, JournalOptions};

use super::extent::{self, Extent};
use super::hot::{BatchState, HotBatch, State, TableData};
use super::{Storage, StorageError, StorageOptions, batch_key, columns, frame};
use crate::catalog::{Catalog, TableId};

impl Storage {
    /// Opens or creates the folder of `options`; rows that were acknowledged are there again.
    ///
    /// # Errors
    /// When the folder cannot be used, the catalogue is damaged, or the journal holds frames that cannot be read.
    pub(crate) fn open(options: StorageOptions) -> Result<Storage, StorageError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| StorageError::Io { action, path, source }
        };
        let extents = options.dir.join("extents");
        std::fs::create_dir_all(&extents).map_err(io("creating the folder", &extents))?;
        let catalog = Catalog::open(&options.dir.join("catalog.sqlite"))?;
        let mut state = load_extents(&catalog, &extents)?;
        let known: HashMap<TableId, Vec<String>> =
            state.tables.iter().map(|(id, data)| (*id, data.extents.iter().map(|extent| extent.record.id.clone()).collect())).collect();
        let is_known = |table: &str, id: &str| {
            let table = table.parse().map(TableId).ok();
            table.and_then(|table| known.get(&table)).is_some_and(|ids| ids.iter().any(|other| other == id))
        };
        extent::remove_orphans(&extents, is_known).map_err(io("clearing the folder", &extents))?;
        for (key, seen) in catalog.batches()? {
            state.batches.insert(key, BatchState::Done { seen, lsn: 0, kept: true });
        }
        let journal = replay(&options, &catalog, &mut state)?;
        Ok(Storage { options, extents, catalog, journal, state: Arc::new(Mutex::new(state)), maintenance: Mutex::new(()) })
    }
}

fn load_extents(catalog: &Catalog, root: &Path) -> Result<State, StorageError> {
    let mut state = State::default();
    for (table, records) in catalog.extents()? {
        let extents = records.into_iter().map(|record| Arc::new(Extent::new(root, record))).collect();
        state.tables.insert(table, Arc::new(TableData { hot: Vec::new(), extents }));
    }
    Ok(state)
}

fn replay(options: &StorageOptions, catalog: &Catalog, state: &mut State) -> Result<Journal, StorageError> {
    let sealed = catalog.sealed_positions()?;
    let mut failed = None;
    let journal_options =
        JournalOptions { dir: options.dir.join("journal"), file_bytes: options.journal_file_bytes, durability: options.durability };
    let (journal, report) = Journal::open(journal_options, wal::RealDisk::new(), &mut |frame| {
        let lsn = frame.lsn;
        if failed.is_none()
            && let Err(what) = apply(frame, &sealed, state)
        {
            failed = Some(StorageError::Frame { lsn, what });
        }
    })?;
    if let Some(failed) = failed {
        return Err(failed);
    }
    if !report.damage.is_empty() {
        tracing::error!(ranges = report.damage.len(), "parts of the journal are unreadable; copies are in its quarantine folder");
    }
    // a journal that was lost or restored from a backup counts anew: old positions would hide its frames
    if sealed.values().any(|position| *position >= report.next_lsn) {
        tracing::error!("the journal is older than the catalogue; rows acknowledged since may be missing");
        catalog.change(|edit| edit.reset_sealed())?;
    }
    Ok(journal)
}

fn apply(frame: Frame<'_>, sealed: &HashMap<TableId, u64>, state: &mut State) -> Result<(), String> {
    match frame.kind {
        frame::ROWS | frame::ROWS_OF_SEVERAL => apply_rows(&frame, sealed, state),
        frame::CARRIED => apply_carried(&frame, sealed, state),
        kind => Err(format!("its kind {kind} is unknown")),
    }
}

fn apply_rows(frame: &Frame<'_>, sealed: &HashMap<TableId, u64>, state: &mut State) -> Result<(), String> {
    let (header, rest) = frame::decode_rows(frame.body).map_err(|error| error.to_string())?;
    if !header.batch_id.is_empty() {
        let key = batch_key(header.table, header.batch_id);
        state.batches.entry(key).or_insert(BatchState::Done { seen: header.ingested, lsn: frame.lsn, kept: false });
    }
    // a table that is gone, or rows that are in an extent
    let is_needed = |table: TableId| sealed.get(&table).is_some_and(|position| frame.lsn > *position);
    let batches = match frame.kind {
        frame::ROWS_OF_SEVERAL => frame::decode_several(rest),
        _ if is_needed(header.table) => frame::read_batch(rest).map(|rows| vec![(header.table, rows)]),
        _ => Ok(Vec::new()),
    };
    for (table, rows) in batches.map_err(|error| error.to_string())? {
        if is_needed(table) {
            let rows = columns::with_ingestion_time(&rows, header.ingested).map_err(|error| error.to_string())?;
            state.publish(table, HotBatch::new(rows, frame.lsn, frame.lsn));
        }
    }
    Ok(())
}

fn apply_carried(frame: &Frame<'_>, sealed: &HashMap<TableId, u64>, state: &mut State) -> Result<(), String> {
    for section in frame::decode_carried(frame.body).map_err(|error| error.to_string())? {
        if sealed.get(&section.table).is_none_or(|position| section.covers <= *position) {
            continue;
        }
        let carried: Vec<_> = match state.tables.get(&section.table) {
            Some(data) => data.hot.iter().filter(|batch| batch.lsn <= section.covers).cloned().collect(),
            None => Vec::new(),
        };
        state.replace_hot(section.table, &carried, None);
        state.publish(section.table, HotBatch::new(section.batch, section.covers, frame.lsn));
    }
    Ok(())
}
