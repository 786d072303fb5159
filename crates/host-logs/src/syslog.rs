//! Syslog: framing of streams (RFC 6587) and messages (RFC 3164, RFC 5424).

use bytes::{Buf, Bytes, BytesMut};
use chrono::{DateTime, Datelike, Local, TimeZone, Utc};
use logs::{Destination, Map, Record, Value};
use syslog_loose::{IncompleteDate, ProcId, Variant};
use tokio_util::codec::Decoder;

use crate::Priority;

/// Reads the messages of a stream, each with a count before it (`12 <34>1 …`) or a newline behind it. Of messages above
/// a limit the start is kept.
#[derive(Debug)]
pub struct Framing {
    max_bytes: usize,
    /// What is still to come of a message whose start was given.
    skip: Skip,
    /// Bytes that were left out.
    cut: u64,
    /// Whether the stream ended within a message.
    torn: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skip {
    Nothing,
    Bytes(usize),
    Line,
}

/// One message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The message, or its start.
    pub bytes: Bytes,
    /// Whether it is only the start.
    pub truncated: bool,
}

/// Why a stream cannot be read further.
#[derive(Debug, thiserror::Error)]
pub enum FramingError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A count of this many digits is no count.
    #[error("a message of a stream begins with its length, up to ten digits and a space, or with '<'")]
    Count,
}

/// Digits of a count; messages are far below that.
const MAX_DIGITS: usize = 10;

impl Framing {
    /// A framing that keeps up to `max_bytes` of a message.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Framing { max_bytes, skip: Skip::Nothing, cut: 0, torn: false }
    }

    /// Keeps up to `max_bytes` of the messages to come.
    pub fn set_max_bytes(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
    }

    /// Bytes that were left out of long messages since the last call.
    pub fn take_cut(&mut self) -> u64 {
        std::mem::take(&mut self.cut)
    }

    /// Whether the stream ended within a message that is left out, since its length says that it is not whole.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// Drops what is left of a message that was too long; whether it is behind us.
    fn skip(&mut self, src: &mut BytesMut) -> bool {
        match self.skip {
            Skip::Nothing => true,
            Skip::Bytes(left) => {
                let now = left.min(src.len());
                src.advance(now);
                self.cut += now as u64;
                self.skip = if now == left { Skip::Nothing } else { Skip::Bytes(left - now) };
                self.skip == Skip::Nothing
            }
            Skip::Line => match src.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    src.advance(end + 1);
                    self.cut += end as u64;
                    self.skip = Skip::Nothing;
                    true
                }
                None => {
                    self.cut += src.len() as u64;
                    src.clear();
                    false
                }
            },
        }
    }

    fn counted(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, FramingError> {
        let Some(space) = src.iter().take(MAX_DIGITS + 1).position(|byte| !byte.is_ascii_digit()) else {
            return if src.len() > MAX_DIGITS { Err(FramingError::Count) } else { Ok(None) };
        };
        let count = std::str::from_utf8(&src[..space]).ok().and_then(|digits| digits.parse::<usize>().ok());
        let (b' ', Some(count)) = (src[space], count) else { return Err(FramingError::Count) };
        let (start, kept) = (space + 1, count.min(self.max_bytes));
        if src.len() < start + kept {
            return Ok(None);
        }
        src.advance(start);
        let bytes = src.split_to(kept).freeze();
        self.skip = if kept < count { Skip::Bytes(count - kept) } else { Skip::Nothing };
        Ok(Some(Frame { bytes, truncated: kept < count }))
    }

    fn line(&mut self, src: &mut BytesMut) -> Option<Frame> {
        match src.iter().take(self.max_bytes + 1).position(|byte| *byte == b'\n') {
            Some(end) => {
                let bytes = src.split_to(end).freeze();
                src.advance(1);
                Some(Frame { bytes, truncated: false })
            }
            None if src.len() > self.max_bytes => {
                let bytes = src.split_to(self.max_bytes).freeze();
                self.skip = Skip::Line;
                Some(Frame { bytes, truncated: true })
            }
            None => None,
        }
    }
}

impl Decoder for Framing {
    type Item = Frame;
    type Error = FramingError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, FramingError> {
        if !self.skip(src) {
            return Ok(None);
        }
        // Between messages some senders put newlines and NULs.
        let blank = src.iter().take_while(|byte| matches!(byte, b'\n' | b'\r' | 0)).count();
        src.advance(blank);
        match src.first() {
            None => Ok(None),
            Some(b'0'..=b'9') => self.counted(src),
            Some(_) => Ok(self.line(src)),
        }
    }

    /// The last message of a stream may lack its newline.
    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, FramingError> {
        if let Some(frame) = self.decode(src)? {
            return Ok(Some(frame));
        }
        let counted = src.first().is_some_and(u8::is_ascii_digit);
        let rest = src.split().freeze();
        // What has a count and is shorter is torn.
        self.torn |= counted;
        Ok((!rest.is_empty() && !counted).then_some(Frame { bytes: rest, truncated: false }))
    }
}

/// A message as a record.
///
/// The text is the body; host, program, process, message id, facility and structured data are attributes, under the
/// names that OpenTelemetry's syslog receiver gives them. Times without a year are of the last twelve months before
/// `now`, and times without a zone are local. What is no syslog message is a body without attributes.
#[must_use]
pub fn record(message: &[u8], now: DateTime<Utc>, destination: &Destination) -> Record {
    let text = String::from_utf8_lossy(message);
    let text = text.trim_end_matches(['\n', '\r', '\0']);
    let observed = nanoseconds(now);
    let mut record = Record { timestamp: observed, observed, destination: Some(destination.clone()), ..Record::default() };
    let year = |date: IncompleteDate| year_of(date, now);
    let Ok(parsed) = syslog_loose::parse_message_with_year_exact_tz(text, year, Some(Local), Variant::Either) else {
        record.body = Record::message(text);
        return record;
    };
    if let Some(time) = parsed.timestamp {
        record.timestamp = nanoseconds(time);
    }
    if let Some(severity) = parsed.severity {
        let priority = Priority::of_pri(severity as u32);
        priority.apply(&mut record);
        record.attributes.insert("priority".to_owned(), Value::Int(priority.number().into()));
    }
    let text_of = |name: &str, value: Option<&str>, attributes: &mut Map| {
        if let Some(value) = value {
            attributes.insert(name.to_owned(), value.into());
        }
    };
    text_of("hostname", parsed.hostname, &mut record.attributes);
    text_of("appname", parsed.appname, &mut record.attributes);
    text_of("msg_id", parsed.msgid, &mut record.attributes);
    text_of("facility", parsed.facility.map(|facility| facility.as_str()), &mut record.attributes);
    match parsed.procid {
        Some(ProcId::PID(pid)) => drop(record.attributes.insert("proc_id".to_owned(), Value::Int(pid.into()))),
        Some(ProcId::Name(name)) => drop(record.attributes.insert("proc_id".to_owned(), name.into())),
        None => {}
    }
    let structured: Map = parsed
        .structured_data
        .iter()
        .map(|element| {
            let params = element.params().map(|(name, value)| (name.to_string(), Value::String(value.to_string()))).collect();
            (element.id.to_owned(), Value::Map(params))
        })
        .collect();
    if !structured.is_empty() {
        record.attributes.insert("structured_data".to_owned(), Value::Map(structured));
    }
    record.body = Record::message(parsed.msg);
    record
}

fn nanoseconds<Z: TimeZone>(time: DateTime<Z>) -> u64 {
    time.timestamp_nanos_opt().and_then(|time| u64::try_from(time).ok()).unwrap_or(0)
}

/// The year that puts a date into the twelve months before tomorrow.
fn year_of((month, day, ..): IncompleteDate, now: DateTime<Utc>) -> i32 {
    let tomorrow = now + chrono::TimeDelta::days(1);
    if (month, day) > (tomorrow.month(), tomorrow.day()) { tomorrow.year() - 1 } else { tomorrow.year() }
}

#[cfg(test)]
mod tests;
