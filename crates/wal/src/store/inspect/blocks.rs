//! The blocks of a file, one at a time: memory does not depend on the length of an intact file.

use std::io;
use std::ops::Range;

use crate::disk::File;
use crate::segment::{self, DamageKind, HEADER, rows_of, scan};
use crate::store::reader::read_block;

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Readable blocks.
    pub blocks: usize,
    /// CSV records in them.
    pub rows: u64,
    /// Digest over them.
    pub digest: u64,
    /// Their ranges, neighbours joined.
    pub good: Vec<Range<u64>>,
    /// Unreadable ranges, with the reason.
    pub damaged: Vec<(Range<u64>, DamageKind)>,
}

impl Checked {
    fn add_good(&mut self, range: Range<u64>) {
        match self.good.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.good.push(range),
        }
    }
}

/// Reads the blocks in the first `end` bytes of a file and hands the value of each readable one, header line and rows,
/// to `visit`. A file with a damaged block is read whole from there on, to find the next good one.
pub(super) fn read(file: &dyn File, end: u64, headed: bool, visit: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<Checked> {
    let len = file.len()?.min(end);
    let mut checked = Checked::default();
    let mut header = [0; HEADER.len()];
    let read = file.read_at(&mut header, 0)?.min(usize::try_from(len).unwrap_or(usize::MAX));
    if len == 0 {
        return Ok(checked);
    }
    if !segment::is_segment(&header[..read]) {
        checked.damaged.push((0..len, DamageKind::NotASegment));
        return Ok(checked);
    }
    let (mut at, mut block, mut value) = (HEADER.len() as u64, Vec::new(), Vec::new());
    while at < len && read_block(file, at, len, &mut block)? {
        let next = at + block.len() as u64;
        let Some(Ok(found)) = segment::blocks_at(&block, 0).next() else { break };
        // What decodes to nothing is judged with the rest of the file.
        let Ok(meta) = found.decode(&mut value) else { break };
        checked.blocks += 1;
        checked.rows += rows_of(meta, &value, headed);
        checked.digest = segment::digest(checked.digest, &block);
        checked.add_good(at..next);
        visit(&value)?;
        at = next;
    }
    if at < len {
        read_damaged(file, at..len, headed, visit, &mut checked)?;
    }
    Ok(checked)
}

fn read_damaged(
    file: &dyn File,
    range: Range<u64>,
    headed: bool,
    visit: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    checked: &mut Checked,
) -> io::Result<()> {
    let len = usize::try_from(range.end - range.start).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut rest = vec![0; len];
    let read = file.read_at(&mut rest, range.start)?;
    rest.truncate(read);
    let mut visited = Ok(());
    let found = scan(&rest, 0, |block, meta, value| {
        checked.digest = segment::digest(checked.digest, block.bytes);
        if visited.is_ok() {
            visited = visit(value);
        }
        rows_of(meta, value, headed)
    });
    visited?;
    let shift = |part: &Range<usize>| range.start + part.start as u64..range.start + part.end as u64;
    checked.blocks += found.blocks;
    checked.rows += found.rows;
    found.good.iter().for_each(|part| checked.add_good(shift(part)));
    checked.damaged.extend(found.damaged.iter().map(|(part, kind)| (shift(part), *kind)));
    Ok(())
}
