//! What the frames of a journal say together, without doing anything about it: the fold of recovery, with the rows
//! that are in no segment counted instead of read back.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::JournalRows;
use crate::OpenError;
use crate::codec::Cursor;
use crate::disk::Disk;
use crate::journal::frame::{Head, read_head};
use crate::journal::scan::{Files, FrameAt, Loaded};
use crate::store::checkpoint::{Checkpoint, OpenRecord};
use crate::store::frames::{self, AdoptedRecord, DataHead, SealedRecord};
use crate::store::recover::Beginning;
use crate::store::stage::unpack;
use crate::store::state::State;
use crate::types::{SegmentId, TableKey};

/// A frame that could not be taken whole.
#[derive(Debug, Clone)]
pub(super) struct Broken {
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    /// Rows lost with it, when its directory is readable.
    pub(super) rows: Option<u64>,
}

/// The fold of a journal.
#[derive(Debug, Default)]
pub(super) struct Fold {
    pub(super) has_checkpoint: bool,
    pub(super) as_of: u64,
    pub(super) state: State,
    /// Open segments of the checkpoint that were not sealed since.
    pub(super) open: Vec<OpenRecord>,
    /// Open segments of the checkpoint, all of them: the length that a rebuilt file would begin with.
    pub(super) begun: HashMap<SegmentId, u64>,
    /// Segments sealed since the checkpoint, by table and last LSN.
    pub(super) later: HashMap<TableKey, BTreeMap<u64, (SegmentId, u64)>>,
    /// Rows that are in no segment.
    pub(super) rows: BTreeMap<TableKey, JournalRows>,
    pub(super) frames: u64,
    pub(super) broken: Vec<Broken>,
}

impl Fold {
    pub(super) fn of(disk: &dyn Disk, loaded: &Loaded) -> Result<Fold, OpenError> {
        let checkpoint = Beginning::find(disk, loaded)?.checkpoint;
        let mut fold = Fold { has_checkpoint: checkpoint.is_some(), ..Fold::default() };
        let Checkpoint { as_of, state, open } = checkpoint.unwrap_or_default();
        (fold.as_of, fold.state) = (as_of, state);
        fold.begun = open.iter().map(|record| (record.id, record.bytes)).collect();
        fold.look_ahead(disk, loaded)?;
        let sealed: HashSet<SegmentId> = fold.later.values().flat_map(|later| later.values().map(|(id, _)| *id)).collect();
        fold.open = open.into_iter().filter(|record| !sealed.contains(&record.id)).collect();
        let mut files = Files::new(disk, loaded);
        for frame in loaded.frames.iter().filter(|frame| frame.place.lsn > as_of) {
            let raw = files.frame(frame)?;
            fold.frames += 1;
            let applied = read_head(raw).ok().and_then(|head| fold.apply(frame, &head, raw));
            if applied.is_none() {
                fold.break_off(frame, None);
            }
        }
        Ok(fold)
    }

    fn look_ahead(&mut self, disk: &dyn Disk, loaded: &Loaded) -> Result<(), OpenError> {
        let mut files = Files::new(disk, loaded);
        for frame in loaded.frames.iter().filter(|frame| frame.place.lsn > self.as_of && frame.kind == frames::SEALED) {
            let raw = files.frame(frame)?;
            let Ok(head) = read_head(raw) else { continue };
            if let Ok(record) = SealedRecord::read(&mut Cursor::new(head.directory)) {
                self.later.entry(record.table).or_default().insert(record.last_lsn, (record.id, record.first_lsn));
            }
        }
        Ok(())
    }

    /// The segment sealed since the checkpoint that has the rows of `table` in frame `lsn`.
    pub(super) fn segment_of(&self, table: &TableKey, lsn: u64) -> Option<SegmentId> {
        let (_, (id, first_lsn)) = self.later.get(table)?.range(lsn..).next()?;
        (*first_lsn <= lsn).then_some(*id)
    }

    /// `None` when the frame makes no sense.
    fn apply(&mut self, frame: &FrameAt, head: &Head<'_>, raw: &[u8]) -> Option<()> {
        let state = &mut self.state;
        match frame.kind {
            frames::DATA => return self.data(frame, head, raw),
            frames::SEALED => state.seal(&SealedRecord::read(&mut Cursor::new(head.directory)).ok()?),
            frames::ADOPTED => state.adopt(&AdoptedRecord::decode(head.directory).ok()?),
            frames::SETTLED => {
                let (items, time_ms) = frames::decode_settled(head.directory).ok()?;
                state.settle(&items, time_ms);
            }
            frames::BATCH => state.batch(&frames::batch(&mut Cursor::new(head.directory)).ok()?),
            frames::REVIVED => state.revive(&frames::decode_revived(head.directory).ok()?),
            frames::DISCARDED => state.discard(&frames::decode_discarded(head.directory).ok()?),
            frames::DAMAGED => {
                let (id, left) = frames::decode_damaged(head.directory).ok()?;
                state.damaged(id, left);
            }
            _ => {}
        }
        Some(())
    }

    fn data(&mut self, frame: &FrameAt, head: &Head<'_>, raw: &[u8]) -> Option<()> {
        let data = DataHead::decode(head.directory).ok()?;
        let mut lost = vec![0; data.sections.len()];
        if frame.damaged {
            let lens: Vec<u32> = head.parts.iter().map(|part| part.raw).collect();
            lost = unpack(&data, &head.raw_parts(raw), &lens)?.1;
            self.break_off(frame, Some(lost.iter().sum()));
        }
        for (section, lost) in data.sections.iter().zip(&lost) {
            if self.segment_of(&section.table, frame.place.lsn).is_some() {
                continue;
            }
            let rows = self.rows.entry(section.table.clone()).or_default();
            rows.rows += u64::from(section.rows).saturating_sub(*lost);
            rows.bytes += section.pieces.iter().map(|piece| u64::from(*piece)).sum::<u64>();
            rows.since_ms.get_or_insert(data.time_ms);
        }
        self.state.data(&data, &lost);
        Some(())
    }

    fn break_off(&mut self, frame: &FrameAt, rows: Option<u64>) {
        let (offset, bytes) = (frame.range.start as u64, frame.range.len() as u64);
        self.broken.push(Broken { file: frame.file, offset, bytes, rows });
    }
}
