//! Large transfers: verified blocks go straight into a segment file, which one frame adopts. Memory stays
//! small and nothing is written twice.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::engine::Msg;
use super::frames::{AdoptedRecord, SealedRecord};
use super::shared::sync_dirs;
use super::tables::open_name;
use super::thread::Handle;
use crate::Refusal;
use crate::disk::{File, Open};
use crate::segment::{self, FileName, HEADER};
use crate::types::{Done, Receipt, SegmentId, TableKey};

/// A large transfer on its way into a segment of its own. Dropped unfinished, it leaves nothing behind.
pub struct Adoption {
    handle: Arc<Handle>,
    file: Arc<dyn File>,
    path: PathBuf,
    table: TableKey,
    id: SegmentId,
    bytes: u64,
    rows: u64,
    digest: u64,
    finished: bool,
}

impl std::fmt::Debug for Adoption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adoption").field("table", &self.table).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Adoption {
    pub(super) fn begin(handle: Arc<Handle>, table: TableKey) -> io::Result<Adoption> {
        let valid = |part: &str| FileName::valid_part(part);
        if !valid(&table.database) || !valid(&table.table) || !(table.schema.is_empty() || valid(&table.schema)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{table} cannot be part of a segment name")));
        }
        let shared = handle.shared();
        check_room(shared.full.load(Ordering::Relaxed))?;
        let id = shared.new_id(shared.now_ms.load(Ordering::Relaxed));
        let path = shared.dir.join(open_name(id));
        let file = shared.disk.open(&path, Open::Create)?;
        let adoption = Adoption { handle, file, path, table, id, bytes: 0, rows: 0, digest: 0, finished: false };
        Ok(adoption)
    }

    /// Appends verified blocks with `rows` records. `StorageFull` at the limit of the store.
    pub fn write_blocks(&mut self, blocks: &[u8], rows: u64) -> io::Result<()> {
        check_room(self.handle.shared().full.load(Ordering::Relaxed))?;
        let mut digest = self.digest;
        for block in segment::blocks_at(blocks, 0) {
            let block = block.map_err(|damage| io::Error::new(io::ErrorKind::InvalidData, damage))?;
            digest = segment::digest(digest, block.bytes);
        }
        if self.bytes == 0 {
            self.append(&HEADER)?;
        }
        self.append(blocks)?;
        (self.digest, self.rows) = (digest, self.rows + rows);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(bytes, self.bytes)?;
        self.bytes += bytes.len() as u64;
        self.handle.shared().adopting.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the file durable on this thread, then adopts it together with receipts and marks by one frame.
    pub fn finish(mut self, receipts: Vec<Receipt>, marks: Vec<(Vec<u8>, Vec<u8>)>, done: Done) {
        if self.bytes == 0 {
            return done(Err(Refusal::Invalid("a transfer without blocks".into())));
        }
        let shared = self.handle.shared();
        if let Err(error) = self.file.sync().and_then(|()| sync_dirs(&*shared.disk, &shared.dir)) {
            return done(Err(Refusal::from_io(&error)));
        }
        let now_ms = shared.now_ms.load(Ordering::Relaxed);
        let record = AdoptedRecord {
            segment: SealedRecord {
                id: self.id,
                table: self.table.clone(),
                first_lsn: 0,
                last_lsn: 0,
                number: 0,
                bytes: self.bytes,
                rows: self.rows,
                digest: self.digest,
                created_ms: now_ms,
                layout: Vec::new(),
            },
            time_ms: now_ms,
            receipts,
            marks,
            replaces: String::new(),
            lost: 0,
        };
        // From here on the file belongs to the commit thread, whatever it answers.
        self.finished = true;
        self.handle.send(Msg::Adopt(Box::new(record), done));
    }
}

impl Drop for Adoption {
    fn drop(&mut self) {
        let shared = self.handle.shared();
        shared.adopting.fetch_sub(self.bytes, Ordering::Relaxed);
        if !self.finished {
            let _ = shared.disk.remove(&self.path);
        }
    }
}

fn check_room(full: bool) -> io::Result<()> {
    if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}
