//! What the handle, the commit thread and readers of segments share.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::frames::SealedRecord;
use super::pool::Spare;
use super::reader::SegmentReader;
use super::state::{DeadRecord, State};
use super::tables::{disk_name, file_name, open_name};
use crate::disk::{self, Disk, Open};
use crate::journal;
use crate::segment::{self, FlakeIds, HEADER};
use crate::types::{DeadLetter, SegmentId, SegmentInfo, Usage};

/// See the module.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) state: Mutex<State>,
    pub(crate) ids: Mutex<FlakeIds>,
    pub(crate) now_ms: AtomicU64,
    /// Files being adopted: bytes that no frame knows yet.
    pub(crate) adopting: AtomicU64,
    /// Files in `dead/` that are no dead letters.
    pub(crate) stray_bytes: AtomicU64,
    pub(crate) quarantine_bytes: AtomicU64,
    pub(crate) full: std::sync::atomic::AtomicBool,
    /// Buffers for requests.
    pub(crate) spare: Arc<Spare>,
    gauges: Mutex<Usage>,
    wakers: Mutex<Vec<Arc<dyn Fn() + Send + Sync>>>,
}

impl Shared {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf, state: State, ids: FlakeIds, now_ms: u64, spare: Spare) -> Arc<Shared> {
        Arc::new(Shared {
            disk,
            dir,
            state: Mutex::new(state),
            ids: Mutex::new(ids),
            now_ms: now_ms.into(),
            adopting: AtomicU64::new(0),
            stray_bytes: AtomicU64::new(0),
            quarantine_bytes: AtomicU64::new(0),
            full: false.into(),
            spare: Arc::new(spare),
            gauges: Mutex::default(),
            wakers: Mutex::default(),
        })
    }

    /// Measures the folders of which only the sizes are known.
    pub(crate) fn audit(&self) {
        let known: HashSet<String> = {
            let state = self.state.lock();
            let revived = state.revived.keys().filter_map(|id| state.sealed.get(id));
            let dead = state.dead.values().map(|letter| &letter.segment);
            dead.chain(revived).map(|record| disk_name(&record.table, record.id)).collect()
        };
        for (dir, bytes) in [(self.dead_dir(), &self.stray_bytes), (self.quarantine_dir(), &self.quarantine_bytes)] {
            let entries = self.disk.list(&dir).unwrap_or_default();
            let others = entries.iter().filter(|entry| !known.contains(&entry.name));
            bytes.store(others.map(|entry| entry.len).sum(), Ordering::Relaxed);
        }
    }

    /// Copies unreadable bytes to quarantine, durably.
    pub(crate) fn set_aside(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let before = self.disk.open(&self.quarantine_dir().join(name), Open::Read).and_then(|file| file.len()).unwrap_or(0);
        journal::set_aside(&*self.disk, &self.quarantine_dir(), name, bytes).map_err(io::Error::other)?;
        self.quarantine_bytes.fetch_add((bytes.len() as u64).saturating_sub(before), Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn new_id(&self, now_ms: u64) -> SegmentId {
        SegmentId(self.ids.lock().next_id(now_ms))
    }

    pub(crate) fn on_sealed(&self, waker: Arc<dyn Fn() + Send + Sync>) {
        self.wakers.lock().push(waker);
    }

    pub(crate) fn wake(&self) {
        let wakers = self.wakers.lock().clone();
        wakers.iter().for_each(|wake| wake());
    }

    pub(crate) fn publish(&self, gauges: Usage) {
        *self.gauges.lock() = gauges;
    }

    pub(crate) fn usage(&self) -> Usage {
        self.gauges.lock().clone()
    }

    pub(crate) fn quarantine_dir(&self) -> PathBuf {
        self.dir.join("quarantine")
    }

    pub(crate) fn dead_dir(&self) -> PathBuf {
        self.dir.join("dead")
    }

    pub(crate) fn sealed(&self) -> Vec<SegmentInfo> {
        let state = self.state.lock();
        state.sealed.values().map(|record| self.info(record, state.revived.contains_key(&record.id))).collect()
    }

    pub(crate) fn sealed_after(&self, last: impl Fn(&str) -> u64) -> Vec<SegmentInfo> {
        let state = self.state.lock();
        let newer = state.databases.iter().flat_map(|(name, known)| known.waiting.range(last(name).saturating_add(1)..));
        newer.filter_map(|(_, id)| state.sealed.get(id)).map(|record| self.info(record, state.revived.contains_key(&record.id))).collect()
    }

    pub(crate) fn sealed_segment(&self, database: &str, number: u64) -> Option<SegmentInfo> {
        let state = self.state.lock();
        let record = state.sealed.get(state.databases.get(database)?.waiting.get(&number)?)?;
        Some(self.info(record, state.revived.contains_key(&record.id)))
    }

    pub(crate) fn dead_letters(&self) -> Vec<DeadLetter> {
        let letter = |record: &DeadRecord| DeadLetter {
            segment: self.info(&record.segment, true),
            reason: record.reason.clone(),
            maybe_duplicate: record.maybe_duplicate,
            died_ms: record.died_ms,
        };
        self.state.lock().dead.values().map(letter).collect()
    }

    /// `buried`: its file is in `dead/`.
    fn info(&self, record: &SealedRecord, buried: bool) -> SegmentInfo {
        let dir = if buried { self.dead_dir() } else { self.dir.clone() };
        SegmentInfo {
            id: record.id,
            table: record.table.clone(),
            number: record.number,
            digest: record.digest,
            bytes: record.bytes,
            rows: record.rows,
            created_ms: record.created_ms,
            path: dir.join(disk_name(&record.table, record.id)),
            file_name: file_name(&record.table, record.id),
        }
    }

    /// A sealed segment, and where its file may be.
    fn find(&self, id: SegmentId) -> io::Result<(SealedRecord, Vec<PathBuf>)> {
        let state = self.state.lock();
        let record = state.sealed.get(&id);
        let record = record.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("segment {id} is settled")))?;
        Ok((record.clone(), self.places(record, state.revived.contains_key(&id))))
    }

    /// The final name, the one from before the sealing, and that of a dead letter. The first again at the end: it may
    /// have been renamed between two looks.
    fn places(&self, record: &SealedRecord, buried: bool) -> Vec<PathBuf> {
        let name = disk_name(&record.table, record.id);
        let mut places = vec![self.dir.join(&name), self.dir.join(open_name(record.id))];
        if buried {
            places.push(self.dead_dir().join(&name));
        }
        places.push(self.dir.join(name));
        places
    }

    /// The image of a dead letter.
    pub(crate) fn read_dead_letter(&self, id: SegmentId) -> io::Result<Vec<u8>> {
        let record = self.state.lock().dead.get(&id).map(|letter| letter.segment.clone());
        let record = record.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("segment {id} is no dead letter")))?;
        let mut image = read_first(&*self.disk, &self.places(&record, true))?;
        image.truncate(usize::try_from(record.bytes).unwrap_or(usize::MAX));
        Ok(image)
    }

    /// A reader of a sealed segment that is whole; `None` for a damaged one.
    pub(crate) fn open_segment(&self, id: SegmentId) -> io::Result<Option<SegmentReader>> {
        let (record, places) = self.find(id)?;
        for place in places {
            match self.disk.open(&place, Open::Read) {
                Ok(file) => return SegmentReader::from_file(file, record.bytes, record.digest),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The image of a sealed segment without its unreadable blocks. When some turned out so just now, their
    /// bytes are in quarantine, and the number of rows that are left is returned.
    pub(crate) fn read_segment(&self, id: SegmentId) -> io::Result<(Vec<u8>, Option<u64>)> {
        let (record, places) = self.find(id)?;
        let mut image = match read_first(&*self.disk, &places) {
            // Removed by somebody else: as damaged as can be.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.state.lock().sealed.contains_key(&id) => Vec::new(),
            other => other?,
        };
        image.truncate(usize::try_from(record.bytes).unwrap_or(usize::MAX));
        if image.len() as u64 == record.bytes && digest_of(&image) == Some(record.digest) {
            return Ok((image, None));
        }
        if image.len() >= HEADER.len() {
            // That it is a segment is known; its first bytes say nothing else.
            image[..HEADER.len()].copy_from_slice(&HEADER);
        }
        let found = segment::verify(&image, !record.table.schema.is_empty());
        if found.is_intact() && found.rows >= record.rows {
            return Ok((image, None));
        }
        let mut good = HEADER.to_vec();
        found.good.iter().for_each(|range| good.extend_from_slice(&image[range.clone()]));
        // A reader that comes later finds the same damage, which is counted already.
        if found.rows >= record.rows {
            return Ok((good, None));
        }
        for (range, kind) in &found.damaged {
            tracing::error!(segment = %id, table = %record.table, offset = range.start, bytes = range.len(), %kind, "damaged block");
            let name = format!("{:016x}-{:x}", id.0, range.start);
            self.set_aside(&name, &image[range.clone()])?;
        }
        Ok((good, Some(found.rows)))
    }
}

/// Makes the names of segments durable. In this order, so that no dead letter leaves the one folder before it is
/// in the other.
pub(crate) fn sync_dirs(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.sync_dir(&dir.join("dead")).and_then(|()| disk.sync_dir(dir))
}

/// Reads the first of these files that exists.
pub(crate) fn read_first(disk: &dyn Disk, places: &[PathBuf]) -> io::Result<Vec<u8>> {
    let mut missing = io::Error::from(io::ErrorKind::NotFound);
    for place in places {
        match disk::read_all(disk, place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing = error,
            other => return other,
        }
    }
    Err(missing)
}

/// Digest of a file image, `None` when a block is damaged.
pub(crate) fn digest_of(image: &[u8]) -> Option<u64> {
    if !segment::is_segment(image) {
        return None;
    }
    segment::blocks(image).try_fold(0, |digest, block| Some(segment::digest(digest, block.ok()?.bytes)))
}
