//! Lines of a file into messages: formats, parts joined, several lines of one event joined.

mod format;
mod join;
mod state;

use std::borrow::Cow;
use std::sync::Arc;

pub use format::LineFormat;
pub use state::StateError;

use crate::multi_line::{Groups, Message, MultiLine};
use crate::parsers::Parsers;
use crate::record::{Destination, Record};
use crate::value::{Map, Value};
use format::{Fragment, Line, Time};
use join::{Joined, Joiner, Part};

/// Longest message unless configured otherwise, in bytes.
pub const DEFAULT_MAX_BYTES: usize = 1 << 20;

/// How the lines of a file become messages.
#[derive(Clone, Debug)]
pub struct LineOptions {
    /// How lines are written.
    pub format: LineFormat,
    /// Longest message in bytes. Of a longer one as much is kept as fits, and the rest is counted.
    pub max_bytes: usize,
    /// How lines of one event are recognised; `None`: each message is an event.
    pub multi_line: Option<Arc<MultiLine>>,
}

impl Default for LineOptions {
    fn default() -> Self {
        Self { format: LineFormat::Plain, max_bytes: DEFAULT_MAX_BYTES, multi_line: None }
    }
}

/// What happened to lines.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LineCounts {
    /// Lines read.
    pub lines: u64,
    /// Entries made of them.
    pub entries: u64,
    /// Lines that are not of the format; each became an entry as it stands.
    pub bad_lines: u64,
    /// Lines whose time cannot be read; the time of reading stands for it.
    pub bad_times: u64,
    /// Lines without content in formats whose lines have some; they became nothing.
    pub empty_lines: u64,
    /// Lines with bytes that are not UTF-8, replaced by U+FFFD.
    pub invalid_utf8: u64,
    /// Entries that were cut to the longest message.
    pub cut_entries: u64,
    /// Bytes that were cut off.
    pub cut_bytes: u64,
}

impl std::ops::AddAssign for LineCounts {
    fn add_assign(&mut self, other: Self) {
        let Self { lines, entries, bad_lines, bad_times, empty_lines, invalid_utf8, cut_entries, cut_bytes } = other;
        self.lines += lines;
        self.entries += entries;
        self.bad_lines += bad_lines;
        self.bad_times += bad_times;
        self.empty_lines += empty_lines;
        self.invalid_utf8 += invalid_utf8;
        self.cut_entries += cut_entries;
        self.cut_bytes += cut_bytes;
    }
}

/// A whole message of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry<'l> {
    /// The time it carries, else the time of reading; in nanoseconds since 1970.
    pub timestamp: u64,
    /// When it was read, in nanoseconds since 1970.
    pub observed: u64,
    /// `stdout` or `stderr`; empty when the format has no streams.
    pub stream: &'l str,
    /// The text.
    pub message: &'l str,
    /// Where its first line begins in the file.
    pub start: u64,
}

impl Entry<'_> {
    /// The entry as a record, its message through `parsers`.
    pub fn record(&self, parsers: &Parsers, resource: &Arc<Map>, destination: Option<&Destination>) -> Record {
        let mut record = Record {
            timestamp: self.timestamp,
            observed: self.observed,
            resource: Arc::clone(resource),
            destination: destination.cloned(),
            ..Record::default()
        };
        if !self.stream.is_empty() {
            record.body.insert("stream".to_owned(), Value::from(self.stream));
        }
        if let Some(severity) = parsers.parse(self.message, &mut record.body) {
            record.set_severity(severity);
        }
        record
    }
}

/// Reads the lines of one file and of the files that it is rotated into.
///
/// What began and has not ended is held, bounded by [`LineOptions::max_bytes`] for each of a few streams. So that a
/// restart loses nothing, either commit [`LineReader::save`] together with the position after the last line pushed, or
/// commit no position beyond [`LineReader::unfinished`] (lines of other streams behind it then come twice).
#[derive(Debug)]
pub struct LineReader {
    options: Arc<LineOptions>,
    joiner: Joiner,
    groups: Groups,
    counts: LineCounts,
}

impl LineReader {
    /// A reader at the beginning of a message.
    pub fn new(options: Arc<LineOptions>) -> Self {
        Self { options, joiner: Joiner::default(), groups: Groups::default(), counts: LineCounts::default() }
    }

    /// A reader that goes on where another one was saved.
    ///
    /// # Errors
    /// When the bytes are not what [`LineReader::save`] gave.
    pub fn restore(options: Arc<LineOptions>, saved: &[u8]) -> Result<Self, StateError> {
        let (joiner, groups) = state::restore(saved, options.max_bytes)?;
        Ok(Self { joiner, groups, ..Self::new(options) })
    }

    /// What is not finished, to be kept with the position after the last line pushed; empty when nothing is.
    pub fn save(&self) -> Vec<u8> {
        state::save(&self.joiner, &self.groups)
    }

    /// Where the first line begins that is not part of an entry yet. Positions up to here may be committed without
    /// saving the reader.
    pub fn unfinished(&self) -> Option<u64> {
        self.joiner.open.iter().map(|open| open.start).chain(self.groups.starts()).min()
    }

    /// Changes the options for the lines to come.
    pub fn set_options(&mut self, options: Arc<LineOptions>) {
        self.options = options;
    }

    /// What happened since the last time this was asked.
    pub fn take_counts(&mut self) -> LineCounts {
        std::mem::take(&mut self.counts)
    }

    /// Takes a line, without its `\n`, that begins at byte `start` of the file and is read at `now` (nanoseconds since
    /// 1970). Shows the entries that it completes to `each`.
    pub fn push(&mut self, line: &[u8], start: u64, now: u64, mut each: impl FnMut(Entry<'_>)) {
        self.counts.lines += 1;
        let line = match std::str::from_utf8(line) {
            Ok(line) => Cow::Borrowed(line),
            Err(_) => {
                self.counts.invalid_utf8 += 1;
                String::from_utf8_lossy(line)
            }
        };
        let fragment = match format::read(self.options.format, &line) {
            Line::Fragment(fragment) => fragment,
            Line::Empty => {
                self.counts.empty_lines += 1;
                return;
            }
            Line::Bad => {
                self.counts.bad_lines += 1;
                let text = Cow::Borrowed(&*line);
                Fragment { time: Time::Absent, stream: Cow::Borrowed(""), text, partial: false }
            }
        };
        let timestamp = match fragment.time {
            Time::Known(time) => time,
            Time::Absent => now,
            Time::Bad => {
                self.counts.bad_times += 1;
                now
            }
        };
        let Fragment { stream, text, partial, .. } = fragment;
        let part = Part { text, partial, start, time: timestamp };
        let Some(joined) = self.joiner.push(&stream, part, self.options.max_bytes) else { return };
        let message = message(joined, timestamp, now, stream);
        self.complete(message, &mut each);
    }

    /// Shows the entries that have waited long enough for more lines to `each`. To be called about every second, also
    /// when no lines come.
    pub fn tick(&mut self, now: u64, mut each: impl FnMut(Entry<'_>)) {
        let counts = &mut self.counts;
        let max_wait = self.options.multi_line.as_ref().map_or(0, |multi_line| multi_line.max_wait_ns());
        self.groups.tick(now, max_wait, &mut |message| emit(counts, &message, &mut each));
    }

    /// Shows everything that is unfinished to `each` as it is: no more lines will come.
    pub fn finish(&mut self, now: u64, mut each: impl FnMut(Entry<'_>)) {
        for open in std::mem::take(&mut self.joiner.open) {
            let joined = Joined { text: Cow::Owned(open.text), start: open.start, cut: open.cut };
            let message = message(joined, open.time, now, Cow::Owned(open.stream));
            self.complete(message, &mut each);
        }
        let counts = &mut self.counts;
        self.groups.finish(&mut |message| emit(counts, &message, &mut each));
    }

    fn complete(&mut self, message: Message<'_>, each: &mut impl FnMut(Entry<'_>)) {
        let counts = &mut self.counts;
        match &self.options.multi_line {
            Some(multi_line) => {
                let max_bytes = self.options.max_bytes;
                self.groups.push(multi_line, message, max_bytes, &mut |message| emit(counts, &message, each));
            }
            None => {
                self.groups.finish(&mut |message| emit(counts, &message, each));
                emit(counts, &message, each);
            }
        }
    }
}

/// A message without the carriage return that terminals put at its end.
fn message<'l>(joined: Joined<'l>, timestamp: u64, observed: u64, stream: Cow<'l, str>) -> Message<'l> {
    let Joined { mut text, start, cut } = joined;
    if cut == 0 && text.ends_with('\r') {
        match &mut text {
            Cow::Borrowed(text) => *text = &text[..text.len() - 1],
            Cow::Owned(text) => {
                text.pop();
            }
        }
    }
    Message { timestamp, observed, stream, text, start, cut }
}

fn emit(counts: &mut LineCounts, message: &Message<'_>, each: &mut impl FnMut(Entry<'_>)) {
    let Message { timestamp, observed, stream, text, start, cut } = message;
    counts.entries += 1;
    counts.cut_entries += u64::from(*cut > 0);
    counts.cut_bytes += cut;
    each(Entry { timestamp: *timestamp, observed: *observed, stream, message: text, start: *start });
}
