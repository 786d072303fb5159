//! Parts of a message, line by line of each stream, back into the message.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Streams of one file that are told apart. Container runtimes have two; a file that invents more is damaged.
pub(super) const MAX_STREAMS: usize = 8;

/// Messages that are not whole yet.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Joiner {
    pub(super) open: Vec<Partial>,
}

/// The beginning of a message.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Partial {
    pub(super) stream: String,
    pub(super) text: String,
    /// Where the first part begins.
    pub(super) start: u64,
    /// Time of the last part, in nanoseconds since 1970.
    pub(super) time: u64,
    /// Bytes that did not fit.
    pub(super) cut: u64,
}

/// A message, whole or cut to what fits.
#[derive(Debug)]
pub(super) struct Joined<'l> {
    pub(super) text: Cow<'l, str>,
    pub(super) start: u64,
    /// Bytes that did not fit.
    pub(super) cut: u64,
}

/// A part of a message as a line has it.
#[derive(Debug)]
pub(super) struct Part<'l> {
    pub(super) text: Cow<'l, str>,
    pub(super) partial: bool,
    /// Where the line begins.
    pub(super) start: u64,
    /// The line's time, in nanoseconds since 1970.
    pub(super) time: u64,
}

impl Joiner {
    /// Takes a part of a message. Gives the message when this part is the last.
    pub(super) fn push<'l>(&mut self, stream: &str, part: Part<'l>, max_bytes: usize) -> Option<Joined<'l>> {
        let Part { text, partial, start, time } = part;
        let at = if self.open.is_empty() { None } else { self.open.iter().position(|open| open.stream == stream) };
        match at {
            None if !partial || self.open.len() == MAX_STREAMS => {
                let (text, cut) = cut(text, max_bytes);
                Some(Joined { text, start, cut })
            }
            None => {
                let (text, cut) = cut(text, max_bytes);
                self.open.push(Partial { stream: stream.to_owned(), text: text.into_owned(), start, time, cut });
                None
            }
            Some(at) => {
                self.open[at].append(&text, time, max_bytes);
                if partial {
                    return None;
                }
                let Partial { text, start, cut, .. } = self.open.remove(at);
                Some(Joined { text: Cow::Owned(text), start, cut })
            }
        }
    }
}

impl Partial {
    /// Adds what fits; once something did not, nothing does.
    fn append(&mut self, text: &str, time: u64, max_bytes: usize) {
        self.time = time;
        let room = if self.cut > 0 { 0 } else { max_bytes.saturating_sub(self.text.len()) };
        let fits = text.floor_char_boundary(room);
        self.text.push_str(&text[..fits]);
        self.cut += (text.len() - fits) as u64;
    }
}

/// What fits of a text, and the number of bytes that do not.
pub(super) fn cut(text: Cow<'_, str>, max_bytes: usize) -> (Cow<'_, str>, u64) {
    if text.len() <= max_bytes {
        return (text, 0);
    }
    let fits = text.floor_char_boundary(max_bytes);
    let cut = (text.len() - fits) as u64;
    let text = match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..fits]),
        Cow::Owned(mut text) => {
            text.truncate(fits);
            Cow::Owned(text)
        }
    };
    (text, cut)
}
