//! Opening a directory: the newest checkpoint, the frames behind it, the files they speak of.
//!
//! Frames are applied by the functions that apply them live. Rows are read back only where no sealed file
//! holds them already.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::checkpoint::{Checkpoint, OpenRecord};
use super::dead;
use super::engine::Engine;
use super::frames::{self, AdoptedRecord, DataHead, SealedRecord};
use super::pool::Spare;
use super::shared::{self, Shared, digest_of, read_first};
use super::stage::{Contents, unpack};
use super::state::State;
use super::tables::{Tables, disk_name, open_name, parse_open_name};
use super::takeover;
use crate::OpenError;
use crate::codec::Cursor;
use crate::disk::{self, Disk, Entry, Open};
use crate::error::During;
use crate::journal::frame::read_head;
use crate::journal::scan::{self, Files, FrameAt, Loaded};
use crate::journal::suspects::Suspects;
use crate::journal::writer::Writer;
use crate::journal::{self};
use crate::segment::{self, FlakeIds, HEADER};
use crate::types::{Damage, OpenReport, Options, SegmentId, TableKey};

/// An engine on the directory as it was left.
pub(crate) fn open(options: Options, disk: Arc<dyn Disk>, now_ms: u64) -> Result<(Engine, OpenReport), OpenError> {
    let options = fit(options);
    let dir = options.dir.clone();
    let journal_dir = dir.join("journal");
    let dead_dir = dir.join("dead");
    for sub in [&journal_dir, &dead_dir] {
        disk.create_dir_all(sub).during("creating", sub)?;
    }
    shared::sync_dirs(&*disk, &dir).during("syncing", &dir)?;
    let mut suspects = Suspects::renew(Arc::clone(&disk), &journal_dir)?;
    let mut loaded = scan::load(&*disk, &journal_dir)?;
    loaded.sync(&mut suspects, &journal_dir)?;
    let mut report = OpenReport::default();
    let start = Beginning::find(&*disk, &loaded)?;
    let fresh = start.checkpoint.is_none() && loaded.frames.is_empty() && loaded.skipped.is_empty();
    report.ledger_reset = start.checkpoint.is_none() && !fresh;
    let checkpoint = start.checkpoint.unwrap_or_else(|| Checkpoint {
        state: State { sender: random_id(), resets: u64::from(report.ledger_reset), ..State::default() },
        ..Checkpoint::default()
    });
    // What lies before the checkpoint is folded into it, whatever it looks like.
    let as_of = checkpoint.as_of;
    loaded.skipped.retain(|skipped| skipped.before.is_none_or(|lsn| lsn > as_of));
    let mut replay = Replay::new(options, suspects, &checkpoint, &loaded, now_ms)?;
    replay.plan(&loaded, checkpoint.as_of, &checkpoint.open)?;
    replay.restore_open(&checkpoint.open, &mut report)?;
    replay.run(&loaded, checkpoint.as_of, &mut report)?;
    let damaged_before = report.damage.len();
    replay.quarantine(&loaded, &mut report)?;
    let lost_frames = report.damage.len() > damaged_before;
    let mut engine = replay.engine;
    let last_id = checkpoint.state.last_id;
    let unknown = takeover::Unknown { last_id, lost_frames, host: host(), reset: report.ledger_reset || fresh };
    let taken = takeover::tidy(&mut engine, &mut report, &unknown)?;
    dead::take_stock(&engine)?;
    engine.shared.audit();
    // What was torn or damaged is better not judged again with newer frames behind it.
    let damaged = !loaded.skipped.is_empty() || !report.damage.is_empty();
    let unclean = fresh || taken || damaged || report.ledger_reset || !engine.writer.suspects.is_empty();
    if unclean && !engine.checkpoint_now() {
        // The identity of a new directory must last. Otherwise the files say all: a full disk is no reason not
        // to start, since only a running process empties it.
        if fresh || report.ledger_reset {
            return Err(OpenError::Io {
                action: "writing the first checkpoint in",
                path: dir,
                source: std::io::Error::other("see the log"),
            });
        }
        tracing::warn!(dir = %dir.display(), "no checkpoint could be written at the start; the journal keeps everything");
    }
    for file in loaded.empty_files().filter(|file| !engine.writer.holds(file.sequence)) {
        let _ = engine.disk.remove(&file.path);
    }
    Ok((engine, report))
}

/// Journal sizes that fit the disk limit.
fn fit(mut options: Options) -> Options {
    if options.max_disk_bytes > 0 {
        options.journal_file_bytes = options.journal_file_bytes.min((options.max_disk_bytes / 16).max(64 << 10));
        options.journal_budget_bytes = options.journal_budget_bytes.min(options.max_disk_bytes / 4);
    }
    options.block_bytes = options.block_bytes.clamp(1 << 10, 1 << 20);
    options
}

/// 128 bits from the operating system, by way of the keys of a hash map.
fn random_id() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    let half = || RandomState::new().hash_one(0u8).to_le_bytes();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&half());
    id[8..].copy_from_slice(&half());
    id
}

/// Where folding begins.
pub(super) struct Beginning {
    pub(super) checkpoint: Option<Checkpoint>,
}

impl Beginning {
    /// The newest checkpoint that is readable.
    pub(super) fn find(disk: &dyn Disk, loaded: &Loaded) -> Result<Beginning, OpenError> {
        let mut files = Files::new(disk, loaded);
        for frame in loaded.frames.iter().rev().filter(|frame| frame.kind == frames::CHECKPOINT && !frame.damaged) {
            let raw = files.frame(frame)?;
            let checkpoint = read_head(raw).and_then(|head| head.body(raw)).and_then(|body| Checkpoint::decode(&body));
            if let Ok(checkpoint) = checkpoint {
                return Ok(Beginning { checkpoint: Some(checkpoint) });
            }
        }
        Ok(Beginning { checkpoint: None })
    }
}

/// How a sealed segment of a frame is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Settled later, or present and right.
    Whole,
    /// To be made again from rows.
    Lost,
}

struct Replay {
    engine: Engine,
    /// Sealed segments of frames, by table and the last LSN they hold.
    sealed: HashMap<TableKey, BTreeMap<u64, (SegmentId, Found)>>,
    records: HashMap<SegmentId, SealedRecord>,
    /// The lost segment that a table's rows make again now.
    planned: HashMap<TableKey, SegmentId>,
    /// Frames are missing, so sealed files may hold rows that no frame brought.
    lossy: bool,
}

impl Replay {
    fn new(options: Options, suspects: Suspects, checkpoint: &Checkpoint, loaded: &Loaded, now_ms: u64) -> Result<Replay, OpenError> {
        let (dir, disk) = (options.dir.clone(), suspects.disk());
        let mut state = checkpoint.state.clone();
        let mut ids = FlakeIds::new(host(), state.last_id);
        checkpoint.open.iter().for_each(|open| ids.seen(open.id.0));
        // A file of before the crash that no frame knows must not meet a new one of the same name.
        for entry in disk.list(&dir).during("listing", &dir)? {
            ids.seen(parse_open_name(&entry.name).or_else(|| takeover::id_of(&entry.name)).map_or(0, |id| id.0));
        }
        state.last_id = ids.last();
        let shared = Shared::new(Arc::clone(&disk), dir.clone(), state, ids, now_ms, Spare::new(options.memtable_bytes));
        let mut start = loaded.start();
        start.next_lsn = start.next_lsn.max(checkpoint.as_of + 1);
        let mut writer = Writer::new(&dir.join("journal"), options.journal_file_bytes, options.durability, start, suspects);
        if let Some(file) = loaded.unused_file() {
            writer.reuse(file.sequence, file.len);
        }
        let tables = Tables::new(Arc::clone(&disk), &options, Arc::clone(&shared.spare));
        let mut engine = Engine::new(options, disk, writer, tables, shared, now_ms);
        engine.last_checkpoint.lsn = checkpoint.as_of;
        engine.last_checkpoint.at_ms = now_ms;
        Ok(Replay { engine, sealed: HashMap::new(), records: HashMap::new(), planned: HashMap::new(), lossy: !loaded.skipped.is_empty() })
    }

    /// Open segments go on at their checkpointed length: what was appended later comes from the journal.
    fn restore_open(&mut self, open: &[OpenRecord], report: &mut OpenReport) -> Result<(), OpenError> {
        let dir = self.engine.dir.clone();
        let entries = self.engine.disk.list(&dir).during("listing", &dir)?;
        let lens: HashMap<&str, u64> = entries.iter().map(|entry| (entry.name.as_str(), entry.len)).collect();
        for record in open {
            let name = open_name(record.id);
            // One that was sealed later and is whole, or settled, is not written to any more.
            let sealed = self.sealed.get(&record.table).into_iter().flat_map(|plans| plans.values());
            let done = sealed.into_iter().any(|(id, found)| *id == record.id && *found == Found::Whole);
            match lens.get(name.as_str()) {
                Some(len) if *len >= record.bytes => {
                    if *len > record.bytes && !done {
                        self.cut(record)?;
                    }
                    self.engine.tables.restore(record);
                }
                _ if done => self.engine.tables.restore(record),
                len => self.restore_short(record, len.is_some(), report)?,
            }
        }
        Ok(())
    }

    /// What was appended after the checkpoint goes: other blocks may take its place.
    fn cut(&self, record: &OpenRecord) -> Result<(), OpenError> {
        let path = self.engine.dir.join(open_name(record.id));
        let file = self.engine.disk.open(&path, Open::Write).during("opening", &path)?;
        file.set_len(record.bytes).during("cutting", &path)
    }

    /// A file that lost bytes it had at the checkpoint: its readable blocks go on.
    fn restore_short(&mut self, record: &OpenRecord, exists: bool, report: &mut OpenReport) -> Result<(), OpenError> {
        let path = self.engine.dir.join(open_name(record.id));
        let image = if exists { disk::read_all(&*self.engine.disk, &path).during("reading", &path)? } else { Vec::new() };
        let found = segment::verify(&image, !record.table.schema.is_empty());
        let rows = record.rows.saturating_sub(found.rows);
        report.damage.push(Damage { path: path.clone(), offset: image.len() as u64, bytes: record.bytes, rows });
        self.engine.shared.state.lock().lose(&record.table, rows);
        for (range, _) in &found.damaged {
            let aside = format!("{}-{:x}", open_name(record.id), range.start);
            self.engine.shared.set_aside(&aside, &image[range.clone()]).during("copying unreadable bytes of", &path)?;
        }
        if rows == record.rows {
            // Nothing goes on: an open segment without rows could never be sealed.
            return Ok(());
        }
        let mut good = HEADER.to_vec();
        found.good.iter().for_each(|range| good.extend_from_slice(&image[range.clone()]));
        let how = if exists { Open::Write } else { Open::Create };
        let file = self.engine.disk.open(&path, how).during("opening", &path)?;
        file.write_at(&good, 0).and_then(|()| file.set_len(good.len() as u64)).during("writing", &path)?;
        let (bytes, rows) = (good.len() as u64, record.rows - rows);
        let record = OpenRecord { bytes, rows, digest: found.digest, ..record.clone() };
        self.engine.tables.restore(&record);
        self.engine.tables.dirty.insert(record.id);
        Ok(())
    }

    /// Looks ahead: which segments were sealed since the checkpoint, and which of them are whole.
    fn plan(&mut self, loaded: &Loaded, as_of: u64, open: &[OpenRecord]) -> Result<(), OpenError> {
        let disk = Arc::clone(&self.engine.disk);
        let mut files = Files::new(&*disk, loaded);
        let mut settled = HashSet::new();
        let mut sealed = Vec::new();
        for frame in loaded.frames.iter().filter(|frame| frame.place.lsn > as_of) {
            let raw = files.frame(frame)?;
            let Ok(head) = read_head(raw) else { continue };
            match frame.kind {
                frames::SEALED => sealed.extend(SealedRecord::read(&mut Cursor::new(head.directory))),
                frames::ADOPTED => {
                    let adopted = AdoptedRecord::decode(head.directory);
                    adopted.iter().for_each(|record| self.engine.shared.ids.lock().seen(record.segment.id.0));
                }
                frames::SETTLED => {
                    let (items, _) = frames::decode_settled(head.directory).unwrap_or_default();
                    settled.extend(items.into_iter().map(|item| item.segment));
                }
                _ => {}
            }
        }
        for record in sealed {
            // Its file may be gone with the crash; its id must not go to another segment meanwhile.
            self.engine.shared.ids.lock().seen(record.id.0);
            let found = match settled.contains(&record.id) || self.is_whole(&record) {
                true => Found::Whole,
                false => Found::Lost,
            };
            self.sealed.entry(record.table.clone()).or_default().insert(record.last_lsn, (record.id, found));
            if found == Found::Lost {
                self.take_back_name(&record.table, record.id)?;
            }
            self.records.insert(record.id, record);
        }
        for record in open {
            if !self.records.contains_key(&record.id) {
                // Its Sealed frame is lost: it goes on as an open segment.
                self.take_back_name(&record.table, record.id)?;
            }
        }
        Ok(())
    }

    fn is_whole(&self, record: &SealedRecord) -> bool {
        let names = [disk_name(&record.table, record.id), open_name(record.id)];
        match read_first(&*self.engine.disk, &names.map(|name| self.engine.dir.join(name))) {
            Ok(mut image) => {
                image.truncate(record.bytes as usize);
                image.len() as u64 == record.bytes && digest_of(&image) == Some(record.digest)
            }
            Err(_) => false,
        }
    }

    /// A segment that is written to has its open name.
    fn take_back_name(&mut self, table: &TableKey, id: SegmentId) -> Result<(), OpenError> {
        let open = self.engine.dir.join(open_name(id));
        let last = self.engine.dir.join(disk_name(table, id));
        if self.engine.disk.open(&last, Open::Read).is_ok() {
            self.engine.disk.rename(&last, &open).during("renaming", &last)?;
        }
        Ok(())
    }

    /// The sealed segment that has the rows of `table` in frame `lsn`.
    fn segment_of(&self, table: &TableKey, lsn: u64) -> Option<(&SealedRecord, Found)> {
        let (_, (id, found)) = self.sealed.get(table)?.range(lsn..).next()?;
        let record = self.records.get(id).filter(|record| record.first_lsn <= lsn)?;
        Some((record, *found))
    }

    /// Applies the frames behind the checkpoint.
    fn run(&mut self, loaded: &Loaded, as_of: u64, report: &mut OpenReport) -> Result<(), OpenError> {
        let disk = Arc::clone(&self.engine.disk);
        let mut files = Files::new(&*disk, loaded);
        for frame in loaded.frames.iter().filter(|frame| frame.place.lsn > as_of) {
            let raw = files.frame(frame)?;
            report.frames += 1;
            if self.apply(frame, raw, loaded, report)?.is_none() {
                report.damage.push(Damage {
                    path: loaded.files[frame.file].path.clone(),
                    offset: frame.range.start as u64,
                    bytes: frame.range.len() as u64,
                    rows: 0,
                });
            }
        }
        Ok(())
    }

    /// `Ok(None)` when the frame makes no sense.
    fn apply(&mut self, frame: &FrameAt, raw: &[u8], loaded: &Loaded, report: &mut OpenReport) -> Result<Option<()>, OpenError> {
        let Ok(head) = read_head(raw) else { return Ok(None) };
        let shared = Arc::clone(&self.engine.shared);
        match frame.kind {
            frames::DATA => {
                let Ok(data) = DataHead::decode(head.directory) else { return Ok(None) };
                let lens: Vec<u32> = head.parts.iter().map(|part| part.raw).collect();
                return self.data(frame, data, &head.raw_parts(raw), &lens, loaded, report);
            }
            frames::SEALED => {
                let Ok(record) = SealedRecord::read(&mut Cursor::new(head.directory)) else { return Ok(None) };
                self.seal(&record, report)?;
            }
            frames::ADOPTED => {
                let Ok(record) = AdoptedRecord::decode(head.directory) else { return Ok(None) };
                shared.state.lock().adopt(&record);
                self.engine.name(frame.place.lsn, &record.segment);
                if !record.replaces.is_empty() {
                    let _ = self.engine.disk.remove(&self.engine.dir.join(&record.replaces));
                }
            }
            frames::SETTLED => match frames::decode_settled(head.directory) {
                Ok((items, time_ms)) => shared.state.lock().settle(&items, time_ms),
                Err(_) => return Ok(None),
            },
            frames::BATCH => match frames::batch(&mut Cursor::new(head.directory)) {
                Ok(record) => shared.state.lock().batch(&record),
                Err(_) => return Ok(None),
            },
            frames::REVIVED => match frames::decode_revived(head.directory) {
                Ok(items) => shared.state.lock().revive(&items),
                Err(_) => return Ok(None),
            },
            frames::DISCARDED => match frames::decode_discarded(head.directory) {
                Ok(ids) => shared.state.lock().discard(&ids),
                Err(_) => return Ok(None),
            },
            frames::DAMAGED => match frames::decode_damaged(head.directory) {
                Ok((id, left)) => shared.state.lock().damaged(id, left),
                Err(_) => return Ok(None),
            },
            // Checkpoints repeat what is folded here.
            _ => {}
        }
        Ok(Some(()))
    }

    fn data(
        &mut self,
        frame: &FrameAt,
        head: DataHead,
        parts: &[Option<Vec<u8>>],
        lens: &[u32],
        loaded: &Loaded,
        report: &mut OpenReport,
    ) -> Result<Option<()>, OpenError> {
        let Some((contents, mut lost)) = unpack(&head, parts, lens) else { return Ok(None) };
        let mut kept = DataHead::default();
        let mut kept_contents = Vec::new();
        let missing = lost.clone();
        for (i, (section, content)) in head.sections.iter().zip(contents).enumerate() {
            if self.segment_of(&section.table, frame.place.lsn).is_some_and(|(_, found)| found == Found::Whole) {
                // A sealed file has these rows, whatever became of the frame.
                lost[i] = 0;
                continue;
            }
            let mut section = section.clone();
            section.rows -= (missing[i].min(u64::from(section.rows))) as u32;
            report.replayed_rows += u64::from(section.rows);
            if !content.is_empty() {
                kept.sections.push(section);
                kept_contents.push(content);
            }
        }
        let rows: u64 = lost.iter().sum();
        if frame.damaged {
            let path = loaded.files[frame.file].path.clone();
            let (offset, bytes) = (frame.range.start as u64, frame.range.len() as u64);
            report.damage.push(Damage { path, offset, bytes, rows });
        }
        self.engine.shared.state.lock().data(&head, &lost);
        for (section, content) in kept.sections.iter().zip(kept_contents) {
            self.push(section, content, frame.place.lsn);
        }
        self.relieve();
        Ok(Some(()))
    }

    fn push(&mut self, section: &frames::SectionHead, content: Vec<u8>, lsn: u64) {
        let one = DataHead { sections: vec![section.clone()], ..DataHead::default() };
        let mut contents = Contents::default();
        contents.push(content);
        self.engine.tables.push(&one, contents, lsn, self.engine.now_ms);
        let Some((record, Found::Lost)) = self.segment_of(&section.table, lsn) else { return };
        let (id, layout) = (record.id, record.layout.clone());
        if self.planned.get(&section.table) == Some(&id) {
            return;
        }
        self.planned.insert(section.table.clone(), id);
        if let Some(table) = self.engine.tables.map.get_mut(&section.table) {
            let done = table.open.as_ref().filter(|open| open.id == id).map_or(0, |open| open.layout.len());
            table.plan = layout.into_iter().skip(done).collect();
        }
    }

    /// Memory stays bounded while reading back. Tables that follow a layout are frozen only in its blocks.
    fn relieve(&mut self) {
        if self.engine.tables.buffered <= self.engine.options.memtable_bytes {
            return;
        }
        for key in self.engine.tables.by_size() {
            let planned = self.engine.tables.map.get(&key).is_some_and(|table| !table.plan.is_empty());
            let _ = self.freeze(&key, planned);
        }
    }

    /// A lost segment keeps its identity: its first freeze makes the file of that id.
    fn freeze(&mut self, key: &TableKey, whole_blocks: bool) -> bool {
        let planned = self.planned.get(key).copied();
        let open_exists = self.engine.tables.map.get(key).is_some_and(|table| table.open.is_some());
        if let (Some(id), false) = (planned, open_exists) {
            // The old file of that name is replaced.
            let _ = self.engine.disk.remove(&self.engine.dir.join(open_name(id)));
        }
        let (shared, now) = (Arc::clone(&self.engine.shared), self.engine.now_ms);
        let mut new_id = || planned.unwrap_or_else(|| shared.new_id(now));
        match self.engine.tables.freeze(key, whole_blocks, &mut new_id) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, table = %key, "writing a segment failed while reading the journal back");
                false
            }
        }
    }

    fn seal(&mut self, record: &SealedRecord, report: &mut OpenReport) -> Result<(), OpenError> {
        let shared = Arc::clone(&self.engine.shared);
        let plans = self.sealed.get(&record.table);
        let found = plans.and_then(|plans| plans.get(&record.last_lsn)).map_or(Found::Whole, |(_, found)| *found);
        let sealed = match found {
            Found::Whole => Some(record.clone()),
            Found::Lost => self.make_again(record, report)?,
        };
        self.planned.remove(&record.table);
        if let Some(table) = self.engine.tables.map.get_mut(&record.table) {
            table.plan.clear();
        }
        let mut state = shared.state.lock();
        let Some(sealed) = sealed else {
            // Its rows, if any are left, wait in the table and get another number.
            state.skip_number(&record.table.database, record.number);
            return Ok(());
        };
        self.engine.tables.sealed(&record.table, record.id, self.engine.now_ms);
        state.seal(&sealed);
        drop(state);
        if self.lossy {
            self.reconcile(&record.table);
        }
        // The kernel would answer a second sync of a file with success, whatever the first one lost.
        let suspect = found == Found::Whole && self.engine.writer.suspects.contains(&open_name(record.id));
        let to = if suspect { &mut self.engine.suspects } else { &mut self.engine.unsynced };
        to.insert(record.id);
        self.engine.name(record.last_lsn, record);
        Ok(())
    }

    /// A sealed segment whose file was not synced before the crash: the same rows in the same blocks.
    fn make_again(&mut self, record: &SealedRecord, report: &mut OpenReport) -> Result<Option<SealedRecord>, OpenError> {
        let path = self.engine.dir.join(open_name(record.id));
        if !self.freeze(&record.table, false) {
            let source = std::io::Error::other("see the log");
            return Err(OpenError::Io { action: "making again the segment", path, source });
        }
        report.rebuilt += 1;
        let again = self.engine.tables.sealing(&record.table, record.last_lsn, record.number);
        let again = again.filter(|again| again.id == record.id);
        let Some(again) = again else {
            self.reconcile(&record.table);
            return Ok(None);
        };
        let file = self.engine.disk.open(&path, Open::Write).during("opening", &path)?;
        file.set_len(again.bytes).during("cutting", &path)?;
        let mut sealed = SealedRecord { bytes: again.bytes, rows: again.rows, ..record.clone() };
        if again.rows != record.rows {
            self.lossy = true;
            // Other content must not pass for what a receiver may know already.
            sealed.digest = again.digest;
        }
        Ok(Some(sealed))
    }

    /// Makes the ledger of a table say what its places hold. Rows that no place holds were lost with damaged
    /// bytes; rows that no frame brought came with a frame whose head is damaged.
    fn reconcile(&mut self, table: &TableKey) {
        let mut state = self.engine.shared.state.lock();
        let on_disk = state.counts.get(table).map_or(0, |counts| counts.on_disk);
        let waiting: u64 = state.sealed.values().filter(|s| s.table == *table).map(|s| s.rows).sum();
        let unsealed = self.engine.tables.map.get(table);
        let unsealed = unsealed.map_or(0, |t| t.buffered_rows + t.open_rows());
        let held = waiting + unsealed;
        state.lose(table, on_disk.saturating_sub(held));
        state.find(table, held.saturating_sub(on_disk));
    }

    /// Copies what was skipped aside. Only then may a checkpoint let the journal files go.
    fn quarantine(&mut self, loaded: &Loaded, report: &mut OpenReport) -> Result<(), OpenError> {
        let dir = self.engine.shared.quarantine_dir();
        for skipped in &loaded.skipped {
            let damage = match journal::quarantine(&*self.engine.disk, &dir, loaded, skipped) {
                // Nobody was told that they are here: on a full disk they are let go.
                Err(error) if skipped.torn => {
                    tracing::warn!(%error, "the torn end of the journal is not kept");
                    report.torn_bytes += skipped.range.len() as u64;
                    continue;
                }
                other => other?,
            };
            if skipped.torn {
                report.torn_bytes += damage.bytes;
            } else {
                report.damage.push(damage);
            }
        }
        for (file, range) in loaded.frames.iter().filter(|f| f.damaged).map(|f| (f.file, f.range.clone())) {
            let damaged = scan::Skipped { file, range, torn: false, before: None };
            journal::quarantine(&*self.engine.disk, &dir, loaded, &damaged)?;
        }
        Ok(())
    }
}

/// Ten bits that tell this host's ids from those of another.
pub(super) fn host() -> u16 {
    let name = rustix::system::uname();
    (xxhash_rust::xxh3::xxh3_64(name.nodename().to_bytes()) % 1023) as u16
}

/// Entries of the directory itself.
pub(super) fn entries(disk: &dyn Disk, dir: &Path) -> Result<Vec<Entry>, OpenError> {
    disk.list(dir).during("listing", dir)
}

/// Whether `name` is an open segment that the engine goes on with.
pub(super) fn is_open(engine: &Engine, name: &str) -> bool {
    let Some(id) = parse_open_name(name) else { return false };
    engine.tables.map.values().any(|table| table.open.as_ref().is_some_and(|open| open.id == id))
        || engine.shared.state.lock().sealed.contains_key(&id)
}
