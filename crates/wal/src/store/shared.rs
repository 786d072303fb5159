//! What the handle, the commit thread and readers of segments share.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::reader::SegmentReader;
use super::state::State;
use super::tables::{disk_name, file_name, open_name};
use crate::disk::{self, Disk, Open};
use crate::journal;
use crate::segment::{self, FlakeIds, HEADER};
use crate::types::{SegmentId, SegmentInfo, Usage};

/// See the module.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) state: Mutex<State>,
    pub(crate) ids: Mutex<FlakeIds>,
    pub(crate) now_ms: AtomicU64,
    /// Files being adopted: bytes that no frame knows yet.
    pub(crate) adopting: AtomicU64,
    pub(crate) dead_bytes: AtomicU64,
    pub(crate) quarantine_bytes: AtomicU64,
    pub(crate) full: std::sync::atomic::AtomicBool,
    gauges: Mutex<Usage>,
    wakers: Mutex<Vec<Arc<dyn Fn() + Send + Sync>>>,
}

impl Shared {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf, state: State, ids: FlakeIds, now_ms: u64) -> Arc<Shared> {
        Arc::new(Shared {
            disk,
            dir,
            state: Mutex::new(state),
            ids: Mutex::new(ids),
            now_ms: now_ms.into(),
            adopting: AtomicU64::new(0),
            dead_bytes: AtomicU64::new(0),
            quarantine_bytes: AtomicU64::new(0),
            full: false.into(),
            gauges: Mutex::default(),
            wakers: Mutex::default(),
        })
    }

    /// Measures the folders of which only the sizes are known.
    pub(crate) fn audit(&self) {
        for (dir, bytes) in [(self.dead_dir(), &self.dead_bytes), (self.quarantine_dir(), &self.quarantine_bytes)] {
            let entries = self.disk.list(&dir).unwrap_or_default();
            bytes.store(entries.iter().map(|entry| entry.len).sum(), Ordering::Relaxed);
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
        let info = |record: &super::frames::SealedRecord| SegmentInfo {
            id: record.id,
            table: record.table.clone(),
            number: record.number,
            digest: record.digest,
            bytes: record.bytes,
            rows: record.rows,
            created_ms: record.created_ms,
            path: self.dir.join(disk_name(&record.table, record.id)),
            file_name: file_name(&record.table, record.id),
        };
        state.sealed.values().map(info).collect()
    }

    /// A reader of a sealed segment that is whole; `None` for a damaged one.
    pub(crate) fn open_segment(&self, id: SegmentId) -> io::Result<Option<SegmentReader>> {
        let record = self.state.lock().sealed.get(&id).cloned();
        let record = record.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("segment {id} is settled")))?;
        for name in [disk_name(&record.table, id), open_name(id), disk_name(&record.table, id)] {
            match self.disk.open(&self.dir.join(name), Open::Read) {
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
        let record = self.state.lock().sealed.get(&id).cloned();
        let record = record.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("segment {id} is settled")))?;
        let names = [disk_name(&record.table, id), open_name(id)];
        let mut image = match read_either(&*self.disk, &self.dir, &names) {
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
            tracing::error!(segment = %names[0], offset = range.start, bytes = range.len(), %kind, "damaged block");
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

/// Reads the first of two names that exists: the final one, or the one from before the sealing.
pub(crate) fn read_either(disk: &dyn Disk, dir: &Path, names: &[String; 2]) -> io::Result<Vec<u8>> {
    match disk::read_all(disk, &dir.join(&names[0])) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match disk::read_all(disk, &dir.join(&names[1])) {
            // It may have been renamed between the two looks.
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk::read_all(disk, &dir.join(&names[0])),
            other => other,
        },
        other => other,
    }
}

/// Digest of a file image, `None` when a block is damaged.
pub(crate) fn digest_of(image: &[u8]) -> Option<u64> {
    if !segment::is_segment(image) {
        return None;
    }
    segment::blocks(image).try_fold(0, |digest, block| Some(segment::digest(digest, block.ok()?.bytes)))
}
