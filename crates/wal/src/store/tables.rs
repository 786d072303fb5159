//! Rows on their way into segments: the pieces of each table in one pool, and the open segments behind them.
//!
//! A table that is idle is not in here: no buffer, no file, no timer.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::checkpoint::OpenRecord;
use super::frames::{DataHead, SealedRecord, SectionHead};
use super::pool::{Home, Piece, Pool, Spare};
use super::stage::{Contents, Place};
use crate::disk::{Disk, File, Open};
use crate::segment::{self, BlockMeta, FileName, HEADER, Scratch};
use crate::types::{Options, SegmentId, TableKey, TableMap};

/// Name of a segment that is being written: nobody may read it.
pub(crate) fn open_name(id: SegmentId) -> String {
    format!("open-{:016x}.tmp", id.0)
}

/// Id in the name of an open segment.
pub(crate) fn parse_open_name(name: &str) -> Option<SegmentId> {
    let hex = name.strip_prefix("open-")?.strip_suffix(".tmp")?;
    u64::from_str_radix(hex, 16).ok().map(SegmentId)
}

/// The documented name of a segment.
pub(crate) fn file_name(table: &TableKey, id: SegmentId) -> String {
    FileName {
        database: table.database.to_string(),
        table: table.table.to_string(),
        schema: Some(table.schema.to_string()),
        epoch: format!("{:016x}", id.0),
    }
    .to_string()
}

/// The name in the directory: the documented one where a file system can take it.
pub(crate) fn disk_name(table: &TableKey, id: SegmentId) -> String {
    const NAME_MAX: usize = 255;
    let name = file_name(table, id);
    if name.len() <= NAME_MAX { name } else { format!("{:016x}.segment", id.0) }
}

/// Rows of one table that are not in a segment yet.
#[derive(Default)]
pub(crate) struct Table {
    runs: VecDeque<Run>,
    /// Bytes in `runs`.
    pub(crate) buffered: usize,
    pub(crate) buffered_rows: u64,
    /// When the first row came that is not in a sealed segment.
    pub(crate) first_ms: u64,
    /// The frame it came with.
    first_lsn: u64,
    pub(crate) open: Option<OpenSegment>,
    /// While a lost segment is made again: how many sections each of its remaining blocks holds.
    pub(crate) plan: VecDeque<u32>,
}

/// Consecutive rows of one form.
enum Run {
    Rows { header: Arc<[u8]>, sample_type: u8, pieces: VecDeque<Piece> },
    Blocks { bytes: Vec<u8>, rows: u64 },
}

/// A segment that is appended to.
#[derive(Debug, Clone)]
pub(crate) struct OpenSegment {
    pub(crate) id: SegmentId,
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
    pub(crate) digest: u64,
    pub(crate) layout: Vec<u32>,
}

/// All tables with unsealed rows.
pub(crate) struct Tables {
    pub(crate) map: TableMap<Table>,
    pool: Pool,
    /// Bytes of all rows and blocks that are in no segment.
    pub(crate) buffered: usize,
    /// Bytes of blocks among them.
    blocks: usize,
    /// Bytes of all open segments.
    pub(crate) open_bytes: u64,
    /// Open segments with writes that are not synced.
    pub(crate) dirty: HashSet<SegmentId>,
    pub(crate) written_bytes: u64,
    files: FileCache,
    scratch: Scratch,
    block_bytes: usize,
    /// Tables that have grown past a block, or a segment, since they were looked at.
    pub(crate) grown: Vec<TableKey>,
    pub(crate) full: Vec<TableKey>,
    segment_max_bytes: u64,
}

impl Tables {
    pub(crate) fn new(disk: Arc<dyn Disk>, options: &Options, spare: Arc<Spare>) -> Tables {
        let Options { memtable_bytes, block_bytes, segment_max_bytes, ref dir, .. } = *options;
        Tables {
            map: TableMap::default(),
            pool: Pool::new(memtable_bytes, spare),
            buffered: 0,
            blocks: 0,
            open_bytes: 0,
            dirty: HashSet::new(),
            written_bytes: 0,
            files: FileCache::new(disk, dir.to_owned(), files_to_keep_open()),
            scratch: Scratch::default(),
            block_bytes,
            grown: Vec::new(),
            full: Vec::new(),
            segment_max_bytes,
        }
    }

    /// Takes the rows of a committed frame.
    pub(crate) fn push(&mut self, head: &DataHead, contents: Contents, lsn: u64, now_ms: u64) {
        let Contents { mut buffers, places } = contents;
        let mut last: Option<(usize, Home)> = None;
        for (section, Place { buffer, start, len }) in head.sections.iter().zip(places) {
            if section.blocks {
                self.blocks += len;
                // Blocks have their buffer to themselves.
                let run = Run::Blocks { bytes: std::mem::take(&mut buffers[buffer]), rows: u64::from(section.rows) };
                self.add(section, len, lsn, now_ms, |table| table.runs.push_back(run));
                continue;
            }
            let home = match last {
                Some((known, home)) if known == buffer => home,
                _ => self.pool.add(std::mem::take(&mut buffers[buffer])),
            };
            last = Some((buffer, home));
            self.add(section, len, lsn, now_ms, |table| table.push(section, home.piece(start, len, section.rows)));
        }
    }

    /// Counts a section of `len` bytes, and gives it to its table.
    #[inline]
    fn add(&mut self, section: &SectionHead, len: usize, lsn: u64, now_ms: u64, give: impl FnOnce(&mut Table)) {
        let key = &section.table;
        let table = match self.map.get_mut(key) {
            Some(table) => table,
            None => self.map.entry(key.clone()).or_default(),
        };
        if table.is_empty() {
            (table.first_ms, table.first_lsn) = (now_ms, lsn);
        }
        let before = table.buffered;
        table.buffered += len;
        self.buffered += len;
        table.buffered_rows += u64::from(section.rows);
        if before < self.block_bytes && table.buffered >= self.block_bytes {
            self.grown.push(key.clone());
        }
        give(table);
    }

    /// Memory of all rows and blocks that are in no segment.
    pub(crate) fn held(&self) -> usize {
        self.pool.held() + self.blocks
    }

    /// Moves what is left of rows together, so that little more is held than they need.
    pub(crate) fn compact(&mut self) {
        let runs = self.map.values_mut().flat_map(|table| &mut table.runs);
        let pieces = runs.filter_map(|run| match run {
            Run::Rows { pieces, .. } => Some(pieces),
            Run::Blocks { .. } => None,
        });
        self.pool.compact(|each| pieces.flatten().for_each(each));
    }

    /// Writes the buffer of a table into its open segment. With `whole_blocks` the last, smaller one stays.
    /// On an error the rows that were not written stay in the buffer.
    pub(crate) fn freeze(&mut self, key: &TableKey, whole_blocks: bool, new_id: &mut dyn FnMut() -> SegmentId) -> io::Result<()> {
        let Some(table) = self.map.get_mut(key) else { return Ok(()) };
        let mut out = Vec::new();
        while let Some(chunk) = table.next_chunk(self.block_bytes, whole_blocks) {
            out.clear();
            let open = match &mut table.open {
                Some(open) => open,
                none => none.insert(self.files.create(new_id())?),
            };
            if open.bytes == 0 {
                out.extend_from_slice(&HEADER);
            }
            let start = out.len();
            chunk.encode(table.runs.front(), &self.pool, &mut out, &mut self.scratch);
            let file = self.files.get(open.id)?;
            file.write_at(&out, open.bytes)?;
            self.dirty.insert(open.id);
            self.written_bytes += out.len() as u64;
            for block in segment::blocks_at(&out, start).flatten() {
                open.digest = segment::digest(open.digest, block.bytes);
            }
            open.bytes += out.len() as u64;
            open.rows += chunk.rows;
            if let Some(pieces) = chunk.pieces {
                open.layout.push(pieces);
            }
            self.open_bytes += out.len() as u64;
            self.buffered -= chunk.bytes;
            self.blocks -= if chunk.pieces.is_none() { chunk.bytes } else { 0 };
            table.remove(&chunk, &mut self.pool);
            if open_is_full(table, self.segment_max_bytes) {
                self.full.push(key.clone());
            }
        }
        Ok(())
    }

    /// What a table's open segment becomes when it is sealed now. Its buffer must be frozen.
    pub(crate) fn sealing(&self, key: &TableKey, last_lsn: u64, number: u64) -> Option<SealedRecord> {
        let table = self.map.get(key)?;
        let open = table.open.as_ref().filter(|open| open.rows > 0)?;
        Some(SealedRecord {
            id: open.id,
            table: key.clone(),
            first_lsn: table.first_lsn,
            last_lsn,
            number,
            bytes: open.bytes,
            rows: open.rows,
            digest: open.digest,
            created_ms: table.first_ms,
            layout: open.layout.clone(),
        })
    }

    /// The open segment `id` of `key` was sealed. Its buffer is empty, unless a damaged journal left rows
    /// over, which begin a new segment.
    pub(crate) fn sealed(&mut self, key: &TableKey, id: SegmentId, now_ms: u64) {
        let Some(table) = self.map.get_mut(key) else { return };
        if let Some(open) = table.open.take_if(|open| open.id == id) {
            self.open_bytes -= open.bytes;
            self.dirty.remove(&open.id);
            self.files.close(open.id);
        }
        if table.is_empty() {
            self.map.remove(key);
        } else {
            table.first_ms = now_ms;
        }
    }

    /// Tables whose first row is older than `age_ms`.
    pub(crate) fn aged(&self, now_ms: u64, age_ms: u64) -> Vec<TableKey> {
        // Also those of the future: before a restart the clock was wrong, and nobody knows how old they are.
        let aged = self.map.iter().filter(|(_, table)| now_ms.abs_diff(table.first_ms) >= age_ms);
        aged.map(|(key, _)| key.clone()).collect()
    }

    /// Tables with rows in memory, largest first.
    pub(crate) fn by_size(&self) -> Vec<TableKey> {
        let mut tables: Vec<_> = self.map.iter().filter(|(_, table)| table.buffered > 0).collect();
        tables.sort_by(|(a, left), (b, right)| right.buffered.cmp(&left.buffered).then_with(|| a.cmp(b)));
        tables.into_iter().map(|(key, _)| key.clone()).collect()
    }

    /// Open segments, for a checkpoint.
    pub(crate) fn open_records(&self) -> Vec<OpenRecord> {
        let mut records: Vec<OpenRecord> = self
            .map
            .iter()
            .filter_map(|(key, table)| {
                let open = table.open.clone()?;
                Some(OpenRecord {
                    table: key.clone(),
                    first_lsn: table.first_lsn,
                    id: open.id,
                    bytes: open.bytes,
                    rows: open.rows,
                    digest: open.digest,
                    created_ms: table.first_ms,
                    layout: open.layout,
                })
            })
            .collect();
        records.sort_by_key(|record| record.id);
        records
    }

    /// Goes on with an open segment of a checkpoint.
    pub(crate) fn restore(&mut self, record: &OpenRecord) {
        let table = self.map.entry(record.table.clone()).or_default();
        (table.first_ms, table.first_lsn) = (record.created_ms, record.first_lsn);
        self.open_bytes += record.bytes;
        table.open = Some(OpenSegment {
            id: record.id,
            bytes: record.bytes,
            rows: record.rows,
            digest: record.digest,
            layout: record.layout.clone(),
        });
    }

    /// The file of an open segment was replaced.
    pub(crate) fn forget_file(&mut self, id: SegmentId) {
        self.files.close(id);
    }
}

fn open_is_full(table: &Table, max: u64) -> bool {
    table.open.as_ref().is_some_and(|open| open.bytes >= max)
}

impl Table {
    /// Rows in the open segment.
    pub(crate) fn open_rows(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.rows)
    }

    fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.open.is_none()
    }

    #[inline]
    fn push(&mut self, section: &SectionHead, piece: Piece) {
        match self.runs.back_mut() {
            Some(Run::Rows { header, sample_type, pieces })
                if *sample_type == section.sample_type && (Arc::ptr_eq(header, &section.header) || *header == section.header) =>
            {
                pieces.push_back(piece);
            }
            _ => {
                let (header, sample_type) = (section.header.clone(), section.sample_type);
                self.runs.push_back(Run::Rows { header, sample_type, pieces: [piece].into() });
            }
        }
    }

    /// The next bytes to write, from the first run.
    fn next_chunk(&self, block_bytes: usize, whole_blocks: bool) -> Option<Chunk> {
        match self.runs.front()? {
            Run::Blocks { bytes, rows } => Some(Chunk { bytes: bytes.len(), rows: *rows, pieces: None }),
            Run::Rows { header, pieces, .. } => {
                let room = block_bytes.saturating_sub(header.len() + 8);
                let mut chunk = Chunk { bytes: 0, rows: 0, pieces: Some(0) };
                let mut closed = self.runs.len() > 1;
                let planned = self.plan.front().copied();
                for Piece { len, rows, .. } in pieces {
                    let taken = chunk.pieces.unwrap_or(0);
                    let fits = chunk.bytes + *len as usize <= room || taken == 0;
                    if planned.map_or(!fits, |plan| taken == plan) {
                        closed = true;
                        break;
                    }
                    chunk.bytes += *len as usize;
                    chunk.rows += u64::from(*rows);
                    chunk.pieces = Some(taken + 1);
                }
                closed |= planned.is_some_and(|plan| chunk.pieces == Some(plan));
                (closed || !whole_blocks).then_some(chunk)
            }
        }
    }

    fn remove(&mut self, chunk: &Chunk, pool: &mut Pool) {
        self.buffered -= chunk.bytes;
        self.buffered_rows -= chunk.rows;
        let empty = match self.runs.front_mut() {
            Some(Run::Rows { pieces, .. }) => {
                pieces.drain(..chunk.pieces.unwrap_or(0) as usize).for_each(|piece| pool.release(piece));
                self.plan.pop_front();
                pieces.is_empty()
            }
            _ => true,
        };
        if empty {
            self.runs.pop_front();
        }
        if self.runs.is_empty() {
            self.runs = VecDeque::new();
        }
    }
}

/// The front of a run, as one write.
struct Chunk {
    bytes: usize,
    rows: u64,
    /// Sections in it; `None` for ready blocks.
    pieces: Option<u32>,
}

impl Chunk {
    fn encode(&self, run: Option<&Run>, pool: &Pool, out: &mut Vec<u8>, scratch: &mut Scratch) {
        match run {
            Some(Run::Blocks { bytes, .. }) => out.extend_from_slice(bytes),
            Some(Run::Rows { header, sample_type, pieces }) => {
                let meta = BlockMeta { sample_type: *sample_type, rows: self.rows.min(u64::from(u32::MAX)) as u32 };
                segment::encode_block_with(out, meta, scratch, |value| {
                    value.extend_from_slice(header);
                    let pieces = pieces.iter().take(self.pieces.unwrap_or(0) as usize);
                    pieces.for_each(|piece| value.extend_from_slice(pool.get(*piece)));
                });
            }
            None => {}
        }
    }
}

/// A quarter of the files that the process may open.
fn files_to_keep_open() -> usize {
    const FEWEST: usize = 64;
    const MOST: usize = 4096;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit / 4).ok()).unwrap_or(MOST).clamp(FEWEST, MOST)
}

/// Descriptors of open segments, least recently used closed first.
struct FileCache {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    capacity: usize,
    open: HashMap<SegmentId, (Arc<dyn File>, u64)>,
    /// By when they were used last.
    by_use: BTreeMap<u64, SegmentId>,
    clock: u64,
}

impl FileCache {
    fn new(disk: Arc<dyn Disk>, dir: PathBuf, capacity: usize) -> FileCache {
        FileCache { disk, dir, capacity, open: HashMap::new(), by_use: BTreeMap::new(), clock: 0 }
    }

    fn create(&mut self, id: SegmentId) -> io::Result<OpenSegment> {
        let file = self.disk.open(&self.dir.join(open_name(id)), Open::Create)?;
        self.insert(id, file);
        Ok(OpenSegment { id, bytes: 0, rows: 0, digest: 0, layout: Vec::new() })
    }

    fn get(&mut self, id: SegmentId) -> io::Result<Arc<dyn File>> {
        if let Some((file, used)) = self.open.get_mut(&id) {
            self.clock += 1;
            self.by_use.remove(used);
            self.by_use.insert(self.clock, id);
            *used = self.clock;
            return Ok(file.clone());
        }
        let file = self.disk.open(&self.dir.join(open_name(id)), Open::Write)?;
        self.insert(id, file.clone());
        Ok(file)
    }

    fn insert(&mut self, id: SegmentId, file: Arc<dyn File>) {
        self.close(id);
        if self.open.len() >= self.capacity
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.open.remove(&oldest);
        }
        self.clock += 1;
        self.by_use.insert(self.clock, id);
        self.open.insert(id, (file, self.clock));
    }

    fn close(&mut self, id: SegmentId) {
        if let Some((_, used)) = self.open.remove(&id) {
            self.by_use.remove(&used);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::path::Path;

    use crate::disk::sim::SimDisk;

    #[test]
    fn the_file_that_was_used_longest_ago_is_closed_first() {
        let disk = SimDisk::new(1);
        disk.disk().create_dir_all(Path::new("/d")).unwrap();
        let mut files = FileCache::new(disk.disk(), "/d".into(), 2);
        let [one, two, three] = [1, 2, 3].map(SegmentId);
        files.create(one).unwrap();
        files.create(two).unwrap();
        files.get(one).unwrap();
        files.create(three).unwrap();
        let open = |files: &FileCache| [one, two, three].map(|id| files.open.contains_key(&id));
        assert_eq!(open(&files), [true, false, true]);
        // It is opened again in place of the one that has waited longest by now.
        files.get(two).unwrap();
        assert_eq!(open(&files), [false, true, true]);
        files.close(two);
        files.close(three);
        assert_eq!((files.open.len(), files.by_use.len()), (0, 0));
    }
}
