//! Lines of one event into one message: by a pattern for first lines, or by the shape of stack traces.
//!
//! Lines of each stream are grouped apart. A group ends with the line that does not belong to it, when it is as long as
//! it may be, or when nothing came for a while; what would not fit begins the next group, so nothing is lost.

mod settings;
mod traces;

use std::borrow::Cow;
use std::time::Duration;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

pub use settings::MultiLineSettings;
pub use traces::Language;
use traces::{States, Traces};

/// Streams of one file whose lines are grouped at a time.
const MAX_GROUPS: usize = 8;

/// Bytes that a pattern may take, compiled: whoever runs a pod may write one.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// How lines of one event are recognised, and how long an event may be.
#[derive(Debug)]
pub struct MultiLine {
    rule: Rule,
    max_lines: usize,
    max_wait: Duration,
}

#[derive(Debug)]
enum Rule {
    FirstLine(Regex),
    Traces(Traces),
}

impl MultiLine {
    /// Most lines of an event unless configured otherwise.
    pub const DEFAULT_MAX_LINES: usize = 1000;
    /// How long a group waits for its next line unless configured otherwise.
    pub const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(1);

    /// Every line that matches `pattern` begins an event; others go on with the one before.
    ///
    /// # Errors
    /// When the pattern is not a regular expression.
    pub fn first_line(pattern: &str) -> Result<Self, regex::Error> {
        let regex = RegexBuilder::new(pattern).size_limit(MAX_PATTERN_BYTES).build()?;
        Ok(Self::new(Rule::FirstLine(regex)))
    }

    /// Stack traces of these languages are events; every other line is one of its own.
    pub fn traces(languages: &[Language]) -> Self {
        Self::new(Rule::Traces(Traces::new(languages)))
    }

    fn new(rule: Rule) -> Self {
        Self { rule, max_lines: Self::DEFAULT_MAX_LINES, max_wait: Self::DEFAULT_MAX_WAIT }
    }

    /// The same with other bounds: most lines of an event, and how long a group waits for its next line.
    #[must_use]
    pub fn bounded(self, max_lines: usize, max_wait: Duration) -> Self {
        Self { max_lines, max_wait, ..self }
    }

    pub(crate) fn max_wait_ns(&self) -> u64 {
        u64::try_from(self.max_wait.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A message on its way to an entry.
#[derive(Debug)]
pub(crate) struct Message<'l> {
    pub(crate) timestamp: u64,
    pub(crate) observed: u64,
    pub(crate) stream: Cow<'l, str>,
    pub(crate) text: Cow<'l, str>,
    pub(crate) start: u64,
    /// Bytes that did not fit.
    pub(crate) cut: u64,
}

/// Lines of an event that has not ended.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Group {
    stream: String,
    pub(crate) text: String,
    timestamp: u64,
    /// When its first line was read.
    observed: u64,
    /// When its last line was read.
    latest: u64,
    start: u64,
    pub(crate) cut: u64,
    lines: usize,
    state: States,
}

/// The open groups of a file, at most one for each stream.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Groups {
    pub(crate) open: Vec<Group>,
}

impl Groups {
    /// Takes a message; shows the events that end with it or before it.
    pub(crate) fn push(&mut self, rules: &MultiLine, message: Message<'_>, max_bytes: usize, each: &mut impl FnMut(Message<'_>)) {
        let at = self.open.iter().position(|group| group.stream == *message.stream);
        let state = at.map_or(States::START, |at| self.open[at].state);
        let step = rules.step(state, &message.text);
        let mut at = at;
        if let Some(index) = at
            && (step.begins || !self.open[index].has_room(&message, rules.max_lines, max_bytes))
        {
            each(self.open.remove(index).into_message());
            at = None;
        }
        match at {
            Some(index) => {
                self.open[index].append(&message, step.state);
                if step.ends {
                    each(self.open.remove(index).into_message());
                }
            }
            None if step.ends => each(message),
            None => {
                if self.open.len() == MAX_GROUPS {
                    each(self.open.remove(0).into_message());
                }
                self.open.push(Group::new(message, step.state));
            }
        }
    }

    /// Shows the events that got no line for `max_wait_ns`.
    pub(crate) fn tick(&mut self, now: u64, max_wait_ns: u64, each: &mut impl FnMut(Message<'_>)) {
        for group in &mut self.open {
            // A clock that was set back must not make an event wait for it.
            group.latest = group.latest.min(now);
        }
        let due: Vec<Group> = self.open.extract_if(.., |group| now - group.latest >= max_wait_ns).collect();
        due.into_iter().for_each(|group| each(group.into_message()));
    }

    /// Shows all events.
    pub(crate) fn finish(&mut self, each: &mut impl FnMut(Message<'_>)) {
        self.open.drain(..).for_each(|group| each(group.into_message()));
    }

    /// Where the open events begin.
    pub(crate) fn starts(&self) -> impl Iterator<Item = u64> {
        self.open.iter().map(|group| group.start)
    }
}

/// What a line does to the group of its stream.
struct Step {
    /// It does not belong to the open group.
    begins: bool,
    /// No line after it belongs to its group.
    ends: bool,
    /// What the next line is looked at with.
    state: States,
}

impl MultiLine {
    fn step(&self, state: States, line: &str) -> Step {
        match &self.rule {
            Rule::FirstLine(pattern) => Step { begins: pattern.is_match(line), ends: false, state },
            Rule::Traces(traces) => match traces.next(state, line) {
                Some(next) if state != States::START => Step { begins: false, ends: next == States::START, state: next },
                _ => {
                    let next = traces.next(States::START, line).unwrap_or(States::START);
                    Step { begins: true, ends: next == States::START, state: next }
                }
            },
        }
    }
}

impl Group {
    fn new(message: Message<'_>, state: States) -> Self {
        let Message { timestamp, observed, stream, text, start, cut } = message;
        let (stream, text) = (stream.into_owned(), text.into_owned());
        Self { stream, text, timestamp, observed, latest: observed, start, cut, lines: 1, state }
    }

    fn has_room(&self, message: &Message<'_>, max_lines: usize, max_bytes: usize) -> bool {
        self.cut == 0 && self.lines < max_lines && self.text.len() + 1 + message.text.len() <= max_bytes
    }

    fn append(&mut self, message: &Message<'_>, state: States) {
        self.text.push('\n');
        self.text.push_str(&message.text);
        self.cut += message.cut;
        self.latest = message.observed;
        self.lines += 1;
        self.state = state;
    }

    /// The event, without the empty lines that traces may have between their parts.
    fn into_message(mut self) -> Message<'static> {
        let trimmed = self.text.trim_end_matches('\n').len();
        self.text.truncate(trimmed);
        Message {
            timestamp: self.timestamp,
            observed: self.observed,
            stream: Cow::Owned(self.stream),
            text: Cow::Owned(self.text),
            start: self.start,
            cut: self.cut,
        }
    }
}
