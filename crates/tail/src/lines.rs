//! From bytes of a file to whole lines.
//!
//! A line that is not finished is not kept: it is read again once there is more. Only a line longer than the buffer is
//! gathered in memory, up to the limit of a line; the rest of it is counted and left out.

use std::io;

use memchr::{memchr, memrchr};

use crate::content::{BEFORE, Cursor, HEAD, Print};
use crate::source::Source;

/// Bytes that one turn reads.
pub(crate) const READ: usize = 128 << 10;

/// What a turn found.
#[derive(Debug)]
pub(crate) enum Found {
    /// Whole lines.
    Lines(Lines),
    /// Nothing but the beginning of a line, perhaps: so many bytes.
    End { unfinished: u64 },
    /// The bytes before the cursor are not what was read: there is another content.
    Replaced,
    /// The cursor went on without a line; there is more.
    Onward,
}

/// Lines of one file.
#[derive(Debug)]
pub(crate) struct Lines {
    /// Each with its `\n`, except for the last line of an abandoned file and a line that was cut.
    pub(crate) data: Vec<u8>,
    /// What stands before `data` in the file, at most [`BEFORE`] bytes.
    pub(crate) lead: Vec<u8>,
    /// Before the first line.
    pub(crate) start: Cursor,
    /// After the last one.
    pub(crate) end: Cursor,
    /// Bytes of the only line that are left out.
    pub(crate) cut: u64,
}

impl Lines {
    /// The cursor after the line that ends at `end` of `data`.
    pub(crate) fn cursor(&self, end: usize) -> Cursor {
        if end >= self.data.len() {
            return self.end;
        }
        advance(&self.start, &self.lead, &self.data[..end])
    }
}

/// The cursor behind `read`, which follows on `lead`.
fn advance(cursor: &Cursor, lead: &[u8], read: &[u8]) -> Cursor {
    let offset = cursor.offset + read.len() as u64;
    if read.len() >= BEFORE && cursor.head.len() == HEAD {
        return cursor.advanced(offset, read);
    }
    let mut window = Vec::with_capacity(lead.len() + read.len().min(HEAD.max(BEFORE)) + BEFORE);
    window.extend_from_slice(lead);
    if lead.len() as u64 == cursor.offset {
        // From the first byte on: the head may still grow.
        window.extend_from_slice(read);
    } else {
        window.extend_from_slice(&read[read.len().saturating_sub(BEFORE)..]);
    }
    cursor.advanced(offset, &window)
}

/// A line longer than the buffer.
#[derive(Debug)]
pub(crate) struct Long {
    kept: Vec<u8>,
    /// What was taken from the budget.
    reserved: usize,
    /// Bytes of the line so far.
    seen: u64,
    /// What was read last, for the check of what was read.
    before: Vec<u8>,
    /// The cursor's head with what the line adds.
    head: Print,
}

/// Memory for long lines, of all files together.
#[derive(Debug)]
pub(crate) struct LongBudget {
    pub(crate) left: usize,
}

/// Reads on from `cursor`, which moves behind what is found.
pub(crate) fn next(
    source: &mut Source,
    cursor: &mut Cursor,
    long: &mut Option<Box<Long>>,
    buffer: &mut Vec<u8>,
    (max_line, budget): (usize, &mut LongBudget),
) -> io::Result<Found> {
    if let Some(line) = long {
        let found = line.read_on(source, cursor, buffer)?;
        if !matches!(found, Found::Onward | Found::End { .. }) {
            release(long, budget);
        }
        return Ok(found);
    }
    // Lines of one length may end in the same bytes: the first ones are looked at, too.
    if cursor.check_from() > 0 && !cursor.gz && source.head(cursor.head.len())? != cursor.head {
        return Ok(Found::Replaced);
    }
    let check = cursor.before.len();
    let Some(read) = checked(source, cursor.check_from(), cursor.before, buffer)? else { return Ok(Found::Replaced) };
    let (lead, data) = buffer[..read].split_at(check);
    if data.first() == Some(&0) {
        return Ok(skip_zeros(source, cursor, lead, data));
    }
    if let Some(last) = memrchr(b'\n', data) {
        return Ok(Found::Lines(lines(source, cursor, lead, &data[..=last])?));
    }
    if data.len() < READ {
        return Ok(Found::End { unfinished: data.len() as u64 });
    }
    *long = Some(Long::begin(cursor, lead, data, max_line, budget));
    Ok(Found::Onward)
}

/// Fills the buffer from `from` on; `None` unless it begins with what `print` is of.
fn checked(source: &mut Source, from: u64, print: Print, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let check = print.len();
    buffer.resize(READ + BEFORE, 0);
    let read = source.read_at(from, &mut buffer[..check + READ])?;
    if read < check || Print::of(&buffer[..check]) != print {
        return Ok(None);
    }
    Ok(Some(read))
}

fn lines(source: &mut Source, cursor: &mut Cursor, lead: &[u8], data: &[u8]) -> io::Result<Lines> {
    let mut start = *cursor;
    if start.head.len() < HEAD && (lead.len() as u64) < start.offset {
        // Cursors of the reference know no bytes.
        start.head = source.head(usize::try_from(start.offset).unwrap_or(HEAD))?;
    }
    *cursor = advance(&start, lead, data);
    Ok(Lines { data: data.to_vec(), lead: lead.to_vec(), start, end: *cursor, cut: 0 })
}

/// Zeros before a line are a hole that a writer left who went on at its old offset after a truncation. At the end of a
/// file they may be room that is still to be written.
fn skip_zeros(source: &Source, cursor: &mut Cursor, lead: &[u8], data: &[u8]) -> Found {
    let zeros = data.iter().position(|byte| *byte != 0).unwrap_or(data.len());
    if zeros < data.len() {
        *cursor = advance(cursor, lead, &data[..zeros]);
        return Found::Onward;
    }
    match source.next_data(cursor.offset) {
        Some(next) if next > cursor.offset => {
            let before = if next - cursor.offset >= BEFORE as u64 { Print::of(&[0; BEFORE]) } else { Print::default() };
            *cursor = Cursor { offset: next, before, ..*cursor };
            Found::Onward
        }
        Some(_) if data.len() == READ => {
            *cursor = advance(cursor, lead, data);
            Found::Onward
        }
        _ => Found::End { unfinished: data.len() as u64 },
    }
}

/// Forgets a long line.
pub(crate) fn release(long: &mut Option<Box<Long>>, budget: &mut LongBudget) {
    if let Some(line) = long.take() {
        budget.left += line.reserved;
    }
}

impl Long {
    fn begin(cursor: &Cursor, lead: &[u8], data: &[u8], max_line: usize, budget: &mut LongBudget) -> Box<Long> {
        let capacity = max_line.min(budget.left);
        budget.left -= capacity;
        let head = advance(cursor, lead, data).head;
        let before = data[data.len() - BEFORE..].to_vec();
        let mut line = Box::new(Long { kept: Vec::with_capacity(capacity), reserved: capacity, seen: 0, before, head });
        line.keep(data);
        line
    }

    fn keep(&mut self, data: &[u8]) {
        let room = self.reserved - self.kept.len();
        self.kept.extend_from_slice(&data[..data.len().min(room)]);
        self.seen += data.len() as u64;
    }

    fn read_on(&mut self, source: &mut Source, cursor: &mut Cursor, buffer: &mut Vec<u8>) -> io::Result<Found> {
        let at = cursor.offset + self.seen;
        let check = self.before.len();
        let Some(read) = checked(source, at - check as u64, Print::of(&self.before), buffer)? else { return Ok(Found::Replaced) };
        let data = &buffer[check..read];
        if data.is_empty() {
            return Ok(Found::End { unfinished: self.seen });
        }
        let end = memchr(b'\n', data);
        let part = end.map_or(data, |end| &data[..=end]);
        self.keep(part);
        let window = &buffer[..check + part.len()];
        self.before = window[window.len() - BEFORE..].to_vec();
        if end.is_none() {
            return Ok(Found::Onward);
        }
        Ok(Found::Lines(self.finish(cursor, 1)))
    }

    /// The line as it is, with a newline of so many bytes at its end.
    fn finish(&mut self, cursor: &mut Cursor, newline: u64) -> Lines {
        let start = *cursor;
        let end = Cursor { offset: start.offset + self.seen, head: self.head, before: Print::of(&self.before), ..start };
        let whole = self.seen == self.kept.len() as u64;
        let cut = if whole { 0 } else { self.seen - newline - self.kept.len() as u64 };
        *cursor = end;
        Lines { data: std::mem::take(&mut self.kept), lead: Vec::new(), start, end, cut }
    }
}

/// The unfinished line at the end of a file that nobody writes to any more.
pub(crate) fn last_line(
    source: &mut Source,
    cursor: &mut Cursor,
    long: &mut Option<Box<Long>>,
    buffer: &mut Vec<u8>,
    budget: &mut LongBudget,
) -> io::Result<Option<Lines>> {
    if let Some(line) = long {
        let lines = line.finish(cursor, 0);
        release(long, budget);
        return Ok(Some(lines));
    }
    let check = cursor.before.len();
    let Some(read) = checked(source, cursor.check_from(), cursor.before, buffer)? else { return Ok(None) };
    let (lead, data) = buffer[..read].split_at(check);
    if data.is_empty() {
        return Ok(None);
    }
    lines(source, cursor, lead, data).map(Some)
}
